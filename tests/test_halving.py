"""Successive halving: who goes on and for how long they train; else a halved search is as any other."""

import jax
import numpy as np
import pytest
from conftest import assert_same_bits, assert_same_results, without_seconds
from hypothesis import given
from hypothesis import strategies as st
from test_checkpoints import in_pieces

import nets_jax
from nets_jax import guidance, halving, nets, parallel
from nets_jax.config import fitness_steps

CONFIG = nets_jax.guided_config(
  population_size=8, generations=6, elites=2, halvings=2, fitness_epochs=0.5, learning_rate=0.1, batch_size=12
)
KEY = jax.random.key(3)
SIZES = [8, 8, 8, 4, 4, 2, 2]


@pytest.fixture(scope="module")
def result(network, data):
  return nets_jax.search(KEY, network, data, CONFIG)


def by_generation(history):
  rows = {}
  for row in history:
    rows.setdefault(row["generation"], []).append(row)
  return rows


@given(st.integers(0, 40), st.integers(0, 6), st.integers(1, 40), st.integers(0, 40))
def test_the_course_of_a_search(generations, halvings, size, elites):
  config = nets_jax.NetsConfig(
    population_size=size,
    generations=generations,
    halvings=halvings,
    elites=min(elites, size),
    fitness_epochs=0.3,
  )
  numbers = [halving.stage_number(config, generation) for generation in range(generations + 3)]
  assert numbers[0] == 0
  assert (np.diff(numbers) >= 0).all()
  assert numbers[-1] == numbers[generations] <= halvings
  lengths = np.bincount(numbers[: generations + 1], minlength=halvings + 1)
  assert lengths.max() - lengths.min() <= 1
  for generation, i in enumerate(numbers):
    own = halving.stage(config, generation)
    assert own.population_size == max(1, size // 2**i)
    assert own.fitness_epochs == 0.3 * 2**i
    assert own.elites == min(config.elites, own.population_size)
    assert halving.begins_stage(config, generation) == (generation > 0 and i > numbers[generation - 1])


def test_half_as_many_genomes_go_on(result):
  rows = by_generation(result.history)
  assert [len(own) for own in rows.values()] == SIZES
  assert [len(result.history[i : i + 1]) for i in (0, 24, 35)] == [1, 1, 1]
  assert [row["genome"] for row in result.history] == [i for size in SIZES for i in range(size)]
  assert result.history[-1] == list(result.history)[-1]
  for generation in range(1, len(SIZES)):
    fitness = [row["fitness"] for row in rows[generation - 1]]
    best, second = np.argsort(fitness, kind="stable")[:2]
    parents = [(row["parent_1"], row["parent_2"]) for row in rows[generation]]
    assert parents[:2] == [(best, best), (second, second)]  # the elites go on, after a halving too
    assert {parent for both in parents[2:] for parent in both} <= {best, second}


def test_every_generation_costs_the_same(network, data, result):
  per_epoch = len(data.train) // CONFIG.batch_size
  by_hand = sum(
    size * fitness_steps(CONFIG.replace(fitness_epochs=4 / size), len(data.train)) for size in SIZES
  )
  assert result.cost.epochs == by_hand / per_epoch
  assert halving.genome_epochs(CONFIG, len(data.train), 2) == 2 * 8 * round(0.5 * per_epoch) / per_epoch


def test_the_densities_are_those_of_the_schedule(result):
  total = sum(mask.size for mask in jax.tree.leaves(result.ticket.masks))
  for generation, own in by_generation(result.history).items():
    share = guidance.scheduled_density("geometric", generation / 6, 1.0, 0.2, 0.0, 6)
    assert {round(row["density"] * total) for row in own} == {round(float(share) * total)}


def test_the_ticket_is_the_best_of_the_last_stage(network, data):
  """Losses after longer trainings are lower, and without a schedule all would else be compared."""
  config = CONFIG.replace(density_rule="feasible", target_density=1.0, dormancy_rate=0.0, scale_deviation=0.5)
  config = config.replace(learning_rate=0.5, halvings=1)
  result = nets_jax.search(KEY, network, data, config, frontier_size=0)
  stepped = list(by_generation(result.history).values())
  best = min((row for rows in stepped[-3:] for row in rows), key=lambda row: row["fitness"])
  state, _ = last_state(network, data, config)
  assert float(state.best_fitness) == np.float32(best["fitness"])
  assert_same_bits(jax.device_get(state.best), result.ticket)


def last_state(network, data, config):
  """A search by hand: `step`, and `narrow` where a stage begins."""
  layout = nets_jax.make_layout(config.population_size)
  own = halving.stage(config, 0)
  state = nets.init_all(KEY[None], network, data.input_shape, stacked(own), layout)
  seen = []
  for generation in range(config.generations + 1):
    state, metrics = nets.step_all(state, network, data, stacked(own), layout)
    seen.append(np.asarray(metrics.fitness[0]))
    if halving.begins_stage(config, generation + 1):
      own = halving.stage(config, generation + 1)
      before, layout = layout, parallel.resized(layout, own.population_size)
      state = halving.narrow(state, own.population_size, before, layout)
      assert np.isinf(state.best_fitness).all()
  return jax.tree.map(lambda leaf: leaf[0], state.replace(population=None, generation=None)), seen


def stacked(config):
  return nets.stack_configs([config])


def test_stepping_is_searching(network, data, result):
  state, seen = last_state(network, data, CONFIG)
  assert_same_bits(jax.device_get(state.best), result.ticket)
  np.testing.assert_array_equal(np.concatenate(seen), np.float32([row["fitness"] for row in result.history]))


@pytest.mark.parametrize("devices", [1, 3])
def test_the_same_bits_on_any_number_of_devices(network, data, result, devices):
  other = nets_jax.search(KEY, network, data, CONFIG, devices=devices)
  assert_same_results([other], [result])


def test_runs_side_by_side_are_each_the_run_alone(network, data, result):
  keys = jax.numpy.stack([KEY, jax.random.key(4)])
  configs = [CONFIG, CONFIG.replace(learning_rate=0.05, target_density=0.5, elites=1)]
  together = nets_jax.search_all(keys, network, data, configs, frontier_size=4)
  assert without_seconds(together[0].history) == without_seconds(result.history)
  assert_same_bits(together[0].ticket, result.ticket)
  alone = nets_jax.search(keys[1], network, data, configs[1], frontier_size=4)
  assert_same_results([together[1]], [alone])


@pytest.mark.parametrize("turns", [1, 3])
def test_in_pieces_it_is_the_whole_search(tmp_path, network, data, result, turns):
  """Stopped after every generation, so also between two stages."""
  pieces, stops = in_pieces(
    lambda saved: nets_jax.search(KEY, network, data, CONFIG, devices=3, checkpoints=saved), tmp_path, turns
  )
  assert stops >= 2
  assert_same_results([pieces], [result])


def test_patience_begins_anew_with_a_stage(network, data):
  """Where no generation is better than the first, it runs out in each stage apart."""
  config = CONFIG.replace(
    density_rule="feasible", target_density=1.0, dormancy_rate=0.0, scale_deviation=0.0,
    final_scale_deviation=0.0,
    population_size=2, elites=1, halvings=1, generations=11, patience=4, learning_rate=1e-9,
    objective=lambda candidate: candidate.density,
  )  # fmt: skip
  last = nets_jax.search(KEY, network, data, config).history[-1]["generation"]
  assert last == 5  # the first stage alone: generation 0 is the best for ever
  last = nets_jax.search(KEY, network, data, config.replace(patience=5)).history[-1]["generation"]
  assert last == 11


def test_runs_that_halve_at_different_times_do_not_go_together(network, data):
  keys = jax.random.split(KEY, 2)
  with pytest.raises(nets_jax.UsageError, match="must agree in generations, not have 6 and 7"):
    nets_jax.search_all(keys, network, data, [CONFIG, CONFIG.replace(generations=7)])
  with pytest.raises(nets_jax.UsageError, match="halvings must be at least 0, not -1"):
    nets_jax.search(KEY, network, data, CONFIG.replace(halvings=-1))
