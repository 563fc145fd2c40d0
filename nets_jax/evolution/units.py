"""Structured dormancy: genes of units that matter little fall dormant first, so that whole units do.

What a unit is, and which kernels read it, `networks.coupling` finds in the network. This is this project's
addition to the paper.
"""

import jax
import jax.numpy as jnp

from nets_jax.networks.adapter import Params
from nets_jax.networks.coupling import find_coupling
from nets_jax.training.task import Task


def with_units(scores: Params, task: Task, exponent: float) -> Params:
  """Saliencies of genes times those of the units that they join:

      s'_uv = s_uv (S_u S_v / mean(S_u) mean(S_v))^exponent

  of a gene from unit u to unit v. S_u is the sum of s over all genes that lead from u, and the means are over
  the units of a group. A unit that cannot be left out has a factor of 1.

  Args:
    scores: of each gene, not negative; None of what is none.
    task: whose network this is.
    exponent: 0 leaves the genes' own; the higher, the more whole units fall dormant.
  """
  coupling = find_coupling(task.network, task.data.input_shape)
  leaves, treedef = jax.tree.flatten(scores, is_leaf=lambda leaf: leaf is None)
  factors = [[factor for axis in axes for factor in axis] for axes in coupling.leaves]
  spread = [
    leaf if leaf is None else leaf.reshape([factor.size for factor in own])
    for leaf, own in zip(leaves, factors, strict=False)
  ]
  sums = {group: jnp.zeros(size) for group, size in enumerate(coupling.sizes)}
  is_read = set()
  for reading in coupling.readings:
    scored, own = spread[reading.leaf], factors[reading.leaf]
    for place, factor in enumerate(own):
      if scored is not None and factor.units in reading.summed:
        others = tuple(i for i in range(len(own)) if i != place)
        sums[factor.units] += scored.sum(others)
        is_read.add(factor.units)

  def weight(group: int) -> jax.Array:
    mean = jnp.mean(sums[group])
    return (sums[group] / jnp.where(mean > 0, mean, 1)) ** exponent

  weights = {group: weight(group) for group in is_read}

  def weighted(scored, own, leaf):
    for place, factor in enumerate(own):
      if factor.units in weights:
        scored = scored * weights[factor.units].reshape([-1 if i == place else 1 for i in range(len(own))])
    return scored.reshape(leaf.shape)

  return treedef.unflatten(
    None if leaf is None else weighted(scored, own, leaf)
    for leaf, scored, own in zip(leaves, spread, factors, strict=False)
  )
