"""The frontier of a run's tickets: those that no other dominates in density and validation loss."""

import bisect
import dataclasses
from collections.abc import Callable, Sequence
from typing import overload

import numpy as np

from nets_jax.evolution.pareto import OBJECTIVES
from nets_jax.rows import Row
from nets_jax.tickets.ticket import Ticket


@dataclasses.dataclass(frozen=True)
class FrontierTicket:
  """A ticket of a frontier, and its genome's row of the history."""

  ticket: Ticket
  row: Row


class Frontier(Sequence[FrontierTicket]):
  """The tickets of a run that none dominates in density and validation loss, the sparsest first.

  What keeps no weight, the sparsest of all, is no ticket.
  Of equal tickets the first stays. Where there are more than `size`, the one whose two neighbours are
  nearest to each other, by the frontier's range in each, is given up; the ends never are.
  """

  def __init__(self, size: int, tickets: Sequence[FrontierTicket] = ()):
    """Starts with some tickets of a frontier, the sparsest first."""
    self._size, self._tickets = size, list(tickets)

  def __len__(self) -> int:
    return len(self._tickets)

  @overload
  def __getitem__(self, index: int) -> FrontierTicket: ...

  @overload
  def __getitem__(self, index: slice) -> list[FrontierTicket]: ...

  def __getitem__(self, index: int | slice) -> FrontierTicket | list[FrontierTicket]:
    return self._tickets[index]

  def copy(self) -> "Frontier":
    """As it is now."""
    return Frontier(self._size, self._tickets)

  def offer(self, rows: Sequence[Row], take: Callable[[int], Ticket]) -> None:
    """Takes in those of a generation's genomes that nothing dominates.

    Args:
      rows: of the history, one for each genome.
      take: gives a genome as a ticket, by its index; called for those taken in alone.
    """
    for row in sorted(rows, key=_place):
      self._offer(row, take)

  def _offer(self, row: Row, take: Callable[[int], Ticket]) -> None:
    if self._size < 1 or not np.isfinite(_place(row)).all() or not row["density"]:
      return
    at = bisect.bisect_right(self._tickets, _place(row), key=lambda ticket: _place(ticket.row))
    # Sparser ones have higher losses, so that before it has the lowest loss of all that are as sparse.
    if at and self._tickets[at - 1].row["valid_loss"] <= row["valid_loss"]:
      return
    end = at
    while end < len(self._tickets) and self._tickets[end].row["valid_loss"] >= row["valid_loss"]:
      end += 1
    self._tickets[at:end] = [FrontierTicket(take(int(row["genome"])), row)]
    if len(self._tickets) > self._size:
      del self._tickets[self._most_crowded()]

  def _most_crowded(self) -> int:
    """The index of the ticket to give up."""
    places = np.array([_place(ticket.row) for ticket in self._tickets])
    if len(places) < 3:
      return 0  # of two, the one of lower loss stays
    width = np.ptp(places, axis=0)
    between = np.abs(places[2:] - places[:-2]) / np.where(width > 0, width, 1)
    return 1 + int(np.argmin(between.sum(axis=1)))


def _place(row: Row) -> tuple[float, ...]:
  return tuple(float(row[name]) for name in OBJECTIVES)
