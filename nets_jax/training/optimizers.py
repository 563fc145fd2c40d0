"""Optimisers: any of optax's by name, a function of the learning rate, or an optax object."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import optax

from nets_jax.errors import UsageError, suggest

# A name in `optimizer_names`, a function from the learning rate to an optax transformation, or one made
# already.
Optimizer = str | Callable[[Any], optax.GradientTransformation] | optax.GradientTransformation

LEFT_OUT = ("noisy_sgd", "optimistic_adam")  # the one wants a key as well, the other is deprecated


@functools.cache
def _by_name() -> dict[str, Callable[[Any], optax.GradientTransformation]]:
  found = {}
  for name, value in vars(optax).items():  # not getattr, which warns of deprecated names
    if name in LEFT_OUT or name.startswith(("_", "scale_by_")) or not inspect.isfunction(value):
      continue
    parameters = list(inspect.signature(value).parameters.values())
    takes_a_rate = bool(parameters) and parameters[0].name == "learning_rate"
    others = [
      p for p in parameters[1:] if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    ]
    if takes_a_rate and parameters[0].default is inspect.Parameter.empty and not others:
      found[name] = value
  return found | {"momentum": functools.partial(optax.sgd, momentum=0.9)}


def optimizer_names() -> tuple[str, ...]:
  """Optax's optimisers that take nothing but a learning rate, and `momentum`: SGD with 0.9 of it."""
  return tuple(sorted(_by_name()))


def make_optimizer(optimizer: Optimizer, learning_rate: Any) -> optax.GradientTransformation:
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
