"""Runs of NeTS side by side: each is as it would be alone."""

import jax
import numpy as np
import pytest
from conftest import assert_same_results, counted_compilations, without_seconds

import nets_jax
from nets_jax import evolution
from nets_jax.config import NetsConfig, stack_configs

CONFIG = NetsConfig(population_size=3, generations=3, learning_rate=0.2, batch_size=12)
KEYS = jax.random.split(jax.random.key(0), 3)


@pytest.fixture(scope="module")
def configs():
  """Settings that differ in every kind of traced field."""
  return [
    CONFIG,
    CONFIG.replace(noise_rate=0.4, dormancy_rate=0.0, target_density=0.5, penalty_weight=3.0, elites=0),
    CONFIG.replace(learning_rate=0.05, init_scale=0.3, initial_density=0.5, crossover_rate=0.9, elites=2),
  ]


@pytest.fixture(scope="module")
def alone(network, data, configs):
  return [nets_jax.search(key, network, data, own) for key, own in zip(KEYS, configs, strict=True)]


@pytest.mark.parametrize("devices", [1, 4])
def test_each_run_is_the_run_alone(network, data, configs, alone, devices):
  together = evolution.search_all(KEYS, network, data, configs, devices=devices)
  assert_same_results(together, alone)


def test_a_run_ends_by_itself(network, data, alone):
  """Generations and patience are each run's own; what comes after its end does not touch its result."""
  configs = [CONFIG.replace(generations=1), CONFIG.replace(generations=8, patience=0), CONFIG]
  seen = []
  together = evolution.search_all(KEYS, network, data, configs, on_rows=seen.append)
  assert_same_results(
    together, [nets_jax.search(key, network, data, own) for key, own in zip(KEYS, configs, strict=True)]
  )
  assert without_seconds(together[2].history) != without_seconds(together[0].history)
  last = [result.history[-1]["generation"] for result in together]
  assert last[0] == 1
  assert last[2] == 3
  going = [sum(generation <= end for end in last) for generation in range(max(last) + 1)]
  assert [len(rows) for rows in seen] == [3 * runs for runs in going]


def test_other_runs_and_settings_compile_nothing(network, data, configs):
  evolution.search_all(KEYS, network, data, configs)
  others = KEYS[::-1]
  with counted_compilations() as count:
    evolution.search_all(others, network, data, configs[::-1])
  assert count == []


def test_seconds_are_those_of_all_runs_over_their_number(network, data):
  first, second = evolution.search_all(KEYS[:2], network, data, CONFIG)
  assert [row["seconds"] for row in first.history] == [row["seconds"] for row in second.history]
  assert first.cost.seconds == first.history[-1]["seconds"] > 0
  assert first.cost.epochs == 3 * 4


@pytest.mark.parametrize(
  ("configs", "message"),
  [
    ([CONFIG] * 2, "3 keys ask for as many configurations, not 2"),
    ([CONFIG, CONFIG, CONFIG.replace(batch_size=6)], "must agree in batch_size, not have 12 and 6"),
    ([CONFIG, CONFIG, CONFIG.replace(noise_rate=2.0)], "noise_rate must be in"),
  ],
)
def test_impossible_runs(network, data, configs, message):
  with pytest.raises(nets_jax.UsageError, match=message):
    evolution.search_all(KEYS, network, data, configs)


def test_a_run_that_diverges_may_leave_the_others_alone(network, data, alone, configs):
  diverging = CONFIG.replace(learning_rate=1e30)
  message = "every genome of generation 0 diverged"
  with pytest.raises(nets_jax.UsageError, match=message):
    evolution.search_all(KEYS, network, data, [configs[0], diverging, configs[2]])
  together = evolution.search_all(
    KEYS, network, data, [configs[0], diverging, configs[2]], keep_failures=True
  )
  assert_same_results([together[0], together[2]], [alone[0], alone[2]])
  assert message in str(together[1])


def test_stacked_settings_have_an_axis_of_runs():
  stacked = stack_configs([CONFIG, CONFIG.replace(noise_rate=0.5)])
  np.testing.assert_allclose(stacked.noise_rate, [0.1, 0.5])
  assert stacked.population_size == 3
  assert stacked.patience is None
