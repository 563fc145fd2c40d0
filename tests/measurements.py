"""What the pages tell of measurements, and what the results' files make of it: for the tests of both."""

import pathlib
import re

import pandas as pd

from nets_jax.analysis.intervals import mean_and_interval

ROOT = pathlib.Path(__file__).parent.parent
RESULTS = ROOT / "experiments/results"
PAGES = {path.name: path.read_text() for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
DENSITIES = {"10 %": 0.1, "5 %": 0.05, "2 %": 0.02, "1 %": 0.01, "0.5 %": 0.005}
# Pages whose numbers are settings, sizes, versions or equations, not measurements.
NOT_MEASURED = {
  "algorithm.md", "dependencies.md", "flags.md", "recipes.md", "running.md", "training.md",
  "troubleshooting.md", "zoo.md",
}  # fmt: skip
HALF_A_PERCENT = re.compile(r"(?<![\d.])0\.5 %")  # a density
# How a row of a page begins, and what the studies' tables call that method.
METHODS = {
  "guided NeTS": "guided",
  "IMP, cycles of five": "imp_5_global",
  "IMP, cycles of ten": "imp_10",
  "gradual pruning": "gradual",
  "SNIP": "snip",
  "SynFlow": "synflow",
  "random, by ERK": "erk",
  "`halved`": "guided_halved",
  "dense, 100 %": "dense",
}


def rows_of(study):
  """The rows of a study's table, one for each ticket."""
  rows = pd.read_csv(RESULTS / study / "densities.csv")
  return rows.set_index(["method", "target_density", "trial"]).sort_index()


def percent(values, sign=""):
  """Mean and 95 % interval in percent or points, as the pages write them; no -0.0."""
  mean, half = (round(100 * float(value), 1) for value in mean_and_interval(list(values)))
  return f"{mean + 0.0:{sign if mean else ''}.1f} ± {half:.1f}"


def paired(first, second):
  """Mean and 95 % interval of what the first is above the second, in points, by the trials that both have."""
  common = first.index.intersection(second.index)
  return percent(first[common] - second[common], "+")


def prose(text):
  """A page without its code and tables, on one line, without emphasis."""
  text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
  lines = [line for line in text.splitlines() if not line.startswith(("|", "    "))]
  return " ".join(" ".join(lines).replace("**", "").split())


def tables_of(text):
  """The tables of a page: for each the cells of its head, and those of its rows, without emphasis."""
  for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
    lines = [[cell.strip(" *") for cell in line.strip().strip("|").split("|")] for line in block.splitlines()]
    if len(lines) > 2 and set("".join(lines[1])) <= set("-: "):
      yield lines[0], lines[2:]


def by_density(head, rows, of):
  """The cells of a table of methods by density, each beside what `of` makes of method and density."""
  for name, *cells in rows:
    method = next(method for begin, method in METHODS.items() if name.startswith(begin))
    for title, cell in zip(head[1:], cells, strict=True):
      if title in DENSITIES and cell:
        yield f"{name}, {title}", cell, of(method, DENSITIES[title])


def accuracies(study):
  """Of method and density: test accuracy, mean and interval."""
  rows = rows_of(study).test_accuracy

  def of(method, density):
    return f"{percent(rows[method, 1.0 if method == 'dense' else density])} %"

  return of


def differences(study, to="guided"):
  """Of method and density: the paired difference from another method's test accuracy."""
  rows = rows_of(study).test_accuracy

  def of(method, density):
    return paired(rows[method, 1.0 if method == "dense" else density], rows[to, density])

  return of


def epochs(study, method):
  """The genome-epochs of a method's searches: one number, or from the least to the most."""
  own = rows_of(study).search_epochs[method].groupby("target_density").mean().round().astype(int)
  return str(own.min()) if own.nunique() == 1 else f"{own.min()} to {own.max()}"


def table_with(page, *words):
  """The one table of a page whose head has these words."""
  found = [table for table in tables_of(PAGES[page]) if all(word in " | ".join(table[0]) for word in words)]
  assert len(found) == 1, [table[0] for table in found]
  return found[0]


def benchmark_of(name):
  """Seconds and ratios of a benchmark's parts."""
  return pd.read_csv(RESULTS / name / "benchmark.csv").set_index("name")
