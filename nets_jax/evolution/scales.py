"""Layer scales: how large the weights of each layer are to begin with, found by mutation and selection.

This is this project's addition to the paper's operators.
"""

import functools

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Key

from nets_jax.evolution.operators import Context, Operator
from nets_jax.evolution.schedules import RATE, Linear, Rate
from nets_jax.kinds import SWITCH, Number, at_least
from nets_jax.networks.initialisation import Initialiser, Normal
from nets_jax.networks.layers import scale_of_each
from nets_jax.settings import setting
from nets_jax.tickets.ticket import Ticket, from_layers, kernels, layers_of, map_kernels


def scale_layers(key: Key[Array, ""], ticket: Ticket, deviation: Number) -> Ticket:
  """Scale mutation: the kernel of each layer times exp(N(0, deviation)), one factor for all its weights.

  The scale of a layer is then inherited with its weights, gene by gene.
  """
  layers, treedef = jax.tree.flatten(ticket.masks)
  factors = jnp.exp(deviation * jax.random.normal(key, (len(layers),), jnp.float32))
  factors = jax.tree.unflatten(treedef, list(factors))

  def scale(mask, weight, factor):
    del mask
    return (weight * factor).astype(weight.dtype)

  return ticket.replace(weights=map_kernels(scale, ticket.masks, ticket.weights, factors))


def reset_scales(key: Key[Array, ""], ticket: Ticket, initialiser: Initialiser) -> Ticket:
  """Scale reset: the kernel of each layer times what makes its root mean square that of theta_0 again.

  Of N(0, scale) that is the scale; of another distribution it is that of a new draw. A layer of zeros stays.

  Args:
    key: consumed.
    ticket: the genome.
    initialiser: of theta_0, `fitted` to the network.
  """
  if isinstance(initialiser, Normal):
    first = from_layers(ticket, scale_of_each(initialiser.scale, layers_of(ticket)))
  else:
    first = jax.tree.map(_root_mean_square, kernels(initialiser.anew(key, ticket.weights), ticket.masks))

  def scale(mask, weight, first):
    del mask
    size = _root_mean_square(weight)
    return (weight * jnp.where(size > 0, first / jnp.where(size > 0, size, 1), 1)).astype(weight.dtype)

  return ticket.replace(weights=map_kernels(scale, ticket.masks, ticket.weights, first))


def _root_mean_square(kernel: Array) -> Array:
  return jnp.sqrt(jnp.mean(jnp.square(kernel.astype(jnp.float32))))


@struct.dataclass
class ScaleLayers(Operator):
  """`scale_layers`, generation 0 too, and two children side by side by opposite factors.

  That is mirrored sampling (Brockhoff et al., 2010), by which six genomes rarely all miss the better half of
  the scales.

  Attributes:
    deviation: of the logarithm of a factor; at 0 no layer's scale changes.
    reset: whether in every other generation, 0 too, the first child has `reset_scales` instead. Scales that
      learn fastest in a short training may be worse in a long one, so the first ones come back to compete.
  """

  deviation: Rate = setting(
    Linear(2.0, 0.2),
    "Deviation of a log-normal factor of each layer: at first and, after a `to`, in the last generation.",
    group="layer scales",
    kind=RATE,
    rule=at_least(0),
  )
  reset: bool = setting(
    False,
    "In every other generation one child's layers get the first scales back.",
    group="layer scales",
    kind=SWITCH,
    static=True,
  )
  name: str = struct.field(pytree_node=False, default="scale")

  on_first = True
  paired = True

  def __call__(self, key: Key[Array, ""], child: Ticket, context: Context) -> Ticket:
    """The child at other scales."""
    sign = 1 - 2 * (context.index % 2)
    deviation = context.rate(self.deviation)
    scaled = scale_layers(key, child, sign * deviation)
    if not self.reset:
      return scaled
    is_first_child = context.index == context.elites
    resets = is_first_child & (context.generation % 2 == 0) & (deviation > 0)
    reset = reset_scales(key, child, context.initialiser)
    return jax.tree.map(functools.partial(jnp.where, resets), reset, scaled)
