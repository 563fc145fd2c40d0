"""What the library asks of a network: parameters drawn by a key, and outputs for inputs.

Any `flax.linen` module serves, and any pair of functions; see `functional`. What a network keeps besides its
parameters (the averages of batch normalisation, say) is its state. A state is part of a training, never of a
ticket: each training begins with the network's own.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, ParamSpec, TypeVar, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.errors import ModifyScopeVariableError
from jaxtyping import Array, Key, PyTree, Shaped

from nets_jax.errors import UsageError
from nets_jax.networks.functional import Functional, mode_arguments

# A nested dict of arrays (or of their shapes and types), as `flax` lays out a module's parameters.
Params = PyTree[jax.Array | np.ndarray | jax.ShapeDtypeStruct]
# What a network keeps besides: a nested dict of arrays for each collection; {} where it keeps nothing.
NetworkState = PyTree[jax.Array | np.ndarray | jax.ShapeDtypeStruct]
Scale = float | jax.Array | tuple[float | jax.Array, ...]  # a standard deviation, for all kernels or for each
Path = tuple[Any, ...]  # of a leaf in a tree: JAX's keys, which have no common class
Network = nn.Module | Functional

STATISTICS = "batch_stats"  # flax's collection of the running averages of batches


Answer = TypeVar("Answer")
Arguments = ParamSpec("Arguments")


def remembered(function: Callable[Arguments, Answer]) -> Callable[Arguments, Answer]:
  """A function of a network, whose answers are kept; but of a network that cannot be a key of a cache."""
  cached = functools.lru_cache(maxsize=64)(function)

  @functools.wraps(function)
  def called(*arguments: Arguments.args, **named: Arguments.kwargs) -> Answer:
    try:
      hash(arguments)
    except TypeError:  # a module with an array among its fields
      return function(*arguments, **named)
    return cached(*arguments, **named)  # pyrefly: ignore[bad-argument-type]  # hash() has just taken them

  return called


class Variables(NamedTuple):
  """All that a network computes with: its parameters, and its state."""

  weights: Params
  state: NetworkState


def check_network(network: object) -> Network:
  """The network, if it is one.

  Raises:
    UsageError: it is neither a flax.linen module, made, nor a pair of functions.
  """
  if isinstance(network, Network):
    return network
  kind = network if isinstance(network, type) else type(network)
  home = next((base.__module__ for base in kind.__mro__ if "Module" in base.__name__), kind.__module__)
  if isinstance(network, type) and issubclass(network, nn.Module):
    raise UsageError(f"network must be a module, not its class; give {network.__name__}(...)")
  if home.startswith("flax.nnx"):
    raise UsageError(
      f"network must be made anew for each key; give nets_jax.from_nnx(lambda rngs: {kind.__name__}(..., "
      "rngs=rngs))"
    )
  raise UsageError(
    f"network must be a flax.linen module, not {kind.__name__} of {home}; give its functions as "
    "nets_jax.Functional(init, apply)"
  )


def with_tuples(network: Network) -> Network:
  """The module with tuples for the lists among its fields, so that it can be compared and remembered."""

  def as_tuples(value):
    return tuple(as_tuples(item) for item in value) if isinstance(value, list | tuple) else value

  if not isinstance(network, nn.Module):
    return network
  names = [field.name for field in dataclasses.fields(network) if field.name not in ("parent", "name")]
  fields = {name: getattr(network, name) for name in names}
  lists = {name: as_tuples(value) for name, value in fields.items() if isinstance(value, list | tuple)}
  changed: dict[str, Any] = {name: value for name, value in lists.items() if value != fields[name]}
  return network.clone(**changed) if changed else network


def forward(
  network: Network,
  weights: Params,
  inputs: Shaped[Array | np.ndarray, "batch ..."],
  dropout_key: Key[Array, ""] | None = None,
  *,
  state: NetworkState | None = None,
) -> jax.Array:
  """The network's outputs [batch, ...] for inputs [batch, ...]: logits, say.

  Args:
    network: the module.
    weights: its parameters.
    inputs: a batch of inputs.
    dropout_key: given in training only; a module without a `train` argument ignores it.
    state: its state; None is the one that each training begins with.
  """
  if state is None:
    state = initial_state(network, inputs.shape[1:])
  if dropout_key is not None:
    return forward_in_training(network, weights, state, inputs, dropout_key)[0]
  if isinstance(network, Functional):
    return network.apply(weights, state, inputs, key=None, train=False)[0]
  apply = cast(Callable[..., jax.Array], network.apply)  # flax gives a pair only where state is asked for
  try:
    return apply({"params": weights, **state}, inputs, **_mode(network, train=False))
  except ModifyScopeVariableError as error:
    raise UsageError(
      f"{name_of(network)} changes its state in evaluation too; take an argument train, and give "
      "use_running_average=not train to its normalisation"
    ) from error


def forward_in_training(
  network: Network,
  weights: Params,
  state: NetworkState,
  inputs: Shaped[Array | np.ndarray, "batch ..."],
  dropout_key: Key[Array, ""],
) -> tuple[jax.Array, NetworkState]:
  """The network's outputs as in a step of training, and its state after it; see `forward`."""
  if isinstance(network, Functional):
    return network.apply(weights, state, inputs, key=dropout_key, train=True)
  mode = _mode(network, train=True)
  variables = {"params": weights, **state}
  keys = {"dropout": dropout_key} if mode or state else {}
  if not state:
    return cast(Callable[..., jax.Array], network.apply)(variables, inputs, **mode, rngs=keys), state
  outputs, changed = network.apply(variables, inputs, **mode, rngs=keys, mutable=list(state))
  return outputs, {name: changed.get(name, collection) for name, collection in state.items()}


def forward_for_scores(
  network: Network, weights: Params, inputs: Shaped[Array | np.ndarray, "batch ..."]
) -> jax.Array:
  """The outputs that gradients at a batch are taken of, apart from training.

  A network that normalises by averages does so by this batch's, as a step of training does, its dropout too
  (of one fixed key): so no average is looked at. Any other computes as in evaluation, without dropout.
  """
  state = initial_state(network, inputs.shape[1:])
  if not jax.tree.leaves(state.get(STATISTICS, {})):
    return forward(network, weights, inputs, state=state)
  return forward_in_training(network, weights, state, inputs, jax.random.key(0))[0]


def _mode(network: nn.Module, train: bool) -> dict[str, Any]:
  """The arguments by which a module tells training from evaluation."""
  return mode_arguments(network.__call__, train)


def draw_variables(key: Key[Array, ""], network: Network, input_shape: Sequence[int]) -> Variables:
  """Parameters and state by the network's own initialisers.

  Args:
    key: consumed.
    network: the module.
    input_shape: shape of one input, without the batch axis.

  Raises:
    UsageError: the network has no parameters.
  """
  inputs = _example(network, tuple(input_shape))
  if isinstance(network, Functional):
    weights, state = network.init(key, inputs)
  else:
    variables = dict(network.init(key, inputs, **_mode(network, train=False)))
    weights, state = variables.pop("params", {}), _kept(variables)
  if not jax.tree.leaves(weights):
    raise UsageError(f"{name_of(network)} has no parameters, so there is nothing to train")
  return Variables(weights, state)


def _kept(collections: Mapping[str, Any]) -> dict[str, Any]:
  """The collections that are a state, without what a module writes down for its reader alone."""
  return {name: tree for name, tree in collections.items() if name not in ("intermediates", "perturbations")}


def abstract_parameters(network: Network, input_shape: Sequence[int]) -> Params:
  """The shapes and types of a network's parameters; nothing is computed."""
  return jax.eval_shape(lambda key: draw_variables(key, network, input_shape).weights, jax.random.key(0))


def initial_state(network: Network, input_shape: Sequence[int]) -> NetworkState:
  """The state that every training of a network begins with: by its own initialisers, from a fixed key."""
  if not _has_state(network, tuple(input_shape)):
    return {}  # without a draw of parameters that nobody looks at
  return draw_variables(jax.random.key(0), network, input_shape).state


@remembered
def _has_state(network: Network, input_shape: tuple[int, ...]) -> bool:
  drawn = jax.eval_shape(lambda key: draw_variables(key, network, input_shape), jax.random.key(0))
  return bool(jax.tree.leaves(drawn.state))


def keeps_statistics(network: Network, input_shape: Sequence[int]) -> bool:
  """Whether a network's state has running averages of batches; nothing is computed."""
  return _keeps_statistics(network, tuple(input_shape))


@remembered
def _keeps_statistics(network: Network, input_shape: tuple[int, ...]) -> bool:
  state = jax.eval_shape(lambda: initial_state(network, input_shape))
  return bool(jax.tree.leaves(state.get(STATISTICS, {})))


def name_of(network: Network) -> str:
  """What a message calls a network."""
  return network.name if isinstance(network, Functional) else type(network).__name__


def _example(network: Network, input_shape: tuple[int, ...]) -> jax.Array:
  """One input of zeros: of floating point numbers, or of whole ones where the network takes only these."""
  return jnp.zeros((1, *input_shape), input_type(network, input_shape))


def input_type(network: Network, input_shape: Sequence[int]) -> str:
  """The type of a network's inputs: `float32`, or `int32` of one that takes whole numbers alone."""
  return _input_type(network, tuple(input_shape))


@remembered
def _input_type(network: Network, input_shape: tuple[int, ...]) -> str:
  def takes(dtype: str) -> None:
    inputs = jax.ShapeDtypeStruct((1, *input_shape), dtype)
    if isinstance(network, Functional):  # a module may be made without a look at its inputs
      weights, state = jax.eval_shape(network.init, jax.random.key(0), inputs)
      jax.eval_shape(functools.partial(network.apply, key=None, train=False), weights, state, inputs)
    else:
      make = functools.partial(network.init, **_mode(network, train=False))
      jax.eval_shape(make, jax.random.key(0), inputs)

  try:
    takes("float32")
  except (TypeError, ValueError) as error:  # an embedding looks up whole numbers
    try:
      takes("int32")
    except Exception:
      raise error from None
    return "int32"
  return "float32"
