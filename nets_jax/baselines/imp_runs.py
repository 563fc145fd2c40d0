"""The trainings of IMP: runs side by side, cycle after cycle, on one scale of time and steps."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree

from nets_jax.engine.layouts import Layout
from nets_jax.engine.saved import LoopCheckpoints, Saved, State
from nets_jax.errors import Diverged, SearchFailed
from nets_jax.kinds import describe
from nets_jax.networks.adapter import NetworkState, Params, initial_state
from nets_jax.protocol import How, Outcome
from nets_jax.rows import Row, Rows
from nets_jax.tickets.results import Cost, SearchResult
from nets_jax.tickets.ticket import Ticket, density, take, unmasked_count
from nets_jax.training import trainer
from nets_jax.training.task import Task
from nets_jax.training.trainer import Trained

if TYPE_CHECKING:  # it imports this module
  from nets_jax.baselines.imp import Imp


STATES = "network_states"  # in a checkpoint, of the iteration that is rewound to


class Runs:
  """Trains the tickets of runs side by side, and keeps their histories on one scale of time and steps."""

  def __init__(self, keys: Key[Array, " runs"], task: Task, search: "Imp", layout: Layout, how: How):
    self.histories: list[Rows] = [[] for _ in keys]
    self.failures: list[str | None] = [None for _ in keys]
    self.steps, self.seconds, self.compile_seconds = 0, 0.0, 0.0
    self._keys, self._on_rows, self._checkpoints = keys, how.on_rows, how.checkpoints
    self._saved: Saved | None = None
    self.network_states: NetworkState | None = None  # the network's own, as for any ticket
    # It decides by magnitudes, and weight decay would move those of dead weights too.
    if task.compact and task.training.dead_weights().move:
      task = task.replace(compact=False)
    self._search, self._task = search, task
    self._layout = layout
    self._train = functools.partial(trainer.train_tickets, splits=("valid",))
    # As Frankle et al. (2020b) have it, a training from theta_k goes on at iteration k of its schedule.
    self._rewound = task.replace(training=task.training.begun_at(search.rewinding(task)))

  def go_on_from(self, saved: Saved) -> None:
    """Takes up the histories, and has the next `train` go on in the midst of its steps."""
    self._saved = saved
    if self._search.rewinding(self._task) and not saved.record["rewinding"]:
      task, count = self._task, len(self._keys)
      like = initial_state(task.network, task.data.input_shape)
      stacked = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape), leaf.dtype), like)
      self.network_states = saved.tree(STATES, stacked)
    self.steps, self.seconds, self.compile_seconds, self.failures = (
      saved.record[name] for name in ("steps", "seconds", "compile_seconds", "failures")
    )
    for row in saved.rows:
      self.histories[int(row.pop("run", 0))].append(row)

  def rewind(self, tickets: Ticket, steps: int) -> Ticket:
    """The tickets at iteration k, from whose weights and network's state every cycle begins."""
    trained = self._train_cycle(0, tickets, steps, rewinding=True)
    self.network_states = trained.carried_states
    return tickets.replace(weights=self.where_sound(trained.weights, tickets.weights))

  def train(self, cycle: int, tickets: Ticket, steps: int) -> Params:
    """The weights of every ticket after so many steps on the cycle's own shuffles."""
    return self._train_cycle(cycle, tickets, steps).weights

  def _train_cycle(self, cycle: int, tickets: Ticket, steps: int, rewinding: bool = False) -> Trained:
    outer = {
      "cycle": cycle,
      "rewinding": rewinding,
      "steps": self.steps,
      "seconds": self.seconds,
      "compile_seconds": self.compile_seconds,
      "failures": list(self.failures),
    }
    record = functools.partial(self._record, cycle, float(density(take(tickets, 0))), self.seconds)
    trees = {"tickets": tickets} | ({STATES: self.network_states} if self.network_states else {})
    part = _Part(self._checkpoints, self._saved, self.histories, trees, outer)
    part.ends_it = cycle + 1 == self._search.cycles and not rewinding
    self._saved = None
    keys = jax.vmap(lambda k: jax.random.fold_in(k, cycle))(self._keys)
    trained = self._train(
      keys,
      tickets=tickets,
      task=self._task if rewinding else self._rewound,
      steps=steps,
      network_states=self.network_states,
      layout=self._layout,
      on_rows=record,
      checkpoints=part,
    )
    self._layout = trained.layout or self._layout  # what memory was not enough for once, it never is
    self.steps += steps
    self.seconds = self.histories[0][-1]["seconds"]
    self.compile_seconds += trained.compile_seconds
    self._note_failures(cycle, trained.weights)
    return trained

  def _record(self, cycle: int, kept: float, begun_at: float, rows: Rows) -> None:
    """Adds an evaluation's rows to the histories, in seconds and iterations from the runs' start."""
    self.seconds = begun_at + rows[0]["seconds"] / len(rows)
    score = self._task.measures.column("valid")
    new: Rows = [
      {
        "cycle": cycle,
        "iteration": self.steps + row["iteration"],
        "valid_loss": row["valid_loss"],
        score: row[score],
        "density": kept,
        "seconds": self.seconds,
      }
      for row in rows
    ]
    for history, row in zip(self.histories, new, strict=True):
      history.append(row)
    self._on_rows(new)

  def _note_failures(self, cycle: int, weights: Params) -> None:
    """Finds the runs whose training has diverged, in which magnitudes would say nothing."""
    for i, history in enumerate(self.histories):
      is_finite = all(np.isfinite(leaf[i]).all() for leaf in jax.tree.leaves(weights))
      if self.failures[i] is None and not (is_finite and math.isfinite(history[-1]["valid_loss"])):
        self.failures[i] = (
          f"the training of cycle {cycle} diverged; lower learning_rate "
          f"({describe(self._task.training.learning_rate)}){self._task.initialiser.remedy}"
        )

  def where_sound(self, new: Params, old: Params) -> Params:
    """The new masks or weights, but of runs that have diverged the old ones."""
    sound = np.array([failure is None for failure in self.failures])
    if sound.all():
      return new

    def choose(a, b):
      return jnp.where(sound.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return jax.tree.map(choose, new, old)

  def outcomes(self, tickets: Ticket) -> list[Outcome]:
    """Each run's result, or why it has none."""
    cost = Cost(
      self.steps / self._task.steps_per_epoch, self.seconds, self.compile_seconds / len(self.histories)
    )
    outcomes: list[Outcome] = []
    for i, (history, failure) in enumerate(zip(self.histories, self.failures, strict=True)):
      outcome = result = SearchResult(take(tickets, i), history, cost)
      if failure is not None:
        outcome = Diverged(failure, result)
      elif not unmasked_count(result.ticket):
        outcome = SearchFailed(
          f"{self._search.cycles} cycles of IMP prune every weight; lower cycles or prune_fraction", result
        )
      outcomes.append(outcome)
    return outcomes


class _Part:
  """What a cycle's training saves and finds saved: its own state within that of the runs."""

  def __init__(
    self,
    checkpoints: LoopCheckpoints,
    saved: Saved | None,
    histories: Sequence[Rows],
    trees: Mapping[str, PyTree],
    outer: Mapping[str, object],
  ):
    self._checkpoints, self._saved, self._histories = checkpoints, saved, histories
    self._trees, self._outer, self.ends_it = trees, outer, False

  def restore(self, identity: Callable[[], Mapping[str, object]]) -> Saved | None:
    """The training's part of what the runs go on from, in the first cycle after that."""
    del identity
    return self._saved and dataclasses.replace(self._saved, record=self._saved.record["training"], rows=[])

  def note(self, rows: Sequence[Row], at: str, take: Callable[[], State], last: bool = False) -> None:
    """Notes the newest rows of the histories in place of the training's."""
    several = len(self._histories) > 1
    rows = [({"run": i} if several else {}) | history[-1] for i, history in enumerate(self._histories)]
    at = f"cycle {self._outer['cycle']}, {at}"
    self._checkpoints.note(rows, at, functools.partial(self._to_save, take), last and self.ends_it)

  def wait(self, arrays: PyTree) -> None:
    """As the runs' own."""
    self._checkpoints.wait(arrays)

  def _to_save(self, take: Callable[[], State]) -> State:
    trees, record = take()
    return {**trees, **self._trees}, {**self._outer, "training": record}
