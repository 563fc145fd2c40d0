"""Networks whose masked layers are sparse matrices of SciPy, CSR: for machines that have no more than that.

Of a layer the matrix is theta (.) M, [outputs, inputs]. Of a convolution its columns are [inputs, *window],
as PyTorch counts them, and it is multiplied with patches of the images.
"""

import functools
import math
import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.extend import core
from jaxtyping import Array
from scipy import sparse

from nets_jax.engine.files import replace_file
from nets_jax.export.torch_layouts import CONVOLUTION, PRODUCT, Entry, entries
from nets_jax.networks.adapter import STATISTICS, Network, NetworkState, forward, initial_state
from nets_jax.networks.traced import inner_program
from nets_jax.tickets.storage import flat
from nets_jax.tickets.ticket import Ticket, check_weights, phenotype

WINDOWS = ("window_strides", "padding", "rhs_dilation")
PARTS = ("data", "indices", "indptr", "shape")  # of a matrix in a file


class SparseNetwork:
  """A network of a ticket, whose masked layers are sparse matrices.

      network = SparseNetwork(ticket, network, input_shape)
      outputs = network(inputs)  # [batch, ...]

  Attributes:
    matrices: of each masked layer by its path (`conv_0/kernel`), CSR.
    others: all other parameters, and running averages, by their paths.
  """

  def __init__(
    self,
    ticket: Ticket,
    network: Network,
    input_shape: Sequence[int],
    network_state: NetworkState | None = None,
  ):
    check_weights(ticket, network, input_shape)
    state = initial_state(network, tuple(input_shape)) if network_state is None else network_state
    self._network, self._state = network, jax.device_get(state)
    self._weights = jax.device_get(phenotype(ticket))
    masked = {path for path, mask in flat(ticket.masks).items() if mask is not None}
    leaves = flat(self._weights)
    known = {entry.path: entry for entry in entries(network, input_shape)}
    self.matrices = {
      path: matrix_of(known[path], leaves[path])
      for path in leaves
      if path in masked and known[path].operation in (CONVOLUTION, PRODUCT)
    }
    averages = flat(dict(self._state).get(STATISTICS, {}))
    self.others = {path: leaf for path, leaf in (leaves | averages).items() if path not in self.matrices}
    self._traced = functools.cache(self._trace)

  def _trace(self, shape: tuple[int, ...], dtype: np.dtype) -> core.ClosedJaxpr:
    def apply(weights, inputs):
      return forward(self._network, weights, inputs, state=self._state)

    return jax.make_jaxpr(apply)(self._weights, jax.ShapeDtypeStruct(shape, dtype))

  def __call__(self, inputs: np.ndarray) -> np.ndarray:
    """Outputs [batch, ...] for inputs [batch, ...], images with their channels last."""
    traced = self._traced(inputs.shape, inputs.dtype)
    leaves = [
      _Matrix(self.matrices[path], leaf) if path in self.matrices else leaf
      for path, leaf in flat(self._weights).items()
    ]
    (result,) = _run(traced.jaxpr, list(traced.consts), [*leaves, inputs])
    return np.asarray(result)


def matrix_of(entry: Entry, kernel: np.ndarray) -> sparse.csr_array:
  """A kernel as a sparse matrix [outputs, inputs]."""
  laid_out = entry.there(kernel)
  return sparse.csr_array(laid_out.reshape(len(laid_out), -1))


def save_sparse(path: str | os.PathLike, network: SparseNetwork) -> None:
  """Writes an `.npz` that NumPy alone reads: of a matrix `NAME/data`, `/indices`, `/indptr`, `/shape`.

  stored = np.load("ticket.npz")
  parts = [stored[f"dense_0/kernel/{part}"] for part in ("data", "indices", "indptr")]
  matrix = scipy.sparse.csr_array(tuple(parts), shape=stored["dense_0/kernel/shape"])
  """
  arrays: dict[str, Any] = {
    f"{name}/{part}": np.asarray(getattr(matrix, part))
    for name, matrix in network.matrices.items()
    for part in PARTS
  }
  with replace_file(path) as temporary, temporary.open("wb") as file:
    arrays |= network.others
    np.savez(file, **arrays)


class _Matrix:
  """A kernel on its way to the operation that multiplies with it."""

  def __init__(self, csr: sparse.csr_array, dense: np.ndarray):
    self.csr, self.dense = csr, dense


Value = _Matrix | np.ndarray | jax.Array


def _run(program: core.Jaxpr, consts: Sequence[Value], given: Sequence[Value]) -> list[Value]:
  """A program's results, operation by operation."""
  known: dict[core.Var, Value] = dict(zip(program.constvars, consts, strict=True))
  known |= dict(zip(program.invars, given, strict=True))

  def look(variable: core.Var | core.Literal) -> Value:
    return variable.val if isinstance(variable, core.Literal) else known[variable]

  for equation in program.eqns:
    operands = [look(variable) for variable in equation.invars]
    known |= dict(zip(equation.outvars, _apply(equation, operands), strict=True))
  return [look(variable) for variable in program.outvars]


def _apply(equation: core.JaxprEqn, operands: Sequence[Value]) -> Sequence[Value]:
  if (inner := inner_program(equation)) is not None:
    return _run(inner.jaxpr, list(inner.consts), operands)
  if isinstance(operands[-1], _Matrix) and not isinstance(operands[0], _Matrix):
    multiply = PRODUCTS.get(equation.primitive.name)
    found = multiply(equation, np.asarray(operands[0]), operands[-1]) if multiply else None
    if found is not None:
      return [found]
  dense = [operand.dense if isinstance(operand, _Matrix) else operand for operand in operands]
  results = equation.primitive.bind(*dense, **equation.params)
  return results if equation.primitive.multiple_results else [results]


def _product(equation: core.JaxprEqn, x: np.ndarray, kernel: _Matrix) -> np.ndarray | None:
  """`dot_general` of a signal with a kernel whose first axes are summed over; None of any other."""
  (left, right), (batch, _) = equation.params["dimension_numbers"]
  if batch or tuple(right) != tuple(range(len(right))):
    return None
  kept = [axis for axis in range(x.ndim) if axis not in left]
  rows = x.transpose(*kept, *left).reshape(math.prod(x.shape[axis] for axis in kept), -1)
  outputs = (kernel.csr @ rows.T).T
  return outputs.reshape(*(x.shape[axis] for axis in kept), *kernel.dense.shape[len(right) :])


def _convolved(equation: core.JaxprEqn, x: np.ndarray, kernel: _Matrix) -> np.ndarray | None:
  """A convolution of images as a product with their patches; None of one in groups, or transposed."""
  params, numbers = equation.params, equation.params["dimension_numbers"]
  groups = max(params["feature_group_count"], params["batch_group_count"])
  if groups > 1 or max(params["lhs_dilation"]) > 1:
    return None
  window = tuple(kernel.dense.shape[axis] for axis in numbers.rhs_spec[2:])
  how = (tuple(numbers.lhs_spec), window, *(tuple(params[name]) for name in WINDOWS))
  patches = np.asarray(_patches(x, *how))  # [batch, inputs * window, ...]
  count, depth, *places = patches.shape
  columns = np.moveaxis(patches, 1, 0).reshape(depth, -1)
  outputs = (kernel.csr @ columns).reshape(-1, count, *places)
  return np.transpose(np.moveaxis(outputs, 0, 1), np.argsort(numbers.out_spec))


@functools.partial(jax.jit, static_argnames=("order", "window", "strides", "padding", "dilation"))
def _patches(
  x: Array,
  order: tuple[int, ...],
  window: tuple[int, ...],
  strides: tuple[int, ...],
  padding: tuple[tuple[int, int], ...],
  dilation: tuple[int, ...],
) -> Array:
  """The patches of images, [batch, inputs * window, ...]."""
  images = lax.transpose(x, order)
  return lax.conv_general_dilated_patches(images, window, strides, padding, rhs_dilation=dilation)


PRODUCTS = {"dot_general": _product, "conv_general_dilated": _convolved}
