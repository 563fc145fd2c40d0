"""The files of a directory as its page reads them: each whole, missing, or damaged and named in one line."""

import itertools
import json
import pathlib
import re
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

from nets_jax.analysis.page import Bullets, Page, Paragraph, Part, Table, write
from nets_jax.engine.messages import say
from nets_jax.engine.tables import Row, read_csv
from nets_jax.errors import UsageError
from nets_jax.studies.run_files import REPORT, UNREADABLE

Made = TypeVar("Made")
LONGEST = 200_000  # characters of a text that a page takes in


def read_json(path: pathlib.Path) -> Row:
  """A record; an empty one where there is no such file.

  Raises:
    UsageError: it is damaged.
  """
  try:
    found = json.loads(path.read_text())
  except FileNotFoundError:
    return {}
  except (ValueError, RecursionError) as error:
    raise UsageError(f"{path} is damaged; make it again") from error
  if not isinstance(found, dict):
    raise UsageError(f"{path} is damaged; make it again")
  return found


def read_text(path: pathlib.Path) -> str:
  """A text, cut if it is long; nothing where there is no such file."""
  try:
    return path.read_text(errors="replace")[:LONGEST]
  except FileNotFoundError:
    return ""


def read_rows(path: pathlib.Path, needed: Collection[str]) -> list[Row]:
  """The rows of a table; none where there is no such file, or it has not all the columns that are needed.

  Raises:
    UsageError: it is damaged.
  """
  if not path.exists():
    return []
  rows: list[Row] = list(read_csv(path))
  return rows if set(needed) <= rows[0].keys() else []


def guarded(where: pathlib.Path, make: Callable[[], Page]) -> None:
  """Writes the page of what has just ended; what goes wrong with it is a line, and nothing else is lost.

  Args:
    where: the directory.
    make: its page.
  """
  try:
    write(where / REPORT, make())
  except Exception as error:  # whatever it is: the results are worth more than their page
    told = " ".join(str(error).split()) or type(error).__name__
    say(f"{where / REPORT} was not written ({told}); nets-jax report {where} tries again")


def made_of(path: pathlib.Path, make: Callable[[], Made]) -> Made:
  """What is made of a file.

  Raises:
    UsageError: what is in it cannot be shown, so it is damaged.
  """
  try:
    return make()
  except UsageError:  # which says already what is damaged
    raise
  except UNREADABLE as error:
    told = " ".join(str(error).split()) or type(error).__name__
    raise UsageError(f"{path} is damaged ({told[:200]}); make it again") from error


def from_markdown(text: str) -> list[Part]:
  """Paragraphs and tables of a text that `studies.tables` has written, its numbers as they are there."""
  parts: list[Part] = []
  for block in re.split(r"\n\s*\n", text.strip()):
    lines = block.split("\n")
    if len(lines) > 1 and re.fullmatch(r"\|[:|\-]+\|", lines[1]):
      caption = ""
      if parts and isinstance(parts[-1], Paragraph):
        caption = parts[-1].text
        parts.pop()
      parts.append(_table(lines, caption))
    else:
      bullets = [line.removeprefix("- ") for line in lines if line.startswith("- ")]
      parts += [Paragraph(line) for line in lines if line.strip() and not line.startswith("- ")]
      parts += [Bullets(bullets)] if bullets else []
  return parts


def _table(lines: Sequence[str], caption: str) -> Table:
  """A table of Markdown; its bold rows are marked."""
  cuts = [i for i, sign in enumerate(lines[1]) if sign == "|"]
  titles, rows = _cells(lines[0], cuts), [_cells(line, cuts) for line in lines[2:]]
  bold = [bool(row) and all(re.fullmatch(r"\*\*.*\*\*", cell) for cell in row) for row in rows]
  plain = [[cell[2:-2] if is_bold else cell for cell in row] for row, is_bold in zip(rows, bold, strict=True)]
  return Table(titles, plain, caption, marked=[i for i, is_bold in enumerate(bold) if is_bold])


def _cells(line: str, cuts: Sequence[int]) -> list[str]:
  """The cells of a line, cut where the padded columns are: a cell may have a bar of its own."""
  if len(line) == cuts[-1] + 1 and all(line[cut] == "|" for cut in cuts):
    return [line[start + 1 : end].strip() for start, end in itertools.pairwise(cuts)]
  found = [cell.strip() for cell in line.strip().strip("|").split("|")]
  return (found + [""] * len(cuts))[: len(cuts) - 1]
