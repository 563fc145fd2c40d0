"""Interactive pictures of one ticket's masks: what is left of each input pixel, and of each layer."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nets_jax.analysis.interactive import HEIGHT, Drawing, hover, limit, panel, source_of
from nets_jax.analysis.ticket_figures import connections, kernels
from nets_jax.errors import UsageError

if TYPE_CHECKING:
  from bokeh.plotting import figure

  from nets_jax.tickets.ticket import Ticket

MOST_CELLS = 160  # of a picture along an axis; a larger mask is shown by shares
MOST_LAYERS = 6


def pixels(ticket: "Ticket", image_shape: Sequence[int]) -> Drawing | None:
  """How many connections of each input pixel are left; None where no layer takes the pixels one by one.

  Args:
    ticket: whose network takes images.
    image_shape: height and width, and channels, whose counts are added up.
  """
  if len(image_shape) not in (2, 3):
    return None
  try:
    counts = connections(ticket, image_shape)
  except UsageError:
    return None
  made = panel("column of the image", "row of the image")
  _picture(made, counts, float(counts.max()), "connections left", "@image", counts.shape)
  made.width, made.sizing_mode, made.match_aspect = HEIGHT, "fixed", True
  return Drawing(
    "What the first layer sees",
    "Each cell is a pixel of the input. The darker it is, the more of its connections are left.",
    [made],
  )


def masks(ticket: "Ticket") -> Drawing:
  """The mask of each of the first layers as an image.

  Args:
    ticket: whose masks are to be seen.
  """
  drawn = []
  for name, mask in kernels(ticket, ticket.masks)[:MOST_LAYERS]:
    image = shares(mask.reshape(-1, mask.shape[-1]))
    made = panel(f"units of {name} ({mask.shape[-1]:,})", f"inputs ({mask.size // mask.shape[-1]:,})")
    size = mask.size // mask.shape[-1], mask.shape[-1]
    is_whole = image.shape == size
    _picture(made, np.round(100 * image), 100.0, "left" if not is_whole else "kept", "@image %", size)
    made.axis.major_label_text_font_size = "0px" if not is_whole else "11px"
    drawn.append(made)
  return Drawing(
    "The masks, layer by layer",
    "Rows are inputs and columns are units; dark is kept. A cell of a large layer stands for many weights, "
    "and is as dark as its share that is kept.",
    drawn,
  )


def shares(mask: np.ndarray) -> np.ndarray:
  """A mask of two axes on a grid of at most `MOST_CELLS` either way: the share kept in each cell."""
  found = mask.astype(np.float64)
  for axis in (0, 1):
    size = found.shape[axis]
    cells = min(size, MOST_CELLS)
    starts = np.arange(cells) * size // cells
    widths = np.diff([*starts, size])
    shape = (-1, 1) if axis == 0 else (1, -1)
    found = np.add.reduceat(found, starts, axis=axis) / widths.reshape(shape)
  return found


def _picture(
  made: "figure", image: np.ndarray, top: float, what: str, shown: str, size: Sequence[int]
) -> None:
  """An image with its first row on top, white at 0.

  Args:
    made: the panel.
    image: its cells.
    top: what is darkest.
    what, shown: of a cell, to one who points at it.
    size: rows and columns that the cells stand for; of a cell the first of each is told.
  """
  from bokeh.models import Image, LinearColorMapper

  rows, columns = image.shape
  steps = [255 * i // 15 for i in range(16)]  # from white to a dark blue
  palette = [f"#{255 - step * 9 // 10:02x}{255 - step * 3 // 4:02x}{255 - step // 2:02x}" for step in steps]
  mapper = LinearColorMapper(palette=palette, low=0, high=max(top, 1.0))
  cells = image.astype(np.uint8 if top < 256 else np.uint32)
  image_glyph = Image(image="image", x=0, y=0, dw=columns, dh=rows, color_mapper=mapper)
  row, column = (
    np.broadcast_to((np.arange(count) * whole // count).astype(np.uint32).reshape(shape), image.shape)
    for count, whole, shape in zip(image.shape, size, ((-1, 1), (1, -1)), strict=True)
  )
  source = source_of(image=[cells], row=[np.ascontiguousarray(row)], column=[np.ascontiguousarray(column)])
  glyph = made.add_glyph(source, image_glyph)
  limit(made.x_range, (0, columns))
  limit(made.y_range, (rows, 0))
  made.grid.visible = False
  hover(made, [glyph], {"row, column": "@row, @column", what: shown})
