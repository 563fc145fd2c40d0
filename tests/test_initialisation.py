"""How initial weights are drawn: He, Glorot, the module's own, and weights that are there already."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from conftest import assert_same_bits, assert_same_results

import nets_jax
from nets_jax.baselines.one_shot import Snip
from nets_jax.evolution import operators
from nets_jax.networks.adapter import draw_variables
from nets_jax.networks.initialisation import Given, Glorot, He, Normal, Own, as_initialiser
from nets_jax.networks.layers import find_fans
from nets_jax.tickets.controls import reinitialise
from nets_jax.tickets.storage import load_weights

pytestmark = pytest.mark.zoo

KEYS = jax.random.split(jax.random.key(0), 2)
SMALL = {"population_size": 4, "generations": 2, "target_density": 0.4}
ALL = [Normal(0.3), He(), Glorot(), Own()]


class Mixed(nn.Module):
  """A convolution, a grouped one, attention's DenseGeneral, and a layer that is used transposed."""

  @nn.compact
  def __call__(self, x):
    x = nn.Conv(6, (3, 2), name="conv")(x)
    x = nn.Conv(6, (3, 3), feature_group_count=3, name="grouped")(x)
    x = nn.DenseGeneral((2, 5), name="heads")(x.mean((1, 2)))
    x = nn.DenseGeneral(7, axis=(-2, -1), name="joined")(x)
    return x @ self.param("kernel", nn.initializers.normal(), (3, 7)).T


def test_fans_are_those_of_the_operation():
  """By hand: inputs that an output sees, outputs that an input reaches."""
  fans = find_fans(Mixed(), (8, 8, 4))
  assert {name: own for name, own in fans.items() if not name.endswith("bias")} == {
    "conv": (24, 36),
    "grouped": (18, 18),
    "heads": (6, 10),
    "joined": (10, 7),
    "kernel": (7, 3),
  }


@pytest.mark.parametrize(
  ("initialiser", "variance"), [(He(), lambda i, o: 2 / i), (Glorot(), lambda i, o: 2 / (i + o))]
)
def test_variances(initialiser, variance):
  network = nets_jax.MLP((300, 100), 10)
  weights = initialiser.draw(KEYS[0], network, (784,))
  for name, (fan_in, fan_out) in {
    "hidden_0": (784, 300),
    "hidden_1": (300, 100),
    "output": (100, 10),
  }.items():
    kernel = np.asarray(weights[name]["kernel"])
    assert kernel.std() == pytest.approx(np.sqrt(variance(fan_in, fan_out)), rel=0.1)
    assert abs(kernel.mean()) < 4 * kernel.std() / np.sqrt(kernel.size)
    assert not np.asarray(weights[name]["bias"]).any()


def test_the_modules_own():
  network = nn.Dense(4, kernel_init=nn.initializers.constant(0.25), bias_init=nn.initializers.ones)
  weights = Own().draw(KEYS[0], network, (3,))
  np.testing.assert_array_equal(weights["kernel"], np.full((3, 4), 0.25))
  assert_same_bits(weights, draw_variables(KEYS[0], network, (3,)).weights)


def test_by_name_scale_or_weights():
  assert as_initialiser("he") == He()
  assert as_initialiser(0.2) == Normal(0.2)
  assert as_initialiser({"a": 1}) == Given({"a": 1})
  with pytest.raises(
    nets_jax.UsageError, match=r"init must be one of normal, he, .*not 'hee'; did you mean he"
  ):
    as_initialiser("hee")


@pytest.mark.parametrize("initialiser", ALL, ids=lambda own: type(own).__name__)
def test_resampled_weights_are_of_the_same_distribution(initialiser):
  network = nets_jax.MLP((80, 60), 10)
  fitted = initialiser.fitted(network, (70,), nets_jax.random_ticket(0, network, (70,), 1.0).layers)
  ticket = nets_jax.random_ticket(0, network, (70,), 0.3, initialiser=initialiser)
  new = operators.resample(KEYS[0], ticket, 0.5, fitted)
  assert_same_bits(new.masks, ticket.masks)
  for name, old in ticket.by_layer(ticket.weights).items():
    now = np.asarray(new.by_layer(new.weights)[name])
    changed = now != np.asarray(old)
    assert changed.mean() == pytest.approx(0.5, abs=0.06)
    assert now[changed].std() == pytest.approx(np.asarray(old).std(), rel=0.15)
  np.testing.assert_array_equal(new.weights["output"]["bias"], ticket.weights["output"]["bias"])
  assert_same_bits(operators.resample(KEYS[0], ticket, 0.0, fitted), ticket)


@pytest.mark.parametrize("initialiser", ALL, ids=lambda own: type(own).__name__)
def test_every_method_begins_so(task, initialiser):
  wide = nets_jax.MLP((40, 30), 20)  # layers of hundreds of weights: no luck of a draw, whoever wins
  task = task.replace(network=wide, initialiser=initialiser)
  scales = {}
  for search in (
    nets_jax.recipes.paper(**SMALL), nets_jax.Imp(cycles=1, cycle_epochs=1), Snip(0.4, score_batch=30)
  ):  # fmt: skip
    result = nets_jax.search(KEYS[0], task, search)
    scales[type(search)] = nets_jax.layer_scales(result.ticket)
  wanted = nets_jax.layer_scales(
    nets_jax.random_ticket(1, task.network, task.data.input_shape, 1.0, initialiser=initialiser)
  )
  for found in scales.values():
    for name, scale in wanted.items():
      assert float(found[name]) == pytest.approx(float(scale), rel=0.3)


@pytest.mark.devices
@pytest.mark.parametrize("initialiser", [He(), Own(), "given"], ids=str)
def test_each_run_is_the_run_alone(task, ticket, initialiser):
  task = task.replace(initialiser=Given(ticket.weights) if initialiser == "given" else initialiser)
  search = nets_jax.recipes.paper(**SMALL)
  alone = [nets_jax.search(key, task, search, devices=1) for key in KEYS]
  assert_same_results(nets_jax.search_all(KEYS, task, search, devices=4), alone)


def test_masks_evolve_over_given_weights(task, ticket):
  """Of guided NeTS without scales, and of the paper's with resampling alone, nothing else changes."""
  given = task.replace(initialiser=ticket.weights)
  paper = nets_jax.recipes.paper(**SMALL, noise_rate=0.0, resample_rate=0.3, dormancy_rate=0.3)
  guided = nets_jax.recipes.guided(**SMALL, scale_deviation=0.0)
  for search in (paper, guided, Snip(0.4, score_batch=30), nets_jax.Imp(cycles=1, cycle_epochs=1)):
    found = nets_jax.search(KEYS[0], given, search).ticket
    assert_same_bits(jax.device_get(found.weights), jax.device_get(ticket.weights))
    assert 0.1 < float(nets_jax.density(found)) < 1
  again = reinitialise(KEYS[1], ticket, task.network, task.data.input_shape, given.initialiser)
  assert_same_bits(again, ticket)


def test_weights_of_another_network_are_refused(task, ticket):
  with pytest.raises(
    nets_jax.UsageError,
    match=r"given weights do not fit the network: hidden_0/bias is \(9,\) there and \(8,\) here",
  ):
    task.replace(network=nets_jax.MLP((9, 5), 3), initialiser=ticket.weights).check()


def test_a_record_tells_weights_apart(task, ticket):
  found = [
    task.replace(initialiser=weights).bare.initialiser.remedy
    for weights in (ticket.weights, jax.tree.map(jnp.zeros_like, ticket.weights))
  ]
  assert found == [", or choose another init"] * 2
  records = [
    nets_jax.settings.record(task.replace(initialiser=weights).initialiser)
    for weights in (ticket.weights, jax.tree.map(jnp.zeros_like, ticket.weights))
  ]
  assert records[0] != records[1]
  assert json.loads(json.dumps(records)) == records


def test_files_of_weights(tmp_path, ticket, network):
  nets_jax.save_ticket(tmp_path / "ticket.safetensors", ticket, network)
  assert_same_bits(load_weights(tmp_path / "ticket.safetensors"), ticket.weights)
  flat = {
    f"{layer}.{name}": np.asarray(x) for layer, own in ticket.weights.items() for name, x in own.items()
  }
  safetensors.numpy.save_file(flat, tmp_path / "plain.safetensors")
  assert_same_bits(load_weights(tmp_path / "plain.safetensors"), jax.device_get(ticket.weights))
  safetensors.numpy.save_file({"a": np.ones(2, np.float32), "a.b": np.ones(2, np.float32)}, tmp_path / "odd")
  with pytest.raises(nets_jax.UsageError, match="'a' is both a tensor and a layer"):
    load_weights(tmp_path / "odd")
  safetensors.numpy.save_file({"a": np.full(2, np.nan, np.float32)}, tmp_path / "nan")
  with pytest.raises(nets_jax.UsageError, match="'a' must hold finite floating point numbers"):
    load_weights(tmp_path / "nan")
  (tmp_path / "cut").write_bytes((tmp_path / "plain.safetensors").read_bytes()[:100])
  with pytest.raises(nets_jax.UsageError, match="is not a whole safetensors file"):
    load_weights(tmp_path / "cut")
  with pytest.raises(nets_jax.UsageError, match="there is no file"):
    load_weights(tmp_path / "none")


def test_the_flags(job, tmp_path):
  words = (
    "--dataset=xor", "--xor_train_size=100", "--xor_test_size=40", "--hidden_sizes=6", "--batch_size=10",
    "--population_size=4", "--generations=1", "--search=paper", "--train_epochs=1", "--devices=1",
  )  # fmt: skip
  status, _, error = job(*words, "--init=he", "--workdir=he")
  assert status == 0, error
  flags = json.loads((tmp_path / "he" / "config.json").read_text())["flags"]
  assert flags["init"] == "he"
  assert job("--flagfile=he/run.flags", "--workdir=again")[0] == 0
  tickets = [(tmp_path / name / "ticket.safetensors").read_bytes() for name in ("he", "again")]
  assert tickets[0] == tickets[1]
  given = ("--init_weights=he/ticket.safetensors", "--noise_rate=0", "--workdir=given")
  status, out, error = job(*words, *given)
  assert status == 0, error
  assert "against the dense network of the given weights: " in out
  found, source = (nets_jax.load_ticket(tmp_path / name / "ticket.safetensors") for name in ("given", "he"))
  assert_same_bits(found.weights, source.weights)
  for wrong, message in (
    (
      ("--init=he", "--init_scale=0.3"),
      "init_scale comes with init=normal; choose that, or",
    ),
    (
      ("--init=he", "--init_weights=he/ticket.safetensors"),
      "init_weights takes the place of init and init_s",
    ),
    (("--init=hee",), "did you mean he"),
  ):
    status, _, error = job(*words, *wrong, "--workdir=wrong")
    assert status == 2
    assert message in error
    assert not (tmp_path / "wrong").exists()
