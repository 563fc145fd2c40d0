"""A learning rate for each layer: the updates of its kernel, and of what stands beside it, times a factor.

For layers of ReLUs without biases a scale is a rate in disguise. With w' = a w in one layer and the next
divided by a, the network computes as before, and SGD moves w' as it would w at the rate eta / a^2. A bias
would need a rate of its own, by the scales of all layers up to it.
"""

from collections.abc import Sequence

import jax
from jaxtyping import Array

from nets_jax.networks.adapter import Params, Path, Scale
from nets_jax.networks.layers import Layer, scale_of_each
from nets_jax.networks.maskable import layer_name

NAME = "layer_rates"


def by_layer(updates: Params, rates: Scale | None, layers: Sequence[Layer]) -> Params:
  """The updates of each layer times its rate.

  Args:
    updates: of all parameters.
    rates: one number for each layer, in the order of application; or one for all; None is 1.
    layers: of the network, in that order.

  Raises:
    UsageError: there are not as many rates as layers.
  """
  if rates is None:
    return updates
  factors = scale_of_each(rates, layers, NAME)
  paths = jax.tree_util.tree_flatten_with_path(updates)[0]
  homes = {home(path): factors[layer_name(path)] for path, _ in paths if layer_name(path) in factors}

  def scaled(path: Path, update: Array) -> Array:
    factor = factors.get(layer_name(path), homes.get(home(path)))
    return update if factor is None else (update * factor).astype(update.dtype)

  return jax.tree_util.tree_map_with_path(scaled, updates)


def home(path: Path) -> Path:
  """Where a leaf is: the place of its layer, which kernel and bias share; a leaf at the top has its own."""
  return path[:-1] or path
