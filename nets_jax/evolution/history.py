"""The record of a run of NeTS: a row for each generation and genome, kept small."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import overload

import jax
import numpy as np
from jaxtyping import Int

from nets_jax.evolution.fitness import Metrics
from nets_jax.rows import Row, Rows


@dataclasses.dataclass(frozen=True)
class _Generation:
  """All rows of one."""

  number: int
  metrics: Metrics
  parents: Int[np.ndarray, "population 2"]
  seconds: float
  score: str

  def __len__(self) -> int:
    return len(self.parents)

  def row(self, genome: int) -> Row:
    """A genome's."""
    first, second = self.parents[genome]
    return {
      "generation": self.number,
      "genome": genome,
      "parent_1": int(first),
      "parent_2": int(second),
      "fitness": float(self.metrics.fitness[genome]),
      "valid_loss": float(self.metrics.valid_loss[genome]),
      f"valid_{self.score}": float(self.metrics.valid_score[genome]),
      "density": float(self.metrics.density[genome]),
      "seconds": self.seconds,
    }

  def rows(self) -> Rows:
    """Every genome's."""
    return [self.row(genome) for genome in range(len(self))]


class History(Sequence[Row]):
  """The record of a run: a dict for each generation and genome, made when it is looked at.

  It is kept as arrays, a tenth of the memory of so many dicts, so that a run of days does not grow.
  """

  def __init__(self, rows: Sequence[Row] = (), score: str = "accuracy"):
    """Starts with some rows, those of whole generations; takes the score's name, for its column."""
    self._score = score
    self._generations: list[_Generation] = []
    for _, of_generation in itertools.groupby(rows, key=lambda row: row["generation"]):
      self._add_rows(list(of_generation))

  def add(
    self, generation: int, metrics: Metrics, parents: Int[np.ndarray, "population 2"], seconds: float
  ) -> Rows:
    """Notes a generation, and returns its rows."""
    # What is looked at would keep JAX's own buffers.
    metrics, parents = jax.tree.map(np.array, (metrics, parents))
    self._generations.append(_Generation(generation, metrics, parents, seconds, self._score))
    return self._generations[-1].rows()

  def _add_rows(self, rows: Sequence[Row]) -> None:
    def column(name: str) -> np.ndarray:
      return np.array([row[name] for row in rows], np.float32)

    names = (
      field.name.replace("valid_score", f"valid_{self._score}") for field in dataclasses.fields(Metrics)
    )
    metrics = Metrics(*map(column, names))
    parents = np.array([(row["parent_1"], row["parent_2"]) for row in rows], np.int32)
    number, seconds = int(rows[0]["generation"]), rows[0]["seconds"]
    self._generations.append(_Generation(number, metrics, parents, seconds, self._score))

  def __len__(self) -> int:
    return sum(map(len, self._generations))

  @overload
  def __getitem__(self, index: int) -> Row: ...

  @overload
  def __getitem__(self, index: slice) -> Rows: ...

  def __getitem__(self, index: int | slice) -> Row | Rows:
    if isinstance(index, slice):
      return [self[i] for i in range(*index.indices(len(self)))]
    if not -len(self) <= index < len(self):
      raise IndexError(index)
    sizes = list(map(len, self._generations))
    ends = np.cumsum(sizes)
    place = int(np.searchsorted(ends, index % len(self), side="right"))
    return self._generations[place].row(index % len(self) - int(ends[place] - sizes[place]))

  def __iter__(self) -> Iterator[Row]:
    return (row for generation in self._generations for row in generation.rows())
