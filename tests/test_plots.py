import math
import pathlib
import subprocess
import sys
import warnings

import numpy as np
import pytest
from matplotlib.collections import PathCollection

import nets_jax
from nets_jax.analysis.density_figures import LEGEND_WIDTH, cost_figure, densities_figure, legend_label
from nets_jax.analysis.frontier_figures import frontier_figure, log_ticks
from nets_jax.analysis.history_figures import INFEASIBLE, evolution_figure, lineage_figure
from nets_jax.analysis.study_figures import effects_figure
from nets_jax.analysis.style import save_figure
from nets_jax.analysis.ticket_figures import connectivity_figure, masks_figure, weights_figure
from nets_jax.engine.tables import write_csv
from nets_jax.evolution import ranking
from nets_jax.training import trainer
from nets_jax.training.measures import Measures

HISTORY = [
  {"generation": g, "genome": i, "fitness": 2.0 - g + i, "valid_loss": 1.0 + i, "density": 1 - 0.2 * g}
  for g in range(3)
  for i in range(2)
] + [{"generation": 2, "genome": 2, "fitness": np.inf, "valid_loss": np.nan, "density": 0.5}]


def test_the_evolution_figure_shows_the_best_and_the_range():
  figure = evolution_figure(HISTORY, target_density=0.2)
  density, loss, lowest = figure.axes
  np.testing.assert_allclose(density.lines[0].get_ydata(), [100, 80, 60])
  np.testing.assert_allclose(lowest.lines[0].get_ydata(), [2, 1, 0])
  band = loss.collections[0].get_paths()[0].vertices[:, 1]
  assert (band.min(), band.max()) == (1, 2)
  assert all(axes.get_xlabel() == "generation" and axes.get_ylabel() for axes in figure.axes)


def test_what_has_nearly_diverged_does_not_flatten_the_rest():
  rows = [{**row, "valid_loss": 1e18 if row["genome"] else row["valid_loss"]} for row in HISTORY[:-1]]
  rows += [{**row, "genome": row["genome"] + 2, "fitness": 9.0, "valid_loss": 1.5} for row in rows[::2]] * 3
  loss = evolution_figure(rows).axes[1]
  assert 1.5 < loss.get_ylim()[1] < 3
  best = {**rows[0], "fitness": 0.0, "valid_loss": 7.0}
  assert evolution_figure([best, *rows[1:]]).axes[1].get_ylim()[1] > 7  # the lines are shown whole


def test_accuracy_is_drawn_where_fitness_says_only_what_is_too_dense():
  assert INFEASIBLE == ranking.INFEASIBLE
  rows = [{**row, "fitness": 1e3 * row["density"] + row["fitness"], "valid_accuracy": 0.5} for row in HISTORY]
  assert evolution_figure(rows).axes[2].get_ylabel() == "validation accuracy after training (%)"
  assert evolution_figure(HISTORY).axes[2].get_ylabel() == "fitness (minimised)"


def test_figures_are_made_from_files_alone(tmp_path):
  write_csv(tmp_path / "history.csv", HISTORY)
  code = f"""if True:
    import csv, sys
    sys.modules["jax"] = None
    import importlib.util
    # The package's facade needs jax; the module that draws must not.
    import types
    package = types.ModuleType("nets_jax"); package.__path__ = [{str(PACKAGE)!r}]
    sys.modules["nets_jax"] = package
    from nets_jax.analysis import figures
    table = csv.DictReader(open({str(tmp_path / "history.csv")!r}))
    rows = [{{k: float(v) for k, v in row.items()}} for row in table]
    figures.save_figure(figures.evolution_figure(rows), {str(tmp_path / "figure.png")!r})
  """
  subprocess.run([sys.executable, "-c", code], check=True)
  assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


PACKAGE = pathlib.Path(nets_jax.__file__).parent
MASK = np.array([[1, 0], [0, 0], [1, 1], [1, 0]], bool)
TICKET = nets_jax.Ticket(
  {
    "hidden_0": {"kernel": np.arange(8.0).reshape(4, 2), "bias": np.zeros(2)},
    "output": {"kernel": np.ones((2, 3))},
  },
  {"hidden_0": {"kernel": MASK, "bias": None}, "output": {"kernel": np.ones((2, 3), bool)}},
)


def test_masks_are_images_of_their_layers():
  first, second = masks_figure(TICKET).axes
  np.testing.assert_array_equal(first.images[0].get_array(), MASK)
  assert first.get_title() == "hidden_0: 50.0% of 8"
  assert second.get_title() == "output: 100.0% of 6"


def test_connectivity_counts_what_each_pixel_keeps():
  axes, colours = connectivity_figure(TICKET, (2, 2)).axes
  np.testing.assert_array_equal(axes.images[0].get_array(), [[1, 0], [2, 1]])
  assert colours.get_ylabel() == "connections left, of 2"
  axes, colours = connectivity_figure(TICKET, (2, 1, 2)).axes  # two channels of each pixel
  np.testing.assert_array_equal(axes.images[0].get_array(), [[1], [3]])
  assert colours.get_ylabel() == "connections left, of 4"
  with pytest.raises(nets_jax.UsageError, match="no layer of the ticket takes the 9 numbers of an image"):
    connectivity_figure(TICKET, (3, 3))


def test_weights_before_and_after_are_those_that_are_kept():
  trained = {
    "hidden_0": {"kernel": np.full((4, 2), 3.0), "bias": np.ones(2)},
    "output": {"kernel": np.ones((2, 3))},
  }
  figure = weights_figure(TICKET, trained)
  first, _ = figure.axes
  before, after = (sum(bar.get_height() for bar in bars) for bars in first.containers)
  assert after == 4
  assert before >= 2  # the extreme thousandths are outside
  assert [text.get_text() for text in figure.legends[0].get_texts()] == ["before training", "after training"]


def test_the_lineage_follows_parents_back_to_the_first_generation():
  parents = {(1, 0): (0, 0), (1, 1): (0, 2), (2, 0): (0, 1), (2, 1): (1, 1)}
  history = [
    {"generation": g, "genome": i, "fitness": 9.0 - 3 * g + i, "density": 1 - 0.1 * g - 0.01 * i}
    | dict(zip(("parent_1", "parent_2"), parents.get((g, i), (-1, -1)), strict=True))
    for g in range(3)
    for i in range(3 if g == 0 else 2)
  ]
  (axes,) = lineage_figure(history).axes
  everyone, lines, ancestors, best = axes.collections
  assert len(lines.get_segments()) == 2 + 2 * 2  # of the best, and of its two parents
  assert len(everyone.get_offsets()) == 7
  places = {(int(x), round(y)) for x, y in ancestors.get_offsets()}
  assert places == {(2, 80), (1, 90), (1, 89), (0, 100), (0, 98)}  # not genome 1 of generation 0
  shares = dict(
    zip(map(tuple, np.round(ancestors.get_offsets())), (ancestors.get_sizes() - 4) / 46, strict=True)
  )
  assert shares[(0, 100)] == pytest.approx(0.75)
  assert shares[(0, 98)] == pytest.approx(0.25)
  np.testing.assert_allclose(best.get_offsets(), [[2, 80]])


def test_effects_are_drawn_with_their_intervals():
  results = [
    {
      "noise_rate": rate,
      "selection": scheme,
      "density": 0.2,
      "fitness": float("nan"),
      "valid_loss": loss,
      "test_accuracy": 0.9,
    }
    for rate in (0.01, 0.1)
    for scheme in ("rank", "roulette")
    for loss in (rate, 3 * rate)
  ]
  figure = effects_figure(results, ["noise_rate", "selection"])
  assert len(figure.axes) == 3 * 2  # fitness has no figures
  assert [axes.get_ylabel() for axes in figure.axes[::2]] == [
    "density (%)",
    "validation loss (nats)",
    "test accuracy (%)",
  ]
  loss = figure.axes[2]
  assert loss.get_xscale() == "log"
  np.testing.assert_allclose(np.asarray(loss.lines[0].get_ydata(), float), [0.02, 0.2])
  assert [label.get_text() for label in figure.axes[3].get_xticklabels()] == ["rank", "roulette"]


def test_curves_by_method_have_trials():
  rows = [{"ticket": i, "epoch": 1, "test_loss": float(i)} for i in range(3)]
  found = trainer.Trained({}, {}, rows, 0.0, {}).by_method(["nets", "dense", "nets"])
  assert [(row["method"], row["trial"], row["test_loss"]) for row in found] == [
    ("nets", 0, 0.0), ("dense", 0, 1.0), ("nets", 1, 2.0),
  ]  # fmt: skip


def test_the_frontier_is_a_staircase_over_all_that_was_met():
  frontier = [HISTORY[4], HISTORY[0]]
  axes, bar = frontier_figure(HISTORY, frontier).axes
  points, ends = (collection.get_offsets() for collection in axes.collections)
  assert len(points) == len(HISTORY) - 1  # the one that diverged is not drawn
  np.testing.assert_allclose(ends, [[60, 1], [100, 1]])
  assert axes.lines[0].get_drawstyle() == "steps-post"
  assert bar.get_ylabel() == "generation"


def test_a_loss_of_nothing_has_a_place_on_the_frontier_too():
  rows = [{**row, "valid_loss": 0.0} for row in HISTORY[:2]] + HISTORY[2:]
  axes, _ = frontier_figure(rows, [rows[0]]).axes
  low, high = axes.get_ylim()
  assert 0 < low < axes.collections[1].get_offsets()[0][1] < high


@pytest.mark.parametrize(
  ("loss", "shift", "scale"),
  [
    ("own", -5.0, "linear"),
    ("own", 0.0, "linear"),
    ("own", 0.1, "log"),
    ("cross_entropy", 0.0, "log"),
    ("cross_entropy", -5.0, "linear"),
  ],
)
def test_an_axis_of_losses_is_logarithmic_only_above_0(loss, shift, scale):
  rows = [{**row, "valid_loss": shift + i} for i, row in enumerate(HISTORY[:-1])]
  axes, _ = frontier_figure(rows, rows[:1], Measures(loss, "own")).axes
  assert axes.get_yscale() == scale
  heights, least = axes.collections[0].get_offsets()[:, 1], 1e-6 if scale == "log" else -9
  np.testing.assert_allclose(heights, [max(row["valid_loss"], least) for row in rows])
  low, high = axes.get_ylim()
  assert low < min(heights) < high


@pytest.mark.parametrize(
  ("low", "high", "ticks"),
  [
    (0.9, 2100.0, [1, 10, 100, 1000]),
    (1.0, 100.0, [1, 2, 5, 10, 20, 50, 100]),
    (60.0, 100.0, [60, 70, 80, 90, 100]),
    (1.2, 1.3, [1.2, 1.3]),
  ],
)
def test_ticks_of_a_logarithmic_axis(low, high, ticks):
  np.testing.assert_allclose(log_ticks(low, high), ticks)


def densities_row(method, target, accuracy, epochs=0.0, trial=0):
  return {
    "method": method, "target_density": target, "density": 1.05 * target, "trial": trial,
    "test_accuracy": accuracy, "search_epochs": epochs, "search_seconds": epochs / 2,
  }  # fmt: skip


DENSITIES = [
  *(densities_row("guided", d, 0.9 + d / 10 + t / 100, 52, t) for d in (0.2, 0.05) for t in range(2)),
  *(densities_row("imp", d, 0.9, 350, t) for d in (0.2, 0.05) for t in range(2)),
  densities_row("luck", 0.05, 0.8),
  densities_row("dense", 1.0, 0.95),
]


def test_densities_have_a_line_for_each_method():
  (axes,) = densities_figure(DENSITIES).axes
  lines = {
    line.get_label(): line for line in axes.get_legend_handles_labels()[0] if hasattr(line, "get_xdata")
  }
  np.testing.assert_allclose(lines["dense (100 %)"].get_xydata()[:, 1], 95)
  drawn = {c.get_label(): np.array(c.lines[0].get_xydata(), float).T for c in axes.containers}
  assert set(drawn) == {"guided", "imp", "luck"}
  np.testing.assert_allclose(drawn["guided"], [[5.25, 21], [91, 92.5]])
  assert [label.get_text() for label in axes.get_xticklabels()] == ["5", "20"]


def test_an_interval_is_drawn_of_three_trials_and_more():
  accuracies = {"two": (0.8, 0.9), "three": (0.8, 0.85, 0.9)}
  rows = [densities_row(name, 0.2, a, trial=t) for name, own in accuracies.items() for t, a in enumerate(own)]
  (axes,) = densities_figure(rows).axes
  halves = {}
  for container in axes.containers:
    (segment,) = container.lines[2][0].get_segments()
    halves[container.get_label()] = np.ptp(segment[:, 1]) / 2
  # Student's quantile of two degrees of freedom is 4.3027, the deviation 5 points.
  assert halves == {"two": 0, "three": pytest.approx(4.3027 * 5 / 3**0.5, rel=1e-4)}


def test_what_fails_does_not_press_the_others_together():
  (axes,) = densities_figure(DENSITIES).axes
  assert (axes.get_yscale(), axes.get_ylabel()) == ("linear", "test accuracy (%)")
  (axes,) = densities_figure([*DENSITIES, densities_row("chance", 0.05, 0.1)]).axes
  assert axes.get_ylabel() == "test accuracy (%)\n(on a scale of the log of the error)"
  heights = axes.transData.transform([(5, accuracy) for accuracy in (0, 90, 99)])[:, 1]
  np.testing.assert_allclose(heights[1] - heights[0], heights[2] - heights[1])  # errors of 100, 10, 1 %
  assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "20", "50", "80", "90", "95"]
  perfect = densities_figure(
    [*DENSITIES, densities_row("chance", 0.05, 0.1), densities_row("perfect", 0.05, 1.0)]
  )
  assert np.isfinite(perfect.axes[0].get_ylim()).all()


def test_a_long_name_leaves_room_for_the_figure(tmp_path):
  name = (
    "guided:population_size=1:elites=0:parents=1:scale_deviation=0:final_scale_deviation=0:fitness_epochs=10"
  )
  label = legend_label(name)
  assert label.replace("\n  ", "") == name
  assert max(map(len, label.split("\n"))) <= LEGEND_WIDTH + 2
  rows = [*DENSITIES, *(densities_row(name, 0.2, 0.93, 130, t) for t in range(2))]
  for figure in (densities_figure(rows), cost_figure(rows)):
    with warnings.catch_warnings(action="error"):
      save_figure(figure, tmp_path / "figure.png")
    assert figure.axes[0].get_position().width > 0.3


def test_cost_has_a_panel_for_each_density_over_the_epochs_of_search():
  tuned = [{**row, "tuning_epochs": 1000.0 if row["method"] == "imp" else math.nan} for row in DENSITIES]
  figure = cost_figure(tuned)
  dense, sparse = figure.axes
  drawn = {c.get_label(): np.array(c.lines[0].get_xydata(), float).T for c in dense.containers}
  assert set(drawn) == {"guided", "imp"}
  assert {c.get_label() for c in sparse.containers} == {"guided", "imp", "luck"}
  np.testing.assert_allclose(drawn["imp"], [[350], [90]])
  assert [axes.get_ylabel() for axes in figure.axes] == [
    "test accuracy at 20 % (%)", "test accuracy at 5 % (%)",
  ]  # fmt: skip
  # With its tuning IMP is at 1,350; nothing else was tuned.
  spans = [line.get_xdata() for line in dense.lines if list(line.get_xdata()) == [350, 1350]]
  assert len(spans) == 1
  assert [text.get_text() for text in figure.legends[0].get_texts()] == [
    "guided", "imp", "luck", "dense (100 %)",
  ]  # fmt: skip
  hollow = {
    label: [c for c in axes.collections if isinstance(c, PathCollection) and not len(c.get_facecolors())]
    for axes, label in ((dense, "tuned"), (cost_figure(DENSITIES).axes[0], "not"))
  }
  assert {label: len(points) for label, points in hollow.items()} == {"tuned": 1, "not": 0}
