"""The settings of Neuroevolution Ticket Search, and what makes them possible."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from nets_jax import guidance, operators
from nets_jax.errors import UsageError, check, check_fits_data, check_scale
from nets_jax.fitness import Objective
from nets_jax.networks import Scale
from nets_jax.tickets import Ticket
from nets_jax.training import OPTIMIZERS, Optimizer, steps_per_epoch


def _static(default: Any) -> Any:
  return struct.field(pytree_node=False, default=default)


@struct.dataclass
class NetsConfig:
  """The settings of a search; the defaults are the paper's (section 3.4).

  Fields marked static shape the program: changing one compiles it again. All others are traced, so
  changing one, or a `vmap` over it, compiles nothing.

  Attributes:
    population_size: k (static); a population of 1 is a line of descent, each genome both parents of the next.
    generations: n; the first population is generation 0, so n + 1 are evaluated.
    elites: e, how many of the best go on unchanged, from 0 to k - 1.
    selection: one of `operators.SELECTIONS` (static).
    crossover_rate: p, probability that a gene comes from parent 1.
    noise_rate: q, probability that a weight gets noise.
    noise_scale: standard deviation of that noise.
    resample_rate: r, probability that a weight is drawn anew.
    dormancy_rate: s, probability that a gene falls dormant.
    dormancy: which genes fall dormant: `random`, as in the paper, or `guided`, those of the lowest saliency
      (static).
    saliency: of guided dormancy, one of `guidance.SALIENCIES` (static).
    dormancy_scope: of guided dormancy, one of `guidance.SCOPES` (static).
    awakening_rate: share of a child's expressed genes that are dormant ones awakened, in guided dormancy
      (static).
    parents: how many of the best are drawn from under `truncation`; 0 is half of them.
    scale_deviation: deviation of the log-normal factor of each layer of a genome in generations 0 and 1; 0 is
      none.
    final_scale_deviation: that in generation n, with a straight line between.
    init_scale: standard deviation of initial and redrawn weights; one number, or a tuple of one for each
      layer.
    initial_density: probability that a gene of generation 0 is expressed.
    target_density: tau, in (0, 1].
    penalty_weight: factor of the density penalty; 1 in the paper.
    density_rule: `penalty`, as in the paper; `feasible`, by which whatever is denser than the target loses to
      whatever is not; `schedule`: that, and every genome of a generation has exactly the number of expressed
      genes that a schedule from `initial_density` to the target asks for; or `none`, by which the objective
      alone decides, whatever the density (static).
    density_schedule: one of `guidance.SCHEDULES` (static).
    objectives: what orders the genomes for selection and elites: their `fitness`, or `pareto`, non-dominated
      rank and crowding in density and validation loss (static; see `pareto`).
    patience: stops the search after more than this many generations without a better fitness; None
      never does.
    optimizer: a name in `training.OPTIMIZERS`, or a function from the learning rate to an optax
      transformation (static).
    learning_rate: eta.
    batch_size: examples in a minibatch (static).
    fitness_epochs: epochs of training in a fitness evaluation, fractions too (static).
    halvings: how many times in the course of the search the population is halved and `fitness_epochs` doubled
      (static; see `halving`); 0, as in the paper, never.
    retain_weights: the Lamarckian ablation: trained weights go back into the genome (static).
    objective: what to minimise in place of the validation loss; the density rule goes with it as with the
      loss, unless that is `none`; see `fitness.Objective` (static).
    breeder: how a child comes of two parents, `(key, parent_1, parent_2, config) -> child`, in place of
      `nets.offspring` (static).
  """

  population_size: int = _static(5)
  generations: int = 25
  elites: int = 1
  selection: str = _static("tournament")
  crossover_rate: float = 0.5
  noise_rate: float = 0.1
  noise_scale: float = 0.1
  resample_rate: float = 0.1
  dormancy_rate: float = 0.2
  dormancy: str = _static("random")
  saliency: str = _static("taylor")
  dormancy_scope: str = _static("global")
  awakening_rate: float = _static(0.0)
  parents: int = 0
  scale_deviation: float = 0.0
  final_scale_deviation: float = 0.0
  init_scale: Scale = 0.1
  initial_density: float = 1.0
  target_density: float = 0.2
  penalty_weight: float = 1.0
  density_rule: str = _static("penalty")
  density_schedule: str = _static("geometric")
  objectives: str = _static("fitness")
  patience: int | None = None
  optimizer: Optimizer = _static("sgd")
  learning_rate: float = 1e-3
  batch_size: int = _static(72)
  fitness_epochs: float = _static(1.0)
  halvings: int = _static(0)
  retain_weights: bool = _static(False)
  objective: Objective | None = _static(None)
  breeder: Callable[[jax.Array, Ticket, Ticket, "NetsConfig"], Ticket] | None = _static(None)


# Guided NeTS where it differs from the paper; BUILD_NOTES.md says how these were found.
GUIDED = {
  "population_size": 16,
  "generations": 12,
  "selection": "truncation",
  "parents": 2,
  "noise_rate": 0.0,
  "resample_rate": 0.0,
  "dormancy": "guided",
  "density_rule": "schedule",
  "scale_deviation": 2.0,
  "final_scale_deviation": 0.2,
  "fitness_epochs": 0.25,
}


def guided_config(**settings: Any) -> NetsConfig:
  """The settings of guided NeTS, this project's search; those of `NetsConfig` are the paper's.

  Genes fall dormant by their saliency, on a schedule to exactly the target density, and the scale of each
  layer evolves in steps that narrow. `halvings=3` finds better tickets below a fifth of the weights for the
  same training, but compiles four programs where there is one.

  Args:
    **settings: fields of `NetsConfig` to have otherwise.
  """
  return NetsConfig(**{**GUIDED, **settings})


DORMANCIES = ("random", "guided")
DENSITY_RULES = ("penalty", "feasible", "schedule", "none")
OBJECTIVES = ("fitness", "pareto")


def validate(config: NetsConfig, num_examples: int) -> None:
  """Raises UsageError for settings that make no search, one line each."""
  most = config.population_size - 1
  check(config, ["population_size"], "at least 1", lambda k: k >= 1)
  check(config, ["elites"], f"from 0 to population_size - 1 = {most}", lambda e: 0 <= e <= most)
  check(config, ["parents"], f"from 0 to population_size = {most + 1}", lambda p: 0 <= p <= most + 1)
  rates = ("crossover_rate", "noise_rate", "resample_rate", "dormancy_rate", "awakening_rate")
  check(config, rates, "in [0, 1]", lambda rate: 0 <= rate <= 1)
  check(config, ("initial_density", "target_density"), "in (0, 1]", lambda d: 0 < d <= 1)
  check_scale(config)
  positive = ("learning_rate", "fitness_epochs")
  check(config, positive, "positive", lambda value: 0 < value < math.inf)
  at_least_0 = (
    "noise_scale", "penalty_weight", "generations", "patience", "scale_deviation", "final_scale_deviation",
    "halvings",
  )  # fmt: skip
  check(config, at_least_0, "at least 0", lambda value: 0 <= value < math.inf)
  check_fits_data(config, "batch_size", num_examples)
  choices = {
    "selection": operators.SELECTIONS,
    "optimizer": tuple(OPTIMIZERS),
    "dormancy": DORMANCIES,
    "saliency": guidance.SALIENCIES,
    "dormancy_scope": guidance.SCOPES,
    "density_rule": DENSITY_RULES,
    "density_schedule": guidance.SCHEDULES,
    "objectives": OBJECTIVES,
  }
  for name, allowed in choices.items():
    check(
      config, [name], f"one of {', '.join(allowed)}", lambda v, allowed=allowed: callable(v) or v in allowed
    )
  if config.objective is not None and config.objectives == "pareto":
    raise UsageError(
      "objectives='pareto' orders genomes by density and validation loss, so an objective of your own would "
      "decide nothing; leave one of the two out"
    )


def fitness_steps(config: NetsConfig, num_examples: int) -> int:
  """T, the SGD iterations of a fitness evaluation: `fitness_epochs` in steps, at least one."""
  return max(1, round(config.fitness_epochs * steps_per_epoch(num_examples, config.batch_size)))


def stack_configs(configs: Sequence[NetsConfig]) -> NetsConfig:
  """The settings of several runs as one, each traced field with a leading axis [R]; `patience` is left out.

  Raises:
    UsageError: a field that shapes the program differs.
  """
  configs = [config.replace(patience=None) for config in configs]  # only the host looks at it
  counts = {len(config.init_scale) for config in configs if isinstance(config.init_scale, tuple | list)}
  if len(counts) > 1:
    raise UsageError(f"runs side by side have one network, not init_scale for {sorted(counts)} layers")
  for count in counts:  # one number for all layers is as many alike
    configs = [
      config.replace(init_scale=(config.init_scale,) * count) if np.ndim(config.init_scale) == 0 else config
      for config in configs
    ]
  traced = traced_fields(configs[0].halvings)
  for name in (name for name in NetsConfig.__dataclass_fields__ if name not in traced):
    values = [getattr(config, name) for config in configs]
    if any(value != values[0] for value in values[1:]):
      other = next(value for value in values if value != values[0])
      raise UsageError(f"runs side by side must agree in {name}, not have {values[0]} and {other}")
  return jax.tree.map(lambda *leaves: jnp.stack([_of_32_bits(leaf) for leaf in leaves]), *configs)


def _of_32_bits(setting: Any) -> jax.Array:
  """A traced setting with the type it has where JAX has no wider ones."""
  setting = jnp.asarray(setting)
  if jnp.issubdtype(setting.dtype, jnp.integer):
    return setting.astype(jnp.int32)
  return setting.astype(jnp.float32) if jnp.issubdtype(setting.dtype, jnp.floating) else setting


def traced_fields(halvings: int = 0) -> list[str]:
  """The settings in which runs side by side may differ, for they do not shape the program.

  With halvings `generations` is none of them: it says when the population is halved.
  """
  fields = NetsConfig.__dataclass_fields__
  traced = [name for name, field in fields.items() if field.metadata.get("pytree_node", True)]
  return [name for name in traced if not (halvings and name == "generations")]
