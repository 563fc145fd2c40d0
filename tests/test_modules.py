"""Networks of other libraries: flax.nnx, haiku and equinox, and what of a network is maskable."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_same_bits, assert_same_results

import nets_jax
from nets_jax.kinds import in_words
from nets_jax.networks.adapter import forward, forward_in_training, initial_state
from nets_jax.networks.functional import Functional, as_dict, as_tree, from_nnx
from nets_jax.networks.zoo import make_network
from nets_jax.tickets.ticket import initialise, unmasked_count

pytestmark = [pytest.mark.zoo, pytest.mark.usefixtures("stranger")]
KEY = jax.random.key(0)
NAMES = {
  "stranger.modules:Nnx(width=5)": {"first": (2, 5), "last": (5, 2)},
  "stranger.modules:haiku(width=5)": {"first": (2, 5), "last": (5, 2)},
  "stranger.modules:equinox(width=5)": {"layers/0": (5, 2), "layers/1": (2, 5)},
}
SEARCH = nets_jax.recipes.guided(population_size=4, generations=2, target_density=0.4, fitness_epochs=0.5)
TRAINING = nets_jax.Training(learning_rate=0.1, batch_size=10)


@pytest.fixture(scope="module")
def points():
  x = np.random.default_rng(0).normal(size=(100, 2))
  return nets_jax.from_arrays(x, (x[:, 0] > x[:, 1]).astype(int))


@pytest.mark.parametrize("name", NAMES)
def test_a_network_of_another_library_is_searched_and_trained(name, points, tmp_path):
  network = make_network(name, 2)
  assert make_network(name, 2) is network  # else every search would compile anew
  task = nets_jax.Task(network, points, TRAINING, epochs=3)
  assert {layer.name: layer.shape for layer in task.layers} == NAMES[name]
  result = nets_jax.search(KEY, task, SEARCH)
  assert unmasked_count(result.ticket) == 8
  trained = nets_jax.train_tickets(0, nets_jax.random_ticket(KEY, network, (2,), 1.0, initialiser=0.5), task)
  assert trained.curves[-1]["valid_accuracy"] > 0.7
  nets_jax.save_ticket(tmp_path / "ticket.safetensors", result.ticket, network)
  assert_same_bits(nets_jax.load_ticket(tmp_path / "ticket.safetensors"), result.ticket)


@pytest.mark.devices
@pytest.mark.parametrize("name", NAMES)
def test_each_run_is_the_run_alone(name, points):
  task = nets_jax.Task(make_network(name, 2), points, TRAINING)
  keys = jax.random.split(KEY, 2)
  alone = [nets_jax.search(key, task, SEARCH, devices=1) for key in keys]
  assert_same_results(nets_jax.search_all(keys, task, SEARCH, devices=4), alone)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_trained_from_the_command_line(name, job, tmp_path):
  words = ("--dataset=stranger.data:rings(examples=120,classes=2)", f"--network={name}", "--batch_size=10")
  settings = ("--population_size=4", "--generations=1", "--train_epochs=1", "--devices=1", "--workdir=run")
  status, _, error = job(*words, *settings, "--search=guided", "--target_density=0.4")
  assert status == 0, error
  flags = json.loads((tmp_path / "run" / "config.json").read_text())["flags"]
  assert flags["network"] == name
  ticket = nets_jax.load_ticket(tmp_path / "run" / "ticket.safetensors")
  assert unmasked_count(ticket) == 8
  again = ("--ticket=run/ticket.safetensors", f"--network={name}", "--workdir=again", *words[::2])
  status, _, error = job(*again, "--train_epochs=1", "--devices=1")
  assert status == 0, error


def test_nnx_drops_and_normalises_in_training_alone(points):
  network = make_network("stranger.modules:Nnx(width=5)", 2)
  weights = initialise(KEY, network, (2,), initialiser=0.5).weights
  state, inputs = initial_state(network, (2,)), points.train.inputs[:10]
  first, changed = forward_in_training(network, weights, state, inputs, jax.random.key(1))
  again, _ = forward_in_training(network, weights, state, inputs, jax.random.key(1))
  other, _ = forward_in_training(network, weights, state, inputs, jax.random.key(2))
  np.testing.assert_array_equal(first, again)
  assert (np.asarray(first) != np.asarray(other)).any()
  assert np.asarray(changed["batch_stats"]["norm"]["mean"]).any()
  calm = forward(network, weights, inputs, state=state)
  np.testing.assert_array_equal(calm, forward(network, weights, inputs, state=state))


def test_a_tree_of_any_kind_and_back():
  tree = {"mlp/~/first": {"w": 1, "b": 2}, "stack": [3, (4, 5)]}
  nested = as_dict(tree)
  assert nested == {
    "mlp": {"~": {"first": {"w": 1, "b": 2}}},
    "stack": {"0": 3, "1": {"0": 4, "1": 5}},
  }
  assert as_tree(nested, tree) == tree
  with pytest.raises(nets_jax.UsageError, match="two parameters are called a/b; give one of them another"):
    as_dict({"a": {"b": 1}, "a/b": 2})


def test_a_record_tells_networks_apart_and_is_the_same_in_every_process():
  named = {name: in_words(make_network(name, 2)) for name in NAMES}
  assert named["stranger.modules:haiku(width=5)"] == "stranger.modules:haiku(width=5,num_classes=2)"
  wider = [in_words(make_network(name.replace("width=5", "width=6"), 2)) for name in NAMES]
  assert not {*named.values()} & {*wider}
  from stranger.modules import equinox, haiku

  for make in (equinox, haiku):
    by_hand = [in_words(make(width, 2)) for width in (5, 5, 6)]
    assert by_hand[0] == by_hand[1]
    assert "0x" not in by_hand[0]


def test_what_gives_no_network_is_refused(points):
  with pytest.raises(
    nets_jax.UsageError, match=r"from_nnx takes a function from nnx\.Rngs to a module, but it gave a"
  ):
    from_nnx(lambda rngs: rngs.params())
  odd = Functional(lambda key, inputs: jnp.ones(3), lambda *given, key, train: given, name="odd")
  with pytest.raises(nets_jax.UsageError, match=r"init of odd must give \(parameters, state\)"):
    nets_jax.Task(odd, points, TRAINING).check()


@pytest.fixture(scope="module")
def tokens():
  """Rows of six tokens, labelled by whether the first is also the last."""
  rows = np.random.default_rng(1).integers(0, 6, (200, 6))
  return nets_jax.from_arrays(rows, (rows[:, 0] == rows[:, -1]).astype(int), standardise=False)


ATTENTION = {
  "attention/query": (8, 2, 4), "attention/key": (8, 2, 4), "attention/value": (8, 2, 4),
  "attention/out": (2, 4, 8), "head": (8, 2),
}  # fmt: skip


@pytest.mark.parametrize(
  ("maskable", "layers"),
  [
    ("kernels", ATTENTION),
    ("kernels+embeddings", {"embed/embedding": (6, 8), **ATTENTION}),
    ("stranger.modules:of_attention", {k: v for k, v in ATTENTION.items() if k != "head"}),
    (lambda path, shape: path == "head/kernel", {"head": (8, 2)}),
  ],
)
def test_a_rule_says_what_is_maskable(tokens, maskable, layers):
  network = make_network("stranger.modules:Attention(width=8)", 2)
  task = nets_jax.Task(network, tokens, TRAINING, maskable=maskable)
  assert {layer.name: layer.shape for layer in task.layers} == layers
  result = nets_jax.search(KEY, task, SEARCH)
  total = sum(np.prod(shape) for shape in layers.values())
  assert unmasked_count(result.ticket) == round(0.4 * total)
  assert sum(mask.size for mask in jax.tree.leaves(result.ticket.masks)) == total


@pytest.mark.parametrize(
  ("name", "kernels", "table"),
  [
    ("stranger.modules:NnxTokens(width=4)", ["head"], "embed/embedding"),
    ("stranger.modules:equinox_tokens(width=4)", ["1/weight_ih", "1/weight_hh", "2"], "0"),
  ],
)
def test_what_is_a_kernel_is_seen_by_what_the_network_does(name, kernels, table, tokens):
  task = nets_jax.Task(make_network(name, 2), tokens, TRAINING)
  assert {layer.name for layer in task.layers} == {*kernels}
  assert task.replace(maskable="kernels+embeddings").layers[0].name == table
  result = nets_jax.search(KEY, task, SEARCH)
  assert unmasked_count(result.ticket) == round(0.4 * sum(layer.size for layer in task.layers))


def test_two_parameters_of_one_name_are_refused(points):
  class Confused(nn.Module):
    @nn.compact
    def __call__(self, x):
      kernel, gain = (self.param(n, nn.initializers.ones, s) for n, s in (("kernel", (2, 2)), ("w", (2,))))
      return x @ kernel * gain[None]

  class Outer(nn.Module):
    @nn.compact
    def __call__(self, x):
      return Confused(name="inner")(x)

  with pytest.raises(nets_jax.UsageError, match="two parameters are both the layer inner; give them modules"):
    nets_jax.Task(Outer(), points, TRAINING).check()


def test_tokens_from_the_command_line(job, tmp_path):
  rows = np.random.default_rng(1).integers(0, 6, (120, 6))
  np.savez(tmp_path / "tokens.npz", inputs=rows, labels=(rows[:, 0] == rows[:, -1]).astype(int))
  words = (
    "--dataset=tokens.npz",
    "--network=stranger.modules:Attention(width=8)",
    "--batch_size=10",
    "--maskable=kernels+embeddings",
  )
  settings = ("--population_size=4", "--generations=1", "--train_epochs=1", "--devices=1", "--workdir=run")
  status, _, error = job(*words, *settings, "--search=guided", "--target_density=0.4", "--nostandardise")
  assert status == 0, error
  ticket = nets_jax.load_ticket(tmp_path / "run" / "ticket.safetensors")
  assert unmasked_count(ticket) == round(0.4 * sum(mask.size for mask in jax.tree.leaves(ticket.masks)))
  assert ticket.masks["embed"]["embedding"].shape == (6, 8)
  status, _, error = job(*words, *settings[:4], "--workdir=floats")
  assert (status, "leave tokens as they are" in error) == (2, True)


def test_gains_and_biases_are_never_masked(tokens):
  network = make_network("stranger.modules:Attention(width=8)", 2)
  for name, what in (("LayerNorm_0/scale", "multiplied with"), ("head/bias", "added to")):
    task = nets_jax.Task(network, tokens, TRAINING, maskable=lambda path, shape, name=name: path == name)
    with pytest.raises(nets_jax.UsageError, match=f"{name} is {what} the signal entry by entry; gains and"):
      task.check()
  with pytest.raises(
    nets_jax.UsageError, match=r"maskable must be one of kernels, kernels\+embeddings, .*not 'kernel'"
  ):
    nets_jax.Task(network, tokens, TRAINING, maskable="kernel").check()
