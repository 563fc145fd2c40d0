"""Figures of one search, from its recorded history."""

from collections.abc import Mapping, Sequence
from typing import SupportsFloat

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from nets_jax.analysis.style import COLOURS, STYLE, label_axes, whole_numbers
from nets_jax.rows import INFEASIBLE
from nets_jax.training.measures import NATS, Measures, of_rows

Place = tuple[int, int]  # generation and index of a genome


def panels(measures: Measures) -> dict[str, tuple[str, float]]:
  """What an axis of each column says, and what its numbers are multiplied by."""
  return {
    "density": ("density (%)", 100.0),
    "valid_loss": (measures.loss_label("validation loss after training"), 1.0),
    "fitness": ("fitness (minimised)", 1.0),
  }


def is_logarithmic(losses: Sequence[float], measures: Measures) -> bool:
  """Whether an axis of losses is logarithmic: of nats yes; of others where they span a decade, above 0.

  None below 0 has a place on such an axis.
  """
  finite = [loss for loss in losses if np.isfinite(loss)]
  if measures.loss in NATS:
    return min(finite, default=0.0) >= 0
  return bool(finite) and 0 < 10 * min(finite) < max(finite)


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


def evolution_figure(
  history: Sequence[Mapping[str, float]],
  target_density: SupportsFloat | None = None,
  measures: Measures | None = None,
) -> Figure:
  """The paper's Figure 1: density, validation loss and fitness over the generations.

  Each panel shows the genome of lowest fitness of its generation as a line, and the range over the
  population as a band. Diverged genomes are left out of the bands; where some have nearly diverged, which
  would flatten the rest, an axis ends above the line and three quarters of all genomes. Where tickets that
  are too dense count as worse than any other, fitness says little else, and the score is in its place.
  The history of another search is drawn over its iterations or rounds, with the panels that it has figures
  for.

  Args:
    history: rows of a `history.csv`.
    target_density: tau, drawn as a dashed line if given.
    measures: which loss and score the rows have; None is what their columns say.
  """
  columns = evolution_columns(history, of_rows(history) if measures is None else measures)
  figure = Figure(figsize=(4 * len(columns), 3.8), layout="constrained")
  for axes, column in zip(figure.subplots(1, len(columns), squeeze=False)[0], columns, strict=True):
    _draw_evolution(axes, history, column, *columns[column])
    if column == "density" and target_density is not None:
      axes.axhline(100 * float(target_density), color="#444444", linestyle="--", linewidth=1, label="target")
    axes.legend(frameon=False)
  return figure


def evolution_columns(
  history: Sequence[Mapping[str, float]], measures: Measures
) -> dict[str, tuple[str, float]]:
  """The columns that a figure of a history shows, each with its axis and factor; see `evolution_figure`."""
  labels, score = panels(measures), measures.column("valid")
  labels[score] = (measures.score_label("validation", " after training"), measures.factor)
  feasible_first = any(INFEASIBLE <= row.get("fitness", 0.0) < np.inf for row in leaders(history))
  names = ["density", "valid_loss", score if feasible_first else "fitness"]
  return {name: labels[name] for name in names if name in history[0]}


def population_range(
  history: Sequence[Mapping[str, float]], column: str
) -> tuple[list[int], np.ndarray, np.ndarray]:
  """The generations, and the lowest and the highest of a column in each; NaN where none is finite."""
  axis = axis_of(history)
  points = sorted({int(row[axis]) for row in history})
  values, places = (np.asarray([row[name] for row in history]) for name in (column, axis))
  of_points = [values[(places == point) & np.isfinite(values)] for point in points]
  finite = [each if each.size else np.array([np.nan]) for each in of_points]
  return points, np.array([each.min() for each in finite]), np.array([each.max() for each in finite])


def _draw_evolution(
  axes: Axes, history: Sequence[Mapping[str, float]], column: str, label: str, factor: float
) -> None:
  """A panel of `evolution_figure`."""
  axis, of_population = axis_of(history), "genome" in history[0]
  points, lowest, highest = population_range(history, column)
  best = factor * np.asarray([row[column] for row in leaders(history)])
  values = factor * np.asarray([row[column] for row in history])
  if of_population:
    low, high = factor * lowest, factor * highest
    axes.fill_between(points, low, high, color=COLOURS["nets"], alpha=0.2, label="population", linewidth=0)
  marker = "o" if len(points) == 1 else None
  name = "best genome" if of_population else "ticket"
  axes.plot(points, best, color=COLOURS["nets"], label=name, marker=marker, **STYLE)
  if column != "density":
    cut_off(axes, values, float(max(best)))
  label_axes(axes, axis, label)
  whole_numbers(axes.xaxis)


def cut_off(axes: Axes, values: np.ndarray, needed: float) -> None:
  """Ends an axis where `ends` says."""
  if bounds := ends(values, needed):
    axes.set_ylim(*bounds)


def ends(values: np.ndarray, needed: float) -> tuple[float, float] | None:
  """An axis that ends above what is needed and three quarters of the values, if the others are far beyond."""
  finite = values[np.isfinite(values)]
  if finite.size:
    low, top = float(finite.min()), max(float(np.quantile(finite, 0.75)), needed)
    if np.isfinite(top) and 0 < 3 * (top - low) < finite.max() - low:
      return low - 0.05 * (top - low), top + 0.1 * (top - low)
  return None


def ancestry(
  rows: Mapping[Place, Mapping[str, float]], best: Place
) -> tuple[dict[Place, float], list[tuple[Place, Place, float]]]:
  """How much of the best genome comes from each ancestor; and the lines: child, parent, the child's share."""
  shares, lines = {best: 1.0}, []
  for generation in range(best[0], 0, -1):
    for place in [place for place in shares if place[0] == generation]:
      for parent in ("parent_1", "parent_2"):
        origin = (generation - 1, int(rows[place][parent]))
        shares[origin] = shares.get(origin, 0.0) + shares[place] / 2
        lines.append((place, origin, shares[place]))
  return shares, lines


def lineage_figure(
  history: Sequence[Mapping[str, float]], column: str = "density", measures: Measures | None = None
) -> Figure:
  """The ancestors of the best genome among all genomes: by how much of it comes from each.

  A parent is taken to give half of a child, and all of an elite; the area of an ancestor's point is its share
  of the best genome by that reckoning. Genomes that have nearly diverged may be outside.

  Args:
    history: rows of a NeTS `history.csv`.
    column: what to draw over the generations, a column of the history.
    measures: which loss it is; None is what the columns say.
  """
  label, factor = panels(measures or of_rows(history))[column]
  by_place = {(int(row["generation"]), int(row["genome"])): row for row in history}
  best = min(by_place, key=lambda place: by_place[place]["fitness"])
  shares, lines = ancestry(by_place, best)

  def height(place: Place) -> float:
    return factor * by_place[place][column]

  figure = Figure(figsize=(9, 4.2), layout="constrained")
  axes = figure.subplots()
  everywhere = [g for g, _ in by_place], list(map(height, by_place))
  axes.scatter(*everywhere, s=5, color="#c3cad2", linewidths=0, label="population")
  ends = [[(g, height((g, i))) for g, i in pair] for *pair, _ in lines]
  strengths = [min(1, 0.08 + share) for *_, share in lines]
  axes.add_collection(LineCollection(ends, colors=COLOURS["nets"], alpha=strengths, linewidths=0.8))
  axes.scatter(
    [g for g, _ in shares], [height(p) for p in shares], s=[4 + 46 * share for share in shares.values()],
    color=COLOURS["nets"], linewidths=0, alpha=0.8, label="ancestors of the best genome, by share", zorder=3,
  )  # fmt: skip
  cut_off(axes, np.asarray(everywhere[1]), max(map(height, shares)))
  axes.scatter(
    [best[0]], [height(best)], s=90, color=COLOURS["imp"], marker="*", label="best genome", zorder=4
  )
  label_axes(axes, "generation", label)
  whole_numbers(axes.xaxis)
  axes.legend(frameon=False)
  return figure
