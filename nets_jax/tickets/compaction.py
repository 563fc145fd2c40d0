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

from nets_jax.errors import UsageError
from nets_jax.networks.adapter import Network, NetworkState, Params, initial_state, name_of, remembered
from nets_jax.networks.coupling import find_coupling
from nets_jax.networks.factors import Coupling, Reading
from nets_jax.networks.functional import Functional
from nets_jax.networks.layers import Layer
from nets_jax.networks.maskable import layer_name
from nets_jax.networks.narrow_programs import Kept, narrowed, places_of
from nets_jax.networks.narrowing import narrow_network, with_kept
from nets_jax.tickets.ticket import Ticket, check_fits, layers_of

# Of each group of units which are alive.
Live = Mapping[int, Bool[Array | np.ndarray, " units"]]

SMALLEST = 8  # units; no group is narrowed below, for fewer are no faster
LARGEST_SHARE = 0.9  # of a group's units; to take more of them costs what it saves
WORTH_IT = 0.8  # of the multiplications; to compute more of them does not pay for a program of its own


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
  """As many units or up to a quarter more, of few sizes (8, 10, 12, 14, 16, 20, 24, ...); or all of them.

  So tickets whose counts differ a little share a program. It depends on the ticket alone, and so do the bits
  of its training.
  """
  step = max(1, 2 ** int(math.log2(max(count, SMALLEST))) // 4)
  size = -(-max(count, SMALLEST) // step) * step
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
    coupling: what the parameters of the whole network count.
    multiplications: of one example's way through the smaller network.
    whole_multiplications: of its way through the whole one.
  """

  ticket: Ticket
  network: Functional
  network_state: NetworkState
  kept: Kept
  live: Live
  coupling: Coupling
  multiplications: int
  whole_multiplications: int

  @property
  def whole(self) -> tuple[tuple[str, str], ...]:
    """Why units cannot be left out, by parameter and axis."""
    return self.coupling.whole

  @property
  def pays(self) -> bool:
    """Whether so much is left out that a training is faster for it, with a program of its own."""
    return bool(self.kept) and self.multiplications <= WORTH_IT * self.whole_multiplications

  def widened(self, weights: Params, whole: Params) -> Params:
    """Weights of the whole network: the compact one's where units are alive, and elsewhere what there was.

    Args:
      weights: of the compact network, trained as a rule.
      whole: of the whole network, what dead units keep: the phenotype of the ticket, as after a training.
    """
    return widened(self, weights, whole, state=False)

  @property
  def sizes(self) -> tuple[tuple[int, int], ...]:
    """How many units are kept, by group: what the compiled program depends on."""
    return tuple((group, len(places)) for group, places in sorted(self.kept.items()))


def count_multiplications(
  ticket: Ticket, network: Network, input_shape: Sequence[int]
) -> tuple[int | None, int | None]:
  """Of one example's way through a network: without a ticket's dead units, and of the whole.

  Returns:
    Both numbers; None of a network whose units cannot be found.
  """
  try:
    coupling = find_coupling(network, input_shape)
  except UsageError:
    return None, None
  live = live_units(jax.tree.map(np.asarray, ticket.masks), coupling)
  counts = {group: int(of.sum()) for group, of in live.items()}
  return cast(int, multiplications(coupling, counts)), cast(int, multiplications(coupling, {}))


def compact(
  ticket: Ticket, network: Network, input_shape: Sequence[int], *, round_up: bool = True
) -> Compact:
  """The ticket and its network without dead units.

  Exact: the smaller network computes the same outputs and gradients, up to the order of sums. See
  `networks.coupling` for what is seen of a network; what is not, is left whole, and `Compact.whole` says why.

  Args:
    ticket: a single one.
    network: that it is of.
    input_shape: shape of one input, without the batch axis.
    round_up: to few sizes, as trainings do; see `rounded`. Else live units alone are kept, and at least one.

  Raises:
    UsageError: the ticket is not of that network.
  """
  check_fits(ticket, network, input_shape)
  coupling = find_coupling(network, input_shape)
  ticket = jax.tree.map(np.asarray, ticket)
  live = live_units(ticket.masks, coupling)
  counts = {group: max(1, int(of.sum())) for group, of in live.items()}
  sizes = {group: rounded(count, live[group].size) for group, count in counts.items()} if round_up else counts
  kept = {
    group: np.sort(np.argsort(~of, kind="stable")[: sizes[group]]).astype(np.int32)
    for group, of in live.items()
    if sizes[group] < of.size
  }
  state = with_kept(narrow_state(first_state(network, tuple(input_shape)), coupling, kept), kept)
  fewer, whole = (cast(int, multiplications(coupling, of)) for of in (sizes, {}))
  return Compact(
    _narrow_ticket(ticket, coupling, kept), narrow_network(network, kept), state, kept, live, coupling,
    fewer, whole,
  )  # fmt: skip


@remembered
def first_state(network: Network, input_shape: tuple[int, ...]) -> NetworkState:
  """What every training of the whole network begins with, as NumPy arrays; drawn once.

  Raises:
    UsageError: it is no plain dict, to which the places of units could be added.
  """
  state = jax.device_get(initial_state(network, input_shape))
  if type(state) is not dict:
    raise UsageError(f"the state of {name_of(network)} must be a dict, not a {type(state).__name__}")
  return state


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
  layers = tuple(Layer(layer.name, shapes[layer.name]) for layer in layers_of(ticket))
  return Ticket(weights, masks, layers=layers)


def narrow_state(state: NetworkState, coupling: Coupling, kept: Kept) -> NetworkState:
  """A whole network's state of the kept units alone."""
  return narrowed(state, coupling.leaves[len(coupling.leaves) - _count(state) :], kept)


def _count(tree: PyTree) -> int:
  return len(jax.tree.leaves(tree))


def widened(small: Compact, fewer: PyTree, whole: PyTree, *, state: bool) -> PyTree:
  """Arrays of the whole network: the compact one's where units are alive, and elsewhere what there was.

  Args:
    small: the compact form.
    fewer: weights or a state of it.
    whole: what dead units keep.
    state: whether these are states.
  """
  axes_of = small.coupling.leaves[len(small.coupling.leaves) - _count(whole) if state else 0 :]
  lives = {group: np.flatnonzero(np.asarray(small.live[group])[own]) for group, own in small.kept.items()}
  places = {group: np.asarray(own)[lives[group]] for group, own in small.kept.items()}
  sizes = dict(small.sizes)
  leaves, treedef = jax.tree.flatten(whole)
  found = []
  for leaf, new, axes in zip(leaves, jax.tree.leaves(fewer), axes_of, strict=False):
    result = np.array(leaf)
    there = np.ix_(*(places_of(axis, places) for axis in axes))
    result[there] = np.asarray(new)[np.ix_(*(places_of(axis, lives, sizes) for axis in axes))]
    found.append(result)
  return treedef.unflatten(found)
