"""Successive halving: in the course of a search fewer genomes, each trained for longer, for the same cost.

Short trainings of many genomes find where to begin (the scales of the layers), long ones of a few show which
genes matter. After Jamieson & Talwalkar (2016), who halve a set of configurations and double the training of
those left; here they go on breeding. This is this project's addition to the paper.
"""

import jax
import jax.numpy as jnp

from nets_jax.engine.layouts import Layout, fetch_population, pad, replicate
from nets_jax.evolution.configuration import NetsSettings, fitness_steps
from nets_jax.evolution.generation import State
from nets_jax.training.task import Task


def stage_number(search: NetsSettings, generation: int) -> int:
  """Which stage a generation is of: 0 to n are shared out evenly, and those after n are as n."""
  return min(generation, search.generations) * (search.halvings + 1) // (search.generations + 1)


def begins_stage(search: NetsSettings, generation: int) -> bool:
  """Whether a generation is the first of a stage after the first."""
  return generation > 0 and stage_number(search, generation) > stage_number(search, generation - 1)


def stage(search: NetsSettings, generation: int) -> NetsSettings:
  """The settings that a generation is evaluated by, and the next is bred by.

  In stage i there are max(1, population_size // 2^i) genomes, elites no more than genomes, and a fitness
  evaluation takes 2^i * fitness_epochs.

  Args:
    search: its settings, `generations` a number.
    generation: from 0.
  """
  i = stage_number(search, generation)
  size = max(1, search.population_size >> i)
  return search.replace(
    population_size=size, elites=min(search.elites, size), fitness_epochs=search.fitness_epochs * 2**i
  )


def narrow(state: State, size: int, before: Layout, layout: Layout) -> State:
  """The state with the first `size` genomes of each run, elites among them, on the devices of a new layout.

  Fitnesses after trainings of another length do not compare, so the best ticket's is +inf: the first finite
  one of the new stage takes its place.

  Args:
    state: of R runs side by side, between two generations.
    size: genomes to keep of each run.
    before: layout of the population as it is.
    layout: that of R x size genomes.
  """
  runs, k = state.fitness.shape

  def first(leaf):
    return leaf.reshape(runs, k, *leaf.shape[1:])[:, :size].reshape(-1, *leaf.shape[1:])

  population = jax.tree.map(first, fetch_population(state.population, before))
  others = state.replace(
    population=None,
    parents=jax.device_get(state.parents)[:, :size],
    fitness=jnp.full((runs, size), jnp.inf, jnp.float32),
    best_fitness=jnp.full(runs, jnp.inf, jnp.float32),
  )
  return replicate(others, layout).replace(population=pad(population, layout))


def genome_epochs(search: NetsSettings, task: Task, generations: int) -> float:
  """Genome-epochs of training that the first so many generations take."""
  stages = [stage(search, generation) for generation in range(generations)]
  steps = sum(each.population_size * fitness_steps(each, task) for each in stages)
  return steps / task.steps_per_epoch
