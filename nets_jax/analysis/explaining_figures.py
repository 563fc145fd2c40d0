"""Figures that explain: how a genome becomes a ticket, and a mask that grows sparse over the generations."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from nets_jax.analysis.style import COLOURS
from nets_jax.analysis.ticket_figures import connections

if TYPE_CHECKING:  # drawing needs no JAX
  from nets_jax.tickets.ticket import Ticket

SIDE = 9  # weights of the drawn layer, each way


def genome_figure(seed: int = 0) -> Figure:
  """How a genome becomes a ticket: weights and mask, one short training, a fitness, the next generation.

  Args:
    seed: of the weights that are drawn.
  """
  figure = Figure(figsize=(10.4, 4.0))
  axes = figure.add_axes((0, 0, 1, 1))
  axes.set(xlim=(0, 10.4), ylim=(0, 4.0))
  axes.axis("off")
  rng = np.random.default_rng(seed)
  weights = rng.normal(size=(SIDE, SIDE))
  mask = np.abs(weights) * rng.uniform(0.3, 1, weights.shape) > np.quantile(np.abs(weights), 0.6)
  trained = np.where(mask, weights + rng.normal(0, 0.8, weights.shape), np.nan)
  _grid(axes, 0.35, weights, "first weights", r"$\theta_0$")
  _sign(axes, 1.93, r"$\odot$")
  _grid(axes, 2.15, np.where(mask, 1.7, -1.5), "mask", r"$M \in \{0, 1\}$", cmap="Greys")
  _arrow(axes, (3.72, 2.55), (4.5, 2.55), "train\nbriefly")
  _grid(axes, 4.6, trained, "trained network", r"$\theta_T \odot M$")
  _arrow(axes, (6.17, 2.55), (6.95, 2.55), "validate")
  _box(axes, 7.0, 2.0, 3.15, 1.1, "fitness", "validation loss, and a penalty\nfor a density above the target")
  _box(
    axes,
    4.05,
    0.3,
    3.15,
    0.95,
    "the next generation",
    "the fittest, and their children:\ncrossover, mutation, dormancy",
  )
  _box(axes, 7.95, 0.3, 2.2, 0.95, "in the end", "the fittest genome\nis the ticket")
  _arrow(axes, (7.7, 1.95), (6.6, 1.3), "")
  _arrow(axes, (9.1, 1.95), (9.1, 1.3), "")
  _arrow(axes, (4.0, 0.78), (1.93, 1.55), "")
  axes.text(2.0, 0.95, "untrained again", ha="center", va="center", fontsize=10, color="#555555")
  axes.text(1.93, 3.75, "a genome", ha="center", va="center", fontsize=12, weight="bold")
  return figure


def strip_figure(tickets: Sequence["Ticket"], titles: Sequence[str], image_shape: Sequence[int]) -> Figure:
  """The connections of each input pixel in some tickets side by side, each on its own scale.

  Args:
    tickets: such as the fittest of some generations.
    titles: of each.
    image_shape: see `ticket_figures.connections`.
  """
  figure = Figure(figsize=(1.75 * len(tickets), 2.1), layout="constrained")
  panels = figure.subplots(1, len(tickets), squeeze=False)[0]
  for axes, ticket, title in zip(panels, tickets, titles, strict=True):
    counts = connections(ticket, image_shape)
    axes.imshow(counts, cmap="viridis", vmin=0, vmax=max(counts.max(), 1))
    axes.set_title(title, fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])
  return figure


def _grid(axes: Axes, left: float, values: np.ndarray, title: str, sign: str, cmap: str = "PuOr") -> None:
  """A matrix as a picture of cells; what is NaN is left white."""
  right, low, high = left + 1.45, 1.82, 3.27
  axes.imshow(
    values,
    cmap=cmap,
    vmin=-2,
    vmax=2,
    extent=(left, right, low, high),
    aspect="auto",
    interpolation="nearest",
  )
  for edge in np.linspace(0, 1.45, SIDE + 1):
    axes.plot([left + edge] * 2, [low, high], color="white", linewidth=0.8)
    axes.plot([left, right], [low + edge] * 2, color="white", linewidth=0.8)
  axes.text((left + right) / 2, high + 0.17, title, ha="center", va="center", fontsize=10)
  axes.text((left + right) / 2, low - 0.2, sign, ha="center", va="center", fontsize=12)


def _sign(axes: Axes, x: float, sign: str) -> None:
  axes.text(x + 0.03, 2.55, sign, ha="center", va="center", fontsize=16)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], text: str) -> None:
  arrow = FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=16, linewidth=1.6, color="#555555")
  axes.add_patch(arrow)
  x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
  axes.text(x, y + 0.16, text, ha="center", va="bottom", fontsize=10, color="#555555")


def _box(axes: Axes, left: float, low: float, width: float, height: float, title: str, text: str) -> None:
  frame = FancyBboxPatch(
    (left, low), width, height, boxstyle="round,pad=0.02,rounding_size=0.12", linewidth=1.6,
    edgecolor=COLOURS["guided"], facecolor="#f3fafd",
  )  # fmt: skip
  axes.add_patch(frame)
  axes.text(left + width / 2, low + height - 0.2, title, ha="center", va="center", fontsize=11, weight="bold")
  axes.text(left + width / 2, low + (height - 0.3) / 2, text, ha="center", va="center", fontsize=9.5)
