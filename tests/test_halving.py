"""Successive halving: who goes on and for how long they train; else a halved search is as any other."""

from concurrent.futures import Future

import jax
import numpy as np
import pytest
from conftest import assert_same_bits, assert_same_results, changed, without_seconds
from hypothesis import given, settings
from hypothesis import strategies as st
from test_checkpoints import in_pieces

import nets_jax
from nets_jax.changes import change
from nets_jax.engine.layouts import resized
from nets_jax.evolution import halving, places, stages
from nets_jax.evolution import search as nets_search
from nets_jax.evolution.breeding import choose_parents
from nets_jax.evolution.configuration import fitness_steps, last_stage, stage_number
from nets_jax.evolution.dormancy import GuidedDormancy
from nets_jax.evolution.generation import init_all, step_all
from nets_jax.evolution.operators import Crossover
from nets_jax.evolution.ranking import Feasible
from nets_jax.evolution.scales import ScaleLayers
from nets_jax.evolution.schedules import Linear
from nets_jax.evolution.selection import Rank, Roulette, Tournament, Truncation
from nets_jax.evolution.stages import are_one_program, narrow, stage_of

# On a CPU its stages share a program; each training is at least as long as what looks back on it.
SEARCH = nets_jax.recipes.guided(
  population_size=8,
  generations=6,
  elites=2,
  target_density=0.2,
  halvings=2,
  fitness_epochs=1.5,
  valid_examples=80,
  density_schedule="geometric",
)
KEY = jax.random.key(3)
SIZES = [8, 8, 8, 4, 4, 2, 2]


@pytest.fixture(scope="module")
def task(task):
  return change(task, {"learning_rate": 0.1})


@pytest.fixture(scope="module")
def result(task):
  return nets_jax.search(KEY, task, SEARCH)


def by_generation(history):
  rows = {}
  for row in history:
    rows.setdefault(row["generation"], []).append(row)
  return rows


@given(st.integers(0, 40), st.integers(0, 6), st.integers(1, 40), st.integers(0, 40))
def test_the_course_of_a_search(generations, halvings, size, elites):
  search = nets_jax.Nets(
    population_size=size,
    generations=generations,
    halvings=halvings,
    elites=min(elites, size),
    fitness_epochs=0.3,
    valid_examples=100,
  )
  numbers = [stage_number(search, generation) for generation in range(generations + 3)]
  assert numbers[0] == 0
  assert (np.diff(numbers) >= 0).all()
  assert numbers[-1] == numbers[generations] == last_stage(search) <= halvings
  lengths = np.bincount(numbers[: generations + 1], minlength=halvings + 1)
  assert lengths.max() - lengths.min() <= 1
  for generation, i in enumerate(numbers):
    own = halving.stage(search, generation)
    assert own.population_size == max(1, size // 2**i)
    assert own.fitness_epochs == 0.3 * 2**i
    last = numbers[-1]
    assert own.valid_examples == (0 if halvings and i == last else 100 * 2**i)
    assert own.elites == min(search.elites, own.population_size)
    assert halving.begins_stage(search, generation) == (generation > 0 and i > numbers[generation - 1])


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


def test_every_generation_costs_the_same(task, data, result):
  per_epoch = len(data.train) // 12
  by_hand = sum(size * fitness_steps(SEARCH.replace(fitness_epochs=12 / size), task) for size in SIZES)
  assert result.cost.epochs == by_hand / per_epoch
  assert halving.genome_epochs(SEARCH, task, 2) == 2 * 8 * round(1.5 * per_epoch) / per_epoch


def test_the_densities_are_those_of_the_schedule(result):
  total = sum(mask.size for mask in jax.tree.leaves(result.ticket.masks))
  for generation, own in by_generation(result.history).items():
    assert {round(row["density"] * total) for row in own} == {round(0.2 ** (generation / 6) * total)}


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9), st.data())
def test_every_genome_has_a_row_of_its_own(runs, size, devices, draw):
  """Those that a halving keeps are the first on each device, shared out evenly."""
  layout = Placed(-(-runs * size // devices) * devices, devices)
  run, index = (np.asarray(each) for each in places.row_places(runs, layout))
  np.testing.assert_array_equal(places.rows_of(run, index, runs, layout), np.arange(layout.rows))
  kept = draw.draw(st.integers(1, size))
  on_device = (index < kept).reshape(devices, -1)
  counts = on_device.sum(1)
  assert counts.sum() == runs * kept
  assert counts.max() - counts.min() <= 1
  assert all(of[: of.sum()].all() for of in on_device)


class Placed:
  """As much of a layout as places ask for."""

  def __init__(self, rows, devices):
    self.rows, self.mesh = rows, self
    self.size = devices


@pytest.mark.devices
def test_the_ticket_is_the_best_of_the_last_stage(task):
  """Losses after longer trainings are lower, and without a schedule all would else be compared."""
  search = SEARCH.replace(operators=(Crossover(), ScaleLayers(Linear(0.5, 0.2)), GuidedDormancy(0.0)))
  task, search = changed(task, search, target_density=1.0, learning_rate=0.5, halvings=1)
  result = nets_jax.search(KEY, task, search, frontier_size=0)
  stepped = list(by_generation(result.history).values())
  best = min((row for rows in stepped[-3:] for row in rows), key=lambda row: row["fitness"])
  state, _ = last_state(task, search)
  assert float(state.best_fitness) == np.float32(best["fitness"])
  assert_same_bits(jax.device_get(state.best), result.ticket)


def last_state(task, search):
  """A search by hand: `step`, and `narrow` where a stage begins."""
  layout = nets_jax.make_layout(search.population_size)
  shared = are_one_program(search, task, layout)
  own = stage_of([task], [search], 0, shared)
  state = init_all(KEY[None], task, own.settings, layout)
  seen = []
  for generation in range(search.generations + 1):
    state, metrics = step_all(state, task, own.settings, layout, own.bounds)
    seen.append(np.asarray(metrics.fitness[0, : own.genomes]))
    assert np.isinf(metrics.fitness[0, own.genomes :]).all()
    if halving.begins_stage(search, generation + 1):
      own = stage_of([task], [search], generation + 1, shared)
      before = layout
      layout = layout if own.bounds is not None else resized(layout, own.genomes)
      state = narrow(state, own.genomes, before, layout)
      assert np.isinf(state.best_fitness).all()
  return jax.tree.map(lambda leaf: leaf[0], state.replace(population=None, generation=None)), seen


def apart(monkeypatch):
  """Has each stage be a program of its own, as on an accelerator."""
  monkeypatch.setattr(halving, "shares_program", lambda search, task: False)


def test_stages_in_one_program_are_those_of_programs_of_their_own(task, result, monkeypatch):
  assert halving.shares_program(SEARCH, task)
  apart(monkeypatch)
  others = nets_jax.search(KEY, task, SEARCH)
  for one, other in zip(result.history, others.history, strict=True):
    for name in ("generation", "genome", "parent_1", "parent_2", "density"):
      assert one[name] == other[name]
    np.testing.assert_allclose(one["valid_loss"], other["valid_loss"], rtol=1e-5)
  assert_same_masks(result.ticket, others.ticket)


def assert_same_masks(one, other):
  for a, b in zip(jax.tree.leaves(one.masks), jax.tree.leaves(other.masks), strict=True):
    np.testing.assert_array_equal(a, b)


@pytest.mark.devices
def test_stages_compiled_ahead_are_the_same(task, monkeypatch):
  """As accelerators have it, each stage beside the one before."""
  apart(monkeypatch)
  want = nets_jax.search(KEY, task, SEARCH)
  monkeypatch.setattr(stages, "compiles_ahead", lambda layout: True)
  compiled = []
  monkeypatch.setattr(nets_search, "compile_program", count(compiled, nets_search.compile_program))
  ahead = nets_jax.search(KEY, task, SEARCH)
  assert not compiled  # the first stage neither, which is compiled beside the first population
  assert_same_results([ahead], [want])


def count(calls, function):
  def counted(*args):
    calls.append(args)
    return function(*args)

  return counted


@pytest.mark.devices
def test_compiling_ahead_that_fails_is_done_again(task, monkeypatch, capsys):
  apart(monkeypatch)
  search = SEARCH.replace(halvings=1)
  want = nets_jax.search(KEY, task, search)
  monkeypatch.setattr(stages, "compiles_ahead", lambda layout: True)
  failed = Future()
  failed.set_exception(RuntimeError("RESOURCE_EXHAUSTED: as if"))
  monkeypatch.setattr(nets_search, "compile_in_thread", lambda *args: failed)
  assert_same_results([nets_jax.search(KEY, task, search)], [want])
  assert "compiling ahead failed, and is done again (RESOURCE_EXHAUSTED: as if)" in capsys.readouterr().err


@pytest.mark.parametrize("selection", [Tournament(), Truncation(), Rank(), Roulette()])
def test_where_none_is_finite_all_genomes_of_the_stage_are_equal(selection):
  """Those that the stage has no more are none."""
  search = nets_jax.Nets(population_size=8, elites=1, selection=selection)
  keys = jax.random.split(KEY, (64, 2))
  places = jax.numpy.zeros(64, int), jax.numpy.arange(64) % 8
  search = jax.tree.map(lambda leaf: jax.numpy.asarray(leaf)[None], search)
  parents, is_elite = choose_parents(keys, jax.numpy.full((1, 8), np.inf), places, search, jax.numpy.int32(3))
  assert set(np.asarray(parents).reshape(-1)) == {0, 1, 2}
  assert not np.asarray(is_elite).any()


class LooksAtAll(GuidedDormancy):
  """An observer that does not say how far it looks back."""

  def observe(self, genome, trained, task, order):
    return super().observe(genome, trained, task, order)


class LooksAtFive(LooksAtAll):
  """One that says so."""

  minibatches = 5


class OwnRanking(Feasible):
  """A ranking of one's own, which may look at the number of genomes."""


@pytest.mark.parametrize(
  "changes",
  [
    {"halvings": 0},
    {"fitness_epochs": 0.5},  # four steps, of which ten should be looked at
    {"ranking": OwnRanking()},
    {"operators": (Crossover(), LooksAtAll())},
  ],
)
def test_what_may_look_at_shapes_has_programs_of_its_own(task, changes):
  assert not halving.shares_program(SEARCH.replace(**changes), task)


def test_an_observer_says_how_far_it_looks_back(task):
  assert halving.shares_program(SEARCH.replace(operators=(Crossover(), LooksAtFive())), task)


@pytest.mark.parametrize("generations", [0, 1, 2, 7])
def test_the_last_generation_is_scored_on_all_examples(task, generations):
  """Also where there are not as many as stages."""
  search = nets_jax.recipes.halved(generations=generations)
  assert halving.extent(halving.stage(search, generations), task).examples == len(task.data.valid)


def test_a_schedule_as_long_as_each_training_has_programs_of_its_own(task):
  training = nets_jax.Training(batch_size=12, schedule="cosine")
  own = task.replace(training=training, epochs=20)
  assert halving.shares_program(SEARCH, own)  # the head of one schedule
  whole = own.replace(training=change(training, {"search_schedule": "whole"}))
  assert not halving.shares_program(SEARCH, whole)


@pytest.mark.devices
@pytest.mark.parametrize("shared", [True, False])
def test_stepping_is_searching(task, result, shared, monkeypatch):
  if not shared:
    apart(monkeypatch)
    result = nets_jax.search(KEY, task, SEARCH)
  state, seen = last_state(task, SEARCH)
  assert_same_bits(jax.device_get(state.best), result.ticket)
  np.testing.assert_array_equal(np.concatenate(seen), np.float32([row["fitness"] for row in result.history]))


@pytest.mark.devices
@pytest.mark.parametrize("devices", [1, 3])
def test_the_same_bits_on_any_number_of_devices(task, result, devices):
  other = nets_jax.search(KEY, task, SEARCH, devices=devices)
  assert_same_results([other], [result])


@pytest.mark.devices
def test_runs_side_by_side_are_each_the_run_alone(task, result):
  keys = jax.numpy.stack([KEY, jax.random.key(4)])
  other = changed(task, SEARCH, learning_rate=0.05, target_density=0.5, elites=1)
  together = nets_jax.search_all(keys, *zip((task, SEARCH), other, strict=True), frontier_size=4)
  assert without_seconds(together[0].history) == without_seconds(result.history)
  assert_same_bits(together[0].ticket, result.ticket)
  alone = nets_jax.search(keys[1], *other, frontier_size=4)
  assert_same_results([together[1]], [alone])


@pytest.mark.devices
@pytest.mark.parametrize("turns", [1, 3])
def test_in_pieces_it_is_the_whole_search(tmp_path, task, result, turns):
  """Stopped after every generation, so also between two stages."""
  pieces, stops = in_pieces(
    lambda saved: nets_jax.search(KEY, task, SEARCH, devices=3, checkpoints=saved), tmp_path, turns
  )
  assert stops >= 2
  assert_same_results([pieces], [result])


def test_patience_begins_anew_with_a_stage(task):
  """Where no generation is better than the first, it runs out in each stage apart."""
  search = SEARCH.replace(
    operators=(Crossover(), GuidedDormancy(0.0)), objective=lambda candidate: candidate.density
  )
  task, search = changed(
    task, search, target_density=1.0,
    population_size=2, elites=1, halvings=1, generations=11, patience=4, learning_rate=1e-9,
  )  # fmt: skip
  last = nets_jax.search(KEY, task, search).history[-1]["generation"]
  assert last == 5  # the first stage alone: generation 0 is the best for ever
  last = nets_jax.search(KEY, task, search.replace(patience=5)).history[-1]["generation"]
  assert last == 11


def test_runs_that_halve_at_different_times_do_not_go_together(task):
  keys = jax.random.split(KEY, 2)
  with pytest.raises(nets_jax.UsageError, match="must agree in generations, not have 6 and 7"):
    nets_jax.search_all(keys, task, [SEARCH, SEARCH.replace(generations=7)])
  with pytest.raises(nets_jax.UsageError, match="halvings must be at least 0, not -1"):
    nets_jax.search(KEY, task, SEARCH.replace(halvings=-1))
