"""The tickets of one run, by density and validation loss."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nets_jax.analysis.history_figures import cut_off, is_logarithmic, panels
from nets_jax.analysis.style import COLOURS, TableRow, label_axes
from nets_jax.training.measures import NATS, Measures, of_rows

LEAST_LOSS = 1e-6  # to be drawn: a few examples that are learnt by heart have a loss of 0
FARTHEST = 10  # times the median, to be drawn of a loss whose size is not known, as that of nats is


def frontier_figure(
  history: Sequence[TableRow], frontier: Sequence[TableRow], measures: Measures | None = None
) -> Figure:
  """All tickets of a run by density and validation loss, and those that none dominates.

  The axis of the loss is logarithmic where `is_logarithmic` says so. Of the losses the
  highest may be cut off, for what has nearly diverged would flatten all others.

  Args:
    history: rows of a NeTS `history.csv`.
    frontier: of these the ones that no other dominates, the sparsest first.
    measures: which loss it is; None is what the columns say.
  """
  measures = of_rows(history) if measures is None else measures
  figure = Figure(figsize=(6.4, 4.2), layout="constrained")
  axes = figure.subplots()
  trained = [row for row in history if np.isfinite(row["valid_loss"]) and row["density"] > 0]
  is_log = is_logarithmic([row["valid_loss"] for row in trained], measures)
  losses, best = ([_height(row, is_log) for row in some] for some in (trained, frontier))
  points = axes.scatter(
    [100 * row["density"] for row in trained], losses, c=[row["generation"] for row in trained],
    cmap="viridis_r", s=9, linewidths=0, alpha=0.7,
  )  # fmt: skip
  ends = [100 * row["density"] for row in frontier], best
  axes.step(*ends, where="post", color=COLOURS["imp"], linewidth=1.2, zorder=3)
  axes.scatter(*ends, s=22, color=COLOURS["imp"], label="dominated by none", linewidths=0, zorder=4)
  axes.set_xscale("log")
  _set_ticks(axes.xaxis, 100 * min(row["density"] for row in trained), 100.0)
  if is_log:
    _scale_losses(axes, losses, max(best), measures)
  else:
    cut_off(axes, np.asarray(losses), max(best))
  label_axes(axes, "density (%)", panels(measures)["valid_loss"][0])
  axes.legend(frameon=False)
  figure.colorbar(points, label="generation", ticks=MaxNLocator(integer=True))
  return figure


def _height(row: TableRow, is_log: bool) -> float:
  return max(row["valid_loss"], LEAST_LOSS) if is_log else row["valid_loss"]


def _scale_losses(axes: Axes, losses: Sequence[float], needed: float, measures: Measures) -> None:
  """A logarithmic axis of the losses, up to their highest twentieth, and to what is needed."""
  axes.set_yscale("log")
  top = highest_shown(losses, needed, measures)
  margin = 1.05 * (top / min(losses)) ** 0.02  # the lowest points whole, however long the axis
  axes.set_ylim(min(losses) / margin, top * margin)
  _set_ticks(axes.yaxis, min(losses), top)


def highest_shown(losses: Sequence[float], needed: float, measures: Measures) -> float:
  """Where a logarithmic axis of losses ends: at their highest twentieth, and not below what is needed."""
  top = float(np.quantile(losses, 0.95))
  if measures.loss not in NATS:
    top = min(top, FARTHEST * float(np.median(losses)))
  return max(top, needed)


def _set_ticks(axis: Axis, low: float, high: float) -> None:
  """Round numbers on a logarithmic axis."""
  ticks = log_ticks(low, high)
  axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
  axis.set_ticks([], minor=True)


def log_ticks(low: float, high: float) -> list[float]:
  """Round numbers from `low` to `high`, few enough to write on a logarithmic axis."""
  decades = [10.0**k for k in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
  ticks: list[float] = []
  for digits in ((1,), (1, 2, 5), range(1, 10)):
    ticks = [digit * decade for decade in decades for digit in digits]
    ticks = [tick for tick in ticks if low <= tick * 1.0001 and tick <= high * 1.0001]
    if len(ticks) > 3:
      break
  return ticks or [low, high]
