"""A learning rate for each layer: the updates of its kernel, and of what stands beside it, times a factor.

For layers of ReLUs a scale is a rate in disguise. With w' = a w in one layer and the next divided by a, the
network computes as before, and SGD moves w' as it would w at the rate eta / a^2.
"""

from collections.abc import Sequence

import jax
from jaxtyping import Array

from nets_jax.errors import UsageError
from nets_jax.networks.adapter import Params, Path, Scale
from nets_jax.networks.layers import Layer
from nets_jax.networks.maskable import layer_name


def by_layer(updates: Params, rates: Scale | None, layers: Sequence[Layer]) -> Params:
  """The updates of each layer times its rate.

  Args:
    updates: of all parameters.
    rates: one number for each layer, in the order of application; or one for all; None is 1.
    layers: of the network, in that order.

  Raises:
    UsageError: there are not as many rates as layers.
  """
  factors = rate_of_each(rates, layers)
  if not factors:
    return updates
  paths = jax.tree_util.tree_flatten_with_path(updates)[0]
  homes = {home(path): factors[layer_name(path)] for path, _ in paths if layer_name(path) in factors}

  def scaled(path: Path, update: Array) -> Array:
    factor = factors.get(layer_name(path), homes.get(home(path)))
    return update if factor is None else (update * factor).astype(update.dtype)

  return jax.tree_util.tree_map_with_path(scaled, updates)


def rate_of_each(rates: Scale | None, layers: Sequence[Layer]) -> dict[str, float | Array]:
  """The rate of each layer by its name; of None nothing.

  Raises:
    UsageError: there are not as many rates as layers.
  """
  if rates is None:
    return {}
  given = list(rates) if isinstance(rates, tuple) else [rates] * len(layers)
  if len(given) != len(layers):
    names = ", ".join(layer.name for layer in layers)
    raise UsageError(f"layer_rates has {len(given)} numbers, but the network {len(layers)} layers: {names}")
  return {layer.name: rate for layer, rate in zip(layers, given, strict=True)}


def home(path: Path) -> Path:
  """Where a leaf is: the place of its layer, which kernel and bias share; a leaf at the top has its own."""
  return path[:-1] or path
