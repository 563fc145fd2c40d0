"""NeTS from its first generation to its last: the loop around `nets.step_all`, and its record."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from nets_jax import halving, parallel
from nets_jax.checkpoints import Checkpoints, Saved, Unsaved, describe, describe_fields, fingerprint
from nets_jax.config import NetsConfig, stack_configs, validate
from nets_jax.data import Dataset
from nets_jax.errors import Diverged, SearchFailed, UsageError, raise_first
from nets_jax.fitness import Metrics
from nets_jax.frontier import Frontier, Met
from nets_jax.history import History
from nets_jax.nets import State, init_all, step_all
from nets_jax.networks import check_outputs
from nets_jax.tickets import Cost, SearchResult, Ticket, initialise, take, unmasked_count


def search(
  key: jax.Array, network: nn.Module, data: Dataset, config: NetsConfig | None = None, **kwargs
) -> SearchResult:
  """Runs NeTS and returns the best ticket of all generations: `search_all` for one key.

  The same key gives the same ticket on any number of devices of a kind, alone or beside other runs.
  """
  return search_all(key[None], network, data, config, **kwargs)[0]


def search_all(
  keys: jax.Array,
  network: nn.Module,
  data: Dataset,
  config: NetsConfig | Sequence[NetsConfig] | None = None,
  *,
  layout: parallel.Layout | None = None,
  devices: int | None = None,
  chunk: int | None = None,
  on_rows: Callable[[list[dict[str, Any]]], None] = lambda rows: None,
  keep_failures: bool = False,
  frontier_size: int = 0,
  checkpoints: Checkpoints | None = None,
) -> list[SearchResult | SearchFailed]:
  """Runs NeTS once for each key, side by side in one program; each run is as it would be alone.

  A run that has had its generations, or its patience, keeps its result and waits for the others.

  Args:
    keys: of the runs [R].
    network: any `flax.linen` module; see `networks`.
    data: the problem; its test part is not looked at.
    config: the settings of all runs, or of each; None is the paper's. Static fields must agree.
    layout: of the R x population_size genomes of the first generation; None is `parallel.make_layout` with
      `devices` and `chunk`.
    devices, chunk: see `parallel.make_layout`.
    on_rows: called with the history rows of each generation, of all runs still going, as it ends.
    keep_failures: a run in which every genome of a generation diverges, or whose ticket has no weight, ends
      with its error in place of a result, and the others go on.
    frontier_size: how many of the tickets met, of those that no other dominates in density and validation
      loss, are kept for the result's `frontier`; see `frontier.Frontier`. Few, for each is a network in the
      host's memory and in every checkpoint. With halvings the losses are after trainings of different
      lengths, so it holds hardly more than the last tickets. 0 keeps none.
    checkpoints: where the search is saved as it goes, and goes on if it was stopped. The journal has the
      history's rows, with `run` before the other columns if there are several. None saves nothing.

  Returns:
    For each run the ticket, its history, its cost and its frontier. The history is a dict for each
    generation and genome with keys `generation`, `genome`, `parent_1` and `parent_2` (indices in the
    generation before; -1 in the first), `fitness`, `valid_loss`, `valid_accuracy`, `density` and `seconds`.
    Seconds are the wall-clock time since the start, without compilation, of all runs together over their
    number.

  Raises:
    UsageError: an impossible setting, settings that cannot share a program, a network that does not go with
      the data, a population larger than memory, or a checkpoint that cannot be written or is of another run.
    Diverged: every genome of a generation diverged, unless `keep_failures`.
    SearchFailed: the best genome has no weight left, unless `keep_failures`.
  """
  runs = len(keys)
  config = NetsConfig() if config is None else config
  configs = [config] * runs if isinstance(config, NetsConfig) else list(config)
  if len(configs) != runs:
    raise UsageError(f"{runs} keys ask for as many configurations, not {len(configs)}")
  for own in configs:
    validate(own, len(data.train))
  if frontier_size < 0:
    raise UsageError(f"frontier_size must be at least 0, not {frontier_size}")
  check_outputs(network, data.input_shape, data.num_classes)
  checkpoints = checkpoints or Unsaved()
  saved = checkpoints.restore(functools.partial(_identity, keys, network, data, configs, frontier_size))
  now = _stage(configs, 0)
  layout = layout or parallel.make_layout(runs * now.population_size, devices=devices, chunk=chunk)
  parallel.check_memory(_abstract_genome(network, data, now), layout)
  keys, now = parallel.replicate((keys, now), layout)
  state = init_all(keys, network, data.input_shape, now, layout)
  records = [_Record(own, History(), Frontier(frontier_size)) for own in configs]
  generation, seconds, compile_seconds = 0, 0.0, 0.0
  if saved is not None:
    generation, seconds, compile_seconds = (
      saved.record[name] for name in ("generation", "seconds", "compile_seconds")
    )
    now = _stage(configs, generation)
    state, layout = _narrowed(state, now, layout)
    state, records = _restored(saved, state, configs, frontier_size, layout)
  run, data = None, data.replace(test=None)
  while not all(record.ended for record in records):
    if run is None:
      shared = parallel.replicate((data, now), layout)
      run, taken = parallel.compile_program(step_all, state, network, *shared, layout)
      compile_seconds += taken
    begin, parents, population = time.perf_counter(), state.parents, state.population
    state, metrics = run(state, *shared)
    checkpoints.wait(metrics)
    metrics, parents = jax.device_get((metrics, parents))
    seconds += (time.perf_counter() - begin) / runs
    rows = []
    for i, record in enumerate(records):
      if not record.ended:
        own = jax.tree.map(lambda leaf, i=i: leaf[i], metrics)
        rows.append((i, record.add(generation, own, parents[i], seconds)))
        take_genome = functools.partial(_fetch, population, i * now.population_size, layout)
        record.frontier.offer(rows[-1][1], take_genome)
        if record.ended:
          record.ticket = take(jax.device_get(state.best), i)
    generation += 1
    if halving.begins_stage(configs[0], generation):
      now, run = _stage(configs, generation), None
      state, layout = _narrowed(state, now, layout)
    if shown := [row for i, own in rows if records[i].failure is None for row in own]:
      on_rows(shown)
    checkpoints.note(
      [{"run": i, **row} if runs > 1 else row for i, own in rows for row in own],
      f"generation {generation - 1}",
      functools.partial(
        _to_save, state, [record.copy() for record in records], layout, generation, seconds, compile_seconds
      ),
      last=all(record.ended for record in records),
    )
  outcomes = [record.outcome(len(data.train), compile_seconds / runs) for record in records]
  if not keep_failures:
    raise_first(outcomes)
  return outcomes


def _abstract_genome(network: nn.Module, data: Dataset, config: NetsConfig) -> Ticket:
  """The shapes and types of one genome in a population."""
  draw = lambda key: initialise(key, network, data.input_shape)  # noqa: E731
  genome = jax.eval_shape(draw, jax.random.key(0))
  if config.dormancy != "guided":
    return genome
  number = lambda mask: jax.ShapeDtypeStruct(mask.shape, np.float32)  # noqa: E731
  return genome.replace(scores=jax.tree.map(number, genome.masks))


def _stage(configs: Sequence[NetsConfig], generation: int) -> NetsConfig:
  """The settings by which a generation of all runs is evaluated, as one."""
  return stack_configs([halving.stage(own, generation) for own in configs])


def _narrowed(state: State, now: NetsConfig, before: parallel.Layout) -> tuple[State, parallel.Layout]:
  """The state with the genomes of a stage, and their layout."""
  layout = parallel.resized(before, len(state.fitness) * now.population_size)
  return halving.narrow(state, now.population_size, before, layout), layout


@functools.partial(jax.jit, static_argnames="layout")
def _fetch_row(population: Ticket, index: jax.Array, layout: parallel.Layout) -> Ticket:
  return parallel.fetch_rows(population.replace(scores=None), index[None], layout)


def _fetch(population: Ticket, first: int, layout: parallel.Layout, genome: int) -> Ticket:
  """A genome of the run that begins at a row, as a ticket on the host."""
  index = parallel.replicate(np.int32(first + genome), layout)
  row = jax.device_get(_fetch_row(population, index, layout))
  return jax.tree.map(lambda leaf: np.array(leaf[0]), row)


def _identity(keys, network, data, configs, frontier_size) -> dict[str, Any]:
  """All that the runs' results depend on."""
  fields = [describe_fields(config) for config in configs]
  return {
    "search": "nets",
    "keys": fingerprint(keys),
    "network": describe(network),
    "data": fingerprint((data.train, data.valid)),
    "frontier_size": frontier_size,
    "config": fields[0] if len(fields) == 1 else {str(i): own for i, own in enumerate(fields)},
  }


def _to_save(
  state: State,
  records: Sequence["_Record"],
  layout: parallel.Layout,
  generation: int,
  seconds: float,
  compile_seconds: float,
) -> tuple[dict[str, Any], dict[str, Any]]:
  """The search between two generations, and the tickets of the runs that have ended."""
  trees = {
    "state": state.replace(population=None),
    "population": parallel.fetch_population(state.population, layout),
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
  saved: Saved, state: State, configs: Sequence[NetsConfig], frontier_size: int, layout: parallel.Layout
) -> tuple[State, list["_Record"]]:
  """The state and the records that `_to_save` was given."""
  population = saved.tree("population", parallel.unpadded(state.population, layout))
  others = parallel.replicate(saved.tree("state", state.replace(population=None)), layout)
  one = take(state.best, 0)
  records = []
  for i, (config, counts) in enumerate(zip(configs, saved.record["runs"], strict=True)):
    own = (row for row in saved.rows if row.get("run", i) == i)
    rows = [{name: value for name, value in row.items() if name != "run"} for row in own]
    ticket = saved.tree(f"ticket_{i}", one) if counts["ended"] else None
    met = [
      Met(saved.tree(f"frontier_{i}_{j}", one), row) for j, row in enumerate(saved.record["frontiers"][i])
    ]
    frontier = Frontier(frontier_size, met)
    records.append(_Record(config, History(rows), frontier, ticket, **counts))
  return others.replace(population=parallel.pad(population, layout)), records


@dataclasses.dataclass
class _Record:
  """What one run has shown so far, and whether it has ended."""

  config: NetsConfig
  history: History
  frontier: Frontier
  ticket: Ticket | None = None
  ended: bool = False
  failure: str | None = None
  generations: int = 0
  improved: int = -1
  lowest: float = math.inf
  seconds: float = 0.0

  def counts(self) -> dict[str, Any]:
    """All that is not stored elsewhere."""
    return {name: getattr(self, name) for name in list(self.__dataclass_fields__)[4:]}

  def copy(self) -> "_Record":
    """As it is now, to be saved later."""
    return dataclasses.replace(self, frontier=list(self.frontier))

  def add(
    self, generation: int, metrics: Metrics, parents: np.ndarray, seconds: float
  ) -> list[dict[str, Any]]:
    """Notes a generation, and returns its history rows."""
    config, lowest = self.config, float(metrics.fitness.min())
    if halving.begins_stage(config, generation):
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
        else f"{who} diverged in training; lower learning_rate ({config.learning_rate}) or init_scale "
        f"({config.init_scale})"
      )
    tired = config.patience is not None and generation - self.improved > config.patience
    self.ended = tired or generation >= config.generations or self.failure is not None
    return rows

  def outcome(self, num_examples: int, compile_seconds: float) -> SearchResult | SearchFailed:
    """The run's result, or why it has none."""
    epochs = halving.genome_epochs(self.config, num_examples, self.generations)
    cost = Cost(epochs, self.seconds, compile_seconds)
    rows = [row for row in self.history if row["generation"] == self.improved]
    best = min(rows, key=lambda row: row["fitness"], default=None)
    result = SearchResult(self.ticket, self.history, cost, list(self.frontier), best)
    if self.failure is not None:
      return Diverged(self.failure, result if self.improved >= 0 else None)
    if not unmasked_count(self.ticket):
      return SearchFailed("the best genome has no weight left; lower dormancy_rate", result)
    return result
