"""Interactive figures: their frame, what hovers over them, and their JSON, the same for the same rows.

A drawing's legend is the page's own: a button for each name, which switches what is drawn under that name in
all panels.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from nets_jax.analysis.frontier_figures import log_ticks
from nets_jax.analysis.style import TableRow, method_colours

if TYPE_CHECKING:  # it is loaded when a page is written
  from bokeh.models import Axis, ColumnDataSource, GlyphRenderer, Range
  from bokeh.plotting import figure

INK, GRID, BAND = "#39424e", "#e3e7ec", 0.18
WHOLE = ("generation", "iteration", "round", "training epoch")  # axes of whole numbers
Scale = Literal["linear", "log"]
HEIGHT = 300  # pixels


@dataclasses.dataclass(frozen=True)
class Drawing:
  """A figure of one or more panels.

  Attributes:
    title: what it shows.
    reading: a sentence on how to read it.
    panels: side by side, each a figure of bokeh.
    legend: a colour for each name; a renderer of that name is switched with it.
    kind: tells it from other parts of a page.
  """

  title: str
  reading: str
  panels: Sequence["figure"]
  legend: Mapping[str, str] = dataclasses.field(default_factory=dict)
  kind: str = "drawing"

  @property
  def across(self) -> int:
    """How many panels stand side by side: three, two, or one that has the page's whole width."""
    count = len(self.panels)
    return 3 if count in (3, 5, 6, 9) else min(count, 2)


def panel(
  x: str, y: str, *, x_axis: Scale = "linear", y_axis: Scale = "linear", factors: Sequence[str] = ()
) -> "figure":
  """An empty panel with labelled axes.

  Args:
    x, y: what the axes say.
    x_axis, y_axis: `linear` or `log`.
    factors: words along x, in place of numbers.
  """
  from bokeh.models import BasicTicker, DataRange1d, FactorRange
  from bokeh.plotting import figure

  across = FactorRange(factors=list(map(words, factors))) if factors else DataRange1d()
  made = figure(
    height=HEIGHT, sizing_mode="stretch_width", x_range=across, x_axis_type="auto" if factors else x_axis,
    y_axis_type=y_axis, tools="pan,box_zoom,reset,save", background_fill_color="white",
    border_fill_color="white", outline_line_color=None, min_border_right=16,
  )  # fmt: skip
  made.toolbar.logo, made.toolbar.autohide = None, True
  for axis, label in zip((made.xaxis, made.yaxis), (x, y), strict=True):
    axis.axis_label = words(label.replace("\n", " "))
    axis.axis_label_text_font_style = "normal"
    axis.axis_label_text_color = axis.major_label_text_color = INK
    axis.axis_label_text_font_size, axis.major_label_text_font_size = "12px", "11px"
    axis.axis_line_color = axis.major_tick_line_color = "#9aa5b1"
    axis.minor_tick_line_color = None
  made.grid.grid_line_color = GRID
  if x in WHOLE:
    made.xaxis.ticker = BasicTicker(min_interval=1)
  for axis_range in (made.x_range, made.y_range):
    if isinstance(axis_range, DataRange1d):
      axis_range.only_visible = True  # what is switched off does not press the rest together
  if factors and max(map(len, factors)) > 8:
    made.xaxis.major_label_orientation = 0.6
  return made


def logarithmic(axis: "Axis", low: float, high: float) -> None:
  """Round numbers on a logarithmic axis from one number to another, as in every figure."""
  from bokeh.models import FixedTicker

  ticks = log_ticks(low, high)
  axis.ticker = FixedTicker(ticks=ticks)
  axis.major_label_overrides = {tick: f"{tick:g}" for tick in ticks}


def limit(axis_range: "Range", bounds: tuple[float, float] | None) -> None:
  """Ends an axis of numbers where something says, if it does."""
  from bokeh.models import DataRange1d

  if bounds and isinstance(axis_range, DataRange1d):
    axis_range.start, axis_range.end = bounds


def words(text: str) -> str:
  """A text as it is: what BokehJS would take for TeX is cut by signs of no width."""
  return re.sub(r"(?<=[$\\])(?=[$()\[\]])", "\u200b", text)


def hover(made: "figure", renderers: Iterable["GlyphRenderer"], shown: Mapping[str, str]) -> None:
  """What is told of the points under the pointer.

  Args:
    made: the panel.
    renderers: whose points tell.
    shown: of each line its name, and the column in BokehJS's form: `@loss{0.000}`.
  """
  from bokeh.models import HoverTool

  found = list(renderers)
  if found:
    made.add_tools(HoverTool(renderers=[*found], tooltips=list(shown.items()), visible=False))


def follow(
  made: "figure", source: "ColumnDataSource", colour: str, name: str, dash: str = "solid", alpha: float = 1.0
) -> "GlyphRenderer":
  """A line whose points are seen, and tell, under the pointer alone; returns these.

  Args:
    made: the panel.
    source: with columns `x` and `y`.
    colour, dash, alpha: of the line.
    name: in the legend.
  """
  made.line("x", "y", source=source, color=colour, line_width=1.8, line_dash=dash, alpha=alpha, name=name)
  return made.scatter("x", "y", source=source, color=colour, size=8, alpha=0.0, hover_alpha=0.6, name=name)


def bars(
  made: "figure", x: Sequence[float], y: Sequence[float], half: Sequence[float], colour: str, name: str | None
) -> None:
  """Intervals of some means.

  Args:
    made: the panel.
    x, y: of the means.
    half: half of the interval of each.
    colour: of all.
    name: in the legend.
  """
  low, high = ([a + sign * b for a, b in zip(y, half, strict=True)] for sign in (-1, 1))
  made.segment(x0=list(x), x1=list(x), y0=low, y1=high, line_width=1.4, color=colour, name=name)


def source_of(**columns: Sequence[object]) -> "ColumnDataSource":
  """Columns for renderers."""
  from bokeh.models import ColumnDataSource

  made = ColumnDataSource()
  for name, values in columns.items():
    made.add(values, name)
  return made


def take(rows: Sequence[TableRow], **columns: str | tuple[str, float]) -> "ColumnDataSource":
  """Columns for renderers: each named by a column of the rows, or by it and what it is multiplied by."""
  found: dict[str, list[float] | list[str]] = {}
  for name, column in columns.items():
    source, factor = column if isinstance(column, tuple) else (column, None)
    values = [row[source] for row in rows]
    found[name] = [str(value) for value in values] if factor is None else [factor * float(v) for v in values]
  return source_of(**found)


def colours_of(names: Iterable[str]) -> dict[str, str]:
  """A colour for each name, as every figure has it."""
  return method_colours([{"method": name} for name in names])


def step_of(values: Iterable[float]) -> Scale:
  """Whether an axis of some positive values is `log` or `linear`: the first where they span a decade."""
  sound = [value for value in values if value > 0]
  return "log" if sound and max(sound) >= 8 * min(sound) else "linear"


def as_json(made: "figure") -> dict[str, object]:
  """A panel as BokehJS takes it; its models are numbered from 1, so that the same panel is the same text."""
  from bokeh.embed import json_item

  numbers: dict[str, str] = {}

  def number(name: str) -> str:
    return numbers.setdefault(name, f"m{len(numbers) + 1}")

  def walk(value: object) -> object:
    if isinstance(value, Mapping):
      return {
        key: number(own) if key in ("id", "root_id") and isinstance(own, str) else walk(own)
        for key, own in value.items()
      }
    return [walk(own) for own in value] if isinstance(value, list | tuple) else value

  found = walk(json_item(made))
  assert isinstance(found, dict)
  return found
