"""Layers that stay dense or have densities of their own: exact counts in every method."""

import json

import jax
import numpy as np
import pytest
from conftest import assert_same_results
from test_search import SMALL

import nets_jax
from nets_jax import operators
from nets_jax.baselines.one_shot import Grasp, Magnitude, Snip, Synflow
from nets_jax.baselines.random_tickets import Dense, Random
from nets_jax.evolution import dormancy
from nets_jax.evolution.generation import init, step
from nets_jax.networks.layer_rules import own_counts, with_rule
from nets_jax.networks.layers import Layer
from nets_jax.tickets.layer_counts import check_density, counts_on_the_way, hold
from nets_jax.tickets.ticket import unmasked_count

# The network of conftest has hidden_0 of 6 x 8, hidden_1 of 8 x 5 and output of 5 x 3 weights: 103.
SIZES = {"hidden_0": 48, "hidden_1": 40, "output": 15}
RULE = {"dense_layers": ("output",), "layer_densities": {"hidden_1": 0.3}}
OWN = {"output": 15, "hidden_1": 12}
TARGET = 0.4  # 41 weights, of which 14 are left for hidden_0
WANTED = {"hidden_0": 14, "hidden_1": 12, "output": 15}
KEYS = jax.random.split(jax.random.key(0), 2)
SHORT = {"generations": 3, "fitness_epochs": 0.5}


def counts(ticket):
  return {name: int(np.sum(mask)) for name, mask in ticket.by_layer(ticket.masks).items()}


@pytest.fixture(scope="module")
def ruled(task):
  return task.replace(**RULE)


def test_names_patterns_and_functions_give_counts():
  layers = tuple(Layer(name, (size,)) for name, size in SIZES.items())
  assert own_counts(with_rule(layers)) == {}
  assert own_counts(with_rule(layers, ["output"], (("hidden_1", 0.3),))) == {"hidden_1": 12, "output": 15}
  # Dense layers come first, then the first pattern that fits.
  assert own_counts(with_rule(layers, ["out*"], (("hidden_0", 0.5), ("*", 0.1)))) == {
    "hidden_0": 24, "hidden_1": 4, "output": 15,
  }  # fmt: skip
  by_shape = lambda name, shape: 0.5 if shape[0] < 45 else None  # noqa: E731
  assert own_counts(with_rule(layers, (), by_shape)) == {"hidden_1": 20, "output": 8}
  assert own_counts(with_rule(layers, (), (("output", 0.001),))) == {"output": 1}


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"dense_layers": ["outptu"]}, "no layer is called 'outptu'; did you mean output"),
    (
      {"layer_densities": {"head": 0.5}},
      r"no layer is called 'head' \(there are hidden_0, hidden_1, output\)",
    ),
    ({"layer_densities": {"output": 0.0}}, "layer_densities must be densities in"),
    (
      {"layer_densities": lambda name, shape: 2},
      r"the density of the layer hidden_0 must be in \(0, 1\], not 2",
    ),
    ({"layer_densities": {"output": "half"}}, "the density of the layer output must be in"),
    ({"layer_densities": lambda name, shape: "half"}, "hidden_0 must be in"),
  ],
)
def test_a_rule_that_fits_no_layer_is_refused(task, changes, message):
  with pytest.raises(nets_jax.UsageError, match=message):
    task.replace(**changes).check()
  with pytest.raises(nets_jax.UsageError, match="layer_densities must be densities by the layers' names"):
    task.replace(layer_densities=0.5)


@pytest.mark.parametrize(
  ("rule", "target", "message"),
  [
    (
      RULE,
      0.2,
      "is 21 of 103 weights, but what the task says of hidden_1, output leaves 28 to 75; give a density",
    ),
    (RULE, 1.0, "is 103 of 103 weights, but .* leaves 28 to 75; give a density from 0.271845 to 0.728155"),
    ({"layer_densities": {"*": 0.5}}, 0.4, "leaves 52 to 52"),
  ],
)
def test_a_target_that_cannot_be_met_is_refused(task, rule, target, message):
  searches = nets_jax.recipes.guided(target_density=target), Snip(target), Random(target)
  for search in (*searches, nets_jax.recipes.paper(target_density=target)):
    with pytest.raises(nets_jax.UsageError, match=message):
      nets_jax.search(KEYS[0], task.replace(**rule), search)


def test_every_layer_may_have_its_own(task):
  every = task.replace(layer_densities={"*": 0.5})
  check_density(every.layers, 0.5)
  result = nets_jax.search(KEYS[0], every, Magnitude(0.5, score_batch=30))
  assert counts(result.ticket) == {"hidden_0": 24, "hidden_1": 20, "output": 8}


@pytest.mark.parametrize(
  "search",
  [
    Magnitude(TARGET, rounds=3, score_batch=30),
    Snip(TARGET, score_batch=30),
    Grasp(TARGET, score_batch=30),
    Synflow(TARGET, rounds=7, score_batch=30),
    Random(TARGET, density_deviation=0.0),
    nets_jax.recipes.guided(population_size=4, target_density=TARGET, **SHORT),
    nets_jax.recipes.guided(
      population_size=4,
      target_density=TARGET,
      dormancy_scope="layer",
      regrowth_rate=0.2,
      saliency="random",
      **SHORT,
    ),
    nets_jax.recipes.guided(population_size=4, target_density=TARGET, density_schedule="cubic", **SHORT),
    nets_jax.recipes.guided(
      population_size=4, target_density=TARGET, density_schedule="constant", generations=6, fitness_epochs=0.5
    ),
    nets_jax.recipes.line(target_density=TARGET, **SHORT),
    nets_jax.recipes.halved(population_size=4, halvings=1, target_density=TARGET, **SHORT),
  ],
  ids=lambda search: type(search).__name__,
)
def test_the_target_is_met_by_all_layers_together(ruled, search):
  for result in nets_jax.search_all(KEYS, ruled, search):
    assert counts(result.ticket) == WANTED
    assert unmasked_count(result.ticket) == round(TARGET * 103)
    assert result.history[-1]["density"] == pytest.approx(41 / 103)


def test_a_dense_network_is_as_dense_as_its_layers_may_be(task, ruled):
  (result,) = Dense().run(KEYS[:1], ruled)
  assert counts(result.ticket) == {"hidden_0": 48, **OWN}
  (plain,) = Dense().run(KEYS[:1], task.replace(dense_layers="hidden_*"))
  assert counts(plain.ticket) == SIZES


def test_random_tickets_stay_within_what_is_possible(ruled):
  search = Random(target_density=0.3, density_deviation=0.5)
  for result in search.run(jax.random.split(jax.random.key(1), 8), ruled):
    found = counts(result.ticket)
    assert {name: found[name] for name in OWN} == OWN
    assert 1 <= found["hidden_0"] <= 48


@pytest.mark.parametrize("scope", ["layer", "global", "lamp"])
def test_imp_leaves_such_layers_at_their_counts(task, ruled, scope):
  search = nets_jax.Imp(cycles=2, cycle_epochs=1, prune_scope=scope)
  seen = []
  (result,) = search.run(KEYS[:1], ruled, on_tickets=lambda number, tickets: seen.append(tickets))
  # hidden_0 alone is pruned by a fifth: 48, 38, 30.
  assert [counts(nets_jax.take(tickets, 0)) for tickets in seen] == [
    SIZES, {**OWN, "hidden_0": 38}, {**OWN, "hidden_0": 30},
  ]  # fmt: skip
  assert counts(result.ticket) == {**OWN, "hidden_0": 30}
  assert search.at_density(52 / 103, ruled).cycles == 3  # 24 of hidden_0, so 51
  (dense,) = search.run(KEYS[:1], task.replace(dense_layers="hidden_1"))
  assert counts(dense.ticket)["hidden_1"] == 40


def populations(task, search):
  """The genomes of each generation, the first before any evaluation."""
  layout = nets_jax.make_layout(search.population_size)
  state = init(KEYS[0], task, search, layout)
  for _ in range(search.generations + 1):
    yield [nets_jax.take(state.population, i) for i in range(search.population_size)]
    state, _ = step(state, task, search, layout)


def test_blind_dormancy_never_touches_them(ruled):
  search = nets_jax.recipes.paper(
    population_size=5, generations=3, dormancy_rate=0.4, initial_density=0.6, target_density=TARGET
  )
  free = []
  for genomes in populations(ruled, search):
    for genome in genomes:
      found = counts(genome)
      assert {name: found[name] for name in OWN} == OWN
      free.append(found["hidden_0"])
  assert min(free) < 20  # the others are as blind as ever


def test_a_rate_of_guided_dormancy_is_of_the_others(ruled):
  search = nets_jax.Nets(
    population_size=4, generations=2, operators=(dormancy.GuidedDormancy(0.25),), ranking="none"
  )
  seen = [{counts(genome)["hidden_0"] for genome in genomes} for genomes in populations(ruled, search)]
  assert seen[0] == {48}
  assert seen[1] == {48, 36}
  for genomes in populations(ruled, search):
    assert all({name: counts(genome)[name] for name in OWN} == OWN for genome in genomes)


def test_a_schedule_brings_a_layer_there_as_far_as_the_whole(ruled):
  search = nets_jax.recipes.guided(
    population_size=4, target_density=TARGET, density_schedule="geometric", **SHORT
  )
  for generation, genomes in enumerate(populations(ruled, search)):
    x = generation / 3
    wanted = {"hidden_1": round(40 * 0.3**x), "output": 15}
    for genome in genomes:
      found = counts(genome)
      assert {name: found[name] for name in wanted} == wanted
      assert sum(found.values()) == round(103 * np.float32(TARGET) ** np.float32(x))


def test_counts_on_the_way_end_exactly():
  layers = (Layer("a", (1000, 77), 38_501), Layer("b", (9,), 9), Layer("c", (7,)))
  assert counts_on_the_way(layers, 1.0, 1.0) == {"a": 38_501, "b": 9}
  assert counts_on_the_way(layers, 0.5, 0.0) == {"a": 38_500, "b": 9}
  assert counts_on_the_way((layers[2],), 1.0, 0.5) == {}


def rude(key, child, context):
  """An operator that knows nothing of single layers."""
  del key, context
  return child.replace(masks=jax.tree.map(lambda mask: mask & False, child.masks))


def test_an_operator_of_ones_own_cannot_break_the_rule(ruled):
  search = nets_jax.Nets(
    population_size=3, generations=1, operators=(operators.Crossover(), rude), ranking="none"
  )
  *_, last = populations(ruled, search)
  assert {counts(genome)["hidden_0"] for genome in last} == {0, 48}  # all but the elite
  for genome in last:
    assert {name: counts(genome)[name] for name in OWN} == OWN


def test_holding_a_ticket_that_is_right_changes_nothing(ruled, network, data):
  ticket = nets_jax.random_ticket(KEYS[0], network, data.input_shape, TARGET, layers=ruled.layers)
  assert counts(ticket) == WANTED
  held = hold(KEYS[1], ticket)
  jax.tree.map(np.testing.assert_array_equal, held.masks, ticket.masks)


@pytest.mark.devices
def test_a_run_is_the_same_alone_and_beside_others(ruled):
  search = nets_jax.recipes.paper(population_size=4, generations=2, target_density=TARGET)
  alone = [nets_jax.search(key, ruled, search) for key in KEYS]
  assert_same_results(nets_jax.search_all(KEYS, ruled, search, devices=2), alone)


def test_tickets_with_and_without_a_rule_go_side_by_side(ruled, network, data):
  shape = data.input_shape
  with_it = nets_jax.random_ticket(KEYS[0], network, shape, TARGET, layers=ruled.layers)
  without = nets_jax.random_ticket(KEYS[1], network, shape, TARGET)
  assert nets_jax.stack([with_it, without]).layers == without.layers
  assert nets_jax.stack([with_it, with_it]).layers == with_it.layers


def test_a_checkpoint_is_of_one_rule(ruled, task):
  assert task.record().keys() == {"network", "loss", "score"}
  assert ruled.record()["layers"] == {"hidden_1": 12, "output": 15}


def test_the_flags(job, tmp_path):
  rule = ("--dense_layers=out*", "--layer_densities=hidden_0=0.5", "--hidden_sizes=6,4")
  status, _, error = job(*SMALL, *rule, "--target_density=0.5", "--workdir=run")
  assert status == 0, error
  ticket = nets_jax.load_ticket(tmp_path / "run" / "ticket.safetensors")
  # Of 2 x 6, 6 x 4 and 4 x 2: 22 of 44, of which 6 and 8 are spoken for.
  assert counts(ticket) == {"hidden_0": 6, "hidden_1": 8, "output": 8}
  flags = json.loads((tmp_path / "run" / "config.json").read_text())["flags"]
  assert flags["dense_layers"] == "out*"
  assert flags["layer_densities"] == "hidden_0=0.5"
  assert job("--flagfile=run/run.flags", "--workdir=again")[0] == 0
  again = (tmp_path / "again" / "ticket.safetensors").read_bytes()
  assert again == (tmp_path / "run" / "ticket.safetensors").read_bytes()
  status, _, error = job(*SMALL, *rule, "--target_density=0.1")
  assert status == 2
  assert "give a density from" in error
  status, _, error = job(*SMALL, "--layer_densities=output")
  assert status == 2
  assert "it must be layer=density, with commas between" in error
