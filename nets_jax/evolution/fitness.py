"""Algorithm 2 of the paper: the fitness of ONE ticket, to be minimised."""

from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from nets_jax import structs
from nets_jax.data.dataset import Split
from nets_jax.errors import UsageError
from nets_jax.evolution.schedules import Number
from nets_jax.networks.adapter import Network, NetworkState, Params
from nets_jax.networks.coupling import find_coupling
from nets_jax.tickets.compaction import Live, live_units, multiplications
from nets_jax.tickets.ticket import Ticket, density, map_kernels, maskable_count
from nets_jax.training.evaluation import evaluate, evaluate_some
from nets_jax.training.measures import NATS
from nets_jax.training.statistics import BATCHES, settled
from nets_jax.training.task import Task
from nets_jax.training.train import train


@structs.dataclass
class Candidate:
  """A genome after its training, as an objective sees it.

  Attributes:
    ticket: the genome.
    weights: theta_T, what the training made of its phenotype.
    network_state: what the network is evaluated with besides; see `training.statistics`.
    valid: the validation examples, as a network takes them.
    valid_loss, valid_score: on them, by the task's loss and score; on some of them by `valid_examples`.
    density: of the ticket's mask.
    network, input_shape: what it is a ticket of (static).
  """

  ticket: Ticket
  weights: Params
  network_state: NetworkState
  valid: Split
  valid_loss: Float[Array, ""]
  valid_score: Float[Array, ""]
  density: Float[Array, ""]
  network: Network = structs.field(pytree_node=False)
  input_shape: tuple[int, ...] = structs.field(pytree_node=False)

  @property
  def live_units(self) -> Live:
    """Of each group of units in `networks.coupling`, which have a path of unmasked weights to an output."""
    return live_units(self.ticket.masks, find_coupling(self.network, self.input_shape))

  @property
  def multiplications(self) -> Float[Array, ""]:
    """Of one example's way through the network without its dead units."""
    counts = {group: jnp.sum(of, dtype=jnp.float32) for group, of in self.live_units.items()}
    return jnp.float32(multiplications(find_coupling(self.network, self.input_shape), counts))

  @property
  def whole_multiplications(self) -> int:
    """The same of the whole network."""
    return int(multiplications(find_coupling(self.network, self.input_shape), {}))


# What to minimise in place of the loss, a scalar; it need not be differentiable, and whatever is not finite
# never wins. What becomes of the density is the ranking's affair.
Objective = Callable[[Candidate], Number]


@structs.dataclass
class Metrics:
  """A ticket's fitness and what it was made of: float32 scalars, or one per genome; in a history NumPy's.

  Attributes:
    fitness: minimised; +inf for a ticket whose training diverged.
    valid_loss, valid_score: on the validation split, after the training.
    density: of its mask.
  """

  fitness: Float[Array | np.ndarray, "..."]
  valid_loss: Float[Array | np.ndarray, "..."]
  valid_score: Float[Array | np.ndarray, "..."]
  density: Float[Array | np.ndarray, "..."]


class Scorer(Protocol):
  """What makes one number to minimise of an objective and a density; see `ranking.Ranking`."""

  def fitness(self, objective: Array, density: Array, is_loss: bool) -> Array:
    """What is minimised, of ONE genome."""
    ...

  def counted(self, density: Array, size: int) -> Array:
    """A density as this takes it, of a network of so many maskable weights."""
    ...


def density_penalty(density: Number, target_density: Number) -> Array:
  """P = ((d - tau) / (1 - tau))^2 (paper, equation 1); 0 at tau = 1, which asks for nothing."""
  room = 1 - target_density
  return jnp.where(room > 0, ((density - target_density) / jnp.where(room > 0, room, 1)) ** 2, 0.0)


def fitness(
  key: Key[Array, ""],
  ticket: Ticket,
  task: Task,
  order: Int[Array | np.ndarray, "steps batch"],
  ranking: Scorer,
  objective: Objective | None = None,
  order_key: Key[Array, ""] | None = None,
  steps: Int[Array, ""] | None = None,
  scored: tuple[int | Int[Array, ""], int] | None = None,
) -> tuple[Metrics, Params]:
  """Trains the ticket's phenotype, and scores the network that comes of it (paper, Algorithm 2).

  Args:
    key: of dropout in the training.
    ticket: the genome; it is not changed.
    task: trained on `train`, scored on `valid`.
    order: minibatches, T steps of them; see `train.minibatch_order`.
    ranking: makes the fitness of the objective and the density; see `ranking.Ranking`.
    objective: of the `Candidate` that the ticket becomes; None is its validation loss.
    order_key: that the minibatches were made by; of augmentation, see `train.advance`.
    steps: T where it is known when the program runs, not below `statistics.BATCHES`; None is all of `order`.
    scored: how many validation examples, and the fewest it may be; see `evaluate_some`. None is all.

  Returns:
    The metrics, with fitness +inf where it is not finite; and the trained weights, which NeTS throws away.

  Raises:
    UsageError: the objective gives something else than one number.
  """
  trained = train(key, ticket, task, order, order_key, steps)
  seen = last_minibatches(order, steps, BATCHES)
  state = settled(key, task, trained.weights, trained.network_state, seen)
  judged = task, trained.weights, task.data.valid, state
  scores = evaluate(*judged) if scored is None else evaluate_some(*judged, *scored)
  ticket_density = density(ticket)
  value = scores.loss
  if objective is not None:
    valid = task.data.valid.prepared()
    candidate = Candidate(
      ticket, trained.weights, state, valid, scores.loss, scores.score, ticket_density, task.network,
      task.data.input_shape,
    )  # fmt: skip
    value = _one_number(objective(candidate))
  # Of a loss in nats a size is known; any other is bounded as an objective of one's own is.
  is_loss = objective is None and task.measures.loss in NATS
  counted = ranking.counted(ticket_density, maskable_count(ticket))
  minimised = ranking.fitness(value, counted, is_loss)
  minimised = jnp.where(jnp.isfinite(minimised), minimised, jnp.inf).astype(jnp.float32)
  return Metrics(minimised, scores.loss, scores.score, ticket_density), trained.weights


def last_minibatches(
  order: Int[Array | np.ndarray, "steps batch"], steps: Int[Array, ""] | None, count: int
) -> Int[Array | np.ndarray, "some batch"]:
  """The last `count` minibatches of a training of so many steps; all of `order` where that is its length."""
  if steps is None:
    return order
  return jax.lax.dynamic_slice_in_dim(jnp.asarray(order), steps - count, count)


def _one_number(value: object) -> Float[Array, ""]:
  """What an objective gave, as a float32 scalar."""
  try:
    number = jnp.asarray(None if isinstance(value, str) else value)
  except (TypeError, ValueError) as error:
    raise UsageError(
      f"an objective must give one number for a genome, not a {type(value).__name__}"
    ) from error
  if number.shape or not (
    jnp.issubdtype(number.dtype, jnp.number) and not jnp.issubdtype(number.dtype, jnp.complexfloating)
  ):
    shape = list(number.shape)
    raise UsageError(
      f"an objective must give one number for a genome, not {number.dtype.name}{shape}; take its mean, say"
    )
  return number.astype(jnp.float32)


def retain(ticket: Ticket, trained: Params) -> Ticket:
  """The Lamarckian ablation (paper, section 3.2): trained weights go back into the genome.

  Dormant genes keep the weights they had, for training saw them as zero.
  """
  weights = map_kernels(
    lambda mask, new, old: jnp.where(mask, new, old), ticket.masks, trained, ticket.weights
  )
  return ticket.replace(weights=weights)
