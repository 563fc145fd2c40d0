"""Tickets to and from portable files.

A ticket file is in safetensors format (no code runs on loading). It holds theta_0 and M, never trained
weights: tensors `weights/<layer>/kernel`, `weights/<layer>/bias` (of any floating type) and
`masks/<layer>/kernel` (bool). The file's metadata has one entry, `nets_jax`: a JSON object with
`format_version`, `network`, `network_arguments`, `layers` (their names in the order of application),
`provenance` (see `provenance.Provenance`) and `sha256`, a checksum of all the rest. (One entry, since
safetensors writes several in no fixed order, and the same ticket must give the same bytes.) Floating types
that safetensors does not give back as NumPy arrays are stored as unsigned integers of the same bits, and
named by tensor in `types`.

Of a ready-made network `network` is its name in `NETWORKS`, and `network_arguments` what makes it, but for
the precision. Of a network of one's own `network` is `package.module:Class`, and `network_arguments` is
what that was called with. Opening a file never imports what it names.
"""

import json
import os
from collections.abc import Mapping
from typing import Any, cast

import jax
import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

from nets_jax import plugins
from nets_jax.errors import UsageError
from nets_jax.networks.adapter import Network, Params, name_of
from nets_jax.networks.layers import Layer
from nets_jax.networks.own import reference_of
from nets_jax.networks.zoo import MLP, NETWORKS, named, rebuilt
from nets_jax.tickets.provenance import Provenance, read_provenance
from nets_jax.tickets.tensor_files import checksum, read, write
from nets_jax.tickets.ticket import Ticket, check_tree, layers_of

LONGEST = 300  # signs of a name in a file that a message repeats
DEEPEST = 32  # levels of a module's parameters
NATIVE = ("float16", "bfloat16", "float32", "float64")  # types that safetensors gives back as NumPy arrays


def save_ticket(
  path: str | os.PathLike,
  ticket: Ticket,
  network: Network,
  sync: bool = True,
  provenance: Provenance | None = None,
) -> None:
  """Writes a ticket, whole or not at all.

  Args:
    path: of the file; its directory is made if there is none.
    ticket: the weights before training, and the masks.
    network: the module the ticket is for. Of a module of one's own the file says by what it was made, if
      `make_network` made it by its name, `package.module:Class`; else its class's name alone.
    sync: returns when it is on the disk.
    provenance: what the file is to say of where the ticket comes from.

  Raises:
    UsageError: it is a population, keeps no weight, or holds what is not a floating point number.
  """
  check_tree(ticket)
  ticket = jax.device_get(ticket)
  _check_one(ticket, network)
  metadata = dict(network_metadata(network))
  if ticket.layers:
    metadata["layers"] = [layer.name for layer in ticket.layers]
  if provenance is not None and (record := provenance.record()):
    metadata["provenance"] = record
  tensors, types = _tensors(ticket)
  if types:
    metadata["types"] = types
  write(path, tensors, metadata, sync)


def fingerprint(ticket: Ticket) -> str:
  """The SHA-256 of a ticket's weights and masks, whatever else its file says."""
  tensors, types = _tensors(jax.device_get(ticket))
  return checksum(tensors, types)


def _tensors(ticket: Ticket) -> tuple[dict[str, np.ndarray], dict[str, str]]:
  """What a ticket's file holds by name, and the types of those that are stored as another."""
  weights, masks = flat(ticket.weights), flat(ticket.masks)
  types: dict[str, str] = {f"weights/{name}": leaf.dtype.name for name, leaf in weights.items()}
  types = {name: type_ for name, type_ in types.items() if type_ not in NATIVE}
  tensors = {f"weights/{name}": np.ascontiguousarray(leaf) for name, leaf in weights.items()}
  tensors |= {name: tensors[name].view(f"uint{8 * tensors[name].dtype.itemsize}") for name in types}
  tensors |= {f"masks/{name}": np.ascontiguousarray(mask) for name, mask in masks.items() if mask is not None}
  return tensors, types


def _check_one(ticket: Ticket, network: Network) -> None:
  """Raises UsageError unless a ticket is one that can be loaded again."""
  for path, leaf in jax.tree_util.tree_flatten_with_path(ticket.weights)[0]:
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    if not jax.numpy.issubdtype(leaf.dtype, jax.numpy.floating):
      raise UsageError(f"a ticket's weights are floating point numbers, but {name} has {leaf.dtype.name}")
    if not np.isfinite(leaf.astype(np.float64)).all():
      raise UsageError(
        f"{name} has weights that are NaN or infinite; such a ticket cannot be trained, and is not saved"
      )
  masks, weights = (ticket.by_layer(tree) for tree in (ticket.masks, ticket.weights))
  axes = {layer.name: len(layer.shape) for layer in ticket.layers}
  for name, mask in masks.items():
    if mask.ndim > axes.get(name, 2 if isinstance(network, MLP) else mask.ndim):
      raise UsageError("this is a population of tickets; save each of them, as nets_jax.take(population, i)")
    if mask.dtype != np.bool_ or mask.shape != weights[name].shape:
      raise UsageError(
        f"the mask of {name} must be bool and of its weights' shape {weights[name].shape}, not "
        f"{mask.dtype.name} and {mask.shape}"
      )
  if not any(mask.any() for mask in masks.values()):
    raise UsageError("this ticket keeps no weight, so there is nothing to train; it is not saved")


def load_ticket(path: str | os.PathLike) -> Ticket:
  """Reads a ticket back, the same bits.

  Raises:
    UsageError: there is no such file, it is not a whole ticket of this format, or its numbers have 64 bits,
      which JAX would cut.
  """
  tensors, metadata = read(path)
  tensors = _typed(path, tensors, metadata.get("types", {}))
  parts = {"weights": {}, "masks": {}}
  for name, tensor in tensors.items():
    part, _, leaf = name.partition("/")
    has_place = part in parts and name.isprintable() and all(leaf.split("/")) and leaf.count("/") < DEEPEST
    kind = np.bool_ if part == "masks" else jax.numpy.floating
    if not has_place or not jax.numpy.issubdtype(tensor.dtype, kind):
      raise UsageError(f"{path} is not a ticket: tensor {name!r} of type {tensor.dtype} has no place in one")
    parts[part][leaf] = tensor
  weights, masks = parts["weights"], parts["masks"]
  for leaf, mask in masks.items():
    if leaf not in weights or weights[leaf].shape != mask.shape:
      raise UsageError(f"{path} is not a ticket: masks/{leaf} has no weights of its shape {mask.shape}")
  if any(np.any(mask.view(np.uint8) > 1) for mask in masks.values()):
    raise UsageError(f"{path} is not a ticket: its masks are not binary")
  if not any(mask.any() for mask in masks.values()):
    raise UsageError(f"{path} is not a ticket: its masks keep no weight")
  if any(mask.ndim < 1 or not mask.size for mask in masks.values()):
    raise UsageError(f"{path} is not a ticket: a mask of it has no weights")
  if inner := [leaf for leaf in weights if any(other.startswith(f"{leaf}/") for other in weights)]:
    raise UsageError(f"{path} is not a ticket: weights/{inner[0]} is both a tensor and a layer")
  if not all(np.isfinite(leaf.astype(np.float64)).all() for leaf in weights.values()):
    raise UsageError(f"{path} holds weights that are NaN or infinite; it cannot be trained")
  if any(leaf.dtype.itemsize > 4 for leaf in weights.values()) and not jax.config.read("jax_enable_x64"):
    raise UsageError(f"{path} holds 64-bit weights, which JAX would cut to 32 bits; set JAX_ENABLE_X64=1")
  masks = {leaf: masks.get(leaf) for leaf in weights}
  ticket = Ticket(nested(weights), nested(masks))
  ticket = ticket.replace(layers=_ordered(path, ticket, metadata.get("layers")))
  if metadata.get("network") == "mlp" and any(len(layer.shape) != 2 for layer in layers_of(ticket)):
    raise UsageError(f"{path} is not a ticket, but a population of them")
  return jax.tree.map(jax.numpy.asarray, ticket)


def load_weights(path: str | os.PathLike) -> Params:
  """The weights of a ticket's file, or a trained network's; or of a file of parameters, by their paths.

  Such a file names them as flax does, `conv/kernel`, with slashes or points between.

  Raises:
    UsageError: there is no such file, it is not whole, or it holds something else than finite weights.
  """
  try:
    stored = safetensors.numpy.load_file(path)
  except FileNotFoundError as error:
    raise UsageError(f"there is no file {path}") from error
  except (safetensors.SafetensorError, OSError, ValueError, TypeError) as error:
    raise UsageError(f"{path} is not a whole safetensors file ({error}); was it cut short?") from error
  if any(name.startswith("masks/") for name in stored):
    return load_ticket(path).weights
  if any(name.startswith("weights/") for name in stored):  # of a trained network, without its state
    stored = {n.removeprefix("weights/"): x for n, x in stored.items() if n.startswith("weights/")}
  for name, tensor in stored.items():
    if not jax.numpy.issubdtype(tensor.dtype, jax.numpy.floating) or not np.isfinite(tensor).all():
      raise UsageError(f"{path}: {_shown(name)} must hold finite floating point numbers")
  names = [name.replace(".", "/") for name in stored]
  if inner := [name for name in names if any(other.startswith(f"{name}/") for other in names)]:
    raise UsageError(f"{path}: {_shown(inner[0])} is both a tensor and a layer")
  return nested(dict(zip(names, stored.values(), strict=True)))


def _typed(
  path: str | os.PathLike, tensors: Mapping[str, np.ndarray], types: Mapping[str, str]
) -> dict[str, np.ndarray]:
  """The tensors, those that are stored as integers in their own types."""
  try:
    return {
      name: tensor.view(jax.numpy.dtype(types[name])) if name in types else tensor
      for name, tensor in tensors.items()
    }
  except (TypeError, ValueError, KeyError) as error:
    raise UsageError(f"{path} is not a ticket: its types are damaged") from error


def _ordered(path: str | os.PathLike, ticket: Ticket, names: object) -> tuple[Layer, ...]:
  """The layers in the order that the file gives; none where it gives none."""
  if names is None:
    return ()
  layers = {layer.name: layer for layer in layers_of(ticket)}
  if not isinstance(names, list) or sorted(map(str, names)) != sorted(layers):
    raise UsageError(f"{path} is not a ticket: its layers are not those of its masks")
  return tuple(layers[name] for name in names)


def load_network(path: str | os.PathLike) -> Network:
  """The ready-made network that a ticket file was made for.

  Raises:
    UsageError: the file is not a ticket, or its network is not one of this library's.
  """
  tensors, metadata = read(path)
  name = metadata.get("network")
  if not isinstance(name, str) or name not in NETWORKS:
    raise UsageError(
      f"{path} is for the network {_shown(name)}, which is not one of nets_jax; {_advice(metadata)}"
    )
  try:
    arguments = metadata["network_arguments"]
    sizes = {size for tensor in tensors.values() for size in tensor.shape}
    # What is no size is a count of layers or a factor; a larger one would ask for more than the file has.
    leaves = jax.tree.leaves(arguments)
    numbers = [value for value in leaves if isinstance(value, int | float)]
    if arguments["num_classes"] not in sizes or max(numbers) > max(len(tensors), *sizes):
      raise ValueError
    if len(leaves) > len(arguments) + len(tensors):  # no list names more layers than there are
      raise ValueError
    return rebuilt(name, arguments)
  except (KeyError, TypeError, ValueError) as error:
    raise UsageError(f"{path} does not say what network it is for: its metadata are damaged") from error


def network_name(path: str | os.PathLike) -> object:
  """What a ticket's file calls its network: a name in `NETWORKS`, of somebody's own, or anything else.

  Raises:
    UsageError: the file is not whole.
  """
  return read(path)[1].get("network")


def load_provenance(path: str | os.PathLike) -> Provenance:
  """Where a ticket comes from, as its file says; empty where it says nothing.

  Raises:
    UsageError: the file is not whole, or its record is damaged.
  """
  return read_provenance(path, read(path)[1].get("provenance"))


def _shown(name: Any) -> str:
  """What a stranger's file says, cut and without control characters."""
  text = repr(name)
  return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _advice(metadata: Mapping[str, Any]) -> str:
  """What to do about a network that is not this library's; nothing that the file names is imported."""
  name, arguments = metadata.get("network"), metadata.get("network_arguments", {})
  if name is None or not plugins.is_reference(name) or not isinstance(arguments, dict):
    return "give --network=package.module:Name, where it is, or make it yourself"
  text = f"--network={plugins.write(name, arguments)}"
  return f"give {_shown(text)} if you trust that module, or make it yourself"


def network_metadata(network: Network) -> dict[str, object]:
  """What a file says of the network it is for."""
  if ready_made := named(network):
    name, arguments = ready_made
    return {"network": name, "network_arguments": arguments}
  made_by = reference_of(network)
  if made_by is None:
    return {"network": name_of(network)}
  arguments = {name: _plain(value) for name, value in (made_by.arguments or {}).items()}
  return {"network": made_by.name, "network_arguments": arguments}


def _plain(literal: Any) -> Any:
  """A literal as JSON holds it; what it cannot, as it is written."""
  try:
    return json.loads(json.dumps(literal))
  except TypeError:
    return repr(literal)


def flat(tree: Params) -> dict[str, np.ndarray]:
  """A tree's leaves by their paths, with slashes between names."""
  return cast(dict[str, np.ndarray], traverse_util.flatten_dict(tree, sep="/"))


def nested(leaves: Mapping[str, np.ndarray | None]) -> Params:
  """The tree of leaves by their paths."""
  return traverse_util.unflatten_dict(dict(leaves), sep="/")
