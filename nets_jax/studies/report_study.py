"""The page of a study, made of its files: tables, figures, tuning, failures, runs, settings."""

import json
import pathlib
import urllib.parse
from collections.abc import Mapping, Sequence

import pandas as pd

from nets_jax.analysis import interactive_densities
from nets_jax.analysis.page import Page, Part, Section, Table
from nets_jax.engine.tables import Row
from nets_jax.studies import outcome, tables
from nets_jax.studies.report_kinds import KINDS, MOST_RUNS, RUNS, Study
from nets_jax.studies.report_parts import from_markdown, made_of, read_json, read_text
from nets_jax.studies.report_settings import defaults, in_words, repeating, settings_table
from nets_jax.studies.run_files import CONFIG, SUMMARY, UNREADABLE
from nets_jax.training.measures import Measures, of_rows


def kind_of(where: pathlib.Path) -> str | None:
  """Which study a directory holds, a name in `KINDS`; None if none."""
  return next((name for name, kind in KINDS.items() if (where / kind.table).exists()), None)


def study_page(where: pathlib.Path, name: str) -> Page:
  """The page of a study's directory; what it lacks is left out.

  Args:
    where: the directory.
    name: of what it holds, in `KINDS`.

  Raises:
    UsageError: a file is damaged.
  """
  kind, config = KINDS[name], read_json(where / CONFIG)
  path, summaries = where / kind.table, _summaries(where)
  results = made_of(path, lambda: _named(tables.read_table(path)))
  settings = _settings(config)
  study = Study(where, results, made_of(path, lambda: _measures(results, summaries)), settings)
  parts: dict[str, Sequence[Part]] = {"Outcome": from_markdown(read_text(where / kind.text))}
  parts |= made_of(path, lambda: kind.figures(study))
  parts["Tuning"] = made_of(where / "tuning.csv", lambda: _tuning(study))
  parts["Sanity checks"] = from_markdown(read_text(where / "sanity.md"))
  parts["Failures"] = made_of(path, lambda: _failures(study))
  parts["Runs"] = _runs(summaries)
  parts["Settings"] = settings_table(settings, defaults(None)) if settings else []
  flagfile = f"{kind.command}.flags"
  dataset = settings.get("dataset")
  return Page(
    kind.title + (f" on {in_words(dataset)}" if dataset else ""),
    made_of(path, lambda: [*kind.best(study), _count(study)]),
    [
      *(Section(heading, own) for heading, own in parts.items()),
      repeating(kind.command, flagfile, read_text(where / flagfile), config),
    ],
    "Made by nets_jax of the files in this directory; nets-jax report makes it again.",
  )


def _named(results: pd.DataFrame) -> pd.DataFrame:
  """The table with its methods' names as words, also of one whose name is a number, and what failed.

  Tables of before have no column of that.
  """
  results = results if "failed" in results else results.assign(failed="")
  return results.assign(method=results["method"].map(str)) if "method" in results else results


def _settings(config: Row) -> dict[str, object]:
  """What a study's `config.json` says, on one level."""
  found = config.get("settings")
  settings = dict(found) if isinstance(found, Mapping) else {}
  for part in ("given", "sweep"):
    inner = settings.pop(part, None)
    settings |= inner if isinstance(inner, Mapping) else {}
  return settings


def _summaries(where: pathlib.Path) -> dict[str, Row | None]:
  """The `summary.json` of each run, by its directory's name; None of one that is damaged."""
  found: dict[str, Row | None] = {}
  for path in sorted((where / RUNS).glob(f"*/{SUMMARY}")):
    if not path.parent.name.startswith("damaged-"):
      try:
        found[path.parent.name] = json.loads(path.read_text())
      except (ValueError, RecursionError):
        found[path.parent.name] = None
  return found


def _measures(results: pd.DataFrame, summaries: Mapping[str, Row | None]) -> Measures:
  """Which loss and score the runs have: as one of them says, or else the table's columns."""
  named = of_rows(tables.rows_of(results[:1]))
  told = (summary for summary in summaries.values() if isinstance(summary, dict) and "measures" in summary)
  known = next((Measures.of_record(summary) for summary in told), named)
  return known if known.score == named.score else named


def _count(study: Study) -> str:
  """How many runs there are, and how many of them failed."""
  failed = int((study.results["failed"] != "").sum())
  methods = study.results["method"].nunique() if "method" in study.results else 0
  of_methods = f" of {methods} methods" if methods else ""
  return f"{len(study.results)} runs{of_methods}, {failed or 'none'} failed."


def _tuning(study: Study) -> list[Part]:
  """The table of the tuning, and every setting that was tried."""
  rows = study.file("tuning.csv", "method", "round", "chosen", study.measures.column("valid"))
  rows = [row for row in rows if not row.get("failed")]
  drawing = [interactive_densities.tuning(rows, study.measures)] if rows else []
  return [*from_markdown(read_text(study.where / "tuning.md")), *drawing]


def _failures(study: Study) -> list[Part]:
  """The runs that have no ticket, and why."""
  lost = study.results[study.results["failed"] != ""]
  names = [
    name
    for name in ("method", "control", "target_density", *study.varied, "trial", "ticket", "seed")
    if name in lost
  ]
  rows = [[*(f"{row[name]}" for name in names), str(row["failed"])] for row in tables.rows_of(lost)]
  return [Table([*names, "why"], rows, "Runs without a ticket", numbers=len(names) + 1)] if rows else []


def _runs(summaries: Mapping[str, Row | None]) -> list[Part]:
  """A table of the runs' directories."""
  rows = []
  for name, summary in list(summaries.items())[:MOST_RUNS]:
    try:
      figures = list(outcome.figures_of(summary)) if summary is not None else ["-", "damaged", "-"]
    except UNREADABLE:
      figures = ["-", "damaged", "-"]
    rows.append([name, *figures])
  if not rows:
    return []
  caption = f"The runs' directories; nets-jax report {RUNS}/NAME writes the page of one"
  if len(rows) < len(summaries):
    caption = (
      f"The first {len(rows)} of {len(summaries)} runs; nets-jax report {RUNS}/NAME writes the page of one"
    )
  links = [urllib.parse.quote(f"{RUNS}/{row[0]}/") for row in rows]
  return [Table(("run", "density", "test score", "seconds"), rows, caption, links=links, folded=True)]
