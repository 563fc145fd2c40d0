import itertools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import assert_same_bits, changed, counted_compilations

import nets_jax
from nets_jax.baselines.one_shot import Snip
from nets_jax.baselines.random_tickets import Random
from nets_jax.changes import change
from nets_jax.evolution import dormancy
from nets_jax.evolution.configuration import fitness_steps
from nets_jax.evolution.generation import genome_fitness, init, step
from nets_jax.evolution.places import gathered
from nets_jax.tickets.ticket import initialise
from nets_jax.training.train import minibatch_order

MOST_COPIES = 4  # of a shard: what a generation holds besides its population and the next one
SEARCH = nets_jax.recipes.paper(population_size=5, generations=4)
KEY = jax.random.key(0)


def without_seconds(history):
  return [{k: v for k, v in row.items() if k != "seconds"} for row in history]


def states(task, search, layout=None, key=KEY):
  """The state before each generation, and each generation's metrics."""
  layout = layout or nets_jax.make_layout(search.population_size)
  state = init(key, task, search, layout)
  found = [(state, None)]
  for _ in range(search.generations + 1):
    state, metrics = step(state, task, search, layout)
    found.append((state, metrics))
  return found


@pytest.fixture(scope="module")
def result(task):
  return nets_jax.search(KEY, task, SEARCH)


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


@pytest.mark.devices
def test_stepping_is_searching(task, result):
  stepped = states(task, SEARCH)
  assert_same_bits(jax.device_get(stepped[-1][0].best), result.ticket)
  fitness = np.concatenate([metrics.fitness for _, metrics in stepped[1:]])
  np.testing.assert_array_equal(fitness, np.float32([row["fitness"] for row in result.history]))


@pytest.mark.devices
@pytest.mark.parametrize(("devices", "chunk"), [(1, None), (2, None), (4, None), (1, 1), (1, 3), (2, 2)])
def test_the_same_bits_on_any_number_of_devices_and_any_chunk(task, result, devices, chunk):
  layout = nets_jax.make_layout(5, devices=devices, chunk=chunk)
  other = nets_jax.search(KEY, task, SEARCH, layout=layout)
  assert_same_bits(other.ticket, result.ticket)
  assert without_seconds(other.history) == without_seconds(result.history)


def test_another_seed_is_another_search(task, result):
  other = nets_jax.search(jax.random.key(1), task, SEARCH)
  assert without_seconds(other.history) != without_seconds(result.history)


@pytest.mark.devices
def test_a_genome_of_a_population_is_that_genome_alone(task, network, data):
  search = SEARCH.replace(population_size=8)
  layout = nets_jax.make_layout(8)
  state = init(KEY, task, search, layout)
  _, metrics = step(state, task, search, layout)
  shuffle_key, training_key, _ = jax.random.split(jax.random.fold_in(state.key, 0), 3)
  order = minibatch_order(shuffle_key, len(data.train), 12, fitness_steps(search, task))
  population_key = jax.random.split(KEY)[0]
  population = gathered(state.population, 1, 8, layout)
  for i in (0, 5):
    genome = jax.jit(lambda k: initialise(k, network, data.input_shape))(
      jax.random.fold_in(population_key, i)
    )
    assert_same_bits(nets_jax.take(population, i), jax.device_get(genome))
    alone, _ = jax.jit(genome_fitness)(training_key, i, genome, task, order, search)
    assert_same_bits(
      jax.device_get(alone), jax.tree.map(lambda x, i=i: np.asarray(x[i]), jax.device_get(metrics))
    )


def test_a_larger_population_leaves_the_other_genomes_as_they_were(task):
  small, large = (init(KEY, task, SEARCH.replace(population_size=k), nets_jax.make_layout(k)) for k in (3, 7))
  for i in range(3):
    assert_same_bits(*(jax.device_get(nets_jax.take(s.population, i)) for s in (small, large)))


@pytest.mark.parametrize("elites", [0, 1, 3])
def test_elites_go_on_unchanged_and_no_other(task, elites):
  found = states(task, SEARCH.replace(elites=elites, generations=2))
  for (before, _), (after, metrics) in itertools.pairwise(found):
    ranked = np.argsort(metrics.fitness, kind="stable")
    for place in range(5):
      parent, child = nets_jax.take(before.population, ranked[place]), nets_jax.take(after.population, place)
      same = all((a == b).all() for a, b in zip(jax.tree.leaves(parent), jax.tree.leaves(child), strict=True))
      assert same == (place < elites)


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_children_come_of_the_parents_they_name(task, rate):
  """Without mutation and with one parent's genes alone, a child is the parent that its row names."""
  plain = {"noise_rate": 0.0, "resample_rate": 0.0, "dormancy_rate": 0.0}
  found = states(task, SEARCH.change(crossover_rate=rate, elites=2, initial_density=0.5, **plain))
  assert (np.asarray(found[0][0].parents) == -1).all()
  for (before, _), (after, metrics) in itertools.pairwise(found):
    parents = np.asarray(after.parents)
    ranked = np.argsort(np.asarray(metrics.fitness), kind="stable")
    np.testing.assert_array_equal(parents[:2], np.stack([ranked[:2]] * 2, axis=1))
    for child, parent in enumerate(parents[:, 0 if rate else 1]):
      assert_same_bits(nets_jax.take(after.population, child), nets_jax.take(before.population, int(parent)))


def test_the_history_names_the_parents(task, result):
  for generation, (state, _) in enumerate(states(task, SEARCH)[:-1]):
    rows = [row for row in result.history if row["generation"] == generation]
    np.testing.assert_array_equal(state.parents, [[row["parent_1"], row["parent_2"]] for row in rows])


def test_children_may_be_bred_by_ones_own_operator(task):
  def sleep(key, child, context):
    return child.replace(masks=jax.tree.map(jnp.zeros_like, child.masks))

  search = SEARCH.change(generations=1, ranking="none").replace(operators=(*SEARCH.operators, sleep))
  rows = [row for row in nets_jax.search(KEY, task, search).history if row["generation"] == 1]
  assert [row["density"] for row in rows] == [1.0] + [0.0] * 4  # all but the elite


def test_the_best_so_far_never_worsens(task):
  found = states(task, SEARCH.replace(elites=0, generations=6))
  best = [float(state.best_fitness) for state, _ in found]
  assert best == sorted(best, reverse=True)
  assert best[-1] == min(float(m.fitness.min()) for _, m in found[1:])


def test_trained_weights_never_enter_a_genome(task):
  # Without noise and resampling every weight of every generation is one of the first population's.
  found = states(task, SEARCH.change(noise_rate=0.0, resample_rate=0.0))
  first = jax.device_get(found[0][0].population.weights)
  last = jax.device_get(found[-1][0].population.weights)
  for name in first:
    assert (last[name]["kernel"][:, None] == first[name]["kernel"][None, :]).any(1).all()
    assert not last[name]["bias"].any()


def test_retained_weights_do_enter(task):
  found = states(task, SEARCH.change(noise_rate=0.0, resample_rate=0.0, retain_weights=True))
  first, last = (jax.device_get(state.population.weights["output"]) for state in (found[0][0], found[-1][0]))
  assert (last["kernel"][:, None] != first["kernel"][None, :]).all(1).any()
  assert last["bias"].any()


def test_masks_only_shrink_towards_the_target(task):
  found = states(task, SEARCH.replace(generations=8))
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


def test_a_diverging_genome_never_becomes_a_parent(task):
  # Crossover from parent 1 alone, and nothing mutated: children are copies of their parents.
  own = changed(
    task, SEARCH, population_size=8, crossover_rate=1.0, noise_rate=0.0, resample_rate=0.0,
    dormancy_rate=0.0, optimizer=diverging(0.0), elites=4,
  )  # fmt: skip
  (before, _), (after, metrics), *_ = states(*own)
  first_weights = np.asarray(before.population.weights["hidden_0"]["kernel"])[:8, 0, 0]
  np.testing.assert_array_equal(np.isinf(metrics.fitness), first_weights > 0)
  assert 0 < np.isinf(metrics.fitness).sum() < 8
  children = np.asarray(after.population.weights["hidden_0"]["kernel"])[:8, 0, 0]
  assert (children <= 0).all()


def test_a_search_in_which_everything_diverges_says_so(task):
  with pytest.raises(
    nets_jax.UsageError, match=r"every genome of generation 0 diverged.*lower learning_rate"
  ):
    nets_jax.search(KEY, *changed(task, SEARCH, learning_rate=1e30))


def test_patience_stops_a_search_that_does_not_improve(task):
  search = SEARCH.change(generations=30, patience=2, dormancy_rate=0.0, noise_rate=0.0, resample_rate=0.0)
  search = search.change(ranking="none").replace(objective=lambda candidate: jnp.float32(1.0))
  result = nets_jax.search(KEY, task, search)
  assert result.history[-1]["generation"] == 3  # generation 0 is the best; 1, 2 and 3 are no better
  assert result.cost.epochs == 4 * 5


def test_an_objective_of_ones_own_is_minimised(task):
  search = SEARCH.change(ranking="none").replace(objective=lambda candidate: -candidate.density)
  result = nets_jax.search(KEY, task, search)
  assert float(nets_jax.density(result.ticket)) == 1.0


@pytest.mark.parametrize(
  ("rule", "factor"), [("feasible", 1.0), ("feasible", -1e4), ("schedule", -1.0), ("schedule", 1e4)]
)
def test_an_objective_replaces_the_loss_and_not_the_target_density(task, rule, factor):
  """Whatever its sign and size, the best ticket is of the target's density, and the best of those."""
  search = nets_jax.recipes.guided(target_density=0.301, generations=6, population_size=6, halvings=0)
  search = search.replace(objective=lambda candidate: factor * (candidate.valid_loss + 1))
  if rule == "feasible":
    search = search.replace(operators=(*search.operators[:2], dormancy.GuidedDormancy(0.3)))
  result = nets_jax.search(KEY, change(task, {"learning_rate": 0.1}), search)
  assert float(nets_jax.density(result.ticket)) <= 0.301
  allowed = [row for row in result.history if row["density"] <= 0.301]
  assert allowed
  best = min(allowed, key=lambda row: factor * row["valid_loss"])
  assert result.best == best
  assert result.best["fitness"] == min(row["fitness"] for row in result.history)


def test_an_objective_is_penalised_as_the_loss_is(task):
  search = SEARCH.change(penalty_weight=2.0).replace(objective=lambda candidate: -candidate.valid_score)
  for row in nets_jax.search(KEY, task, search).history:
    want = -row["valid_accuracy"] + 2 * ((row["density"] - 0.2) / 0.8) ** 2
    assert row["fitness"] == pytest.approx(want, abs=1e-5)


def test_an_objective_that_would_decide_nothing_is_refused(task):
  search = SEARCH.change(ranking="pareto").replace(objective=lambda candidate: candidate.valid_loss)
  with pytest.raises(nets_jax.UsageError, match="an objective of your own would decide nothing"):
    nets_jax.search(KEY, task, search)


def test_the_results_best_row_is_its_tickets(task):
  result = nets_jax.search(KEY, task, SEARCH.replace(generations=8, elites=0))
  assert result.best == min(result.history, key=lambda row: row["fitness"])
  assert result.best != result.history[-1]
  assert result.best["density"] == pytest.approx(float(nets_jax.density(result.ticket)), rel=1e-6)


def test_a_population_larger_than_memory_is_refused_before_anything_is_made(task):
  with pytest.raises(nets_jax.UsageError, match=r"10,000,000,000,000 genomes .* at most [\d,]+ genomes fit"):
    nets_jax.search(KEY, task, SEARCH.replace(population_size=10**13))


@pytest.mark.parametrize("outputs", [1, 2])
def test_a_network_with_too_few_outputs_is_refused_by_every_search(task, data, outputs):
  task = task.replace(network=nets_jax.MLP((4,), outputs))
  ticket = nets_jax.random_ticket(KEY, task.network, data.input_shape, 1.0)
  for run in (
    lambda: nets_jax.search(KEY, task, SEARCH),
    lambda: nets_jax.search(KEY, task, nets_jax.Imp()),
    lambda: nets_jax.search(KEY, task, Snip(score_batch=20)),
    lambda: nets_jax.search(KEY, task, Random()),
    lambda: nets_jax.train_tickets(KEY, nets_jax.stack([ticket]), task, epochs=1),
    lambda: nets_jax.judge_ticket(KEY[None], ticket, task, epochs=1),
  ):
    with pytest.raises(nets_jax.UsageError, match=f"MLP has {outputs} outputs, but the data have 3 classes"):
      run()


@pytest.mark.parametrize(("fitness_epochs", "steps"), [(1.0, 7), (0.5, 4), (2.0, 14), (0.001, 1)])
def test_fitness_epochs_may_be_a_fraction(task, fitness_epochs, steps):
  search = SEARCH.replace(fitness_epochs=fitness_epochs)
  assert fitness_steps(search, task) == steps
  result = nets_jax.search(KEY, task, search.replace(generations=1))
  assert result.cost.epochs == pytest.approx(10 * steps / 7)


def test_changing_a_rate_the_seed_or_the_data_compiles_nothing(task, data, result):
  other, search = changed(
    task, SEARCH,
    generations=2, elites=2, crossover_rate=0.3, noise_rate=0.2, noise_scale=0.3, resample_rate=0.0,
    dormancy_rate=0.5, init_scale=0.2, initial_density=0.5, target_density=0.4, penalty_weight=3.0,
    learning_rate=0.01, patience=5,
  )  # fmt: skip
  other = other.replace(data=data.replace(train=data.train.replace(inputs=data.train.inputs + 1)))
  key = jax.random.key(7)
  with counted_compilations() as count:
    nets_jax.search(key, other, search)
  assert count == []
  with counted_compilations() as count:
    nets_jax.search(KEY, *changed(task, SEARCH, batch_size=13))
  assert count


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"population_size": 0}, "population_size must be at least 1, not 0"),
    ({"population_size": 1}, "elites must be from 0 to population_size - 1 = 0, not 1"),
    ({"elites": 5}, "elites must be from 0 to population_size - 1 = 4, not 5"),
    ({"elites": -1}, "elites must be at least 0, not -1"),
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
    ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
    ({"batch_size": 87}, "batch_size must be from 1 to the 86 training examples, not 87"),
    (
      {"selection": "lottery"},
      "selection must be one of tournament, rank, truncation, roulette, not 'lottery'",
    ),
    ({"optimizer": "tiger"}, "optimizer must be one of .*adam, .*momentum, .*sgd, .*, not 'tiger'"),
  ],
)
def test_impossible_settings(task, changes, message):
  assert len(task.data.train) == 86
  with pytest.raises(nets_jax.UsageError, match=message):
    nets_jax.search(KEY, *changed(task, SEARCH, **changes))


def test_a_step_has_ended_when_it_returns(task):
  """So a loop of one's own has never two programs under way that wait for each other on a CPU's devices."""
  state = init(KEY, task, SEARCH, nets_jax.make_layout(SEARCH.population_size))
  for _ in range(3):
    state, metrics = step(state, task, SEARCH, nets_jax.make_layout(SEARCH.population_size))
    ready = state.replace(key=jax.random.key_data(state.key)), metrics
    assert all(leaf.is_ready() for leaf in jax.tree.leaves(ready))


@pytest.fixture(scope="module")
def large(task):
  """A compiled generation of 256 genomes on 4 devices, and the bytes of a genome: they are what counts."""
  task = task.for_search().replace(network=nets_jax.MLP((200, 50), 3))
  search = SEARCH.replace(population_size=256)
  layout = nets_jax.make_layout(256, devices=4)
  state = init(jax.random.key(0), task, search, layout)
  compiled = jax.jit(step, static_argnames="layout").lower(state, task, search, layout).compile()
  return compiled, jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), state.population
  )


@pytest.mark.devices
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


@pytest.mark.devices
def test_a_generation_holds_a_few_copies_of_a_shard(large):
  step, genome = large
  used = step.memory_analysis()  # of each device
  shard = 256 / 4 * sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(genome))
  assert shard < used.argument_size_in_bytes < 1.1 * shard
  assert shard < used.output_size_in_bytes < 1.1 * shard
  assert used.temp_size_in_bytes < MOST_COPIES * shard + 2e6  # and what one genome's training takes
