"""NaN, infinities and what has none of a kind: an answer, or one line that says why not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import without_seconds
from test_search import SMALL, table

import nets_jax
from nets_jax.baselines import one_shot
from nets_jax.errors import Diverged
from nets_jax.tickets.ticket import empty_layers
from nets_jax.training.evaluation import class_accuracies

SEARCH = nets_jax.recipes.paper(population_size=3, generations=3, elites=0, dormancy_rate=0.3)
TRAINING = nets_jax.Training(learning_rate=0.1, batch_size=12)
KEY = jax.random.key(0)


@pytest.mark.parametrize("value", [1e39, -1e300])
def test_numbers_that_float32_cannot_hold(value):
  inputs = np.zeros((40, 2))
  inputs[::2, 1] = value
  inputs[1::2, 1] = -value
  with pytest.raises(nets_jax.UsageError, match="inputs are too large for float32 numbers; scale them down"):
    nets_jax.from_arrays(inputs, np.arange(40) % 2)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("part", ["training", "test"])
def test_data_that_are_not_finite(value, part):
  good = bad = np.random.default_rng(0).normal(size=(40, 2))
  bad = bad.copy()
  bad[3, 1] = value
  labels = np.arange(40) % 2
  arrays = (bad, labels, good, labels) if part == "training" else (good, labels, bad, labels)
  with pytest.raises(nets_jax.UsageError, match=f"{part} inputs must be finite"):
    nets_jax.from_arrays(*arrays)


@pytest.fixture(scope="module")
def task(network, data):
  return nets_jax.Task(network, data, TRAINING)


@pytest.fixture(scope="module")
def lacking():
  """A task whose class 2 is in the training part alone, and class 3 in the test part alone."""
  rng = np.random.default_rng(0)
  inputs, labels = rng.normal(size=(60, 6)), np.arange(60) % 2
  labels[np.random.default_rng(0).permutation(60)[6:20]] = 2  # `from_arrays` validates on the first 6
  data = nets_jax.from_arrays(inputs, labels, rng.normal(size=(20, 6)), np.arange(20) % 4)
  assert set(data.train.labels) == {0, 1, 2}
  assert set(data.valid.labels) == {0, 1}
  assert data.num_classes == 4
  return nets_jax.Task(nets_jax.MLP((5,), 4), data, TRAINING)


def test_a_class_that_a_part_lacks(lacking):
  result = nets_jax.search(KEY, lacking, SEARCH)
  assert all(np.isfinite([row["fitness"], row["valid_loss"]]).all() for row in result.history)
  tickets = nets_jax.stack([result.ticket])
  trained = nets_jax.train_tickets(KEY, tickets, lacking, epochs=2)
  assert all(np.isfinite(list(row.values())).all() for row in trained.curves)
  weights = jax.tree.map(lambda leaf: leaf[0], trained.weights)
  accuracies = np.asarray(class_accuracies(lacking, weights, lacking.data.valid))
  assert np.isnan(accuracies).tolist() == [False, False, True, True]


def test_an_objective_that_is_never_a_number_is_named(lacking):
  def worst_class(candidate):
    return 1 - jnp.min(class_accuracies(lacking, candidate.weights, candidate.valid))

  with pytest.raises(Diverged, match="generation 0 has an objective that is not a finite number") as e:
    nets_jax.search(KEY, lacking, SEARCH.change(ranking="none").replace(objective=worst_class))
  assert e.value.result is None


def test_an_objective_that_is_now_and_then_no_number_never_wins(task):
  """NaN, infinity or minus infinity for every genome of more than 0.8 in density."""

  def objective(candidate):
    bad = jnp.array([jnp.nan, jnp.inf, -jnp.inf])[jnp.int32(1000 * candidate.density) % 3]
    return jnp.where(candidate.density > 0.8, bad, candidate.valid_loss)

  search = SEARCH.change(ranking="none", initial_density=0.8, population_size=40, generations=1)
  result = nets_jax.search(KEY, task, search.replace(objective=objective))
  bad = [row for row in result.history if row["density"] > 0.8]
  assert {int(np.float32(1000) * np.float32(row["density"])) % 3 for row in bad} == {0, 1, 2}
  for row in result.history:
    assert np.isfinite(row["fitness"]) if row not in bad else row["fitness"] == np.inf
  assert float(nets_jax.density(result.ticket)) <= 0.8


def test_what_was_found_before_all_genomes_failed_is_kept(task):
  """Dense genomes are fit, and no child is."""
  search = SEARCH.change(ranking="none").replace(
    objective=lambda candidate: jnp.where(candidate.density == 1, candidate.valid_loss, jnp.nan)
  )
  with pytest.raises(Diverged, match="every genome of generation 1 has an objective") as error:
    nets_jax.search(KEY, task, search)
  result = error.value.result
  assert [row["generation"] for row in result.history] == [0, 0, 0, 1, 1, 1]
  best = min(result.history, key=lambda row: row["fitness"])
  whole = nets_jax.search(KEY, task, SEARCH.change(generations=0, target_density=1.0))
  assert best["valid_loss"] == min(row["valid_loss"] for row in whole.history)
  jax.tree.map(np.testing.assert_array_equal, result.ticket, whole.ticket)


def test_an_optimiser_that_diverges_in_every_genome_ends_the_run_with_its_files(job, tmp_path):
  arguments = (
    *SMALL, "--search=paper", "--elites=0", "--noise_rate=1", "--noise_scale=1e30", "--workdir=run"
  )  # fmt: skip
  for again in (False, True):
    status, out, error = job(*arguments)
    assert (status, out) == (2, "")
    line = error.splitlines()[-1]
    assert line.startswith(
      "error: every genome of generation 1 diverged in training; lower learning_rate (0.1)"
    )
    assert line.endswith("the history and the best ticket before it are in run")
    assert "Traceback" not in error
    assert ("going on after generation 1" in error) is again
    history = table(tmp_path / "run" / "history.csv")
    assert [row["generation"] for row in history] == ["0"] * 4 + ["1"] * 4
    assert (tmp_path / "run" / "figure_evolution.png").exists()
    assert float(nets_jax.density(nets_jax.load_ticket(tmp_path / "run" / "ticket.safetensors"))) == 1
  status, _, error = job(*arguments[:-2], "--workdir=run")
  assert status == 2
  assert "of another configuration (noise_scale 1e+30 there and 0.1 here)" in error


def emptied(network, data, *layers):
  """A ticket some of whose layers have no weight left."""
  ticket = nets_jax.random_ticket(KEY, network, data.input_shape, 1.0)
  masks = {
    name: {**layer, "kernel": layer["kernel"] & (name not in layers)} for name, layer in ticket.masks.items()
  }
  return ticket.replace(masks=masks)


def test_a_layer_whose_mask_is_empty(tmp_path, task, network, data):
  empty = [("hidden_1",), ("output",), ("hidden_0", "output")]
  loaded = []
  for layers in empty:
    nets_jax.save_ticket(tmp_path / "t", emptied(network, data, *layers), network)
    loaded.append(nets_jax.load_ticket(tmp_path / "t"))
    assert empty_layers(loaded[-1]) == layers
  loaded.append(emptied(network, data, "hidden_0", "hidden_1", "output"))
  empty.append(("hidden_0", "hidden_1", "output"))
  trained = nets_jax.train_tickets(KEY, nets_jax.stack(loaded), task, epochs=3)
  assert all(np.isfinite(list(row.values())).all() for row in trained.curves)
  for i, layers in enumerate(empty):
    for name in trained.weights:
      assert bool(np.any(trained.weights[name]["kernel"][i])) is (name not in layers)
  verdicts = nets_jax.judge_ticket(KEY[None], loaded[3], task, epochs=2)
  assert verdicts["dense"][0].unmasked == 0


def test_searches_that_prune_to_nearly_nothing(task):
  search = nets_jax.Imp(cycles=2, cycle_epochs=1, prune_fraction=0.99, output_prune_fraction=0.99)
  with pytest.raises(nets_jax.SearchFailed, match="2 cycles of IMP prune every weight") as error:
    nets_jax.search(KEY, task, search)
  assert float(nets_jax.density(error.value.result.ticket)) == 0
  result = nets_jax.search(KEY, task, search.replace(output_prune_fraction=0.5))
  assert 0 < float(nets_jax.density(result.ticket)) < 0.05
  assert result.empty_layers == ("hidden_0", "hidden_1")
  for score in ("snip", "grasp", "synflow", "magnitude"):
    search = one_shot.SEARCHES[score](target_density=1e-6, score_batch=20)
    assert int(nets_jax.search(KEY, task, search).history[-1]["density"] * 10**9) > 0


def test_dormancy_to_nothing_is_no_number_either(task):
  search = SEARCH.change(dormancy_rate=1.0, elites=1)
  found = []
  for _ in range(2):
    with pytest.raises(nets_jax.SearchFailed, match="the best genome has no weight left") as error:
      nets_jax.search(KEY, task, search)
    found.append(without_seconds(error.value.result.history))
  assert {row["density"] for row in found[0]} == {0.0, 1.0}
  assert all(np.isfinite(row["fitness"]) for row in found[0])
  assert found[0] == found[1]
