"""Two things to minimise at once: non-dominated sorting and crowding, the order of NSGA-II.

Deb et al. (2002). Of two genomes one dominates the other if it is no worse in anything
and better in something.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

# Columns of the metrics, and of a history.
OBJECTIVES = ("density", "valid_loss")


def non_dominated_ranks(values: Num[Array, "population objectives"]) -> Int[Array, " population"]:
  """Which front each genome is of: 0 if nothing dominates it, 1 if only those of front 0 do, and so on.

  Section III.A of the paper. Genomes with a value that is not finite come last, in a front of their own.

  Args:
    values: what is minimised, a row for each genome.

  Returns:
    int32.
  """
  finite = jnp.isfinite(values).all(axis=-1)
  no_worse = (values[:, None] <= values[None, :]).all(axis=-1)
  better = (values[:, None] < values[None, :]).any(axis=-1)
  dominates = no_worse & better & finite[:, None] & finite[None, :]
  last = jnp.int32(len(values))

  def peel(carry):
    ranks, front = carry
    left = (ranks == last) & finite
    beaten = (dominates & left[:, None]).any(axis=0)
    return jnp.where(left & ~beaten, front, ranks), front + 1

  def some_left(carry):
    return ((carry[0] == last) & finite).any()

  return jax.lax.while_loop(some_left, peel, (jnp.full(len(values), last), jnp.int32(0)))[0]


def crowding_distances(
  values: Num[Array, "population objectives"], ranks: Int[Array, " population"]
) -> Float[Array, " population"]:
  """How far apart each genome's neighbours in its front are: the sum over objectives, each by its range.

  Section III.B of the paper. The ends of a front are infinitely far.

  Args:
    values: what is minimised, a row for each genome.
    ranks: each genome's front.
  """

  def along(value):
    order = jnp.lexsort((value, ranks))
    value, rank = value[order], ranks[order]
    step = jnp.diff(value)
    same = rank[1:] == rank[:-1]
    gap = jnp.where(same, step, jnp.inf)
    gap = jnp.concatenate([jnp.full(1, jnp.inf), gap, jnp.full(1, jnp.inf)])
    low = jax.ops.segment_min(value, rank, num_segments=len(value) + 1, indices_are_sorted=True)
    high = jax.ops.segment_max(value, rank, num_segments=len(value) + 1, indices_are_sorted=True)
    width = (high - low)[rank]
    distance = (gap[:-1] + gap[1:]) / jnp.where(width > 0, width, 1.0)
    return jnp.zeros_like(distance).at[order].set(jnp.where(jnp.isnan(distance), 0.0, distance))

  return jax.vmap(along, in_axes=1)(values).sum(axis=0)


def pareto_order(values: Num[Array, "population objectives"]) -> Float[Array, " population"]:
  """Each genome's place, 0 the first: by front, and within a front the less crowded before the more.

  Args:
    values: what is minimised, a row for each genome.

  Returns:
    float32; +inf for a genome with a value that is not finite. Ties are broken by index.
  """
  ranks = non_dominated_ranks(values)
  order = jnp.lexsort((-crowding_distances(values, ranks), ranks))
  places = jnp.zeros(len(values)).at[order].set(jnp.arange(len(values), dtype=jnp.float32))
  return jnp.where(jnp.isfinite(values).all(axis=-1), places, jnp.inf)
