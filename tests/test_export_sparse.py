"""Networks of sparse matrices: the same outputs, and a file that NumPy alone reads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import sparse

import nets_jax
from nets_jax.export.sparse_network import SparseNetwork, save_sparse
from nets_jax.networks.adapter import forward, initial_state
from nets_jax.networks.zoo import make_network
from nets_jax.tickets.ticket import initialise, phenotype

pytestmark = pytest.mark.export


@pytest.mark.parametrize(
  ("name", "shape"),
  [
    ("mlp", (3, 2)), ("lenet_300_100", (28, 28, 1)), ("lenet5", (28, 28, 1)), ("resnet8", (16, 16, 3)),
    ("resnet18", (16, 16, 3)), ("vgg11", (16, 16, 3)), ("vit", (16, 16, 3)),
  ],
)  # fmt: skip
def test_outputs_are_the_networks(name, shape):
  settings = {"width": 0.1} if name in ("resnet18", "vgg11") else {}
  network = make_network(name, 10, (7, 6) if name == "mlp" else (), **settings)
  rng = np.random.default_rng(0)
  state = jax.tree.map(
    lambda leaf: jnp.asarray(rng.uniform(0.5, 2, leaf.shape), leaf.dtype), initial_state(network, shape)
  )
  ticket = initialise(jax.random.key(0), network, shape, initialiser="he", initial_density=0.2)
  small = SparseNetwork(ticket, network, shape, state)
  for batch in (1, 5):
    inputs = rng.normal(size=(batch, *shape)).astype(np.float32)
    here = np.asarray(forward(network, phenotype(ticket), inputs, state=state))
    np.testing.assert_allclose(small(inputs), here, rtol=0, atol=1e-5 * np.abs(here).max())
  stored = sum(matrix.nnz for matrix in small.matrices.values())
  assert stored == sum(int(mask.sum()) for mask in jax.tree.leaves(ticket.masks))


def test_a_file_is_read_by_numpy_and_scipy_alone(tmp_path):
  network, shape = nets_jax.MLP((8, 5), 3), (6,)
  ticket = initialise(jax.random.key(1), network, shape, initialiser="he", initial_density=0.5)
  save_sparse(tmp_path / "ticket.npz", SparseNetwork(ticket, network, shape))
  stored = np.load(tmp_path / "ticket.npz", allow_pickle=False)
  x = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
  inputs = x
  for name in ("hidden_0", "hidden_1", "output"):
    parts = tuple(stored[f"{name}/kernel/{part}"] for part in ("data", "indices", "indptr"))
    matrix = sparse.csr_array(parts, shape=stored[f"{name}/kernel/shape"])
    x = (matrix @ x.T).T + stored[f"{name}/bias"]
    x = x if name == "output" else np.maximum(x, 0)
  np.testing.assert_allclose(x, forward(network, phenotype(ticket), inputs), atol=1e-6)
  assert not any("weights" in name or "mask" in name for name in stored.files)


def test_a_convolution_in_groups_is_multiplied_densely():
  def apply(parameters, state, inputs, *, key, train):
    kernel = parameters["conv"]["kernel"]
    found = jax.lax.conv_general_dilated(
      inputs, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=2
    )
    return found.sum((1, 2)), state

  network = nets_jax.Functional(
    lambda key, inputs: ({"conv": {"kernel": jax.random.normal(key, (3, 3, 1, 4))}}, {}), apply
  )
  ticket = initialise(jax.random.key(2), network, (5, 5, 2), initialiser="he", initial_density=0.5)
  inputs = np.random.default_rng(0).normal(size=(2, 5, 5, 2)).astype(np.float32)
  here = forward(network, phenotype(ticket), inputs)
  np.testing.assert_allclose(SparseNetwork(ticket, network, (5, 5, 2))(inputs), here, atol=1e-5)
