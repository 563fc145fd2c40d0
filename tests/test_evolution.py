"""Runs of NeTS side by side: each is as it would be alone."""

import jax
import numpy as np
import pytest
from conftest import assert_same_results, changed, counted_compilations, without_seconds

import nets_jax
from nets_jax.evolution.configuration import stack_settings
from nets_jax.settings import values

SEARCH = nets_jax.recipes.paper(population_size=3, generations=3)
KEYS = jax.random.split(jax.random.key(0), 3)


@pytest.fixture(scope="module")
def pairs(task):
  """Tasks and searches that differ in every kind of traced setting."""
  return [
    (task, SEARCH),
    changed(
      task, SEARCH, noise_rate=0.4, dormancy_rate=0.0, target_density=0.5, penalty_weight=3.0, elites=0
    ),
    changed(
      task, SEARCH, learning_rate=0.05, init_scale=0.3, initial_density=0.5, crossover_rate=0.9, elites=2
    ),
  ]


def side_by_side(pairs, keys=KEYS, **where):
  return nets_jax.search_all(keys, *zip(*pairs, strict=True), **where)


@pytest.fixture(scope="module")
def alone(pairs):
  return [nets_jax.search(key, *own) for key, own in zip(KEYS, pairs, strict=True)]


@pytest.mark.devices
@pytest.mark.parametrize("devices", [1, 4])
def test_each_run_is_the_run_alone(pairs, alone, devices):
  together = side_by_side(pairs, devices=devices)
  assert_same_results(together, alone)


@pytest.mark.devices
def test_a_run_ends_by_itself(task):
  """Generations and patience are each run's own; what comes after its end does not touch its result."""
  searches = [SEARCH.replace(generations=1), SEARCH.replace(generations=8, patience=0), SEARCH]
  seen = []
  together = nets_jax.search_all(KEYS, task, searches, on_rows=seen.append)
  assert_same_results(
    together, [nets_jax.search(key, task, own) for key, own in zip(KEYS, searches, strict=True)]
  )
  assert without_seconds(together[2].history) != without_seconds(together[0].history)
  last = [result.history[-1]["generation"] for result in together]
  assert last[0] == 1
  assert last[2] == 3
  going = [sum(generation <= end for end in last) for generation in range(max(last) + 1)]
  assert [len(rows) for rows in seen] == [3 * runs for runs in going]


def test_other_runs_and_settings_compile_nothing(pairs):
  side_by_side(pairs)
  others = KEYS[::-1]
  with counted_compilations() as count:
    side_by_side(pairs[::-1], others)
  assert count == []


def test_seconds_are_those_of_all_runs_over_their_number(task):
  first, second = nets_jax.search_all(KEYS[:2], task, SEARCH)
  assert [row["seconds"] for row in first.history] == [row["seconds"] for row in second.history]
  assert first.cost.seconds == first.history[-1]["seconds"] > 0
  assert first.cost.epochs == 3 * 4


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ([{}] * 2, "3 keys ask for as many tasks and searches"),
    ([{}, {}, {"batch_size": 6}], "must agree in batch_size, not have 12 and 6"),
    ([{}, {}, {"noise_rate": 2.0}], "noise_rate must be in"),
  ],
)
def test_impossible_runs(task, changes, message):
  with pytest.raises(nets_jax.UsageError, match=message):
    side_by_side([changed(task, SEARCH, **own) for own in changes])


@pytest.mark.devices
def test_a_run_that_diverges_may_leave_the_others_alone(task, alone, pairs):
  pairs = [pairs[0], changed(task, SEARCH, learning_rate=1e30), pairs[2]]
  message = "every genome of generation 0 diverged"
  with pytest.raises(nets_jax.UsageError, match=message):
    side_by_side(pairs)
  together = side_by_side(pairs, keep_failures=True)
  assert_same_results([together[0], together[2]], [alone[0], alone[2]])
  assert message in str(together[1])


def test_stacked_settings_have_an_axis_of_runs(task):
  stacked = stack_settings([task] * 2, [SEARCH, SEARCH.change(noise_rate=0.5)]).search
  np.testing.assert_allclose(values(stacked)["noise_rate"], [0.1, 0.5])
  assert stacked.population_size == 3
  assert stacked.patience is None
