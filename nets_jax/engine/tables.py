"""Tables and records on disk: CSV and JSON, whole or not at all."""

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Mapping
from typing import Any, cast

import numpy as np

from nets_jax.engine.files import replace_file
from nets_jax.errors import UsageError
from nets_jax.rows import Rows

Row = dict[str, Any]  # of a table: a number or a word by column


def write_csv(path: str | os.PathLike, rows: Iterable[Mapping[str, object]], sync: bool = True) -> None:
  """Writes rows, whole or not at all; floats are written exactly, and what a row lacks stays empty."""
  rows = list(rows)
  text = io.StringIO()
  columns = list(dict.fromkeys(name for row in rows for name in row))
  writer = csv.DictWriter(text, fieldnames=columns, lineterminator="\n")
  writer.writeheader()
  writer.writerows(rows)
  with replace_file(path, sync) as temporary:
    temporary.write_text(text.getvalue())


def read_csv(path: str | os.PathLike) -> Rows:
  """Reads a table of numbers that `write_csv` wrote; a column of words stays words.

  Raises:
    UsageError: it has no rows, or not a value for each column of each.
  """
  try:
    with open(path, newline="") as file:
      rows = list(csv.DictReader(file))
  except (UnicodeDecodeError, csv.Error):
    rows = []
  if not rows or any(None in row or None in row.values() for row in rows):
    raise UsageError(f"{path} is damaged; remove it, and what is missing is made again")
  return [{key: _value(value) for key, value in row.items()} for row in rows]


def _value(word: str) -> Any:
  try:
    return float(word)
  except ValueError:
    return word


def standard_json(item: object) -> object:
  """A value as standard JSON can hold it: of NumPy and JAX the numbers, and null for what is not finite."""
  if isinstance(item, Mapping):
    return {str(key): standard_json(entry) for key, entry in item.items()}
  if isinstance(item, list | tuple):
    return [standard_json(entry) for entry in item]
  if getattr(item, "shape", None) == ():  # a number of NumPy or JAX
    item = cast(np.ndarray, item).item()
  return None if isinstance(item, float) and not math.isfinite(item) else item


def write_json(path: str | os.PathLike, value: object, sync: bool = True) -> None:
  """Writes standard JSON, whole or not at all; see `standard_json`."""
  with replace_file(path, sync) as temporary:
    temporary.write_text(json.dumps(standard_json(value), indent=2, allow_nan=False) + "\n")
