"""Loops of several programs as one: side by side on devices of their own, or one after the other."""

import time
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from jaxtyping import PyTree

from nets_jax.data.dataset import Split
from nets_jax.engine.saved import Saved, State
from nets_jax.networks.adapter import NetworkState, Params
from nets_jax.rows import Rows
from nets_jax.tickets.ticket import Ticket, take
from nets_jax.training.loop import Loop
from nets_jax.training.parts import Group, Part, widen
from nets_jax.training.task import Task
from nets_jax.training.training import Training


class Loops:
  """All tickets in training: how far they are, their curves, and what it has taken.

  What is saved does not depend on the devices: of each group the states of its tickets, in their order.
  """

  def __init__(
    self,
    parts: Sequence[Sequence[Part]],
    keys: jax.Array,
    training: Training,
    scored: Mapping[str, Split],
  ):
    self._lists = [[Loop(part, keys, training, scored) for part in some] for some in parts]
    self.seconds, self._compiled_before = 0.0, 0.0
    self.curves: Rows = []

  @property
  def _loops(self) -> list[Loop]:
    return [loop for some in self._lists for loop in some]

  @property
  def _groups(self) -> list[Group]:
    """In the order of each one's first ticket."""
    found = {loop.part.group.places: loop.part.group for loop in self._loops}
    return [found[places] for places in sorted(found)]

  @property
  def iteration(self) -> int:
    """How far all are."""
    return self._loops[0].iteration

  @property
  def compile_seconds(self) -> float:
    """Wall-clock time of compiling."""
    return self._compiled_before + sum(loop.compile_seconds for loop in self._loops)

  @property
  def chunk(self) -> int | None:
    """Tickets that a device runs at once, where memory was enough for all."""
    chunks = [loop.layout.chunk for loop in self._loops]
    return None if None in chunks else min(chunk for chunk in chunks if chunk is not None)

  def go_on_from(self, saved: Saved) -> None:
    """Takes up what an earlier process has saved, on whatever devices."""
    for number, group in enumerate(self._groups):
      mine = [loop for loop in self._loops if loop.part.group is group]
      count = len(group.places)

      def of_all(leaf, count=count):
        return jax.ShapeDtypeStruct((count, *leaf.shape[1:]), leaf.dtype)

      likes = jax.tree.map(of_all, mine[0].like())
      trees = [saved.tree(name, like) for name, like in zip(_names(number), likes, strict=True)]
      for loop in mine:
        state, settled = take(trees, np.array(loop.part.rows))
        loop.go_on_from(state, settled, saved.record["iteration"])
    self.seconds, self._compiled_before = saved.record["seconds"], saved.record["compile_seconds"]
    self.curves = list(saved.rows)

  def advance(self, steps: int, eval_every: int, wait: Callable[[PyTree], None]) -> Rows:
    """Trains so many steps and scores; the rows of that evaluation, in the order of tickets."""
    found = self._side_by_side(steps, eval_every, wait) if len(self._lists) > 1 else None
    if found is None:
      before = sum(loop.seconds for loop in self._loops)
      found = [row for loop in self._loops for row in loop.advance(steps, eval_every, wait)]
      self.seconds += sum(loop.seconds for loop in self._loops) - before
    rows = sorted(found, key=lambda row: row["ticket"])
    new: Rows = [{**row, "seconds": self.seconds} for row in rows]
    self.curves += new
    return new

  def _side_by_side(self, steps: int, eval_every: int, wait: Callable[[PyTree], None]) -> Rows | None:
    """All devices at work at once, each on its own parts; None, and nothing done, if memory is not enough.

    Programs are begun here one after the other, and not in threads: those would have other settings of JAX,
    and could not be left.
    """
    try:
      programs = [loop.compiled(steps, eval_every) for loop in self._loops]
      begin = time.perf_counter()
      found = [program() for program in programs]
      wait(found)
    except jax.errors.JaxRuntimeError as error:
      if "RESOURCE_EXHAUSTED" not in str(error):
        raise
      return None
    self.seconds += time.perf_counter() - begin
    return [row for loop, own in zip(self._loops, found, strict=True) for row in loop.take_up(own, steps)]

  def state_to_save(self) -> Callable[[], State]:
    """A function that gives the state as it is now, however far the loops are when it is called."""
    record = {
      "iteration": self.iteration, "seconds": self.seconds, "compile_seconds": self.compile_seconds
    }  # fmt: skip
    parts = [(loop.part, loop.fetched()) for loop in self._loops]
    groups = self._groups

    def fetch_all() -> State:
      trees = {}
      for number, group in enumerate(groups):
        both = _in_order([(part.rows, fetch()) for part, fetch in parts if part.group is group])
        trees |= dict(zip(_names(number), both, strict=True))
      return trees, record

    return fetch_all

  def results(
    self, tickets: Ticket, task: Task, begun_states: NetworkState | None
  ) -> tuple[Params, NetworkState, NetworkState]:
    """Of all tickets, for the whole network: the weights, the states to evaluate with and those carried."""
    found = []
    for group in self._groups:
      mine = [(loop.part.rows, loop.fetched()()) for loop in self._loops if loop.part.group is group]
      state, settled = _in_order(mine)
      weights, states = widen(
        group, state.weights, (settled, state.network_state), tickets, task, begun_states
      )
      found.append((group.places, (weights, *states)))
    return _in_order(found)


def _names(number: int) -> tuple[str, str]:
  """What the states of a group are called in a checkpoint."""
  return ("training", "settled") if not number else (f"training-{number}", f"settled-{number}")


def _in_order(parts: Sequence[tuple[Sequence[int], PyTree]]) -> PyTree:
  """Stacked arrays of some rows each as those of all, by the rows' numbers."""
  if len(parts) == 1:
    return parts[0][1]
  order = np.argsort(np.concatenate([np.array(rows) for rows, _ in parts]))
  return jax.tree.map(lambda *leaves: np.concatenate(leaves)[order], *(tree for _, tree in parts))
