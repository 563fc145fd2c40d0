"""What a search saves between two generations, what run a checkpoint is of, and how a search goes on."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from nets_jax import settings
from nets_jax.engine.layouts import Layout, replicate
from nets_jax.engine.saved import Saved, fingerprint
from nets_jax.engine.saved import State as SavedState
from nets_jax.evolution.configuration import NetsSettings, fitness_steps
from nets_jax.evolution.frontier import Frontier, FrontierTicket
from nets_jax.evolution.generation import State
from nets_jax.evolution.history import History
from nets_jax.evolution.places import gathered, spread
from nets_jax.evolution.run_record import RunRecord
from nets_jax.tickets.ticket import take
from nets_jax.training.task import Task


def identity(
  keys: Key[Array, " runs"], tasks: Sequence[Task], searches: Sequence[NetsSettings], frontier_size: int
) -> dict[str, object]:
  """All that the runs' results depend on."""
  fields = [
    settings.record(search)
    | {"training": task.training_of_search(fitness_steps(search, task)).record()}
    | {"initialiser": settings.record(task.initialiser)}
    for search, task in zip(searches, tasks, strict=True)
  ]
  return {
    "search": "nets",
    "keys": fingerprint(keys),
    **tasks[0].record(),
    "data": fingerprint((tasks[0].data.train, tasks[0].data.valid)),
    "frontier_size": frontier_size,
    "settings": fields[0] if len(fields) == 1 else {str(i): of_run for i, of_run in enumerate(fields)},
  }


def to_save(
  state: State, size: int, records: Sequence[RunRecord], layout: Layout, clock: Mapping[str, int | float]
) -> SavedState:
  """The search between two generations, and the tickets of the runs that have ended.

  Args:
    state: of all runs.
    size: genomes of each run.
    records: of each run, as they were.
    layout: of the population.
    clock: `generation`, `seconds` and `compile_seconds` of all runs.

  Returns:
    Trees of arrays by name, and what JSON can hold.
  """
  tickets = {f"ticket_{i}": record.ticket for i, record in enumerate(records) if record.ended}
  frontiers = {
    f"frontier_{i}_{j}": each.ticket
    for i, record in enumerate(records)
    for j, each in enumerate(record.frontier)
  }
  trees = {
    "state": _first(state, size),
    "population": gathered(state.population, len(state.fitness), size, layout),
    **tickets,
    **frontiers,
  }
  counts = [record.counts() for record in records]
  rows = [[each.row for each in record.frontier] for record in records]
  return trees, {"runs": counts, "frontiers": rows, **clock}


def _first(state: State, size: int) -> State:
  """All but the population, of so many genomes of each run."""
  return state.replace(population=None, parents=state.parents[:, :size], fitness=state.fitness[:, :size])


def restored(
  saved: Saved, state: State, size: int, records: Sequence[RunRecord], frontier_size: int, layout: Layout
) -> tuple[State, list[RunRecord]]:
  """The state and the records that `to_save` was given.

  Args:
    saved: what it gave.
    state, records: of the same runs, as they begin; they give the structure.
    size: genomes of each run.
    frontier_size: of each run.
    layout: of the population.

  Raises:
    UsageError: an array is missing, or of another shape or type.
  """
  runs, room = state.fitness.shape
  like = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct((runs * size, *leaf.shape[1:]), leaf.dtype), state.population
  )
  population = spread(saved.tree("population", like), runs, layout)
  others = saved.tree("state", _first(state, size))
  absent = ((0, 0), (0, room - size))
  others = others.replace(
    parents=jnp.pad(others.parents, (*absent, (0, 0)), constant_values=-1),
    fitness=jnp.pad(others.fitness, absent, constant_values=jnp.inf),
  )
  like = take(state.best, 0)
  resumed = []
  for i, (record, counts) in enumerate(zip(records, saved.record["runs"], strict=True)):
    of_run = (row for row in saved.rows if row.get("run", i) == i)
    rows = [{name: value for name, value in row.items() if name != "run"} for row in of_run]
    ticket = saved.tree(f"ticket_{i}", like) if counts["ended"] else None
    tickets = [
      FrontierTicket(saved.tree(f"frontier_{i}_{j}", like), row)
      for j, row in enumerate(saved.record["frontiers"][i])
    ]
    frontier = Frontier(frontier_size, tickets)
    history = History(rows, record.task.measures.score)
    resumed.append(RunRecord(record.search, record.task, history, frontier, ticket, **counts))
  return replicate(others, layout).replace(population=population), resumed
