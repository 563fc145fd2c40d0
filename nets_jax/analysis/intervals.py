"""Means over seeds, with their uncertainty."""

import math
from collections.abc import Sequence


def mean_and_interval(values: Sequence[float]) -> tuple[float, float]:
  """The mean, and the half-width of its 95 % confidence interval by Student's t (NaN for one value)."""
  from scipy import stats

  count = len(values)
  mean = math.fsum(values) / count
  if count < 2:
    return mean, math.nan
  variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
  return mean, float(stats.t.ppf(0.975, count - 1)) * math.sqrt(variance / count)
