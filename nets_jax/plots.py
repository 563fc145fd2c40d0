"""Figures from recorded histories. Nothing here runs or imports the search."""

import os
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from nets_jax.files import replace_file

COLOURS = {"nets": "#1f5fa8", "random": "#3a8f3a", "imp": "#c0392b", "dense": "#444444"}
STYLE = {"linewidth": 1.8}


def evolution_figure(history: Sequence[Mapping[str, float]], target_density: float | None = None) -> Figure:
  """The paper's Figure 1: density, validation loss and fitness over the generations.

  Each panel shows the genome of lowest fitness of its generation as a line, and the range over the
  population as a band. Diverged genomes are left out of the bands.

  Args:
    history: rows with `generation`, `fitness`, `valid_loss` and `density`, as in `history.csv`.
    target_density: tau, drawn as a dashed line if given.
  """
  generations = sorted({int(row["generation"]) for row in history})
  by_generation = [[row for row in history if row["generation"] == g] for g in generations]
  panels = (
    ("density", "density (%)", 100.0),
    ("valid_loss", "validation loss after training (nats)", 1.0),
    ("fitness", "fitness (minimised)", 1.0),
  )
  figure = Figure(figsize=(12, 3.8), layout="constrained")
  for axes, (column, label, factor) in zip(figure.subplots(1, 3), panels, strict=True):
    best = [min(rows, key=lambda row: row["fitness"])[column] for rows in by_generation]
    finite = [[row[column] for row in rows if np.isfinite(row[column])] or [np.nan] for rows in by_generation]
    low, high = ([factor * bound(values) for values in finite] for bound in (min, max))
    axes.fill_between(
      generations, low, high, color=COLOURS["nets"], alpha=0.2, label="population", linewidth=0
    )
    axes.plot(generations, factor * np.asarray(best), color=COLOURS["nets"], label="best genome", **STYLE)
    if column == "density" and target_density is not None:
      axes.axhline(100 * target_density, color="#444444", linestyle="--", linewidth=1, label="target")
    axes.set_xlabel("generation")
    axes.set_ylabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False)
  return figure


def save_figure(figure: Figure, path: str | os.PathLike) -> None:
  """Writes a figure as PNG, whole or not at all."""
  with replace_file(path) as temporary, open(temporary, "wb") as file:
    figure.savefig(file, format="png", dpi=150)
