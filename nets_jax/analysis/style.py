"""What all figures share: colours, frames, legends, and how they are written."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nets_jax.engine.files import replace_file

COLOURS = {
  "nets": "#1f5fa8",
  "paper": "#1f5fa8",
  "guided": "#0f9bd1",
  "random": "#3a8f3a",
  "imp": "#c0392b",
  "dense": "#444444",
}
SPARE_COLOURS = (
  "#d68910", "#7d3c98", "#148f77", "#b03a7a", "#6e5a3c", "#5d6d7e", "#9a9a00", "#ff6f61",
  "#3b3f8c", "#a0522d", "#00897b", "#c2185b", "#827717", "#4e342e", "#512da8", "#ef6c00",
)  # fmt: skip
STYLE = {"linewidth": 1.8}

# A row of a table: a number or a word by column, which each figure names.
TableRow = Mapping[str, Any]


def method_colours(rows: Sequence[TableRow]) -> dict[str, str]:
  """A colour for each method of some rows, in their order; grey where there are too many."""
  spare = iter(SPARE_COLOURS)
  names = dict.fromkeys(row["method"] for row in rows)
  return {name: COLOURS.get(name) or next(spare, "#888888") for name in names}


def label_axes(axes: Axes, xlabel: str, ylabel: str) -> None:
  """Labels and frame, alike in every figure."""
  axes.set_xlabel(xlabel)
  axes.set_ylabel(ylabel)
  axes.spines[["top", "right"]].set_visible(False)


def whole_numbers(*axes: Axis) -> None:
  """Ticks at whole numbers alone."""
  for axis in axes:
    axis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], integer=True))


def finish_figure(figure: Figure, note: str) -> Figure:
  """One legend for all panels, below them, and the note above."""
  handles, labels = figure.axes[0].get_legend_handles_labels()
  figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4), frameon=False)
  figure.suptitle(note)
  return figure


def save_figure(figure: Figure, path: str | os.PathLike) -> None:
  """Writes a figure as PNG or SVG, by the name's ending, whole or not at all."""
  form = str(path).rpartition(".")[2]
  with replace_file(path) as temporary, open(temporary, "wb") as file:
    figure.savefig(file, format=form, dpi=150)
