"""The loss and the score that a task names: what they are, and whether they fit its data and network."""

import inspect
from collections.abc import Callable, Mapping
from typing import TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np

from nets_jax import plugins
from nets_jax.data.dataset import Dataset
from nets_jax.data.targets import IN_WORDS, check_kind
from nets_jax.errors import UsageError, suggest
from nets_jax.kinds import describe
from nets_jax.networks.adapter import Network
from nets_jax.networks.interface import check_outputs, outputs_of
from nets_jax.training import losses, scores
from nets_jax.training.losses import LOSSES, Loss
from nets_jax.training.measures import LESS_IS_BETTER, NATS, Measures, column_name
from nets_jax.training.scores import SCORES, Score

Function = TypeVar("Function", bound=Callable)


def usual(data: Dataset | None) -> dict[str, str | None]:
  """The loss and the score that the data's targets ask for; None without data."""
  kind = data.targets if isinstance(data, Dataset) else None
  tables = {"loss": losses.TARGETS, "score": scores.TARGETS}
  return {
    name: kind and next((key for key, of in table.items() if of == kind), None)
    for name, table in tables.items()
  }


def as_named(
  given: str | Function | None, known: Mapping[str, Function], usual: str | None
) -> str | Function | None:
  """A function of ours by its name, whatever it was given by; another as it is; of None the usual name."""
  if given is None:
    return usual
  return next((name for name, function in known.items() if given is function), given)


def function_of(what: str, given: str | Function, known: Mapping[str, Function]) -> Function:
  """A loss or a score by its name; one's own as it is, or as `package.module:function` gives it.

  A reference with arguments is called with them, and so is a class; it gives the function.

  Raises:
    UsageError: there is none of that name, or what is named is no function.
  """
  if plugins.is_reference(given):
    reference = plugins.parse(cast(str, given))
    found = plugins.find(reference)
    if reference.arguments is not None or inspect.isclass(found):
      found = plugins.load(reference)
    if not callable(found):
      raise UsageError(f"{what}={given} is no function of outputs and targets, but {describe(found)!r}")
    return cast(Function, found)
  if callable(given):
    return given
  if given not in known:
    raise UsageError(f"{what} must be one of {', '.join(known)}, not {given!r}{suggest(str(given), known)}")
  return known[given]


def name_of(given: str | Callable) -> str:
  """A loss or score as columns and axes call it: by name, or by that of one's own function."""
  if plugins.is_reference(given):
    return _own_name(plugins.parse(cast(str, given)).attribute.rpartition(".")[2])
  if isinstance(given, str):
    return given
  inner = getattr(given, "func", given)
  return _own_name(getattr(inner, "__name__", type(inner).__name__))


def _own_name(name: str) -> str:
  """The column name of one's own function; `own_` before one of ours, whose unit and direction are known."""
  found = column_name(name)
  return f"own_{found}" if found in {*LOSSES, *SCORES, *NATS} else found


def measures_of(loss: str | Loss, score: str | Score, more_is_better: bool | None) -> Measures:
  """What tables and figures know of a loss and a score; of one's own score more is better if nobody says."""
  if isinstance(score, str) and score in SCORES:
    more_is_better = score not in LESS_IS_BETTER
  return Measures(name_of(loss), name_of(score), more_is_better is not False)


def check(
  network: Network,
  data: Dataset,
  loss: str | Loss | None,
  score: str | Score | None,
  *,
  label_smoothing: float,
  more_is_better: bool | None,
) -> None:
  """Raises UsageError for a loss or score that does not fit the data, the network or its own settings."""
  check_kind(data.targets, data.train.labels)
  assert loss is not None  # for data of a kind have one
  assert score is not None
  _check_kind("loss", loss, losses.TARGETS, data)
  _check_kind("score", score, scores.TARGETS, data)
  if label_smoothing and loss != "cross_entropy":
    raise UsageError(
      f"label_smoothing is a setting of cross_entropy, which {name_of(loss)} lacks; leave it out"
    )
  if more_is_better is not None and score in SCORES:
    better = "less" if score in LESS_IS_BETTER else "more"
    raise UsageError(
      f"more_is_better is for a score of your own; of {score}, {better} is better anyway; leave it out"
    )
  of_loss, of_score = function_of("loss", loss, LOSSES), function_of("score", score, SCORES)
  if loss in LOSSES:
    check_outputs(network, data.input_shape, data.num_classes, data.targets)
  elif score in SCORES:
    try:
      check_outputs(network, data.input_shape, data.num_classes, data.targets)
    except UsageError as error:
      raise UsageError(f"the score {score} does not fit: {error}; or give a score of your own") from error
  outputs = outputs_of(network, data.input_shape)
  for what, given, function, known in (("loss", loss, of_loss, LOSSES), ("score", score, of_score, SCORES)):
    if given not in known:
      _check_shape(f"{what} {name_of(given)}", function, outputs, data)


def _check_kind(what: str, given: str | Callable, targets: Mapping[str, str], data: Dataset) -> None:
  of = targets.get(given) if isinstance(given, str) else None
  if of is not None and of != data.targets:
    raise UsageError(
      f"{what} {given} is of {IN_WORDS[of]}, but the data's labels are {IN_WORDS[data.targets]}; give "
      f"{what}={usual(data)[what]}, or leave {what} out"
    )


def _check_shape(what: str, function: Callable, outputs: object, data: Dataset) -> None:
  """Raises UsageError unless a function of one's own gives a number for each example.

  It is tried on the shapes of more examples than there are outputs, so that no two axes can be taken for one
  another; nothing is computed.
  """
  labels = data.train.labels
  sizes = [size for leaf in (*jax.tree.leaves(outputs), labels[:1]) for size in np.shape(leaf)]
  count = 1 + max(sizes)

  def of_examples(leaf):
    return jax.ShapeDtypeStruct((count, *np.shape(leaf)[1:]), leaf.dtype)

  tried = jax.tree.map(of_examples, outputs), of_examples(labels)
  try:
    given = jax.eval_shape(function, *tried)
  except Exception as error:  # whatever a stranger's code raises
    shapes = ", ".join(str(list(leaf.shape)) for leaf in jax.tree.leaves(tried))
    raise UsageError(
      f"{what} failed for outputs and labels of the shapes {shapes}: {plugins.last_line(error)}; mend it"
    ) from error
  shape = getattr(given, "shape", None)
  is_number = shape is not None and not jnp.issubdtype(given.dtype, jnp.complexfloating)
  if not is_number or shape != (count,):
    found = f"numbers of shape {shape}" if is_number else f"a {type(given).__name__}"
    raise UsageError(
      f"{what} must give a number for each example, [batch], but for {count} examples it gives "
      f"{found}; take the mean over all axes but the first, say"
    )
