"""Definition 3 of the paper: is a ticket a winning ticket?

A ticket and a dense network are trained identically. With j the iteration of the minimum validation
loss, a the test accuracy there and |W_0| the weights of the dense network, and j', a', |M|_1 those of
the ticket, the ticket wins iff j' <= j, a' >= a and |M|_1 << |W_0|. With another score than accuracy a is
that, and a' must be at least as good: of an error, of which less is better, a' <= a.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, TypedDict, Unpack

import jax
import jax.numpy as jnp

from nets_jax.analysis.intervals import mean_and_interval
from nets_jax.baselines.random_tickets import random_ticket_for
from nets_jax.engine.layouts import Layout
from nets_jax.engine.saved import LoopCheckpoints
from nets_jax.engine.seeds import KeysLike, as_keys
from nets_jax.errors import UsageError
from nets_jax.rows import Rows
from nets_jax.tickets.controls import unmask
from nets_jax.tickets.ticket import Ticket, check_fits, maskable_count, stack, unmasked_count
from nets_jax.training.measures import OF_CLASSES, Measures, of_rows
from nets_jax.training.task import Task
from nets_jax.training.trainer import train_tickets

# The paper leaves "<<" open; the ticket has to do without at least half of the weights.
FAR_FEWER = 0.5


@dataclasses.dataclass(frozen=True)
class Verdict:
  """A ticket against a dense network.

  Attributes:
    iteration, dense_iteration: j' and j.
    score, dense_score: a' and a; of classes accuracies in [0, 1].
    loss, dense_loss: the minimum validation losses l' and l.
    unmasked, total: |M|_1 and |W_0|.
    measures: which loss and score these are.
  """

  iteration: int
  dense_iteration: int
  score: float
  dense_score: float
  loss: float
  dense_loss: float
  unmasked: int
  total: int
  measures: Measures = OF_CLASSES

  @property
  def as_fast(self) -> bool:
    """Condition 1: j' <= j."""
    return self.iteration <= self.dense_iteration

  @property
  def as_good(self) -> bool:
    """Condition 2: a' >= a, or a' <= a of a score of which less is better."""
    return self.measures.is_as_good(self.score, self.dense_score)

  @property
  def far_sparser(self) -> bool:
    """Condition 3: |M|_1 << |W_0|, read as at most `FAR_FEWER` of it."""
    return self.unmasked <= FAR_FEWER * self.total

  @property
  def wins(self) -> bool:
    """All three conditions."""
    return self.as_fast and self.as_good and self.far_sparser

  def record(self) -> dict[str, object]:
    """What `summary.json` holds: each number, scores by their name, and whether the ticket wins."""
    found = dataclasses.asdict(self)
    del found["measures"]
    return {name.replace("score", self.measures.score): value for name, value in found.items()} | {
      "wins": self.wins
    }

  @classmethod
  def of_record(cls, record: Mapping[str, float | None], measures: Measures = OF_CLASSES) -> Self:
    """The verdict of a `record`; what is null there is no number."""
    names = [field.name for field in dataclasses.fields(cls) if field.name != "measures"]
    found = {name: record[name.replace("score", measures.score)] for name in names}
    numbers: dict[str, Any] = {name: math.nan if value is None else value for name, value in found.items()}
    return cls(**numbers, measures=measures)

  def __str__(self) -> str:
    """The verdict with each condition named, on one line."""
    tick, shown = {True: "yes", False: "NO"}, self.measures.shown
    is_accuracy = self.measures.score == "accuracy"
    good, a = ("as accurate", "a'") if is_accuracy else ("as good", f"{self.measures.words} a'")
    return (
      f"{'a winning ticket' if self.wins else 'not a winning ticket'}: "
      f"as fast {tick[self.as_fast]} (j' = {self.iteration:,} against {self.dense_iteration:,}), "
      f"{good} {tick[self.as_good]} ({a} = {shown(self.score, 2)} against {shown(self.dense_score, 2)}), "
      f"far sparser {tick[self.far_sparser]} ({self.unmasked:,} of {self.total:,} weights)"
    )


def minimum(curve: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
  """The row of the lowest validation loss, the first of equal ones; a loss that is NaN is no minimum."""
  return min(curve, key=lambda row: row["valid_loss"] if not math.isnan(row["valid_loss"]) else math.inf)


def judge(
  curve: Sequence[Mapping[str, float]],
  dense_curve: Sequence[Mapping[str, float]],
  unmasked: int,
  total: int,
  measures: Measures | None = None,
) -> Verdict:
  """Definition 3 on two training curves.

  Args:
    curve, dense_curve: rows with `iteration`, `valid_loss` and `test_accuracy` (or another score), one for
      each evaluation, made identically; of each its `minimum` counts.
    unmasked, total: |M|_1 and |W_0|.
    measures: which loss and score the rows have; None is what their columns say.

  Raises:
    UsageError: no measures, and a score of one's own, of which the columns do not say whether more is better.
  """
  if measures is None:
    measures = of_rows(curve)
    if not measures.is_known:
      raise UsageError(
        f"rows do not say whether more of {measures.score} is better; give the measures, as Task.measures"
      )

  ticket, dense = minimum(curve), minimum(dense_curve)
  return Verdict(
    iteration=int(ticket["iteration"]),
    dense_iteration=int(dense["iteration"]),
    score=ticket[measures.column("test")],
    dense_score=dense[measures.column("test")],
    loss=ticket["valid_loss"],
    dense_loss=dense["valid_loss"],
    unmasked=unmasked,
    total=total,
    measures=measures,
  )


class TrainingOptions(TypedDict, total=False):
  """How a ticket is trained to be judged; see `trainer.train_tickets`."""

  epochs: int | None
  steps: int | None
  splits: Sequence[str]
  layout: Layout | None
  on_rows: Callable[[Rows], object]
  checkpoints: LoopCheckpoints | None


def judge_ticket(
  keys: KeysLike, ticket: Ticket, task: Task, **training: Unpack[TrainingOptions]
) -> dict[str, list[Verdict]]:
  """Trains a ticket and its dense networks identically, once for each key, and judges it.

  Args:
    keys: of the trainings [seeds], or seeds.
    ticket: the ticket.
    task: what it is for; trained on `train`; j is found on `valid`, a on `test`.
    **training: `epochs` or `steps`, and the rest of `trainer.train_tickets`.

  Returns:
    The verdicts, one for each key, against `unmasked`, the ticket's own weights without its mask, and
    against `dense`, a fresh dense network of the task's initial weights for each key.
  """
  task.check()
  keys = as_keys(keys)
  seeds = len(keys)
  check_fits(ticket, task.network, task.data.input_shape)
  fresh = [random_ticket_for(jax.random.fold_in(key, 1), task, 1.0) for key in keys]
  everything = stack([ticket] * seeds + [unmask(ticket)] * seeds + fresh)
  curves = train_tickets(jnp.tile(keys, 3), everything, task, **training).curves
  curve = [[row for row in curves if row["ticket"] == i] for i in range(3 * seeds)]
  counts = int(unmasked_count(ticket)), maskable_count(ticket)
  return {
    name: [judge(curve[i], curve[first + i], *counts, task.measures) for i in range(seeds)]
    for name, first in (("unmasked", seeds), ("dense", 2 * seeds))
  }


def summarise(verdicts: Sequence[Verdict]) -> str:
  """Several seeds: how many won, and each quantity's mean with its 95 % confidence interval."""

  def interval(name, form):
    mean, half = mean_and_interval([float(getattr(verdict, name)) for verdict in verdicts])
    return f"{mean:{form}}" + ("" if math.isnan(half) else f" +- {half:{form}}")

  measures = verdicts[0].measures
  form = ".2%" if measures.is_share else ".4g"
  a = "a'" if measures.score == "accuracy" else f"{measures.words} a'"
  won = sum(verdict.wins for verdict in verdicts)
  return (
    f"{won} of {len(verdicts)} win: j' {interval('iteration', ',.0f')} against "
    f"{interval('dense_iteration', ',.0f')}, {a} {interval('score', form)} against "
    f"{interval('dense_score', form)}, {interval('unmasked', ',.0f')} of {verdicts[0].total:,} weights"
  )
