import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

import nets_jax
from nets_jax import networks, tickets


def test_forward_is_the_numpy_reference(network, data, ticket):
  got = networks.forward(network, tickets.phenotype(ticket), data.train.inputs)
  want = reference.forward(reference.layers(ticket), data.train.inputs)[-1]
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_lenet_has_the_papers_weights():
  ticket = jax.eval_shape(
    lambda k: tickets.initialise(k, nets_jax.lenet_300_100(), (28, 28, 1)), jax.random.key(0)
  )
  assert tickets.maskable_count(ticket) == 266_200
  assert [leaf.shape for leaf in jax.tree.leaves(ticket.masks)] == [(784, 300), (300, 100), (100, 10)]


def test_initial_weights_are_normal_and_biases_zero():
  weights = networks.initial_weights(jax.random.key(0), nets_jax.lenet_300_100(), (28, 28, 1), 0.1)
  for layer in weights.values():
    assert not layer["bias"].any()
    kernel = np.asarray(layer["kernel"]).ravel()
    error = 4 / np.sqrt(kernel.size)
    assert abs(kernel.mean()) < 0.1 * error
    assert abs(kernel.std() / 0.1 - 1) < error
  first, second = (np.asarray(weights[name]["kernel"]).ravel()[:1000] for name in ("hidden_0", "hidden_1"))
  assert abs(np.corrcoef(first, second)[0, 1]) < 0.15


def test_network_without_biases(data):
  network = nets_jax.make_network("mlp", 3, (4,), use_bias=False)
  weights = networks.initial_weights(jax.random.key(0), network, data.input_shape, 0.1)
  assert {leaf for layer in weights.values() for leaf in layer} == {"kernel"}


def test_dropout_silences_in_training_only(data):
  network = nets_jax.MLP((50,), 3, dropout_rate=0.5)
  weights = networks.initial_weights(jax.random.key(0), network, data.input_shape, 0.1)
  inputs = data.train.inputs[:8]
  plain = networks.forward(network, weights, inputs)
  first, again, other = (networks.forward(network, weights, inputs, jax.random.key(i)) for i in (1, 1, 2))
  np.testing.assert_array_equal(plain, networks.forward(network, weights, inputs))
  np.testing.assert_array_equal(first, again)
  assert (first != plain).any()
  assert (first != other).any()


class Convolutional(nn.Module):
  """A user's own module: convolutions, and no `train` argument."""

  @nn.compact
  def __call__(self, x):
    x = nn.relu(nn.Conv(4, (3, 3), strides=2, name="conv")(x))
    x = nn.LayerNorm(name="norm")(x.reshape((len(x), -1)))
    return nn.Dense(10, name="output")(x)


def test_a_users_own_module_is_searched():
  data = nets_jax.load_data("digits")
  config = nets_jax.NetsConfig(population_size=4, generations=1, batch_size=64, learning_rate=0.1)
  result = nets_jax.search(jax.random.key(0), Convolutional(), data, config)
  assert result.ticket.masks["conv"]["kernel"].shape == (3, 3, 1, 4)
  assert result.ticket.masks["norm"] == {"bias": None, "scale": None}
  np.testing.assert_array_equal(result.ticket.weights["norm"]["scale"], 1.0)
  assert result.history[-1]["density"] < 1


class Normalised(nn.Module):
  @nn.compact
  def __call__(self, x):
    return nn.BatchNorm(use_running_average=False)(nn.Dense(3)(x))


class Unweighted(nn.Module):
  @nn.compact
  def __call__(self, x):
    return x * self.param("gain", nn.initializers.ones, (1, 6))


@pytest.mark.parametrize(
  ("module", "message"),
  [
    (Normalised(), "Normalised has batch_stats"),
    (Unweighted(), "Unweighted has no parameter named 'kernel'"),
  ],
)
def test_modules_that_cannot_be_tickets(module, message):
  with pytest.raises(nets_jax.UsageError, match=message):
    networks.initial_weights(jax.random.key(0), module, (6,), 0.1)


@pytest.mark.parametrize(
  ("kwargs", "message"),
  [
    ({"name": "resnet"}, "network must be mlp or lenet_300_100, not 'resnet'"),
    ({"activation": "gelu"}, "activation must be one of relu, sigmoid, tanh, not 'gelu'"),
    ({"dropout_rate": 1.0}, r"dropout_rate must be in \[0, 1\), not 1.0"),
    ({"hidden_sizes": (5, 0)}, "hidden_sizes must be positive, not 5,0"),
  ],
)
def test_impossible_networks(kwargs, message):
  with pytest.raises(nets_jax.UsageError, match=message):
    nets_jax.make_network(**{"name": "mlp", "num_classes": 3, **kwargs})


def test_activations():
  x = jnp.linspace(-2, 2, 5)
  np.testing.assert_allclose(networks.ACTIVATIONS["sigmoid"](x), 1 / (1 + np.exp(-x)), rtol=1e-5)
