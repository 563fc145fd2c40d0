"""Figures of several runs: the paper's Figures 1 to 3, and what hyperparameters do."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nets_jax.analysis.history_figures import is_logarithmic, panels
from nets_jax.analysis.intervals import mean_and_interval
from nets_jax.analysis.style import (
  COLOURS,
  STYLE,
  TableRow,
  finish_figure,
  label_axes,
  method_colours,
  whole_numbers,
)
from nets_jax.training.measures import Measures, of_rows


def effects(measures: Measures) -> dict[str, tuple[str, float]]:
  """What a ticket came to, in a sweep's results: what an axis of each column says, and its factor."""
  return {
    "density": ("density (%)", 100.0),
    "fitness": ("fitness (minimised)", 1.0),
    "valid_loss": (measures.loss_label("validation loss"), 1.0),
    measures.column("test"): (measures.score_label("test"), measures.factor),
  }


def trials_figure(rows: Sequence[TableRow], note: str = "", measures: Measures | None = None) -> Figure:
  """The paper's Figure 1 over several trials: the best genome of each generation, a line per trial.

  Args:
    rows: of `figure1.csv`: `method`, `trial`, `generation`, `density`, `valid_loss`, `fitness`.
    note: a line above the figure.
    measures: which loss it is; None is what the columns say.
  """
  labels = panels(measures or of_rows(rows))
  figure = Figure(figsize=(12, 3.8), layout="constrained")
  for axes, (column, (label, factor)) in zip(figure.subplots(1, 3), labels.items(), strict=True):
    for method, colour, trials in _by_method(rows):
      _draw_trials(axes, trials, "generation", column, factor, color=colour, label=method)
    label_axes(axes, "generation", label)
    whole_numbers(axes.xaxis)
  return finish_figure(figure, note)


def seconds_figure(rows: Sequence[TableRow], note: str = "", measures: Measures | None = None) -> Figure:
  """The paper's Figure 2: validation loss and density against wall-clock time, search then training.

  Args:
    rows: of `figure2.csv`: `method`, `trial`, `stage`, `seconds`, `valid_loss`, `density`.
    note: a line above the figure.
    measures: which loss it is; None is what the columns say.
  """
  figure = Figure(figsize=(9, 6.5), layout="constrained")
  measures = of_rows(rows) if measures is None else measures
  shown = (("valid_loss", measures.loss_label("validation loss"), 1.0), ("density", "density (%)", 100.0))
  for axes, (column, label, factor) in zip(figure.subplots(2, 1, sharex=True), shown, strict=True):
    for method, colour, trials in _by_method(rows):
      for stage, style in (("search", "-"), ("training", ":")):
        parts = [[row for row in trial if row["stage"] == stage] for trial in trials]
        style = {"color": colour, "linestyle": style, "label": f"{method}, {stage}"}
        _draw_trials(axes, parts, "seconds", column, factor, **style)
    label_axes(axes, "wall-clock time of one run (s)", label)
  upper, _ = figure.axes
  upper.set_xlabel("")
  _scale_losses(upper, [row["valid_loss"] for row in rows], measures)
  return finish_figure(figure, note)


def training_figure(rows: Sequence[TableRow], note: str = "", measures: Measures | None = None) -> Figure:
  """The paper's Figure 3: mean test loss and score over training epochs, with each trial's points.

  Args:
    rows: of `figure3.csv`: `method`, `trial`, `epoch`, `test_loss`, `test_accuracy` (or another score).
    note: a line above the figure.
    measures: which loss and score the rows have; None is what their columns say.
  """
  measures = of_rows(rows, directed=True) if measures is None else measures
  score, factor_of_score = measures.column("test"), measures.factor
  figure = Figure(figsize=(10, 4.2), layout="constrained")
  labels = measures.loss_label("test loss"), measures.score_label("test")
  shown = (("test_loss", labels[0], 1.0), (score, labels[1], factor_of_score))
  for axes, (column, label, factor) in zip(figure.subplots(1, 2), shown, strict=True):
    for method, colour, lines in _by_method(rows):
      epochs = [row["epoch"] for row in lines[0]]
      values = factor * np.asarray([[row[column] for row in line] for line in lines])
      axes.scatter(
        np.tile(epochs, len(lines)), values, color=colour, s=6, alpha=0.35, linewidths=0, rasterized=True
      )
      axes.plot(epochs, values.mean(0), color=colour, label=method, **STYLE)
    label_axes(axes, "training epoch", label)
  _scale_losses(figure.axes[0], [row["test_loss"] for row in rows], measures)
  settled = max(row["epoch"] for row in rows) / 10  # the first epochs would squeeze all others
  later = [factor_of_score * row[score] for row in rows if row["epoch"] >= settled]
  _end_at_the_worst(figure.axes[1], later, measures)
  return finish_figure(figure, note)


def _scale_losses(axes: Axes, losses: Sequence[float], measures: Measures) -> None:
  if is_logarithmic(losses, measures):
    axes.set_yscale("log")


def _end_at_the_worst(axes: Axes, scores: Sequence[float], measures: Measures) -> None:
  """Ends an axis of the score a little beyond the worst of some."""
  worst = measures.worst(scores)
  if measures.is_share:
    axes.set_ylim(bottom=max(0, worst - 2))
  elif np.isfinite(scores).all():
    margin = 0.05 * (max(scores) - min(scores))
    end = worst + measures.sign * margin
    bounds = (end, None) if measures.more_is_better else (None, end)
    axes.set_ylim(*bounds)


def effects_figure(
  results: Sequence[TableRow], names: Sequence[str], measures: Measures | None = None
) -> Figure:
  """What each hyperparameter does: a column for each, a row for each of the tickets' figures.

  A single hyperparameter has its panels in one row. A point is a run; where a value has several runs, the
  line is their mean and the bars its 95 % interval; the axes are those of the runs, so the bars of two or
  three runs, far longer than these are apart, are cut off. Of hyperparameters that were varied together each
  panel shows all runs.

  Args:
    results: rows of a sweep's `results.csv`.
    names: of the columns that were varied.
    measures: which loss and score the rows have; None is what their columns say.
  """
  labels = effects(measures or of_rows(results))
  shown = [
    (column, label, factor)
    for column, (label, factor) in labels.items()
    if any(np.isfinite(row[column]) for row in results)
  ] or [("density", *labels["density"])]
  shape = (1, len(shown)) if len(names) == 1 else (len(shown), len(names))
  figure = Figure(figsize=(4.0 * shape[1], 3.1 * shape[0]), layout="constrained")
  grid = figure.subplots(*shape, squeeze=False).reshape(len(shown), len(names))
  for row_of_axes, (column, label, factor) in zip(grid, shown, strict=True):
    for axes, name in zip(row_of_axes, names, strict=True):
      by_value = {row[name]: [] for row in results}
      for row in results:
        if np.isfinite(row[column]):
          by_value[row[name]].append(factor * row[column])
      _draw_effect(axes, by_value)
      label_axes(axes, name, label if axes is row_of_axes[0] else "")
  return figure


def _draw_effect(axes: Axes, by_value: Mapping[Any, Sequence[float]]) -> None:
  """A panel of `effects_figure`.

  Args:
    axes: of the panel.
    by_value: of each value of a hyperparameter, a number or a word, what the runs came to.
  """
  words = not all(isinstance(value, float | int) for value in by_value)
  values = list(by_value) if words else sorted(by_value)
  places = {value: i if words else value for i, value in enumerate(values)}
  runs = [by_value[value] for value in values]
  for value in values:
    points = [places[value]] * len(by_value[value]), by_value[value]
    axes.scatter(*points, color=COLOURS["nets"], s=10, alpha=0.45, linewidths=0)
  if all(len(of_value) > 1 for of_value in runs):
    means, halves = zip(*map(mean_and_interval, runs), strict=True)
    axes.errorbar(list(places.values()), means, halves, color=COLOURS["nets"], capsize=3, **STYLE)
    low, high = min(map(min, runs)), max(map(max, runs))
    margin = 0.2 * (high - low)
    if margin > 0:
      axes.set_ylim(low - margin, high + margin)
  if words:
    axes.set_xticks(list(places.values()), [str(value) for value in values])
  elif values[0] > 0 and values[-1] / values[0] >= 8:
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    if len(values) <= 8:
      axes.set_xticks(values)
      axes.minorticks_off()


def _by_method(rows: Sequence[TableRow]) -> list[tuple[str, str, list[list[TableRow]]]]:
  """For each method its name, its colour, and its rows by trial."""
  methods = []
  for method, colour in method_colours(rows).items():
    of_method = [row for row in rows if row["method"] == method]
    trials = sorted({row["trial"] for row in of_method})
    by_trial = [[row for row in of_method if row["trial"] == trial] for trial in trials]
    methods.append((method, colour, by_trial))
  return methods


def _draw_trials(
  axes: Axes, trials: Sequence[Sequence[TableRow]], x: str, y: str, factor: float, *, label: str, **style
) -> None:
  """A thin line for each trial; the first carries the label."""
  for i, trial in enumerate(trials):
    points = [row[x] for row in trial], [factor * row[y] for row in trial]
    axes.plot(*points, alpha=0.75, linewidth=1.3, label=None if i else label, **style)
