"""Compaction: what is dead in a ticket is left out, and a smaller dense network remains.

A unit is dead that no unmasked weight leads from to a unit that is alive. Outputs are alive, and so is
whatever the network mixes otherwise. A dead unit changes no output, and its weights have no gradient. One
that no weight leads to is alive: its bias still counts.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from nets_jax.networks.adapter import Network, NetworkState, Params, initial_state
from nets_jax.networks.coupling import Coupling, Reading, find_coupling
from nets_jax.networks.functional import Functional
from nets_jax.networks.maskable import layer_name
from nets_jax.networks.narrowing import Kept, narrow_network, narrowed, places_of, with_kept
from nets_jax.tickets.ticket import Ticket, check_fits, layers_of

# Of each group of units which are alive.
Live = Mapping[int, Bool[Array | np.ndarray, " units"]]

SMALLEST = 8  # units; no group is narrowed below, for fewer are no faster
LARGEST_SHARE = 0.75  # of a group's units; to take more of them costs what it saves
WORTH_IT = 0.8  # of the multiplications; more than that does not pay for a program of its own


def live_units(masks: Params, coupling: Coupling) -> Live:
  """Which units have a path of unmasked weights to the output: the least solution of

      unit u is alive  <=>  some kernel that sums over u has an unmasked weight from u to a unit that is alive

  Args:
    masks: of one ticket: NumPy arrays; or arrays of JAX, also in a compiled program.
    coupling: of the network.
  """
  kernels = _kernels(masks, coupling)
  nothing = {group: np.zeros(size, bool) for group, size in enumerate(coupling.sizes)}
  if not any(isinstance(mask, jax.Array) for mask in kernels.values()):
    live, before = _led_on(nothing, kernels, coupling), nothing
    while any((live[group] != before[group]).any() for group in live):
      live, before = _led_on(live, kernels, coupling), live
    return live

  def goes_on(state):
    before, live = state
    return functools.reduce(jnp.logical_or, [(live[g] != before[g]).any() for g in live], False)

  def advance(state):
    return state[1], _led_on(state[1], kernels, coupling)

  begun = jax.tree.map(jnp.asarray, nothing)
  return jax.lax.while_loop(goes_on, advance, (begun, _led_on(begun, kernels, coupling)))[1]


def _kernels(masks: Params, coupling: Coupling) -> dict[int, Bool[Array | np.ndarray, "..."]]:
  """The masks of the kernels that sum over units, an axis for each factor; what has none keeps all."""
  leaves = jax.tree.leaves(masks, is_leaf=lambda leaf: leaf is None)
  shapes = {reading.leaf: _factor_sizes(coupling, reading) for reading in coupling.readings if reading.summed}
  return {
    leaf: np.ones(shape, bool) if leaves[leaf] is None else leaves[leaf].reshape(shape)
    for leaf, shape in shapes.items()
  }


def _factor_sizes(coupling: Coupling, reading: Reading) -> tuple[int, ...]:
  return tuple(factor.size for axis in coupling.leaves[reading.leaf] for factor in axis)


def _led_on(live: Live, kernels: Mapping[int, Bool[Array | np.ndarray, "..."]], coupling: Coupling) -> Live:
  """Those units too from which a weight leads to a unit that is alive."""
  found = dict(live)
  for reading in coupling.readings:
    if not reading.summed:
      continue
    kept = kernels[reading.leaf]
    units = [factor.units for axis in coupling.leaves[reading.leaf] for factor in axis]
    for place, group in enumerate(units):
      if group is not None and group not in reading.summed:
        kept = kept & live[group].reshape([-1 if i == place else 1 for i in range(len(units))])
    for group in reading.summed:
      for place in (i for i, own in enumerate(units) if own == group):
        found[group] = found[group] | kept.any(axis=tuple(i for i in range(len(units)) if i != place))
  return found


def multiplications(
  coupling: Coupling, counts: Mapping[int, int | Float[Array, ""]]
) -> int | Float[Array, ""]:
  """Of one example's way through the network, with so many units of each group.

  Args:
    coupling: of the network.
    counts: of each group; all units where one is missing. Traced ones too.
  """
  total = 0
  for reading in coupling.readings:
    factors = [factor for axis in coupling.leaves[reading.leaf] for factor in axis]
    own = reading.places
    for size, group in factors:
      own = own * (size if group is None else counts.get(group, size))
    total = total + own
  return total


def rounded(count: int, whole: int) -> int:
  """As many units or more, of few sizes (8, 12, 16, 24, 32, 48, ...); all where that does not pay.

  So tickets whose counts differ a little share a program. It depends on the ticket alone, and so do the bits
  of its training.
  """
  power = 2 ** math.ceil(math.log2(max(count, SMALLEST)))
  size = power * 3 // 4 if count <= power * 3 // 4 >= SMALLEST else power
  return whole if size > LARGEST_SHARE * whole else size


@dataclasses.dataclass(frozen=True)
class Compact:
  """A ticket without its dead units, and the way back.

  Attributes:
    ticket: the smaller one, with its masks. Beside live units it has as many dead ones as `rounded` asks for.
    network: the smaller network, a `Functional` whose state holds the places of its units in the whole one.
    network_state: what that network begins with.
    kept: those places, of each group of units of which some are left out, ascending.
    live: of all groups, which units are alive.
    multiplications: of one example's way through the smaller network, and through the whole one.
    whole: why units cannot be left out, by parameter and axis.
  """

  ticket: Ticket
  network: Functional
  network_state: NetworkState
  kept: Kept
  live: Live
  multiplications: tuple[int, int]
  whole: tuple[tuple[str, str], ...]

  @property
  def sizes(self) -> tuple[tuple[int, int], ...]:
    """How many units are kept, by group: what the compiled program depends on."""
    return tuple((group, len(places)) for group, places in sorted(self.kept.items()))


def compact(ticket: Ticket, network: Network, input_shape: Sequence[int]) -> Compact | None:
  """The ticket and its network without dead units; None where too few are dead for it to pay.

  Exact: the smaller network computes the same outputs and gradients, up to the order of sums. See
  `networks.coupling` for what is seen of a network.

  Args:
    ticket: a single one.
    network: that it is of.
    input_shape: shape of one input, without the batch axis.

  Raises:
    UsageError: the ticket is not of that network.
  """
  check_fits(ticket, network, input_shape)
  coupling = find_coupling(network, input_shape)
  ticket = jax.tree.map(np.asarray, ticket)
  live = live_units(ticket.masks, coupling)
  sizes = {group: rounded(int(of.sum()), of.size) for group, of in live.items()}
  fewer, whole = (cast(int, multiplications(coupling, counts)) for counts in (sizes, {}))
  if fewer > WORTH_IT * whole:
    return None
  kept = {
    group: np.sort(np.argsort(~of, kind="stable")[: sizes[group]]).astype(np.int32)
    for group, of in live.items()
    if sizes[group] < of.size
  }
  state = with_kept(narrow_state(initial_state(network, input_shape), coupling, kept), kept)
  return Compact(
    _narrow_ticket(ticket, coupling, kept), narrow_network(network, kept), state, kept, live,
    (fewer, whole), coupling.whole,
  )  # fmt: skip


def _narrow_ticket(ticket: Ticket, coupling: Coupling, kept: Kept) -> Ticket:
  full = jax.tree.map(
    lambda mask, weight: np.ones(weight.shape, bool) if mask is None else mask,
    ticket.masks, ticket.weights, is_leaf=lambda leaf: leaf is None,
  )  # fmt: skip
  weights, cut = (narrowed(tree, coupling.leaves[: _count(tree)], kept) for tree in (ticket.weights, full))
  masks = jax.tree.map(
    lambda mask, own: None if mask is None else own, ticket.masks, cut, is_leaf=lambda leaf: leaf is None
  )
  shapes = {layer_name(path): leaf.shape for path, leaf in jax.tree_util.tree_flatten_with_path(masks)[0]}
  layers = tuple(layer._replace(shape=shapes[layer.name], kept=None) for layer in layers_of(ticket))
  return Ticket(weights, masks, layers=layers)


def narrow_state(state: NetworkState, coupling: Coupling, kept: Kept) -> NetworkState:
  """A whole network's state of the kept units alone."""
  return narrowed(state, coupling.leaves[len(coupling.leaves) - _count(state) :], kept)


def _count(tree: PyTree) -> int:
  return len(jax.tree.leaves(tree))


def widened(whole: PyTree, fewer: PyTree, coupling: Coupling, small: Compact, of_state: bool) -> PyTree:
  """Arrays of the whole network in which those of live units are the compact one's.

  Args:
    whole: what dead units keep: weights or a state.
    fewer: the compact network's.
    coupling: of the whole network.
    small: which units those are.
    of_state: whether it is a state, not weights.
  """
  begin = len(coupling.leaves) - _count(whole) if of_state else 0
  is_live = {group: np.asarray(small.live[group])[places] for group, places in small.kept.items()}
  alive = {group: places[is_live[group]] for group, places in small.kept.items()}
  among = {group: np.flatnonzero(own) for group, own in is_live.items()}
  sizes = dict(small.sizes)
  leaves, treedef = jax.tree.flatten(whole)
  found = []
  for leaf, new, axes in zip(leaves, jax.tree.leaves(fewer), coupling.leaves[begin:], strict=False):
    result = np.array(leaf)
    to = np.ix_(*(places_of(axis, alive, {}) for axis in axes))
    of = np.ix_(*(places_of(axis, among, sizes) for axis in axes))
    result[to] = np.asarray(new)[of]
    found.append(result)
  return jax.tree.unflatten(treedef, found)
