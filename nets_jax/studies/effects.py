"""What a sweep's runs came to: tables made from the files of the runs."""

import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any

from nets_jax.analysis.history_figures import leaders
from nets_jax.analysis.intervals import mean_and_interval
from nets_jax.cli import outcome
from nets_jax.engine.tables import read_csv

Rows = list[dict[str, Any]]
RunFiles = Sequence[tuple[dict[str, str], int, pathlib.Path]]  # changes, seed, directory

METRICS = ("fitness", "density", "valid_loss", "valid_accuracy", "test_loss", "test_accuracy")
SHOWN = ("density", "valid_loss", "test_loss", "test_accuracy", "search_seconds")


def result_rows(runs: RunFiles) -> Rows:
  """A row for each run: what was changed, its seed, its ticket's figures and what the search cost.

  Figures that a run does not have (it failed, or was not trained) are NaN.
  """
  rows = []
  for changes, seed, path in runs:
    summary = json.loads((path / "summary.json").read_text())
    trained = next(iter((summary.get("results") or {}).values()), {})
    figures = {**(summary.get("best") or {}), "density": summary.get("density"), **trained}
    costs = {name: summary.get(name) for name in ("search_epochs", "search_seconds", "compile_seconds")}
    numbers = {name: figures.get(name) for name in METRICS} | costs
    if not trained:
      numbers |= {name: None for name in ("valid_loss", "valid_accuracy")}  # those of a short training
    rows.append(
      {"run": path.name, **changes, "seed": seed}
      | {name: math.nan if value is None else value for name, value in numbers.items()}
      | {"empty_layers": outcome.name_layers(summary["empty_layers"]) if "empty_layers" in summary else ""}
      | {"failed": summary.get("failed", "")}
    )
  return rows


def history_rows(runs: RunFiles) -> Rows:
  """A row for each run and generation (or epoch of a cycle, or round): its best genome."""
  rows = []
  for changes, seed, path in runs:
    if (path / "history.csv").exists():
      best = leaders(read_csv(path / "history.csv"))
      rows += [{"run": path.name, **changes, "seed": seed, **row} for row in best]
  return rows


def setting_rows(results: Rows, names: Sequence[str]) -> Rows:
  """A row for each setting: the mean of its seeds, and the half-width of the mean's 95 % interval.

  Args:
    results: from `result_rows`.
    names: of the flags that were varied.
  """
  by_setting = {}
  for row in results:
    by_setting.setdefault(tuple(row[name] for name in names), []).append(row)
  rows = []
  for setting, own in by_setting.items():
    failed = sum(bool(row["failed"]) for row in own)
    row = dict(zip(names, setting, strict=True)) | {"runs": len(own), "failed": failed}
    sound = [r for r in own if not r["failed"]]
    row["empty_layers"] = outcome.tally_layers([r.get("empty_layers", "") for r in sound])
    for name in (*METRICS, "search_seconds"):
      row[name], row[f"{name}_interval"] = mean_and_interval([r[name] for r in sound] or [math.nan])
    rows.append(row)
  return rows


def best(settings: Rows, metric: str | None) -> tuple[int | None, str]:
  """The index of the setting whose mean is best, and the metric that says so; None if no mean is finite.

  A setting in which a run failed is not the best.

  Args:
    settings: from `setting_rows`.
    metric: one of `METRICS`; None is `valid_loss` after the final training, or `fitness` where there was
      none.
  """
  if metric is None:
    is_trained = any(math.isfinite(row["valid_loss"]) for row in settings)
    metric = "valid_loss" if is_trained else "fitness"
  sign = -1 if metric.endswith("accuracy") else 1
  able = [i for i, row in enumerate(settings) if math.isfinite(row[metric]) and not row["failed"]]
  return min(able, key=lambda i: sign * settings[i][metric], default=None), metric


def certainty(results: Rows, settings: Rows, names: Sequence[str], best_index: int, metric: str) -> str:
  """How certain it is that the best setting is the best: its mean, and how far the next one is behind it.

  Args:
    results: from `result_rows`.
    settings: from `setting_rows`.
    names: of the flags that were varied.
    best_index, metric: from `best`.
  """
  own, half = settings[best_index][metric], settings[best_index][f"{metric}_interval"]
  after = "in the search" if metric == "fitness" else "after the final training"
  runs = f"{settings[best_index]['runs']} seed(s)"
  said = f"mean {metric} {after}: {own:.4g}{'' if math.isnan(half) else f' ± {half:.2g}'} over {runs}"
  others = [row for i, row in enumerate(settings) if i != best_index]
  next_index, _ = best(others, metric)
  if next_index is None:
    return said

  def by_seed(setting):
    of_it = [row for row in results if all(row[name] == setting[name] for name in names)]
    return {row["seed"]: row[metric] for row in of_it if not row["failed"]}

  ours, theirs = by_seed(settings[best_index]), by_seed(others[next_index])
  gap, width = mean_and_interval([theirs[seed] - ours[seed] for seed in ours if seed in theirs] or [math.nan])
  if math.isnan(width):
    told = "one seed tells nothing of how certain that is"
  elif abs(gap) > width:
    told = "so the best is told from it"
  else:
    told = "so the two are not told apart; more seeds would tell"
  shown = f"{gap:+.2g}" + ("" if math.isnan(width) else f" ± {width:.2g}")
  return f"{said}; the next setting differs by {shown}, paired by seed, {told}"


def markdown(settings: Rows, names: Sequence[str], best_index: int | None) -> str:
  """The settings as a table: mean ± half-width of the 95 % interval, the best in bold."""
  head = [*names, "runs", *(name.replace("_", " ") for name in SHOWN), "empty layers"]
  lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
  for i, row in enumerate(settings):
    runs = f"{row['runs']}" + (f" ({row['failed']} failed)" if row["failed"] else "")
    shown = [f"{row[name]:g}" if isinstance(row[name], float) else str(row[name]) for name in names]
    cells = [*shown, runs, *(_cell(row, name) for name in SHOWN), row["empty_layers"]]
    if i == best_index:
      cells = [f"**{cell}**" for cell in cells]
    lines.append("| " + " | ".join(cells) + " |")
  return "\n".join(lines) + "\n"


def _cell(row: dict[str, Any], name: str) -> str:
  mean, half = row[name], row[f"{name}_interval"]
  if math.isnan(mean):
    return "-"
  percent = name in ("density", "test_accuracy")
  form = (lambda x: f"{100 * x:.1f}") if percent else (lambda x: f"{x:.3g}")
  alone = math.isnan(half) or name == "search_seconds"  # which is shared out evenly among runs side by side
  return form(mean) + ("" if alone else f" ± {form(half)}") + (" %" if percent else "")
