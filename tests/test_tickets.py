import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_same_bits
from hypothesis import given, settings
from hypothesis import strategies as st

import nets_jax
from nets_jax.baselines.random_tickets import random_ticket
from nets_jax.networks.zoo import lenet_300_100
from nets_jax.tickets.controls import reinitialise, shuffle_mask, unmask
from nets_jax.tickets.pruning import top_masks
from nets_jax.tickets.ticket import (
  best,
  check_fits,
  initialise,
  map_kernels,
  maskable_count,
  phenotype,
  unmasked_count,
)


def test_density_counts_unmasked_weights(ticket):
  masks = [np.asarray(mask) for mask in jax.tree.leaves(ticket.masks)]
  kept, total = sum(m.sum() for m in masks), sum(m.size for m in masks)
  assert int(unmasked_count(ticket)) == kept
  assert maskable_count(ticket) == total == 6 * 8 + 8 * 5 + 5 * 3
  np.testing.assert_allclose(nets_jax.density(ticket), kept / total)
  for name, layer in nets_jax.layer_densities(ticket).items():
    np.testing.assert_allclose(layer, np.mean(ticket.masks[name]["kernel"]))
    scale = np.sqrt(np.mean(np.square(ticket.weights[name]["kernel"])))
    np.testing.assert_allclose(nets_jax.layer_scales(ticket)[name], scale, rtol=1e-6)


def test_phenotype_is_zero_where_masked_whatever_the_weight(ticket):
  poisoned = ticket.replace(
    weights=map_kernels(lambda m, w: jnp.where(m, w, jnp.nan), ticket.masks, ticket.weights)
  )
  for name, layer in phenotype(poisoned).items():
    mask = np.asarray(ticket.masks[name]["kernel"])
    np.testing.assert_array_equal(layer["kernel"][~mask], 0)
    np.testing.assert_array_equal(layer["kernel"][mask], ticket.weights[name]["kernel"][mask])
    np.testing.assert_array_equal(layer["bias"], ticket.weights[name]["bias"])


def test_first_masks_are_bernoulli_and_independent_of_the_weights():
  ticket = initialise(jax.random.key(0), lenet_300_100(), (28, 28, 1), initial_density=0.3)
  assert abs(float(nets_jax.density(ticket)) - 0.3) < 0.005
  for name, layer in ticket.masks.items():
    mask, weight = (
      np.asarray(x).ravel().astype(float) for x in (layer["kernel"], ticket.weights[name]["kernel"])
    )
    assert abs(np.corrcoef(mask, weight)[0, 1]) < 5 / np.sqrt(mask.size)
    assert layer["bias"] is None


def test_full_initial_density_masks_nothing(network, data):
  assert float(nets_jax.density(initialise(jax.random.key(1), network, data.input_shape))) == 1.0


def test_stack_take_and_best(network, data):
  alone = [initialise(jax.random.key(i), network, data.input_shape) for i in range(3)]
  population = nets_jax.stack(alone)
  for i, ticket in enumerate(alone):
    assert_same_bits(nets_jax.take(population, i), ticket)
  assert_same_bits(nets_jax.take(population, jnp.array([2, 0])), nets_jax.stack([alone[2], alone[0]]))
  assert_same_bits(best(population, jnp.array([2.0, 1.0, 1.0])), alone[1])


@settings(deadline=None, max_examples=40)
@given(
  st.lists(st.sampled_from([0.0, -0.0, 1.0, 2.0, -3.0, np.nan, np.inf, -np.inf]), min_size=5, max_size=5),
  st.integers(0, 5),
)
def test_top_masks_keep_exactly_the_count_of_the_highest(values, count):
  scores = {"a": {"kernel": jnp.array(values[:3])}, "b": {"kernel": jnp.array([values[3:]]), "bias": None}}
  masks = top_masks(scores, count)
  got = np.concatenate([np.asarray(masks["a"]["kernel"]), np.asarray(masks["b"]["kernel"]).ravel()])
  ranked = sorted(range(5), key=lambda i: (-values[i] if not np.isnan(values[i]) else np.inf, i))
  assert got.sum() == count
  assert set(np.flatnonzero(got)) == set(ranked[:count])
  assert masks["b"]["bias"] is None


@pytest.mark.parametrize("density", [0.01, 0.2, 0.5, 1.0])
def test_random_tickets_have_the_exact_count(network, data, density):
  ticket = random_ticket(jax.random.key(0), network, data.input_shape, density)
  assert int(unmasked_count(ticket)) == round(density * maskable_count(ticket))
  dense = random_ticket(jax.random.key(0), network, data.input_shape, 1.0)
  assert_same_bits(ticket.weights, dense.weights)
  other = random_ticket(jax.random.key(1), network, data.input_shape, density)
  if 0 < density < 1:
    assert any(
      (a != b).any() for a, b in zip(*map(jax.tree.leaves, (ticket.masks, other.masks)), strict=True)
    )


def test_the_controls(ticket, network):
  fresh = reinitialise(jax.random.key(8), ticket, network, (6,))
  assert_same_bits(fresh.masks, ticket.masks)
  assert (fresh.weights["hidden_0"]["kernel"] != ticket.weights["hidden_0"]["kernel"]).all()
  shuffled = shuffle_mask(jax.random.key(8), ticket)
  assert_same_bits(shuffled.weights, ticket.weights)
  for old, new in zip(jax.tree.leaves(ticket.masks), jax.tree.leaves(shuffled.masks), strict=True):
    assert old.sum() == new.sum()
  assert (shuffled.masks["hidden_0"]["kernel"] != ticket.masks["hidden_0"]["kernel"]).any()
  dense = unmask(ticket)
  assert_same_bits(dense.weights, ticket.weights)
  assert float(nets_jax.density(dense)) == 1


def test_a_ticket_of_another_shape_does_not_fit(ticket, network):
  check_fits(ticket, network, (6,))
  with pytest.raises(
    nets_jax.UsageError,
    match=r"weights/hidden_0/kernel is \(6, 8\) in the ticket and \(7, 8\) in the",
  ):
    check_fits(ticket, network, (7,))
  with pytest.raises(nets_jax.UsageError, match=r"weights/hidden_1/bias is \(5,\) in the ticket and missing"):
    check_fits(ticket, nets_jax.MLP((8,), 3), (6,))


def test_weights_of_several_trained_tickets_are_no_tickets(task, tmp_path):
  ticket = nets_jax.random_ticket(0, task.network, task.data.input_shape, 0.5)
  trained = nets_jax.train_tickets(0, ticket, task, epochs=1)
  for weights, message in (
    (trained, r"with no Trained in them; of what train_tickets gives .*take\(trained\.weights, 0\)"),
    (trained.weights, r"an axis more than the network's; of a population .*take\(trained\.weights, 0\)"),
  ):
    wrong = ticket.replace(weights=weights)
    with pytest.raises(nets_jax.UsageError, match=message):
      nets_jax.compact(wrong, task.network, task.data.input_shape)
    with pytest.raises(nets_jax.UsageError, match=message):
      nets_jax.train_tickets(0, wrong, task, epochs=1)
    with pytest.raises(nets_jax.UsageError, match=message):
      nets_jax.judge_ticket(0, wrong, task)
    with pytest.raises(nets_jax.UsageError, match=r"Trained in them|of its weights' shape"):
      nets_jax.save_ticket(tmp_path / "ticket.safetensors", wrong, task.network)
  assert list(tmp_path.iterdir()) == []
  one = nets_jax.take(trained.weights, 0)
  assert nets_jax.compact(ticket.replace(weights=one), task.network, task.data.input_shape)
