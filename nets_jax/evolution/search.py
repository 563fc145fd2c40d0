"""NeTS from its first generation to its last: the loop around `generation.step_all`."""

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import jax
import numpy as np
from jaxtyping import Array, Int, Key

from nets_jax import structs
from nets_jax.engine.batching import fetch_rows
from nets_jax.engine.exhaustion import LESS_TO_TRAIN, within_memory
from nets_jax.engine.layouts import (
  Layout,
  check_memory,
  compile_in_thread,
  compile_program,
  replicate,
  resized,
)
from nets_jax.engine.saved import Saved
from nets_jax.errors import UsageError
from nets_jax.evolution import halving, resuming, stages
from nets_jax.evolution.configuration import NetsSettings
from nets_jax.evolution.fitness import Metrics
from nets_jax.evolution.frontier import Frontier
from nets_jax.evolution.generation import State, init_all, step_all
from nets_jax.evolution.history import History
from nets_jax.evolution.places import rows_of
from nets_jax.evolution.run_record import RunRecord
from nets_jax.evolution.stages import Ahead, Stage
from nets_jax.protocol import How, Outcome, Search
from nets_jax.rows import Rows
from nets_jax.tickets.ticket import Ticket, initialise, take
from nets_jax.training.task import Task


@structs.dataclass
class Nets(NetsSettings):
  """Neuroevolution Ticket Search (paper, Algorithm 1), and all that is made of its parts; see `recipes`."""

  def find(self, keys: Key[Array, " runs"], task: Task, how: How) -> list[Outcome]:
    """See `Search.find`."""
    return self.find_all(keys, [task] * len(keys), [self] * len(keys), how)

  @classmethod
  def find_all(
    cls, keys: Key[Array, " runs"], tasks: Sequence[Task], searches: Sequence[Search], how: How
  ) -> list[Outcome]:
    """Runs NeTS once for each key, side by side in one program; each run is as it would be alone.

    Runs may differ in all that is traced. One that has had its generations, or its patience, keeps its result
    and waits for the others. With halvings the losses are after trainings of different lengths, and on
    different shares of the examples, so a frontier holds hardly more than the last tickets.

    Returns:
      For each run the ticket, its history, its cost and its frontier. The history is a dict for each
      generation and genome with keys `generation`, `genome`, `parent_1` and `parent_2` (indices in the
      generation before; -1 in the first), `fitness`, `valid_loss`, `valid_accuracy` (or another score),
      `density` and `seconds`.
      Seconds are the wall-clock time since the start, without compilation, of all runs together over their
      number. A run fails in which every genome of a generation diverged, or the best has no weight left.

    Raises:
      UsageError: settings that cannot share a program, a population larger than memory, or a checkpoint.
    """
    return _run(keys, tasks, cast(Sequence[NetsSettings], searches), how)

  def genome_epochs(self, task: Task) -> float:
    """Of all generations."""
    return halving.genome_epochs(self, task, self.generations + 1)


def _run(keys: jax.Array, tasks: Sequence[Task], searches: Sequence[NetsSettings], how: How) -> list[Outcome]:
  """The loop of all runs; see `Nets.find_all`."""
  _check_alike(tasks)
  saved = how.checkpoints.restore(
    functools.partial(resuming.identity, keys, tasks, searches, how.frontier_size)
  )
  loop = _begin(keys, tasks, searches, how, is_fresh=saved is None)
  if saved is not None:
    loop.go_on_from(saved)
  while not loop.ended:
    loop.turn()
  return [record.outcome(loop.compile_seconds / len(tasks)) for record in loop.records]


def _begin(
  keys: jax.Array, tasks: Sequence[Task], searches: Sequence[NetsSettings], how: How, is_fresh: bool
) -> "_Loop":
  """All runs before generation 0 is evaluated; a fresh search compiles two programs beside each other."""
  layout = how.layout_of(len(tasks) * searches[0].population_size)
  shared = stages.are_one_program(searches[0], tasks[0], layout)
  stage = stages.stage_of(tasks, searches, 0, shared)
  check_memory(_abstract_genome(tasks[0], searches[0]), layout)
  task = tasks[0].for_search(searches[0].precision).replace(training=None, initialiser=None)
  keys, settings = replicate((keys, stage.settings), layout)
  records = [
    RunRecord(search, of_run, History((), of_run.measures.score), Frontier(how.frontier_size))
    for search, of_run in zip(searches, tasks, strict=True)
  ]
  first = functools.partial(init_all, keys, task, settings, layout)
  begin = time.perf_counter()
  shapes = stages.placed_shapes(jax.eval_shape(first), layout)
  loop = _Loop(tasks, searches, how, task, shared, stage, layout, shapes, records)
  if is_fresh and stages.is_alone():
    loop.compile_ahead(stage)
  loop.state = first()
  loop.compile_seconds = time.perf_counter() - begin
  return loop


@dataclass
class _Loop:
  """All runs between two generations.

  Attributes:
    tasks, searches, how: what was asked for.
    task: what the runs have in common, without training and initialiser.
    shared: whether all stages are one program.
    stage: what the next generation is evaluated by.
    layout, state: of the population.
    records: of each run.
    generation: the next.
    seconds, compile_seconds: so far; the former of all runs over their number.
    compiled: the program; None before it is made.
    ahead: the first program, or that of the stage to come, if it is being compiled.
    program: evaluates a generation of the present stage and breeds the next; None before it is ready.
  """

  tasks: Sequence[Task]
  searches: Sequence[NetsSettings]
  how: How
  task: Task
  shared: bool
  stage: Stage
  layout: Layout
  state: State
  records: list[RunRecord]
  generation: int = 0
  seconds: float = 0.0
  compile_seconds: float = 0.0
  compiled: jax.stages.Compiled | None = None
  ahead: Ahead | None = None
  program: Callable[[State], tuple[State, Metrics]] | None = None

  @property
  def ended(self) -> bool:
    """Whether every run has."""
    return all(record.ended for record in self.records)

  def go_on_from(self, saved: Saved) -> None:
    """Takes up a search where it was saved."""
    clock = saved.record
    self.generation, self.seconds = clock["generation"], clock["seconds"]
    self.compile_seconds = clock["compile_seconds"]
    self._begin_stage()
    self.state, self.records = resuming.restored(
      saved, self.state, self.stage.genomes, self.records, self.how.frontier_size, self.layout
    )

  def turn(self) -> None:
    """One generation of all runs: evaluated, noted, shown, saved, and the next one bred."""
    before = self.state

    def run(layout: Layout) -> tuple[State, Metrics, Int[np.ndarray, "runs population 2"]]:
      if layout != self.layout:  # of fewer genomes at once
        self.layout, self.program, self.compiled = layout, None, None
      program = self.program or self._make_ready()
      begin = time.perf_counter()
      state, metrics = program(before)
      self.how.checkpoints.wait(metrics)
      metrics, parents = jax.tree.map(
        lambda leaf: leaf[:, : self.stage.genomes], jax.device_get((metrics, before.parents))
      )
      self.seconds += (time.perf_counter() - begin) / len(self.records)
      return state, metrics, parents

    (self.state, metrics, parents), self.layout = within_memory(run, self.layout, LESS_TO_TRAIN)
    rows = self._note(metrics, parents, before.population)
    self.generation += 1
    if halving.begins_stage(self.searches[0], self.generation):
      self._begin_stage()
    if shown := [row for i, of_run in rows if self.records[i].failure is None for row in of_run]:
      self.how.on_rows(shown)
    self._save(rows)

  def _make_ready(self) -> Callable[[State], tuple[State, Metrics]]:
    """Readies the program of the present stage: makes it, unless it is told its bounds when it runs."""
    task, settings, bounds = replicate((self.task, self.stage.settings, self.stage.bounds), self.layout)
    begin = time.perf_counter()
    if bounds is None:
      self.compiled = None
    if self.ahead is not None:
      self.compiled, self.ahead = self.ahead.program(self.layout), None
    if self.compiled is None:
      self.compiled, _ = compile_program(step_all, self.state, task, settings, self.layout, bounds)
    self._compile_next_stage()
    self.compile_seconds += time.perf_counter() - begin
    compiled = self.compiled
    self.program = lambda state: compiled(state, task, settings, bounds)
    return self.program

  def _compile_next_stage(self) -> None:
    """Begins to make the program of the stage to come, while the devices are at work on this one."""
    first = stages.next_stage(self.searches, self.generation)
    if not self.shared and first is not None and stages.compiles_ahead(self.layout):
      self.compile_ahead(stages.stage_of(self.tasks, self.searches, first, self.shared))

  def compile_ahead(self, stage: Stage) -> None:
    """Traces the program of a stage, and begins to compile it in a thread."""
    layout = resized(self.layout, len(self.tasks) * stage.genomes)
    shapes = stages.placed_shapes(self.state, layout, stage.genomes)
    task, settings, bounds = stages.replicated_shapes((self.task, stage.settings, stage.bounds), layout)
    self.ahead = Ahead(layout, compile_in_thread(step_all, shapes, task, settings, layout, bounds))

  def _begin_stage(self) -> None:
    """Goes over to the genomes, and the length of training, of the generation to come."""
    self.stage, self.program = stages.stage_of(self.tasks, self.searches, self.generation, self.shared), None
    layout, runs = self.layout, len(self.tasks)
    if self.stage.bounds is None:
      layout = resized(layout, runs * self.stage.genomes)
    self.state, self.layout = stages.narrow(self.state, self.stage.genomes, self.layout, layout), layout

  def _note(
    self, metrics: Metrics, parents: Int[np.ndarray, "runs population 2"], population: Ticket
  ) -> list[tuple[int, Rows]]:
    """Adds a generation to the records of the runs that go on; gives the history rows of each of these."""
    rows: list[tuple[int, Rows]] = []
    is_over = self.how.is_over(self.seconds * len(self.records))
    for i, record in enumerate(self.records):
      if record.ended:
        continue
      of_run = jax.tree.map(lambda leaf, i=i: leaf[i], metrics)
      rows.append((i, record.add(self.generation, of_run, parents[i], self.seconds)))
      record.frontier.offer(
        rows[-1][1], functools.partial(_fetch, population, i, len(metrics.fitness), self.layout)
      )
      prune = self.how.prune
      record.pruned = prune is not None and not record.ended and prune(i, rows[-1][1])
      record.ended = record.ended or record.pruned or is_over
      if record.ended:
        record.ticket = take(jax.device_get(self.state.best), i)
    return rows

  def _save(self, rows: Sequence[tuple[int, Rows]]) -> None:
    """Writes the rows to the journal, and the loop to a checkpoint if it is time to."""
    several = len(self.records) > 1
    clock = {
      "generation": self.generation,
      "seconds": self.seconds,
      "compile_seconds": self.compile_seconds,
    }
    records = [record.copy() for record in self.records]
    self.how.checkpoints.note(
      [{"run": i, **row} if several else row for i, of_run in rows for row in of_run],
      f"generation {self.generation - 1}",
      functools.partial(resuming.to_save, self.state, self.stage.genomes, records, self.layout, clock),
      last=self.ended,
    )


def _check_alike(tasks: Sequence[Task]) -> None:
  """Raises UsageError unless tasks differ in their training and initialiser alone."""
  bare = [task.replace(data=None, training=None, initialiser=None) for task in tasks]
  if any(task.data is not tasks[0].data for task in tasks) or any(other != bare[0] for other in bare):
    raise UsageError("runs side by side are for one network, data, loss and score; give them one by one")


def _abstract_genome(task: Task, search: NetsSettings) -> Ticket:
  """The shapes and types of one genome in a population."""
  genome = jax.eval_shape(
    lambda key: initialise(key, task.network, task.data.input_shape, layers=task.layers), jax.random.key(0)
  )
  if search.observer is None:
    return genome
  numbers = jax.tree.map(lambda mask: jax.ShapeDtypeStruct(mask.shape, np.float32), genome.masks)
  return genome.replace(scores=numbers)


@functools.partial(jax.jit, static_argnames="layout")
def _fetch_row(population: Ticket, index: jax.Array, layout: Layout) -> Ticket:
  return fetch_rows(population.replace(scores=None), index[None], layout)


def _fetch(population: Ticket, run: int, runs: int, layout: Layout, genome: int) -> Ticket:
  """A genome of a run, as a ticket on the host."""
  index = replicate(np.int32(rows_of(run, genome, runs, layout)), layout)
  row = jax.device_get(_fetch_row(population, index, layout))
  return jax.tree.map(lambda leaf: np.array(leaf[0]), row)
