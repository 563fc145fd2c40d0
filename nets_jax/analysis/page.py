"""A page of HTML in one file: headings, tables, texts and interactive figures, with all that they need in it.

All that a page says is escaped by the template, `page.html`. It has no time and no random name in it, so that
the same parts are the same page.
"""

import dataclasses
import functools
import os
import pathlib
import re
from collections.abc import Sequence

from nets_jax.analysis.interactive import Drawing, as_json
from nets_jax.engine.files import replace_file

TEMPLATE = "page.html"
NUMBER = re.compile(r"(yes: |no: )?[+-]?\d|(none|nan|=|-|)$")  # how a cell begins that is a number, or none


@dataclasses.dataclass(frozen=True)
class Paragraph:
  """A text."""

  text: str
  kind: str = "text"


@dataclasses.dataclass(frozen=True)
class Bullets:
  """Lines of a list."""

  lines: Sequence[str]
  kind: str = "list"


@dataclasses.dataclass(frozen=True)
class Code:
  """What is typed, or a file's content, as it is.

  Attributes:
    text: of it.
    title: what it is; a reader opens it by that where `folded`.
    folded: whether it is closed at first.
  """

  text: str
  title: str = ""
  folded: bool = False
  kind: str = "code"


@dataclasses.dataclass(frozen=True)
class Table:
  """Cells as texts.

  Attributes:
    columns: their titles.
    rows: as many cells each.
    caption: what the table shows.
    marked: rows that stand out.
    links: of a row's first cell, where there is one for it.
    folded: whether it is closed at first, and opened by its caption.
    numbers: the first column that may be aligned as numbers are, if all its cells are such.
  """

  columns: Sequence[str]
  rows: Sequence[Sequence[str]]
  caption: str = ""
  marked: Sequence[int] = ()
  links: Sequence[str] = ()
  folded: bool = False
  numbers: int = 1
  kind: str = "table"

  @property
  def right(self) -> set[int]:
    """The columns that are aligned as numbers are."""
    columns = range(self.numbers, len(self.columns))
    return {i for i in columns if all(NUMBER.match(row[i]) for row in self.rows)}


Part = Paragraph | Bullets | Code | Table | Drawing


@dataclasses.dataclass(frozen=True)
class Section:
  """Parts under a heading; a section without parts is left out."""

  heading: str
  parts: Sequence[Part]


@dataclasses.dataclass(frozen=True)
class Page:
  """A page.

  Attributes:
    title: of it, in a line.
    lead: what a reader wants to know first, a line each.
    sections: one after the other.
    foot: a last line.
  """

  title: str
  lead: Sequence[str]
  sections: Sequence[Section]
  foot: str = ""


def html(page: Page) -> str:
  """The page's text."""
  drawings = [part for section in page.sections for part in section.parts if isinstance(part, Drawing)]
  panels = [panel for drawing in drawings for panel in drawing.panels]
  numbers = {id(panel): i for i, panel in enumerate(panels)}
  return _template().render(
    page=page,
    sections=[section for section in page.sections if section.parts],
    script=bokeh_script() if panels else "",
    panels=[as_json(panel) for panel in panels],
    number=lambda panel: numbers[id(panel)],
  )


def write(path: str | os.PathLike, page: Page) -> None:
  """Writes the page, whole or not at all."""
  text = html(page)
  with replace_file(path) as temporary:
    temporary.write_bytes(text.encode("utf-8", errors="replace"))  # of a file may come half a character


@functools.cache
def bokeh_script() -> str:
  """BokehJS without its widgets and tables, which no page has."""
  from bokeh.resources import Resources

  return Resources(mode="inline", components=["bokeh"], minified=True).js_raw[0]


def _template():
  import jinja2

  environment = jinja2.Environment(
    autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
  )
  # BokehJS wants a model before what refers to it, so in the order in which it comes.
  environment.policies["json.dumps_kwargs"] = {"sort_keys": False, "separators": (",", ":")}
  return environment.from_string((pathlib.Path(__file__).parent / TEMPLATE).read_text(encoding="utf-8"))
