"""How many weights random tickets keep of each layer, by the rules of the literature."""

import jax
import numpy as np
import pytest
from conftest import assert_same_bits
from hypothesis import given, settings
from hypothesis import strategies as st

import nets_jax
from nets_jax.baselines.random_tickets import Random, random_ticket
from nets_jax.networks.layers import Layer
from nets_jax.tickets.allocation import ALLOCATIONS, allocate, erk, smart_ratios
from nets_jax.tickets.ticket import layers_of

LENET = (Layer("a", (784, 300), None), Layer("b", (300, 100), None), Layer("c", (100, 10), None))
KEY = jax.random.key(0)


@st.composite
def networks(draw):
  """Layers of any shapes, and a count that they can have."""
  shapes = draw(st.lists(st.lists(st.integers(1, 12), min_size=2, max_size=4), min_size=1, max_size=5))
  layers = [Layer(f"layer_{i}", tuple(shape), None) for i, shape in enumerate(shapes)]
  return layers, draw(st.integers(len(layers), sum(layer.size for layer in layers)))


def by_bisection(layers, count):
  """Erdos-Renyi-Kernel, by the one equation that it has to meet."""
  low, high = 0.0, float(max(layer.size for layer in layers))
  for _ in range(200):
    middle = (low + high) / 2
    kept = sum(min(layer.size, middle * sum(layer.shape)) for layer in layers)
    low, high = (middle, high) if kept < count else (low, middle)
  return [min(1.0, high * sum(layer.shape) / layer.size) for layer in layers]


@settings(max_examples=100, deadline=None)
@given(networks())
def test_erk_is_its_equation(problem):
  np.testing.assert_allclose(erk(*problem), by_bisection(*problem), rtol=1e-6, atol=1e-9)


def test_smart_ratios_are_the_papers():
  """k^2 + k from the output, 12 and 6 here, and 0.3 of the last linear layer; what does not fit goes on."""
  first, second, last = smart_ratios(LENET, 13310)
  assert (first / second, last) == (pytest.approx(2), 0.3)
  assert first * 235200 + second * 30000 + 300 == pytest.approx(13310)
  first, second, last = smart_ratios(LENET, 255500)
  assert (first, last) == (1, 0.3)
  assert second * 30000 == pytest.approx(255500 - 235200 - 300)
  images = (Layer("a", (3, 3, 1, 4), None), Layer("b", (3, 3, 4, 4), None))
  first, last = smart_ratios(images, 50)  # no linear layer: 6 and 2
  assert first / last == pytest.approx(3)
  with pytest.raises(nets_jax.UsageError, match=r"keep 30% of the last layer c, .* than the 300 weights to"):
    smart_ratios(LENET, 300)


@settings(max_examples=100, deadline=None)
@given(networks(), st.sampled_from(sorted(ALLOCATIONS)))
def test_the_count_is_exact_and_no_layer_empty(problem, rule):
  layers, count = problem
  try:
    kept = allocate(ALLOCATIONS[rule], layers, count)
  except nets_jax.UsageError:  # where the last layer alone would keep more
    assert rule == "smart_ratios"
    assert 0.3 * layers[-1].size >= count
    assert len(layers[-1].shape) == 2
    return
  assert sum(kept.values()) == count
  assert all(1 <= kept[layer.name] <= layer.size for layer in layers)
  wanted = ALLOCATIONS[rule](layers, count)
  if all(share * layer.size >= 1 for share, layer in zip(wanted, layers, strict=True)):
    assert all(abs(kept[layer.name] - x * layer.size) < 1 for x, layer in zip(wanted, layers, strict=True))


@pytest.mark.parametrize("name", ["erk", "smart_ratios"])
def test_a_ticket_has_each_layers_count(task, name):
  found = nets_jax.search(0, task, nets_jax.searches.make(name, {"target_density": 0.4})).ticket
  counts = allocate(ALLOCATIONS[name], task.layers, round(0.4 * sum(layer.size for layer in task.layers)))
  masks = found.by_layer(found.masks)
  assert {layer: int(mask.sum()) for layer, mask in masks.items()} == counts
  other = nets_jax.search(0, task, Random(target_density=0.4, density_deviation=0)).ticket
  assert_same_bits(found.weights, other.weights)  # of one seed the same


def test_layers_with_a_density_of_their_own_keep_it(task):
  task = task.replace(layer_densities={"output": 0.8})
  found = nets_jax.search(0, task, Random(0.4, 0.0, allocation="erk")).ticket
  masks = found.by_layer(found.masks)
  assert int(masks["output"].sum()) == 12
  assert sum(int(mask.sum()) for mask in masks.values()) == round(0.4 * 103)


def test_a_rule_of_ones_own(task):
  def all_of_the_first(layers, count):
    return [min(1.0, count / layers[0].size), *[0.0] * (len(layers) - 1)]

  found = nets_jax.search(0, task, Random(0.3, 0.0, allocation=all_of_the_first)).ticket
  masks = [int(mask.sum()) for mask in found.by_layer(found.masks).values()]
  assert masks == [29, 1, 1]
  with pytest.raises(nets_jax.UsageError, match=r"must give a density for each of 3 layers, not \[0.5\]"):
    nets_jax.search(0, task, Random(0.3, 0.0, allocation=lambda layers, count: [0.5]))
  with pytest.raises(nets_jax.UsageError, match="density_deviation must be 0; give that, or allocation=none"):
    nets_jax.search(0, task, Random(0.3, allocation="erk"))
  with pytest.raises(nets_jax.UsageError, match="2 weights to keep leave 2 for 3 layers, which need 1 each"):
    nets_jax.search(0, task, Random(0.02, 0.0, allocation="uniform"))
  with pytest.raises(nets_jax.UsageError, match="allocation must be one of none, uniform, erk, smart_ratios"):
    nets_jax.search(0, task, Random(allocation="er"))


def test_counts_may_be_given(network):
  ticket = random_ticket(KEY, network, (6,), 0.5, counts={"hidden_0": 7, "hidden_1": 40, "output": 2})
  masks = ticket.by_layer(ticket.masks)
  assert [int(masks[layer.name].sum()) for layer in layers_of(ticket)] == [7, 40, 2]
