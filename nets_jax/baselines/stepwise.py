"""Searches that optimise something of their own, step by step: runs side by side, saved as they go."""

import functools
import math
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Key, PyTree

from nets_jax import structs
from nets_jax.engine.batching import map_tickets
from nets_jax.engine.exhaustion import LESS_TO_TRAIN, within_memory
from nets_jax.engine.layouts import Layout, compile_program, fetch_population, pad, replicate, unpadded
from nets_jax.engine.saved import fingerprint
from nets_jax.errors import Diverged, SearchFailed
from nets_jax.kinds import describe
from nets_jax.networks.adapter import NetworkState, Params
from nets_jax.protocol import How, Outcome, Search
from nets_jax.rows import Rows
from nets_jax.settings import record
from nets_jax.tickets.results import Cost, OwnTraining, SearchResult
from nets_jax.tickets.ticket import Ticket, take
from nets_jax.training.task import Task

State = PyTree


@structs.dataclass
class Found:
  """What a stepwise search comes to, of ONE run or stacked.

  Attributes:
    ticket: found.
    tells: whether it is one, as far as can be told: its scores are finite and rank something.
    trained: weights and state of a network that the search has trained; None of a search that trains none.
  """

  ticket: Ticket
  tells: Array
  trained: tuple[Params, NetworkState] | None = None


class Stepwise(Search):
  """Base of searches that take steps on minibatches; written for ONE run, and batched here.

  A subclass has `steps`, `begin`, `advance`, `measure` and `finish`. A turn is an epoch's steps, or the rest;
  after each the state may be saved.
  """

  def steps(self, task: Task) -> int:
    """Steps altogether."""
    raise NotImplementedError

  def begin(self, key: Key[Array, ""], task: Task) -> State:
    """The state before the first step."""
    raise NotImplementedError

  def advance(self, key: Key[Array, ""], state: State, task: Task, first: Array, steps: int) -> State:
    """The state so many steps later; step t draws by `key` and t alone.

    Args:
      key: of the run.
      state: after `first` steps.
      task: what the ticket is for.
      first: number of the first of these steps.
      steps: how many (static).
    """
    raise NotImplementedError

  def measure(self, state: State, task: Task) -> Mapping[str, Array]:
    """Columns of the history after a turn."""
    raise NotImplementedError

  def finish(self, state: State, task: Task) -> Found:
    """What was found."""
    raise NotImplementedError

  def prepared(self, task: Task) -> Task:
    """The task as the steps see it."""
    return task.for_search(getattr(self, "precision", "float32"))

  def reports(self, task: Task, runs: int = 1) -> int:
    """A report for each turn."""
    del runs
    return -(-self.steps(task) // task.steps_per_epoch)

  def find(self, keys: Key[Array, " runs"], task: Task, how: How) -> list[Outcome]:
    """See `Search.find`.

    Returns:
      For each key the ticket and its history: a row for each turn with keys `iteration`, what `measure`
      gives, and `seconds`, the time of all runs together, without compilation, over their number. A run fails
      where its scores say nothing, or are not finite.
    """
    saved = how.checkpoints.restore(functools.partial(_identity, keys, task, self))
    layout, turn, total = how.layout_of(len(keys)), task.steps_per_epoch, self.steps(task)
    rows, shared = pad(keys, layout), replicate((self.prepared(task), self), layout)
    loop = _Loop(rows, shared, layout)
    histories: list[Rows] = [[] for _ in keys]
    if saved is None:
      loop.begin()
    else:
      loop.go_on_from(saved.tree("state", loop.like()), saved.record)
      for row in saved.rows:
        histories[int(row.pop("run", 0))].append(row)
    while loop.iteration < total and not (loop.iteration and how.is_over(loop.seconds)):
      measures = loop.advance(min(turn, total - loop.iteration), how.checkpoints.wait)
      new: Rows = [
        {"iteration": loop.iteration} | {name: float(values[i]) for name, values in measures.items()}
        | {"seconds": loop.seconds / len(keys)}
        for i in range(len(keys))
      ]  # fmt: skip
      for history, row in zip(histories, new, strict=True):
        history.append(row)
      how.on_rows(new)
      at = f"iteration {loop.iteration:,} of {total:,}"
      how.checkpoints.note(
        [{"run": i, **row} for i, row in enumerate(new)] if len(new) > 1 else new,
        at, loop.state_to_save(), loop.iteration == total,
      )  # fmt: skip
    found = loop.finish()
    done = loop.iteration / total if total else 1.0
    cost = Cost(self.genome_epochs(task) * done, loop.seconds / len(keys), loop.compile_seconds / len(keys))
    return [self._outcome(found, i, history, cost, task) for i, history in enumerate(histories)]

  def _outcome(self, found: Found, i: int, history: Rows, cost: Cost, task: Task) -> Outcome:
    ticket, tells, trained = take((found.ticket, found.tells, found.trained), i)
    own = None if trained is None else OwnTraining(*trained)
    result = SearchResult(ticket, history, cost, best=history[-1] if history else None, own_training=own)
    name = type(self).__name__
    if not tells:
      return SearchFailed(
        f"the scores of {name} say nothing of a layer, or are not finite; try another init, or a lower rate "
        "of its own",
        result,
      )
    if history and not math.isfinite(history[-1].get("valid_loss", 0.0)):
      return Diverged(
        f"the training of {name} diverged; lower learning_rate ({describe(task.training.learning_rate)})"
        f"{task.initialiser.remedy}",
        result,
      )
    return result


class _Loop:
  """Runs side by side: their state, how far they are, and what it has taken."""

  def __init__(self, rows: Key[Array, " rows"], shared: tuple[Task, Stepwise], layout: Layout):
    self._rows, self._shared, self._layout = rows, shared, layout
    self.iteration, self.seconds, self.compile_seconds = 0, 0.0, 0.0
    self._programs: dict[Hashable, Callable[..., Any]] = {}
    self.state: State = None

  def _run(
    self,
    program: jax.stages.Wrapped,
    *arguments: Any,
    wait: Callable[[PyTree], object] = jax.block_until_ready,
    **static: Any,
  ) -> Any:
    """Compiles and runs a program, its times apart."""
    name = (getattr(program, "__name__", ""), self._layout, *static.items())
    if name not in self._programs:
      self._programs[name], taken = compile_program(program, *arguments, layout=self._layout, **static)
      self.compile_seconds += taken
    begin = time.perf_counter()
    found = self._programs[name](*arguments)
    wait(found)
    self.seconds += time.perf_counter() - begin
    return found

  def like(self) -> State:
    """Shapes and types of the state, without padding."""
    return unpadded(jax.eval_shape(functools.partial(_begin, layout=self._layout), self._rows, self._shared),
      self._layout)  # fmt: skip

  def begin(self) -> None:
    """The state before the first step."""
    self.state = self._run(_begin, self._rows, self._shared)

  def go_on_from(self, state: State, saved: Mapping[str, Any]) -> None:
    """Takes up what an earlier process has saved."""
    self.state = pad(state, self._layout)
    self.iteration = saved["iteration"]
    self.seconds, self.compile_seconds = saved["seconds"], saved["compile_seconds"]

  def advance(self, steps: int, wait: Callable[[PyTree], None]) -> Mapping[str, np.ndarray]:
    """So many steps of all runs; what they measure after them."""

    def run(layout: Layout) -> Any:
      self._layout = layout
      return self._run(_advance, self._rows, self.state, self._shared, self.iteration, wait=wait, steps=steps)

    (self.state, measures), _ = within_memory(run, self._layout, LESS_TO_TRAIN)
    self.iteration += steps
    return fetch_population(measures, self._layout)

  def state_to_save(self) -> Callable[[], tuple[dict[str, State], dict[str, object]]]:
    """A function that gives the state as it is now, however far the loop is when it is called."""
    state, layout = self.state, self._layout
    record: dict[str, object] = {
      "iteration": self.iteration, "seconds": self.seconds, "compile_seconds": self.compile_seconds
    }  # fmt: skip
    return lambda: ({"state": fetch_population(state, layout)}, record)

  def finish(self) -> Found:
    """What was found, on the host."""
    return fetch_population(self._run(_finish, self.state, self._shared), self._layout)


@functools.partial(jax.jit, static_argnames=("layout",))
def _begin(rows: jax.Array, shared: tuple[Task, Stepwise], *, layout: Layout) -> State:
  return map_tickets(lambda key, shared: shared[1].begin(_split(key)[0], shared[0]), layout, rows, shared)


@functools.partial(jax.jit, static_argnames=("layout", "steps"))
def _advance(
  rows: jax.Array,
  state: State,
  shared: tuple[Task, Stepwise],
  first: int | jax.Array,
  *,
  layout: Layout,
  steps: int,
) -> tuple[State, Mapping[str, jax.Array]]:
  def run(row, shared):
    (key, state), ((task, search), first) = row, shared
    state = search.advance(_split(key)[1], state, task, first, steps)
    return state, dict(search.measure(state, task))

  return map_tickets(run, layout, (rows, state), (shared, first))


@functools.partial(jax.jit, static_argnames=("layout",))
def _finish(state: State, shared: tuple[Task, Stepwise], *, layout: Layout) -> Found:
  return map_tickets(lambda state, shared: shared[1].finish(state, shared[0]), layout, state, shared)


def _split(key: Key[Array, ""]) -> tuple[jax.Array, jax.Array]:
  """The keys of a run's first weights, and of its steps."""
  first, steps = jax.random.split(key)
  return first, steps


def _identity(keys: jax.Array, task: Task, search: Stepwise) -> dict[str, object]:
  """All that the tickets depend on."""
  parts = {"training": task.training.record(), "initialiser": record(task.initialiser), "epochs": task.epochs}
  return {
    "search": type(search).__name__,
    "keys": fingerprint(keys),
    **task.record(),
    "data": fingerprint((task.data.train, task.data.valid)),
    "settings": record(search) | parts,
  }
