"""Trains tickets side by side, each as it would be alone, with their curves."""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nets_jax.engine.batching import keep_replicated, map_tickets
from nets_jax.engine.checkpoints import Checkpoints
from nets_jax.engine.layouts import (
  Layout,
  compile_program,
  fetch_population,
  make_layout,
  pad,
  replicate,
  unpadded,
)
from nets_jax.engine.saved import Unsaved, fingerprint
from nets_jax.engine.seeds import as_keys
from nets_jax.errors import UsageError
from nets_jax.kinds import at_least
from nets_jax.networks.adapter import Params
from nets_jax.settings import check_value
from nets_jax.tickets.ticket import Ticket, check_fits, stack
from nets_jax.training.task import RateSchedule, Task, Training
from nets_jax.training.train import Evaluation, TrainingState, advance, evaluate, minibatch_order, start


@functools.partial(jax.jit, static_argnames=("layout",))
def _start_tickets(rows: tuple[Ticket, Training], task: Task, *, layout) -> TrainingState:
  def begin(row, task):
    return start(row[0], task.replace(training=row[1]))

  return map_tickets(begin, layout, rows, task.replace(data=None))


@functools.partial(jax.jit, static_argnames=("layout", "steps", "whole_epochs"))
def _train_some_steps(
  rows, shared, *, layout, steps, whole_epochs
) -> tuple[TrainingState, dict[str, Evaluation]]:
  """Some steps of every ticket, each on the minibatches of its own key, then its score on each split."""

  def one(row, shared):
    key, state, masks, training = row
    first, task, scored = shared
    task = task.replace(training=training)
    order_key, dropout_key = jax.random.split(key)
    order = minibatch_order(
      order_key, len(task.data.train), training.batch_size, steps, first=first, whole_epochs=whole_epochs
    )
    state = advance(dropout_key, state, masks, task, order, first)
    return state, {name: evaluate(task, state.weights, split) for name, split in scored.items()}

  state, evaluations = map_tickets(one, layout, rows, shared)
  return state, keep_replicated(evaluations, layout)


@dataclasses.dataclass(frozen=True)
class Trained:
  """What came of training tickets side by side.

  Attributes:
    weights: theta_T of each, stacked, as NumPy arrays.
    curves: a dict for each evaluation and ticket with keys `iteration`, `epoch`, `ticket`, for each
      split its `<split>_loss` and `<split>_accuracy`, and `seconds`, the wall-clock time since the start
      without compilation.
    compile_seconds: wall-clock time of tracing and compiling.
  """

  weights: Params
  curves: list[dict[str, Any]]
  compile_seconds: float

  def by_method(self, names: Sequence[str]) -> list[dict[str, Any]]:
    """The curves with `method`, the name of each ticket, and `trial`, which of that name it is.

    Those are the rows that `plots.training_figure` draws.

    Args:
      names: of the tickets, in their order; tickets of one name are trials of it.
    """
    trials = [list(names[:i]).count(name) for i, name in enumerate(names)]
    return [{"method": names[row["ticket"]], "trial": trials[row["ticket"]], **row} for row in self.curves]


def train_tickets(
  keys: jax.Array,
  tickets: Ticket,
  task: Task | Sequence[Task],
  *,
  epochs: int | None = None,
  steps: int | None = None,
  splits: Sequence[str] = ("valid", "test"),
  layout: Layout | None = None,
  on_rows: Callable[[list[dict]], None] = lambda rows: None,
  checkpoints: Checkpoints | None = None,
) -> Trained:
  """Trains tickets side by side, each as it would be alone, and scores them as they go.

  Args:
    keys: of the shuffles and dropout: one for each ticket, or a single one, by which all are trained on
      the same minibatches; seeds will do.
    tickets: a population of them (`tickets.stack`), or a single one.
    task: what they are trained for, on `train`; or one for each, the same but for the learning rate. Its
      `eval_every` says how often they are scored; the last iteration always is.
    epochs: how long; None is the task's, or
    steps: how long, in iterations.
    splits: what to score on.
    layout: of the tickets; None is `make_layout(number of tickets)`.
    on_rows: called with the rows of each evaluation as it is made.
    checkpoints: where the training is saved as it goes, and goes on if it was stopped; None saves nothing.

  Raises:
    UsageError: nothing to train for, the tickets, network and data do not go together, or a checkpoint cannot
      be written or is of another training.
  """
  tasks = [task] if isinstance(task, Task) else list(task)
  task = tasks[0]
  for own in tasks:
    own.check()
  tickets = _as_population(tickets, task)
  count = len(jax.tree.leaves(tickets)[0])
  tasks = tasks * count if len(tasks) == 1 else tasks
  training = _stacked(tasks, count)
  keys = as_keys(keys)
  if len(keys) not in (1, count):
    raise UsageError(f"{count} tickets take one key, or one for each, not {len(keys)}")
  layout = layout or make_layout(count)
  per_epoch = task.steps_per_epoch
  steps = _length(task, epochs, steps)
  eval_every = min(task.eval_every or per_epoch, steps)
  keys = jnp.broadcast_to(keys if len(keys) == count else keys[0], (count,))
  checkpoints = checkpoints or Unsaved()
  splits_of = [getattr(task.data, name) for name in ("train", *splits)]
  length = {"steps": steps, "eval_every": eval_every}
  saved = checkpoints.restore(lambda: _identity(task, training, keys, tickets, splits_of) | length)
  keys, tickets, training = pad((keys, tickets, training), layout)
  scored = {name: getattr(task.data, name) for name in splits}
  task = task.for_search(task.precision).replace(training=None, initialiser=None)
  task, scored = replicate((task.replace(data=task.data.replace(valid=None)), scored), layout)
  state = _start_tickets((tickets, training), task, layout=layout)
  begun, curves, seconds, compile_seconds, programs = 0, [], 0.0, 0.0, {}
  if saved is not None:
    state = pad(saved.tree("training", unpadded(state, layout)), layout)
    begun, seconds, compile_seconds = (saved.record[n] for n in ("iteration", "seconds", "compile_seconds"))
    curves = list(saved.rows)
  for first in range(begun, steps, eval_every):
    some = min(eval_every, steps - first)
    rows, shared = (keys, state, tickets.masks, training), (first, task, scored)
    if some not in programs:
      whole = eval_every % per_epoch == 0
      programs[some], taken = compile_program(
        _train_some_steps, rows, shared, layout=layout, steps=some, whole_epochs=whole
      )
      compile_seconds += taken
    begin = time.perf_counter()
    state, evaluations = programs[some](rows, shared)
    checkpoints.wait((state, evaluations))
    seconds += time.perf_counter() - begin
    end = first + some
    found = _curve_rows(end, end / per_epoch, count, jax.device_get(evaluations), seconds)
    curves += found
    on_rows(found)
    record = {"iteration": end, "seconds": seconds, "compile_seconds": compile_seconds}
    take = functools.partial(_to_save, state, layout, record)
    checkpoints.note(found, f"iteration {end:,} of {steps:,}", take, end == steps)
  return Trained(fetch_population(state.weights, layout), curves, compile_seconds)


def _length(task: Task, epochs: int | None, steps: int | None) -> int:
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


def _identity(
  task: Task, training: Training, keys: jax.Array, tickets: Ticket, splits: Sequence[Any]
) -> dict[str, Any]:
  """All but the length that the trained weights and curves depend on."""
  record = task.training.record()
  if not isinstance(task.training.learning_rate, RateSchedule):
    record["learning_rate"] = fingerprint(training.learning_rate)  # of each ticket its own
  return {
    **task.record(),
    "precision": task.precision,
    "training": record,
    "keys": fingerprint(keys),
    "tickets": fingerprint(tickets),
    "data": fingerprint(splits),
  }


def _as_population(tickets: Ticket, task: Task) -> Ticket:
  """The tickets, a single one as a population of one.

  Raises:
    UsageError: they are of another network.
  """
  if not isinstance(tickets, Ticket):
    tickets = stack(list(tickets))
  try:
    check_fits(tickets, task.network, task.data.input_shape)
  except UsageError:
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf)[1:], leaf.dtype), tickets)
    check_fits(one, task.network, task.data.input_shape)
    return tickets
  return stack([tickets])


def _stacked(tasks: Sequence[Task], count: int) -> Training:
  """The trainings of the tasks, each number with a leading axis."""
  if len(tasks) != count:
    raise UsageError(f"{count} tickets take one task, or one for each, not {len(tasks)}")
  plain = [task.replace(data=None, initialiser=None) for task in tasks]
  alike = [task.replace(training=task.training.replace(learning_rate=0.0)) for task in plain]
  is_scheduled = [isinstance(task.training.learning_rate, RateSchedule) for task in tasks]
  differing = any(is_scheduled) and any(task.training != tasks[0].training for task in tasks)
  if differing or any(own != alike[0] for own in alike) or any(t.data is not tasks[0].data for t in tasks):
    raise UsageError("tickets that are trained side by side may differ in their learning rate alone")
  return jax.tree.map(
    lambda *rates: jnp.stack([jnp.float32(rate) for rate in rates]), *(t.training for t in tasks)
  )


def _to_save(state: TrainingState, layout: Layout, record: dict[str, Any]) -> tuple[dict, dict]:
  return {"training": fetch_population(state, layout)}, record


def _curve_rows(iteration, epoch, count, evaluations, seconds) -> list[dict[str, Any]]:
  return [
    {"iteration": iteration, "epoch": epoch, "ticket": i}
    | {f"{name}_loss": float(found.loss[i]) for name, found in evaluations.items()}
    | {f"{name}_accuracy": float(found.accuracy[i]) for name, found in evaluations.items()}
    | {"seconds": seconds}
    for i in range(count)
  ]
