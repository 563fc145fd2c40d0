"""Figures over density: what methods reach at several densities, and at what cost."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import SymmetricalLogLocator

from nets_jax.analysis.intervals import mean_and_interval
from nets_jax.analysis.style import COLOURS, STYLE, TableRow, label_axes, method_colours
from nets_jax.training.measures import OF_CLASSES, Measures, of_rows

LEGEND_WIDTH = 44  # characters
WIDE = 16  # points of accuracy, from which on an axis is that of the error's logarithm
LEAST_ERROR = 0.05  # percent, to be drawn there


def densities_figure(rows: Sequence[TableRow], measures: Measures | None = None) -> Figure:
  """Test accuracy over density: a line for each method, its mean with 95 % intervals, and each trial's point.

  Args:
    rows: of `densities.csv`: `method`, `target_density`, `density`, `test_accuracy` (or another score).
    measures: which score the rows have; None is what their columns say.
  """
  measures = of_rows(rows) if measures is None else measures
  figure = Figure(figsize=(7.2, 4.8), layout="constrained")
  axes, whole = figure.subplots(), dense_methods(rows)
  for method, colour in method_colours(rows).items():
    of_method = [row for row in rows if row["method"] == method]
    densities = sorted({row["target_density"] for row in of_method})
    groups = [[row for row in of_method if row["target_density"] == density] for density in densities]
    places = [100 * sum(row["density"] for row in group) / len(group) for group in groups]
    means, halves = zip(*(mean_score(group, measures) for group in groups), strict=True)
    name = legend_label(method)
    if method in whole:
      axes.axhline(means[0], color=colour, linestyle="--", linewidth=1.2, label=f"{name} (100 %)")
      continue
    axes.errorbar(
      places, means, halves, color=colour, capsize=3, marker="o", markersize=4, label=name, **STYLE
    )
    points = [100 * row["density"] for row in of_method], _scores(of_method, measures)
    axes.scatter(*points, s=8, color=colour, alpha=0.4, linewidths=0)
  axes.set_xscale("log")
  ticks = sorted({100 * row["target_density"] for row in rows if row["target_density"] < 1})
  axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
  axes.minorticks_off()
  label_axes(axes, "density (%)", measures.score_label("test"))
  _set_heights(axes, rows, measures)
  axes.legend(frameon=False).set_in_layout(False)
  return figure


def cost_figure(rows: Sequence[TableRow], measures: Measures | None = None) -> Figure:
  """Test accuracy over the genome-epochs of search, a panel for each density: each trial, and the mean.

  Where a method was tuned, a hollow point is at the cost of one search and of all its tuning.

  Args:
    rows: of `densities.csv`: `method`, `target_density`, `test_accuracy` (or another score), `search_epochs`,
      and `tuning_epochs` where there was tuning.
    measures: which score the rows have; None is what their columns say.
  """
  measures = of_rows(rows) if measures is None else measures
  below = sorted({row["target_density"] for row in rows if row["target_density"] < 1}, reverse=True) or [1.0]
  columns = min(len(below), 3)
  lines = math.ceil(len(below) / columns)
  figure = Figure(figsize=(1.2 + 3.4 * columns, 0.9 + 3.0 * lines), layout="constrained")
  panels = figure.subplots(lines, columns, squeeze=False).ravel()
  whole = dense_methods(rows)
  names = {
    method: legend_label(method) + (" (100 %)" if method in whole else "") for method in method_colours(rows)
  }
  searched = [row for row in rows if row["method"] not in whole] or rows
  most = max(row["search_epochs"] + _tuning(row) for row in searched)
  label = "genome-epochs of search" + (" (hollow: and tuning)" if any(map(_tuning, searched)) else "")
  for axes, density in zip(panels, below, strict=False):
    shown = [row for row in rows if row["target_density"] == density or row["method"] in whole]
    for method, colour in method_colours(rows).items():
      of_method = [row for row in shown if row["method"] == method]
      if method in whole:
        mean, _ = mean_score(of_method, measures)
        axes.axhline(mean, color=colour, linestyle="--", linewidth=1.2, label=names[method])
      elif of_method:
        _draw_cost(axes, of_method, colour, names[method], measures)
    axes.set_xscale("symlog", linthresh=10)
    # By powers of ten alone a search of 52 genome-epochs would be read as one of 16.
    axes.xaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=10, subs=[1, 2, 5]))
    axes.set_xlim(-1, 1.6 * max(10, most))
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    axes.tick_params("x", labelrotation=45)
    label_axes(axes, label, measures.score_label("test", f" at {100 * density:g} %"))
    _set_heights(axes, shown, measures)
  for axes in panels[len(below) :]:
    axes.set_axis_off()
  drawn = {}
  for axes in panels:
    handles, labels = axes.get_legend_handles_labels()
    drawn |= dict(zip(labels, handles, strict=True))
  legend = {name: drawn[name] for name in names.values() if name in drawn}
  figure.legend(legend.values(), legend.keys(), frameon=False, loc="outside upper center", ncols=columns)
  return figure


def dense_methods(rows: Sequence[TableRow]) -> set[str]:
  """The methods that have no sparse ticket, by whatever name."""
  return {row["method"] for row in rows} - {row["method"] for row in rows if row["target_density"] < 1}


def _tuning(row: TableRow) -> float:
  """Genome-epochs of a row's tuning; 0 where there was none."""
  epochs = float(row.get("tuning_epochs", 0.0))
  return 0.0 if math.isnan(epochs) else epochs


def legend_label(method: str) -> str:
  """A method's name on lines of at most `LEGEND_WIDTH` characters, where its colons allow it."""
  lines = [""]
  for part in method.replace(":", ":\0").split("\0"):
    if lines[-1] and len(lines[-1] + part) > LEGEND_WIDTH:
      lines.append("  ")
    lines[-1] += part
  return "\n".join(lines)


def differences_figure(rows: Sequence[TableRow], measures: Measures | None = None) -> Figure:
  """What methods differ by from one of them: a line of the figure for each, a panel for each density.

  Args:
    rows: `method`, `reference`, `target_density`, `difference` and `half_width`, in points of accuracy, or in
      what another score is in.
    measures: which score it is; None is accuracy.
  """
  measures = measures or OF_CLASSES
  methods = list(dict.fromkeys(row["method"] for row in rows))
  labels = [method.removeprefix(f"{rows[0]['reference']}:") for method in methods]
  densities = sorted({row["target_density"] for row in rows}, reverse=True)
  width = 1.0 + 0.075 * max(map(len, labels)) + 2.6 * len(densities)
  figure = Figure(figsize=(width, 1.2 + 0.27 * len(methods)), layout="constrained")
  panels = figure.subplots(1, len(densities), sharex=True, sharey=True, squeeze=False)[0]
  for axes, density in zip(panels, densities, strict=True):
    at_density = [row for row in rows if row["target_density"] == density]
    values, halves = ([row[name] for row in at_density] for name in ("difference", "half_width"))
    heights = [methods.index(row["method"]) for row in at_density]
    axes.axvline(0, color="0.4", linewidth=1)
    axes.errorbar(
      values, heights, xerr=halves, fmt="o", color=COLOURS["nets"], markersize=4, capsize=2, linewidth=1.2
    )
    label_axes(axes, f"{'points at' if measures.is_share else 'at'} {100 * density:g} %", "")
  if (
    measures.is_share and max(abs(row["difference"]) for row in rows) > 10
  ):  # what fails would press the others together
    panels[0].set_xscale("symlog", linthresh=2)
    bounds = panels[0].get_xlim()
    panels[0].set_xticks([-50, -10, -2, -1, 0, 1, 2, 10])
    panels[0].set_xlim(bounds)
  panels[0].xaxis.set_major_formatter(lambda x, _: f"{x:+g}" if x else "0")
  panels[0].set_yticks(range(len(methods)), labels)
  panels[0].set_ylim(len(methods) - 0.5, -0.5)
  note = "" if measures.more_is_better else "; less is better"
  title = f"test {measures.words}, difference from {rows[0]['reference']}{note}"
  figure.suptitle(title, fontsize="medium")
  return figure


def _draw_cost(axes: Axes, rows: Sequence[TableRow], colour: str, name: str, measures: Measures) -> None:
  mean, half = mean_score(rows, measures)
  place = sum(row["search_epochs"] for row in rows) / len(rows)
  points = [row["search_epochs"] for row in rows], _scores(rows, measures)
  if tuning := max(map(_tuning, rows)):
    axes.plot([place, place + tuning], [mean, mean], color=colour, linewidth=0.8, alpha=0.6)
    axes.scatter([place + tuning], [mean], s=22, facecolors="none", edgecolors=colour)
  axes.scatter(*points, s=9, color=colour, alpha=0.45, linewidths=0)
  axes.errorbar([place], [mean], [half], color=colour, capsize=3, marker="o", label=name, **STYLE)


def _set_heights(axes: Axes, rows: Sequence[TableRow], measures: Measures) -> None:
  """The axis is that of the trials: the intervals of three, far longer, are cut off.

  Where some fail the others would be pressed together: there it is the logarithm of the error that is even,
  and the label says so.
  A score that is no share has an even axis.
  """
  finite = [score for score in _scores(rows, measures) if math.isfinite(score)] or [0.0]
  low, high = min(finite), max(finite)
  if not measures.is_share or high - low < WIDE:
    margin = 0.1 * (high - low) + (0.1 if measures.is_share else 0.01 * max(abs(low), abs(high)))
    axes.set_ylim(low - margin, high + margin)
    return
  log_error_axis(axes, low, high)
  axes.set_ylabel(f"{axes.get_ylabel()}\n(on a scale of the log of the error)")


def log_error_axis(axes: Axes, low: float, high: float) -> None:
  """Heights are accuracies in percent, from low to high, even in the logarithm of the error."""
  axes.set_yscale("function", functions=(_evenness, lambda height: 100 - 10**-height))
  bottom, top = _evenness(np.array([low, high]))
  margin = max(0.05 * (top - bottom), 0.01)
  lowest, highest = max(0, 100 - 10 ** -(bottom - margin)), 100 - 10 ** -(top + margin)
  axes.set_ylim(lowest, highest)
  coarse, fine = (
    (0, 20, 50, 80, 90, 95, 97, 98, 99, 99.5, 99.8),
    (*range(0, 80, 5), *range(80, 90, 2), *range(90, 100)),
  )
  ticks, more = ([tick for tick in ticks if lowest <= tick <= highest] for ticks in (coarse, fine))
  ticks = next(
    (some for some in (ticks, more) if len(some) > 2), np.linspace(lowest, highest, 5)[1:-1].round(2).tolist()
  )
  axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])


def _evenness(accuracy: np.ndarray) -> np.ndarray:
  """Minus the decimal logarithm of the error, in percent, of an accuracy."""
  return -np.log10(np.maximum(100 - accuracy, LEAST_ERROR))


def _scores(rows: Sequence[TableRow], measures: Measures) -> list[float]:
  """Each test score, as it is drawn: shares in percent."""
  return [measures.factor * row[measures.column("test")] for row in rows]


def mean_score(rows: Sequence[TableRow], measures: Measures) -> tuple[float, float]:
  """Mean test score as it is drawn, and half of its 95 % interval.

  0 for one or two trials: the interval of two would be 13 times as long as the way between their points.
  """
  mean, half = mean_and_interval(_scores(rows, measures))
  return mean, half if len(rows) > 2 else 0.0
