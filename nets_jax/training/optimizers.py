"""Optimisers: any of optax's by name, a function of the learning rate, or an optax object."""

import functools
import inspect
import zlib
from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nets_jax.errors import UsageError, suggest
from nets_jax.kinds import in_words

# A name in `optimizer_names`, a function from the learning rate to an optax transformation, or one made
# already.
Optimizer = str | Callable[..., optax.GradientTransformation] | optax.GradientTransformation
Rate = float | jax.Array | Callable[..., float | jax.Array]  # a number, or one for each iteration

LEFT_OUT = ("noisy_sgd", "optimistic_adam")  # the one wants a key as well, the other is deprecated


@functools.cache
def _by_name() -> dict[str, Callable[..., optax.GradientTransformation]]:
  optimizers = {}
  for name, value in vars(optax).items():  # not getattr, which warns of deprecated names
    if name in LEFT_OUT or name.startswith(("_", "scale_by_")) or not inspect.isfunction(value):
      continue
    parameters = list(inspect.signature(value).parameters.values())
    takes_a_rate = bool(parameters) and parameters[0].name == "learning_rate"
    others = [
      p for p in parameters[1:] if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    ]
    if takes_a_rate and parameters[0].default is inspect.Parameter.empty and not others:
      optimizers[name] = value
  return optimizers | {"momentum": functools.partial(optax.sgd, momentum=0.9)}


def optimizer_names() -> tuple[str, ...]:
  """Optax's optimisers that take nothing but a learning rate, and `momentum`: SGD with 0.9 of it."""
  return tuple(sorted(_by_name()))


def make_optimizer(optimizer: Optimizer, learning_rate: Rate | None) -> optax.GradientTransformation:
  """The optax transformation of that name, or that function's, with this learning rate.

  Raises:
    UsageError: no such optimiser, or a function that gives something else.
  """
  if isinstance(optimizer, optax.GradientTransformation):
    return optimizer
  if isinstance(optimizer, str):
    if optimizer not in _by_name():
      raise UsageError(
        f"optimizer must be one of {', '.join(optimizer_names())}, not {optimizer!r}"
        f"{suggest(optimizer, optimizer_names())}"
      )
    optimizer = _by_name()[optimizer]
  made = optimizer(learning_rate)
  if not isinstance(made, optax.GradientTransformation):
    raise UsageError(
      f"optimizer must be a function from the learning rate to an optax transformation, but gave a "
      f"{type(made).__name__}"
    )
  return made


def describe_optimizer(optimizer: Optimizer) -> str:
  """An optimiser for a record: a name; else a function's name, and a fingerprint of what it does.

  That is a CRC-32 of three updates of a few numbers, so that two rates in two objects are told apart.
  """
  if isinstance(optimizer, str):
    return optimizer
  is_object = isinstance(optimizer, optax.GradientTransformation)
  name = "an optax transformation" if is_object else in_words(getattr(optimizer, "func", optimizer))
  try:
    made, weights = make_optimizer(optimizer, 0.1), {"kernel": jnp.array([[0.5, -1.0], [2.0, 0.1]])}
    state, total = made.init(weights), 0
    for i in range(3):
      updates, state = made.update(jax.tree.map(lambda w, i=i: jnp.cos(w + i), weights), state, weights)
      total = zlib.crc32(np.asarray(cast(dict, updates)["kernel"]).tobytes(), total)
  except Exception:  # one that wants other weights than these has its name alone
    return name
  return f"{name} {total:08x}"
