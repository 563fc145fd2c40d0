"""A ticket's network without its dead units, as other libraries are given it."""

from collections.abc import Sequence

import jax

from nets_jax.networks.adapter import Network, NetworkState, Params
from nets_jax.networks.narrowing import with_kept
from nets_jax.tickets.compaction import compact, narrow_state
from nets_jax.tickets.ticket import Ticket, phenotype


def without_dead_units(
  ticket: Ticket, network: Network, input_shape: Sequence[int], state: NetworkState
) -> tuple[Network, Params, NetworkState]:
  """The smaller network, its theta (.) M, and its state.

  Args:
    ticket, network, input_shape: see `compaction.compact`.
    state: of the whole network, such as running averages.
  """
  small = compact(ticket, network, input_shape, round_up=False)
  narrow = narrow_state(jax.device_get(dict(state)), small.coupling, small.kept)
  return small.network, phenotype(small.ticket), with_kept(narrow, small.kept)
