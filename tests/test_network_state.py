"""Batch normalisation: its averages belong to a training, not to a ticket, and are right after few steps."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_same_bits, assert_same_results
from test_checkpoints import in_pieces

import nets_jax
from nets_jax.baselines.one_shot import Grasp, Magnitude, Snip, Synflow
from nets_jax.baselines.random_tickets import Random
from nets_jax.networks.adapter import forward, initial_state
from nets_jax.tickets.ticket import initialise, phenotype, stack, take, unmasked_count
from nets_jax.training.evaluation import evaluate
from nets_jax.training.statistics import BATCHES, settled
from nets_jax.training.train import TrainingState, minibatch_order, train
from nets_jax.training.trainer import train_tickets

pytestmark = pytest.mark.zoo

NAMES = ("kernel", "scale", "bias", "kernel", "bias")
EPSILON, MOMENTUM, RATE, STEPS = 1e-5, 0.99, 0.3, 12
KEYS = jax.random.split(jax.random.key(0), 2)


class Normalised(nn.Module):
  """Dense, batch normalisation, relu, dense."""

  dropout_rate: float = 0.0

  @nn.compact
  def __call__(self, x, *, train=False):
    x = nn.Dense(5, use_bias=False, name="first")(x)
    x = nn.BatchNorm(use_running_average=not train, momentum=MOMENTUM, epsilon=EPSILON, name="norm")(x)
    x = nn.Dropout(self.dropout_rate, deterministic=not train)(nn.relu(x))
    return nn.Dense(3, name="last")(x)


@pytest.fixture(scope="module")
def task(data):
  return nets_jax.Task(Normalised(), data, nets_jax.Training(learning_rate=RATE, batch_size=10), epochs=2)


@pytest.fixture(scope="module")
def normalised(task):
  return initialise(
    jax.random.key(5), task.network, task.data.input_shape, initialiser=0.7, initial_density=0.6
  )


@pytest.fixture(scope="module")
def order(data):
  return minibatch_order(jax.random.key(1), len(data.train), 10, STEPS)


def reference_step(weights, masks, averages, x, labels):
  """One step of SGD in NumPy, in double precision; changes weights and averages."""
  w, gain, bias, v, c = weights
  z = x @ w
  mean, variance = z.mean(0), z.var(0)
  deviation = np.sqrt(variance + EPSILON)
  normal = (z - mean) / deviation
  y = gain * normal + bias
  hidden = np.maximum(y, 0)
  logits = hidden @ v + c
  share = np.exp(logits - logits.max(1, keepdims=True))
  share /= share.sum(1, keepdims=True)
  d_logits = (share - np.eye(3)[labels]) / len(x)
  d_y = d_logits @ v.T * (y > 0)
  d_normal = d_y * gain
  d_z = (d_normal - d_normal.mean(0) - normal * (d_normal * normal).mean(0)) / deviation
  gradients = [x.T @ d_z * masks[0], (d_y * normal).sum(0), d_y.sum(0), hidden.T @ d_logits * masks[1]]
  gradients.append(d_logits.sum(0))
  for weight, gradient in zip(weights, gradients, strict=True):
    weight -= RATE * gradient
  for average, value in zip(averages, (mean, variance), strict=True):
    average *= MOMENTUM
    average += (1 - MOMENTUM) * value


def reference_training(ticket, data, order):
  """Weights, running averages, and the mean statistics over the last batches, after all steps."""
  leaves = jax.tree.map(lambda leaf: np.array(leaf, np.float64), phenotype(ticket))
  first, norm, last = leaves["first"], leaves["norm"], leaves["last"]
  weights = [first["kernel"], norm["scale"], norm["bias"], last["kernel"], last["bias"]]
  masks = [np.asarray(ticket.masks[name]["kernel"]) for name in ("first", "last")]
  averages = [np.zeros(5), np.ones(5)]
  inputs = np.asarray(data.train.inputs, np.float64)
  for rows in np.asarray(order):
    reference_step(weights, masks, averages, inputs[rows], np.asarray(data.train.labels)[rows])
  last_z = [inputs[rows] @ weights[0] for rows in np.asarray(order)[-BATCHES:]]
  means = [np.mean([z.mean(0) for z in last_z], 0), np.mean([z.var(0) for z in last_z], 0)]
  return weights, averages, means


def reference_logits(weights, statistics, inputs):
  w, gain, bias, v, c = weights
  normal = (np.asarray(inputs, np.float64) @ w - statistics[0]) / np.sqrt(statistics[1] + EPSILON)
  return np.maximum(gain * normal + bias, 0) @ v + c


def test_training_and_evaluation_are_those_of_a_numpy_reference(task, normalised, order):
  weights, averages, means = reference_training(normalised, task.data, order)
  found = train(jax.random.key(2), normalised, task, order)
  got = [
    found.weights[a][b] for a, b in zip(*[("first", "norm", "norm", "last", "last"), NAMES], strict=True)
  ]
  for one, other in zip(got, weights, strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
  carried = found.network_state["batch_stats"]["norm"]
  for name, other in zip(("mean", "var"), averages, strict=True):
    np.testing.assert_allclose(carried[name], other, rtol=1e-4, atol=1e-5)
  state = settled(jax.random.key(3), task, found.weights, found.network_state, order)
  for name, other in zip(("mean", "var"), means, strict=True):
    np.testing.assert_allclose(state["batch_stats"]["norm"][name], other, rtol=1e-3, atol=1e-5)
  logits = forward(task.network, found.weights, task.data.valid.inputs, state=state)
  want = reference_logits(weights, means, task.data.valid.inputs)
  np.testing.assert_allclose(logits, want, rtol=1e-3, atol=1e-3)
  labels = np.asarray(task.data.valid.labels)
  shifted = want - want.max(1, keepdims=True)
  losses = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(labels)), labels]
  scores = evaluate(task, found.weights, task.data.valid, state)
  np.testing.assert_allclose(scores.loss, losses.mean(), rtol=1e-3)
  assert scores.score == pytest.approx((want.argmax(1) == labels).mean())


def test_plain_averages_would_be_mostly_their_start(task, normalised, order):
  """Against the statistics of the whole training set at the final weights, which both are estimates of."""
  found = train(jax.random.key(2), normalised, task, order)
  plain = found.network_state["batch_stats"]["norm"]
  state = settled(jax.random.key(3), task, found.weights, found.network_state, order)
  z = np.asarray(task.data.train.inputs) @ np.asarray(found.weights["first"]["kernel"])
  # The inputs are standardised, so an average of means is right to begin with.
  error = np.abs(state["batch_stats"]["norm"]["var"] - z.var(0)).max()
  assert error < 0.25 * np.abs(plain["var"] - z.var(0)).max()


class Frozen(nn.Module):
  """Averages that never move, and a spectral norm, whose state is no average."""

  @nn.compact
  def __call__(self, x, *, train=False):
    x = nn.BatchNorm(use_running_average=True, name="frozen")(nn.Dense(4, name="first")(x))
    x = nn.SpectralNorm(nn.Dense(4, name="spectral"))(x, update_stats=train)
    return nn.Dense(3, name="last")(nn.BatchNorm(use_running_average=not train, name="norm")(x))


def test_what_is_no_average_stays_as_the_training_left_it(task, data, order):
  frozen = task.replace(network=Frozen())
  ticket = initialise(jax.random.key(0), frozen.network, data.input_shape, initialiser=0.5)
  found = train(jax.random.key(0), ticket, frozen, order)
  state = settled(jax.random.key(0), frozen, found.weights, found.network_state, order)["batch_stats"]
  carried = found.network_state["batch_stats"]
  for name in carried:
    if name != "norm":
      assert_same_bits(state[name], carried[name])
  assert (np.asarray(state["norm"]["var"]) != np.asarray(carried["norm"]["var"])).all()


@pytest.mark.parametrize("every", [1, 7])
def test_how_often_it_is_scored_changes_no_score(task, normalised, every):
  whole, often = (
    train_tickets(0, normalised, task.replace(eval_every=steps), steps=16).curves[-1] for steps in (16, every)
  )
  for name in ("valid_loss", "test_loss"):
    assert often[name] == pytest.approx(whole[name], rel=1e-4)


def test_a_checkpoint_is_of_one_rule(task):
  every = task.replace(maskable=lambda path, shape: path == "last/kernel")
  assert "maskable" not in task.record()
  assert every.record()["maskable"] == ["last"]


class Trains(nn.Module):
  """By default as in training, as some write it."""

  @nn.compact
  def __call__(self, x, train: bool = True):
    x = nn.BatchNorm(use_running_average=not train)(nn.Dense(4)(x))
    return nn.Dense(3)(nn.Dropout(0.5, deterministic=not train)(x))


def test_a_module_that_trains_by_default_is_evaluated(task):
  found = nets_jax.search(KEYS[0], task.replace(network=Trains()), Random(0.4))
  assert np.isfinite(found.history[-1]["density"])


def test_a_ticket_of_other_layers_does_not_fit(task, ticket):
  with pytest.raises(nets_jax.UsageError, match="the ticket does not fit the network"):
    train_tickets(0, ticket, task)


def test_a_ticket_holds_no_state(task, normalised):
  assert set(normalised.weights) == set(normalised.masks) == {"first", "norm", "last"}
  assert normalised.masks["norm"] == {"scale": None, "bias": None}
  assert [layer.name for layer in normalised.layers] == ["first", "last"]
  state = initial_state(task.network, task.data.input_shape)
  np.testing.assert_array_equal(state["batch_stats"]["norm"]["var"], np.ones(5))


SEARCHES = [
  Magnitude(0.4, score_batch=30), Snip(0.4, score_batch=30), Grasp(0.4, score_batch=30),
  Synflow(0.4, rounds=5, score_batch=30),
  Random(0.4, density_deviation=0.0),
  nets_jax.Imp(cycles=1, cycle_epochs=1, prune_fraction=0.6, prune_scope="global"),
  nets_jax.recipes.guided(population_size=4, generations=2, target_density=0.4, fitness_epochs=0.5),
]  # fmt: skip


@pytest.mark.parametrize("search", SEARCHES, ids=lambda search: type(search).__name__)
def test_every_method_keeps_exactly_its_count(task, search):
  result = nets_jax.search(KEYS[0], task, search)
  assert unmasked_count(result.ticket) == round(0.4 * (6 * 5 + 5 * 3))


def test_scores_look_at_the_batchs_own_statistics(task):
  """SNIP's score of a network whose inputs are scaled is the same, for the batch normalises that away."""
  snip = functools.partial(nets_jax.search, KEYS[0], search=Snip(0.4, score_batch=60))
  found = [snip(task.replace(initialiser=scale)).ticket for scale in (0.5, (50.0, 0.5))]
  assert_same_bits(found[0].masks, found[1].masks)


SEARCH = nets_jax.recipes.guided(population_size=4, generations=2, target_density=0.4, fitness_epochs=0.5)


@pytest.mark.devices
def test_a_genome_of_a_population_is_that_genome_alone_on_any_devices(task):
  alone = [nets_jax.search(key, task, SEARCH, devices=1) for key in KEYS]
  for devices in (2, 4):
    assert_same_results(nets_jax.search_all(KEYS, task, SEARCH, devices=devices), alone)


@pytest.mark.devices
def test_tickets_side_by_side_are_each_alone(task, normalised):
  other = initialise(jax.random.key(9), task.network, task.data.input_shape, initialiser=0.5)
  both = train_tickets(0, stack([normalised, other]), task)
  for i, ticket in enumerate((normalised, other)):
    alone = train_tickets(0, ticket, task)
    assert_same_bits(take(both.network_states, i), take(alone.network_states, 0))
    assert [row["valid_loss"] for row in both.curves if row["ticket"] == i] == [
      row["valid_loss"] for row in alone.curves
    ]


@pytest.mark.devices
@pytest.mark.parametrize("rewind_steps", [0, 3])
def test_what_is_stopped_goes_on_with_its_averages(task, normalised, tmp_path, rewind_steps):
  """A training, and IMP in its second cycle."""
  search = nets_jax.Imp(cycles=2, cycle_epochs=2, rewind_steps=rewind_steps)
  jobs = {
    "training": (1, lambda saving: train_tickets(0, normalised, task, checkpoints=saving).network_states),
    "imp": (3, lambda saving: nets_jax.search(KEYS[0], task, search, checkpoints=saving).history[-1]),
  }
  for name, (turns, run) in jobs.items():
    whole = run(None)
    found, stops = in_pieces(run, tmp_path / name, turns)
    assert stops
    for result in (whole, found):
      if name == "imp":
        del result["seconds"]
    assert_same_bits(found, whole)


def test_late_rewinding_goes_back_to_the_averages_too(task):
  seen = []
  search = nets_jax.Imp(cycles=2, cycle_epochs=1, rewind_steps=3)
  from nets_jax.baselines import imp_runs

  original = imp_runs.trainer.train_tickets

  def spy(*arguments, **named):
    seen.append(named["network_states"])
    return original(*arguments, **named)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(imp_runs.trainer, "train_tickets", spy)
    nets_jax.search(KEYS[0], task, search)
  assert seen[0] is None
  for given in seen[1:]:
    assert_same_bits(given, seen[1])
    assert np.asarray(given["batch_stats"]["norm"]["mean"]).any()


def test_dropout_and_normalisation_go_together(task, normalised):
  dropping = task.replace(network=Normalised(dropout_rate=0.5))
  first, again, other = (train_tickets(seed, normalised, dropping, steps=3) for seed in (0, 0, 1))
  assert_same_bits(first.weights, again.weights)
  assert not np.array_equal(first.weights["first"]["kernel"], other.weights["first"]["kernel"])


class Careless(nn.Module):
  @nn.compact
  def __call__(self, x):
    return nn.Dense(3)(nn.BatchNorm(use_running_average=False)(x))


def test_a_module_that_always_changes_its_state_is_refused(task):
  with pytest.raises(nets_jax.UsageError, match="Careless changes its state in evaluation too; take an arg"):
    task.replace(network=Careless()).check()


class Counting(nn.Module):
  """A state that is no average: how many batches it has seen."""

  @nn.compact
  def __call__(self, x, *, train=False):
    seen = self.variable("counts", "seen", lambda: jnp.zeros((), jnp.int32))
    if train:
      seen.value += 1
    return nn.Dense(3)(x)


def test_other_state_is_carried_as_it_is(task, data, order):
  counting = task.replace(network=Counting())
  ticket = initialise(jax.random.key(0), counting.network, data.input_shape)
  found = train(jax.random.key(0), ticket, counting, order)
  assert isinstance(found, TrainingState)
  assert (
    settled(jax.random.key(0), counting, found.weights, found.network_state, order) == found.network_state
  )
  assert int(found.network_state["counts"]["seen"]) == STEPS
