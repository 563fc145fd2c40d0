"""What `train_tickets` takes, as arrays with a row for each ticket."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from nets_jax.errors import UsageError
from nets_jax.kinds import at_least
from nets_jax.settings import check_value
from nets_jax.tickets.ticket import Ticket, check_fits, stack
from nets_jax.training.task import Task
from nets_jax.training.training import Training


def key_of_each(keys: jax.Array, count: int) -> jax.Array:
  """A key for each ticket, of as many or of one.

  Raises:
    UsageError: there are others.
  """
  if len(keys) not in (1, count):
    raise UsageError(f"{count} tickets take one key, or one for each, not {len(keys)}")
  return jnp.broadcast_to(keys if len(keys) == count else keys[0], (count,))


def steps_of(task: Task, epochs: int | None, steps: int | None) -> int:
  """How long to train, in iterations.

  Raises:
    UsageError: no whole number, or none at all.
  """
  given = epochs if epochs is not None else task.epochs
  what, length = ("steps", steps) if steps is not None else ("epochs", given)
  check_value(what, at_least(1), length)
  if length != int(length):
    raise UsageError(f"{what} must be a whole number, not {length}")
  return int(length) * (1 if steps is not None else task.steps_per_epoch)


def as_population(tickets: Ticket | Sequence[Ticket], task: Task) -> Ticket:
  """The tickets, a single one as a population of one.

  Raises:
    UsageError: they are of another network.
  """
  if not isinstance(tickets, Ticket):
    tickets = stack(list(tickets))
  try:
    check_fits(tickets, task.network, task.data.input_shape)
  except UsageError:
    single = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf)[1:], leaf.dtype), tickets)
    check_fits(single, task.network, task.data.input_shape)
    return tickets
  return stack([tickets])


def stacked(tasks: Sequence[Task], count: int) -> Training:
  """The trainings of the tasks, each number with a leading axis.

  Raises:
    UsageError: not as many as tickets, or they differ in what shapes the program.
  """
  if len(tasks) != count:
    raise UsageError(f"{count} tickets take one task, or one for each, not {len(tasks)}")
  bare = [task.replace(data=None, initialiser=None, training=None) for task in tasks]
  shapes = [jax.tree.structure(task.training) for task in tasks]
  if (
    any(shape != shapes[0] for shape in shapes)
    or any(task != bare[0] for task in bare)
    or any(task.data is not tasks[0].data for task in tasks)
  ):
    raise UsageError(
      "tickets that are trained side by side may differ in their learning rate alone, or another number that "
      "all have: momentum, weight_decay, clip_norm, rate_end"
    )
  return jax.tree.map(
    lambda *rates: jnp.stack([jnp.float32(rate) for rate in rates]), *(t.training for t in tasks)
  )
