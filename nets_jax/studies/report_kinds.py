"""What the page of each kind of study shows of its own: the line that a reader looks for, and its figures."""

import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from nets_jax.analysis import interactive_densities, interactive_studies
from nets_jax.analysis.page import Part
from nets_jax.engine.tables import Row
from nets_jax.studies import tables
from nets_jax.studies.best import best_setting, certainty, metric_of
from nets_jax.studies.frontier_tables import differences
from nets_jax.studies.report_parts import read_rows, read_text
from nets_jax.studies.run_files import TRAINING
from nets_jax.studies.sweeps import setting_rows
from nets_jax.training.measures import Measures

RUNS = "runs"
MOST_RUNS = 400  # whose curves a page has
MOST_LINES = 24  # in a figure


class Study(NamedTuple):
  """What a page is made of.

  Attributes:
    where: the directory.
    results: a row for each run.
    measures: which loss and score they have.
    settings: that decide it, and those that were given, by name.
  """

  where: pathlib.Path
  results: pd.DataFrame
  measures: Measures
  settings: Mapping[str, object]

  @property
  def trained(self) -> list[Row]:
    """The rows of the tickets that were trained and have not diverged."""
    return tables.rows_of(tables.trained(self.results))

  @property
  def varied(self) -> list[str]:
    """Of a sweep's results the columns of what was varied."""
    names = list(self.results.columns)
    return names[1 : names.index("seed")] if "seed" in names else []

  def file(self, name: str, *needed: str) -> list[Row]:
    """The rows of another table of the directory, if there is one with these columns."""
    rows = read_rows(self.where / name, needed)
    return [{**row, "method": str(row["method"])} if "method" in row else row for row in rows]


class Kind(NamedTuple):
  """A kind of study.

  Attributes:
    table: the file that has a row for each run.
    text: that of its printed tables.
    command: that makes it.
    title: what it is.
    best: what comes out, a line each.
    figures: by heading.
  """

  table: str
  text: str
  command: str
  title: str
  best: Callable[[Study], list[str]]
  figures: Callable[[Study], Mapping[str, Sequence[Part]]]


def _best_method(study: Study) -> list[str]:
  """The sparse methods of the best mean score on validation examples, at each density."""
  column, measures = study.measures.column("valid"), study.measures
  rows = [row for row in study.trained if row["density"] < 1]
  lines = []
  for target in sorted({row.get("target_density", 0.0) for row in rows}, reverse=True):
    own = [row for row in rows if row.get("target_density", 0.0) == target]
    scores: dict[str, list[float]] = {}
    for row in own:
      scores.setdefault(row["method"], []).append(row[column])
    best = min(scores, key=lambda name: measures.sign * sum(scores[name]) / len(scores[name]))
    at = f" at {100 * target:g} %" if target else ""
    lines.append(f"{best}{at} ({tables.spread(scores[best], measures.form)})")
  return (
    [f"Best mean validation {measures.words} of the sparse tickets: {', '.join(lines)}."] if lines else []
  )


def _winners(study: Study, text: str) -> list[str]:
  """How many tickets win by Definition 3, of the lines of a study's text that say so."""
  lines = re.findall(
    r"^(?:- |Definition 3 against )(.+): (\d+ of \d+) win: ", read_text(study.where / text), re.MULTILINE
  )
  told = ", ".join(f"{name} ({count})" for name, count in lines)
  return [f"Winning tickets by Definition 3 of the paper: {told}."] if told else []


def _best_setting(study: Study) -> list[str]:
  """A sweep's best setting, and how certain that is."""
  varied, measures = study.varied, study.measures
  rows = setting_rows(study.results, varied, measures)
  asked = study.settings.get("best_by")
  index, metric = best_setting(rows, metric_of(str(asked) if asked else None, measures), measures)
  if index is None:
    return ["No setting came through with every run."]
  values = ", ".join(f"{name}={rows[name].iloc[index]}" for name in varied) or "the only one"
  told = certainty(study.results, rows, varied, index, metric, measures)
  return [f"Best setting by {metric}: {values}.", f"{told[0].upper()}{told[1:]}."]


def _comparison(study: Study) -> Mapping[str, Sequence[Part]]:
  rows, measures = study.trained, study.measures
  first = study.file("figure1.csv", "method", "trial", "generation", "density")
  second = study.file("figure2.csv", "method", "trial", "stage", "seconds", "valid_loss", "density")
  third = study.file("figure3.csv", "method", "trial", "epoch", "test_loss", measures.column("test"))
  return {
    "Accuracy and cost" if measures.score == "accuracy" else "Score and cost": _over(study, rows),
    "Searches": [interactive_studies.trials(first, measures)] if first else [],
    "Time": [interactive_studies.seconds(second, measures)] if second else [],
    "Training": [interactive_studies.training(third, measures)] if third else [],
  }


def _over(study: Study, rows: Sequence[Row]) -> list[Part]:
  """Scores over density and cost."""
  if not rows:
    return []
  found: list[Part] = [interactive_densities.over_density(rows, study.measures)]
  if "search_epochs" in rows[0]:
    found.append(interactive_densities.over_cost(rows, study.measures))
  return found


def _densities(study: Study) -> Mapping[str, Sequence[Part]]:
  measures, sound = study.measures, tables.trained(study.results)
  found = tables.rows_of(differences(sound, measures)) if len(sound) else []
  curves = _curves(study, ("method", "target_density", "trial"))
  return {
    "Accuracy and cost" if measures.score == "accuracy" else "Score and cost": _over(study, study.trained),
    "Differences": [interactive_densities.differences(found, measures)] if found else [],
    "Training": [interactive_densities.at_densities(curves, measures)] if curves else [],
  }


def _sweep(study: Study) -> Mapping[str, Sequence[Part]]:
  measures, rows = study.measures, tables.rows_of(tables.sound(study.results))
  named = [{**row, "method": _setting_name(study, row), "trial": row["seed"]} for row in rows]
  is_few = len({row["method"] for row in named}) <= MOST_LINES
  by_run = {row["run"]: {"method": row["method"], "trial": row["trial"]} for row in named}
  histories = study.file("history.csv", "run", "generation", "density")
  histories = [{**row, **by_run[row["run"]]} for row in histories if row["run"] in by_run]
  curves = [{**row, **by_run[row["run"]]} for row in _curves(study, ("run",))]
  return {
    "Effects": interactive_studies.effects(rows, study.varied, measures) if rows else [],
    "Searches": [interactive_studies.trials(histories, measures)] if histories and is_few else [],
    "Training": [interactive_studies.training(curves, measures)] if curves and is_few else [],
  }


def _setting_name(study: Study, row: Row) -> str:
  """A setting of a sweep, as a legend names it."""
  told = (
    f"{name}={row[name]:g}" if isinstance(row[name], float) else f"{name}={row[name]}"
    for name in study.varied
  )  # fmt: skip
  return ", ".join(told) or "as it is"


def _curves(study: Study, columns: Sequence[str]) -> list[Row]:
  """The curves of the final trainings, from the runs' own files; none of more runs than a page can show."""
  needed = ("epoch", "test_loss", study.measures.column("test"))
  rows = study.trained
  if len(rows) > MOST_RUNS or not rows or "run" not in rows[0]:
    return []
  found = []
  for row in rows:
    name = pathlib.PurePath(str(row["run"])).name  # a run of this directory, whatever the table says
    own = {column: row[column] for column in columns}
    found += [{**own, **each} for each in read_rows(study.where / RUNS / name / TRAINING, needed)]
  return found


def _controls(study: Study) -> Mapping[str, Sequence[Part]]:
  rows = [{**row, "run": f"ticket {row['ticket']}"} for row in study.trained if "ticket" in row]
  drawing = interactive_studies.over_controls(rows, study.measures) if rows else None
  return {"Tickets and controls": [drawing] if drawing else []}


KINDS = {
  "comparison": Kind(
    "table1.csv",
    "table1.md",
    "compare",
    "A comparison of methods",
    lambda study: [*_winners(study, "table1.md"), *_best_method(study)],
    _comparison,
  ),
  "densities": Kind(
    "densities.csv", "densities.md", "densities", "Methods at several densities", _best_method, _densities
  ),
  "controls": Kind(
    "controls.csv",
    "controls.md",
    "controls",
    "Tickets and their controls",
    lambda study: _winners(study, "controls.md"),
    _controls,
  ),
  "sweep": Kind("results.csv", "settings.md", "sweep", "A sweep of settings", _best_setting, _sweep),
}
