"""A learning rate for each layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nets_jax
from nets_jax.networks.initialisation import Given
from nets_jax.tickets.ticket import initialise, map_kernels
from nets_jax.training.layer_rates import by_layer

KEY = jax.random.key(3)


def bare(width=8, classes=3):
  """A network of two layers of ReLUs without biases."""

  def init(key, inputs):
    one, two = jax.random.split(key)
    features = inputs.shape[-1]
    return {
      "first": jax.random.normal(one, (features, width)) / np.sqrt(features),
      "second": jax.random.normal(two, (width, classes)) / np.sqrt(width),
    }, {}

  def apply(weights, state, inputs, *, key, train):
    del key, train
    return jax.nn.relu(inputs @ weights["first"]) @ weights["second"], state

  return nets_jax.Functional(init, apply)


def trained(task, weights, **changes):
  own = task.replace(training=task.training.replace(**changes), initialiser=Given(weights), compact=False)
  ticket = initialise(KEY, own.network, own.data.input_shape, initialiser=own.initialiser)
  return nets_jax.train_tickets(KEY, ticket, own, steps=12)


def test_the_updates_of_a_layer_are_times_its_rate(task):
  """After one step of SGD, against the plain one."""
  one = task.replace(compact=False)
  ticket = nets_jax.random_ticket(KEY, task.network, task.data.input_shape, 0.5)
  rates = [0.5, 2.0, 3.0]  # a list will do

  def change(layer_rates):
    own = one.replace(training=one.training.replace(layer_rates=layer_rates))
    found = nets_jax.train_tickets(KEY, ticket, own, steps=1).weights
    begun = map_kernels(lambda mask, w: jnp.where(mask, w, 0), ticket.masks, ticket.weights)
    return jax.tree.map(lambda after, before: after[0] - before, found, begun)

  plain, own = change(None), change(rates)
  for layer, rate in zip(task.layers, rates, strict=True):
    for name, leaf in plain[layer.name].items():
      np.testing.assert_allclose(own[layer.name][name], rate * leaf, rtol=1e-5, atol=1e-7)


def test_a_scale_is_a_rate_in_disguise(task):
  """Scales (a, 1/a) train as the plain network does at the rates (1/a^2, a^2), times the scales."""
  network, a = bare(), 3.0
  own = task.replace(network=network, training=nets_jax.Training(batch_size=8, learning_rate=0.05))
  weights = initialise(KEY, network, task.data.input_shape, initialiser="module").weights
  scaled = {"first": a * weights["first"], "second": weights["second"] / a}
  by_scale, by_rate = trained(own, scaled), trained(own, weights, layer_rates=(1 / a**2, a**2))
  for one, other in zip(by_scale.curves, by_rate.curves, strict=True):
    assert one["valid_loss"] == pytest.approx(other["valid_loss"], rel=1e-4)
  np.testing.assert_allclose(by_scale.weights["first"], a * by_rate.weights["first"], rtol=1e-3, atol=1e-5)
  plain = trained(own, weights)
  assert abs(plain.curves[-1]["valid_loss"] - by_rate.curves[-1]["valid_loss"]) > 1e-3


def test_a_bias_goes_with_its_kernel_and_what_is_of_no_layer_stays(task):
  updates = {"a": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}, "norm": {"scale": jnp.ones(2)}}
  (layer,) = [task.layers[0]._replace(name="a", shape=(2, 2))]
  found = by_layer(updates, (3.0,), [layer])
  assert jax.tree.map(lambda leaf: float(leaf.max()), found) == {
    "a": {"kernel": 3, "bias": 3}, "norm": {"scale": 1}
  }  # fmt: skip
  assert by_layer(updates, None, [layer]) is updates


def test_a_compact_ticket_has_the_rates_of_its_layers(task):
  """One with dead units, whole and compact."""
  ticket = nets_jax.random_ticket(KEY, task.network, task.data.input_shape, 0.05)
  own = task.replace(training=task.training.replace(layer_rates=(0.5, 2.0, 3.0)[: len(task.layers)]))
  one, other = (
    nets_jax.train_tickets(KEY, ticket, own.replace(compact=which), steps=20).curves[-1]["valid_loss"]
    for which in (True, False)
  )
  assert one == pytest.approx(other, rel=1e-4)


def test_another_number_of_rates_than_of_layers_is_refused(task):
  wrong = task.replace(training=task.training.replace(layer_rates=(1.0, 2.0, 3.0, 4.0)))
  with pytest.raises(
    nets_jax.UsageError,
    match="layer_rates must be one number, or one for each of the",
  ):
    wrong.check()
