"""The loop that trains tickets of one program: some steps of all, then their scores, again and again."""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from nets_jax.data.dataset import Split
from nets_jax.engine.batching import keep_replicated, map_tickets
from nets_jax.engine.exhaustion import LESS_TO_TRAIN, within_memory
from nets_jax.engine.layouts import Layout, compile_program, fetch_population, pad, replicate, unpadded
from nets_jax.networks.adapter import NetworkState, Params
from nets_jax.rows import Rows
from nets_jax.tickets.ticket import Ticket
from nets_jax.training.evaluation import Evaluation, evaluate
from nets_jax.training.parts import Part
from nets_jax.training.statistics import BATCHES, settled
from nets_jax.training.task import Task
from nets_jax.training.train import TrainingState, advance, minibatch_order, start
from nets_jax.training.training import Training

Tree = TypeVar("Tree")
# Of some steps: the state after them, what it is scored with, and its score on each split.
Found = tuple[TrainingState, NetworkState, dict[str, Evaluation]]


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
) -> Found:
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


class Loop:
  """Tickets in training: how far they are, and what it has taken."""

  def __init__(self, part: Part, keys: jax.Array, training: Training, scored: Mapping[str, Split]):
    group = part.group
    self.part, self.layout, self._per_epoch = part, part.layout, group.task.steps_per_epoch
    tickets, states = _rows((group.tickets, group.states), part.rows, len(group.places))
    self._keys, self._training = _rows((keys, training), part.places, len(keys))
    tickets, states, self._keys, self._training = pad(
      (tickets, states, self._keys, self._training), self.layout
    )
    self._masks = tickets.masks
    task = group.task.for_search(group.task.precision).replace(training=None, initialiser=None)
    self._task, self._scored = replicate(
      (task.replace(data=task.data.replace(valid=None)), scored), self.layout
    )
    self.state: TrainingState = _start_tickets(
      (tickets, self._training, states), self._task, layout=self.layout
    )
    self.settled = self.state.network_state  # what the last evaluation was with
    self.iteration, self.seconds, self.compile_seconds = 0, 0.0, 0.0
    self._programs: dict[tuple[int, Layout], Callable] = {}

  def go_on_from(self, state: PyTree, settled: PyTree, iteration: int) -> None:
    """Takes up what an earlier process has saved."""
    self.state, self.settled = (pad(tree, self.layout) for tree in (state, settled))
    self.iteration = iteration

  def advance(self, steps: int, eval_every: int, wait: Callable[[PyTree], None]) -> Rows:
    """Trains so many steps and scores; the rows of that evaluation."""

    def run(layout: Layout) -> Found:
      program = self.compiled(steps, eval_every, layout)
      begin = time.perf_counter()
      found = program()
      wait(found)
      self.seconds += time.perf_counter() - begin
      return found

    found, self.layout = within_memory(run, self.layout, LESS_TO_TRAIN)
    return self.take_up(found, steps)

  def compiled(self, steps: int, eval_every: int, layout: Layout | None = None) -> Callable[[], Found]:
    """A function that begins to train so many steps, and to score; it returns before they are done."""
    layout = layout or self.layout
    rows = (self._keys, self.state, self._masks, self._training)
    shared = (self.iteration, self._task, self._scored)
    if (steps, layout) not in self._programs:
      whole = eval_every % self._per_epoch == 0
      self._programs[steps, layout], taken = compile_program(
        _train_some_steps, rows, shared, layout=layout, steps=steps, whole_epochs=whole
      )
      self.compile_seconds += taken
    return functools.partial(self._programs[steps, layout], rows, shared)

  def take_up(self, found: Found, steps: int) -> Rows:
    """Has the state after so many steps for its own; the rows of their evaluation."""
    self.state, self.settled, evaluations = found
    self.iteration += steps
    return self._rows(jax.device_get(evaluations))

  def _rows(self, evaluations: Mapping[str, Evaluation]) -> Rows:
    score = self._task.measures.score
    epoch = self.iteration / self._per_epoch
    return [
      {"iteration": self.iteration, "epoch": epoch, "ticket": place}
      | {f"{name}_loss": float(split.loss[i]) for name, split in evaluations.items()}
      | {f"{name}_{score}": float(split.score[i]) for name, split in evaluations.items()}
      for i, place in enumerate(self.part.places)
    ]

  def like(self) -> tuple[PyTree, PyTree]:
    """The shapes and types of its state, and of what its last evaluation was with."""
    return unpadded(self.state, self.layout), unpadded(self.settled, self.layout)

  def fetched(self) -> Callable[[], tuple[TrainingState, NetworkState]]:
    """A function that gives the two as they are now, however far the loop is when it is called."""
    trees, layout = (self.state, self.settled), self.layout
    return lambda: fetch_population(trees, layout)


def _rows(tree: Tree, rows: Sequence[int], of: int) -> Tree:
  """Some rows of stacked arrays, which have so many; on the host, where nothing need be compiled for it."""
  if len(rows) == of:
    return tree

  def own(leaf):
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return leaf[jnp.array(rows)] if is_key else np.asarray(leaf)[np.array(rows)]

  return jax.tree.map(own, tree)
