"""The figures that explain, and those of README and docs, which are of the results' tables."""

import importlib.util
import pathlib

import jax
import numpy as np
import pandas as pd
import pytest

import nets_jax
from nets_jax.analysis import figures
from nets_jax.analysis.ticket_figures import connections

ROOT = pathlib.Path(__file__).parent.parent
SPEC = importlib.util.spec_from_file_location("draw_figures", ROOT / "docs/draw_figures.py")
drawn = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(drawn)


def tickets_of(shape, number):
  network = nets_jax.MLP((5, 4), 3)
  return [nets_jax.random_ticket(i, network, shape, 0.4) for i in range(number)]


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 2)])
def test_connections_are_counted_pixel_by_pixel(shape):
  (ticket,) = tickets_of(shape, 1)
  mask = np.asarray(jax.tree.leaves(ticket.by_layer(ticket.masks)["hidden_0"])[0])
  counts = np.zeros(shape[:2], int)
  for row, pixel in zip(mask, np.ndindex(*shape), strict=True):
    counts[pixel[:2]] += row.sum()
  np.testing.assert_array_equal(connections(ticket, shape), counts)


def test_the_strip_has_a_picture_for_each_ticket():
  tickets = tickets_of((3, 4), 3)
  strip = figures.strip_figure(tickets, ["a", "b", "c"], (3, 4))
  assert [axes.get_title() for axes in strip.axes] == ["a", "b", "c"]
  for axes, ticket in zip(strip.axes, tickets, strict=True):
    np.testing.assert_array_equal(axes.images[0].get_array(), connections(ticket, (3, 4)))
  with pytest.raises(nets_jax.UsageError, match="takes the 7 numbers of an image"):
    figures.strip_figure(tickets, ["a", "b", "c"], (7, 1))


def test_the_diagram_shows_what_its_mask_keeps():
  pictures = figures.genome_figure().axes[0].images
  weights, mask, trained = (np.ma.filled(picture.get_array().astype(float), np.nan) for picture in pictures)
  assert weights.shape == mask.shape == trained.shape
  np.testing.assert_array_equal(np.isfinite(trained), mask > 0)


def test_the_front_figure_is_of_the_table():
  rows = pd.read_csv(drawn.RESULTS)
  (axes,) = drawn.accuracy_figure(rows).axes
  lines = {bar.get_label(): bar[0] for bar in axes.containers}
  assert len(lines) == len(drawn.METHODS)
  for method, (label, *_) in drawn.METHODS.items():
    means = rows[rows.method == method].groupby("target_density").test_accuracy.mean()
    np.testing.assert_allclose(np.asarray(lines[label].get_ydata(), float), 100 * means.to_numpy())
    assert len(means) == 5
  (dense,) = {y for line in axes.lines if line.get_linestyle() == "--" for y in line.get_ydata()}
  assert dense == pytest.approx(100 * rows[rows.method == "dense"].test_accuracy.mean())


def test_the_figure_of_seconds_is_of_the_table():
  rows = pd.read_csv(drawn.RESULTS)
  (axes,) = drawn.seconds_figure(rows, 0.005).axes
  for points, method in zip(axes.collections, drawn.METHODS, strict=True):
    own = rows[(rows.method == method) & (rows.target_density == 0.005)]
    np.testing.assert_allclose(points.get_offsets()[:, 0], own.search_seconds)
    np.testing.assert_allclose(points.get_offsets()[:, 1], 100 * own.test_accuracy)
