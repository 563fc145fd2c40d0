"""Files of trained networks: the weights after a training, and the state that they are evaluated with.

Such a file stands beside a ticket's, whose weights are those before any training. Tensors are named
`weights/...` and `state/...` by their places in the network; the rest is as `storage` has it.
"""

import dataclasses
import os
from collections.abc import Mapping

import jax
import numpy as np
from jaxtyping import PyTree

from nets_jax.errors import UsageError
from nets_jax.networks.adapter import Network, NetworkState, Params
from nets_jax.tickets.storage import DEEPEST, NATIVE, network_metadata
from nets_jax.tickets.tensor_files import read, write

KIND = "trained network"
FINGERPRINT = "ticket_sha256"  # the note that says of which ticket it is: `storage.fingerprint`
PARTS = ("weights", "state")
STORED = (*NATIVE, "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")

Way = list[str | int]  # to a leaf: the keys of the dicts that it is in


@dataclasses.dataclass(frozen=True)
class TrainedNetwork:
  """A network after its training.

  Attributes:
    weights: theta_T, masked ones zero.
    network_state: what it is evaluated with besides; `{}` where it keeps nothing. A nested dict, also where a
      library has trees of another kind.
    metadata: what the file says of it: `network` and `network_arguments` as of a ticket, and what was noted
      when it was saved, such as `iteration` and `test_accuracy`.
  """

  weights: Params
  network_state: NetworkState
  metadata: dict[str, object]


def save_trained(
  path: str | os.PathLike,
  weights: Params,
  network_state: NetworkState,
  network: Network,
  notes: Mapping[str, object] | None = None,
  sync: bool = True,
) -> None:
  """Writes a trained network, whole or not at all.

  Args:
    path: of the file; its directory is made if there is none.
    weights: after the training, of ONE network.
    network_state: what it is evaluated with, as `Trained.network_states` has it.
    network: the module.
    notes: what else the file is to say, as JSON holds it.
    sync: returns when it is on the disk.
  """
  tensors: dict[str, np.ndarray] = {}
  ways: dict[str, Way] = {}
  types: dict[str, str] = {}
  for part, tree in zip(PARTS, (weights, network_state), strict=True):
    for i, (keys, leaf) in enumerate(jax.tree_util.tree_flatten_with_path(tree)[0]):
      way = [getattr(key, "key", jax.tree_util.keystr((key,), simple=True)) for key in keys]
      name = "/".join([part, *map(str, way)])
      name = f"{name}/{i}" if name in tensors else name
      if name.split("/")[1:] != way:  # whole numbers, or names with slashes
        ways[name] = way
      if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        types[name], leaf = f"key {jax.random.key_impl(leaf)}", jax.random.key_data(leaf)
      array = np.array(jax.device_get(leaf), order="C")
      if array.dtype.name not in STORED:
        types[name], array = array.dtype.name, array.view(f"uint{8 * array.dtype.itemsize}")
      tensors[name] = array
  metadata = {**(notes or {}), "kind": KIND, **network_metadata(network)}
  metadata |= {name: what for name, what in (("ways", ways), ("types", types)) if what}
  write(path, tensors, metadata, sync)


def load_trained(path: str | os.PathLike) -> TrainedNetwork:
  """Reads a trained network back, the same bits.

      trained = nets_jax.load_trained("runs/digits-guided-seed0/trained.safetensors")
      evaluate(task, trained.weights, task.data.test, trained.network_state)

  Opening a file imports nothing that it names.

  Raises:
    UsageError: there is no such file, or it is not a whole trained network.
  """
  tensors, metadata = read(path, "trained network")
  if metadata.pop("kind", None) != KIND:
    raise UsageError(
      f"{path} holds no trained network, which --keep_trained leaves; load_ticket reads a ticket's file"
    )
  found: dict[str, dict] = {part: {} for part in PARTS}
  try:
    ways, types = metadata.pop("ways", {}), metadata.pop("types", {})
    for name, tensor in tensors.items():
      part, *way = name.split("/")
      _put(found[part], ways.get(name, way), _typed(tensor, types.get(name)))
  except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
    raise UsageError(f"{path} is no trained network: its names or types are damaged") from error
  if not found["weights"]:
    raise UsageError(f"{path} is no trained network: it has no weights")
  return TrainedNetwork(found["weights"], found["state"], metadata)


def _put(tree: dict, way: Way, leaf: PyTree) -> None:
  """Puts a leaf into nested dicts; raises ValueError where there is another, or no place."""
  if not 0 < len(way) <= DEEPEST or not all(isinstance(key, str | int) for key in way):
    raise ValueError(way)
  for key in way[:-1]:
    tree = tree.setdefault(key, {})
  if way[-1] in tree:
    raise ValueError(way)
  tree[way[-1]] = leaf


def _typed(tensor: np.ndarray, kind: str | None) -> PyTree:
  """A tensor that was stored as another type, in its own."""
  if kind is None:
    return tensor
  if kind.startswith("key "):
    return jax.random.wrap_key_data(jax.numpy.asarray(tensor), impl=kind.removeprefix("key "))
  return tensor.view(jax.numpy.dtype(kind))
