"""Definition 3 of the paper: is a ticket a winning ticket?

A ticket and a dense network are trained identically. With j the iteration of the minimum validation
loss, a the test accuracy there and |W_0| the weights of the dense network, and j', a', |M|_1 those of
the ticket, the ticket wins iff j' <= j, a' >= a and |M|_1 << |W_0|.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

# The paper leaves "<<" open; the ticket has to do without at least half of the weights.
FAR_FEWER = 0.5


@dataclasses.dataclass(frozen=True)
class Verdict:
  """A ticket against a dense network.

  Attributes:
    iteration, dense_iteration: j' and j.
    accuracy, dense_accuracy: a' and a, in [0, 1].
    loss, dense_loss: the minimum validation losses l' and l, in nats.
    unmasked, total: |M|_1 and |W_0|.
  """

  iteration: int
  dense_iteration: int
  accuracy: float
  dense_accuracy: float
  loss: float
  dense_loss: float
  unmasked: int
  total: int

  @property
  def as_fast(self) -> bool:
    """Condition 1: j' <= j."""
    return self.iteration <= self.dense_iteration

  @property
  def as_accurate(self) -> bool:
    """Condition 2: a' >= a."""
    return self.accuracy >= self.dense_accuracy

  @property
  def far_sparser(self) -> bool:
    """Condition 3: |M|_1 << |W_0|, read as at most `FAR_FEWER` of it."""
    return self.unmasked <= FAR_FEWER * self.total

  @property
  def wins(self) -> bool:
    """All three conditions."""
    return self.as_fast and self.as_accurate and self.far_sparser

  def __str__(self) -> str:
    """The verdict with each condition named, on one line."""
    tick = {True: "yes", False: "NO"}
    return (
      f"{'a winning ticket' if self.wins else 'not a winning ticket'}: "
      f"as fast {tick[self.as_fast]} (j' = {self.iteration:,} against {self.dense_iteration:,}), "
      f"as accurate {tick[self.as_accurate]} (a' = {self.accuracy:.2%} against {self.dense_accuracy:.2%}), "
      f"far sparser {tick[self.far_sparser]} ({self.unmasked:,} of {self.total:,} weights)"
    )


def judge(
  curve: Sequence[Mapping[str, float]], dense_curve: Sequence[Mapping[str, float]], unmasked: int, total: int
) -> Verdict:
  """Definition 3 on two training curves.

  Args:
    curve, dense_curve: rows with `iteration`, `valid_loss` and `test_accuracy`, one for each evaluation,
      made identically. Of equal minima the first counts; a loss that is not a number is no minimum.
    unmasked, total: |M|_1 and |W_0|.
  """

  def minimum(rows):
    return min(rows, key=lambda row: row["valid_loss"] if not math.isnan(row["valid_loss"]) else math.inf)

  ticket, dense = minimum(curve), minimum(dense_curve)
  return Verdict(
    iteration=int(ticket["iteration"]),
    dense_iteration=int(dense["iteration"]),
    accuracy=ticket["test_accuracy"],
    dense_accuracy=dense["test_accuracy"],
    loss=ticket["valid_loss"],
    dense_loss=dense["valid_loss"],
    unmasked=unmasked,
    total=total,
  )


def mean_and_interval(values: Sequence[float]) -> tuple[float, float]:
  """The mean, and the half-width of its 95 % confidence interval by Student's t (NaN for one value)."""
  from scipy import stats

  count = len(values)
  mean = math.fsum(values) / count
  if count < 2:
    return mean, math.nan
  variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
  return mean, float(stats.t.ppf(0.975, count - 1)) * math.sqrt(variance / count)


def summarise(verdicts: Sequence[Verdict]) -> str:
  """Several seeds: how many won, and each quantity's mean with its 95 % confidence interval."""

  def interval(name, form):
    mean, half = mean_and_interval([float(getattr(verdict, name)) for verdict in verdicts])
    return f"{mean:{form}}" + ("" if math.isnan(half) else f" +- {half:{form}}")

  won = sum(verdict.wins for verdict in verdicts)
  return (
    f"{won} of {len(verdicts)} win: j' {interval('iteration', ',.0f')} against "
    f"{interval('dense_iteration', ',.0f')}, a' {interval('accuracy', '.2%')} against "
    f"{interval('dense_accuracy', '.2%')}, {interval('unmasked', ',.0f')} of {verdicts[0].total:,} weights"
  )
