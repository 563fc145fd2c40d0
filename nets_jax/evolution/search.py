"""NeTS from its first generation to its last: the loop around `generation.step_all`, and its record."""

import dataclasses
import functools
import math
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import struct

from nets_jax import settings
from nets_jax.engine.batching import fetch_rows
from nets_jax.engine.layouts import (
  Layout,
  check_memory,
  compile_program,
  fetch_population,
  pad,
  replicate,
  resized,
  unpadded,
)
from nets_jax.engine.saved import Saved, fingerprint
from nets_jax.errors import Diverged, SearchFailed, UsageError
from nets_jax.evolution import halving
from nets_jax.evolution.configuration import NetsSettings, Settings, stack_settings
from nets_jax.evolution.fitness import Metrics
from nets_jax.evolution.frontier import Frontier, Met
from nets_jax.evolution.generation import State, init_all, step_all
from nets_jax.evolution.history import History
from nets_jax.kinds import describe
from nets_jax.protocol import How, Outcome
from nets_jax.tickets.results import Cost, SearchResult
from nets_jax.tickets.ticket import Ticket, initialise, take, unmasked_count
from nets_jax.training.task import Task


@struct.dataclass
class Nets(NetsSettings):
  """Neuroevolution Ticket Search (paper, Algorithm 1), and all that is made of its parts; see `recipes`."""

  def find(self, keys, task, how):
    """See `Search.find`."""
    return self.find_all(keys, [task] * len(keys), [self] * len(keys), how)

  @classmethod
  def find_all(cls, keys, tasks, searches, how):
    """Runs NeTS once for each key, side by side in one program; each run is as it would be alone.

    Runs may differ in all that is traced. One that has had its generations, or its patience, keeps its result
    and waits for the others. With halvings the losses are after trainings of different lengths, so a frontier
    holds hardly more than the last tickets.

    Returns:
      For each run the ticket, its history, its cost and its frontier. The history is a dict for each
      generation and genome with keys `generation`, `genome`, `parent_1` and `parent_2` (indices in the
      generation before; -1 in the first), `fitness`, `valid_loss`, `valid_accuracy`, `density` and `seconds`.
      Seconds are the wall-clock time since the start, without compilation, of all runs together over their
      number. A run fails in which every genome of a generation diverged, or the best has no weight left.

    Raises:
      UsageError: settings that cannot share a program, a population larger than memory, or a checkpoint.
    """
    return _run(keys, tasks, searches, how)

  def genome_epochs(self, task: Task) -> float:
    """Of all generations."""
    return halving.genome_epochs(self, task, self.generations + 1)


def _run(keys: jax.Array, tasks: Sequence[Task], searches: Sequence[NetsSettings], how: How) -> list[Outcome]:
  """The loop of all runs; see `Nets.find_all`."""
  runs = len(keys)
  _check_alike(tasks)
  checkpoints, frontier_size = how.checkpoints, how.frontier_size
  saved = checkpoints.restore(functools.partial(_identity, keys, tasks, searches, frontier_size))
  now = _stage(tasks, searches, 0)
  layout = how.layout_of(runs * now.search.population_size)
  check_memory(_abstract_genome(tasks[0], searches[0]), layout)
  task = tasks[0].for_search(searches[0].precision).replace(training=None, initialiser=None)
  keys, now = replicate((keys, now), layout)
  state = init_all(keys, task, now, layout)
  records = [
    _Record(own, task, History(), Frontier(frontier_size)) for own, task in zip(searches, tasks, strict=True)
  ]
  generation, seconds, compile_seconds = 0, 0.0, 0.0
  if saved is not None:
    generation, seconds, compile_seconds = (
      saved.record[name] for name in ("generation", "seconds", "compile_seconds")
    )
    now = _stage(tasks, searches, generation)
    state, layout = _narrowed(state, now, layout)
    state, records = _restored(saved, state, records, frontier_size, layout)
  run = None
  while not all(record.ended for record in records):
    if run is None:
      shared = replicate((task, now), layout)
      run, taken = compile_program(step_all, state, *shared, layout)
      compile_seconds += taken
    begin, parents, population = time.perf_counter(), state.parents, state.population
    state, metrics = run(state, *shared)
    checkpoints.wait(metrics)
    metrics, parents = jax.device_get((metrics, parents))
    seconds += (time.perf_counter() - begin) / runs
    rows, is_over = [], how.is_over(seconds * runs)
    for i, record in enumerate(records):
      if not record.ended:
        own = jax.tree.map(lambda leaf, i=i: leaf[i], metrics)
        rows.append((i, record.add(generation, own, parents[i], seconds)))
        take_genome = functools.partial(_fetch, population, i * now.search.population_size, layout)
        record.frontier.offer(rows[-1][1], take_genome)
        record.pruned = how.prune is not None and not record.ended and how.prune(i, rows[-1][1])
        record.ended = record.ended or record.pruned or is_over
        if record.ended:
          record.ticket = take(jax.device_get(state.best), i)
    generation += 1
    if halving.begins_stage(searches[0], generation):
      now, run = _stage(tasks, searches, generation), None
      state, layout = _narrowed(state, now, layout)
    if shown := [row for i, own in rows if records[i].failure is None for row in own]:
      how.on_rows(shown)
    checkpoints.note(
      [{"run": i, **row} if runs > 1 else row for i, own in rows for row in own],
      f"generation {generation - 1}",
      functools.partial(
        _to_save, state, [record.copy() for record in records], layout, generation, seconds, compile_seconds
      ),
      last=all(record.ended for record in records),
    )
  return [record.outcome(compile_seconds / runs) for record in records]


def _check_alike(tasks: Sequence[Task]) -> None:
  """Raises UsageError unless tasks differ in their training and initialiser alone."""
  bare = [task.replace(data=None, training=None, initialiser=None) for task in tasks]
  if any(task.data is not tasks[0].data for task in tasks) or any(one != bare[0] for one in bare):
    raise UsageError("runs side by side are for one network, data, loss and score; give them one by one")


def _abstract_genome(task: Task, search: NetsSettings) -> Ticket:
  """The shapes and types of one genome in a population."""
  genome = jax.eval_shape(lambda key: initialise(key, task.network, task.data.input_shape), jax.random.key(0))
  if search.observer is None:
    return genome
  numbers = jax.tree.map(lambda mask: jax.ShapeDtypeStruct(mask.shape, np.float32), genome.masks)
  return genome.replace(scores=numbers)


def _stage(tasks: Sequence[Task], searches: Sequence[NetsSettings], generation: int) -> Settings:
  """The settings by which a generation of all runs is evaluated, as one."""
  return stack_settings(tasks, [halving.stage(own, generation) for own in searches])


def _narrowed(state: State, now: Settings, before: Layout) -> tuple[State, Layout]:
  """The state with the genomes of a stage, and their layout."""
  size = now.search.population_size
  layout = resized(before, len(state.fitness) * size)
  return halving.narrow(state, size, before, layout), layout


@functools.partial(jax.jit, static_argnames="layout")
def _fetch_row(population: Ticket, index: jax.Array, layout: Layout) -> Ticket:
  return fetch_rows(population.replace(scores=None), index[None], layout)


def _fetch(population: Ticket, first: int, layout: Layout, genome: int) -> Ticket:
  """A genome of the run that begins at a row, as a ticket on the host."""
  index = replicate(np.int32(first + genome), layout)
  row = jax.device_get(_fetch_row(population, index, layout))
  return jax.tree.map(lambda leaf: np.array(leaf[0]), row)


def _identity(
  keys: jax.Array, tasks: Sequence[Task], searches: Sequence[NetsSettings], frontier_size: int
) -> dict[str, Any]:
  """All that the runs' results depend on."""
  fields = [
    settings.record(search)
    | {"training": task.training.record(), "initialiser": settings.record(task.initialiser)}
    for search, task in zip(searches, tasks, strict=True)
  ]
  return {
    "search": "nets",
    "keys": fingerprint(keys),
    **tasks[0].record(),
    "data": fingerprint((tasks[0].data.train, tasks[0].data.valid)),
    "frontier_size": frontier_size,
    "settings": fields[0] if len(fields) == 1 else {str(i): own for i, own in enumerate(fields)},
  }


def _to_save(
  state: State,
  records: Sequence["_Record"],
  layout: Layout,
  generation: int,
  seconds: float,
  compile_seconds: float,
) -> tuple[dict[str, Any], dict[str, Any]]:
  """The search between two generations, and the tickets of the runs that have ended."""
  trees = {
    "state": state.replace(population=None),
    "population": fetch_population(state.population, layout),
    **{f"ticket_{i}": record.ticket for i, record in enumerate(records) if record.ended},
    **{
      f"frontier_{i}_{j}": m.ticket for i, record in enumerate(records) for j, m in enumerate(record.frontier)
    },
  }
  kept = {
    "runs": [record.counts() for record in records],
    "frontiers": [[met.row for met in record.frontier] for record in records],
  }
  return trees, {**kept, "generation": generation, "seconds": seconds, "compile_seconds": compile_seconds}


def _restored(
  saved: Saved, state: State, records: Sequence["_Record"], frontier_size: int, layout: Layout
) -> tuple[State, list["_Record"]]:
  """The state and the records that `_to_save` was given."""
  population = saved.tree("population", unpadded(state.population, layout))
  others = replicate(saved.tree("state", state.replace(population=None)), layout)
  one = take(state.best, 0)
  restored = []
  for i, (record, counts) in enumerate(zip(records, saved.record["runs"], strict=True)):
    own = (row for row in saved.rows if row.get("run", i) == i)
    rows = [{name: value for name, value in row.items() if name != "run"} for row in own]
    ticket = saved.tree(f"ticket_{i}", one) if counts["ended"] else None
    met = [
      Met(saved.tree(f"frontier_{i}_{j}", one), row) for j, row in enumerate(saved.record["frontiers"][i])
    ]
    frontier = Frontier(frontier_size, met)
    restored.append(_Record(record.search, record.task, History(rows), frontier, ticket, **counts))
  return others.replace(population=pad(population, layout)), restored


@dataclasses.dataclass
class _Record:
  """What one run has shown so far, and whether it has ended."""

  search: NetsSettings
  task: Task
  history: History
  frontier: Frontier
  ticket: Ticket | None = None
  ended: bool = False
  failure: str | None = None
  generations: int = 0
  improved: int = -1
  lowest: float = math.inf
  seconds: float = 0.0
  pruned: bool = False

  def counts(self) -> dict[str, Any]:
    """All that is not stored elsewhere."""
    return {name: getattr(self, name) for name in list(self.__dataclass_fields__)[5:]}

  def copy(self) -> "_Record":
    """As it is now, to be saved later."""
    return dataclasses.replace(self, frontier=list(self.frontier))

  def add(
    self, generation: int, metrics: Metrics, parents: np.ndarray, seconds: float
  ) -> list[dict[str, Any]]:
    """Notes a generation, and returns its history rows."""
    search, lowest = self.search, float(metrics.fitness.min())
    if halving.begins_stage(search, generation):
      self.lowest = math.inf
    rows = self.history.add(generation, metrics, parents, seconds)
    self.generations, self.seconds = generation + 1, seconds
    if lowest < self.lowest:
      self.improved, self.lowest = generation, lowest
    if not math.isfinite(lowest):
      who = f"every genome of generation {generation}"
      self.failure = (
        f"{who} has an objective that is not a finite number, though training went well; mend the objective"
        if np.isfinite(metrics.valid_loss).any()
        else f"{who} diverged in training; lower learning_rate "
        f"({describe(self.task.training.learning_rate)}) or init_scale "
        f"({describe(self.task.initialiser.scale)})"
      )
    tired = search.patience is not None and generation - self.improved > search.patience
    self.ended = tired or generation >= search.generations or self.failure is not None
    return rows

  def outcome(self, compile_seconds: float) -> SearchResult | SearchFailed:
    """The run's result, or why it has none."""
    epochs = halving.genome_epochs(self.search, self.task, self.generations)
    cost = Cost(epochs, self.seconds, compile_seconds)
    rows = [row for row in self.history if row["generation"] == self.improved]
    best = min(rows, key=lambda row: row["fitness"], default=None)
    result = SearchResult(self.ticket, self.history, cost, list(self.frontier), best)
    if self.failure is not None:
      return Diverged(self.failure, result if self.improved >= 0 else None)
    if self.pruned:
      return SearchFailed(f"pruned after generation {self.generations - 1}", result)
    if not unmasked_count(self.ticket):
      return SearchFailed("the best genome has no weight left; lower dormancy_rate", result)
    return result
