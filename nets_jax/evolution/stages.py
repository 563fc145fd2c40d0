"""A stage of a halving search: what evaluates its generations, and how a population goes over to it."""

from collections.abc import Sequence
from concurrent.futures import Future
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from nets_jax.engine.layouts import SHARDED, WHOLE, Layout, replicate
from nets_jax.engine.messages import say
from nets_jax.evolution import halving
from nets_jax.evolution.configuration import NetsSettings, Settings, last_stage, stack_settings
from nets_jax.evolution.generation import State
from nets_jax.evolution.places import gathered, spread
from nets_jax.training.task import Task

Tree = TypeVar("Tree")


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


def are_one_program(search: NetsSettings, task: Task, layout: Layout) -> bool:
  """Whether all stages of a search are one program: on a CPU, whose devices train one genome at a time."""
  return on_cpu(layout) and layout.chunk == 1 and halving.shares_program(search, task)


def on_cpu(layout: Layout) -> bool:
  """Whether a population lives on CPU devices."""
  return layout.mesh.devices.flat[0].platform == "cpu"


def stage_of(tasks: Sequence[Task], searches: Sequence[NetsSettings], generation: int, shared: bool) -> Stage:
  """The stage of a generation: of one program for all, or of a program of its own."""
  stages = [halving.stage(search, generation) for search in searches]
  now = halving.extent(stages[0], tasks[0])
  iterations = [halving.iterations(search, task) for search, task in zip(searches, tasks, strict=True)]
  if not shared:
    return Stage(stack_settings(tasks, stages, iterations), now.genomes, None)
  last = last_stage(searches[0])
  of_all = [
    search.replace(elites=own.elites, halvings=last) for search, own in zip(searches, stages, strict=True)
  ]
  return Stage(stack_settings(tasks, of_all, iterations), now.genomes, halving.Bounds.of(now))


class Ahead(NamedTuple):
  """The program of a stage to come, which is being compiled.

  Attributes:
    layout: of its population.
    compiled: holds it once it is there.
  """

  layout: Layout
  compiled: Future[jax.stages.Compiled]

  def program(self, layout: Layout) -> jax.stages.Compiled | None:
    """The program, if it is of this layout and could be made; else it is to be made again."""
    try:
      return self.compiled.result() if layout == self.layout else None
    except Exception as error:
      say(f"compiling ahead failed, and is done again ({str(error).splitlines()[0]})")
      return None


def compiles_ahead(layout: Layout) -> bool:
  """Whether the next stage is compiled beside the present one: where devices train, not the host's cores."""
  return not on_cpu(layout) and is_alone()


def is_alone() -> bool:
  """Whether a program may be compiled in a thread: several processes would have to keep step in it."""
  return jax.process_count() == 1


def next_stage(searches: Sequence[NetsSettings], generation: int) -> int | None:
  """The first generation of the stage after that of a generation; None if there is none."""
  later = range(generation + 1, searches[0].generations + 1)
  return next((each for each in later if halving.begins_stage(searches[0], each)), None)


def replicated_shapes(tree: Tree, layout: Layout) -> Tree:
  """The shapes, types and places of what `replicate` gives, without putting anything anywhere."""
  sharding = NamedSharding(layout.mesh, WHOLE)

  def shape(leaf):
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding, weak_type=leaf.weak_type)

  return jax.tree.map(shape, jax.eval_shape(lambda tree: tree, tree))


def placed_shapes(state: State, layout: Layout, size: int | None = None) -> State:
  """The shapes and types of a state with their places; of `size` genomes a run, as `narrow` gives it.

  Args:
    state: of R runs side by side, or its shapes and types.
    layout: of the population.
    size: genomes of each run; None is as many as there are.
  """
  whole, sharded = (NamedSharding(layout.mesh, spec) for spec in (WHOLE, SHARDED))

  def shape(leaf, sharding, rows=()):
    return jax.ShapeDtypeStruct((*rows, *leaf.shape[len(rows) :]), leaf.dtype, sharding=sharding)

  others = jax.tree.map(
    lambda leaf: shape(leaf, whole), state.replace(population=None, parents=None, fitness=None)
  )
  genomes = (len(state.fitness), size or state.fitness.shape[1])
  return others.replace(
    population=jax.tree.map(lambda leaf: shape(leaf, sharded, (layout.rows,)), state.population),
    parents=shape(state.parents, whole, genomes),
    fitness=shape(state.fitness, whole, genomes),
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
