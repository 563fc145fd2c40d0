"""The order of layers is that of the computation, and a parameter's part in it is found, not named."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nets_jax
from nets_jax import operators
from nets_jax.baselines import one_shot
from nets_jax.baselines.one_shot import Synflow
from nets_jax.networks import layers
from nets_jax.networks.initialisation import Normal
from nets_jax.tickets.controls import unmask

KEY = jax.random.key(0)


class TrunkAndHead(nn.Module):
  @nn.compact
  def __call__(self, x):
    return nn.Dense(3, name="head")(nn.relu(nn.Dense(8, name="trunk")(x)))


class Nested(nn.Module):
  """flax names a module when it is made, so that of `f(g(x))` the outer one is `Dense_0`."""

  @nn.compact
  def __call__(self, x):
    return nn.Dense(3)(nn.LayerNorm()(x=nn.relu(nn.Dense(8)(x))))


class Block(nn.Module):
  @nn.compact
  def __call__(self, x, _):
    return nn.relu(nn.Dense(8, name="inner")(x)), None


class Attentive(nn.Module):
  """Attention, a loop over layers, `remat`, gains and biases by other names, a bare kernel."""

  @nn.compact
  def __call__(self, x):
    x = x[:, :, None]
    x = nn.Dense(8, name="z_embed")(x) + self.param("position", nn.initializers.normal(1.0), (1, 6, 8))
    gain = self.param("gain", nn.initializers.zeros, (1, 1, 8))
    x = x + gain * nn.MultiHeadDotProductAttention(2, name="mix")(x, x)
    loop = nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=2)
    x, _ = loop(name="loop")(x, None)
    x = nn.remat(nn.Dense)(8, name="b_remat")(x)
    x = jax.jit(lambda x, w: x @ w)(x, self.param("kernel", nn.initializers.normal(1.0), (8, 8)))
    return nn.Dense(3, name="a_last")(x.mean(1))


def names(network, shape=(6,)):
  return [layer.name for layer in layers.find_layers(network, shape)]


def test_layers_are_in_the_order_of_application():
  assert names(TrunkAndHead()) == ["trunk", "head"]
  assert names(Nested()) == ["Dense_1", "Dense_0"]
  assert names(nets_jax.MLP((4,) * 12, 3)) == [*(f"hidden_{i}" for i in range(12)), "output"]
  assert names(Attentive()) == [
    "z_embed", "mix/query", "mix/key", "mix/value", "mix/out", "loop/inner", "b_remat", "kernel", "a_last",
  ]  # fmt: skip


def test_a_ticket_knows_its_layers_and_their_shapes():
  ticket = nets_jax.random_ticket(KEY, TrunkAndHead(), (6,), 0.5)
  assert ticket.layers == (layers.Layer("trunk", (6, 8)), layers.Layer("head", (8, 3)))
  assert list(nets_jax.layer_densities(ticket)) == list(nets_jax.layer_scales(ticket)) == ["trunk", "head"]
  child = operators.crossover(KEY, ticket, ticket, 0.5)
  assert child.layers == nets_jax.take(nets_jax.stack([ticket, child]), 1).layers == ticket.layers


def test_a_ticket_made_by_hand_has_its_layers_in_natural_order():
  kernel = {"kernel": jnp.ones((2, 2), bool)}
  masks = {f"Dense_{i}": kernel for i in (10, 9, 1)}
  ticket = nets_jax.Ticket(masks, masks)
  assert list(nets_jax.layer_densities(ticket)) == ["Dense_1", "Dense_9", "Dense_10"]
  known = ticket.replace(layers=tuple(layers.Layer(f"Dense_{i}", (2, 2)) for i in (9, 10, 1)))
  assert nets_jax.stack([ticket, known]).layers == known.layers
  other = nets_jax.random_ticket(KEY, TrunkAndHead(), (6,), 0.5)
  with pytest.raises(nets_jax.UsageError, match="tickets of different networks"):
    nets_jax.stack([known, other])


def test_each_number_of_init_scale_is_the_layers_in_that_order(task, data):
  network, scales = TrunkAndHead(), (0.01, 3.0)
  ticket = nets_jax.random_ticket(KEY, network, data.input_shape, 1.0, initialiser=scales)
  found = nets_jax.layer_scales(ticket)
  assert found["trunk"] < 0.02 < 1 < found["head"]
  again = operators.resample(KEY, unmask(ticket), 1.0, scales)
  found = nets_jax.layer_scales(again)
  assert found["trunk"] < 0.02 < 1 < found["head"]
  task = task.replace(network=network, initialiser=Normal(scales))
  search = nets_jax.recipes.paper(
    population_size=3, generations=1, resample_rate=1.0, noise_rate=0.0, elites=0
  )
  found = nets_jax.layer_scales(nets_jax.search(KEY, task, search).ticket)
  assert found["trunk"] < 0.02 < 1 < found["head"]
  with pytest.raises(nets_jax.UsageError, match="in the order of application these are trunk, head"):
    nets_jax.search(KEY, task.replace(initialiser=Normal((1.0, 1.0, 1.0))), search)


@pytest.mark.devices
def test_runs_side_by_side_may_have_one_scale_and_one_for_each_layer(task):
  search = nets_jax.recipes.paper(population_size=3, generations=1)
  tasks = [task, task.replace(initialiser=Normal((0.1, 0.2, 0.3)))]
  keys = jax.random.split(KEY, 2)
  for i, result in enumerate(nets_jax.search_all(keys, tasks, search)):
    alone = nets_jax.search(keys[i], tasks[i], search)
    jax.tree.map(np.testing.assert_array_equal, result.ticket, alone.ticket)


def test_synflow_counts_gains_as_one_and_leaves_out_what_is_added():
  network = Attentive()
  weights = nets_jax.random_ticket(KEY, network, (6,), 1.0, initialiser=0.5).weights
  counted = layers.synaptic(network, (6,), weights, layers.find_layers(network, (6,)))
  assert not counted["position"].any()
  np.testing.assert_array_equal(counted["gain"], 1)
  for name, own in counted["loop"]["inner"].items():
    want = np.abs(weights["loop"]["inner"][name]) if name == "kernel" else 0
    np.testing.assert_array_equal(own, np.broadcast_to(want, own.shape))


def numpy_synflow(kernels, count):
  """Kept masks of a chain of layers, |w| dR/dw by matrix products, in one round."""
  scores = []
  for i, kernel in enumerate(kernels):
    before = np.ones(len(kernels[0]))
    for earlier in kernels[:i]:
      before = before @ np.abs(earlier)
    after = np.ones(kernels[-1].shape[1])
    for later in reversed(kernels[i + 1 :]):
      after = np.abs(later) @ after
    scores.append(np.abs(kernel) * before[:, None] * after[None])
  threshold = np.sort(np.concatenate([s.ravel() for s in scores]))[-count]
  return [s >= threshold for s in scores]


@pytest.mark.parametrize("network", [TrunkAndHead(), Nested()])
def test_synflow_is_the_numpy_reference_behind_a_normalisation_too(network, data):
  search = Synflow(target_density=0.4, rounds=1, score_batch=20)
  result = nets_jax.search(KEY, nets_jax.Task(network, data), search)
  kernels = [np.asarray(w, np.float64) for w in result.ticket.by_layer(result.ticket.weights).values()]
  want = numpy_synflow(kernels, round(0.4 * sum(k.size for k in kernels)))
  for mask, expected in zip(result.ticket.by_layer(result.ticket.masks).values(), want, strict=True):
    np.testing.assert_array_equal(mask, expected)
  assert result.empty_layers == ()


class Saturated(nn.Module):
  """The second layer sees tanh at its bounds, so no gradient passes to the first."""

  @nn.compact
  def __call__(self, x):
    return nn.Dense(3, name="second")(nn.tanh(1e6 * nn.Dense(8, name="first")(x)))


@pytest.mark.parametrize("score", ["synflow", "snip", "grasp"])
def test_scores_that_tell_nothing_of_a_layer_are_an_error(score, data):
  task = nets_jax.Task(Saturated(), data)
  search = one_shot.SEARCHES[score](score_batch=20, rounds=2, target_density=0.5)
  message = rf"{score} says nothing of the layer first in round 1: its scores are all zero, or not finite"
  with pytest.raises(nets_jax.SearchFailed, match=message):
    nets_jax.search(KEY, task, search)
  keys = jax.random.split(KEY, 2)
  found = nets_jax.search_all(keys, task, search, keep_failures=True)
  assert [type(one) for one in found] == [nets_jax.SearchFailed] * 2
