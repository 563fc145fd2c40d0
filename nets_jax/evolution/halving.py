"""Successive halving: in the course of a search fewer genomes, each trained for longer, for the same cost.

Short trainings of many genomes find where to begin (the scales of the layers), long ones of a few show which
genes matter. After Jamieson & Talwalkar (2016), who halve a set of configurations and double the training of
those left; here they go on breeding. This is this project's addition to the paper.
"""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Int

from nets_jax.evolution.configuration import NetsSettings, fitness_steps, last_stage, stage_number
from nets_jax.evolution.operators import Operator
from nets_jax.evolution.ranking import RANKINGS
from nets_jax.evolution.selection import SELECTIONS
from nets_jax.training.statistics import BATCHES
from nets_jax.training.task import Task


class Extent(NamedTuple):
  """How much a generation is.

  Attributes:
    genomes: of each run.
    steps: T, the SGD iterations of a fitness evaluation.
    examples: validation examples that it is scored on.
  """

  genomes: int
  steps: int
  examples: int


class Bounds(NamedTuple):
  """An `Extent` that a program is told when it runs."""

  genomes: Int[Array | np.ndarray, ""]
  steps: Int[Array | np.ndarray, ""]
  examples: Int[Array | np.ndarray, ""]

  @classmethod
  def of(cls, extent: Extent) -> "Bounds":
    """The same numbers."""
    return cls(*(np.asarray(number, np.int32) for number in extent))


def begins_stage(search: NetsSettings, generation: int) -> bool:
  """Whether a generation is the first of a stage after the first."""
  return generation > 0 and stage_number(search, generation) > stage_number(search, generation - 1)


def stage(search: NetsSettings, generation: int) -> NetsSettings:
  """The settings that a generation is evaluated by, and the next is bred by.

  In stage i of 0 to h there are max(1, population_size // 2^i) genomes, elites no more than genomes. A
  fitness evaluation takes 2^i * fitness_epochs. It is scored on 2^i * valid_examples; in stage h on all.

  Args:
    search: its settings, `generations` a number.
    generation: from 0.
  """
  i = stage_number(search, generation)
  size = max(1, search.population_size >> i)
  in_last = search.halvings > 0 and i == last_stage(search)
  return search.replace(
    population_size=size,
    elites=min(search.elites, size),
    fitness_epochs=search.fitness_epochs * 2**i,
    valid_examples=0 if in_last else search.valid_examples * 2**i,
  )


def extent(search: NetsSettings, task: Task) -> Extent:
  """That of a generation with these settings, as `stage` gives them."""
  examples = len(task.data.valid)
  scored = min(examples, search.valid_examples or examples)
  return Extent(search.population_size, fitness_steps(search, task), scored)


def iterations(search: NetsSettings, task: Task) -> np.ndarray | None:
  """[n + 1], those of a fitness evaluation of each generation; None where all are alike."""
  if not search.halvings:
    return None
  generations = range(search.generations + 1)
  return np.array([fitness_steps(stage(search, generation), task) for generation in generations], np.int32)


def shares_program(search: NetsSettings, task: Task) -> bool:
  """Whether the stages can be one program, which is told when it runs how many genomes and steps there are.

  Devices that train one genome at a time may do as many as they are told. What is the user's own may look at
  shapes, so a search with a ranking, a selection or an observer of another kind than ours has a
  program for each stage; and so has one whose first trainings are shorter than what is made of their last
  minibatches, or whose stages have learning rates of other lengths.
  """
  if not search.halvings:
    return False
  observer, first = search.observer, stage(search, 0)
  looks_back = 0 if observer is None else _looks_back(observer)
  is_ours = type(search.ranking) in RANKINGS.values() and type(search.selection) in SELECTIONS.values()
  if not is_ours or looks_back is None or extent(first, task).steps < max(looks_back, BATCHES):
    return False
  trainings = [
    task.training_of_search(fitness_steps(each, task)) for each in (first, stage(search, search.generations))
  ]
  return jax.tree.structure(trainings[0]) == jax.tree.structure(trainings[1])


def _looks_back(observer: Operator) -> int | None:
  """How many minibatches an operator's `observe` says it looks at; None is all.

  A class that brings an `observe` of its own has to say it anew.
  """
  for cls in type(observer).__mro__:
    if "minibatches" in vars(cls):
      return observer.minibatches
    if "observe" in vars(cls):
      return None
  return None


def genome_epochs(search: NetsSettings, task: Task, generations: int) -> float:
  """Genome-epochs of training that the first so many generations take."""
  stages = [stage(search, generation) for generation in range(generations)]
  steps = sum(each.population_size * fitness_steps(each, task) for each in stages)
  return steps / task.steps_per_epoch
