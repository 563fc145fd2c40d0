"""Interactive figures over density: what methods reach, at what cost, how they differ, how they train."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nets_jax.analysis.density_figures import dense_methods, mean_score
from nets_jax.analysis.interactive import (
  Drawing,
  bars,
  colours_of,
  follow,
  hover,
  logarithmic,
  panel,
  source_of,
)
from nets_jax.analysis.interactive_studies import draw_means
from nets_jax.analysis.style import TableRow
from nets_jax.training.measures import Measures

if TYPE_CHECKING:
  from bokeh.models import ColumnDataSource
  from bokeh.plotting import figure

FIT = "The axis fits what is switched on."
DENSE = "Dashed lines are dense networks."


def over_density(rows: Sequence[TableRow], measures: Measures) -> Drawing:
  """Test score over density: each ticket, and the mean of each method with its interval.

  Args:
    rows: of tickets: `method`, `density`, the score, and `target_density` where there is one.
    measures: which score the rows have.
  """
  legend, whole = colours_of(row["method"] for row in rows), _whole(rows)
  made = panel("density (%)", measures.score_label("test"), x_axis="log")
  sparse = [row for row in rows if row["method"] not in whole] or list(rows)
  low, high = (100 * bound(row["density"] for row in sparse) for bound in (min, max))
  logarithmic(made.xaxis[0], low, high)
  dots = []
  for method, colour in legend.items():
    own = [row for row in rows if row["method"] == method]
    if method in whole and len(sparse) < len(rows):
      mean, _ = mean_score(own, measures)
      _across(made, low, high, mean, colour, method)
      continue
    dots.append(made.scatter("x", "y", source=_points(own, "density", 100.0, measures), size=6, color=colour,
                             alpha=0.45, name=method))  # fmt: skip
    draw_means(made, [_mean(group, "density", 100.0, measures) for group in _groups(own)], colour, method)
  hover(made, dots, {"": "@name", "density": "@x{0.[00]} %", "score": "@y{0.[00]}", "trial": "@trial"})
  reading = (
    "Small points are tickets, large ones their means, with 95 % intervals of three or more. "
    + (f"{DENSE} " if whole and len(sparse) < len(rows) else "")
    + (FIT if len(legend) > 1 else "")
  ).strip()  # fmt: skip
  return Drawing(f"Test {measures.words} over density", reading, [made], legend)


def over_cost(rows: Sequence[TableRow], measures: Measures) -> Drawing:
  """Test score over the genome-epochs of search, a panel for each density.

  Args:
    rows: as above, with `search_epochs`.
    measures: which score the rows have.
  """
  legend, whole = colours_of(row["method"] for row in rows), _whole(rows)
  below = sorted({row["target_density"] for row in rows if row.get("target_density", 1) < 1}, reverse=True)
  drawn = []
  for density in below or [None]:
    shown = [
      row for row in rows if density is None or row["target_density"] == density or row["method"] in whole
    ]
    at = "" if density is None else f" at {100 * density:g} %"
    # One more, for a logarithm has no place for the methods that search nothing.
    made = panel("1 + genome-epochs of search", measures.score_label("test", at), x_axis="log")
    most = max([row["search_epochs"] for row in shown], default=0.0)
    logarithmic(made.xaxis[0], 1.0, max(10.0, 1 + most))
    dots = []
    for method, colour in legend.items():
      own = [{**row, "cost": 1 + row["search_epochs"]} for row in shown if row["method"] == method]
      if own and method in whole and len(shown) > len(own):
        _across(made, 1.0, max(10.0, 1 + most), mean_score(own, measures)[0], colour, method)
      elif own:
        source = _points(own, "cost", 1.0, measures)
        dots.append(made.scatter("x", "y", source=source, size=6, color=colour, alpha=0.45, name=method))
        draw_means(made, [_mean(own, "cost", 1.0, measures)], colour, method)
    hover(
      made, dots, {"": "@name", "genome-epochs": "@epochs{0,0}", "score": "@y{0.[00]}", "trial": "@trial"}
    )
    drawn.append(made)
  reading = "Further left is a cheaper search, higher a better ticket."
  if not measures.more_is_better:
    reading = "Further left is a cheaper search, lower a better ticket."
  return Drawing(
    f"Test {measures.words} over the cost of the search",
    f"{reading} {DENSE if whole else ''}".strip(),
    drawn,
    legend,
  )


def differences(rows: Sequence[TableRow], measures: Measures) -> Drawing:
  """What methods differ by from one of them, at each density, with 95 % intervals.

  Args:
    rows: `method`, `reference`, `target_density`, `difference`, `half_width`.
    measures: which score it is.
  """
  legend = colours_of(row["method"] for row in rows)
  label = f"test {measures.words} less that of {rows[0]['reference']}" + (
    " (points)" if measures.is_share else ""
  )
  made = panel("density (%)", label, x_axis="log")
  places = [100 * row["target_density"] for row in rows]
  logarithmic(made.xaxis[0], min(places), max(places))
  made.line([0.9 * min(places), 1.1 * max(places)], [0, 0], color="#39424e", line_width=1)
  dots = []
  for i, (method, colour) in enumerate(legend.items()):
    own = sorted((row for row in rows if row["method"] == method), key=lambda row: row["target_density"])
    shift = 1 + 0.012 * (i - (len(legend) - 1) / 2)  # so that bars do not hide one another
    x = [100 * row["target_density"] * shift for row in own]
    y, half = [row["difference"] for row in own], [row["half_width"] for row in own]
    density = [100 * row["target_density"] for row in own]
    source = source_of(x=x, y=y, half=half, density=density, name=[method] * len(own))
    bars(made, x, y, half, colour, method)
    made.line("x", "y", source=source, color=colour, line_width=1.4, alpha=0.6, name=method)
    dots.append(made.scatter("x", "y", source=source, color=colour, size=8, name=method))
  hover(
    made, dots, {"": "@name", "density": "@density{0.[00]} %", "difference": "@y{+0.[00]} ± @half{0.[00]}"}
  )
  reading = (
    "A bar that does not reach the line at 0 is a difference that is told from chance, at 95 %. " + FIT
  )
  return Drawing(f"Differences from {rows[0]['reference']}, paired by trial", reading, [made], legend)


def at_densities(rows: Sequence[TableRow], measures: Measures) -> Drawing:
  """Mean test score over the epochs of the final training, a panel for each density.

  Args:
    rows: of curves: `method`, `target_density`, `trial`, `epoch`, and the score.
    measures: which score the rows have.
  """
  legend, whole = colours_of(row["method"] for row in rows), _whole(rows)
  densities = sorted({row["target_density"] for row in rows if row["target_density"] < 1}, reverse=True) or [
    1.0
  ]
  drawn = []
  for density in densities:
    shown = [row for row in rows if row["target_density"] == density or row["method"] in whole]
    made, dots = panel("training epoch", measures.score_label("test", f" at {100 * density:g} %")), []
    for method, colour in legend.items():
      by_epoch: dict[float, list[float]] = {}
      for row in shown:
        if row["method"] == method:
          by_epoch.setdefault(row["epoch"], []).append(measures.factor * row[measures.column("test")])
      if by_epoch:
        x = sorted(by_epoch)
        y = [sum(by_epoch[epoch]) / len(by_epoch[epoch]) for epoch in x]
        source = source_of(x=x, y=y, name=[method] * len(x))
        dots.append(follow(made, source, colour, method, "dashed" if method in whole else "solid"))
    hover(made, dots, {"": "@name", "epoch": "@x", "mean": "@y{0.[00]}"})
    drawn.append(made)
  return Drawing(
    "The final trainings",
    f"Each line is the mean of a method's tickets. {DENSE if whole else ''}".strip(),
    drawn,
    legend,
  )


def _whole(rows: Sequence[TableRow]) -> set[str]:
  """The methods without a sparse ticket; of rows without targets those whose densities are 1."""
  return dense_methods([{"target_density": row.get("density", 1.0), **row} for row in rows])


def _groups(rows: Sequence[TableRow]) -> list[list[TableRow]]:
  """The rows of each target density; all together where they have none."""
  found: dict[object, list[TableRow]] = {}
  for row in rows:
    found.setdefault(row.get("target_density"), []).append(row)
  return list(found.values())


def _points(rows: Sequence[TableRow], column: str, factor: float, measures: Measures) -> "ColumnDataSource":
  return source_of(
    x=[factor * row[column] for row in rows],
    y=[measures.factor * row[measures.column("test")] for row in rows],
    name=[str(row["method"]) for row in rows],
    trial=[f"{row['trial']:g}" for row in rows],
    epochs=[float(row.get("search_epochs", math.nan)) for row in rows],
  )


def _mean(
  rows: Sequence[TableRow], column: str, factor: float, measures: Measures
) -> tuple[float, float, float]:
  """Where the mean of some rows is drawn, it, and its interval."""
  return (factor * sum(row[column] for row in rows) / len(rows), *mean_score(rows, measures))


def _across(made: "figure", low: float, high: float, height: float, colour: str, name: str) -> None:
  """A dashed line for a dense network."""
  made.line([low, high], [height, height], color=colour, line_dash="dashed", line_width=1.4, name=name)


def tuning(rows: Sequence[TableRow], measures: Measures) -> Drawing:
  """Validation score of every setting that was tried, by method, the chosen one marked.

  Args:
    rows: of `tuning.csv`: `method`, `round`, `chosen`, the score, and `tuned_settings`.
    measures: which score the rows have.
  """
  methods = list(dict.fromkeys(str(row["method"]) for row in rows))
  made = panel("", measures.score_label("validation"), factors=methods)
  colours: Mapping[str, str] = {"tried": "#9aa5b1", "chosen": "#c0392b"}
  for name, colour in colours.items():
    own = [row for row in rows if bool(row["chosen"]) == (name == "chosen")]
    source = source_of(
      x=[methods.index(str(row["method"])) + (0.4 if row["round"] == 1 else 0.6) for row in own],
      y=[measures.factor * row[measures.column("valid")] for row in own],
      method=[str(row["method"]) for row in own],
      settings=[str(row.get("tuned_settings", "")) for row in own],
      round=[f"{row['round']:g}" for row in own],
    )
    dots = made.scatter("x", "y", source=source, color=colour, alpha=0.7, size=8, name=name)
    hover(made, [dots], {"": "@method", "settings": "@settings", "round": "@round", "score": "@y{0.[00]}"})
  rounds = ": left the first round, right the second" if any(row["round"] == 2 for row in rows) else ""
  reading = f"Each point is a run of the tuning{rounds}. The chosen setting is red."
  return Drawing("What tuning tried", reading, [made], colours)
