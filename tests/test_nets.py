import itertools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import assert_same_bits, counted_compilations

import nets_jax
from nets_jax import nets, training
from nets_jax.baselines import imp, one_shot, random_tickets
from nets_jax.config import NetsConfig, fitness_steps

MOST_COPIES = 4  # of a shard: what a generation holds besides its population and the next one
CONFIG = NetsConfig(population_size=5, generations=4, learning_rate=0.2, batch_size=12)
KEY = jax.random.key(0)


def without_seconds(history):
  return [{k: v for k, v in row.items() if k != "seconds"} for row in history]


def states(network, data, config, layout=None, key=KEY):
  """The state before each generation, and each generation's metrics."""
  layout = layout or nets_jax.make_layout(config.population_size)
  state = nets_jax.init(key, network, data.input_shape, config, layout)
  found = [(state, None)]
  for _ in range(config.generations + 1):
    state, metrics = nets_jax.step(state, network, data, config, layout)
    found.append((state, metrics))
  return found


@pytest.fixture(scope="module")
def result(network, data):
  return nets_jax.search(KEY, network, data, CONFIG)


def test_the_history_has_a_row_per_generation_and_genome(result):
  assert [(row["generation"], row["genome"]) for row in result.history] == [
    (g, i) for g in range(5) for i in range(5)
  ]
  assert set(result.history[0]) == {
    "generation", "genome", "parent_1", "parent_2", "fitness", "valid_loss", "valid_accuracy", "density",
    "seconds",
  }  # fmt: skip
  assert [row["density"] for row in result.history[:5]] == [1.0] * 5
  assert result.cost.epochs == 25
  assert result.cost.seconds == result.history[-1]["seconds"] > 0
  assert result.cost.compile_seconds > 0


def test_the_ticket_is_the_best_of_the_history(result):
  best = min(result.history, key=lambda row: row["fitness"])
  assert float(nets_jax.density(result.ticket)) == best["density"]


def test_stepping_is_searching(network, data, result):
  stepped = states(network, data, CONFIG)
  assert_same_bits(jax.device_get(stepped[-1][0].best), result.ticket)
  fitness = np.concatenate([metrics.fitness for _, metrics in stepped[1:]])
  np.testing.assert_array_equal(fitness, np.float32([row["fitness"] for row in result.history]))


@pytest.mark.parametrize(("devices", "chunk"), [(1, None), (2, None), (4, None), (1, 1), (1, 3), (2, 2)])
def test_the_same_bits_on_any_number_of_devices_and_any_chunk(network, data, result, devices, chunk):
  layout = nets_jax.make_layout(5, devices=devices, chunk=chunk)
  other = nets_jax.search(KEY, network, data, CONFIG, layout=layout)
  assert_same_bits(other.ticket, result.ticket)
  assert without_seconds(other.history) == without_seconds(result.history)


def test_another_seed_is_another_search(network, data, result):
  other = nets_jax.search(jax.random.key(1), network, data, CONFIG)
  assert without_seconds(other.history) != without_seconds(result.history)


def test_a_genome_of_a_population_is_that_genome_alone(network, data):
  config = CONFIG.replace(population_size=8)
  layout = nets_jax.make_layout(8)
  state = nets_jax.init(KEY, network, data.input_shape, config, layout)
  _, metrics = nets_jax.step(state, network, data, config, layout)
  shuffle_key, training_key, _ = jax.random.split(jax.random.fold_in(state.key, 0), 3)
  steps = fitness_steps(config, len(data.train))
  order = training.minibatch_order(shuffle_key, len(data.train), config.batch_size, steps)
  population_key = jax.random.split(KEY)[0]
  for i in (0, 5):
    genome = jax.jit(lambda k: nets.initialise(k, network, data.input_shape))(
      jax.random.fold_in(population_key, i)
    )
    assert_same_bits(jax.device_get(nets_jax.take(state.population, i)), jax.device_get(genome))
    alone, _ = jax.jit(nets.genome_fitness, static_argnums=3)(
      training_key, i, genome, network, data, order, config
    )
    assert_same_bits(
      jax.device_get(alone), jax.tree.map(lambda x, i=i: np.asarray(x[i]), jax.device_get(metrics))
    )


def test_a_larger_population_leaves_the_other_genomes_as_they_were(network, data):
  small, large = (
    nets_jax.init(KEY, network, data.input_shape, CONFIG.replace(population_size=k), nets_jax.make_layout(k))
    for k in (3, 7)
  )
  for i in range(3):
    assert_same_bits(*(jax.device_get(nets_jax.take(s.population, i)) for s in (small, large)))


@pytest.mark.parametrize("elites", [0, 1, 3])
def test_elites_go_on_unchanged_and_no_other(network, data, elites):
  config = CONFIG.replace(elites=elites, generations=2)
  found = states(network, data, config)
  for (before, _), (after, metrics) in itertools.pairwise(found):
    ranked = np.argsort(metrics.fitness, kind="stable")
    for place in range(5):
      parent, child = nets_jax.take(before.population, ranked[place]), nets_jax.take(after.population, place)
      same = all((a == b).all() for a, b in zip(jax.tree.leaves(parent), jax.tree.leaves(child), strict=True))
      assert same == (place < elites)


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_children_come_of_the_parents_they_name(network, data, rate):
  """Without mutation and with one parent's genes alone, a child is the parent that its row names."""
  plain = {"noise_rate": 0.0, "resample_rate": 0.0, "dormancy_rate": 0.0}
  config = CONFIG.replace(crossover_rate=rate, elites=2, initial_density=0.5, **plain)
  found = states(network, data, config)
  assert (np.asarray(found[0][0].parents) == -1).all()
  for (before, _), (after, metrics) in itertools.pairwise(found):
    parents = np.asarray(after.parents)
    ranked = np.argsort(np.asarray(metrics.fitness), kind="stable")
    np.testing.assert_array_equal(parents[:2], np.stack([ranked[:2]] * 2, axis=1))
    for child, parent in enumerate(parents[:, 0 if rate else 1]):
      assert_same_bits(nets_jax.take(after.population, child), nets_jax.take(before.population, int(parent)))


def test_the_history_names_the_parents(network, data, result):
  for generation, (state, _) in enumerate(states(network, data, CONFIG)[:-1]):
    rows = [row for row in result.history if row["generation"] == generation]
    np.testing.assert_array_equal(state.parents, [[row["parent_1"], row["parent_2"]] for row in rows])


def test_children_may_be_bred_by_ones_own_operator(network, data):
  def breeder(key, parent_1, parent_2, config):
    child = nets_jax.offspring(key, parent_1, parent_2, config)
    return child.replace(masks=jax.tree.map(jnp.zeros_like, child.masks))

  config = CONFIG.replace(generations=1, breeder=breeder, density_rule="none")
  rows = [row for row in nets_jax.search(KEY, network, data, config).history if row["generation"] == 1]
  assert [row["density"] for row in rows] == [1.0] + [0.0] * 4  # all but the elite


def test_the_best_so_far_never_worsens(network, data):
  found = states(network, data, CONFIG.replace(elites=0, generations=6))
  best = [float(state.best_fitness) for state, _ in found]
  assert best == sorted(best, reverse=True)
  assert best[-1] == min(float(m.fitness.min()) for _, m in found[1:])


def test_trained_weights_never_enter_a_genome(network, data):
  # Without noise and resampling every weight of every generation is one of the first population's.
  config = CONFIG.replace(noise_rate=0.0, resample_rate=0.0)
  found = states(network, data, config)
  first = jax.device_get(found[0][0].population.weights)
  last = jax.device_get(found[-1][0].population.weights)
  for name in first:
    assert (last[name]["kernel"][:, None] == first[name]["kernel"][None, :]).any(1).all()
    assert not last[name]["bias"].any()


def test_retained_weights_do_enter(network, data):
  config = CONFIG.replace(noise_rate=0.0, resample_rate=0.0, retain_weights=True)
  found = states(network, data, config)
  first, last = (jax.device_get(state.population.weights["output"]) for state in (found[0][0], found[-1][0]))
  assert (last["kernel"][:, None] != first["kernel"][None, :]).all(1).any()
  assert last["bias"].any()


def test_masks_only_shrink_towards_the_target(network, data):
  found = states(network, data, CONFIG.replace(generations=8))
  densities = [float(metrics.density.mean()) for _, metrics in found[1:]]
  assert densities[0] == 1
  assert densities[-1] < 0.6


def diverging(threshold):
  """Plain SGD that sends a genome to infinity if its first weight is above a threshold."""

  def optimizer(learning_rate):
    def update(gradient, state, weights):
      wild = weights["hidden_0"]["kernel"][0, 0] > threshold
      return jax.tree.map(lambda g: jnp.where(wild, jnp.inf, -learning_rate * g), gradient), state

    return optax.GradientTransformation(lambda weights: optax.EmptyState(), update)

  return optimizer


def test_a_diverging_genome_never_becomes_a_parent(network, data):
  # Crossover from parent 1 alone, and nothing mutated: children are copies of their parents.
  config = CONFIG.replace(
    population_size=8, crossover_rate=1.0, noise_rate=0.0, resample_rate=0.0, dormancy_rate=0.0,
    optimizer=diverging(0.0), elites=4,
  )  # fmt: skip
  (before, _), (after, metrics), *_ = states(network, data, config)
  first_weights = np.asarray(before.population.weights["hidden_0"]["kernel"])[:8, 0, 0]
  np.testing.assert_array_equal(np.isinf(metrics.fitness), first_weights > 0)
  assert 0 < np.isinf(metrics.fitness).sum() < 8
  children = np.asarray(after.population.weights["hidden_0"]["kernel"])[:8, 0, 0]
  assert (children <= 0).all()


def test_a_search_in_which_everything_diverges_says_so(network, data):
  with pytest.raises(
    nets_jax.UsageError, match=r"every genome of generation 0 diverged.*lower learning_rate"
  ):
    nets_jax.search(KEY, network, data, CONFIG.replace(learning_rate=1e30))


def test_patience_stops_a_search_that_does_not_improve(network, data):
  config = CONFIG.replace(generations=30, patience=2, dormancy_rate=0.0, noise_rate=0.0, resample_rate=0.0)
  config = config.replace(objective=lambda candidate: jnp.float32(1.0), density_rule="none")
  result = nets_jax.search(KEY, network, data, config)
  assert result.history[-1]["generation"] == 3  # generation 0 is the best; 1, 2 and 3 are no better
  assert result.cost.epochs == 4 * 5


def test_an_objective_of_ones_own_is_minimised(network, data):
  config = CONFIG.replace(objective=lambda candidate: -candidate.density, density_rule="none")
  result = nets_jax.search(KEY, network, data, config)
  assert float(nets_jax.density(result.ticket)) == 1.0


@pytest.mark.parametrize(
  ("rule", "factor"), [("feasible", 1.0), ("feasible", -1e4), ("schedule", -1.0), ("schedule", 1e4)]
)
def test_an_objective_replaces_the_loss_and_not_the_target_density(network, data, rule, factor):
  """Whatever its sign and size, the best ticket is of the target's density, and the best of those."""
  config = nets_jax.guided_config(
    density_rule=rule, target_density=0.301, generations=6, population_size=6, dormancy_rate=0.3,
    objective=lambda candidate: factor * (candidate.valid_loss + 1), learning_rate=0.1, batch_size=12,
  )  # fmt: skip
  result = nets_jax.search(KEY, network, data, config)
  assert float(nets_jax.density(result.ticket)) <= 0.301
  allowed = [row for row in result.history if row["density"] <= 0.301]
  assert allowed
  best = min(allowed, key=lambda row: factor * row["valid_loss"])
  assert result.best == best
  assert result.best["fitness"] == min(row["fitness"] for row in result.history)


def test_an_objective_is_penalised_as_the_loss_is(network, data):
  config = CONFIG.replace(objective=lambda candidate: -candidate.valid_accuracy, penalty_weight=2.0)
  for row in nets_jax.search(KEY, network, data, config).history:
    want = -row["valid_accuracy"] + 2 * ((row["density"] - 0.2) / 0.8) ** 2
    assert row["fitness"] == pytest.approx(want, abs=1e-5)


def test_an_objective_that_would_decide_nothing_is_refused(network, data):
  config = CONFIG.replace(objective=lambda candidate: candidate.valid_loss, objectives="pareto")
  with pytest.raises(nets_jax.UsageError, match="an objective of your own would decide nothing"):
    nets_jax.search(KEY, network, data, config)


def test_the_results_best_row_is_its_tickets(network, data):
  result = nets_jax.search(KEY, network, data, CONFIG.replace(generations=8, elites=0))
  assert result.best == min(result.history, key=lambda row: row["fitness"])
  assert result.best != result.history[-1]
  assert result.best["density"] == pytest.approx(float(nets_jax.density(result.ticket)), rel=1e-6)


def test_a_population_larger_than_memory_is_refused_before_anything_is_made(network, data):
  with pytest.raises(nets_jax.UsageError, match=r"10,000,000,000,000 genomes .* at most [\d,]+ genomes fit"):
    nets_jax.search(KEY, network, data, CONFIG.replace(population_size=10**13))


@pytest.mark.parametrize("outputs", [1, 2])
def test_a_network_with_too_few_outputs_is_refused_by_every_search(data, outputs):
  network = nets_jax.MLP((4,), outputs)
  ticket = nets_jax.random_ticket(KEY, network, data.input_shape, 1.0)
  for run in (
    lambda: nets_jax.search(KEY, network, data, CONFIG),
    lambda: imp.search(KEY, network, data),
    lambda: one_shot.search(KEY, network, data, one_shot.OneShotConfig(score_batch=20)),
    lambda: random_tickets.search(KEY, network, data),
    lambda: nets_jax.train_tickets(KEY, network, nets_jax.stack([ticket]), data, epochs=1, batch_size=12),
    lambda: nets_jax.judge_ticket(KEY[None], network, ticket, data, epochs=1, batch_size=12),
  ):
    with pytest.raises(nets_jax.UsageError, match=f"MLP has {outputs} outputs, but the data have 3 classes"):
      run()


@pytest.mark.parametrize(("fitness_epochs", "steps"), [(1.0, 7), (0.5, 4), (2.0, 14), (0.001, 1)])
def test_fitness_epochs_may_be_a_fraction(network, data, fitness_epochs, steps):
  config = CONFIG.replace(fitness_epochs=fitness_epochs)
  assert fitness_steps(config, 86) == steps
  result = nets_jax.search(KEY, network, data, config.replace(generations=1))
  assert result.cost.epochs == pytest.approx(10 * steps / 7)


def test_changing_a_rate_the_seed_or_the_data_compiles_nothing(network, data, result):
  other = CONFIG.replace(
    generations=2, elites=2, crossover_rate=0.3, noise_rate=0.2, noise_scale=0.3, resample_rate=0.0,
    dormancy_rate=0.5, init_scale=0.2, initial_density=0.5, target_density=0.4, penalty_weight=3.0,
    learning_rate=0.01, patience=5,
  )  # fmt: skip
  changed = data.replace(train=data.train.replace(inputs=data.train.inputs + 1))
  key = jax.random.key(7)
  with counted_compilations() as count:
    nets_jax.search(key, network, changed, other)
  assert count == []
  with counted_compilations() as count:
    nets_jax.search(KEY, network, data, CONFIG.replace(batch_size=13))
  assert count


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"population_size": 0}, "population_size must be at least 1, not 0"),
    ({"population_size": 1}, "elites must be from 0 to population_size - 1 = 0, not 1"),
    ({"elites": 5}, "elites must be from 0 to population_size - 1 = 4, not 5"),
    ({"elites": -1}, "elites must be from 0"),
    ({"crossover_rate": 1.1}, r"crossover_rate must be in \[0, 1\], not 1.1"),
    ({"noise_rate": -0.1}, "noise_rate must be in"),
    ({"resample_rate": 2.0}, "resample_rate must be in"),
    ({"dormancy_rate": float("nan")}, "dormancy_rate must be in"),
    ({"initial_density": 0.0}, r"initial_density must be in \(0, 1\], not 0.0"),
    ({"target_density": 0.0}, r"target_density must be in \(0, 1\], not 0.0"),
    ({"target_density": 1.5}, "target_density must be in"),
    ({"init_scale": 0.0}, "init_scale must be positive"),
    ({"learning_rate": -1.0}, "learning_rate must be positive"),
    ({"learning_rate": float("inf")}, "learning_rate must be positive"),
    ({"fitness_epochs": 0.0}, "fitness_epochs must be positive"),
    ({"noise_scale": -1.0}, "noise_scale must be at least 0"),
    ({"penalty_weight": -1.0}, "penalty_weight must be at least 0"),
    ({"generations": -1}, "generations must be at least 0"),
    ({"patience": -1}, "patience must be at least 0"),
    ({"batch_size": 0}, "batch_size must be from 1 to the 86 training examples, not 0"),
    ({"batch_size": 87}, "batch_size must be from 1 to the 86 training examples, not 87"),
    (
      {"selection": "lottery"},
      "selection must be one of tournament, rank, truncation, roulette, not 'lottery'",
    ),
    ({"optimizer": "lion"}, "optimizer must be one of sgd, momentum, adam, not 'lion'"),
  ],
)
def test_impossible_settings(network, data, changes, message):
  assert len(data.train) == 86
  with pytest.raises(nets_jax.UsageError, match=message):
    nets_jax.search(KEY, network, data, CONFIG.replace(**changes))


@pytest.fixture(scope="module")
def large(data):
  """A compiled generation of 256 genomes on 4 devices, and the bytes of a genome: they are what counts."""
  network, config = nets_jax.MLP((200, 50), 3), CONFIG.replace(population_size=256)
  layout = nets_jax.make_layout(256, devices=4)
  state = nets_jax.init(jax.random.key(0), network, data.input_shape, config, layout)
  step = nets_jax.step.lower(state, network, data.replace(test=None), config, layout).compile()
  return step, jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), state.population)


def test_no_device_ever_gathers_the_population(large):
  step, genome = large
  largest = {}
  for line in step.as_text().splitlines():
    moved = re.search(r"= (.*) (all-gather|all-reduce|all-to-all|collective-permute)(?:-start)?\(", line)
    if moved:
      sizes = [math.prod(map(int, shape.split(","))) for shape in re.findall(r"\w\[([\d,]+)\]", moved[1])]
      largest[moved[2]] = max([largest.get(moved[2], 0), *sizes])
  leaf = max(leaf.size for leaf in jax.tree.leaves(genome))
  assert set(largest) == {"all-gather", "all-reduce", "collective-permute"}
  assert largest["all-gather"] == 2 * 256  # the parents of each genome
  assert largest["all-reduce"] == leaf  # of the best genome
  assert largest["collective-permute"] == 256 / 4 * leaf  # of the shard that passes


def test_a_generation_holds_a_few_copies_of_a_shard(large):
  step, genome = large
  used = step.memory_analysis()  # of each device
  shard = 256 / 4 * sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(genome))
  assert shard < used.argument_size_in_bytes < 1.1 * shard
  assert shard < used.output_size_in_bytes < 1.1 * shard
  assert used.temp_size_in_bytes < MOST_COPIES * shard + 2e6  # and what one genome's training takes
