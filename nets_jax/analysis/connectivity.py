"""Linear mode connectivity: is the loss low on the line between two trainings of one ticket?

After Frankle et al. (2020): two copies of a network are trained on different orders of the data. With E the
error and e(a) = E(a theta_1 + (1 - a) theta_2), the error barrier (there: the instability) is the maximum of
e over a in [0, 1] less the mean of e(0) and e(1). A ticket whose barrier is near zero is stable: the noise of
SGD does not lead it to another minimum.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from nets_jax.engine.seeds import KeysLike, as_keys
from nets_jax.errors import UsageError
from nets_jax.tickets.ticket import Ticket, stack
from nets_jax.training.evaluation import evaluate
from nets_jax.training.measures import Measures
from nets_jax.training.statistics import settled
from nets_jax.training.task import Task
from nets_jax.training.train import minibatch_order
from nets_jax.training.trainer import train_tickets

POINTS = 31  # on the line, both ends among them; the paper takes 30


@dataclasses.dataclass(frozen=True)
class Connectivity:
  """What lies between two trainings.

  Attributes:
    shares: a, from 0 to 1.
    losses: of a theta_1 + (1 - a) theta_2, at each.
    scores: likewise; of classes accuracies in [0, 1].
    measures: which loss and score these are.
  """

  shares: Float[np.ndarray, " points"]
  losses: Float[np.ndarray, " points"]
  scores: Float[np.ndarray, " points"]
  measures: Measures

  @property
  def errors(self) -> Float[np.ndarray, " points"]:
    """1 less a score that is a share, such as accuracy; another score, turned so that less is better."""
    turned = self.measures.sign * self.scores
    return 1 + turned if self.measures.is_share and self.measures.more_is_better else turned

  @property
  def barrier(self) -> float:
    """The highest error on the line less the mean of those at its ends: not negative."""
    return _barrier(self.errors)

  @property
  def loss_barrier(self) -> float:
    """The same of losses."""
    return _barrier(self.losses)


def connectivity(
  keys: KeysLike, ticket: Ticket, task: Task, *, split: str = "test", points: int = POINTS
) -> Connectivity:
  """Trains a ticket twice, and looks at the line between what came of it.

  Running averages of batches are estimated anew at each point of the line, as they are after a training.

  Args:
    keys: two of them, or seeds: of the orders of the data, and of dropout.
    ticket: trained by each.
    task: what for, and for how long.
    split: of its data, to look at.
    points: on the line, both ends among them, at least 3.

  Raises:
    UsageError: not two keys, too few points, no such split, or nothing to train for.
  """
  keys = as_keys(keys)
  if keys.shape != (2,):
    raise UsageError(f"connectivity is between two trainings, so it takes two keys, not {keys.size}")
  if points < 3:
    raise UsageError(f"points must be at least 3, not {points}")
  if split not in ("train", "valid", "test"):
    raise UsageError(f"split must be train, valid or test, not {split!r}")
  trained = train_tickets(keys, stack([ticket, ticket]), task, splits=(split,))
  shares = jnp.linspace(0, 1, points)
  ends = jax.tree.map(jnp.asarray, (trained.weights, trained.carried_states))
  losses, scores = jax.device_get(_on_the_line(shares, keys[0], ends, task, split))
  return Connectivity(np.asarray(shares), losses, scores, task.measures)


def _on_the_line(
  shares: Float[Array, " points"], key: Key[Array, ""], ends: Sequence, task: Task, split: str
) -> tuple[Array, Array]:
  """Loss and score at each point, one after the other."""
  order = minibatch_order(key, len(task.data.train), task.training.batch_size, task.steps_per_epoch)

  def at(share):
    weights, state = jax.tree.map(lambda two: share * two[0] + (1 - share) * two[1], ends)
    state = settled(key, task, weights, state, order)
    found = evaluate(task, weights, getattr(task.data, split), state)
    return found.loss, found.score

  return jax.jit(lambda shares: jax.lax.map(at, shares))(shares)


def _barrier(errors: Float[np.ndarray, " points"]) -> float:
  return float(np.max(errors) - (errors[0] + errors[-1]) / 2)
