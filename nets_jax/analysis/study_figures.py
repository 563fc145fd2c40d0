"""Figures of several runs: the paper's Figures 1 to 3, and what hyperparameters do."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from nets_jax.analysis.history_figures import PANELS
from nets_jax.analysis.intervals import mean_and_interval
from nets_jax.analysis.style import COLOURS, STYLE, finish_figure, label_axes, method_colours

# What a ticket came to, in a sweep's results.
EFFECTS = {
  "density": ("density (%)", 100.0),
  "fitness": ("fitness (minimised)", 1.0),
  "valid_loss": ("validation loss (nats)", 1.0),
  "test_accuracy": ("test accuracy (%)", 100.0),
}


def trials_figure(rows: Sequence[Mapping[str, Any]], note: str = "") -> Figure:
  """The paper's Figure 1 over several trials: the best genome of each generation, a line per trial.

  Args:
    rows: of `figure1.csv`: `method`, `trial`, `generation`, `density`, `valid_loss`, `fitness`.
    note: a line above the figure.
  """
  figure = Figure(figsize=(12, 3.8), layout="constrained")
  for axes, (column, (label, factor)) in zip(figure.subplots(1, 3), PANELS.items(), strict=True):
    for method, colour, trials in _by_method(rows):
      _draw_trials(axes, trials, "generation", column, factor, color=colour, label=method)
    label_axes(axes, "generation", label)
    axes.xaxis.get_major_locator().set_params(integer=True)
  return finish_figure(figure, note)


def seconds_figure(rows: Sequence[Mapping[str, Any]], note: str = "") -> Figure:
  """The paper's Figure 2: validation loss and density against wall-clock time, search then training.

  Args:
    rows: of `figure2.csv`: `method`, `trial`, `stage`, `seconds`, `valid_loss`, `density`.
    note: a line above the figure.
  """
  figure = Figure(figsize=(9, 6.5), layout="constrained")
  panels = (("valid_loss", "validation loss (nats)", 1.0), ("density", "density (%)", 100.0))
  for axes, (column, label, factor) in zip(figure.subplots(2, 1, sharex=True), panels, strict=True):
    for method, colour, trials in _by_method(rows):
      for stage, style in (("search", "-"), ("training", ":")):
        parts = [[row for row in trial if row["stage"] == stage] for trial in trials]
        style = {"color": colour, "linestyle": style, "label": f"{method}, {stage}"}
        _draw_trials(axes, parts, "seconds", column, factor, **style)
    label_axes(axes, "wall-clock time of one run (s)", label)
  upper, _ = figure.axes
  upper.set_xlabel("")
  upper.set_yscale("log")
  return finish_figure(figure, note)


def training_figure(rows: Sequence[Mapping[str, Any]], note: str = "") -> Figure:
  """The paper's Figure 3: mean test loss and accuracy over training epochs, with each trial's points.

  Args:
    rows: of `figure3.csv`: `method`, `trial`, `epoch`, `test_loss`, `test_accuracy`.
    note: a line above the figure.
  """
  figure = Figure(figsize=(10, 4.2), layout="constrained")
  panels = (("test_loss", "test loss (nats)", 1.0), ("test_accuracy", "test accuracy (%)", 100.0))
  for axes, (column, label, factor) in zip(figure.subplots(1, 2), panels, strict=True):
    for method, colour, lines in _by_method(rows):
      epochs = [row["epoch"] for row in lines[0]]
      values = factor * np.asarray([[row[column] for row in line] for line in lines])
      axes.scatter(
        np.tile(epochs, len(lines)), values, color=colour, s=6, alpha=0.35, linewidths=0, rasterized=True
      )
      axes.plot(epochs, values.mean(0), color=colour, label=method, **STYLE)
    label_axes(axes, "training epoch", label)
  figure.axes[0].set_yscale("log")
  settled = max(row["epoch"] for row in rows) / 10  # the first epochs would squeeze all others
  worst = min(100 * row["test_accuracy"] for row in rows if row["epoch"] >= settled)
  figure.axes[1].set_ylim(bottom=max(0, worst - 2))
  return finish_figure(figure, note)


def effects_figure(results: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Figure:
  """What each hyperparameter does: a column for each, a row for each of the tickets' figures.

  A single hyperparameter has its panels in one row. A point is a run; where a value has several runs, the
  line is their mean and the bars its 95 % interval; the axes are those of the runs, so the bars of two or
  three runs, far longer than these are apart, are cut off. Of hyperparameters that were varied together each
  panel shows all runs.

  Args:
    results: rows of a sweep's `results.csv`.
    names: of the columns that were varied.
  """
  panels = [
    (column, label, factor)
    for column, (label, factor) in EFFECTS.items()
    if any(np.isfinite(row[column]) for row in results)
  ] or [("density", *EFFECTS["density"])]
  shape = (1, len(panels)) if len(names) == 1 else (len(panels), len(names))
  figure = Figure(figsize=(4.0 * shape[1], 3.1 * shape[0]), layout="constrained")
  grid = figure.subplots(*shape, squeeze=False).reshape(len(panels), len(names))
  for row_of_axes, (column, label, factor) in zip(grid, panels, strict=True):
    for axes, name in zip(row_of_axes, names, strict=True):
      values = list(dict.fromkeys(row[name] for row in results))
      words = not all(isinstance(value, float | int) for value in values)
      values = values if words else sorted(values)
      places = {value: i if words else value for i, value in enumerate(values)}
      own = {
        v: [factor * r[column] for r in results if r[name] == v and np.isfinite(r[column])] for v in values
      }
      for value, found in own.items():
        axes.scatter(
          [places[value]] * len(found), found, color=COLOURS["nets"], s=10, alpha=0.45, linewidths=0
        )
      if all(len(found) > 1 for found in own.values()):
        means, halves = zip(*(mean_and_interval(found) for found in own.values()), strict=True)
        axes.errorbar(list(places.values()), means, halves, color=COLOURS["nets"], capsize=3, **STYLE)
        low, high = min(map(min, own.values())), max(map(max, own.values()))
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
      label_axes(axes, name, label if axes is row_of_axes[0] else "")
  return figure


def _by_method(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, list[list[Mapping[str, Any]]]]]:
  """For each method its name, its colour, and its rows by trial."""
  found = []
  for method, colour in method_colours(rows).items():
    own = [row for row in rows if row["method"] == method]
    trials = sorted({row["trial"] for row in own})
    found.append((method, colour, [[row for row in own if row["trial"] == trial] for trial in trials]))
  return found


def _draw_trials(axes, trials, x: str, y: str, factor: float, *, label: str, **style) -> None:
  """A thin line for each trial; the first carries the label."""
  for i, trial in enumerate(trials):
    points = [row[x] for row in trial], [factor * row[y] for row in trial]
    axes.plot(*points, alpha=0.75, linewidth=1.3, label=None if i else label, **style)
