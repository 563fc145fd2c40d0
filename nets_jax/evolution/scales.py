"""Layer scales: how large the weights of each layer are to begin with, found by mutation and selection.

This is this project's addition to the paper's operators.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from nets_jax import structs
from nets_jax.evolution.context import Context
from nets_jax.evolution.operators import Operator
from nets_jax.evolution.schedules import RATE, Linear, Rate
from nets_jax.kinds import SWITCH, Number, at_least
from nets_jax.settings import setting
from nets_jax.tickets.ticket import Ticket, map_kernels


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


@structs.dataclass
class ScaleLayers(Operator):
  """`scale_layers`, generation 0 too, and two children side by side by opposite factors.

  That is mirrored sampling (Brockhoff et al., 2010), by which six genomes rarely all miss the better half of
  the scales.

  A line of genomes that an operator keeps is never scaled, and leaves the child beside it without its pair.

  Attributes:
    deviation: of the logarithm of a factor.
    unscaled_line: whether to keep such a line. Scales that learn fastest in a short training may be worse in
      a long one, so those that layers were drawn with compete as well; see `Operator.keeps_line`.
  """

  deviation: Rate = setting(
    Linear(2.0, 0.2),
    "Deviation of a log-normal factor of each layer: at first and, after a `to`, in the last generation.",
    group="layer scales",
    kind=RATE,
    rule=at_least(0),
  )
  unscaled_line: bool = setting(
    False,
    "Keep one line of genomes whose layers are never scaled beside the others.",
    group="layer scales",
    kind=SWITCH,
    static=True,
    flag="unscaled_line",
  )
  name: str = structs.field(pytree_node=False, default="scale")

  on_first = True
  paired = True

  @property
  def keeps_line(self) -> bool:
    """Whether it was asked for."""
    return self.unscaled_line

  def __call__(self, key: Key[Array, ""], child: Ticket, context: Context) -> Ticket:
    """The child at other scales."""
    sign = 1 - 2 * (context.index % 2)
    deviation = jnp.where(context.is_line, 0, context.rate(self.deviation))
    return scale_layers(key, child, sign * deviation)
