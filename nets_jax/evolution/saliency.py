"""What a fitness evaluation's training showed of each gene, for ONE ticket.

The trained weights themselves are thrown away as ever; a gene's saliency is kept beside its mask bit
(`Ticket.scores`) and travels with it through crossover. This is this project's addition to the paper.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from nets_jax.networks.adapter import Params, forward_for_scores
from nets_jax.tickets.pruning import layer_adaptive
from nets_jax.tickets.ticket import Ticket, kernels, phenotype
from nets_jax.training.task import Task

GRADIENT_BATCHES = 10  # minibatches, the last of a training, that a gradient is taken over


class SeenTraining(NamedTuple):
  """What a measure may look at, kernels alone.

  Attributes:
    initial: theta_0, the phenotype before the training.
    trained: theta_T, after it.
    gradient: gives g, the mean gradient of the loss at theta_T over the training's last minibatches, whose
      images are not augmented; with `accumulate` of parts as small as the training's, in float32.
  """

  initial: Params
  trained: Params
  gradient: Callable[[], Params]


def taylor(seen: SeenTraining) -> Params:
  """|theta_T * (theta_T - theta_0)|; by SGD, to first order, what zeroing the weight undoes of the training.

  By Adam a weight moves as far in a layer of large weights as in one of small, so the former seems to matter.
  """
  return jax.tree.map(lambda w, w_0: w * (w - w_0), seen.trained, seen.initial)


def balanced(seen: SeenTraining) -> Params:
  """`taylor` within a layer, each layer weighed: s |g * theta_T|_1 / |s|_1, s of the layer's genes.

  So no scale of a layer makes its genes matter more, whichever the optimiser: |g * theta_T| is what scaling
  leaves as it is.
  """

  def weigh(moved: Array, shown: Array) -> Array:
    total, of_all = (jnp.sum(jnp.nan_to_num(jnp.abs(s), nan=0.0, posinf=0.0)) for s in (moved, shown))
    return moved * (of_all / jnp.where(total > 0, total, 1))

  # In 32 bits, for small products of 16 are 0.
  initial, trained, shown = (
    jax.tree.map(lambda w: w.astype(jnp.float32), tree)
    for tree in (seen.initial, seen.trained, seen.gradient())
  )
  whole = SeenTraining(initial, trained, lambda: shown)
  return jax.tree.map(weigh, taylor(whole), gradient(whole))


def movement(seen: SeenTraining) -> Params:
  """|theta_T - theta_0| (after Sanh et al., 2020)."""
  return jax.tree.map(jnp.subtract, seen.trained, seen.initial)


def magnitude(seen: SeenTraining) -> Params:
  """|theta_T|, IMP's own (Han et al., 2015)."""
  return seen.trained


def lamp(seen: SeenTraining) -> Params:
  """LAMP scores of theta_T (Lee et al., 2021): `magnitude`, but no scale of a layer changes it."""
  return layer_adaptive(seen.trained)


def interpolated(seen: SeenTraining) -> Params:
  """LAMP scores of sqrt |(1 - r) theta_T (theta_T - theta_0) + r theta_T^2|: `taylor` and `magnitude`.

  r is how far a layer has moved, |theta_T - theta_0| / |theta_T| by its Euclidean norms, at most 1. At r = 1
  sizes alone count. Below it both terms are of one size in the layer, however small r is, so this does not
  become `taylor`. A weight that has shrunk by some r of its first size has 0; one that has shrunk by far
  more counts again. No scale of a layer changes it but by its r.
  """

  def of_layer(w: Array, w_0: Array) -> Array:
    sound = jnp.isfinite(w) & jnp.isfinite(w_0)
    w, w_0 = (jnp.where(sound, x.astype(jnp.float32), 0) for x in (w, w_0))
    # Of the largest, so that no product leaves the range of float32.
    largest = jnp.maximum(jnp.max(jnp.abs(w)), jnp.max(jnp.abs(w_0)))
    w, w_0 = (x / jnp.where(largest > 0, largest, 1) for x in (w, w_0))
    size = jnp.linalg.norm(w)
    r = jnp.minimum(1.0, jnp.linalg.norm(w - w_0) / jnp.where(size > 0, size, 1))
    return jnp.sqrt(jnp.abs(w * (w - (1 - r) * w_0)))

  return layer_adaptive(jax.tree.map(of_layer, seen.trained, seen.initial))


def product(seen: SeenTraining) -> Params:
  """The geometric mean, sqrt |balanced * interpolated|: a weight must do well by both.

  So a layer without a gradient, or that has not moved, has 0 throughout.
  """

  def mean(one: Array, other: Array) -> Array:
    return jnp.sqrt(jnp.abs(one)) * jnp.sqrt(jnp.abs(other))  # their product may be too small for float32

  return jax.tree.map(mean, balanced(seen), interpolated(seen))


def gradient(seen: SeenTraining) -> Params:
  """|g * theta_T| (after Molchanov et al., 2017)."""
  return jax.tree.map(jnp.multiply, seen.gradient(), seen.trained)


# What a training tells of each gene.
Measure = Callable[[SeenTraining], Params]

# `random` looks at nothing: chance decides.
SALIENCIES: dict[str, Measure | None] = {
  "taylor": taylor,
  "balanced": balanced,
  "movement": movement,
  "magnitude": magnitude,
  "lamp": lamp,
  "interpolated": interpolated,
  "product": product,
  "gradient": gradient,
  "random": None,
}


def saliency(
  measure: Measure,
  ticket: Ticket,
  trained: Params,
  task: Task,
  order: Int[Array | np.ndarray, "steps batch"],
  regrowth: bool,
) -> Params:
  """What a training showed of each gene; the higher, the more it matters.

  A dormant gene's is 0, or |g| if genes may grow back, by which RigL grows connections (Evci et al., 2020).

  Args:
    measure: of `SALIENCIES`, or one's own; its absolute value is taken, and not finite counts as 0.
    ticket: the genome.
    trained: theta_T.
    task: what it was trained for.
    order: the minibatches of the training.
    regrowth: whether dormant genes are scored.

  Returns:
    A number for each maskable weight, None elsewhere.
  """

  @functools.cache
  def gradient_of_last() -> Params:
    rows = order[-GRADIENT_BATCHES:]
    train = jax.tree.map(jnp.asarray, task.data.train)

    def gradient_over(rows):
      batch = train.examples(rows)

      def loss(weights):
        return jnp.mean(
          task.training_losses(forward_for_scores(task.network, weights, batch.inputs), batch.labels)
        )

      return jax.grad(loss)(trained)

    parts = task.training.accumulate
    if parts == 1:
      return kernels(gradient_over(rows.reshape(-1)), ticket.masks)
    # As small as those of the training, which are all that there may be memory for.
    parts *= len(rows)

    def add(total, part):
      return jax.tree.map(lambda t, g: t + g.astype(jnp.float32) / parts, total, gradient_over(part)), None

    nothing = jax.tree.map(lambda weight: jnp.zeros(weight.shape, jnp.float32), trained)
    total, _ = jax.lax.scan(add, nothing, rows.reshape(parts, -1))
    return kernels(jax.tree.map(lambda t, w: t.astype(w.dtype), total, trained), ticket.masks)

  initial, final = (kernels(tree, ticket.masks) for tree in (phenotype(ticket), trained))
  scores = measure(SeenTraining(initial, final, gradient_of_last))
  dormant = gradient_of_last() if regrowth else jax.tree.map(jnp.zeros_like, scores)
  scores = jax.tree.map(lambda mask, s, d: jnp.abs(jnp.where(mask, s, d)), ticket.masks, scores, dormant)
  return jax.tree.map(lambda s: jnp.nan_to_num(s, nan=0.0, posinf=0.0), scores)
