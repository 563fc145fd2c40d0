"""Which setting of a sweep is the best, by what, and how certain that is."""

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from nets_jax.analysis.intervals import mean_and_interval
from nets_jax.errors import UsageError
from nets_jax.studies import tables
from nets_jax.studies.methods import Value
from nets_jax.studies.run_files import metrics
from nets_jax.training.measures import OF_CLASSES, Measures

METRICS = ("fitness", *metrics(OF_CLASSES))
OF_LOSSES = ("fitness", "valid_loss", "test_loss")  # which cannot be compared between several losses
# What may decide on the best setting; of another score than accuracy the last two.
BEST_BY = (*METRICS, "valid_score", "test_score")


def metric_of(metric: str | None, measures: Measures) -> str | None:
  """The column of a metric of `BEST_BY`.

  Raises:
    UsageError: the runs have another score.
  """
  if metric is None or metric in ("fitness", "density", "valid_loss", "test_loss"):
    return metric
  split, _, score = metric.partition("_")
  if metric not in (f"{split}_score", measures.column(split)):
    raise UsageError(
      f"the best cannot be told by {metric}, for the score of these runs is {measures.score}, not {score}; "
      f"give {split}_score"
    )
  return measures.column(split)


def sign(metric: str | None, measures: Measures = OF_CLASSES) -> int:
  """1 where a metric is minimised, -1 where it is maximised."""
  is_score = metric in (measures.column("valid"), measures.column("test"))
  return measures.sign if is_score else 1


def value_of(row: Mapping[str, float], metric: str | None, measures: Measures = OF_CLASSES) -> float:
  """What a run came to, to be minimised."""
  if metric is None:
    metric = "valid_loss" if math.isfinite(row["valid_loss"]) else "fitness"
  return sign(metric, measures) * row[metric]


def by_setting(results: pd.DataFrame, varied: Sequence[str]) -> list[tuple[tuple[Value, ...], pd.DataFrame]]:
  """The runs of each setting, with its values, in the order of the results."""
  if not varied:
    return [((), results)]
  return [(values, own) for values, own in results.groupby(list(varied), sort=False, dropna=False)]


def best_setting(
  settings: pd.DataFrame, metric: str | None, measures: Measures = OF_CLASSES
) -> tuple[int | None, str]:
  """The index of the setting whose mean is best, and the metric that says so; None if no mean is finite.

  A setting in which a run failed, or is missing, is not the best.
  """
  if metric is None:
    metric = "valid_loss" if any(map(math.isfinite, settings["valid_loss"])) else "fitness"
  values = list(settings[metric])
  sound = [not failed for failed in settings["failed"]]
  if "runs" in settings:
    sound = [
      own and runs == settings["runs"].max() for own, runs in zip(sound, settings["runs"], strict=True)
    ]
  able = [i for i, own in enumerate(sound) if own and math.isfinite(values[i])]
  return min(able, key=lambda i: sign(metric, measures) * values[i], default=None), metric


def certainty(
  results: pd.DataFrame,
  settings: pd.DataFrame,
  varied: Sequence[str],
  best: int,
  metric: str,
  measures: Measures = OF_CLASSES,
) -> str:
  """How certain it is that the best setting is the best: its mean, and how far the next one is behind it."""
  own, half = settings[metric].iloc[best], settings[f"{metric}_interval"].iloc[best]
  after = "in the search" if metric == "fitness" else "after the final training"
  runs = f"{settings['runs'].iloc[best]} seed(s)"
  said = f"mean {metric} {after}: {own:.4g}{'' if math.isnan(half) else f' ± {half:.2g}'} over {runs}"
  others = [i for i in range(len(settings)) if i != best]
  next_index, _ = best_setting(settings.iloc[others], metric, measures) if others else (None, metric)
  if next_index is None:
    return said
  groups = [tables.sound(own) for _, own in by_setting(results, varied)]
  by_seed = [dict(zip(groups[i]["seed"], groups[i][metric], strict=True)) for i in (best, others[next_index])]
  ours, theirs = by_seed
  gap, width = mean_and_interval([theirs[seed] - ours[seed] for seed in ours if seed in theirs] or [math.nan])
  if math.isnan(width):
    told = "one seed tells nothing of how certain that is"
  elif abs(gap) > width:
    told = "so the best is told from it"
  else:
    told = "so the two are not told apart; more seeds would tell"
  shown = f"{gap:+.2g}" + ("" if math.isnan(width) else f" ± {width:.2g}")
  return f"{said}; the next setting differs by {shown}, paired by seed, {told}"
