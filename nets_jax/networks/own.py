"""Networks of one's own, by name: `package.module:Class(width=32)`; and where a network came from."""

import dataclasses
import functools
from typing import Any

from flax import nnx

from nets_jax import plugins
from nets_jax.networks.adapter import Network, check_network, with_tuples
from nets_jax.networks.functional import Functional, from_nnx
from nets_jax.plugins import Reference

# The networks made here in this process, and by what: for the record that a ticket's file keeps. A network
# says its class alone, which does not tell by what function it was made.
_MADE: list[tuple[Network, Reference]] = []


def own_network(text: str, num_classes: int) -> Network:
  """The network that `package.module:Class(width=32)` gives.

  Args:
    text: names a class of `flax.linen` or `flax.nnx` modules, or a function that gives a linen module or a
      `Functional`. What takes `rngs` is a class or function of `flax.nnx`.
    num_classes: of the data; given to it as `num_classes` where it takes that and it is not written.

  Raises:
    UsageError: see `plugins.load`; or it gives something else.
  """
  reference = plugins.parse(text)
  if plugins.takes(plugins.find(reference), "rngs"):
    made_by = plugins.completed(reference, num_classes=num_classes, rngs=None)
    made_by = made_by._replace(arguments={k: v for k, v in (made_by.arguments or {}).items() if k != "rngs"})
    if known := _made_before(made_by):
      return known
    network: Network = from_nnx(functools.partial(_make_nnx, made_by))
  else:
    network = with_tuples(check_network(plugins.load(reference, num_classes=num_classes)))
    made_by = plugins.completed(reference, num_classes=num_classes)
    # Functions are not equal, though they were made alike.
    if isinstance(network, Functional) and (known := _made_before(made_by)):
      return known
  if isinstance(network, Functional):
    network = dataclasses.replace(network, made_by=str(made_by))
  if reference_of(network) is None:
    _MADE.append((network, made_by))
  return network


def _make_nnx(made_by: Reference, rngs: nnx.Rngs) -> Any:
  return plugins.load(made_by, rngs=rngs)


def _made_before(made_by: Reference) -> Network | None:
  return next((network for network, other in _MADE if other == made_by), None)


def reference_of(network: Network) -> Reference | None:
  """What a network, or an equal of it, was made by in this process, with all arguments.

  None of one that was not made by `own_network`.
  """
  return next((reference for made, reference in _MADE if _same(made, network)), None)


def _same(one: Network, other: Any) -> bool:
  try:
    return one is other or (type(one) is type(other) and bool(one == other))
  except (TypeError, ValueError):  # arrays among the fields cannot be compared so
    return False
