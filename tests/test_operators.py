import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_same_bits
from hypothesis import given, settings
from hypothesis import strategies as st

import nets_jax
from nets_jax import operators
from nets_jax.evolution.selection import SELECTIONS
from nets_jax.tickets.ticket import initialise

NETWORK, SHAPE = nets_jax.MLP((300, 100), 10), (784,)


@pytest.fixture(scope="module")
def genome():
  return initialise(jax.random.key(0), NETWORK, SHAPE, initial_density=0.7)


def genes(ticket):
  """All weights and mask bits that are genes, flat."""
  names = sorted(ticket.weights)
  weights = np.concatenate([np.asarray(ticket.weights[n]["kernel"]).ravel() for n in names])
  return weights, np.concatenate([np.asarray(ticket.masks[n]["kernel"]).ravel() for n in names])


def assert_rate(chosen, rate):
  assert abs(np.mean(chosen) - rate) < 5 * np.sqrt(rate * (1 - rate) / chosen.size) + 1e-12


def assert_biases_untouched(child, parent):
  for name in parent.weights:
    np.testing.assert_array_equal(child.weights[name]["bias"], parent.weights[name]["bias"])


def drawn(before, after):
  """Where weights changed."""
  return genes(before)[0] != genes(after)[0]


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.5, 1.0])
def test_crossover_moves_weight_and_mask_together(genome, rate):
  other = initialise(jax.random.key(9), NETWORK, SHAPE, initial_density=0.2)
  child = operators.crossover(jax.random.key(1), genome, other, rate)
  (w1, m1), (w2, m2), (w, m) = map(genes, (genome, other, child))
  from_1 = w == w1
  assert_rate(from_1, rate)
  np.testing.assert_array_equal(w, np.where(from_1, w1, w2))
  np.testing.assert_array_equal(m, np.where(from_1, m1, m2))


@pytest.mark.parametrize(("rate", "scale"), [(0.1, 0.1), (1.0, 2.0), (0.0, 1.0)])
def test_noise_has_its_rate_and_scale_on_every_gene(genome, rate, scale):
  child = operators.noise(jax.random.key(1), genome, rate, scale)
  changed = drawn(genome, child)
  assert_rate(changed, rate)
  assert_same_bits(child.masks, genome.masks)
  assert_biases_untouched(child, genome)
  if rate:
    added = (genes(child)[0] - genes(genome)[0])[changed]
    assert abs(added.mean()) < 5 * scale / np.sqrt(added.size)
    assert abs(added.std() / scale - 1) < 0.02
    dormant = ~genes(genome)[1]
    assert_rate(changed[dormant], rate)


@pytest.mark.parametrize(("rate", "scale"), [(0.1, 0.1), (1.0, 3.0), (0.0, 1.0)])
def test_resampling_draws_weights_anew(genome, rate, scale):
  child = operators.resample(jax.random.key(1), genome, rate, scale)
  changed = drawn(genome, child)
  assert_rate(changed, rate)
  assert_same_bits(child.masks, genome.masks)
  assert_biases_untouched(child, genome)
  if rate:
    new = genes(child)[0][changed]
    assert abs(new.std() / scale - 1) < 0.02
    assert abs(np.corrcoef(new, genes(genome)[0][changed])[0, 1]) < 5 / np.sqrt(new.size)


@pytest.mark.parametrize("rate", [0.0, 0.2, 1.0])
def test_dormancy_only_ever_masks_and_keeps_the_weights(genome, rate):
  child = operators.dormancy(jax.random.key(1), genome, rate)
  before, after = genes(genome)[1], genes(child)[1]
  assert not (after & ~before).any()
  assert_rate(before[before] & ~after[before], rate)
  assert_same_bits(child.weights, genome.weights)


def probabilities(fitness, scheme, draws=20_000):
  keys = jax.random.split(jax.random.key(0), draws)
  chosen = jax.jit(jax.vmap(lambda k: SELECTIONS[scheme]()(k, fitness)))(keys)
  return np.bincount(np.asarray(chosen), minlength=len(fitness)) / draws


# Fitness 4, 1, 3, 2: ranks 3, 0, 2, 1.
EXPECTED = {
  "tournament": [1 / 16, 7 / 16, 3 / 16, 5 / 16],
  "rank": [1 / 10, 4 / 10, 2 / 10, 3 / 10],
  "truncation": [0, 1 / 2, 0, 1 / 2],
  "roulette": [0, 3 / 6, 1 / 6, 2 / 6],
}


@pytest.mark.parametrize("scheme", SELECTIONS)
def test_each_scheme_favours_low_fitness_by_its_rule(scheme):
  got = probabilities(jnp.array([4.0, 1.0, 3.0, 2.0]), scheme)
  np.testing.assert_allclose(got, EXPECTED[scheme], atol=0.02)


@pytest.mark.parametrize("scheme", SELECTIONS)
def test_the_diverged_are_chosen_among_themselves_alone(scheme):
  got = probabilities(jnp.array([jnp.inf, 2.0, jnp.inf, 1.0, 3.0]), scheme)
  assert got[0] == got[2] == 0
  assert got[3] > got[1] - 0.02
  assert got[1] > got[4] - 0.02
  assert got[3] > got[4]
  np.testing.assert_allclose(probabilities(jnp.full(4, jnp.inf), scheme), 0.25, atol=0.02)


@pytest.mark.parametrize("scheme", SELECTIONS)
def test_equals_are_chosen_at_all(scheme):
  got = probabilities(jnp.full(4, 2.0), scheme)
  if scheme in ("tournament", "roulette"):
    np.testing.assert_allclose(got, 0.25, atol=0.02)
  assert got.sum() == pytest.approx(1)


@settings(deadline=None, max_examples=60)
@given(
  st.lists(st.sampled_from([0.0, 1.0, 1.5, 1e30, -2.0, np.inf]), min_size=2, max_size=6),
  st.sampled_from(list(SELECTIONS)),
  st.integers(0, 2**31 - 1),
)
def test_a_parent_is_always_one_of_the_population_and_finite_if_any_is(values, scheme, seed):
  index = int(SELECTIONS[scheme]()(jax.random.key(seed), jnp.array(values, jnp.float32)))
  assert 0 <= index < len(values)
  assert np.isfinite(values[index]) or not np.isfinite(values).any()


def test_an_unknown_scheme():
  with pytest.raises(ValueError, match="selection must be one of"):
    nets_jax.recipes.paper(selection="lottery")
