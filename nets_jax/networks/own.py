"""Networks of one's own, by name: `package.module:Class(width=32)`; and where a network came from."""

from typing import Any

import flax.linen as nn

from nets_jax import plugins
from nets_jax.networks.adapter import check_module, with_tuples
from nets_jax.plugins import Reference

# The networks made here in this process, and by what: for the record that a ticket's file keeps. A network
# says its class alone, which does not tell by what function it was made.
_MADE: list[tuple[nn.Module, Reference]] = []


def own_network(text: str, num_classes: int) -> nn.Module:
  """The network that `package.module:Class(width=32)` gives.

  Args:
    text: names a `flax.linen` module class, or a function that gives a module.
    num_classes: of the data; given to it as `num_classes` where it takes that and it is not written.

  Raises:
    UsageError: see `plugins.load`; or it gives something else.
  """
  reference = plugins.parse(text)
  made = plugins.load(reference, num_classes=num_classes)
  check_module(made)
  assert isinstance(made, nn.Module)
  made = with_tuples(made)
  if reference_of(made) is None:
    _MADE.append((made, plugins.completed(reference, num_classes=num_classes)))
  return made


def reference_of(network: nn.Module) -> Reference | None:
  """What a network, or an equal of it, was made by in this process, with all arguments.

  None of one that was not made by `own_network`.
  """
  return next((reference for made, reference in _MADE if _same(made, network)), None)


def _same(one: nn.Module, other: Any) -> bool:
  try:
    return one is other or (type(one) is type(other) and bool(one == other))
  except (TypeError, ValueError):  # arrays among the fields cannot be compared so
    return False
