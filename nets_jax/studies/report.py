"""`report.html`: the page of a run or a study beside its files, made of these alone."""

import pathlib

from nets_jax.analysis import page
from nets_jax.errors import UsageError
from nets_jax.studies.report_parts import guarded
from nets_jax.studies.report_run import run_page
from nets_jax.studies.report_study import kind_of, study_page
from nets_jax.studies.run_files import CONFIG, HISTORY, REPORT, SUMMARY, TICKET


def write(where: pathlib.Path) -> pathlib.Path:
  """Writes the page of a directory, anew if there is one; returns its path.

  Args:
    where: the directory of a run or a study.

  Raises:
    UsageError: it holds neither, or a file is damaged.
  """
  if not where.is_dir():
    raise UsageError(f"there is no directory {where}")
  page.write(where / REPORT, _made(where))
  return where / REPORT


def leave(where: pathlib.Path) -> None:
  """`write` at the end of a study; what goes wrong with the page is a line, for the study is done."""
  guarded(where, lambda: _made(where))


def _made(where: pathlib.Path) -> page.Page:
  kind = kind_of(where)
  if kind is not None:
    return study_page(where, kind)
  if any((where / name).exists() for name in (SUMMARY, HISTORY, TICKET)):
    return run_page(where)
  began = " that has results yet" if (where / CONFIG).exists() else ""
  raise UsageError(f"{where} holds no run, comparison, study of densities, controls or sweep{began}")
