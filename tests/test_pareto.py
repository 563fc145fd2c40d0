"""Non-dominated sorting and crowding, against a slow reference; selection by them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nets_jax
from nets_jax.evolution import pareto

# Few different numbers, so that equals are common; some that are not finite.
NUMBERS = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, float("inf"), float("nan")])
POPULATIONS = st.lists(st.tuples(NUMBERS, NUMBERS), min_size=9, max_size=9)

RANKS, CROWDING, ORDER = (
  jax.jit(function)
  for function in (pareto.non_dominated_ranks, pareto.crowding_distances, pareto.pareto_order)
)


def dominates(a, b):
  return all(np.isfinite([*a, *b])) and all(x <= y for x, y in zip(a, b, strict=True)) and a != b


def reference_ranks(points):
  """One front after another is taken away."""
  left = [i for i, point in enumerate(points) if np.isfinite(point).all()]
  ranks, front = [len(points)] * len(points), 0
  while left:
    first = [i for i in left if not any(dominates(points[j], points[i]) for j in left)]
    for i in first:
      ranks[i] = front
    left, front = [i for i in left if i not in first], front + 1
  return ranks


def reference_crowding(points, ranks):
  """Deb et al.'s crowding-distance-assignment, front by front."""
  distance = np.zeros(len(points))
  for front in set(ranks) - {len(points)}:
    own = [i for i, rank in enumerate(ranks) if rank == front]
    for axis in range(2):
      order = sorted(own, key=lambda i: points[i][axis])
      distance[order[0]] = distance[order[-1]] = np.inf
      width = points[order[-1]][axis] - points[order[0]][axis]
      for before, i, after in zip(order, order[1:], order[2:], strict=False):
        distance[i] += (points[after][axis] - points[before][axis]) / (width or 1)
  return distance


@settings(deadline=None, max_examples=150)
@given(POPULATIONS)
def test_ranks_and_crowding_are_the_references(points):
  values = jnp.array(points)
  ranks = np.asarray(RANKS(values))
  assert ranks.tolist() == reference_ranks(points)
  finite = np.isfinite(points).all(axis=1)
  crowding = np.asarray(CROWDING(values, jnp.asarray(ranks)))
  np.testing.assert_allclose(crowding[finite], reference_crowding(points, ranks.tolist())[finite], rtol=1e-6)


@settings(deadline=None, max_examples=150)
@given(POPULATIONS)
def test_the_order_goes_by_front_then_crowding_then_index(points):
  places = np.asarray(ORDER(jnp.array(points)))
  ranks = reference_ranks(points)
  crowding = reference_crowding(points, ranks)
  finite = [i for i, point in enumerate(points) if np.isfinite(point).all()]
  order = sorted(finite, key=lambda i: (ranks[i], -crowding[i], i))
  assert places[order].tolist() == list(range(len(finite)))
  assert np.isinf(np.delete(places, finite)).all()


def test_the_ends_of_the_first_front_come_first():
  values = jnp.array([[0.5, 0.5], [0.0, 1.0], [1.0, 0.0], [0.6, 0.6], [0.9, 0.2]])
  assert pareto.pareto_order(values).tolist() == [2, 0, 1, 4, 3]


def test_a_search_keeps_both_ends_of_its_frontier(network, data):
  """Of half the population kept by rank and crowding, the lowest loss and the lowest density always stay."""
  search = nets_jax.recipes.paper(
    population_size=8, generations=12, elites=4, noise_rate=0.0, resample_rate=0.0, ranking="pareto"
  )
  task = nets_jax.Task(network, data, nets_jax.Training(learning_rate=0.1, batch_size=8))
  by_generation = {}
  for row in nets_jax.search(jax.random.key(2), task, search).history:
    by_generation.setdefault(row["generation"], []).append(row)
  for generation in range(1, 13):
    rows, before = by_generation[generation], by_generation[generation - 1]
    sparsest = min(row["density"] for row in before)
    assert any(row["density"] == sparsest and row["parent_1"] == row["parent_2"] for row in rows[:4])
    lowest = min(before, key=lambda row: row["valid_loss"])
    assert any(row["parent_1"] == row["parent_2"] == lowest["genome"] for row in rows[:4])


def test_it_is_refused_by_name():
  message = "ranking must be one of penalty, feasible, pareto, none, not 'both'"
  with pytest.raises(nets_jax.UsageError, match=message):
    nets_jax.recipes.paper(ranking="both")
