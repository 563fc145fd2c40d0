import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference
from conftest import assert_same_bits

import nets_jax
from nets_jax.tickets.ticket import phenotype
from nets_jax.training import evaluation
from nets_jax.training import train as training
from nets_jax.training.losses import cross_entropy

OPTIMIZERS = ("sgd", "momentum", "adam")


def decaying(learning_rate):
  return optax.adamw(learning_rate, weight_decay=0.5)


def noisy(learning_rate):
  return optax.noisy_sgd(learning_rate, eta=1.0, key=jax.random.key(4))


def train(ticket, task, order, optimizer="sgd", learning_rate=0.1, key=0):
  task = task.replace(training=nets_jax.Training(optimizer, learning_rate))
  run = jax.jit(lambda k, t, o: training.train(k, t, task, o).weights)
  return run(jax.random.key(key), ticket, order)


def test_masked_sgd_is_the_numpy_reference(task, data, ticket):
  order = training.minibatch_order(jax.random.key(1), len(data.train), 10, 12)
  trained = train(ticket, task, order, learning_rate=0.2)
  want = reference.sgd(
    reference.layers(ticket),
    np.asarray(data.train.inputs),
    np.asarray(data.train.labels),
    np.asarray(order),
    0.2,
  )
  for (kernel, bias, _), name in zip(want, ("hidden_0", "hidden_1", "output"), strict=True):
    np.testing.assert_allclose(trained[name]["kernel"], kernel, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(trained[name]["bias"], bias, rtol=1e-4, atol=1e-5)
    assert np.abs(kernel - ticket.weights[name]["kernel"]).max() > 0.01


@pytest.mark.parametrize("optimizer", [*OPTIMIZERS, decaying, noisy])
def test_masked_weights_stay_exactly_zero(task, data, ticket, optimizer):
  order = training.minibatch_order(jax.random.key(1), len(data.train), 8, 15)
  trained = train(ticket, task, order, optimizer)
  for name, layer in ticket.masks.items():
    mask = np.asarray(layer["kernel"])
    assert (np.asarray(trained[name]["kernel"])[~mask] == 0).all()
    assert (np.asarray(trained[name]["kernel"]) != np.asarray(ticket.weights[name]["kernel"]))[mask].any()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_in_two_parts_is_the_same_training(task, data, ticket, optimizer):
  order = training.minibatch_order(jax.random.key(1), len(data.train), 8, 20)
  task = task.replace(training=nets_jax.Training(optimizer, 0.05))
  state = training.start(ticket, task)
  advance = jax.jit(lambda s, o: training.advance(jax.random.key(0), s, ticket.masks, task, o))
  halves = advance(advance(state, order[:10]), order[10:])
  assert_same_bits(halves, advance(state, order))


def test_each_epoch_is_one_shuffle_of_the_examples():
  order = training.minibatch_order(jax.random.key(0), 20, 6, 8)
  assert order.shape == (8, 6)
  for epoch in (order[:3], order[3:6]):
    assert len(set(np.asarray(epoch).ravel())) == 18
  assert (order[:3] != order[3:6]).any()
  np.testing.assert_array_equal(training.minibatch_order(jax.random.key(0), 20, 6, 2), order[:2])


@pytest.mark.parametrize(("first", "steps"), [(0, 3), (2, 5), (6, 4), (7, 1)])
def test_a_slice_of_the_order_is_that_of_the_whole(first, steps):
  whole = training.minibatch_order(jax.random.key(0), 20, 6, 12)
  part = training.minibatch_order(jax.random.key(0), 20, 6, steps, first=jnp.int32(first), whole_epochs=False)
  np.testing.assert_array_equal(part, whole[first : first + steps])
  if first % 3 == 0:
    part = training.minibatch_order(jax.random.key(0), 20, 6, steps, first=first)
    np.testing.assert_array_equal(part, whole[first : first + steps])


def test_evaluation_is_the_numpy_reference(task, data, ticket, monkeypatch):
  want = reference.loss_and_accuracy(
    reference.layers(ticket), np.asarray(data.train.inputs), np.asarray(data.train.labels)
  )
  for batch in (1000, 32):  # the second leaves a smaller last batch
    monkeypatch.setattr(evaluation, "EVALUATION_BATCH", batch)
    got = evaluation.evaluate(task, phenotype(ticket), data.train)
    np.testing.assert_allclose([got.loss, got.score], want, rtol=1e-5)


def test_dropout_depends_on_the_key_and_on_nothing_else(task, data, ticket):
  order = training.minibatch_order(jax.random.key(1), len(data.train), 8, 5)
  task = task.replace(network=nets_jax.MLP((8, 5), 3, dropout_rate=0.5))
  first, again, other = (train(ticket, task, order, key=key) for key in (0, 0, 1))
  assert_same_bits(first, again)
  assert any((a != b).any() for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(other), strict=True))


def test_cross_entropy():
  logits = jnp.array([[0.0, 0.0], [100.0, 0.0]])
  np.testing.assert_allclose(cross_entropy(logits, jnp.array([0, 1])), [np.log(2), 100.0], rtol=1e-6)


def test_so_many_steps_as_the_program_is_told_when_it_runs(task, data, ticket):
  """The same minibatches and weights as of an order that is so long."""
  key, per_epoch = jax.random.key(1), len(data.train) // 12

  @jax.jit
  def told(steps):
    order = training.minibatch_order(key, len(data.train), 12, 3 * per_epoch, needed=steps)
    return order, training.train(jax.random.key(0), ticket, task, order, steps=steps).weights

  for steps in (1, per_epoch, per_epoch + 2, 3 * per_epoch):
    order, weights = told(steps)
    want = training.minibatch_order(key, len(data.train), 12, steps)
    np.testing.assert_array_equal(order[:steps], want)
    alone = training.train(jax.random.key(0), ticket, task, want).weights
    for a, b in zip(jax.tree.leaves(weights), jax.tree.leaves(alone), strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("piece", [1000, 4])
def test_a_score_on_some_examples_is_that_of_the_first_in_an_order_of_chance(
  task, data, ticket, piece, monkeypatch
):
  monkeypatch.setattr(evaluation, "EVALUATION_BATCH", piece)
  some = jax.jit(lambda count: evaluation.evaluate_some(task, phenotype(ticket), data.train, None, count, 7))
  order = np.random.default_rng(0).permutation(len(data.train))
  inputs, labels = np.asarray(data.train.inputs), np.asarray(data.train.labels)
  for count in (7, 8, 20, len(data.train)):
    first = order[:count]
    want = reference.loss_and_accuracy(reference.layers(ticket), inputs[first], labels[first])
    got = some(count)
    np.testing.assert_allclose((got.loss, got.score), want, rtol=1e-5)
