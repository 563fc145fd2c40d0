"""Networks as models of ONNX, as onnxruntime computes them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

onnxruntime = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

import nets_jax
from nets_jax.export.onnx_models import to_onnx
from nets_jax.networks.adapter import forward, initial_state
from nets_jax.networks.zoo import NETWORKS, make_network
from nets_jax.tickets.ticket import initialise, phenotype

pytestmark = pytest.mark.export

SMALL = {"conv2": 0.1, "conv4": 0.1, "conv6": 0.1, "vgg11": 0.1, "vgg16": 0.1, "vgg19": 0.1, "resnet18": 0.1}
SHAPES = {"mlp": (3, 2), "lenet_300_100": (28, 28, 1), "lenet5": (28, 28, 1)}


def computed(model, inputs):
  session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
  return session.run(None, {"inputs": inputs})[0]


def genome(network, shape, density=0.05):
  return initialise(jax.random.key(0), network, shape, initialiser="he", initial_density=density)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_model_computes_what_the_network_does(name):
  settings = {"width": SMALL[name]} if name in SMALL else {}
  network = make_network(name, 10, (7, 6) if name == "mlp" else (), **settings)
  shape = SHAPES.get(name, (16, 16, 3))
  rng = np.random.default_rng(0)
  state = jax.tree.map(
    lambda leaf: jnp.asarray(rng.uniform(0.5, 2, leaf.shape), leaf.dtype), initial_state(network, shape)
  )
  ticket = genome(network, shape, 0.4 if name == "mlp" else 0.05)
  for compacted in (False, True):
    model = to_onnx(ticket, network, shape, network_state=state, compacted=compacted)
    onnx.checker.check_model(model, full_check=True)
    for batch in (1, 7):
      inputs = rng.normal(size=(batch, *shape)).astype(np.float32)
      here = np.asarray(forward(network, phenotype(ticket), inputs, state=state))
      np.testing.assert_allclose(computed(model, inputs), here, rtol=0, atol=1e-5 * np.abs(here).max())


def test_what_is_dead_is_not_in_the_file():
  network = make_network("lenet_300_100", 10)
  ticket = genome(network, (28, 28, 1), 0.01)
  stored = sum(np.prod(each.dims) for each in to_onnx(ticket, network, (28, 28, 1)).graph.initializer)
  live = nets_jax.compact(ticket, network, (28, 28, 1), round_up=False)
  weights = sum(leaf.size for leaf in jax.tree.leaves(live.ticket.weights))
  assert weights <= stored < weights + 2_000  # and the places of the inputs that are looked at
  assert weights < 266_610 / 2


def functional(call):
  return nets_jax.Functional(
    lambda key, inputs: ({"layer": {"kernel": jax.random.normal(key, (3, 2))}}, {}),
    lambda parameters, state, inputs, *, key, train: (call(inputs @ parameters["layer"]["kernel"]), state),
  )


@pytest.mark.parametrize(
  "call",
  [
    lambda x: jnp.where(x > 0, x, 0.1 * x), jax.nn.softmax, jax.nn.gelu, jax.nn.silu, jax.nn.elu,
    lambda x: jnp.concatenate([x, -x, jnp.ones((len(x), 1))], axis=1),
    lambda x: jnp.clip(x, -1, 1) ** 3 - jnp.abs(x) / jnp.sqrt(x**2 + 1),
    lambda x: x[:, jnp.array([1, 0, 1])], lambda x: x.reshape(-1, 1, 2).sum(1), lambda x: x[:, ::-1][:, :1],
  ],
)  # fmt: skip
def test_functions_of_ones_own(call):
  network = functional(call)
  ticket = genome(network, (3,), 1.0)
  inputs = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
  here = np.asarray(forward(network, phenotype(ticket), inputs))
  np.testing.assert_allclose(computed(to_onnx(ticket, network, (3,)), inputs), here, atol=1e-5)


def test_what_cannot_be_written_is_said():
  network = functional(lambda x: jnp.cumsum(x, axis=1))
  with pytest.raises(nets_jax.UsageError, match="the operation cumsum cannot be written as ONNX here"):
    to_onnx(genome(network, (3,), 1.0), network, (3,))


def test_a_batch_that_is_mixed_is_refused():
  network = functional(lambda x: x - x.mean(0, keepdims=True))
  with pytest.raises(nets_jax.UsageError, match=r"computes something else|cannot be written"):
    to_onnx(genome(network, (3,), 1.0), network, (3,))
