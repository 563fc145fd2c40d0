"""Tables of studies as pandas has them; the one writer of CSV and Markdown, the one form of a mean."""

import math
import os
import statistics
from collections.abc import Sequence

import pandas as pd

from nets_jax.analysis.intervals import mean_and_interval
from nets_jax.engine.files import replace_file
from nets_jax.engine.tables import Row, read_csv
from nets_jax.errors import UsageError
from nets_jax.studies.methods import Run
from nets_jax.studies.run_files import curve_rows, history_rows, result_row

# How a quantity is written: factor, format, unit.
FORMS = {
  "percent": (100, ".1f", " %"),
  "points": (1, ".1f", ""),
  "number": (1, ".3f", ""),
  "signed points": (100, "+.1f", ""),
  "signed": (1, "+.3f", ""),
  "short": (1, ".3g", ""),
  "seconds": (1, ".1f", ""),
}


WHOLE = ("trial", "ticket", "seed", "round", "training_epochs", "chosen")  # columns of whole numbers


def spread(values: Sequence[float], form: str, error: str = "interval") -> str:
  """`mean ± error` of some values; of one value that alone, of none `-`.

  Args:
    values: one for each seed or trial.
    form: a name in `FORMS`.
    error: `interval`, half the width of the mean's 95 % interval by Student's t; or `deviation`, the sample's
      standard deviation.
  """
  if not len(values) or math.isnan(values[0]):
    return "-"
  factor, digits, unit = FORMS[form]
  scaled = [factor * value for value in values]
  mean, half = mean_and_interval(scaled)
  if error == "deviation":
    half = statistics.stdev(scaled) if len(scaled) > 1 else math.nan
  return f"{mean:{digits}}" + ("" if math.isnan(half) else f" ± {half:{digits.lstrip('+')}}") + unit


def markdown(table: pd.DataFrame) -> str:
  """A table of words in Markdown."""
  text = table.to_markdown(index=False, disable_numparse=True)
  return f"{text}\n"


def write_table(path: str | os.PathLike, table: pd.DataFrame) -> None:
  """Writes a table as CSV, whole or not at all; floats exactly, what is not there as `nan`."""
  with replace_file(path) as temporary:
    table.to_csv(temporary, index=False, na_rep="nan", lineterminator="\n")


def read_table(path: str | os.PathLike) -> pd.DataFrame:
  """Reads what `write_table` wrote, to the last digit.

  Raises:
    UsageError: it is not whole.
  """
  table = pd.DataFrame(read_csv(path))
  return table.astype({name: int for name in WHOLE if name in table})


def write_text(path: str | os.PathLike, text: str) -> None:
  """Writes a text, whole or not at all."""
  with replace_file(path) as temporary:
    temporary.write_text(text)


def rows_of(table: pd.DataFrame) -> list[Row]:
  """The rows of a table as figures take them."""
  return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def results_of(runs: Sequence[Run]) -> pd.DataFrame:
  """A row for each run: what it is, its ticket's figures, costs, empty layers, and why it failed.

  Raises:
    UsageError: no run is done.
  """
  if not runs:
    raise UsageError("no run is done yet; the same command goes on with them")
  return pd.DataFrame([result_row(run) for run in runs])


def how_many(runs: Sequence[Run], asked: int) -> str:
  """A line that says how many of a study's runs are done, if not all are."""
  return f"\n{len(runs)} of {asked} runs are done.\n" if len(runs) < asked else ""


def histories_of(runs: Sequence[Run]) -> pd.DataFrame:
  """A row for each run and generation (or epoch of a cycle, or round): its best genome."""
  return pd.DataFrame([row for run in runs for row in history_rows(run)])


def curves_of(runs: Sequence[Run]) -> pd.DataFrame:
  """A row for each run and evaluation of its final training."""
  return pd.DataFrame([row for run in runs for row in curve_rows(run)])


def trained(table: pd.DataFrame) -> pd.DataFrame:
  """The rows of the runs that have a ticket, and whose final training has not diverged."""
  found = sound(table)
  return found[found["valid_loss"].map(math.isfinite).astype(bool)] if "valid_loss" in found else found


def sound(table: pd.DataFrame) -> pd.DataFrame:
  """The rows of the runs that have a ticket."""
  return table[table["failed"] == ""] if len(table) else table
