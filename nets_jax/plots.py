"""Figures from recorded histories. Nothing here runs or imports the search."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from nets_jax.errors import UsageError
from nets_jax.files import replace_file
from nets_jax.statistics import mean_and_interval

COLOURS = {
  "nets": "#1f5fa8",
  "paper": "#1f5fa8",
  "guided": "#0f9bd1",
  "random": "#3a8f3a",
  "imp": "#c0392b",
  "dense": "#444444",
}
SPARE_COLOURS = ("#d68910", "#7d3c98", "#148f77", "#b03a7a", "#6e5a3c", "#5d6d7e", "#9a9a00", "#ff6f61")
STYLE = {"linewidth": 1.8}
INFEASIBLE = 1e3  # fitness of a ticket that is too dense, where that counts first (`fitness.feasible_loss`)


PANELS = {
  "density": ("density (%)", 100.0),
  "valid_loss": ("validation loss after training (nats)", 1.0),
  "fitness": ("fitness (minimised)", 1.0),
}
ACCURACY = {"valid_accuracy": ("validation accuracy after training (%)", 100.0)}


# What a ticket came to, in a sweep's results.
EFFECTS = {
  "density": ("density (%)", 100.0),
  "fitness": ("fitness (minimised)", 1.0),
  "valid_loss": ("validation loss (nats)", 1.0),
  "test_accuracy": ("test accuracy (%)", 100.0),
}


def leaders(history: Sequence[Mapping[str, float]]) -> list[Mapping[str, float]]:
  """The row of lowest fitness of each generation; of another search's history each iteration's or round's."""
  axis = axis_of(history)
  by_point = {}
  for row in history:
    by_point.setdefault(row[axis], []).append(row)
  return [min(rows, key=lambda row: row.get("fitness", 0.0)) for _, rows in sorted(by_point.items())]


def axis_of(history: Sequence[Mapping[str, float]]) -> str:
  """The column that a history goes on by."""
  return next(name for name in ("generation", "iteration", "round", "ticket") if name in history[0])


def evolution_figure(history: Sequence[Mapping[str, float]], target_density: float | None = None) -> Figure:
  """The paper's Figure 1: density, validation loss and fitness over the generations.

  Each panel shows the genome of lowest fitness of its generation as a line, and the range over the
  population as a band. Diverged genomes are left out of the bands; where some have nearly diverged, which
  would flatten the rest, an axis ends above the line and three quarters of all genomes. Where tickets that
  are too dense count as worse than any other, fitness says little else, and the accuracy is in its place.
  The history of another search is drawn over its iterations or rounds, with the panels that it has figures
  for.

  Args:
    history: rows of a `history.csv`.
    target_density: tau, drawn as a dashed line if given.
  """
  axis = axis_of(history)
  points = sorted({int(row[axis]) for row in history})
  by_point = [[row for row in history if row[axis] == point] for point in points]
  feasible_first = any(INFEASIBLE <= row.get("fitness", 0.0) < np.inf for row in leaders(history))
  names = ["density", "valid_loss", "valid_accuracy" if feasible_first else "fitness"]
  panels = [name for name in names if name in history[0]]
  figure = Figure(figsize=(4 * len(panels), 3.8), layout="constrained")
  for axes, column in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
    label, factor = {**PANELS, **ACCURACY}[column]
    best = [row[column] for row in leaders(history)]
    if "genome" in history[0]:
      finite = [[row[column] for row in rows if np.isfinite(row[column])] or [np.nan] for rows in by_point]
      low, high = ([factor * bound(values) for values in finite] for bound in (min, max))
      axes.fill_between(points, low, high, color=COLOURS["nets"], alpha=0.2, label="population", linewidth=0)
    marker = "o" if len(points) == 1 else None
    label_of_line = "best genome" if "genome" in history[0] else "ticket"
    axes.plot(
      points, factor * np.asarray(best), color=COLOURS["nets"], label=label_of_line, marker=marker, **STYLE
    )
    if column == "density" and target_density is not None:
      axes.axhline(100 * target_density, color="#444444", linestyle="--", linewidth=1, label="target")
    if column != "density":
      _cut_off(axes, factor * np.asarray([row[column] for row in history]), factor * max(best))
    dress(axes, axis, label)
    axes.legend(frameon=False)
    axes.xaxis.get_major_locator().set_params(integer=True)
  return figure


def _cut_off(axes: Axes, values: np.ndarray, needed: float) -> None:
  """Ends an axis above what is needed and three quarters of the values, if the others are far beyond."""
  finite = values[np.isfinite(values)]
  if finite.size:
    low, top = float(finite.min()), max(float(np.quantile(finite, 0.75)), needed)
    if np.isfinite(top) and 0 < 3 * (top - low) < finite.max() - low:
      axes.set_ylim(low - 0.05 * (top - low), top + 0.1 * (top - low))


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
    dress(axes, "generation", label)
    axes.xaxis.get_major_locator().set_params(integer=True)
  return _finish(figure, note)


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
    dress(axes, "wall-clock time of one run (s)", label)
  upper, _ = figure.axes
  upper.set_xlabel("")
  upper.set_yscale("log")
  return _finish(figure, note)


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
    dress(axes, "training epoch", label)
  figure.axes[0].set_yscale("log")
  settled = max(row["epoch"] for row in rows) / 10  # the first epochs would squeeze all others
  worst = min(100 * row["test_accuracy"] for row in rows if row["epoch"] >= settled)
  figure.axes[1].set_ylim(bottom=max(0, worst - 2))
  return _finish(figure, note)


def masks_figure(ticket: Any) -> Figure:
  """The mask of each layer as an image: a row for each input, a column for each unit, dark where expressed.

  A kernel of more than two axes (a convolution's) is drawn with all axes but the last as its rows.

  Args:
    ticket: a `Ticket`.
  """
  masks = kernels(ticket, ticket.masks)
  figure = Figure(figsize=(3.4 * len(masks), 3.8), layout="constrained")
  for axes, (name, mask) in zip(figure.subplots(1, len(masks), squeeze=False)[0], masks, strict=True):
    image = mask.reshape(-1, mask.shape[-1])
    axes.imshow(image, cmap="Greys", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    axes.set_title(f"{name}: {image.mean():.1%} of {image.size:,}", fontsize=10)
    dress(axes, "units", "inputs" if axes is figure.axes[0] else "")
    for axis in (axes.xaxis, axes.yaxis):
      axis.get_major_locator().set_params(integer=True)
  return figure


def connectivity_figure(ticket: Any, image_shape: Sequence[int]) -> Figure:
  """How many connections of each input pixel survive, as an image.

  Args:
    ticket: a `Ticket` whose network has a layer that takes the pixels one by one.
    image_shape: height and width, and channels, whose counts are added up.

  Raises:
    UsageError: no layer has as many inputs as an image has numbers.
  """
  inputs = int(np.prod(image_shape))
  first = next(
    (mask for _, mask in kernels(ticket, ticket.masks) if mask.ndim == 2 and mask.shape[0] == inputs), None
  )
  if first is None:
    raise UsageError(f"no layer of the ticket takes the {inputs} numbers of an image one by one")
  height, width, *channels = image_shape
  counts = first.sum(axis=-1).reshape(height, width, -1).sum(axis=-1)
  figure = Figure(figsize=(4.4, 3.8), layout="constrained")
  axes = figure.subplots()
  shown = axes.imshow(counts, cmap="viridis", vmin=0)
  figure.colorbar(shown, label=f"connections left, of {first.shape[-1] * int(np.prod(channels or 1))}")
  axes.set_xticks([])
  axes.set_yticks([])
  return figure


def weights_figure(ticket: Any, trained: Mapping[str, Any]) -> Figure:
  """The weights that a ticket keeps, before and after training: a histogram for each layer.

  Args:
    ticket: a `Ticket`.
    trained: its weights after training, as the ticket's are laid out.
  """
  masks = kernels(ticket, ticket.masks)
  before, after = dict(kernels(ticket, ticket.weights)), dict(kernels(ticket, trained))
  figure = Figure(figsize=(3.6 * len(masks), 3.4), layout="constrained")
  for axes, (name, mask) in zip(figure.subplots(1, len(masks), squeeze=False)[0], masks, strict=True):
    kept = {"before": before[name][mask], "after": after[name][mask]}
    bins = np.linspace(*np.quantile(np.concatenate([*kept.values(), [0]]), (0.001, 0.999)), 60)
    for (label, weights), colour in zip(kept.items(), ("#9aa5b1", COLOURS["nets"]), strict=True):
      axes.hist(weights, bins, color=colour, label=f"{label} training", alpha=0.65)
    axes.set_title(name, fontsize=10)
    dress(axes, "weight", "weights left" if axes is figure.axes[0] else "")
  return _finish(figure, "")


def lineage_figure(history: Sequence[Mapping[str, float]], column: str = "density") -> Figure:
  """The ancestors of the best genome among all genomes: by how much of it comes from each.

  A parent is taken to give half of a child, and all of an elite; the area of an ancestor's point is its share
  of the best genome by that reckoning. Genomes that have nearly diverged may be outside.

  Args:
    history: rows of a NeTS `history.csv`.
    column: what to draw over the generations, a column of the history.
  """
  label, factor = PANELS[column]
  by_place = {(int(row["generation"]), int(row["genome"])): row for row in history}
  best = min(by_place, key=lambda place: by_place[place]["fitness"])
  shares, lines = {best: 1.0}, []
  for generation in range(best[0], 0, -1):
    for place in [place for place in shares if place[0] == generation]:
      for parent in ("parent_1", "parent_2"):
        origin = (generation - 1, int(by_place[place][parent]))
        shares[origin] = shares.get(origin, 0.0) + shares[place] / 2
        lines.append((place, origin, shares[place]))
  height = lambda place: factor * by_place[place][column]  # noqa: E731
  figure = Figure(figsize=(9, 4.2), layout="constrained")
  axes = figure.subplots()
  axes.scatter(
    [g for g, _ in by_place],
    [height(p) for p in by_place],
    s=5,
    color="#c3cad2",
    linewidths=0,
    label="population",
  )
  ends = [[(g, height((g, i))) for g, i in pair] for *pair, _ in lines]
  strengths = [min(1, 0.08 + share) for *_, share in lines]
  axes.add_collection(LineCollection(ends, colors=COLOURS["nets"], alpha=strengths, linewidths=0.8))
  axes.scatter(
    [g for g, _ in shares], [height(p) for p in shares], s=[4 + 46 * share for share in shares.values()],
    color=COLOURS["nets"], linewidths=0, alpha=0.8, label="ancestors of the best genome, by share", zorder=3,
  )  # fmt: skip
  _cut_off(axes, np.asarray([height(place) for place in by_place]), max(map(height, shares)))
  axes.scatter(
    [best[0]], [height(best)], s=90, color=COLOURS["imp"], marker="*", label="best genome", zorder=4
  )
  dress(axes, "generation", label)
  axes.xaxis.get_major_locator().set_params(integer=True)
  axes.legend(frameon=False)
  return figure


def kernels(ticket: Any, tree: Mapping[str, Any]) -> list[tuple[str, np.ndarray]]:
  """Name and array of each layer of a tree like the masks or the weights, in the order of application."""
  return [(name, np.asarray(leaf)) for name, leaf in ticket.by_layer(tree).items()]


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
      dress(axes, name, label if axes is row_of_axes[0] else "")
  return figure


def method_colours(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
  """A colour for each method of some rows, in their order; grey where there are too many."""
  spare = iter(SPARE_COLOURS)
  names = dict.fromkeys(row["method"] for row in rows)
  return {name: COLOURS.get(name) or next(spare, "#888888") for name in names}


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


def dress(axes, xlabel: str, ylabel: str) -> None:
  """Labels and frame, alike in every figure."""
  axes.set_xlabel(xlabel)
  axes.set_ylabel(ylabel)
  axes.spines[["top", "right"]].set_visible(False)


def _finish(figure: Figure, note: str) -> Figure:
  """One legend for all panels, below them, and the note above."""
  handles, labels = figure.axes[0].get_legend_handles_labels()
  figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4), frameon=False)
  figure.suptitle(note)
  return figure


def save_figure(figure: Figure, path: str | os.PathLike) -> None:
  """Writes a figure as PNG or SVG, by the name's ending, whole or not at all."""
  form = str(path).rpartition(".")[2]
  with replace_file(path) as temporary, open(temporary, "wb") as file:
    figure.savefig(file, format=form, dpi=150)
