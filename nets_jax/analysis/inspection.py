"""What a ticket's file holds, and what two tickets have in common: records that JSON holds."""

import os
import pathlib
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from nets_jax.errors import UsageError
from nets_jax.export.trained_tickets import ABOUT, shape_of_inputs
from nets_jax.networks.adapter import Network, Params
from nets_jax.tickets import storage
from nets_jax.tickets.compaction import Compact, compact
from nets_jax.tickets.tensor_files import checksum, read
from nets_jax.tickets.ticket import Ticket, density, layer_densities, layers_of, phenotype

INDEX = 4  # bytes of an index of CSR

Record = dict[str, object]


def describe(
  path: str | os.PathLike, network: Network | None = None, input_shape: Sequence[int] = ()
) -> Record:
  """What a ticket's file says, and what follows from it.

  Bytes are of parameters: `dense` with masked zeros, `compact` without dead units, `csr` with each unmasked
  weight and its column, a start for each entry of the last axis, and all that is not maskable. A file has
  names and shapes besides.

  Args:
    path: of the ticket.
    network: that it is of; None is the ready-made one that the file names.
    input_shape: of one example; else what the file says, or what follows from an MLP's first layer.

  Returns:
    A record. Units, multiplications and compact bytes are None where the network or its input's shape is not
    known; `unknown` says why.

  Raises:
    UsageError: the file is no ticket, or not one of this network and shape.
  """
  ticket, (tensors, metadata) = storage.load_ticket(path), read(path)
  small, why = _compacted(path, ticket, network, input_shape)
  known = storage.load_provenance(path)
  weights = phenotype(ticket)
  masks, shapes = ticket.by_layer(ticket.masks), {layer.name: layer.shape for layer in layers_of(ticket)}
  densities, scales = layer_densities(ticket), _scales(ticket)
  return {
    "file": str(path),
    "file_bytes": pathlib.Path(path).stat().st_size,
    "sha256": checksum(tensors, metadata),
    "format_version": metadata["format_version"],
    "network": metadata.get("network"),
    "network_arguments": metadata.get("network_arguments"),
    "density": float(density(ticket)),
    "unmasked": sum(int(mask.sum()) for mask in masks.values()),
    "maskable": sum(mask.size for mask in masks.values()),
    "layers": [
      {
        "name": name,
        "shape": list(shapes[name]),
        "unmasked": int(mask.sum()),
        "density": float(densities[name]),
        "scale": scales[name],
      }
      for name, mask in masks.items()
    ],
    "units": None if small is None else sum(live.size for live in small.live.values()),
    "units_alive": None if small is None else sum(int(live.sum()) for live in small.live.values()),
    "multiplications": None if small is None else small.multiplications,
    "whole_multiplications": None if small is None else small.whole_multiplications,
    "bytes": {
      "dense": _bytes(weights),
      "compact": None if small is None else _bytes(small.ticket.weights),
      "csr": _csr_bytes(ticket),
    },
    "unknown": why,
    "provenance": known.record(),
  }


def overlap(
  first: str | os.PathLike,
  second: str | os.PathLike,
  network: Network | None = None,
  input_shape: Sequence[int] = (),
) -> Record:
  """What two tickets of one network have in common.

  Jaccard's index of masks A and B is |A and B| / |A or B|. Beside it stands what chance gives: that of two
  masks of the same counts in each layer, of which one is shuffled there: E / (|A| + |B| - E), where the
  expected |A and B| is E, the sum over layers of |A| |B| / (the layer's weights).

  Args:
    first, second: the files.
    network, input_shape: see `describe`.

  Raises:
    UsageError: a file is no ticket, or they are of different networks.
  """
  tickets = [storage.load_ticket(path) for path in (first, second)]
  about = [read(path)[1] for path in (first, second)]
  if any(about[0].get(name) != about[1].get(name) for name in ABOUT):
    raise UsageError(f"{first} and {second} are of different networks")
  masks = [{name: np.asarray(m) for name, m in own.by_layer(own.masks).items()} for own in tickets]
  shapes = [{name: mask.shape for name, mask in own.items()} for own in masks]
  if shapes[0] != shapes[1]:
    raise UsageError(f"{first} and {second} are of different networks: their layers are not alike")
  scales = [_scales(own) for own in tickets]
  layers = [
    {"name": name, **_shared([a], [masks[1][name]]), "scales": [own[name] for own in scales]}
    for name, a in masks[0].items()
  ]
  whole = [list(own.values()) for own in masks]
  small = [
    _compacted(path, own, network, input_shape)[0] for path, own in zip((first, second), tickets, strict=True)
  ]
  record: Record = {
    "files": [str(first), str(second)],
    "all": _shared(*whole),
    "layers": layers,
    "units": None,
  }
  if small[0] is not None and small[1] is not None:
    alive = [[np.asarray(live) for _, live in sorted(own.live.items())] for own in small if own]
    record["units"] = _shared(*alive)
  return record


def _shared(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> Record:
  """How much of two masks is common, each of some layers."""
  layers = list(zip(first, second, strict=True))
  counts = [sum(int(mask.sum()) for mask in masks) for masks in (first, second)]
  both = sum(int((a & b).sum()) for a, b in layers)
  either = sum(counts) - both
  by_chance = sum(int(a.sum()) * int(b.sum()) / max(a.size, 1) for a, b in layers)
  return {
    "counts": counts,
    "of": sum(mask.size for mask in first),
    "both": both,
    "jaccard": both / either if either else None,
    "jaccard_by_chance": by_chance / (sum(counts) - by_chance) if either else None,
  }


def _compacted(
  path: str | os.PathLike, ticket: Ticket, network: Network | None, input_shape: Sequence[int]
) -> tuple[Compact | None, str | None]:
  """The ticket without its dead units; else None, and why it is not known.

  Raises:
    UsageError: it is not of the network and shape that are given.
  """
  is_given = network is not None
  storage.load_provenance(path)  # whose damage is no matter of what is not known
  try:
    network = storage.load_network(path) if network is None else network
  except UsageError as error:
    return None, str(error)
  try:
    shape = shape_of_inputs(path, ticket, input_shape)
    return compact(ticket, network, shape, round_up=False), None
  except UsageError as error:
    if is_given or input_shape:
      raise
    return None, str(error)


def _scales(ticket: Ticket) -> dict[str, float]:
  """The root mean square of each layer's weights; in 64 bits, for a file may have any."""
  weights = ticket.by_layer(ticket.weights)
  return {name: float(np.sqrt(np.mean(np.asarray(w, np.float64) ** 2))) for name, w in weights.items()}


def _bytes(tree: Params) -> int:
  return sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(tree))


def _csr_bytes(ticket: Ticket) -> int:
  """Of unmasked weights with their columns, starts and one more, and all that is whole; see `describe`."""
  masks: Mapping[str, jax.Array] = ticket.by_layer(ticket.masks)
  weights = ticket.by_layer(ticket.weights)
  kept = {name: int(mask.sum()) * (weights[name].dtype.itemsize + INDEX) for name, mask in masks.items()}
  starts = sum(INDEX * (mask.shape[-1] + 1) for mask in masks.values())
  return _bytes(ticket.weights) - _bytes(weights) + sum(kept.values()) + starts
