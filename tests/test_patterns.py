"""Patterns of masks: N of every M, blocks, units; which every method keeps to, at an exact count."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nets_jax
from nets_jax import searches
from nets_jax.networks.layers import Layer
from nets_jax.tickets.patterns import capacity, check_pattern, patterned, read_pattern
from nets_jax.tickets.pruning import top_masks
from nets_jax.tickets.ticket import unmasked_count

KEY = jax.random.key(4)
# Each method's small settings, and the density that it is to come to.
METHODS = {
  "random": {"density_deviation": 0.0},
  "snip": {"score_batch": 20},
  "synflow": {"rounds": 5, "score_batch": 20},
  "grasp": {"score_batch": 20},
  "concrete": {"concrete_epochs": 1},
  "gradinit": {"scale_steps": 2, "score_batch": 20},
  "random_scales": {"candidates": 2, "score_batch": 20},
  "rigl": {"mask_every": 3, "mask_allocation": "uniform"},
  "set": {"mask_every": 3, "mask_allocation": "uniform"},
  "gradual": {"mask_every": 3},
  "magnitude": {"score_batch": 20},
  "guided": {"population_size": 3, "generations": 3, "fitness_epochs": 0.3},
  "halved": {"population_size": 4, "generations": 3, "fitness_epochs": 0.3, "halvings": 1},
}


@pytest.fixture(scope="module")
def task(data):
  network = nets_jax.MLP((8, 4), 3)  # kernels of 6, 8 and 4 inputs
  return nets_jax.Task(network, data, nets_jax.Training(learning_rate=0.2, batch_size=12), epochs=2)


def rows_of(mask, length):
  """Every row of so many weights along the input axis, the last shorter if need be."""
  flat = np.asarray(mask).reshape(-1, *np.shape(mask)[-2:])
  return [
    flat[position, first : first + length, output]
    for position in range(flat.shape[0])
    for first in range(0, flat.shape[1], length)
    for output in range(flat.shape[2])
  ]


@pytest.mark.zoo
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("pattern", "density"), [("at_most_1:2", 0.3), ("1:2", 0.5)])
def test_every_method_keeps_to_n_of_m_at_its_exact_count(task, name, pattern, density):
  own = task.replace(mask_pattern=pattern)
  search = searches.make(name, {**METHODS[name], "target_density": density})
  found = nets_jax.search(KEY, own, search)
  masks = found.ticket.by_layer(found.ticket.masks)
  kept = [int(row.sum()) for mask in masks.values() for row in rows_of(mask, 2)]
  assert int(unmasked_count(found.ticket)) == round(density * (6 * 8 + 8 * 4 + 4 * 3))
  assert max(kept) == 1
  if pattern == "1:2":
    assert set(kept) == {1}


@pytest.mark.parametrize("scope", ["layer", "global", "lamp"])
def test_imp_keeps_to_a_pattern_in_its_last_cycle(task, scope):
  own = task.replace(mask_pattern="at_most_2:4")
  imp = nets_jax.Imp(cycles=4, cycle_epochs=1, prune_scope=scope, output_prune_fraction=0.2)
  found = nets_jax.search(KEY, own, imp)
  masks = found.ticket.by_layer(found.ticket.masks)
  assert max(row.sum() for mask in masks.values() for row in rows_of(mask, 4)) == 2
  exact = nets_jax.search(
    KEY,
    task.replace(mask_pattern="1:2"),
    imp.replace(cycles=1, prune_fraction=0.5, output_prune_fraction=0.5),
  )
  masks = exact.ticket.by_layer(exact.ticket.masks)
  assert {int(row.sum()) for mask in masks.values() for row in rows_of(mask, 2)} == {1}
  assert int(unmasked_count(exact.ticket)) == 46


@pytest.mark.parametrize("name", ["snip", "guided"])
def test_units_and_blocks_are_whole_but_for_the_last_that_makes_the_count(task, name):
  own = task.replace(mask_pattern="block_2x2")
  found = nets_jax.search(KEY, own, searches.make(name, {**METHODS[name], "target_density": 0.3}))
  masks = found.ticket.by_layer(found.ticket.masks)
  parts = 0
  for mask in masks.values():
    mask = np.asarray(mask)
    for i in range(0, mask.shape[0], 2):
      for j in range(0, mask.shape[1], 2):
        block = mask[i : i + 2, j : j + 2]
        parts += 0 < block.sum() < block.size
  assert int(unmasked_count(found.ticket)) == round(0.3 * 92)
  assert parts <= (4 if name == "guided" else 1)  # each of whose layers has a floor of its own
  units = nets_jax.search(
    KEY, task.replace(mask_pattern="unit"), searches.make("snip", {"score_batch": 20, "target_density": 0.5})
  )
  parts = sum(
    0 < column.sum() < len(column)
    for mask in units.ticket.by_layer(units.ticket.masks).values()
    for column in np.asarray(mask).T
  )
  assert parts <= 1


@st.composite
def problems(draw):
  """A kernel's scores, some of them alike or not to be kept, and a pattern."""
  shape = draw(st.sampled_from([(7, 3), (8, 2), (2, 5, 3)]))
  most, of = draw(st.sampled_from([(1, 2), (2, 4), (1, 4), (3, 4)]))
  seed = draw(st.integers(0, 2**32 - 1))
  rng = np.random.default_rng(seed)
  scores = rng.choice([rng.normal(size=shape), rng.integers(-2, 3, shape) * 10.0 ** rng.integers(-20, 20)])
  return scores.astype(np.float32), rng.random(shape) < 0.8, most, of


def by_hand(scores, alive, most, of):
  """The order in which weights are kept: of each row the highest few first, then the others."""
  flat = scores.reshape(-1, *scores.shape[-2:])
  places = np.arange(scores.size).reshape(flat.shape)
  first = set()
  for position in range(flat.shape[0]):
    for output in range(flat.shape[2]):
      for begin in range(0, flat.shape[1], of):
        row = places[position, begin : begin + of, output]
        row = sorted(row, key=lambda i: (not alive.ravel()[i], -scores.ravel()[i], i))
        first |= set(row[: math.ceil(len(row) * most / of)])
  return sorted(range(scores.size), key=lambda i: (i not in first, -scores.ravel()[i], i)), len(first)


@settings(max_examples=60, deadline=None)
@given(problems(), st.data())
def test_the_highest_are_those_of_the_pattern_then_the_others_in_order(problem, data):
  scores, alive, most, of = problem
  layer = Layer("a", scores.shape, None, f"at_most_{most}:{of}")
  order, can = by_hand(scores, alive, most, of)
  assert capacity(layer) == can
  count = data.draw(st.integers(1, scores.size))
  changed = patterned({"a": jnp.array(scores)}, [layer], {"a": jnp.array(alive)})
  masks = top_masks(changed, count)["a"]
  kept = np.flatnonzero(masks)
  values = scores.ravel()
  # The last bit of a score is lost, by which equals may change places.
  assert len(kept) == count
  wanted = set(order[:count])
  for i in set(kept) ^ wanted:
    edge = values[order[count - 1]]
    assert values[i] == pytest.approx(edge, rel=1e-6)


def test_what_is_not_to_be_kept_stays_last():
  layer = Layer("a", (4, 1), None, "at_most_1:2")
  scores = jnp.array([[-jnp.inf], [-1e30], [3e38], [-0.0]])
  order = jnp.argsort(-patterned({"a": scores}, [layer])["a"].ravel())
  assert order.tolist() == [2, 1, 3, 0]


def test_a_dense_layer_is_left_out_of_the_pattern(task):
  own = task.replace(mask_pattern="at_most_1:2", dense_layers=("output",))
  found = nets_jax.search(KEY, own, searches.make("snip", {"score_batch": 20, "target_density": 0.4}))
  masks = found.ticket.by_layer(found.ticket.masks)
  assert np.asarray(masks["output"]).all()
  assert max(row.sum() for name in ("hidden_0", "hidden_1") for row in rows_of(masks[name], 2)) == 1


@pytest.mark.parametrize(
  ("pattern", "density", "message"),
  [
    ("2:4", 0.4, r"mask_pattern=2:4 keeps 46 of the 92 weights here, and a density of 0\.4 is 37; give "
     r"a density of 0\.5, or mask_pattern=at_most_2:4 for fewer"),
    ("at_most_1:4", 0.4, r"mask_pattern=at_most_1:4 keeps at most 27 of the 92 .* give a density of 0\.29"),
    ("4:2", 0.5, "mask_pattern must be such as 2:4, at_most_2:4, block_4x4 or unit, not '4:2'"),
    ("block_0x4", 0.5, "mask_pattern must be such as"),
    ("two", 0.5, "mask_pattern must be such as"),
  ],
)  # fmt: skip
def test_an_impossible_pattern_is_one_line(task, pattern, density, message):
  own = task.replace(mask_pattern=pattern)
  with pytest.raises(nets_jax.UsageError, match=message):
    nets_jax.search(KEY, own, searches.make("snip", {"score_batch": 20, "target_density": density}))


def test_a_layer_with_a_count_of_its_own_leaves_the_others_within_their_pattern():
  """What it does not keep is no room for others; where its count breaks an exact pattern, a line says so."""
  layers = [
    Layer("a", (16, 8), 12, "at_most_2:4"), Layer("b", (16, 8), pattern="at_most_2:4")
  ]  # fmt: skip
  check_pattern(layers, 76 / 256)  # 12 and all 64 that b can have
  with pytest.raises(nets_jax.UsageError, match="keeps at most 76 of the 256 weights here"):
    check_pattern(layers, 77 / 256)
  exact = [layer._replace(pattern="2:4") for layer in layers]
  with pytest.raises(
    nets_jax.UsageError, match="a is to keep 12 weights, but mask_pattern=2:4 keeps exactly 64"
  ):
    check_pattern(exact, 76 / 256)
  whole = [exact[0]._replace(kept=128), exact[1]]  # dense, so without the pattern
  check_pattern(whole, 192 / 256)
  check_pattern([exact[0]._replace(kept=64), exact[1]], 0.5)


def test_searches_by_chance_and_layers_that_are_too_full_are_refused(task):
  own = task.replace(mask_pattern="at_most_1:2")
  with pytest.raises(nets_jax.UsageError, match="searches that choose masks by scores, and here chance does"):
    nets_jax.search(KEY, own, searches.make("paper", {"target_density": 0.3, "population_size": 2}))
  with pytest.raises(nets_jax.UsageError, match="the layer output is to keep 9 weights, but by mask_pat"):
    nets_jax.search(KEY, own, searches.make("erk", {"target_density": 0.45}))
  with pytest.raises(nets_jax.UsageError, match=r"keeps at most 46 of the 92 weights here, and a density"):
    nets_jax.search(KEY, own, nets_jax.Imp(cycles=1, cycle_epochs=1))


def test_what_would_not_keep_to_a_pattern_is_refused(task):
  own = task.replace(mask_pattern="block_2x2")
  with pytest.raises(nets_jax.UsageError, match="rigl and set move weights one by one, so mask_pat"):
    nets_jax.search(KEY, own, searches.make("set", {**METHODS["set"], "target_density": 0.3}))
  with pytest.raises(nets_jax.UsageError, match="a mask_pattern is of one density, so density_dev"):
    nets_jax.search(KEY, task.replace(mask_pattern="1:2"), searches.make("random", {"target_density": 0.5}))
  with pytest.raises(nets_jax.UsageError, match="give cycles, prune_fraction, output_prune_fraction that"):
    nets_jax.search(KEY, task.replace(mask_pattern="1:2"), nets_jax.Imp(cycles=2, cycle_epochs=1))


def test_the_density_that_a_message_gives_is_taken_of_large_networks_too():
  """A first layer of three channels, so that two of four are more than half of all."""
  layers = [Layer("a", (3, 3, 3, 64), None, "2:4"), Layer("b", (3, 3, 512, 2462), None, "2:4")]
  with pytest.raises(nets_jax.UsageError, match="give a density of ") as told:
    check_pattern(layers, 0.5)
  check_pattern(layers, float(str(told.value).partition("give a density of ")[2].partition(",")[0]))


def test_patterns_are_read():
  assert read_pattern("2:4") == (2, 4, True, (0, 0))
  assert read_pattern("at_most_1:16") == (1, 16, False, (0, 0))
  assert read_pattern("block_4x1").block == (4, 1)
  check_pattern([Layer("a", (10, 10), None, "2:4")], 0.5)  # rows of 4, 4 and 2: 2, 2 and 1 of them
  assert capacity(Layer("a", (10, 10), None, "1:4")) == 30
  assert capacity(Layer("a", (9, 10), None, "2:4")) == 50
