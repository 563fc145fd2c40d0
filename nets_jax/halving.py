"""Successive halving: in the course of a search fewer genomes, each trained for longer, for the same cost.

Short trainings of many genomes find where to begin (the scales of the layers), long ones of a few show which
genes matter. After Jamieson & Talwalkar (2016), who halve a set of configurations and double the training of
those left; here they go on breeding. This is this project's addition to the paper.
"""

import jax
import jax.numpy as jnp

from nets_jax import parallel
from nets_jax.config import NetsConfig, fitness_steps
from nets_jax.nets import State
from nets_jax.training import steps_per_epoch


def stage_number(config: NetsConfig, generation: int) -> int:
  """Which stage a generation is of: 0 to n are shared out evenly, and those after n are as n."""
  return min(generation, config.generations) * (config.halvings + 1) // (config.generations + 1)


def begins_stage(config: NetsConfig, generation: int) -> bool:
  """Whether a generation is the first of a stage after the first."""
  return generation > 0 and stage_number(config, generation) > stage_number(config, generation - 1)


def stage(config: NetsConfig, generation: int) -> NetsConfig:
  """The settings that a generation is evaluated by, and the next is bred by.

  In stage i there are max(1, population_size // 2^i) genomes, elites no more than genomes, and a fitness
  evaluation takes 2^i * fitness_epochs.

  Args:
    config: the search's settings, `generations` a number.
    generation: from 0.
  """
  i = stage_number(config, generation)
  size = max(1, config.population_size >> i)
  return config.replace(
    population_size=size, elites=min(config.elites, size), fitness_epochs=config.fitness_epochs * 2**i
  )


def narrow(state: State, size: int, before: parallel.Layout, layout: parallel.Layout) -> State:
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
  first = lambda leaf: leaf.reshape(runs, k, *leaf.shape[1:])[:, :size].reshape(-1, *leaf.shape[1:])  # noqa: E731
  population = jax.tree.map(first, parallel.fetch_population(state.population, before))
  others = state.replace(
    population=None,
    parents=jax.device_get(state.parents)[:, :size],
    fitness=jnp.full((runs, size), jnp.inf, jnp.float32),
    best_fitness=jnp.full(runs, jnp.inf, jnp.float32),
  )
  return parallel.replicate(others, layout).replace(population=parallel.pad(population, layout))


def genome_epochs(config: NetsConfig, num_examples: int, generations: int) -> float:
  """Genome-epochs of training that the first so many generations take."""
  stages = [stage(config, generation) for generation in range(generations)]
  steps = sum(own.population_size * fitness_steps(own, num_examples) for own in stages)
  return steps / steps_per_epoch(num_examples, config.batch_size)
