"""Trains tickets side by side, each as it would be alone, with their curves."""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from nets_jax.data.dataset import Split
from nets_jax.engine.batching import keep_replicated, map_tickets
from nets_jax.engine.exhaustion import LESS_TO_TRAIN, within_memory
from nets_jax.engine.layouts import (
  Layout,
  compile_program,
  fetch_population,
  make_layout,
  pad,
  replicate,
  unpadded,
)
from nets_jax.engine.saved import LoopCheckpoints, Saved, State, Unsaved, fingerprint
from nets_jax.engine.seeds import KeysLike, as_keys
from nets_jax.networks.adapter import NetworkState, Params
from nets_jax.structs import Rows
from nets_jax.tickets.ticket import Ticket
from nets_jax.training.arguments import as_population, as_tasks, key_of_each, stacked, steps_of
from nets_jax.training.statistics import BATCHES, settled
from nets_jax.training.task import Task
from nets_jax.training.train import Evaluation, TrainingState, advance, evaluate, minibatch_order, start
from nets_jax.training.training import Training, numbers


@functools.partial(jax.jit, static_argnames=("layout",))
def _start_tickets(
  rows: tuple[Ticket, Training, NetworkState | None], task: Task, *, layout: Layout
) -> TrainingState:
  def begin(row, task):
    ticket, training, network_state = row
    return start(ticket, task.replace(training=training), network_state)

  return map_tickets(begin, layout, rows, task)


@functools.partial(jax.jit, static_argnames=("layout", "steps", "whole_epochs"))
def _train_some_steps(
  rows: tuple[jax.Array, TrainingState, Params, Training],
  shared: tuple[int, Task, dict[str, Split]],
  *,
  layout: Layout,
  steps: int,
  whole_epochs: bool,
) -> tuple[TrainingState, NetworkState, dict[str, Evaluation]]:
  """Some steps of every ticket, each on the minibatches of its own key, then its score on each split.

  Beside these is the state that it is scored with.
  """

  def train_and_score(row, shared):
    key, state, masks, training = row
    first, task, scored = shared
    task = task.replace(training=training)
    order_key, dropout_key = jax.random.split(key)
    order = minibatch_order(
      order_key, len(task.data.train), training.batch_size, steps, first=first, whole_epochs=whole_epochs
    )
    state = advance(dropout_key, state, masks, task, order, first, order_key)
    # The last minibatches of the training so far, also where it is scored more often than that.
    end = first + steps
    last = minibatch_order(
      order_key,
      len(task.data.train),
      training.batch_size,
      BATCHES,
      first=jnp.maximum(end - BATCHES, 0),
      whole_epochs=False,
    )
    by = settled(dropout_key, task, state.weights, state.network_state, last)
    return state, by, {name: evaluate(task, state.weights, split, by) for name, split in scored.items()}

  state, by, evaluations = map_tickets(train_and_score, layout, rows, shared)
  return state, by, keep_replicated(evaluations, layout)


@dataclasses.dataclass(frozen=True)
class Trained:
  """What came of training tickets side by side.

  Attributes:
    weights: theta_T of each, stacked, as NumPy arrays.
    network_states: what each network keeps besides and is evaluated with, likewise; `{}` where it keeps
      nothing. `evaluate` with these gives the last row of the curves. See `training.statistics`.
    curves: a dict for each evaluation and ticket with keys `iteration`, `epoch`, `ticket`, for each
      split its `<split>_loss` and its score, such as `<split>_accuracy`, and `seconds`, the wall-clock time
      since the start without compilation.
    compile_seconds: wall-clock time of tracing and compiling.
    carried_states: the states as the training left them, by which another one would go on.
    layout: that they were trained by in the end, of fewer at once where memory was not enough.
  """

  weights: Params
  network_states: NetworkState
  curves: Rows
  compile_seconds: float
  carried_states: NetworkState
  layout: Layout | None = None

  def by_method(self, names: Sequence[str]) -> list[dict[str, float | str]]:
    """The curves with `method`, the name of each ticket, and `trial`, which of that name it is.

    Those are the rows that `plots.training_figure` draws.

    Args:
      names: of the tickets, in their order; tickets of one name are trials of it.
    """
    trials = [list(names[:i]).count(name) for i, name in enumerate(names)]
    places = [int(row["ticket"]) for row in self.curves]
    return [
      {"method": names[i], "trial": trials[i], **row} for i, row in zip(places, self.curves, strict=True)
    ]


def train_tickets(
  keys: KeysLike,
  tickets: Ticket | Sequence[Ticket],
  task: Task | Sequence[Task],
  *,
  epochs: int | None = None,
  steps: int | None = None,
  splits: Sequence[str] = ("valid", "test"),
  network_states: NetworkState | None = None,
  layout: Layout | None = None,
  on_rows: Callable[[Rows], object] = lambda rows: None,
  checkpoints: LoopCheckpoints | None = None,
) -> Trained:
  """Trains tickets side by side, each as it would be alone, and scores them as they go.

  Args:
    keys: of the shuffles and dropout: one for each ticket, or a single one, by which all are trained on
      the same minibatches; seeds will do.
    tickets: a population of them (`tickets.stack`), several, or a single one.
    task: what they are trained for, on `train`; or one for each, the same but for the learning rate and other
      traced numbers. Its `eval_every` says how often they are scored; the last iteration always is.
    epochs: how long; None is the task's, or
    steps: how long, in iterations. A schedule that is not bound to another length is of this.
    splits: what to score on.
    network_states: what the networks begin with, stacked; None is the network's own, as for any ticket.
    layout: of the tickets; None is `make_layout(number of tickets)`.
    on_rows: called with the rows of each evaluation as it is made.
    checkpoints: where the training is saved as it goes, and goes on if it was stopped; None saves nothing.

  Raises:
    UsageError: nothing to train for, the tickets, network and data do not go together, or a checkpoint cannot
      be written or is of another training.
  """
  tasks = as_tasks(task)
  task = tasks[0]
  population = as_population(tickets, task)
  count = len(jax.tree.leaves(population)[0])
  training = stacked(tasks * count if len(tasks) == 1 else tasks, count)
  keys = key_of_each(as_keys(keys), count)
  steps = steps_of(task, epochs, steps)
  training = training.over(steps)
  eval_every = min(task.eval_every or task.steps_per_epoch, steps)
  checkpoints = Unsaved() if checkpoints is None else checkpoints
  scored = {name: getattr(task.data, name) for name in splits}
  splits_of, length = [task.data.train, *scored.values()], {"steps": steps, "eval_every": eval_every}
  begun = {"network_states": fingerprint(network_states)} if jax.tree.leaves(network_states) else {}
  saved = checkpoints.restore(lambda: _identity(task, training, keys, population, splits_of) | begun | length)
  loop = _Loop(keys, population, training, task, scored, network_states, layout or make_layout(count))
  if saved is not None:
    loop.go_on_from(saved)
  for first in range(loop.iteration, steps, eval_every):
    rows = loop.advance(min(eval_every, steps - first), eval_every, checkpoints.wait)
    on_rows(rows)
    at = f"iteration {loop.iteration:,} of {steps:,}"
    checkpoints.note(rows, at, loop.state_to_save(), loop.iteration == steps)
  kept = (loop.state.weights, loop.settled, loop.state.network_state)
  weights, states, carried = fetch_population(kept, loop.layout)
  return Trained(weights, states, loop.curves, loop.compile_seconds, carried, loop.layout)


class _Loop:
  """Tickets in training: how far they are, their curves, and what it has taken."""

  def __init__(
    self,
    keys: jax.Array,
    tickets: Ticket,
    training: Training,
    task: Task,
    scored: Mapping[str, Split],
    network_states: NetworkState | None,
    layout: Layout,
  ):
    self.layout, self._count, self._per_epoch = layout, len(keys), task.steps_per_epoch
    self._keys, tickets, self._training, states = pad((keys, tickets, training, network_states), layout)
    self._masks = tickets.masks
    task = task.for_search(task.precision).replace(training=None, initialiser=None)
    self._task, self._scored = replicate((task.replace(data=task.data.replace(valid=None)), scored), layout)
    self.state: TrainingState = _start_tickets((tickets, self._training, states), self._task, layout=layout)
    self.settled = self.state.network_state  # what the last evaluation was with
    self.iteration, self.seconds, self.compile_seconds = 0, 0.0, 0.0
    self.curves: Rows = []
    self._programs: dict[tuple[int, Layout], Callable] = {}

  def go_on_from(self, saved: Saved) -> None:
    """Takes up what an earlier process has saved."""
    for name, tree in (("state", "training"), ("settled", "settled")):
      like = unpadded(getattr(self, name), self.layout)
      setattr(self, name, pad(saved.tree(tree, like), self.layout))
    self.iteration, self.seconds, self.compile_seconds = (
      saved.record[name] for name in ("iteration", "seconds", "compile_seconds")
    )
    self.curves = list(saved.rows)

  def advance(self, steps: int, eval_every: int, wait: Callable[[PyTree], None]) -> Rows:
    """Trains so many steps and scores; the rows of that evaluation."""
    rows = (self._keys, self.state, self._masks, self._training)
    shared = (self.iteration, self._task, self._scored)

    def run(layout: Layout) -> tuple[TrainingState, NetworkState, dict[str, Evaluation]]:
      if (steps, layout) not in self._programs:
        whole = eval_every % self._per_epoch == 0
        self._programs[steps, layout], taken = compile_program(
          _train_some_steps, rows, shared, layout=layout, steps=steps, whole_epochs=whole
        )
        self.compile_seconds += taken
      begin = time.perf_counter()
      found = self._programs[steps, layout](rows, shared)
      wait(found)
      self.seconds += time.perf_counter() - begin
      return found

    found, self.layout = within_memory(run, self.layout, LESS_TO_TRAIN)
    self.state, self.settled, evaluations = found
    self.iteration += steps
    epoch = self.iteration / self._per_epoch
    score, found = self._task.measures.score, jax.device_get(evaluations)
    new = _curve_rows(self.iteration, epoch, self._count, found, self.seconds, score)
    self.curves += new
    return new

  def state_to_save(self) -> Callable[[], State]:
    """A function that gives the state as it is now, however far the loop is when it is called."""
    record = {
      "iteration": self.iteration, "seconds": self.seconds, "compile_seconds": self.compile_seconds
    }  # fmt: skip
    trees, layout = {"training": self.state, "settled": self.settled}, self.layout
    return lambda: (fetch_population(trees, layout), record)


def _identity(
  task: Task, training: Training, keys: jax.Array, tickets: Ticket, splits: Sequence[Split]
) -> dict[str, object]:
  """All but the length that the trained weights and curves depend on."""
  record = task.training.record()
  for name, value in numbers(training).items():
    record[name] = fingerprint(value)  # of each ticket its own
  return {
    **task.record(),
    "precision": task.precision,
    "training": record,
    "keys": fingerprint(keys),
    "tickets": fingerprint(tickets),
    "data": fingerprint(splits),
  }


def _curve_rows(
  iteration: int, epoch: float, count: int, evaluations: Mapping[str, Evaluation], seconds: float, score: str
) -> Rows:
  return [
    {"iteration": iteration, "epoch": epoch, "ticket": i}
    | {f"{name}_loss": float(split.loss[i]) for name, split in evaluations.items()}
    | {f"{name}_{score}": float(split.score[i]) for name, split in evaluations.items()}
    | {"seconds": seconds}
    for i in range(count)
  ]
