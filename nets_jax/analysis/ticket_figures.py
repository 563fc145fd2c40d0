"""Figures of one ticket: its masks, its connections, its weights."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from nets_jax.analysis.style import COLOURS, finish_figure, label_axes, whole_numbers
from nets_jax.errors import UsageError

if TYPE_CHECKING:  # drawing needs no JAX
  from nets_jax.networks.adapter import Params
  from nets_jax.tickets.ticket import Ticket


def masks_figure(ticket: "Ticket") -> Figure:
  """The mask of each layer as an image: a row for each input, a column for each unit, dark where expressed.

  A kernel of more than two axes (a convolution's) is drawn with all axes but the last as its rows.

  Args:
    ticket: a `Ticket`.
  """
  masks = kernels(ticket, ticket.masks)
  figure = Figure(figsize=(3.4 * len(masks), 3.8), layout="constrained")
  for axes, (name, mask) in zip(figure.subplots(1, len(masks), squeeze=False)[0], masks, strict=True):
    image = mask.reshape(-1, mask.shape[-1])
    axes.imshow(image, cmap="Greys", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    axes.set_title(f"{name}: {image.mean():.1%} of {image.size:,}", fontsize=10)
    label_axes(axes, "units", "inputs" if axes is figure.axes[0] else "")
    whole_numbers(axes.xaxis, axes.yaxis)
  return figure


def connectivity_figure(ticket: "Ticket", image_shape: Sequence[int]) -> Figure:
  """How many connections of each input pixel survive, as an image; see `connections`."""
  counts = connections(ticket, image_shape)
  figure = Figure(figsize=(4.4, 3.8), layout="constrained")
  axes = figure.subplots()
  shown = axes.imshow(counts, cmap="viridis", vmin=0)
  of = _first_layer(ticket, image_shape).shape[-1] * int(np.prod(image_shape[2:] or 1))
  figure.colorbar(shown, label=f"connections left, of {of}")
  axes.set_xticks([])
  axes.set_yticks([])
  return figure


def connections(ticket: "Ticket", image_shape: Sequence[int]) -> np.ndarray:
  """The number of unmasked weights [height, width] of each input pixel.

  Args:
    ticket: a `Ticket` whose network has a layer that takes the pixels one by one.
    image_shape: height and width, and channels, whose counts are added up.

  Raises:
    UsageError: no layer has as many inputs as an image has numbers.
  """
  height, width, *_ = image_shape
  first = _first_layer(ticket, image_shape)
  return first.sum(axis=-1).reshape(height, width, -1).sum(axis=-1)


def _first_layer(ticket: "Ticket", image_shape: Sequence[int]) -> np.ndarray:
  """The mask [inputs, units] of the layer that takes the pixels one by one."""
  inputs = int(np.prod(image_shape))
  first = next(
    (mask for _, mask in kernels(ticket, ticket.masks) if mask.ndim == 2 and mask.shape[0] == inputs), None
  )
  if first is None:
    raise UsageError(f"no layer of the ticket takes the {inputs} numbers of an image one by one")
  return first


def weights_figure(ticket: "Ticket", trained: "Params") -> Figure:
  """The weights that a ticket keeps, before and after training: a histogram for each layer.

  Args:
    ticket: whose masks are to be seen.
    trained: its weights after training, as the ticket's are laid out.
  """
  masks = kernels(ticket, ticket.masks)
  before, after = dict(kernels(ticket, ticket.weights)), dict(kernels(ticket, trained))
  figure = Figure(figsize=(3.6 * len(masks), 3.4), layout="constrained")
  for axes, (name, mask) in zip(figure.subplots(1, len(masks), squeeze=False)[0], masks, strict=True):
    kept = {"before": before[name][mask], "after": after[name][mask]}
    low, high = np.quantile(np.concatenate([*kept.values(), [0]]), (0.001, 0.999))
    bins = np.linspace(low, high, 60)
    for (label, weights), colour in zip(kept.items(), ("#9aa5b1", COLOURS["nets"]), strict=True):
      axes.hist(weights, bins, color=colour, label=f"{label} training", alpha=0.65)
    axes.set_title(name, fontsize=10)
    label_axes(axes, "weight", "weights left" if axes is figure.axes[0] else "")
  return finish_figure(figure, "")


def kernels(ticket: "Ticket", tree: "Params") -> list[tuple[str, np.ndarray]]:
  """Name and array of each layer of a tree like the masks or the weights, in the order of application."""
  return [(name, np.asarray(leaf)) for name, leaf in ticket.by_layer(tree).items()]
