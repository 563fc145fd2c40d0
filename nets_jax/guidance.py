"""Guided dormancy: which genes fall dormant, by what training showed of them, and how many by when.

A fitness evaluation trains the network, so it knows which weights did something. Each gene's saliency is kept
beside its mask bit and travels with it through crossover; the trained weights themselves are thrown away as
ever. For ONE ticket, like the genetic operators; this is this project's addition to the paper.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from nets_jax.data import Split
from nets_jax.initialisation import draw_like
from nets_jax.networks import Params, forward
from nets_jax.tickets import Ticket, kernels, maskable_count, phenotype, top_masks, unmasked_count
from nets_jax.training import cross_entropy

SALIENCIES = ("taylor", "movement", "magnitude", "gradient")
SCHEDULES = ("geometric", "cubic", "constant")
SCOPES = ("global", "layer")
GRADIENT_BATCHES = 10  # minibatches, the last of a training, that a gradient is taken over
LAYER_FLOOR = 0.1  # in global scope a layer keeps at least this much of its proportional share


def saliency(
  name: str,
  network: nn.Module,
  ticket: Ticket,
  trained: Params,
  split: Split,
  order: jax.Array,
  awakening: bool,
) -> Params:
  """What a training showed of each gene; the higher, the more it matters.

  With theta_0 the phenotype before and theta_T after the training, and g the mean gradient of the loss at
  theta_T over its last minibatches, an expressed gene's saliency is, for

  - `taylor`: |theta_T * (theta_T - theta_0)|, to first order what zeroing the weight undoes of the training;
  - `movement`: |theta_T - theta_0| (after Sanh et al., 2020);
  - `magnitude`: |theta_T|, IMP's own (Han et al., 2015);
  - `gradient`: |g * theta_T| (after Molchanov et al., 2017).

  A dormant gene's is 0, or |g| if genes may awake, by which RigL grows connections (Evci et al., 2020).

  Args:
    name: one of `SALIENCIES`.
    network: the module.
    ticket: the genome.
    trained: theta_T.
    split: the training examples.
    order: the minibatches of the training.
    awakening: whether dormant genes are scored.

  Returns:
    A number for each maskable weight, None elsewhere.
  """
  gradient = None
  if awakening or name == "gradient":
    rows = order[-GRADIENT_BATCHES:].reshape(-1)
    batch = jax.tree.map(lambda leaf: jnp.asarray(leaf)[rows], split)
    loss = lambda weights: jnp.mean(cross_entropy(forward(network, weights, batch.inputs), batch.labels))  # noqa: E731
    gradient = kernels(jax.grad(loss)(trained), ticket.masks)
  trained, initial = (kernels(tree, ticket.masks) for tree in (trained, phenotype(ticket)))
  scores = {
    "taylor": lambda: jax.tree.map(lambda w, w_0: w * (w - w_0), trained, initial),
    "movement": lambda: jax.tree.map(jnp.subtract, trained, initial),
    "magnitude": lambda: trained,
    "gradient": lambda: jax.tree.map(jnp.multiply, gradient, trained),
  }[name]()
  dormant = gradient if awakening else jax.tree.map(jnp.zeros_like, scores)
  scores = jax.tree.map(lambda mask, s, d: jnp.abs(jnp.where(mask, s, d)), ticket.masks, scores, dormant)
  return jax.tree.map(lambda s: jnp.nan_to_num(s, nan=0.0, posinf=0.0), scores)


def scheduled_density(
  schedule: str,
  progress: jax.Array,
  first: jax.Array,
  target: jax.Array,
  rate: jax.Array,
  generations: jax.Array,
) -> jax.Array:
  """The density that a generation's genomes have.

  With x in [0, 1] the share of the generations that is over, d_0 the first density and tau the target:

  - `geometric`: d_0 * (tau / d_0)^x;
  - `cubic`: tau + (d_0 - tau) * (1 - x)^3 (Zhu & Gupta, 2018);
  - `constant`: max(tau, d_0 * (1 - rate)^g), the same share each generation g until the target is reached.

  Args:
    schedule: one of `SCHEDULES`.
    progress: x.
    first: d_0.
    target: tau.
    rate: of `constant`.
    generations: n, the last generation.
  """
  if schedule == "geometric":
    return first * (target / first) ** progress
  if schedule == "cubic":
    return target + (first - target) * (1 - progress) ** 3
  return jnp.maximum(jnp.minimum(first, target), first * (1 - rate) ** (progress * generations))


def keep(ticket: Ticket, scores: Params, count: jax.Array, awaken: jax.Array, scope: str) -> Ticket:
  """The ticket with exactly `count` genes expressed: those of the highest scores, and some that awake.

  Of the expressed genes the `count - awaken` highest stay, and of the dormant ones the `awaken` highest
  awake: more of them where too few were expressed, fewer where there are not so many. Ties are broken by
  index.

  Args:
    ticket: the genome.
    scores: see `saliency`; not negative.
    count: genes to express, from 1 to all.
    awaken: of these, how many are to be dormant ones.
    scope: `global` ranks the genes of all layers together, but each layer keeps of its own at least
      `LAYER_FLOOR` of its proportional share, and at least one; `layer` gives each its proportional share.
  """
  total = maskable_count(ticket)
  if scope == "global":
    first = jax.tree.map(
      lambda mask, s: _highest(mask, s, jnp.maximum(1, _share(LAYER_FLOOR * count, mask, total))),
      ticket.masks,
      scores,
    )
    scores = jax.tree.map(lambda s, is_first: jnp.where(is_first, jnp.inf, s), scores, first)
    return ticket.replace(masks=_keep_of(ticket.masks, scores, count, awaken))
  masks = jax.tree.map(
    lambda mask, s: _keep_of(
      mask, s, jnp.maximum(1, _share(count, mask, total)), _share(awaken, mask, total)
    ),
    ticket.masks,
    scores,
  )
  return ticket.replace(masks=masks)


def _share(count: jax.Array, mask: jax.Array, total: int) -> jax.Array:
  """A layer's proportional part of a count."""
  return jnp.round(count * (mask.size / total)).astype(jnp.int32)


def _highest(among: Params, scores: Params, count: jax.Array) -> Params:
  """The `count` highest of some genes, or all of these if they are fewer."""
  top = top_masks(jax.tree.map(lambda m, s: jnp.where(m, s, -1.0), among, scores), count)
  return jax.tree.map(jnp.logical_and, top, among)


def _keep_of(masks: Params, scores: Params, count: jax.Array, awaken: jax.Array) -> Params:
  """`keep` for some layers together."""
  number = lambda tree: sum(jnp.sum(leaf, dtype=jnp.int32) for leaf in jax.tree.leaves(tree))  # noqa: E731
  dormant = jax.tree.map(jnp.logical_not, masks)
  stay = _highest(masks, scores, count - jnp.minimum(awaken, number(dormant)))
  awake = _highest(dormant, scores, count - number(stay))
  return jax.tree.map(jnp.logical_or, stay, awake)


def dormant(
  key: jax.Array, genome: Ticket, generation: jax.Array, is_elite: jax.Array, config: Any
) -> Ticket:
  """The dormancy of a genome that the schedule or the genes' saliency decides, if either does.

  By the schedule every genome gets its generation's count, elites too, for they would be too dense otherwise;
  without one, a child loses `dormancy_rate` of its expressed genes. By the schedule alone, chance decides.

  Args:
    key: of that chance.
    genome: a child, or an elite.
    generation: that it is of.
    is_elite: whether it is one.
    config: the search's `NetsConfig`.
  """
  scheduled, guided = config.density_rule == "schedule", config.dormancy == "guided"
  if not (scheduled or guided):
    return genome
  total, expressed = maskable_count(genome), unmasked_count(genome)
  if scheduled:
    share = scheduled_density(
      config.density_schedule,
      jnp.minimum(generation / jnp.maximum(config.generations, 1), 1.0),
      config.initial_density,
      config.target_density,
      config.dormancy_rate,
      config.generations,
    )
    count = jnp.round(share * total)
  else:
    count = jnp.where(is_elite, expressed, jnp.round(expressed * (1 - config.dormancy_rate)))
  count = jnp.clip(count, 1, total).astype(jnp.int32)
  if guided:
    awaken = jnp.where(is_elite, 0, jnp.round(config.awakening_rate * count)).astype(jnp.int32)
    return keep(genome, genome.scores, count, awaken, config.dormancy_scope)
  chance = draw_like(lambda size: jax.random.uniform(key, (size,)), genome.masks)
  return keep(genome, chance, count, jnp.int32(0), config.dormancy_scope)
