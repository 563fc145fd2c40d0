"""Tickets as live, pruned modules of PyTorch, and back.

A ticket's layer becomes `weight_orig`, theta_0, and `weight_mask`, M, of `torch.nn.utils.prune`, whose
product the module computes with: so it trains there as here, and what is masked stays zero.
"""

import copy
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from nets_jax.export.extras import missing

try:
  import torch
  from torch import nn
  from torch.nn.utils import prune
except ImportError as error:
  raise missing("torch", error) from error

from nets_jax.errors import UsageError
from nets_jax.export.comparison import CLOSE, apart, examples
from nets_jax.export.torch_layouts import Entry, entries
from nets_jax.export.torch_networks import ready_made
from nets_jax.networks.adapter import STATISTICS, Network, NetworkState, forward, initial_state
from nets_jax.networks.layers import find_layers
from nets_jax.networks.maskable import KERNELS, as_rule
from nets_jax.tickets.storage import flat, nested
from nets_jax.tickets.ticket import Ticket, check_weights, phenotype

WEIGHT, ORIGINAL, MASK = "weight", "weight_orig", "weight_mask"
EXAMPLES = 4
State = Mapping[str, torch.Tensor]


def to_torch(
  ticket: Ticket,
  network: Network,
  input_shape: Sequence[int],
  *,
  module: nn.Module | None = None,
  network_state: NetworkState | None = None,
) -> nn.Module:
  """A module of PyTorch with the ticket's weights, pruned by its masks; in evaluation mode, on the CPU.

  Its outputs have been compared with those here, for inputs of chance.

  Args:
    ticket: the weights, before or after a training, and the masks.
    network: what it is a ticket of.
    input_shape: [height, width, channels], or what else one input has; torch is given channels first.
    module: yours, a copy of which is filled: of the same layers by the same names, or in the same order. None
      is the ready-made one.
    network_state: running averages; None are those that a training begins with.

  Raises:
    UsageError: there is no such module, its layers are others, or it computes something else.
  """
  check_weights(ticket, network, input_shape)
  filled = ready_made(network, input_shape) if module is None else unpruned(module).cpu()
  state = initial_state(network, tuple(input_shape)) if network_state is None else network_state
  known = entries(network, input_shape)
  arrays = flat(jax.device_get(ticket.weights)) | flat(jax.device_get(dict(state).get(STATISTICS, {})))
  masks = flat(jax.device_get(ticket.masks))
  names = _names(known, filled)
  own = filled.state_dict()
  for entry in known:
    array = torch.from_numpy(entry.there(np.asarray(arrays[entry.path])).copy())
    place = own[names[entry.name]]
    if place.shape != array.shape:
      raise UsageError(
        f"the module's {names[entry.name]} has the shape {tuple(place.shape)}, where {entry.path} "
        f"{entry.shape} asks for {tuple(array.shape)}"
      )
    place.copy_(array)
    mask = masks.get(entry.path)
    if mask is not None:
      where, _, parameter = names[entry.name].rpartition(".")
      prune.custom_from_mask(
        filled.get_submodule(where), parameter, torch.from_numpy(entry.there(np.asarray(mask)))
      )
  filled.eval()
  _compare(filled, ticket, network, input_shape, state)
  return filled


def from_torch(
  module: nn.Module | State, network: Network, input_shape: Sequence[int], *, maskable: str = KERNELS.name
) -> tuple[Ticket, NetworkState]:
  """A pruned module of PyTorch as a ticket, and its running averages.

  The masks are those of `torch.nn.utils.prune`. Where a layer has none, what is zero is masked.

  Args:
    module: of the same layers by the same names, or in the same order; or its `state_dict()`, by the names.
    network: what it is to be a ticket of.
    input_shape: of one input here.
    maskable: what a mask covers, as of a task.

  Raises:
    UsageError: its layers are others, something else is pruned, or the module computes something else.
  """
  known = entries(network, input_shape)
  if isinstance(module, nn.Module):
    names, stored = _names(known, module), module.state_dict()
  else:
    names, stored = {entry.name: entry.name for entry in known}, dict(module)
  layers = find_layers(network, tuple(input_shape), as_rule(maskable))
  covered = {layer.name for layer in layers}
  weights, masks, averages = {}, {}, {}
  for entry in known:
    array, mask = _taken(stored, names[entry.name])
    leaf = entry.back(array)
    if entry.is_state:
      averages[entry.path] = leaf
      continue
    weights[entry.path] = leaf
    masks[entry.path] = None
    if entry.layer in covered:
      masks[entry.path] = leaf != 0 if mask is None else entry.back(mask).astype(bool)
    elif mask is not None:
      raise UsageError(
        f"{names[entry.name]} is pruned, but no mask covers {entry.path} by maskable={maskable}"
      )
  ticket = Ticket(nested(weights), nested(masks), layers=layers)
  ticket, state = jax.tree.map(
    jax.numpy.asarray, (ticket, {STATISTICS: nested(averages)} if averages else {})
  )
  if isinstance(module, nn.Module):
    _compare(copied(module).cpu().eval(), ticket, network, input_shape, state)
  return ticket, state


def copied(module: nn.Module) -> nn.Module:
  """A copy of a module, also where pruned weights were last computed for a gradient: torch copies no such."""
  for own in module.modules():
    if hasattr(own, MASK):
      own.weight = own.weight.detach()  # which the next call computes anew
  return copy.deepcopy(module)


def unpruned(module: nn.Module) -> nn.Module:
  """A copy of a module without masks; what they left out is zero."""
  module = copied(module)
  for own in module.modules():
    if hasattr(own, MASK):
      prune.remove(own, WEIGHT)
  return module


def _taken(stored: State, name: str) -> tuple[np.ndarray, np.ndarray | None]:
  """An array of a state dict, and its mask if it is pruned."""
  where, point, last = name.rpartition(".")
  base = where + point
  if last == WEIGHT and base + ORIGINAL in stored:
    pair = stored[base + ORIGINAL], stored.get(base + MASK)
    if pair[1] is None:
      raise UsageError(f"{base}{ORIGINAL} has no {base}{MASK} beside it; give the whole state_dict")
    return pair[0].detach().cpu().numpy(), pair[1].detach().cpu().numpy()
  if name not in stored:
    raise UsageError(f"the module has no {name}; it has {', '.join(list(stored)[:8])}, ...")
  return stored[name].detach().cpu().numpy(), None


def _names(known: Sequence[Entry], module: nn.Module) -> dict[str, str]:
  """What a module calls each entry: by the same names, or layer by layer in order.

  Raises:
    UsageError: it has other layers.
  """
  own = [name for name in module.state_dict() if not name.endswith(("num_batches_tracked", MASK))]
  own = [name.removesuffix(ORIGINAL) + WEIGHT if name.endswith(ORIGINAL) else name for name in own]
  wanted = [entry.name for entry in known]
  if set(own) == set(wanted):
    return {name: name for name in wanted}
  theirs, ours = _by_module(own), _by_module(wanted)
  if len(theirs) != len(ours):
    raise UsageError(f"the module has {len(theirs)} layers with parameters, the network {len(ours)}")
  found = {}
  for (where, mine), (there, other) in zip(ours.items(), theirs.items(), strict=True):
    if set(mine) != set(other):
      raise UsageError(f"{there or 'the module'} has {', '.join(other)} where {where} has {', '.join(mine)}")
    found |= {f"{where}.{last}".removeprefix("."): f"{there}.{last}".removeprefix(".") for last in mine}
  return found


def _by_module(names: Sequence[str]) -> dict[str, list[str]]:
  """The last parts of names by what stands before."""
  found: dict[str, list[str]] = {}
  for name in names:
    where, _, last = name.rpartition(".")
    found.setdefault(where, []).append(last)
  return found


def _compare(
  module: nn.Module, ticket: Ticket, network: Network, input_shape: Sequence[int], state: NetworkState
) -> None:
  """Raises UsageError unless a module computes what the network does, for inputs of chance."""
  inputs = examples(network, input_shape, EXAMPLES)
  here = np.asarray(forward(network, phenotype(ticket), inputs, state=state))
  with torch.no_grad():
    there = module(torch.from_numpy(np.ascontiguousarray(np.moveaxis(inputs, -1, 1)))).numpy()
  if here.shape != there.shape:
    raise UsageError(f"the module gives outputs of shape {there.shape}, where the network's are {here.shape}")
  if not (difference := apart(here, there)) <= CLOSE:
    raise UsageError(
      f"the module computes something else: its outputs differ by {difference:.1e} of the largest; it must "
      "have the same strides, paddings and activations, and flatten images with their channels last"
    )
