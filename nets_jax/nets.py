"""Neuroevolution Ticket Search (paper, Algorithm 1): configuration, state, `init` and `step`.

One call of `step` is one turn of the algorithm's loop and one XLA program: the fitness of every
genome, the best ticket so far, then elitism, selection, crossover and mutation for the next
generation. `step_all` is the same for several runs side by side, whose genomes are one population. The
paper writes fitness as maximised in Algorithm 1 and minimised elsewhere, and `mutate(G)` for
`mutate(G')`; here it is minimised, and the offspring are mutated.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from nets_jax import operators, parallel
from nets_jax.data import Dataset
from nets_jax.errors import UsageError, check, check_fits_data
from nets_jax.fitness import Metrics, Objective, fitness, penalised_loss, retain
from nets_jax.tickets import Ticket, initialise
from nets_jax.training import OPTIMIZERS, Optimizer, make_optimizer, minibatch_order, steps_per_epoch


def _static(default: Any) -> Any:
  return struct.field(pytree_node=False, default=default)


@struct.dataclass
class NetsConfig:
  """The settings of a search; the defaults are the paper's (section 3.4).

  Fields marked static shape the program: changing one compiles it again. All others are traced, so
  changing one, or a `vmap` over it, compiles nothing.

  Attributes:
    population_size: k, at least 2 (static).
    generations: n; the first population is generation 0, so n + 1 are evaluated.
    elites: e, how many of the best go on unchanged, from 0 to k - 1.
    selection: one of `operators.SELECTIONS` (static).
    crossover_rate: p, probability that a gene comes from parent 1.
    noise_rate: q, probability that a weight gets noise.
    noise_scale: standard deviation of that noise.
    resample_rate: r, probability that a weight is drawn anew.
    dormancy_rate: s, probability that a gene falls dormant.
    init_scale: standard deviation of initial and redrawn weights.
    initial_density: probability that a gene of generation 0 is expressed.
    target_density: tau, in (0, 1].
    penalty_weight: factor of the density penalty; 1 in the paper.
    patience: stops the search after more than this many generations without a better fitness; None
      never does.
    optimizer: a name in `training.OPTIMIZERS`, or a function from the learning rate to an optax
      transformation (static).
    learning_rate: eta.
    batch_size: examples in a minibatch (static).
    fitness_epochs: epochs of training in a fitness evaluation, fractions too (static).
    retain_weights: the Lamarckian ablation: trained weights go back into the genome (static).
    objective: what to minimise in place of the paper's penalised loss; see `fitness.Objective` (static).
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
  init_scale: float = 0.1
  initial_density: float = 1.0
  target_density: float = 0.2
  penalty_weight: float = 1.0
  patience: int | None = None
  optimizer: Optimizer = _static("sgd")
  learning_rate: float = 1e-3
  batch_size: int = _static(72)
  fitness_epochs: float = _static(1.0)
  retain_weights: bool = _static(False)
  objective: Objective | None = _static(None)


@struct.dataclass
class State:
  """A search between two generations.

  Attributes:
    key: the run's key; generation g uses `fold_in(key, g)`.
    generation: the next to be evaluated, int32.
    population: its genomes, `Layout.rows` of them; rows from `population_size` on are padding.
    fitness: of the last generation evaluated [population_size]; +inf before the first.
    best, best_fitness: the best ticket of all generations so far, and its fitness.

  The state of R runs side by side has a leading axis [R] on `key`, `fitness`, `best` and `best_fitness`; its
  population holds the genomes of run 0, then those of run 1, and so on, with the padding at the end.
  """

  key: jax.Array
  generation: jax.Array
  population: Ticket
  fitness: jax.Array
  best: Ticket
  best_fitness: jax.Array


@functools.partial(jax.jit, static_argnames=("network", "input_shape", "layout"))
def init_all(
  keys: jax.Array,
  network: nn.Module,
  input_shape: tuple[int, ...],
  configs: NetsConfig,
  layout: parallel.Layout,
) -> State:
  """Generation 0 of several runs: `initialise` for each genome, genome i from `fold_in` of its index.

  Args:
    keys: of the runs [R].
    network: the module.
    input_shape: shape of one input, without the batch axis.
    configs: settings whose traced fields have a leading axis [R].
    layout: of the R x population_size genomes.
  """
  population_keys, run_keys = jax.vmap(lambda key: tuple(jax.random.split(key)))(keys)

  def one(place, shared):
    run, genome = place
    key, init_scale, initial_density = jax.tree.map(lambda leaf: leaf[run], shared)
    key = jax.random.fold_in(key, genome)
    return initialise(key, network, input_shape, init_scale=init_scale, initial_density=initial_density)

  shared = (population_keys, configs.init_scale, configs.initial_density)
  runs, k = keys.shape[0], configs.population_size
  population = parallel.map_tickets(one, layout, _places(runs, configs, layout), shared)
  state = State(
    key=run_keys,
    generation=jnp.int32(0),
    population=population,
    fitness=jnp.full((runs, k), jnp.inf),
    best=parallel.fetch_rows(population, k * jnp.arange(runs), layout),
    best_fitness=jnp.full(runs, jnp.inf),
  )
  return _held(state, layout)


@functools.partial(jax.jit, static_argnames=("network", "layout"))
def step_all(
  state: State, network: nn.Module, data: Dataset, configs: NetsConfig, layout: parallel.Layout
) -> tuple[State, Metrics]:
  """Evaluates a generation of each run and breeds the next: the body of Algorithm 1's loop.

  Each run is as it would be alone, to the bit.

  Args:
    state: of R runs, from `init_all` or an earlier `step_all`.
    network: the module.
    data: its `train` and `valid` parts are used; the test part never is.
    configs: settings whose traced fields have a leading axis [R].
    layout: of the R x population_size genomes.

  Returns:
    The next state, and the metrics of the generation evaluated [R, population_size].
  """
  keys = jax.vmap(lambda key: generation_keys(key, state.generation))(state.key)
  shuffle_keys, training_keys, breeding_keys = keys
  population, metrics = _evaluate(
    shuffle_keys, training_keys, state.population, network, data, configs, layout
  )
  index = jnp.argmin(metrics.fitness, axis=1)
  lowest = jnp.min(metrics.fitness, axis=1)
  first_rows = configs.population_size * jnp.arange(index.size)
  leaders = parallel.fetch_rows(state.population, first_rows + index, layout)
  better = jax.vmap(lambda is_better, *two: jax.tree.map(functools.partial(jnp.where, is_better), *two))
  next_state = State(
    key=state.key,
    generation=state.generation + 1,
    population=breed(breeding_keys, population, metrics.fitness, configs, layout),
    fitness=metrics.fitness,
    best=better(lowest < state.best_fitness, leaders, state.best),
    best_fitness=jnp.minimum(lowest, state.best_fitness),
  )
  return _held(next_state, layout), metrics


@functools.partial(jax.jit, static_argnames=("network", "input_shape", "layout"))
def init(
  key: jax.Array,
  network: nn.Module,
  input_shape: tuple[int, ...],
  config: NetsConfig,
  layout: parallel.Layout,
) -> State:
  """Generation 0 of one run; see `init_all`."""
  return _alone(init_all(key[None], network, input_shape, stack_configs([config]), layout))


@functools.partial(jax.jit, static_argnames=("network", "layout"))
def step(
  state: State, network: nn.Module, data: Dataset, config: NetsConfig, layout: parallel.Layout
) -> tuple[State, Metrics]:
  """Evaluates a generation of one run and breeds the next; see `step_all`.

  Returns:
    The next state, and the metrics of the generation evaluated [population_size].
  """
  runs, metrics = step_all(_as_runs(state), network, data, stack_configs([config]), layout)
  return _alone(runs), jax.tree.map(lambda leaf: leaf[0], metrics)


def stack_configs(configs: Sequence[NetsConfig]) -> NetsConfig:
  """The settings of several runs as one, each traced field with a leading axis [R]; `patience` is left out.

  Raises:
    UsageError: a static field, which shapes the program, differs.
  """
  configs = [config.replace(patience=None) for config in configs]  # only the host looks at it
  for name in (name for name in NetsConfig.__dataclass_fields__ if name not in traced_fields()):
    values = [getattr(config, name) for config in configs]
    if any(value != values[0] for value in values):
      other = next(value for value in values if value != values[0])
      raise UsageError(f"runs side by side must agree in {name}, not have {values[0]} and {other}")
  return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *configs)


def traced_fields() -> list[str]:
  """The settings in which runs side by side may differ, for they do not shape the program."""
  fields = NetsConfig.__dataclass_fields__
  return [name for name, field in fields.items() if field.metadata.get("pytree_node", True)]


def generation_keys(key: jax.Array, generation: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The keys of a run's generation: of its shuffles, of dropout in its trainings, of its breeding."""
  return tuple(jax.random.split(jax.random.fold_in(key, generation), 3))


def _as_runs(state: State) -> State:
  """One run's state as that of runs side by side."""
  lifted = jax.tree.map(lambda leaf: leaf[None], state.replace(population=None, generation=None))
  return lifted.replace(population=state.population, generation=state.generation)


def _alone(state: State) -> State:
  """The state of the only run."""
  lowered = jax.tree.map(lambda leaf: leaf[0], state.replace(population=None, generation=None))
  return lowered.replace(population=state.population, generation=state.generation)


def _places(runs: int, config: NetsConfig, layout: parallel.Layout) -> tuple[jax.Array, jax.Array]:
  """The run of each row, and its index among the run's genomes; padding counts on in the last run."""
  index = jnp.arange(layout.rows)
  run = jnp.minimum(index // config.population_size, runs - 1)
  return run, index - run * config.population_size


def fitness_steps(config: NetsConfig, num_examples: int) -> int:
  """T, the SGD iterations of a fitness evaluation: `fitness_epochs` in steps, at least one."""
  return max(1, round(config.fitness_epochs * steps_per_epoch(num_examples, config.batch_size)))


def genome_fitness(
  training_key: jax.Array,
  index: jax.Array,
  genome: Ticket,
  network: nn.Module,
  data: Dataset,
  order: jax.Array,
  config: NetsConfig,
) -> tuple[Metrics, Ticket]:
  """The fitness of genome `index`, and the genome as it goes on: itself, or as `retain_weights` has it."""
  metrics, trained = fitness(
    jax.random.fold_in(training_key, index),
    network,
    genome,
    data.train,
    data.valid,
    order,
    make_optimizer(config.optimizer, config.learning_rate),
    config.objective or penalised_loss(config.target_density, config.penalty_weight),
  )
  return metrics, retain(genome, trained) if config.retain_weights else genome


def _evaluate(
  shuffle_keys, training_keys, population, network, data, configs, layout
) -> tuple[Ticket, Metrics]:
  """Every genome's fitness, all of a run on the same minibatches."""
  steps = fitness_steps(configs, len(data.train))
  shuffle = lambda key: minibatch_order(key, len(data.train), configs.batch_size, steps)  # noqa: E731
  orders = jax.vmap(shuffle)(shuffle_keys)
  runs, k = len(orders), configs.population_size

  def one(row, shared):
    run, index, genome = row
    data, of_runs = shared
    # Of one run the minibatches are everyone's, and an accelerator gathers them once for all genomes.
    training_key, order, config = jax.tree.map(lambda leaf: leaf[0 if runs == 1 else run], of_runs)
    metrics, genome = genome_fitness(training_key, index, genome, network, data, order, config)
    return (metrics, genome) if configs.retain_weights else metrics

  rows = (*_places(runs, configs, layout), population)
  result = parallel.map_tickets(one, layout, rows, (data, (training_keys, orders, configs)))
  metrics, population = result if configs.retain_weights else (result, population)
  metrics = parallel.share(metrics, layout)
  return population, jax.tree.map(lambda x: x[: runs * k].reshape(runs, k), metrics)


def offspring(key: jax.Array, parent_1: Ticket, parent_2: Ticket, config: NetsConfig) -> Ticket:
  """One child: crossover, noise, resampling and dormancy, in the paper's order (section 3.3)."""
  crossover_key, noise_key, resample_key, dormancy_key = jax.random.split(key, 4)
  child = operators.crossover(crossover_key, parent_1, parent_2, config.crossover_rate)
  child = operators.noise(noise_key, child, config.noise_rate, config.noise_scale)
  child = operators.resample(resample_key, child, config.resample_rate, config.init_scale)
  return operators.dormancy(dormancy_key, child, config.dormancy_rate)


def breed(
  keys: jax.Array, population: Ticket, fitness: jax.Array, configs: NetsConfig, layout: parallel.Layout
) -> Ticket:
  """The next generation of each run: the elites in its first rows, offspring in all others (Algorithm 1).

  Args:
    keys: of each run's breeding [R]; child i uses `fold_in` of its index.
    population: the genomes [layout.rows].
    fitness: of each, minimised [R, population_size].
    configs: settings whose traced fields have a leading axis [R].
    layout: of the population.
  """
  k = configs.population_size
  run, index = _places(len(keys), configs, layout)
  child_keys = jax.vmap(lambda r, i: jax.random.split(jax.random.fold_in(keys[r], i), 3))(run, index)
  draw = lambda key, r: operators.select(key, fitness[r], configs.selection)  # noqa: E731
  drawn = jax.vmap(jax.vmap(draw, (0, None)))(child_keys[:, :2], run)
  ranked = jnp.argsort(fitness, axis=1, stable=True)[run, jnp.minimum(index, k - 1)]
  is_elite = (index < configs.elites[run]) & jnp.isfinite(fitness[run, ranked])
  chosen = jnp.where(is_elite, ranked, drawn[:, 0]), drawn[:, 1]
  chosen = jax.tree.map(lambda parent: run * k + parent, chosen)
  parent_1, parent_2 = parallel.take_rows(population, parallel.share(chosen, layout), layout)

  def one(row, configs):
    key, run, is_elite, parent_1, parent_2 = row
    child = offspring(key, parent_1, parent_2, jax.tree.map(lambda leaf: leaf[run], configs))
    return jax.tree.map(functools.partial(jnp.where, is_elite), parent_1, child)

  rows = parallel.hold((child_keys[:, 2], run, is_elite, parent_1, parent_2), layout)
  return parallel.map_tickets(one, layout, rows, configs)


def _held(state: State, layout: parallel.Layout) -> State:
  """The state with the population sharded and all else on every device, at every step alike."""
  population = parallel.hold(state.population, layout)
  return parallel.share(state.replace(population=None), layout).replace(population=population)


def validate(config: NetsConfig, num_examples: int) -> None:
  """Raises UsageError for settings that make no search, one line each."""
  most = config.population_size - 1
  check(config, ["population_size"], "at least 2, for crossover takes two", lambda k: k >= 2)
  check(config, ["elites"], f"from 0 to population_size - 1 = {most}", lambda e: 0 <= e <= most)
  rates = ("crossover_rate", "noise_rate", "resample_rate", "dormancy_rate")
  check(config, rates, "in [0, 1]", lambda rate: 0 <= rate <= 1)
  check(config, ("initial_density", "target_density"), "in (0, 1]", lambda d: 0 < d <= 1)
  positive = ("init_scale", "learning_rate", "fitness_epochs")
  check(config, positive, "positive", lambda value: 0 < value < math.inf)
  at_least_0 = ("noise_scale", "penalty_weight", "generations", "patience")
  check(config, at_least_0, "at least 0", lambda value: 0 <= value < math.inf)
  check_fits_data(config, "batch_size", num_examples)
  for name, allowed in (("selection", operators.SELECTIONS), ("optimizer", tuple(OPTIMIZERS))):
    check(
      config, [name], f"one of {', '.join(allowed)}", lambda v, allowed=allowed: callable(v) or v in allowed
    )
