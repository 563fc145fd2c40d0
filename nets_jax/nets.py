"""Neuroevolution Ticket Search (paper, Algorithm 1): configuration, state, `init`, `step`, `search`.

One call of `step` is one turn of the algorithm's loop and one XLA program: the fitness of every
genome, the best ticket so far, then elitism, selection, crossover and mutation for the next
generation. The paper writes fitness as maximised in Algorithm 1 and minimised elsewhere, and
`mutate(G)` for `mutate(G')`; here it is minimised, and the offspring are mutated.
"""

import functools
import math
import time
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from nets_jax import operators, parallel
from nets_jax.data import Dataset
from nets_jax.errors import UsageError, check, check_fits_data
from nets_jax.fitness import Metrics, Objective, fitness, penalised_loss, retain
from nets_jax.tickets import Cost, SearchResult, Ticket, initialise
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
  """

  key: jax.Array
  generation: jax.Array
  population: Ticket
  fitness: jax.Array
  best: Ticket
  best_fitness: jax.Array


@functools.partial(jax.jit, static_argnames=("network", "input_shape", "layout"))
def init(
  key: jax.Array,
  network: nn.Module,
  input_shape: tuple[int, ...],
  config: NetsConfig,
  layout: parallel.Layout,
) -> State:
  """Generation 0: `initialise` for each genome, genome i from `fold_in` of its index."""
  population_key, run_key = jax.random.split(key)

  def one(index, shared):
    key, init_scale, initial_density = shared
    key = jax.random.fold_in(key, index)
    return initialise(key, network, input_shape, init_scale=init_scale, initial_density=initial_density)

  shared = (population_key, config.init_scale, config.initial_density)
  population = parallel.map_tickets(one, layout, jnp.arange(layout.rows), shared)
  state = State(
    key=run_key,
    generation=jnp.int32(0),
    population=population,
    fitness=jnp.full(config.population_size, jnp.inf),
    best=parallel.fetch_row(population, 0, layout),
    best_fitness=jnp.float32(jnp.inf),
  )
  return _held(state, layout)


@functools.partial(jax.jit, static_argnames=("network", "layout"))
def step(
  state: State, network: nn.Module, data: Dataset, config: NetsConfig, layout: parallel.Layout
) -> tuple[State, Metrics]:
  """Evaluates a generation and breeds the next: the body of Algorithm 1's loop.

  Args:
    state: from `init` or an earlier `step`.
    network: the module.
    data: its `train` and `valid` parts are used; the test part never is.
    config: the settings.
    layout: of the population.

  Returns:
    The next state, and the metrics of the generation evaluated [population_size].
  """
  shuffle_key, training_key, breeding_key = jax.random.split(
    jax.random.fold_in(state.key, state.generation), 3
  )
  population, metrics = _evaluate(shuffle_key, training_key, state.population, network, data, config, layout)
  index = jnp.argmin(metrics.fitness)
  better = metrics.fitness[index] < state.best_fitness
  leader = parallel.fetch_row(state.population, index, layout)
  next_state = State(
    key=state.key,
    generation=state.generation + 1,
    population=breed(breeding_key, population, metrics.fitness, config, layout),
    fitness=metrics.fitness,
    best=jax.tree.map(functools.partial(jnp.where, better), leader, state.best),
    best_fitness=jnp.minimum(metrics.fitness[index], state.best_fitness),
  )
  return _held(next_state, layout), metrics


def search(
  key: jax.Array,
  network: nn.Module,
  data: Dataset,
  config: NetsConfig | None = None,
  *,
  layout: parallel.Layout | None = None,
  on_rows: Callable[[list[dict[str, Any]]], None] = lambda rows: None,
) -> SearchResult:
  """Runs NeTS and returns the best ticket of all generations.

  Args:
    key: of the whole run; the same key gives the same ticket on any number of devices of a kind.
    network: any `flax.linen` module; see `networks`.
    data: the problem; its test part is not looked at.
    config: the settings; None is the paper's.
    layout: of the population; None is `parallel.make_layout(population_size)`.
    on_rows: called with the history rows of each generation as it ends.

  Returns:
    The ticket, its history (a dict for each generation and genome with keys `generation`, `genome`,
    `fitness`, `valid_loss`, `valid_accuracy`, `density` and `seconds`, the wall-clock time since the
    start without compilation) and the cost.

  Raises:
    UsageError: an impossible setting, or a first generation in which every genome diverges.
  """
  config = config or NetsConfig()
  validate(config, len(data.train))
  layout = layout or parallel.make_layout(config.population_size)
  traced = config.replace(patience=None)  # a number in place of None would be another program
  state = init(parallel.replicate(key, layout), network, data.input_shape, traced, layout)
  data = parallel.replicate(data.replace(test=None), layout)
  run, compile_seconds = parallel.compile_program(step, state, network, data, traced, layout)
  history, seconds, improved, lowest = [], 0.0, 0, math.inf
  for generation in range(config.generations + 1):
    begin = time.perf_counter()
    state, metrics = run(state, data, traced)
    metrics, best_fitness = jax.device_get((metrics, state.best_fitness))
    seconds += time.perf_counter() - begin
    if not math.isfinite(best_fitness):
      raise UsageError(
        f"every genome of generation {generation} diverged in training; lower learning_rate "
        f"({config.learning_rate}) or init_scale ({config.init_scale})"
      )
    rows = _history_rows(generation, metrics, seconds)
    history += rows
    on_rows(rows)
    if best_fitness < lowest:
      improved, lowest = generation, best_fitness
    if config.patience is not None and generation - improved > config.patience:
      break
  evaluations = (generation + 1) * config.population_size
  epochs = (
    evaluations * fitness_steps(config, len(data.train)) / steps_per_epoch(len(data.train), config.batch_size)
  )
  return SearchResult(jax.device_get(state.best), history, Cost(epochs, seconds, compile_seconds))


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


def _evaluate(shuffle_key, training_key, population, network, data, config, layout) -> tuple[Ticket, Metrics]:
  """Every genome's fitness, all on the same minibatches."""
  steps = fitness_steps(config, len(data.train))
  order = minibatch_order(shuffle_key, len(data.train), config.batch_size, steps)

  def one(row, shared):
    training_key, data, order, config = shared
    metrics, genome = genome_fitness(training_key, *row, network, data, order, config)
    return (metrics, genome) if config.retain_weights else metrics

  rows = (jnp.arange(layout.rows), population)
  result = parallel.map_tickets(one, layout, rows, (training_key, data, order, config))
  metrics, population = result if config.retain_weights else (result, population)
  metrics = parallel.share(metrics, layout)
  return population, jax.tree.map(lambda x: x[: config.population_size], metrics)


def offspring(key: jax.Array, parent_1: Ticket, parent_2: Ticket, config: NetsConfig) -> Ticket:
  """One child: crossover, noise, resampling and dormancy, in the paper's order (section 3.3)."""
  crossover_key, noise_key, resample_key, dormancy_key = jax.random.split(key, 4)
  child = operators.crossover(crossover_key, parent_1, parent_2, config.crossover_rate)
  child = operators.noise(noise_key, child, config.noise_rate, config.noise_scale)
  child = operators.resample(resample_key, child, config.resample_rate, config.init_scale)
  return operators.dormancy(dormancy_key, child, config.dormancy_rate)


def breed(
  key: jax.Array, population: Ticket, fitness: jax.Array, config: NetsConfig, layout: parallel.Layout
) -> Ticket:
  """The next generation: the elites in its first rows, offspring in all others (Algorithm 1).

  Args:
    key: of the generation's breeding; child i uses `fold_in` of its index.
    population: the genomes [layout.rows].
    fitness: of each, minimised [population_size].
    config: the settings.
    layout: of the population.
  """
  index = jnp.arange(layout.rows)
  keys = jax.vmap(lambda i: jax.random.split(jax.random.fold_in(key, i), 3))(index)
  draw = jax.vmap(lambda k: operators.select(k, fitness, config.selection))
  ranked = jnp.argsort(fitness, stable=True)
  ranked = ranked[jnp.minimum(index, config.population_size - 1)]
  is_elite = (index < config.elites) & jnp.isfinite(fitness[ranked])
  chosen = jnp.where(is_elite, ranked, draw(keys[:, 0])), draw(keys[:, 1])
  parent_1, parent_2 = parallel.take_rows(population, parallel.share(chosen, layout), layout)

  def one(row, config):
    key, is_elite, parent_1, parent_2 = row
    child = offspring(key, parent_1, parent_2, config)
    return jax.tree.map(functools.partial(jnp.where, is_elite), parent_1, child)

  rows = parallel.hold((keys[:, 2], is_elite, parent_1, parent_2), layout)
  return parallel.map_tickets(one, layout, rows, config)


def _held(state: State, layout: parallel.Layout) -> State:
  """The state with the population sharded and all else on every device, at every step alike."""
  population = parallel.hold(state.population, layout)
  return parallel.share(state.replace(population=None), layout).replace(population=population)


def _history_rows(generation: int, metrics: Metrics, seconds: float) -> list[dict[str, Any]]:
  return [
    {
      "generation": generation,
      "genome": i,
      "fitness": float(metrics.fitness[i]),
      "valid_loss": float(metrics.valid_loss[i]),
      "valid_accuracy": float(metrics.valid_accuracy[i]),
      "density": float(metrics.density[i]),
      "seconds": seconds,
    }
    for i in range(len(metrics.fitness))
  ]


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
