"""A stage of a halving search: what evaluates its generations, and how a population goes over to it."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from nets_jax.engine.layouts import SHARDED, WHOLE, Layout, replicate
from nets_jax.evolution import halving
from nets_jax.evolution.configuration import NetsSettings, Settings, stack_settings
from nets_jax.evolution.generation import State
from nets_jax.evolution.places import gathered, spread
from nets_jax.training.task import Task


class Stage(NamedTuple):
  """What a generation of all runs is evaluated by.

  Attributes:
    settings: of the runs, as one.
    genomes: of each run.
    bounds: what the program is told when it runs; None where the settings say all.
  """

  settings: Settings
  genomes: int
  bounds: halving.Bounds | None


def stage_of(
  tasks: Sequence[Task], searches: Sequence[NetsSettings], generation: int, layout: Layout
) -> Stage:
  """The stage of a generation: of one program for all on a CPU, elsewhere of a program of its own."""
  stages = [halving.stage(search, generation) for search in searches]
  now = halving.extent(stages[0], tasks[0])
  if layout.chunk != 1 or not halving.shares_program(searches[0], tasks[0]):
    return Stage(stack_settings(tasks, stages), now.genomes, None)
  of_all = [search.replace(elites=own.elites) for search, own in zip(searches, stages, strict=True)]
  return Stage(stack_settings(tasks, of_all), now.genomes, halving.Bounds.of(now))


def compiles_ahead(layout: Layout) -> bool:
  """Whether the next stage is compiled beside the present one: where devices train, and not the host's cores.

  Several processes would have to keep step in it.
  """
  return layout.chunk != 1 and jax.process_count() == 1


def next_stage(searches: Sequence[NetsSettings], generation: int) -> int | None:
  """The first generation of the stage after that of a generation; None if there is none."""
  later = range(generation + 1, searches[0].generations + 1)
  return next((each for each in later if halving.begins_stage(searches[0], each)), None)


def narrowed_shapes(state: State, size: int, layout: Layout) -> State:
  """The shapes, types and places of what `narrow` gives on another layout."""
  runs = len(state.fitness)

  def shape(leaf, sharding, rows=None):
    shape = leaf.shape if rows is None else (*rows, *leaf.shape[len(rows) :])
    return jax.ShapeDtypeStruct(shape, leaf.dtype, sharding=NamedSharding(layout.mesh, sharding))

  def whole(leaf):
    return shape(leaf, WHOLE)

  others = jax.tree.map(whole, state.replace(population=None, parents=None, fitness=None))
  return others.replace(
    population=jax.tree.map(lambda leaf: shape(leaf, SHARDED, (layout.rows,)), state.population),
    parents=shape(state.parents, WHOLE, (runs, size)),
    fitness=shape(state.fitness, WHOLE, (runs, size)),
  )


def narrow(state: State, size: int, before: Layout, layout: Layout) -> State:
  """The state with the first `size` genomes of each run, elites among them, on the devices of a new layout.

  Fitnesses after trainings of another length do not compare, so the best ticket's is +inf: the first finite
  one of the new stage takes its place. In the same layout there stays room for those who go.

  Args:
    state: of R runs side by side, between two generations.
    size: genomes to keep of each run.
    before: layout of the population as it is.
    layout: the same, or that of R x size genomes.
  """
  runs, room = len(state.fitness), size if layout != before else state.fitness.shape[1]
  population = state.population
  if layout != before:
    population = spread(gathered(population, runs, size, before), runs, layout)
  others = state.replace(
    population=None,
    parents=jax.device_get(state.parents)[:, :room],
    fitness=jnp.full((runs, room), jnp.inf, jnp.float32),
    best_fitness=jnp.full(runs, jnp.inf, jnp.float32),
  )
  return replicate(others, layout).replace(population=population)
