"""Trains tickets side by side, each as it would be alone, with their curves."""

import dataclasses
from collections.abc import Callable, Sequence

import jax

from nets_jax.data.dataset import Split
from nets_jax.engine.layouts import Layout, make_layout
from nets_jax.engine.saved import LoopCheckpoints, Unsaved, fingerprint
from nets_jax.engine.seeds import KeysLike, as_keys
from nets_jax.networks.adapter import NetworkState, Params
from nets_jax.rows import Rows
from nets_jax.tickets.ticket import Ticket
from nets_jax.training.arguments import as_population, as_tasks, key_of_each, stacked, steps_of
from nets_jax.training.loops import Loops
from nets_jax.training.parts import groups_of, placed
from nets_jax.training.task import Task
from nets_jax.training.training import Training, numbers


@dataclasses.dataclass(frozen=True)
class Trained:
  """What came of training tickets side by side.

  Attributes:
    weights: theta_T of each, stacked, as NumPy arrays. Of a compact form dead weights are those of theta_0,
      and so are the states of dead units; a whole training may move these, and the weights by decay.
    network_states: what each network keeps besides and is evaluated with, likewise; `{}` where it keeps
      nothing. `evaluate` with these gives the last row of the curves, up to the order of sums where a ticket
      was trained in its compact form. See `training.statistics`.
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
  layout = layout or make_layout(count)
  groups = groups_of(population, task, network_states)
  loops = Loops(placed(groups, layout), keys, training, scored)
  if saved is not None:
    loops.go_on_from(saved)
  for first in range(loops.iteration, steps, eval_every):
    rows = loops.advance(min(eval_every, steps - first), eval_every, checkpoints.wait)
    on_rows(rows)
    at = f"iteration {loops.iteration:,} of {steps:,}"
    checkpoints.note(rows, at, loops.state_to_save(), loops.iteration == steps)
  weights, states, carried = loops.results(population, task, network_states)
  if loops.chunk != layout.chunk:
    layout = dataclasses.replace(layout, chunk=loops.chunk)
  return Trained(weights, states, loops.curves, loops.compile_seconds, carried, layout)


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
