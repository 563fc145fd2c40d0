"""The settings of Neuroevolution Ticket Search: which parts it is made of, and what makes them possible."""

from collections.abc import Hashable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from nets_jax import settings, structs
from nets_jax.errors import UsageError
from nets_jax.evolution.fitness import Objective
from nets_jax.evolution.operators import Crossover, Dormancy, Noise, Operator, Resample, as_operator
from nets_jax.evolution.ranking import RANKINGS, Penalised, Ranking
from nets_jax.evolution.selection import SELECTIONS, Selection, Tournament
from nets_jax.kinds import DENSITY, NUMBER, POSITIVE, SWITCH, WHOLE, at_least, choice, one_of
from nets_jax.networks.initialisation import Initialiser, Normal
from nets_jax.networks.precision import PRECISIONS
from nets_jax.protocol import Search
from nets_jax.settings import Setting, check_value, part, places, setting
from nets_jax.structs import Struct
from nets_jax.tickets.patterns import has_pattern
from nets_jax.training.task import Task
from nets_jax.training.training import Training


def _paper_operators() -> tuple[Operator, ...]:
  return Crossover(), Noise(), Resample(), Dormancy()


@structs.dataclass
class NetsSettings(Search):
  """The settings of NeTS; what nobody sets is the paper's (sections 3.3 and 3.4). `search.Nets` runs it.

  Static fields shape the program: changing one compiles it again. All others are traced, so changing one, or
  a `vmap` over it, compiles nothing.

  Attributes:
    population_size: k; a population of 1 is a line of descent, each genome both parents of the next.
    generations: n; the first population is generation 0, so n + 1 are evaluated.
    elites: e, how many of the best go on, from 0 to k - 1.
    selection: how parents are drawn; of `selection`.
    operators: what makes a child of two parents, applied in this order; of `operators`, `dormancy` and
      `scales`, or functions `(key, child, context) -> child` of one's own.
    ranking: what a fitness is made of and who comes first; of `ranking`.
    initial_density: probability that a gene of generation 0 is expressed.
    fitness_epochs: epochs of training in a fitness evaluation, fractions too (static).
    valid_examples: validation examples that a fitness is scored on, the same ones in all generations; 0, or
      more than there are, is all. With halvings those of the first stage (static; see `halving`).
    halvings: how many times in the course of the search the population is halved and `fitness_epochs` doubled
      (static; see `halving`); 0, as in the paper, never.
    patience: stops the search after more than this many generations without a better fitness; None never
      does.
    retain_weights: the Lamarckian ablation: trained weights go back into the genome (static).
    precision: of the matrix products in the search's trainings, of a network that has such a field (static).
    objective: what to minimise in place of the validation loss; see `fitness.Objective` (static).
  """

  population_size: int = setting(
    5, "Genomes in the population.", group="search", kind=WHOLE, rule=at_least(1), static=True
  )
  generations: int = setting(
    25, "Generations after the first population.", group="search", kind=WHOLE, rule=at_least(0)
  )
  elites: int = setting(1, "Best genomes that go on unchanged.", group="search", kind=WHOLE, rule=at_least(0))
  selection: Selection = part(
    Tournament, "How parents are drawn.", group="search", flag="selection", options=SELECTIONS, base=Selection
  )
  operators: tuple[Operator, ...] = part(_paper_operators, base=Operator)
  ranking: Ranking = part(
    Penalised,
    "What is minimised and orders the genomes. penalty: the loss and a density penalty; feasible: the loss, "
    "but what is too dense loses. pareto: that, ordered by front and crowding in density and loss; none: the "
    "loss.",
    group="fitness", flag="ranking", options=RANKINGS, base=Ranking,
  )  # fmt: skip
  initial_density: float = setting(
    1.0, "Probability that a gene is expressed at first.", group="first population", kind=NUMBER, rule=DENSITY
  )
  fitness_epochs: float = setting(
    1.0, "Epochs of training in a fitness evaluation; fractions too.", group="fitness", kind=NUMBER,
    rule=POSITIVE, static=True,
  )  # fmt: skip
  valid_examples: int = setting(
    0, "Validation examples that a fitness is scored on, 0 for all; with halvings at first.", group="fitness",
    kind=WHOLE, rule=at_least(0), static=True,
  )  # fmt: skip
  halvings: int = setting(
    0, "How often the population is halved and fitness_epochs doubled.", group="fitness", kind=WHOLE,
    rule=at_least(0), static=True,
  )  # fmt: skip
  patience: int | None = setting(
    None, "Stop after more than this many generations without a better fitness.", group="search", kind=WHOLE,
    rule=at_least(0),
  )  # fmt: skip
  retain_weights: bool = setting(
    False, "Put trained weights back into the genome (Lamarckian).", group="fitness", kind=SWITCH, static=True
  )
  precision: str = setting(
    "float32", "Of the matrix products in a search's training.", group="machine",
    kind=choice(tuple(PRECISIONS)), rule=one_of(tuple(PRECISIONS)), static=True,
  )  # fmt: skip
  objective: Objective | None = structs.field(pytree_node=False, default=None)

  varies = ("learning_rate", "momentum", "weight_decay", "clip_norm", "rate_end", "init_scale")

  def __post_init__(self):
    """Takes plain functions among the operators, a single operator, and parts by their names."""
    operators = self.operators
    if isinstance(operators, Operator) or (callable(operators) and not isinstance(operators, type)):
      operators = (operators,)
    if isinstance(operators, tuple | list):
      object.__setattr__(self, "operators", tuple(map(as_operator, operators)))
    for name, options in (("selection", SELECTIONS), ("ranking", RANKINGS)):
      value = getattr(self, name)
      if isinstance(value, str):
        check_value(name, one_of(tuple(options)), value)
        object.__setattr__(self, name, options[value]())

  def check(self, task: Task) -> None:
    """Raises UsageError for settings that make no search, one line each."""
    for operator in self.operators:
      if not isinstance(operator, Operator):
        raise UsageError(
          "an operator is a function (key, child, context) -> child, or one of nets_jax.operators, not "
          f"{operator!r}"
        )
      operator.check()
    super().check(task)
    seen = [name for name, _ in places(self)]
    for name in seen:
      if seen.count(name) > 1:
        raise UsageError(
          f"two operators have a setting {name!r}; give one of them a name: name='late_noise', say"
        )
    most = self.population_size - 1
    task.training_of_search(longest_steps(self.replace(halvings=last_stage(self)), task))
    if self.elites > most:
      raise UsageError(f"elites must be from 0 to population_size - 1 = {most}, not {self.elites}")
    if self.keeps_line and (self.retain_weights or not 1 <= self.elites < most):
      raise UsageError(
        "a line, as by unscaled_line, needs an elite, a genome beside it and weights that stay: a "
        "population_size of at least 3, elites from 1 to population_size - 2, and no retain_weights"
      )
    self.selection.check(self.population_size)
    if sum(operator.observes for operator in self.operators) > 1:
      raise UsageError("two operators would keep what a training showed in one place; leave one of them out")
    if not self.ranking.uses_objective and self.objective is not None:
      raise UsageError(
        "a pareto ranking orders genomes by density and validation loss, so an objective of your own would "
        "decide nothing; leave one of the two out"
      )
    if any(operator.needs_target for operator in self.operators) and self.ranking.target_density is None:
      raise UsageError("a schedule of the density goes to the ranking's target, but this ranking has none")
    if has_pattern(task.layers) and not self.brings_layers:
      raise UsageError(
        "mask_pattern is kept to by searches that choose masks by scores, and here chance does; take guided, "
        "or another search, or leave it out"
      )

  def reports(self, task: Task, runs: int = 1) -> int:
    """A report for each generation."""
    del task, runs
    return self.generations + 1

  def program(self) -> Hashable:
    """All that is static; with halvings also the generations, which say when the population is halved."""
    traced = self.replace(patience=None)
    return jax.tree.structure(traced), self.generations if self.halvings else None

  @property
  def genomes(self) -> int:
    """The first population."""
    return self.population_size

  @property
  def brings_layers(self) -> bool:
    """Whether an operator brings layers with a density of their own to it."""
    return any(operator.brings_layers for operator in self.operators)

  @property
  def keeps_line(self) -> bool:
    """Whether an operator keeps a line of genomes."""
    return any(operator.keeps_line for operator in self.operators)

  @property
  def observer(self) -> Operator | None:
    """The operator that keeps something of each genome's training, if there is one."""
    return next((operator for operator in self.operators if operator.observes), None)


def fitness_steps(search: NetsSettings, task: Task) -> int:
  """T, the SGD iterations of a fitness evaluation: `fitness_epochs` in steps, at least one."""
  return max(1, round(search.fitness_epochs * task.steps_per_epoch))


def stage_number(search: NetsSettings, generation: int) -> int:
  """Which stage a generation is of: 0 to n are shared out evenly, and those after n are as n."""
  return min(generation, search.generations) * (search.halvings + 1) // (search.generations + 1)


def last_stage(search: NetsSettings) -> int:
  """The number of the last stage that a search comes to: its halvings, if it has as many generations."""
  return stage_number(search, search.generations)


def longest_steps(search: NetsSettings, task: Task) -> int:
  """The same of the last stage of a search that comes to all its stages."""
  return fitness_steps(search.replace(fitness_epochs=search.fitness_epochs * 2**search.halvings), task)


@structs.dataclass
class Settings(Struct):
  """What runs side by side may differ in; of R runs each traced leaf has a leading axis [R].

  Attributes:
    search: NeTS's own settings.
    training, initialiser: of the task.
    iterations: [n + 1] of the fitness evaluations of each generation; None where all are alike.
  """

  search: NetsSettings
  training: Training
  initialiser: Initialiser
  iterations: Array | np.ndarray | None


def stack_settings(
  tasks: Sequence[Task],
  searches: Sequence[NetsSettings],
  iterations: Sequence[np.ndarray | None] | None = None,
) -> Settings:
  """The settings of several runs as one.

  Args:
    tasks, searches: of each run.
    iterations: of each run, see `Settings`; none are given where no search halves its population.

  Raises:
    UsageError: one that shapes the program differs.
  """
  searches = [search.replace(patience=None) for search in searches]  # only the host looks at it
  initialisers = _of_one_length(
    [task.initialiser.fitted(task.network, task.data.input_shape, task.layers) for task in tasks]
  )
  runs = [
    Settings(search, task.training_of_search(fitness_steps(search, task)), initialiser, own)
    for search, task, initialiser, own in zip(
      searches, tasks, initialisers, iterations or [None] * len(tasks), strict=True
    )
  ]
  if searches[0].halvings:
    _must_agree("generations", [search.generations for search in searches])
  if any(jax.tree.structure(run) != jax.tree.structure(runs[0]) for run in runs[1:]):
    parts = [(run.search, run.training, run.initialiser) for run in runs]
    records = [{k: v for part in own for k, v in settings.record(part).items()} for own in parts]
    for name in records[0]:
      if not _is_traced(runs[0], name):
        _must_agree(name, [record.get(name) for record in records])
    raise UsageError("runs side by side must agree in all that shapes the program, and in what is a schedule")
  return jax.tree.map(lambda *leaves: jnp.stack([_of_32_bits(leaf) for leaf in leaves]), *runs)


def _of_one_length(initialisers: Sequence[Initialiser]) -> Sequence[Initialiser]:
  """As they are, or each with a scale for every layer where one of them has that."""
  scales = [initialiser.scale for initialiser in initialisers if isinstance(initialiser, Normal)]
  if len(scales) < len(initialisers):
    return initialisers
  counts = {len(scale) for scale in scales if isinstance(scale, tuple | list)}
  if not counts:
    return initialisers
  if len(counts) > 1:
    raise UsageError(f"runs side by side have one network, not init_scale for {sorted(counts)} layers")
  count = counts.pop()  # one number for all layers is as many alike
  return [Normal(scale if isinstance(scale, tuple | list) else (scale,) * count) for scale in scales]


def _is_traced(run: Settings, name: str) -> bool:
  """Whether a setting is a number that does not shape the program."""
  known = [*places(run.search), *places(run.training)]
  return any(n == name and isinstance(p.about, Setting) and not p.about.static for n, p in known)


def _must_agree(name: str, values: Sequence[object]) -> None:
  for value in values[1:]:
    if value != values[0]:
      raise UsageError(f"runs side by side must agree in {name}, not have {values[0]} and {value}")


def _of_32_bits(number: object) -> Array:
  """A traced setting with the type it has where JAX has no wider ones."""
  number = jnp.asarray(number)
  if jnp.issubdtype(number.dtype, jnp.integer):
    return number.astype(jnp.int32)
  return number.astype(jnp.float32) if jnp.issubdtype(number.dtype, jnp.floating) else number
