"""What every ticket search returns."""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

from nets_jax.networks.adapter import NetworkState, Params
from nets_jax.rows import Row
from nets_jax.tickets.ticket import Ticket, empty_layers


@dataclasses.dataclass(frozen=True)
class Cost:
  """What a search cost.

  Attributes:
    epochs: genome-epochs of training: one genome trained on the whole training set once is 1.
    seconds: wall-clock time of the search without compilation.
    compile_seconds: wall-clock time of tracing and compiling.
  """

  epochs: float
  seconds: float
  compile_seconds: float


class KeptTicket(Protocol):
  """A ticket that a search has met on its way, and its row of the history."""

  @property
  def ticket(self) -> Ticket:
    """The genome."""
    ...

  @property
  def row(self) -> Row:
    """Its own."""
    ...


@dataclasses.dataclass(frozen=True)
class OwnTraining:
  """A network as a search's own training left it, its masks moved while it trained.

  Attributes:
    weights: theta_T, masked ones zero.
    network_state: what it is evaluated with besides; `{}` where it keeps nothing.
  """

  weights: Params
  network_state: NetworkState


@dataclasses.dataclass(frozen=True)
class SearchResult:
  """What every ticket search returns.

  Attributes:
    ticket: the best ticket found.
    history: one dict per row of the search's record; the keys are the columns of `history.csv`.
    cost: what the search cost.
    frontier: of a search that keeps them, the tickets met that none dominates; see `frontier.Frontier`.
    best: the ticket's own row of the history: its genome's, or that of the round that made it. IMP has none,
      for it prunes after its last training.
    own_training: of a search that trains a network while its mask moves, that network; None of others.
  """

  ticket: Ticket
  history: Sequence[Row]
  cost: Cost
  frontier: Sequence[KeptTicket] = ()
  best: Row | None = None
  own_training: OwnTraining | None = None

  @property
  def empty_layers(self) -> tuple[str, ...]:
    """The layers in which the ticket keeps no weight, which cut the network; see `empty_layers`."""
    return empty_layers(self.ticket)
