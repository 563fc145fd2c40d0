"""Interactive figures of one run, from its files' rows: evolution, trainings, frontier, lineage."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from nets_jax.analysis.frontier_figures import highest_shown
from nets_jax.analysis.history_figures import (
  Place,
  ancestry,
  axis_of,
  ends,
  evolution_columns,
  is_logarithmic,
  leaders,
  panels,
  population_range,
)
from nets_jax.analysis.interactive import (
  BAND,
  Drawing,
  colours_of,
  follow,
  hover,
  limit,
  logarithmic,
  panel,
  source_of,
  take,
)
from nets_jax.analysis.style import COLOURS, TableRow
from nets_jax.analysis.verdicts import minimum
from nets_jax.training.measures import Measures

if TYPE_CHECKING:
  from bokeh.plotting import figure

POPULATION = "#9aa5b1"
MOST_POINTS = 5_000  # of a figure: a page is to stay small


def evolution(history: Sequence[TableRow], target: float | None, measures: Measures) -> Drawing:
  """Density, loss and score over the generations; see `history_figures.evolution_figure`.

  Args:
    history: rows of a `history.csv`.
    target: density that the search aimed at, if any.
    measures: which loss and score the rows have.
  """
  axis, of_population = axis_of(history), "genome" in history[0]
  line = "best genome" if of_population else "ticket"
  legend = {line: COLOURS["nets"]} | ({"population": POPULATION} if of_population else {})
  drawn = []
  for column, (label, factor) in evolution_columns(history, measures).items():
    made = panel(axis, label)
    points, low, high = population_range(history, column)
    if of_population:
      made.varea(points, factor * low, factor * high, fill_color=POPULATION, fill_alpha=2 * BAND,
                 name="population")  # fmt: skip
    best = leaders(history)
    source = take(best, x=(axis, 1.0), y=(column, factor))
    made.line("x", "y", source=source, color=COLOURS["nets"], line_width=2, name=line)
    dots = made.scatter("x", "y", source=source, color=COLOURS["nets"], size=5, name=line)
    hover(made, [dots], {axis: "@x", label: "@y{0.[0000]}"})
    if column == "density" and target is not None:
      legend["target density"] = "#444444"
      made.line([points[0], points[-1]], [100 * target] * 2, color="#444444", line_dash="dashed",
                name="target density")  # fmt: skip
    values = factor * np.asarray([row[column] for row in history])
    if column != "density":
      limit(made.y_range, ends(values, factor * max(float(row[column]) for row in best)))
    drawn.append(made)
  reading = (
    f"The line is the best genome of each {axis}, by fitness; the band is the range over the population."
    if of_population
    else f"The line is the ticket after each {axis} of the search."
  )
  return Drawing("How the search went", reading, drawn, legend)


def training(rows: Sequence[TableRow], measures: Measures) -> Drawing:
  """Loss and score of each network over the final training, with the evaluations of Definition 3.

  Args:
    rows: of a `training.csv`.
    measures: which loss and score the rows have.
  """
  curves: dict[str, list[TableRow]] = {}
  for row in rows:
    curves.setdefault(str(row.get("ticket", "ticket")), []).append(row)
  legend, drawn = colours_of(curves), []
  shown = (
    ("valid_loss", measures.loss_label("validation loss"), 1.0),
    ("test_loss", measures.loss_label("test loss"), 1.0),
    (measures.column("valid"), measures.score_label("validation"), measures.factor),
    (measures.column("test"), measures.score_label("test"), measures.factor),
  )
  for column, label, factor in shown:
    if column not in rows[0]:
      continue
    is_log = column.endswith("_loss") and is_logarithmic([row[column] for row in rows], measures)
    made = panel("training epoch", label, y_axis="log" if is_log else "linear")
    _draw_curves(made, curves, legend, column, factor)
    if not column.endswith("_loss"):
      limit(made.y_range, _later_scores(curves.values(), column, factor))
    drawn.append(made)
  return Drawing(
    "Training, from the ticket's own weights",
    "Each line is one network, trained alike. A diamond is where its validation loss was lowest: the "
    "evaluation that the verdict looks at. What lies beyond a panel is of a training's first half.",
    drawn,
    legend,
  )


def _later_scores(
  curves: Iterable[Sequence[TableRow]], column: str, factor: float
) -> tuple[float, float] | None:
  """An axis of the later half of all trainings and of their lowest losses, if the rest is far beyond."""
  curves = list(curves)
  scores = np.asarray([factor * row[column] for curve in curves for row in curve], float)
  later = np.asarray(
    [factor * row[column] for curve in curves for row in (*curve[len(curve) // 2 :], minimum(curve))], float
  )
  scores, later = scores[np.isfinite(scores)], later[np.isfinite(later)]
  if not later.size or (way := later.max() - later.min()) <= 0 or 3 * way > scores.max() - scores.min():
    return None
  return later.min() - 0.1 * way, later.max() + 0.1 * way


def _draw_curves(
  made: "figure",
  curves: Mapping[str, Sequence[TableRow]],
  colours: Mapping[str, str],
  column: str,
  factor: float,
) -> None:
  """A line for each network, and where its validation loss was lowest."""
  dots = []
  for name, curve in curves.items():
    named = [{**row, "ticket": name} for row in curve]
    source = take(named, x=("epoch", 1.0), iteration=("iteration", 1.0), name="ticket", y=(column, factor))
    dots.append(follow(made, source, colours[name], name))
    lowest = take([minimum(curve)], x=("epoch", 1.0), y=(column, factor))
    made.scatter("x", "y", source=lowest, marker="diamond", size=12, color=colours[name], name=name)
  hover(made, dots, {"network": "@name", "epoch": "@x (iteration @iteration{0,0})", "value": "@y{0.[0000]}"})


def thinned(rows: Sequence[TableRow]) -> Sequence[TableRow]:
  """Every so many of some rows, `MOST_POINTS` at most."""
  return rows[:: max(1, -(-len(rows) // MOST_POINTS))]


def frontier(history: Sequence[TableRow], kept: Sequence[TableRow], measures: Measures) -> Drawing:
  """All genomes by density and validation loss, and those that none dominates.

  Args:
    history: rows of a `history.csv`.
    kept: rows of a `frontier.csv`.
    measures: which loss the rows have.
  """
  from bokeh.transform import linear_cmap

  sound = [row for row in history if np.isfinite(row["valid_loss"]) and row["density"] > 0]
  losses = [row["valid_loss"] for row in sound]
  is_log = is_logarithmic(losses, measures) and min(losses) > 0
  label = panels(measures)["valid_loss"][0]
  made = panel("density (%)", label, x_axis="log", y_axis="log" if is_log else "linear")
  logarithmic(made.xaxis[0], 100 * min(row["density"] for row in sound), 100.0)
  needed = max(row["valid_loss"] for row in kept)
  if is_log:
    top = highest_shown(losses, needed, measures)
    limit(made.y_range, (0.9 * min(losses), 1.1 * top))
    logarithmic(made.yaxis[0], min(losses), top)
  else:
    limit(made.y_range, ends(np.asarray(losses), needed))
  last = max(row["generation"] for row in sound)
  columns = {"x": ("density", 100.0), "y": ("valid_loss", 1.0), "generation": ("generation", 1.0)}
  colour = linear_cmap("generation", "Viridis256", last, 0)
  every = made.scatter("x", "y", source=take(thinned(sound), **columns), color=colour, size=5, alpha=0.7,
                       name="every genome")  # fmt: skip
  source = take(kept, **columns, file="file")
  made.step("x", "y", source=source, color=COLOURS["imp"], mode="after", name="dominated by none")
  best = made.scatter("x", "y", source=source, color=COLOURS["imp"], size=8, name="dominated by none")
  told = {"density": "@x{0.[00]} %", label: "@y{0.[0000]}", "generation": "@generation"}
  hover(made, [every], told)
  hover(made, [best], {"file": "@file", **told})
  return Drawing(
    "The frontier of density and loss",
    f"Each point is a genome, {MOST_POINTS:,} of them at most, yellow early and dark late in the search. "
    "No genome is both sparser and better than a red one; its ticket is in frontier/.",
    [made],
    {"every genome": "#35b779", "dominated by none": COLOURS["imp"]},
  )


def lineage(history: Sequence[TableRow], best: Place, measures: Measures) -> Drawing:
  """The ancestors of the best genome; see `history_figures.lineage_figure`.

  Args:
    history: rows of a `history.csv` with parents.
    best: generation and index of the genome.
    measures: which loss the rows have.
  """
  by_place = {(int(row["generation"]), int(row["genome"])): row for row in history}
  shares, lines = ancestry(by_place, best)
  lines = sorted(lines, key=lambda line: -line[2])[:MOST_POINTS]
  shares = dict(sorted(shares.items(), key=lambda item: -item[1])[:MOST_POINTS])
  column = "valid_loss"
  label, factor = panels(measures)[column]
  made = panel("generation", label)
  every = take(thinned(history), x=("generation", 1.0), y=(column, factor))
  made.scatter("x", "y", source=every, size=4, color="#c3cad2", name="population")

  def heights(places: Sequence[Place]) -> list[float]:
    return [factor * by_place[place][column] for place in places]

  children, parents = [child for child, _, _ in lines], [parent for _, parent, _ in lines]
  alphas = [min(1.0, 0.08 + share) for *_, share in lines]
  made.segment(
    x0=[g for g, _ in children], y0=heights(children), x1=[g for g, _ in parents], y1=heights(parents),
    line_alpha=alphas, color=COLOURS["nets"], name="ancestors",
  )  # fmt: skip
  places = sorted(shares)
  source = source_of(
    x=[g for g, _ in places], genome=[i for _, i in places], y=heights(places),
    share=[100 * shares[place] for place in places], size=[4 + 7 * shares[place] ** 0.5 for place in places],
    density=[100 * by_place[place]["density"] for place in places],
  )  # fmt: skip
  dots = made.scatter(
    "x", "y", size="size", color=COLOURS["nets"], alpha=0.8, name="ancestors", source=source
  )
  star = {"marker": "star", "size": 16, "color": COLOURS["imp"], "name": "best genome"}
  made.scatter([best[0]], heights([best]), **star)
  told = {"generation": "@x, genome @genome", "share": "@share{0.0} %", "density": "@density{0.0} %"}
  hover(made, [dots], told | {label: "@y{0.[0000]}"})
  limit(made.y_range, ends(np.asarray(heights(list(by_place))), max(heights(places))))
  legend = {"best genome": COLOURS["imp"], "ancestors": COLOURS["nets"], "population": "#c3cad2"}
  return Drawing(
    "Where the best genome comes from",
    "Lines go from each ancestor to its children. A larger point gave more of the best genome, if a parent "
    "gives half of a child.",
    [made],
    legend,
  )
