"""theta_0: the weights of a network before any training, each leaf cut from one draw."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Key, Shaped

from nets_jax.kinds import NUMBERS, POSITIVE
from nets_jax.networks.adapter import Network, Params, Scale, draw_variables
from nets_jax.networks.layers import Layer, find_layers, scale_of_each
from nets_jax.networks.maskable import layer_name
from nets_jax.settings import setting
from nets_jax.structs import Struct


@struct.dataclass
class Normal(Struct):
  """Kernels ~ N(0, scale) (paper, 3.1); see `initial_weights`.

  Attributes:
    scale: one number, or one for each layer, in the order in which the network applies them (traced).
  """

  scale: Scale = setting(
    0.1,
    "Standard deviation of initial weights; one number, or one for each layer with commas or slashes "
    "between.",
    group="first population",
    kind=NUMBERS,
    rule=POSITIVE,
    flag="init_scale",
  )

  def __post_init__(self):
    """Takes an array of scales, one for each layer."""
    if isinstance(self.scale, np.ndarray) and self.scale.ndim == 1:
      object.__setattr__(self, "scale", tuple(float(value) for value in self.scale))


def initial_weights(
  key: Key[Array, ""],
  network: Network,
  input_shape: Sequence[int],
  init_scale: Scale,
  layers: Sequence[Layer] = (),
) -> Params:
  """theta_0: kernels ~ N(0, init_scale) (paper, 3.1); other leaves by the module's own initialiser.

  The ready-made networks start their biases at zero.

  Args:
    key: consumed.
    network: the module.
    input_shape: shape of one input, without the batch axis.
    init_scale: standard deviation of the kernels (0.1 in the paper); one number, or one for each layer, in
      the order in which the network applies them.
    layers: that can be masked, as a task has them; they are found where none are given.

  Raises:
    UsageError: not as many numbers as layers; or the module has no kernel.
  """
  module_key, kernels_key = jax.random.split(key)
  parameters = draw_variables(module_key, network, input_shape).weights
  leaves, treedef = jax.tree_util.tree_flatten_with_path(parameters)
  scales = scale_of_each(init_scale, tuple(layers) or find_layers(network, input_shape))
  kernels = {i: leaf for i, (path, leaf) in enumerate(leaves) if layer_name(path) in scales}
  drawn = draw_like(lambda size: jax.random.normal(kernels_key, (size,), jnp.float32), kernels)
  drawn = {i: leaf * scales[layer_name(leaves[i][0])] for i, leaf in drawn.items()}
  initial = [drawn[i].astype(leaf.dtype) if i in drawn else leaf for i, (_, leaf) in enumerate(leaves)]
  return jax.tree_util.tree_unflatten(treedef, initial)


def draw_like(draw: Callable[[int], Shaped[Array, "... size"]], tree: Params) -> Params:
  """Random numbers for every leaf of a tree, cut from one draw, which compiles far faster than one each.

  Args:
    draw: gives an array whose last axis has that size, its entries independent of each other.
    tree: the shapes.

  Returns:
    A tree of arrays: each leaf's shape, behind the draw's axes before the last.
  """
  leaves, treedef = jax.tree.flatten(tree)
  ends = np.cumsum([leaf.size for leaf in leaves])
  parts = jnp.split(draw(int(ends[-1])), ends[:-1], axis=-1)
  return jax.tree.unflatten(
    treedef, [part.reshape(part.shape[:-1] + leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
  )
