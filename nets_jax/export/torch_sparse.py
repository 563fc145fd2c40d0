"""Pruned modules of PyTorch with sparse weights, CSR, for evaluation.

A convolution is multiplied with patches of the images. Whether this is faster than dense weights depends on
the machine and the density.
"""

import warnings

from nets_jax.export.extras import missing

try:
  import torch
  import torch.nn.functional as F
  from torch import nn
  from torch.nn.utils import prune
except ImportError as error:
  raise missing("torch", error) from error

from nets_jax.errors import UsageError
from nets_jax.export.torch_modules import MASK, WEIGHT, copied


class CsrLinear(nn.Module):
  """A dense layer whose weights [outputs, inputs] are CSR."""

  def __init__(self, layer: nn.Linear):
    super().__init__()
    self.register_buffer("weight", _csr(layer.weight))
    self.register_buffer("bias", None if layer.bias is None else layer.bias.detach())

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """Maps [..., inputs] to [..., outputs]."""
    rows = x.reshape(-1, x.shape[-1])
    outputs = (self.weight @ rows.T).T.reshape(*x.shape[:-1], -1)
    return outputs if self.bias is None else outputs + self.bias


class CsrConv2d(nn.Module):
  """A convolution whose kernel is CSR, [outputs, inputs * window]."""

  def __init__(self, layer: nn.Conv2d):
    super().__init__()
    if layer.groups != 1 or isinstance(layer.padding, str) or layer.padding_mode != "zeros":
      raise UsageError("a convolution in groups, or padded otherwise than by zeros, has no sparse form here")
    self.register_buffer("weight", _csr(layer.weight.flatten(1)))
    self.register_buffer("bias", None if layer.bias is None else layer.bias.detach())
    self.window, self.stride, self.padding = layer.kernel_size, layer.stride, layer.padding
    self.dilation = layer.dilation

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """Maps [batch, channels, height, width] to [batch, outputs, ...]."""
    sides = [
      (size + 2 * pad - dilation * (window - 1) - 1) // stride + 1
      for size, pad, dilation, window, stride in zip(
        x.shape[2:], self.padding, self.dilation, self.window, self.stride, strict=True
      )
    ]
    patches = F.unfold(x, self.window, self.dilation, self.padding, self.stride)  # [batch, window, places]
    columns = patches.transpose(0, 1).flatten(1)
    outputs = (self.weight @ columns).unflatten(1, (len(x), *sides)).transpose(0, 1)
    return outputs if self.bias is None else outputs + self.bias.view(1, -1, 1, 1)


SPARSE = {nn.Linear: CsrLinear, nn.Conv2d: CsrConv2d}


def sparse_module(module: nn.Module) -> nn.Module:
  """A copy of a pruned module, in evaluation mode, whose pruned layers are sparse.

  Its parameters are buffers: it does not train. `state_dict()` has the sparse tensors.

  Raises:
    UsageError: nothing in it is pruned, or a pruned layer is no dense layer or plain convolution.
  """
  module = copied(module).eval()
  pruned = [name for name, own in module.named_modules() if hasattr(own, MASK)]
  if not pruned:
    raise UsageError("nothing in this module is pruned; give what to_torch made")
  for name in pruned:
    layer = module.get_submodule(name)
    if type(layer) not in SPARSE:
      raise UsageError(f"{name} is of {type(layer).__name__}, which has no sparse form here")
    prune.remove(layer, WEIGHT)
    sparse = SPARSE[type(layer)](layer)
    if not name:
      return sparse
    where, _, last = name.rpartition(".")
    setattr(module.get_submodule(where), last, sparse)
  return module


def _csr(weight: torch.Tensor) -> torch.Tensor:
  with warnings.catch_warnings():  # that sparse CSR is in beta
    warnings.simplefilter("ignore", UserWarning)
    return weight.detach().to_sparse_csr()
