"""NeTS from its first generation to its last: the loop around `nets.step_all`, and its record."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from nets_jax import parallel
from nets_jax.config import NetsConfig, fitness_steps, stack_configs, validate
from nets_jax.data import Dataset
from nets_jax.errors import UsageError
from nets_jax.fitness import Metrics
from nets_jax.nets import init_all, step_all
from nets_jax.tickets import Cost, SearchResult, take
from nets_jax.training import steps_per_epoch


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
) -> list[SearchResult | UsageError]:
  """Runs NeTS once for each key, side by side in one program; each run is as it would be alone.

  A run that has had its generations, or its patience, keeps its result and waits for the others.

  Args:
    keys: of the runs [R].
    network: any `flax.linen` module; see `networks`.
    data: the problem; its test part is not looked at.
    config: the settings of all runs, or of each; None is the paper's. Static fields must agree.
    layout: of the R x population_size genomes; None is `parallel.make_layout` with `devices` and `chunk`.
    devices, chunk: see `parallel.make_layout`.
    on_rows: called with the history rows of each generation, of all runs still going, as it ends.
    keep_failures: a run in which every genome of the first generation diverges ends with its error in place
      of a result, and the others go on.

  Returns:
    For each run the ticket, its history and its cost. The history is a dict for each generation and
    genome with keys `generation`, `genome`, `parent_1` and `parent_2` (indices in the generation before;
    -1 in the first), `fitness`, `valid_loss`, `valid_accuracy`, `density` and `seconds`. Seconds are the
    wall-clock time since the start, without compilation, of all runs together over their number.

  Raises:
    UsageError: an impossible setting, settings that cannot share a program, or a run in which every genome
      of the first generation diverges, unless `keep_failures`.
  """
  runs = len(keys)
  config = NetsConfig() if config is None else config
  configs = [config] * runs if isinstance(config, NetsConfig) else list(config)
  if len(configs) != runs:
    raise UsageError(f"{runs} keys ask for as many configurations, not {len(configs)}")
  for own in configs:
    validate(own, len(data.train))
  traced = stack_configs(configs)
  layout = layout or parallel.make_layout(runs * traced.population_size, devices=devices, chunk=chunk)
  keys, traced = parallel.replicate((keys, traced), layout)
  state = init_all(keys, network, data.input_shape, traced, layout)
  data = parallel.replicate(data.replace(test=None), layout)
  run, compile_seconds = parallel.compile_program(step_all, state, network, data, traced, layout)
  records = [_Record(own) for own in configs]
  seconds, generation = 0.0, 0
  while not all(record.ended for record in records):
    begin, parents = time.perf_counter(), state.parents
    state, metrics = run(state, data, traced)
    metrics, parents, best_fitness = jax.device_get((metrics, parents, state.best_fitness))
    seconds += (time.perf_counter() - begin) / runs
    rows = []
    for i, record in enumerate(records):
      if not record.ended:
        own = jax.tree.map(lambda leaf, i=i: leaf[i], metrics)
        rows += record.add(generation, own, parents[i], float(best_fitness[i]), seconds)
        if record.failure and not keep_failures:
          raise record.failure
        if record.ended:
          record.ticket = take(jax.device_get(state.best), i)
    if rows:
      on_rows(rows)
    generation += 1
  per_generation = fitness_steps(traced, len(data.train)) / steps_per_epoch(
    len(data.train), traced.batch_size
  )
  return [record.failure or record.result(per_generation, compile_seconds / runs) for record in records]


class _Record:
  """What one run has shown so far, and whether it has ended."""

  def __init__(self, config: NetsConfig):
    self.ticket, self.ended, self.failure = None, False, None
    self._config, self._history, self._seconds = config, [], 0.0
    self._generations, self._improved, self._lowest = 0, 0, math.inf

  def add(
    self, generation: int, metrics: Metrics, parents: np.ndarray, best_fitness: float, seconds: float
  ) -> list[dict[str, Any]]:
    """Notes a generation, and returns its history rows."""
    config = self._config
    if not math.isfinite(best_fitness):
      self.ended = True
      self.failure = UsageError(
        f"every genome of generation {generation} diverged in training; lower learning_rate "
        f"({config.learning_rate}) or init_scale ({config.init_scale})"
      )
      return []
    rows = _history_rows(generation, metrics, parents, seconds)
    self._history += rows
    self._generations, self._seconds = generation + 1, seconds
    if best_fitness < self._lowest:
      self._improved, self._lowest = generation, best_fitness
    tired = config.patience is not None and generation - self._improved > config.patience
    self.ended = tired or generation >= config.generations
    return rows

  def result(self, epochs_of_a_fitness: float, compile_seconds: float) -> SearchResult:
    """The run's outcome."""
    epochs = self._generations * self._config.population_size * epochs_of_a_fitness
    return SearchResult(self.ticket, self._history, Cost(epochs, self._seconds, compile_seconds))


def _history_rows(
  generation: int, metrics: Metrics, parents: np.ndarray, seconds: float
) -> list[dict[str, Any]]:
  return [
    {
      "generation": generation,
      "genome": i,
      "parent_1": int(parents[i, 0]),
      "parent_2": int(parents[i, 1]),
      "fitness": float(metrics.fitness[i]),
      "valid_loss": float(metrics.valid_loss[i]),
      "valid_accuracy": float(metrics.valid_accuracy[i]),
      "density": float(metrics.density[i]),
      "seconds": seconds,
    }
    for i in range(len(metrics.fitness))
  ]
