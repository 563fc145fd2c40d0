"""Interactive figures of several runs: over generations, seconds and epochs, and by what was varied."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from nets_jax.analysis.history_figures import ends, evolution_columns, is_logarithmic
from nets_jax.analysis.interactive import (
  Drawing,
  bars,
  colours_of,
  follow,
  hover,
  limit,
  panel,
  source_of,
  step_of,
  words,
)
from nets_jax.analysis.intervals import mean_and_interval
from nets_jax.analysis.style import TableRow
from nets_jax.training.measures import Measures

if TYPE_CHECKING:
  from bokeh.plotting import figure

BARS = "Points are runs; the larger mark is their mean, with its 95 % interval of three or more."
BETWEEN = 0.28  # of the way between two words of an axis, that points are spread over


def trials(rows: Sequence[TableRow], measures: Measures) -> Drawing:
  """The best genome of each generation, a line for each method and trial.

  Args:
    rows: of `figure1.csv`: `method`, `trial`, `generation`, `density`, `valid_loss`, `fitness`.
    measures: which loss the rows have.
  """
  legend, drawn = colours_of(row["method"] for row in rows), []
  for column, (label, factor) in evolution_columns(rows, measures).items():
    made = panel("generation", label)
    _draw_trials(made, rows, legend, "generation", (column, factor))
    values = factor * np.array([row[column] for row in rows], float)
    finite = values[np.isfinite(values)]
    if column != "density" and finite.size:
      limit(made.y_range, ends(values, float(np.quantile(finite, 0.75))))
    drawn.append(made)
  reading = "Each line is one run: the best genome of its population, by fitness."
  return Drawing("How the searches went", reading, drawn, legend)


def seconds(rows: Sequence[TableRow], measures: Measures) -> Drawing:
  """Validation loss and density against wall-clock time, search then training.

  Args:
    rows: of `figure2.csv`: `method`, `trial`, `stage`, `seconds`, `valid_loss`, `density`.
    measures: which loss the rows have.
  """
  legend, drawn = colours_of(row["method"] for row in rows), []
  shown = (("valid_loss", measures.loss_label("validation loss"), 1.0), ("density", "density (%)", 100.0))
  for column, label, factor in shown:
    is_log = column == "valid_loss" and _is_log([row[column] for row in rows], measures)
    made = panel("wall-clock time of one run (s)", label, y_axis="log" if is_log else "linear")
    for stage, dash in (("search", "solid"), ("training", "dotted")):
      own = [row for row in rows if row["stage"] == stage]
      _draw_trials(made, own, legend, "seconds", (column, factor), dash)
    drawn.append(made)
  reading = "Each line is one run: solid while it searches, dotted while its ticket trains."
  return Drawing("Loss and density over time", reading, drawn, legend)


def training(rows: Sequence[TableRow], measures: Measures) -> Drawing:
  """Mean test loss and score of each method over the epochs of the final training.

  Args:
    rows: of `figure3.csv`: `method`, `trial`, `epoch`, `test_loss`, and the score.
    measures: which loss and score the rows have.
  """
  legend, drawn = colours_of(row["method"] for row in rows), []
  shown = (
    ("test_loss", measures.loss_label("test loss"), 1.0),
    (measures.column("test"), measures.score_label("test"), measures.factor),
  )
  for column, label, factor in shown:
    is_log = column == "test_loss" and _is_log([row[column] for row in rows], measures)
    made = panel("training epoch", label, y_axis="log" if is_log else "linear")
    _draw_means(made, rows, legend, column, factor)
    drawn.append(made)
  reading = (
    "Each line is the mean of a method's runs after each epoch; the band is from the lowest to the highest."
  )
  return Drawing("The final trainings", reading, drawn, legend)


def _is_log(losses: Sequence[float], measures: Measures) -> bool:
  finite = [loss for loss in losses if math.isfinite(loss)]
  return bool(finite) and min(finite) > 0 and is_logarithmic(losses, measures)


def _draw_means(
  made: "figure", rows: Sequence[TableRow], colours: Mapping[str, str], column: str, factor: float
) -> None:
  """A line of means for each method, over the epochs that all of its runs have."""
  dots = []
  for method, colour in colours.items():
    by_epoch: dict[float, list[float]] = {}
    for row in rows:
      if row["method"] == method:
        by_epoch.setdefault(row["epoch"], []).append(factor * row[column])
    most = max(map(len, by_epoch.values()), default=0)
    epochs = sorted(epoch for epoch, own in by_epoch.items() if len(own) == most)
    found = [by_epoch[epoch] for epoch in epochs]
    means = [sum(own) / len(own) for own in found]
    if most > 1:
      made.varea(epochs, list(map(min, found)), list(map(max, found)), fill_color=colour, fill_alpha=0.13,
                 name=method)  # fmt: skip
    names, runs = [method] * len(epochs), list(map(len, found))
    dots.append(follow(made, source_of(x=epochs, y=means, name=names, runs=runs), colour, method))
  hover(made, dots, {"": "@name", "epoch": "@x", "mean": "@y{0.[0000]} of @runs"})


def _draw_trials(
  made: "figure", rows: Sequence[TableRow], colours: Mapping[str, str], x: str, y: tuple[str, float],
  dash: str = "solid",
) -> None:  # fmt: skip
  """A line for each run; of a method they are one renderer, with a gap from run to run."""
  lines: dict[str, dict[float, list[TableRow]]] = {}
  for row in rows:
    lines.setdefault(row["method"], {}).setdefault(row["trial"], []).append(row)
  dots, (column, factor) = [], y
  for method, runs in lines.items():
    xs: list[float] = []
    ys: list[float] = []
    told: list[str] = []
    for trial, own in runs.items():
      xs += [*(float(row[x]) for row in own), math.nan]
      ys += [*(factor * float(row[column]) for row in own), math.nan]
      told += [f"{trial:g}"] * (len(own) + 1)
    source = source_of(x=xs, y=ys, trial=told, name=[method] * len(xs))
    dots.append(follow(made, source, colours[method], method, dash, 0.75))
  hover(made, dots, {"": "@name", "trial": "@trial", x: "@x{0.[0]}", "value": "@y{0.[0000]}"})


def effects(rows: Sequence[TableRow], names: Sequence[str], measures: Measures) -> list[Drawing]:
  """What each hyperparameter does to the loss and the score, a figure for each.

  Args:
    rows: of a sweep's `results.csv`.
    names: of the columns that were varied.
    measures: which loss and score the rows have.
  """
  shown = (
    ("valid_loss", measures.loss_label("validation loss"), 1.0),
    (measures.column("test"), measures.score_label("test"), measures.factor),
    ("fitness", "fitness (minimised)", 1.0),
    ("density", "density (%)", 100.0),
  )
  able = [
    (c, label, f) for c, label, f in shown if c in rows[0] and any(math.isfinite(row[c]) for row in rows)
  ][:3]
  found = []
  for name in names:
    drawn = [by_value(rows, name, column, label, factor) for column, label, factor in able]
    together = " Of hyperparameters that were varied together all runs are shown." if len(names) > 1 else ""
    found.append(Drawing(f"What {name} does", BARS + together, drawn))
  return found


def over_controls(rows: Sequence[TableRow], measures: Measures) -> Drawing:
  """The test score of each ticket and of its controls.

  Args:
    rows: of `controls.csv`: `control`, `run` and the score.
    measures: which score the rows have.
  """
  label = measures.score_label("test")
  made = by_value(rows, "control", measures.column("test"), label, measures.factor)
  return Drawing("What a ticket's worth is owed to", BARS, [made])


def by_value(
  rows: Sequence[TableRow], name: str, column: str, label: str, factor: float, colour: str = "#1f5fa8"
) -> "figure":
  """A column of some rows over the values of another, numbers or words.

  Args:
    rows: of a table.
    name: of the column of values.
    column: of what is shown over them.
    label: what its axis says.
    factor: what it is multiplied by.
    colour: of the points.
  """
  values = list(dict.fromkeys(row[name] for row in rows))
  are_words = not all(isinstance(value, float | int) and math.isfinite(value) for value in values)
  if are_words:
    factors = list(
      dict.fromkeys(_word(value) for value in values)
    )  # NaN is no NaN, and bokeh wants each once
    made, places = panel(name, label, factors=factors), {word: i + 0.5 for i, word in enumerate(factors)}
  else:
    made = panel(name, label, x_axis=step_of(values) if min(values) > 0 else "linear")
    places = {_word(value): value for value in values}
  groups = {_word(value): [row for row in rows if _word(row[name]) == _word(value)] for value in values}
  dots, means = [], []
  for value, own in groups.items():
    sound = [row for row in own if math.isfinite(row[column])]
    if not sound:
      continue
    numbers, count = [factor * row[column] for row in sound], len(sound)
    spread = [BETWEEN * ((i + 0.5) / count - 0.5) if are_words and count > 1 else 0.0 for i in range(count)]
    x, told = [places[value] + shift for shift in spread], [str(row.get("run", "")) for row in sound]
    source = source_of(x=x, y=numbers, value=[value] * count, run=told)
    dots.append(made.scatter("x", "y", source=source, size=6, color=colour, alpha=0.45))
    mean, half = mean_and_interval(numbers)
    means.append((places[value], mean, half if count > 2 else 0.0))
  hover(made, dots, {words(name): "@value", "": "@y{0.[0000]}", "run": "@run"})
  draw_means(made, means, colour, joined=not are_words)
  return made


def draw_means(
  made: "figure",
  means: Sequence[tuple[float, float, float]],
  colour: str,
  name: str | None = None,
  joined: bool = True,
) -> None:
  """Means with their intervals as bars, and a line from one to the next.

  Args:
    made: the panel.
    means: of each its place, itself, and the half-width of its interval.
    colour: of all.
    name: in the legend.
    joined: whether there is a line.
  """
  found = sorted(means)
  if not found:
    return
  x, y, half = (list(column) for column in zip(*found, strict=True))
  bars(made, x, y, half, colour, name)
  if joined and len(x) > 1:
    made.line(x, y, line_width=1.8, color=colour, name=name)
  made.scatter(x, y, size=10, marker="circle" if joined else "diamond", color=colour, name=name)


def _word(value: object) -> str:
  """A value of a hyperparameter as an axis shows it; a dash where it was not drawn."""
  if isinstance(value, float):
    return "-" if math.isnan(value) else f"{value:g}"
  return words(str(value))
