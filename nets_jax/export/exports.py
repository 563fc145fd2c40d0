"""A ticket's file in another library's format, in a file that is written whole or not at all."""

import os
from collections.abc import Callable

from nets_jax.engine.files import replace_file
from nets_jax.export.extras import need
from nets_jax.export.trained_tickets import Whole


def as_torch(path: str | os.PathLike, whole: Whole) -> None:
  """A `state_dict` with `weight_orig` and `weight_mask`, by `torch.save`; see `torch_modules.to_torch`."""
  need("torch")
  import torch

  from nets_jax.export.torch_modules import to_torch

  module = to_torch(*whole[:3], network_state=whole.network_state)
  with replace_file(path) as temporary:
    torch.save(module.state_dict(), temporary)


def as_onnx(path: str | os.PathLike, whole: Whole) -> None:
  """A model without dead units; see `onnx_models.to_onnx`."""
  need("onnx", "onnxruntime")
  from nets_jax.export.onnx_models import to_onnx

  model = to_onnx(*whole[:3], network_state=whole.network_state)
  with replace_file(path) as temporary:
    temporary.write_bytes(model.SerializeToString())


def as_csr(path: str | os.PathLike, whole: Whole) -> None:
  """Arrays of SciPy's CSR, which NumPy reads; see `sparse_network.save_sparse`."""
  from nets_jax.export.sparse_network import SparseNetwork, save_sparse

  save_sparse(path, SparseNetwork(*whole))


# By name: the usual end of the file's name, and what writes it.
FORMATS: dict[str, tuple[str, Callable[[str | os.PathLike, Whole], None]]] = {
  "torch": (".pt", as_torch),
  "onnx": (".onnx", as_onnx),
  "csr": (".npz", as_csr),
}
