"""The record of a run of NeTS: a row for each generation and genome, kept small."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from nets_jax.evolution.fitness import Metrics


class History(Sequence):
  """The record of a run: a dict for each generation and genome, made when it is looked at.

  It is kept as arrays, a tenth of the memory of so many dicts, so that a run of days does not grow.
  """

  def __init__(self, rows: Sequence[Mapping[str, Any]] = ()):
    """Starts with some rows, those of whole generations."""
    self._generations = []
    for _, own in itertools.groupby(rows, key=lambda row: row["generation"]):
      self._add_rows(list(own))

  def add(
    self, generation: int, metrics: Metrics, parents: np.ndarray, seconds: float
  ) -> list[dict[str, Any]]:
    """Notes a generation, and returns its rows."""
    copied = jax.tree.map(np.array, (metrics, parents))  # what is looked at would keep JAX's own buffers
    self._generations.append((generation, *copied, seconds))
    return _rows(*self._generations[-1])

  def _add_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
    column = lambda name: np.array([row[name] for row in rows], np.float32)  # noqa: E731
    metrics = Metrics(*(column(field.name) for field in dataclasses.fields(Metrics)))
    parents = np.array([(row["parent_1"], row["parent_2"]) for row in rows], np.int32)
    self._generations.append((rows[0]["generation"], metrics, parents, rows[0]["seconds"]))

  def __len__(self) -> int:
    return sum(len(metrics.fitness) for _, metrics, _, _ in self._generations)

  def __getitem__(self, index):
    if isinstance(index, slice):
      return [self[i] for i in range(*index.indices(len(self)))]
    if not -len(self) <= index < len(self):
      raise IndexError(index)
    sizes = [len(metrics.fitness) for _, metrics, _, _ in self._generations]
    ends = np.cumsum(sizes)
    place = int(np.searchsorted(ends, index % len(self), side="right"))
    return _row(*self._generations[place], index % len(self) - int(ends[place] - sizes[place]))

  def __iter__(self) -> Iterator[dict[str, Any]]:
    return (row for generation in self._generations for row in _rows(*generation))


def _rows(generation: int, metrics: Metrics, parents: np.ndarray, seconds: float) -> list[dict[str, Any]]:
  return [_row(generation, metrics, parents, seconds, i) for i in range(len(metrics.fitness))]


def _row(
  generation: int, metrics: Metrics, parents: np.ndarray, seconds: float, genome: int
) -> dict[str, Any]:
  return {
    "generation": generation,
    "genome": genome,
    "parent_1": int(parents[genome, 0]),
    "parent_2": int(parents[genome, 1]),
    "fitness": float(metrics.fitness[genome]),
    "valid_loss": float(metrics.valid_loss[genome]),
    "valid_accuracy": float(metrics.valid_accuracy[genome]),
    "density": float(metrics.density[genome]),
    "seconds": seconds,
  }
