"""The genetic operators (paper, 3.3), each for ONE child, in the order in which they are applied.

A gene is a weight and its mask bit. Leaves without a mask (biases) are not genes: crossover keeps
those of each parent by the same rule, mutations leave them alone. Every rate may be traced.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from nets_jax.initialisation import draw_like
from nets_jax.layers import scale_of_each
from nets_jax.networks import Params, Scale
from nets_jax.tickets import Ticket, from_layers, kernels, layers_of, map_kernels

SELECTIONS = ("tournament", "rank", "truncation", "roulette")
TOURNAMENT_SIZE = 2
TRUNCATION_FRACTION = 0.5


def select(key: jax.Array, fitness: jax.Array, scheme: str, parents: int | jax.Array = 0) -> jax.Array:
  """Draws one parent; each scheme favours low fitness.

  A genome of fitness +inf is never drawn while a finite one exists; if there is none, all are equal.
  With k finite genomes of ranks 0 (lowest fitness) to k - 1, the probability of each is, for

  - `tournament`: that of being the best of `TOURNAMENT_SIZE` uniform draws, the first of equals;
  - `rank`: proportional to k - rank (linear ranking; Baker, 1985);
  - `truncation`: the same for the best `parents`, or ceil(k * `TRUNCATION_FRACTION`) if that is 0, and 0 for
    the others;
  - `roulette`: proportional to f_max - f, the distance to the worst (windowing; Goldberg, 1989),
    equal if all are the same.

  Args:
    key: consumed.
    fitness: [population], minimised, without NaN.
    scheme: one of `SELECTIONS`.
    parents: of `truncation`.

  Returns:
    The parent's index, int32.
  """
  finite = jnp.isfinite(fitness)
  eligible = finite | ~finite.any()
  if scheme == "tournament":
    contestants = jax.random.categorical(key, jnp.where(eligible, 0.0, -jnp.inf), shape=(TOURNAMENT_SIZE,))
    return contestants[jnp.argmin(fitness[contestants])]
  count = eligible.sum()
  rank = jnp.argsort(jnp.argsort(jnp.where(finite, fitness, jnp.inf), stable=True))
  if scheme == "rank":
    share = count - rank
  elif scheme == "truncation":
    share = rank < jnp.where(parents > 0, parents, jnp.ceil(count * TRUNCATION_FRACTION))
  elif scheme == "roulette":
    share = jnp.max(jnp.where(finite, fitness, -jnp.inf)) - fitness
    share = jnp.where(jnp.any(eligible & (share > 0)), share, 1.0)
  else:
    raise ValueError(f"selection must be one of {SELECTIONS}, not {scheme!r}")
  share = jnp.where(finite.any(), share, 1)
  return jax.random.categorical(key, jnp.log(jnp.where(eligible, share, 0).astype(jnp.float32)))


def crossover(key: jax.Array, parent_1: Ticket, parent_2: Ticket, rate: jax.Array) -> Ticket:
  """Uniform crossover: each gene is parent 1's with probability `rate`: weight, mask and score together."""
  from_1 = _choose(key, rate, parent_1.weights)
  weights = jax.tree.map(jnp.where, from_1, parent_1.weights, parent_2.weights)
  choice = kernels(from_1, parent_1.masks)
  masks = jax.tree.map(jnp.where, choice, parent_1.masks, parent_2.masks)
  child = parent_1.replace(weights=weights, masks=masks)
  if parent_1.scores is None:
    return child
  return child.replace(scores=jax.tree.map(jnp.where, choice, parent_1.scores, parent_2.scores))


def noise(key: jax.Array, ticket: Ticket, rate: jax.Array, scale: jax.Array) -> Ticket:
  """Random noise mutation: w + N(0, scale) with probability `rate`, per gene, dormant ones too."""
  add = lambda chosen, weight, noise: weight + jnp.where(chosen, noise, 0).astype(weight.dtype)  # noqa: E731
  return _mutate_weights(key, ticket, rate, scale, add)


def resample(key: jax.Array, ticket: Ticket, rate: jax.Array, init_scale: Scale) -> Ticket:
  """Random weight mutation: w ~ N(0, init_scale) anew with probability `rate`, per gene, dormant too."""
  replace = lambda chosen, weight, new: jnp.where(chosen, new.astype(weight.dtype), weight)  # noqa: E731
  return _mutate_weights(key, ticket, rate, init_scale, replace)


def _mutate_weights(key, ticket: Ticket, rate, scale, mutate: Callable) -> Ticket:
  """`mutate(chosen, weight, normal)` for each kernel: chosen with probability `rate`, normal ~ N(0, scale).

  Both come of one draw of uniform numbers in (-1, 1), because each place that draws takes long to compile.
  """
  above_minus_one = np.nextafter(np.float32(-1), np.float32(0))
  uniform = draw_like(
    lambda size: jax.random.uniform(key, (2, size), jnp.float32, above_minus_one, 1.0), ticket.masks
  )
  scales = from_layers(ticket, scale_of_each(scale, layers_of(ticket)))

  def apply(_, weight, uniform, scale):
    normal = scale * np.float32(np.sqrt(2)) * jax.lax.erf_inv(uniform[1])
    return mutate(uniform[0] < 2 * rate - 1, weight, normal)

  return ticket.replace(weights=map_kernels(apply, ticket.masks, ticket.weights, uniform, scales))


def dormancy(key: jax.Array, ticket: Ticket, rate: jax.Array) -> Ticket:
  """Dormancy mutation: the mask bit becomes 0 with probability `rate`; the weight stays in the genome."""
  chosen = _choose(key, rate, ticket.masks)
  return ticket.replace(masks=jax.tree.map(lambda mask, chosen: mask & ~chosen, ticket.masks, chosen))


def scale_layers(key: jax.Array, ticket: Ticket, deviation: jax.Array) -> Ticket:
  """Scale mutation: the kernel of each layer times exp(N(0, deviation)), one factor for all its weights.

  An addition to the paper's operators. The scale of a layer is then inherited with its weights, gene by gene.
  """
  layers, treedef = jax.tree.flatten(ticket.masks)
  factors = jnp.exp(deviation * jax.random.normal(key, (len(layers),), jnp.float32))
  factors = jax.tree.unflatten(treedef, list(factors))
  scale = lambda _, weight, factor: (weight * factor).astype(weight.dtype)  # noqa: E731
  return ticket.replace(weights=map_kernels(scale, ticket.masks, ticket.weights, factors))


def _choose(key: jax.Array, rate: jax.Array, tree: Params) -> Params:
  """True with probability `rate`, for each entry of a tree."""
  return draw_like(lambda size: jax.random.bernoulli(key, rate, (size,)), tree)
