import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from conftest import assert_same_bits

import nets_jax
from nets_jax.networks import initialisation
from nets_jax.networks import precision as precision_module
from nets_jax.networks.adapter import forward
from nets_jax.networks.precision import matrix_product
from nets_jax.networks.zoo import ACTIVATIONS, lenet_300_100, make_network
from nets_jax.tickets.ticket import initialise, maskable_count, phenotype


def test_forward_is_the_numpy_reference(network, data, ticket):
  got = forward(network, phenotype(ticket), data.train.inputs)
  want = reference.forward(reference.layers(ticket), data.train.inputs)[-1]
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_lenet_has_the_papers_weights():
  ticket = jax.eval_shape(lambda k: initialise(k, lenet_300_100(), (28, 28, 1)), jax.random.key(0))
  assert maskable_count(ticket) == 266_200
  assert [leaf.shape for leaf in jax.tree.leaves(ticket.masks)] == [(784, 300), (300, 100), (100, 10)]


def test_initial_weights_are_normal_and_biases_zero():
  weights = initialisation.Normal(0.1).draw(jax.random.key(0), lenet_300_100(), (28, 28, 1))
  for layer in weights.values():
    assert not layer["bias"].any()
    kernel = np.asarray(layer["kernel"]).ravel()
    error = 4 / np.sqrt(kernel.size)
    assert abs(kernel.mean()) < 0.1 * error
    assert abs(kernel.std() / 0.1 - 1) < error
  first, second = (np.asarray(weights[name]["kernel"]).ravel()[:1000] for name in ("hidden_0", "hidden_1"))
  assert abs(np.corrcoef(first, second)[0, 1]) < 0.15


def test_layers_may_have_scales_of_their_own():
  def draw(scale):
    return initialisation.Normal(scale).draw(jax.random.key(0), lenet_300_100(), (784,))

  one, own = draw(1.0), draw((0.01, 2.0, 0.5))
  for (_, a), (_, b), scale in zip(one.items(), own.items(), (0.01, 2.0, 0.5), strict=True):
    np.testing.assert_allclose(b["kernel"], scale * a["kernel"], rtol=1e-6)
  assert_same_bits(draw((0.1, 0.1, 0.1)), draw(0.1))
  with pytest.raises(nets_jax.UsageError, match="one for each of the network's 3 layers, not 2"):
    draw((0.1, 0.2))


def test_network_without_biases(data):
  network = make_network("mlp", 3, (4,), use_bias=False)
  weights = initialisation.Normal(0.1).draw(jax.random.key(0), network, data.input_shape)
  assert {leaf for layer in weights.values() for leaf in layer} == {"kernel"}


def test_dropout_silences_in_training_only(data):
  network = nets_jax.MLP((50,), 3, dropout_rate=0.5)
  weights = initialisation.Normal(0.1).draw(jax.random.key(0), network, data.input_shape)
  inputs = data.train.inputs[:8]
  plain = forward(network, weights, inputs)
  first, again, other = (forward(network, weights, inputs, jax.random.key(i)) for i in (1, 1, 2))
  np.testing.assert_array_equal(plain, forward(network, weights, inputs))
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
  task = nets_jax.Task(Convolutional(), data, nets_jax.Training(learning_rate=0.1, batch_size=64))
  search = nets_jax.recipes.paper(population_size=4, generations=1)
  result = nets_jax.search(jax.random.key(0), task, search)
  assert result.ticket.masks["conv"]["kernel"].shape == (3, 3, 1, 4)
  assert result.ticket.masks["norm"] == {"bias": None, "scale": None}
  np.testing.assert_array_equal(result.ticket.weights["norm"]["scale"], 1.0)
  assert result.history[-1]["density"] < 1


class Unweighted(nn.Module):
  @nn.compact
  def __call__(self, x):
    return x * self.param("gain", nn.initializers.ones, (1, 6))


class Empty(nn.Module):
  @nn.compact
  def __call__(self, x):
    return x


@pytest.mark.parametrize(
  ("module", "message"),
  [
    (Unweighted(), "Unweighted has no kernel, so nothing can be masked"),
    (Empty(), "Empty has no parameters, so there is nothing to train"),
  ],
)
def test_modules_that_cannot_be_tickets(task, module, message):
  with pytest.raises(nets_jax.UsageError, match=message):
    task.replace(network=module).check()


@pytest.mark.parametrize(
  ("kwargs", "message"),
  [
    ({"name": "resnet"}, "network must be one of mlp, lenet_300_100, .* of your own, not 'resnet'"),
    ({"activation": "gelu"}, "activation must be one of relu, sigmoid, tanh, not 'gelu'"),
    ({"dropout_rate": 1.0}, r"dropout_rate must be in \[0, 1\), not 1.0"),
    ({"hidden_sizes": (5, 0)}, r"hidden_sizes must be positive whole numbers, not \[5, 0\]"),
  ],
)
def test_impossible_networks(kwargs, message):
  with pytest.raises(nets_jax.UsageError, match=message):
    make_network(**{"name": "mlp", "num_classes": 3, **kwargs})


def test_activations():
  x = jnp.linspace(-2, 2, 5)
  np.testing.assert_allclose(ACTIVATIONS["sigmoid"](x), 1 / (1 + np.exp(-x)), rtol=1e-5)


def rounded(x, mantissa_bits):
  """To so many bits of mantissa, halves to even: NumPy's float32 arithmetic on the bit patterns."""
  bits = np.asarray(x, np.float32).view(np.uint32).astype(np.uint64)
  unit = np.uint64(1 << (23 - mantissa_bits))
  odd = (bits // unit) & np.uint64(1)
  return (
    ((bits + unit // np.uint64(2) - np.uint64(1) + odd) // unit * unit).astype(np.uint32).view(np.float32)
  )


@pytest.mark.parametrize(
  ("precision", "bits", "native"),
  [("bfloat16", 7, False), ("bfloat16", 7, True), ("tensorfloat32", 10, False), ("float32", 23, False)],
)
def test_products_have_operands_of_the_precision_in_both_directions(precision, bits, native, monkeypatch):
  monkeypatch.setattr(precision_module, "multiplies_bfloat16", lambda: native)
  rng = np.random.default_rng(0)
  x, w, g = (rng.normal(size=shape).astype(np.float32) for shape in ((5, 40), (40, 3), (5, 3)))

  def product(x, w):
    return matrix_product(precision)(x, w, (((1,), (0,)), ((), ())))

  found, pull = jax.vjp(product, x, w)
  exact = [a.astype(np.float64) for a in (rounded(x, bits), rounded(w, bits), rounded(g, bits))]
  expected = (exact[0] @ exact[1], exact[2] @ exact[1].T, exact[0].T @ exact[2])
  for got, want in zip((found, *pull(g)), expected, strict=True):
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
  assert precision == "float32" or np.abs(found - x @ w).max() > 1e-4  # it is felt


def test_precision_is_for_training_alone(network, data, ticket):
  coarse = network.clone(precision="bfloat16")
  inputs, key = data.valid.inputs, jax.random.key(0)
  evaluated, trained = (
    [forward(n, ticket.weights, inputs, k) for n in (network, coarse)] for k in (None, key)
  )
  assert_same_bits(*evaluated)
  assert (np.asarray(trained[0]) != np.asarray(trained[1])).any()
  np.testing.assert_allclose(*trained, atol=0.2)
