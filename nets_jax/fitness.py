"""Algorithm 2 of the paper: the fitness of ONE ticket, to be minimised."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct

from nets_jax.data import Split
from nets_jax.networks import Params
from nets_jax.tickets import Ticket, density, map_kernels
from nets_jax.training import evaluate, train

TOLERANCE = 1e-4  # of a density
INFEASIBLE = 1e3  # nats; a network that has learnt anything loses less than ten


@struct.dataclass
class Candidate:
  """A genome after its training, as an objective sees it.

  Attributes:
    ticket: the genome.
    weights: theta_T, what the training made of its phenotype.
    valid: the validation examples.
    valid_loss, valid_accuracy: on them.
    density: of the ticket's mask.
  """

  ticket: Ticket
  weights: Params
  valid: Split
  valid_loss: jax.Array
  valid_accuracy: jax.Array
  density: jax.Array


# What to minimise in place of the loss, a scalar; it need not be differentiable, and whatever is not finite
# never wins. What becomes of the density is the density rule's, see `penalised` and `feasible`.
Objective = Callable[[Candidate], jax.Array]


@struct.dataclass
class Metrics:
  """A ticket's fitness and what it was made of: float32 scalars, or one per genome.

  Attributes:
    fitness: minimised; +inf for a ticket whose training diverged.
    valid_loss, valid_accuracy: on the validation split, after the training.
    density: of its mask.
  """

  fitness: jax.Array
  valid_loss: jax.Array
  valid_accuracy: jax.Array
  density: jax.Array


def density_penalty(density: jax.Array, target_density: jax.Array) -> jax.Array:
  """P = ((d - tau) / (1 - tau))^2 (paper, equation 1); 0 at tau = 1, which asks for nothing."""
  room = 1 - target_density
  return jnp.where(room > 0, ((density - target_density) / jnp.where(room > 0, room, 1)) ** 2, 0.0)


def validation_loss(candidate: Candidate) -> jax.Array:
  """The objective where nobody gives another."""
  return candidate.valid_loss


def penalised(
  objective: Objective, target_density: jax.Array, penalty_weight: jax.Array
) -> Callable[[Candidate], jax.Array]:
  """The paper's fitness l + penalty_weight * P, with `penalty_weight` 1 there; l is the objective."""

  def rule(candidate):
    return objective(candidate) + penalty_weight * density_penalty(candidate.density, target_density)

  return rule


def feasible(objective: Objective, target_density: jax.Array) -> Callable[[Candidate], jax.Array]:
  """Feasible first: the objective; for a genome denser than the target far more, the denser the more.

  A density of up to `TOLERANCE` above the target counts as feasible, so that rounding decides nothing. A loss
  of more than `INFEASIBLE` counts as that. Another objective may have any sign and size: see `_bounded`.
  """
  is_loss = objective is validation_loss
  bounded = (lambda loss: jnp.minimum(loss, INFEASIBLE)) if is_loss else _bounded
  base = INFEASIBLE if is_loss else 1.5 * INFEASIBLE

  def rule(candidate):
    excess = jnp.maximum(candidate.density - target_density - TOLERANCE, 0)
    return bounded(objective(candidate)) + jnp.where(excess > 0, base * (1 + excess), 0)

  return rule


def _bounded(value: jax.Array) -> jax.Array:
  """An objective within half of `INFEASIBLE` of 0, in the same order, so that density can always outweigh it.

  Itself up to a quarter of `INFEASIBLE`; beyond, half of it less a part that shrinks. Not finite stays so.
  """
  half, quarter = INFEASIBLE / 2, INFEASIBLE / 4
  beyond = jnp.sign(value) * (half - quarter**2 / jnp.maximum(jnp.abs(value), quarter))
  return jnp.where(jnp.isfinite(value) & (jnp.abs(value) > quarter), beyond, value)


def fitness(
  key: jax.Array,
  network: nn.Module,
  ticket: Ticket,
  train_split: Split,
  valid_split: Split,
  order: jax.Array,
  optimizer: optax.GradientTransformation,
  rule: Callable[[Candidate], jax.Array],
) -> tuple[Metrics, Params]:
  """Trains the ticket's phenotype, and scores the network that comes of it (paper, Algorithm 2).

  Args:
    key: of dropout in the training.
    network: the module.
    ticket: the genome; it is not changed.
    train_split, valid_split: examples to train on and to score with.
    order: minibatches, T steps of them; see `training.minibatch_order`.
    optimizer: any optax transformation.
    rule: what to minimise, of the `Candidate` that the ticket becomes.

  Returns:
    The metrics, with fitness +inf where the rule's value is not finite; and the trained weights, which
    NeTS throws away.
  """
  trained = train(key, network, ticket, train_split, order, optimizer)
  evaluation = evaluate(network, trained, valid_split)
  ticket_density = density(ticket)
  score = rule(Candidate(ticket, trained, valid_split, evaluation.loss, evaluation.accuracy, ticket_density))
  score = jnp.where(jnp.isfinite(score), score, jnp.inf).astype(jnp.float32)
  return Metrics(score, evaluation.loss, evaluation.accuracy, ticket_density), trained


def retain(ticket: Ticket, trained: Params) -> Ticket:
  """The Lamarckian ablation (paper, section 3.2): trained weights go back into the genome.

  Dormant genes keep the weights they had, for training saw them as zero.
  """
  weights = map_kernels(
    lambda mask, new, old: jnp.where(mask, new, old), ticket.masks, trained, ticket.weights
  )
  return ticket.replace(weights=weights)
