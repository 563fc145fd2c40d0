"""What `train_tickets` takes, as arrays with a row for each ticket."""

import dataclasses
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from nets_jax.errors import UsageError
from nets_jax.kinds import at_least
from nets_jax.settings import check_value
from nets_jax.tickets.ticket import Ticket, check_fits, check_tree, stack
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
    UsageError: they are none, or of another network.
  """
  if not isinstance(tickets, Ticket):
    several = list(tickets) if isinstance(tickets, Iterable) else []
    if not several or not all(isinstance(one, Ticket) for one in several):
      raise UsageError("tickets must be a Ticket, or several; the order of arguments is keys, tickets, task")
    tickets = stack(several)
  check_tree(tickets)
  try:
    check_fits(tickets, task.network, task.data.input_shape)
  except UsageError as of_one:
    single = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf)[1:], leaf.dtype), tickets)
    try:
      check_fits(single, task.network, task.data.input_shape)
    except UsageError:
      raise of_one from None
    return tickets
  return stack([tickets])


def as_tasks(task: Task | Sequence[Task]) -> list[Task]:
  """The task, or those of each ticket, as a list, checked.

  Raises:
    UsageError: there is none, or a setting is wrong.
  """
  tasks = [task] if isinstance(task, Task) else list(task) if isinstance(task, Iterable) else []
  if not tasks or not all(isinstance(one, Task) for one in tasks):
    raise UsageError(
      "task must be a Task, or one for each ticket; the order of arguments is keys, tickets, task"
    )
  for each in tasks:
    each.check()
  return tasks


def _difference(one: Task, other: Task) -> str | None:
  """The field in which two tasks, or their trainings, are of other programs; None if there is none."""
  if one.data is not other.data:
    return "data"
  for field in dataclasses.fields(one):
    if field.name not in ("data", "initialiser", "training") and (
      getattr(one, field.name) != getattr(other, field.name)
    ):
      return field.name
  for field in dataclasses.fields(one.training):
    values = [getattr(training, field.name) for training in (one.training, other.training)]
    is_traced = field.metadata.get("pytree_node", True)
    # Of what is traced the structure alone counts, which holds the static settings of a schedule too.
    a, b = map(jax.tree.structure, values) if is_traced else values
    if a != b:
      return field.name
  return None


def stacked(tasks: Sequence[Task], count: int) -> Training:
  """The trainings of the tasks, each number with a leading axis.

  Raises:
    UsageError: not as many as tickets, or they differ in what shapes the program.
  """
  if len(tasks) != count:
    raise UsageError(f"{count} tickets take one task, or one for each, not {len(tasks)}")
  for task in tasks[1:]:
    if (name := _difference(tasks[0], task)) is not None:
      raise UsageError(
        "tickets that are trained side by side may differ only in the values of numbers that every training "
        f"gives, such as learning_rate, but {name} differs otherwise; give all the same, or train them apart"
      )
  return jax.tree.map(
    lambda *rates: jnp.stack([jnp.float32(rate) for rate in rates]), *(t.training for t in tasks)
  )
