"""The searches by name that are made of NeTS's parts. Reading one tells all that it does.

What a recipe does not name is not in its program, and what it does not set is as the part itself has it. Each
takes settings to have otherwise, by their names on the command line: `guided(target_density=0.05,
halvings=3)`.
"""

from nets_jax.evolution.density_schedules import CubicDensity
from nets_jax.evolution.dormancy import GuidedDormancy, ScheduledDormancy
from nets_jax.evolution.operators import Crossover, Dormancy, Noise, Resample
from nets_jax.evolution.ranking import Feasible, Pareto, Penalised
from nets_jax.evolution.scales import ScaleLayers
from nets_jax.evolution.schedules import Geometric, Linear
from nets_jax.evolution.search import Nets
from nets_jax.evolution.selection import Tournament, Truncation


def paper(**settings: object) -> Nets:
  """The paper's search, blind to what a training shows (sections 3.3 and 3.4)."""
  return Nets(
    population_size=5,
    generations=25,
    elites=1,
    selection=Tournament(),
    operators=(Crossover(), Noise(), Resample(), Dormancy()),
    ranking=Penalised(),
    fitness_epochs=1.0,
  ).change(**settings)


def guided(**settings: object) -> Nets:
  """This project's search: guided dormancy on a schedule to exactly the target density, and layer scales.

  Sixteen genomes become one as their trainings grow from a quarter of an epoch to four: short trainings of
  many find the scales, long ones show which genes matter. Early stages are scored on fewer validation
  examples, which rarely changes who is chosen. The notes say how its numbers were found.
  """
  return Nets(
    population_size=16,
    generations=25,
    elites=1,
    selection=Truncation(parents=2),
    operators=(
      Crossover(),
      ScaleLayers(Geometric(2.0, 0.02)),
      ScheduledDormancy("balanced", CubicDensity(), regrowth_rate=0.1),
    ),
    ranking=Feasible(target_density=0.1),
    fitness_epochs=0.25,
    halvings=4,
    valid_examples=750,
  ).change(**settings)


def halved(**settings: object) -> Nets:
  """The `guided` of earlier versions, for half the training: three halvings, geometric, no regrowth."""
  return guided(
    target_density=0.2,
    generations=12,
    halvings=3,
    scale_deviation=Linear(2.0, 0.2),
    saliency="taylor",
    density_schedule="geometric",
    regrowth_rate=0.0,
  ).change(**settings)


def line(**settings: object) -> Nets:
  """One line of genomes, each trained, pruned by what the training showed, and taken back to its first
  weights.

  `guided` without a population, which is enough where the first weights suit the training.
  """
  return Nets(
    population_size=1,
    generations=12,
    elites=0,
    selection=Truncation(parents=1),
    operators=(ScheduledDormancy("taylor"),),
    ranking=Feasible(),
    fitness_epochs=10.0,
  ).change(**settings)


def frontier(**settings: object) -> Nets:
  """The whole frontier of density and loss in one run (NSGA-II: half the population are elites)."""
  return Nets(
    population_size=32,
    generations=30,
    elites=16,
    selection=Truncation(),
    operators=(Crossover(), ScaleLayers(Linear(1.0, 0.2)), GuidedDormancy(rate=0.15, saliency="taylor")),
    ranking=Pareto(),
    fitness_epochs=0.5,
  ).change(**settings)


SEARCHES = {"guided": guided, "halved": halved, "line": line, "frontier": frontier, "paper": paper}
