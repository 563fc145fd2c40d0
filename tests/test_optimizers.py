"""Momentum, weight decay, clipping and minibatches in parts, against NumPy; what an optimiser refuses."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference
from conftest import assert_same_bits
from hypothesis import given, settings
from hypothesis import strategies as st

import nets_jax
from nets_jax.networks.adapter import initial_state
from nets_jax.tickets.ticket import initialise
from nets_jax.training.optimizers import optimizer_names
from nets_jax.training.train import minibatch_order, train

RATE = 0.1


def trained(task, ticket, order, **given):
  task = task.replace(training=nets_jax.Training(**{"learning_rate": RATE, "batch_size": 12} | given))
  task.check()
  return jax.jit(lambda: train(jax.random.key(0), ticket, task, order))()


def gradients(parameters, data, rows):
  """[(kernel's, bias's)] by NumPy, masked: what one step of SGD at a rate of 1 takes away."""
  inputs, labels = np.asarray(data.train.inputs), np.asarray(data.train.labels)
  after = reference.sgd(parameters, inputs, labels, rows[None], 1.0)
  return [(w * m - v, b - c) for (w, b, m), (v, c, _) in zip(parameters, after, strict=True)]


def reference_steps(ticket, data, order, momentum=0.0, nesterov=False, decay=0.0, clip=np.inf):
  """Clip, add the coupled decay, then v <- mu v + g, and w <- w - eta v (or of g + mu v)."""
  parameters = [(w * m, b, m) for w, b, m in reference.layers(ticket)]
  velocity = [(0.0, 0.0) for _ in parameters]
  for rows in np.asarray(order):
    found = gradients(parameters, data, rows)
    norm = np.sqrt(sum((leaf**2).sum() for pair in found for leaf in pair))
    found = [tuple(leaf * min(1, clip / norm) for leaf in pair) for pair in found]
    updated = []
    for i, ((w, b, m), pair) in enumerate(zip(parameters, found, strict=True)):
      pair = [g + decay * leaf for g, leaf in zip(pair, (w, b), strict=True)]
      velocity[i] = [momentum * v + g for v, g in zip(velocity[i], pair, strict=True)]
      step = [g + momentum * v for g, v in zip(pair, velocity[i], strict=True)] if nesterov else velocity[i]
      updated.append((w - RATE * step[0] * m, b - RATE * step[1], m))
    parameters = updated
  return parameters


@pytest.mark.parametrize(
  ("given", "wanted"),
  [
    ({"momentum": 0.8}, {"momentum": 0.8}),
    ({"optimizer": "momentum", "nesterov": True}, {"momentum": 0.9, "nesterov": True}),
    ({"weight_decay": 0.3}, {"decay": 0.3}),
    ({"clip_norm": 0.2}, {"clip": 0.2}),
    ({"momentum": 0.5, "nesterov": True, "weight_decay": 0.1, "clip_norm": 0.3, "accumulate": 3},
     {"momentum": 0.5, "nesterov": True, "decay": 0.1, "clip": 0.3}),
  ],
)  # fmt: skip
def test_training_is_the_numpy_reference(task, data, ticket, given, wanted):
  order = minibatch_order(jax.random.key(1), len(data.train), 12, 8)
  found = trained(task, ticket, order, **given).weights
  for name, (kernel, bias, _) in zip(
    ("hidden_0", "hidden_1", "output"), reference_steps(ticket, data, order, **wanted), strict=True
  ):
    np.testing.assert_allclose(found[name]["kernel"], kernel, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found[name]["bias"], bias, rtol=1e-3, atol=1e-5)


def test_weight_decay_is_the_optimizers_own_where_it_has_one(task, ticket, data):
  """Of adamw decoupled, w <- w - eta (u + lambda w), of adam coupled."""
  order = minibatch_order(jax.random.key(1), len(data.train), 12, 1)
  start = np.asarray(ticket.weights["output"]["kernel"])[np.asarray(ticket.masks["output"]["kernel"])]

  def moved(optimizer, decay):
    kernel = trained(task, ticket, order, optimizer=optimizer, weight_decay=decay).weights["output"]["kernel"]
    return np.asarray(kernel)[np.asarray(ticket.masks["output"]["kernel"])]

  difference = moved("adamw", 0.0) - moved("adamw", 0.5)
  np.testing.assert_allclose(difference, RATE * 0.5 * start, rtol=1e-3, atol=1e-6)
  assert {"adadelta", "adafactor", "nadam", "nadamw"} <= set(optimizer_names())
  difference = moved("adafactor", 0.0) - moved("adafactor", 0.5)  # by lambda alone, as optax writes it
  np.testing.assert_allclose(difference, 0.5 * start, rtol=1e-3, atol=1e-6)
  assert np.abs(moved("adam", 0.0) - moved("adam", 0.5)).max() < 2.1 * RATE  # adam's steps are no larger


MOMENTUM = ("adafactor", "lars", "momentum", "rmsprop", "sgd", "sm3")


def linear(inputs, weights):
  return inputs @ weights["layer"]["kernel"]


@pytest.fixture(scope="module")
def linear_task(data):
  """A network of few operations, for what runs them one by one."""
  network = nets_jax.Functional(
    lambda key, inputs: ({"layer": {"kernel": jnp.ones((6, 3))}}, {}),
    lambda weights, state, inputs, *, key, train: (linear(inputs, weights), state),
  )
  return nets_jax.Task(network, data, loss=lambda outputs, labels: jnp.sum((outputs - 1) ** 2, axis=1))


@settings(max_examples=1, deadline=None)
@given(st.floats(1e-3, 1.0), st.floats(0.0, 0.9), st.floats(1e-3, 10.0), st.integers(0, 99))
def test_nothing_revives_a_masked_weight(linear_task, decay, momentum, clip, seed):
  """Whatever the optimiser: after some steps masked weights are exactly zero, and others are not."""
  ticket = nets_jax.random_ticket(jax.random.key(seed), linear_task.network, (6,), 0.5, initialiser=0.5)
  masks = np.asarray(ticket.masks["layer"]["kernel"])
  with jax.disable_jit():  # compiling two dozen programs would take longest
    for name in optimizer_names():
      extras = {"momentum": momentum} if name in MOMENTUM else {}
      training = nets_jax.Training(name, 0.05, 4, weight_decay=decay, clip_norm=clip, **extras)
      task = linear_task.replace(training=training)
      weights = train(jax.random.key(0), ticket, task, np.arange(8).reshape(2, 4)).weights
      kernel = np.asarray(weights["layer"]["kernel"])
      assert (kernel[~masks] == 0).all(), name
      assert (kernel[masks] != np.asarray(ticket.weights["layer"]["kernel"])[masks]).any(), name


def test_parts_of_a_minibatch_give_the_same_training(task, data, ticket):
  order = minibatch_order(jax.random.key(1), len(data.train), 12, 10)
  whole = trained(task, ticket, order, optimizer="adam", learning_rate=0.01)
  for parts in (2, 12):
    found = trained(task, ticket, order, optimizer="adam", learning_rate=0.01, accumulate=parts)
    for one, other in zip(jax.tree.leaves(found.weights), jax.tree.leaves(whole.weights), strict=True):
      np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
  alone = trained(task, ticket, order, optimizer="adam", learning_rate=0.01, accumulate=1)
  assert_same_bits(alone, whole)


@pytest.mark.parametrize("kind", ["augment", "label_smoothing", "numbers"])
def test_parts_of_a_minibatch_have_its_loss_and_its_images(kind):
  """An augmentation is of the whole minibatch, before it is parted."""
  rng = np.random.default_rng(0)
  inputs = rng.normal(size=(40, 4, 4, 1))
  labels = rng.normal(size=(40, 2)) if kind == "numbers" else rng.integers(0, 3, 40)
  data = nets_jax.from_arrays(inputs, labels)
  given = {"augment": "flip"} if kind == "augment" else {}
  smoothing = 0.2 if kind == "label_smoothing" else 0.0
  of_kind = nets_jax.Task(nets_jax.MLP((5,), data.num_outputs), data, label_smoothing=smoothing)
  own = nets_jax.random_ticket(0, of_kind.network, data.input_shape, 0.7, initialiser=0.5)
  key = jax.random.key(1)
  order = minibatch_order(key, len(data.train), 12, 4)

  def weights(**extras):
    training = nets_jax.Training(learning_rate=RATE, batch_size=12, **extras)
    each = of_kind.replace(training=training)
    each.check()
    return jax.jit(lambda: train(jax.random.key(0), own, each, order, key).weights)()

  whole, found = weights(**given), weights(accumulate=3, **given)
  for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(whole), strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)
  if given:
    plain = weights()
    assert (found["output"]["kernel"] != plain["output"]["kernel"]).any()


class Normalised(nn.Module):
  @nn.compact
  def __call__(self, x, *, train=False):
    x = nn.BatchNorm(use_running_average=not train, momentum=0.8, name="norm")(nn.Dense(4, name="first")(x))
    return nn.Dense(3, name="last")(nn.relu(x))


def test_each_part_is_normalised_as_a_batch_of_its_own(task, data):
  network = Normalised()
  ticket = initialise(jax.random.key(0), network, data.input_shape, initialiser=0.5)
  order = minibatch_order(jax.random.key(1), len(data.train), 12, 1)
  found = trained(task.replace(network=network), ticket, order, accumulate=3).network_state
  mean = np.asarray(initial_state(network, data.input_shape)["batch_stats"]["norm"]["mean"], np.float64)
  first = jax.tree.map(np.asarray, ticket.weights["first"])
  for rows in np.asarray(order[0]).reshape(3, 4):
    z = np.asarray(data.train.inputs)[rows] @ first["kernel"] + first["bias"]
    mean = 0.8 * mean + 0.2 * z.mean(0)
  np.testing.assert_allclose(found["batch_stats"]["norm"]["mean"], mean, rtol=1e-4, atol=1e-6)


def test_each_part_draws_its_own_dropout(task, data, ticket):
  """A network that notes its key in its state."""

  def make(key, inputs):
    del key
    return {"w": jnp.ones((6, 3))}, {"seen": jnp.zeros((4, 2), jnp.uint32), "count": jnp.int32(0)}

  def apply(weights, state, inputs, *, key, train):
    if train:
      seen = state["seen"].at[state["count"]].set(jax.random.key_data(key))
      state = {"seen": seen, "count": state["count"] + 1}
    return inputs @ weights["w"], state

  network = nets_jax.Functional(make, apply)
  own = initialise(jax.random.key(0), network, data.input_shape)
  order = minibatch_order(jax.random.key(1), len(data.train), 12, 2)
  seen = trained(task.replace(network=network), own, order, accumulate=2).network_state["seen"]
  steps = [jax.random.fold_in(jax.random.key(0), step) for step in range(2)]
  want = [jax.random.key_data(jax.random.fold_in(key, part)) for key in steps for part in range(2)]
  np.testing.assert_array_equal(seen, want)


def rate_alone(rate):
  return optax.sgd(rate)


@pytest.mark.parametrize(
  ("given", "message"),
  [
    (
      {"optimizer": "adam", "momentum": 0.9},
      "adam takes no momentum; leave it out, or choose .*: adafactor, lars, mom",
    ),
    (
      {"optimizer": "lion", "nesterov": True},
      "lion takes no nesterov; leave it out, or choose one",
    ),
    ({"nesterov": True}, "nesterov looks ahead by the momentum, of which sgd has none; give momentum"),
    ({"optimizer": rate_alone, "momentum": 0.5}, "rate_alone takes no momentum"),
    (
      {"optimizer": optax.sgd(0.1), "clip_norm": 1.0},
      "is taken as it is; make momentum, weight de",
    ),
    ({"momentum": 1.0}, r"momentum must be in \[0, 1\), not 1.0"),
    ({"weight_decay": -1.0}, "weight_decay must be at least 0, not -1.0"),
    ({"clip_norm": 0.0}, "clip_norm must be positive, not 0.0"),
    ({"accumulate": 0}, "accumulate must be at least 1, not 0"),
    (
      {"accumulate": 5},
      "accumulate must divide batch_size, .* but 12 is no multiple of 5",
    ),
    ({"optimizer": "nowhere.at:all"}, "there is no module 'nowhere'"),
    ({"optimizer": "stranger.training:clipped(least=1)"}, r"clipped\(least=1\) failed: TypeError: .*least"),
    ({"optimizer": "stranger.training:optax"}, "is no function from the learning rate to an optax transf"),
  ],
)
def test_what_does_not_apply_is_refused(task, stranger, given, message):
  training = nets_jax.Training(**{"batch_size": 12} | given)
  with pytest.raises(nets_jax.UsageError, match=message):
    task.replace(training=training).check()


def test_a_function_that_takes_a_setting_is_given_it(task, data, ticket):
  order = minibatch_order(jax.random.key(1), len(data.train), 12, 3)
  own = functools.partial(optax.sgd, momentum=0.1)
  assert_same_bits(
    trained(task, ticket, order, optimizer=own, momentum=0.7).weights,
    trained(task, ticket, order, momentum=0.7).weights,
  )
