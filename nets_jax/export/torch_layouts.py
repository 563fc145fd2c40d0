"""How PyTorch calls a network's parameters and lays them out. NumPy alone; torch need not be there.

| here | in torch |
|---|---|
| `conv/kernel` [*window, inputs, outputs] of a convolution | `conv.weight` [outputs, inputs, *window] |
| `dense/kernel` [*inputs, *outputs] of a product | `dense.weight` [outputs, inputs] |
| `norm/scale`, `embed/embedding` | `norm.weight`, `embed.weight` |
| `norm/mean`, `norm/var` of `batch_stats` | `norm.running_mean`, `norm.running_var` |
| all else; a bias beside a kernel has one axis | the same name with points |
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from nets_jax.errors import UsageError
from nets_jax.networks.adapter import STATISTICS, Network, abstract_parameters, initial_state
from nets_jax.networks.layers import operations
from nets_jax.networks.maskable import KERNEL_NAMES
from nets_jax.tickets.storage import flat

CONVOLUTION, PRODUCT = "conv_general_dilated", "dot_general"
LAST = {
  "w": "weight", "b": "bias", "offset": "bias",  # haiku's
  "kernel": "weight", "scale": "weight", "embedding": "weight", "mean": "running_mean", "var": "running_var",
}  # fmt: skip


class Entry(NamedTuple):
  """One array of a network, here and in torch.

  Attributes:
    path: here, as `block/conv/kernel`.
    name: in torch, as `block.conv.weight`.
    shape: here.
    operation: by which it meets the signal; None if it does not, or is of the state.
    is_state: whether it is a running average and no parameter.
    beside_kernel: whether it is the bias of a kernel.
    outputs: of a kernel how many.
  """

  path: str
  name: str
  shape: tuple[int, ...]
  operation: str | None
  is_state: bool
  beside_kernel: bool
  outputs: int

  @property
  def layer(self) -> str:
    """What a mask of it would be called; see `networks.maskable.layer_name`."""
    outer, _, last = self.path.rpartition("/")
    return outer if outer and last in KERNEL_NAMES else self.path

  def there(self, array: np.ndarray) -> np.ndarray:
    """An array of ours, or a mask, as torch lays it out."""
    if self.operation == CONVOLUTION and len(self.shape) > 2:
      array = np.moveaxis(array, (-1, -2), (0, 1))
    elif self.operation == PRODUCT and len(self.shape) > 1:
      array = array.reshape(-1, self.outputs).T
    elif self.beside_kernel:
      array = array.reshape(-1)
    return np.ascontiguousarray(array)

  def back(self, array: np.ndarray) -> np.ndarray:
    """An array of torch as we lay it out.

    Raises:
      UsageError: it has another shape.
    """
    wanted = self.there(np.empty(self.shape, bool)).shape
    if array.shape != wanted:
      raise UsageError(
        f"{self.name} has the shape {array.shape}, where {self.path} {self.shape} asks for {wanted}; give "
        "the network and the shape of the inputs that it was made for"
      )
    if self.operation == CONVOLUTION and len(self.shape) > 2:
      return np.ascontiguousarray(np.moveaxis(array, (0, 1), (-1, -2)))
    if self.operation == PRODUCT and len(self.shape) > 1:
      array = array.T
    return np.ascontiguousarray(array.reshape(self.shape))


def entries(network: Network, input_shape: Sequence[int]) -> list[Entry]:
  """All arrays of a network: its parameters in the order of application, then its running averages.

  Raises:
    UsageError: two would have one name in torch, or its state holds more than averages of batches.
  """
  parameters = flat(abstract_parameters(network, input_shape))
  state = dict(initial_state(network, tuple(input_shape)))
  averages = flat(state.pop(STATISTICS, {}))
  if state:
    raise UsageError(f"a state of {', '.join(state)} cannot be kept there; only {STATISTICS} can")
  found = []
  for path, operation in operations(network, input_shape).items():
    leaf = parameters[path]
    outer = path.rpartition("/")[0]
    kernels = [f"{outer}/{name}".removeprefix("/") for name in KERNEL_NAMES]
    beside = path not in kernels and any(kernel in parameters for kernel in kernels)
    outputs = _outputs(path, leaf.shape, parameters)
    found.append(Entry(path, torch_name(path), leaf.shape, operation, False, beside, outputs))
  found += [
    Entry(path, torch_name(path), leaf.shape, None, True, False, 1) for path, leaf in averages.items()
  ]
  names = [entry.name for entry in found]
  if twice := [name for name in names if names.count(name) > 1]:
    raise UsageError(f"two arrays would be {twice[0]} in torch; give one of them another name")
  return found


def _outputs(path: str, shape: Sequence[int], parameters: Mapping[str, np.ndarray]) -> int:
  """How many outputs a kernel has: as many as its bias, or its last axis."""
  bias = parameters.get(f"{path.rpartition('/')[0]}/bias".removeprefix("/"))
  if bias is not None and path.rpartition("/")[-1] in KERNEL_NAMES:
    return math.prod(bias.shape)
  return shape[-1] if shape else 1


def torch_name(path: str) -> str:
  """What torch calls an array at a path of ours."""
  *outer, last = path.split("/")
  return ".".join((*outer, LAST.get(last, last)))
