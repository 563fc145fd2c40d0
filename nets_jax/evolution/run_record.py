"""What one run of NeTS has shown so far, whether it has ended, and what came of it."""

import dataclasses
import math
from typing import ClassVar

import numpy as np
from jaxtyping import Int

from nets_jax.errors import Diverged, SearchFailed
from nets_jax.evolution import halving
from nets_jax.evolution.configuration import NetsSettings
from nets_jax.evolution.fitness import Metrics
from nets_jax.evolution.frontier import Frontier
from nets_jax.evolution.history import History
from nets_jax.kinds import describe
from nets_jax.rows import Rows
from nets_jax.tickets.results import Cost, SearchResult
from nets_jax.tickets.ticket import Ticket, unmasked_count
from nets_jax.training.task import Task


@dataclasses.dataclass
class RunRecord:
  """A run between two generations.

  Attributes:
    search, task: of the run.
    history, frontier: up to now.
    ticket: the best, once the run has ended.
    ended: whether it has.
    failure: why it found nothing, if so.
    generations: evaluated so far.
    improved: the generation of the best ticket, and `lowest` its fitness; -1 and +inf where there is none.
    seconds: of the run's share of the machine.
    pruned: whether it was ended as hopeless; see `protocol.How`.
  """

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

  COUNTS: ClassVar = ("ended", "failure", "generations", "improved", "lowest", "seconds", "pruned")

  def counts(self) -> dict[str, bool | int | float | str | None]:
    """All that is not stored elsewhere."""
    return {name: getattr(self, name) for name in self.COUNTS}

  def copy(self) -> "RunRecord":
    """As it is now, to be saved later."""
    return dataclasses.replace(self, frontier=self.frontier.copy())

  def add(
    self, generation: int, metrics: Metrics, parents: Int[np.ndarray, "population 2"], seconds: float
  ) -> Rows:
    """Notes a generation, and returns its history rows."""
    search, lowest = self.search, float(metrics.fitness.min())
    if halving.begins_stage(search, generation):
      self.lowest = math.inf
    rows = self.history.add(generation, metrics, parents, seconds)
    self.generations, self.seconds = generation + 1, seconds
    if lowest < self.lowest:
      self.improved, self.lowest = generation, lowest
    if not math.isfinite(lowest):
      self.failure = self._why_none(generation, metrics)
    out_of_patience = search.patience is not None and generation - self.improved > search.patience
    self.ended = out_of_patience or generation >= search.generations or self.failure is not None
    return rows

  def _why_none(self, generation: int, metrics: Metrics) -> str:
    """Why no genome of a generation has a finite fitness, and what to do."""
    who = f"every genome of generation {generation}"
    if np.isfinite(metrics.valid_loss).any():
      return (
        f"{who} has an objective that is not a finite number, though training went well; mend the objective"
      )
    rate = describe(self.task.training.learning_rate)
    return f"{who} diverged in training; lower learning_rate ({rate}){self.task.initialiser.remedy}"

  def outcome(self, compile_seconds: float) -> SearchResult | SearchFailed:
    """Of a run that has ended, its result, or why it has none."""
    assert self.ticket is not None
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
