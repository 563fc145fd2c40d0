"""Draws the figures of README and docs: `python docs/draw_figures.py`, from a checkout.

`genome.png` explains the algorithm. `accuracy.png` and `seconds.png` are of the tables in
experiments/results/recipe. `strip.png` is a search on MNIST of its own, some minutes on two cores.
"""

import pathlib
import sys
from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

import nets_jax
from nets_jax.analysis.density_figures import log_error_axis
from nets_jax.analysis.explaining_figures import genome_figure, strip_figure
from nets_jax.analysis.intervals import mean_and_interval
from nets_jax.analysis.style import COLOURS, SPARE_COLOURS, label_axes, save_figure
from nets_jax.engine.layouts import make_layout
from nets_jax.evolution.generation import init, step
from nets_jax.networks.initialisation import He
from nets_jax.networks.zoo import lenet_300_100
from nets_jax.tickets.ticket import Ticket, density, take

ROOT = pathlib.Path(__file__).parent.parent
IMAGES = ROOT / "docs/images"
RESULTS = ROOT / "experiments/results/recipe/densities.csv"
# The methods of the front figure, as the tables call them: how they are drawn.
METHODS = {
  "guided": ("guided NeTS (this project)", COLOURS["guided"], "o"),
  "imp_5_global": ("IMP, cycles of five epochs", COLOURS["imp"], "s"),
  "gradual": ("gradual pruning, its last mask", SPARE_COLOURS[0], "^"),
  "snip": ("SNIP", SPARE_COLOURS[1], "D"),
  "erk": ("random, by ERK", COLOURS["random"], "v"),
}
STRIP = (0, 5, 10, 15, 20, 25)


def accuracy_figure(rows: pd.DataFrame) -> Figure:
  """Test accuracy over density on a scale of the log of the error, mean and 95 % interval of the seeds."""
  figure = Figure(figsize=(7.2, 4.2), layout="constrained")
  axes = figure.subplots()
  dense = 100 * rows[rows.method == "dense"].test_accuracy.mean()
  axes.axhline(dense, color=COLOURS["dense"], linestyle="--", label=f"dense, {dense:.1f} %")
  for method, (label, colour, marker) in METHODS.items():
    own = rows[rows.method == method].groupby("target_density")
    points = [
      (100 * each.density.mean(), *(100 * v for v in mean_and_interval(list(each.test_accuracy))))
      for _, each in own
    ]
    x, mean, half = (list(values) for values in zip(*points, strict=True))
    axes.errorbar(x, mean, half, color=colour, marker=marker, capsize=3, label=label)
  axes.set_xscale("log")
  axes.set_xticks([0.5, 1, 2, 5, 10], ["0.5", "1", "2", "5", "10"])
  log_error_axis(axes, *_ends(rows))
  label_axes(axes, "weights left (%)", "test accuracy (%), by the log of the error")
  axes.legend(frameon=False, fontsize=9)
  return figure


def seconds_figure(rows: pd.DataFrame, target: float) -> Figure:
  """Test accuracy at one density over the seconds that a search took; a dot is a seed."""
  figure = Figure(figsize=(7.2, 3.4), layout="constrained")
  axes = figure.subplots()
  for method, (label, colour, marker) in METHODS.items():
    own = rows[(rows.method == method) & (rows.target_density == target)]
    axes.scatter(own.search_seconds, 100 * own.test_accuracy, color=colour, marker=marker, label=label)
  axes.set_xscale("symlog", linthresh=0.1)
  axes.set_xticks([0, 0.1, 1, 10, 100], ["0", "0.1", "1", "10", "100"])
  axes.set_xlim(-0.02, 200)
  log_error_axis(axes, *_ends(rows[rows.target_density == target]))
  label_axes(axes, "seconds of search on two cores", f"test accuracy at {100 * target:g} % (%)")
  axes.legend(frameon=False, fontsize=9)
  return figure


def _ends(rows: pd.DataFrame) -> tuple[float, float]:
  """The lowest and the highest test accuracy of the methods that are drawn, in percent."""
  accuracies = 100 * rows[rows.method.isin([*METHODS, "dense"])].test_accuracy
  return accuracies.min(), accuracies.max()


def evolved() -> list[tuple[str, Ticket]]:
  """The elite of some generations of a search on MNIST, and its title."""
  nets_jax.use_cpu_cores()
  training = nets_jax.Training("sgd", learning_rate=0.3, batch_size=72)
  task = nets_jax.Task(lenet_300_100(), nets_jax.load_data("mnist"), training, He())
  search = nets_jax.recipes.guided(target_density=0.01, halvings=0, population_size=6)
  layout = make_layout(search.population_size)
  state = init(nets_jax.key_of_seed(0), task, search, layout)
  found = []
  for generation in range(search.generations + 1):
    if generation in STRIP:
      elite = take(state.population, 0)
      found.append((f"generation {generation}: {float(density(elite)):.0%}", elite))
    state, _ = step(state, task, search, layout)
  return found


def main(names: Sequence[str]) -> None:
  """Draws the figures of those names, or all."""
  rows = pd.read_csv(RESULTS)
  figures = {
    "genome": genome_figure,
    "accuracy": lambda: accuracy_figure(rows),
    "seconds": lambda: seconds_figure(rows, 0.005),
    "strip": lambda: strip_figure(*zip(*((t, title) for title, t in evolved()), strict=True), (28, 28)),
  }
  for name in names or figures:
    save_figure(figures[name](), IMAGES / f"{name}.png")
    plt.close("all")


if __name__ == "__main__":
  main(sys.argv[1:])
