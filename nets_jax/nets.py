"""Neuroevolution Ticket Search (paper, Algorithm 1): state, `init` and `step`.

One call of `step` is one turn of the algorithm's loop and one XLA program: the fitness of every
genome, the best ticket so far, then elitism, selection, crossover and mutation for the next
generation. `step_all` is the same for several runs side by side, whose genomes are one population. The
paper writes fitness as maximised in Algorithm 1 and minimised elsewhere, and `mutate(G)` for
`mutate(G')`; here it is minimised, and the offspring are mutated.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from nets_jax import guidance, operators, parallel, pareto
from nets_jax.config import NetsConfig, fitness_steps, stack_configs
from nets_jax.data import Dataset
from nets_jax.fitness import Metrics, feasible, fitness, penalised, retain, validation_loss
from nets_jax.tickets import Ticket, initialise
from nets_jax.training import make_optimizer, minibatch_order


@struct.dataclass
class State:
  """A search between two generations.

  Attributes:
    key: the run's key; generation g uses `fold_in(key, g)`.
    generation: the next to be evaluated, int32.
    population: its genomes, `Layout.rows` of them; rows from `population_size` on are padding.
    parents: indices of each genome's parents in the generation before, int32 [population_size, 2]; an
      elite's are itself, and those of generation 0 are -1.
    fitness: of the last generation evaluated [population_size]; +inf before the first.
    best, best_fitness: the best ticket of all generations so far, and its fitness.

  The state of R runs side by side has a leading axis [R] on all but the population and `generation`; its
  population holds the genomes of run 0, then those of run 1, and so on, with the padding at the end.
  """

  key: jax.Array
  generation: jax.Array
  population: Ticket
  parents: jax.Array
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

  Each genome's layers are scaled as a child's are, where the configuration asks for that: those of an even
  index and the next by opposite factors; see `_mirrored`.

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
    key, init_scale, initial_density, scale_deviation = jax.tree.map(lambda leaf: leaf[run], shared)
    first, sign = _mirrored(genome)
    # `initialise` splits its key in two: the first two of these.
    scale_key = jax.random.split(jax.random.fold_in(key, first), 3)[2]
    key = jax.random.fold_in(key, genome)
    genome = initialise(key, network, input_shape, init_scale=init_scale, initial_density=initial_density)
    genome = operators.scale_layers(scale_key, genome, sign * scale_deviation)
    if configs.dormancy == "guided":
      return genome.replace(
        scores=jax.tree.map(lambda mask: jnp.zeros(mask.shape, jnp.float32), genome.masks)
      )
    return genome

  shared = (population_keys, configs.init_scale, configs.initial_density, configs.scale_deviation)
  runs, k = keys.shape[0], configs.population_size
  population = parallel.map_tickets(one, layout, _places(runs, configs, layout), shared)
  state = State(
    key=run_keys,
    generation=jnp.int32(0),
    population=population,
    parents=jnp.full((runs, k, 2), -1, jnp.int32),
    fitness=jnp.full((runs, k), jnp.inf, jnp.float32),
    best=parallel.fetch_rows(population.replace(scores=None), k * jnp.arange(runs), layout),
    best_fitness=jnp.full(runs, jnp.inf, jnp.float32),
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
  leaders = parallel.fetch_rows(state.population.replace(scores=None), first_rows + index, layout)
  better = jax.vmap(lambda is_better, *two: jax.tree.map(functools.partial(jnp.where, is_better), *two))
  standings = metrics.fitness
  if configs.objectives == "pareto":
    both = jnp.stack([getattr(metrics, name) for name in pareto.OBJECTIVES], axis=-1)
    standings = jax.vmap(pareto.standings)(both)
  population, parents = breed(breeding_keys, population, standings, configs, state.generation + 1, layout)
  next_state = State(
    key=state.key,
    generation=state.generation + 1,
    population=population,
    parents=parents,
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


def _mirrored(index: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The genome whose draw of scales a genome shares, and the sign it takes it with.

  Of two genomes side by side the second takes the first's step the other way: mirrored sampling (Brockhoff et
  al., 2010), by which six genomes rarely all miss the better half of the scales.
  """
  odd = index % 2
  return index - odd, 1 - 2 * odd


def genome_fitness(
  training_key: jax.Array,
  index: jax.Array,
  genome: Ticket,
  network: nn.Module,
  data: Dataset,
  order: jax.Array,
  config: NetsConfig,
) -> tuple[Metrics, Ticket]:
  """The fitness of genome `index`, and the genome as it goes on.

  That is itself, with what `retain_weights` or guided dormancy make of the training.
  """
  rule = config.objective or validation_loss
  if config.density_rule == "penalty":
    rule = penalised(rule, config.target_density, config.penalty_weight)
  elif config.density_rule != "none":
    rule = feasible(rule, config.target_density)
  metrics, trained = fitness(
    jax.random.fold_in(training_key, index),
    network,
    genome,
    data.train,
    data.valid,
    order,
    make_optimizer(config.optimizer, config.learning_rate),
    rule,
  )
  if config.dormancy == "guided":
    awakens = config.awakening_rate > 0
    scores = guidance.saliency(config.saliency, network, genome, trained, data.train, order, awakens)
    genome = genome.replace(scores=scores)
  return metrics, retain(genome, trained) if config.retain_weights else genome


def _evaluate(
  shuffle_keys, training_keys, population, network, data, configs, layout
) -> tuple[Ticket, Metrics]:
  """Every genome's fitness, all of a run on the same minibatches."""
  steps = fitness_steps(configs, len(data.train))
  shuffle = lambda key: minibatch_order(key, len(data.train), configs.batch_size, steps)  # noqa: E731
  orders = jax.vmap(shuffle)(shuffle_keys)
  runs, k = len(orders), configs.population_size
  changes = configs.retain_weights or configs.dormancy == "guided"

  def one(row, shared):
    run, index, genome = row
    data, of_runs = shared
    # Of one run the minibatches are everyone's, and an accelerator gathers them once for all genomes.
    training_key, order, config = jax.tree.map(lambda leaf: leaf[0 if runs == 1 else run], of_runs)
    metrics, genome = genome_fitness(training_key, index, genome, network, data, order, config)
    return (metrics, genome) if changes else metrics

  rows = (*_places(runs, configs, layout), population)
  result = parallel.map_tickets(one, layout, rows, (data, (training_keys, orders, configs)))
  metrics, population = result if changes else (result, population)
  metrics = parallel.share(metrics, layout)
  return population, jax.tree.map(lambda x: x[: runs * k].reshape(runs, k), metrics)


def offspring(key: jax.Array, parent_1: Ticket, parent_2: Ticket, config: NetsConfig) -> Ticket:
  """One child: crossover, noise, resampling and dormancy, in the paper's order (section 3.3).

  Where dormancy is guided or follows a schedule, it comes after this; see `guidance.dormant`.
  """
  crossover_key, noise_key, resample_key, dormancy_key = jax.random.split(key, 4)
  child = operators.crossover(crossover_key, parent_1, parent_2, config.crossover_rate)
  child = operators.noise(noise_key, child, config.noise_rate, config.noise_scale)
  child = operators.resample(resample_key, child, config.resample_rate, config.init_scale)
  if config.dormancy == "guided" or config.density_rule == "schedule":
    return child
  return operators.dormancy(dormancy_key, child, config.dormancy_rate)


def breed(
  keys: jax.Array,
  population: Ticket,
  fitness: jax.Array,
  configs: NetsConfig,
  generation: jax.Array,
  layout: parallel.Layout,
) -> tuple[Ticket, jax.Array]:
  """The next generation of each run: the elites in its first rows, offspring in all others (Algorithm 1).

  Args:
    keys: of each run's breeding [R]; child i uses `fold_in` of its index.
    population: the genomes [layout.rows].
    fitness: of each, minimised [R, population_size]; or another number that orders them.
    configs: settings whose traced fields have a leading axis [R].
    generation: the one that is bred.
    layout: of the population.

  Returns:
    The population, and each genome's parents; see `State`.
  """
  k = configs.population_size
  run, index = _places(len(keys), configs, layout)
  child_key = jax.vmap(lambda r, i: jax.random.split(jax.random.fold_in(keys[r], i), 5))
  child_keys = child_key(run, index)
  first, sign = _mirrored(index)
  scale_keys = child_key(run, first)[:, 3]
  draw = lambda key, r: operators.select(  # noqa: E731
    key, fitness[r], configs.selection, configs.parents[r]
  )
  drawn = jax.vmap(jax.vmap(draw, (0, None)))(child_keys[:, :2], run)
  ranked = jnp.argsort(fitness, axis=1, stable=True)[run, jnp.minimum(index, k - 1)]
  is_elite = (index < configs.elites[run]) & jnp.isfinite(fitness[run, ranked])
  chosen = parallel.share(jnp.where(is_elite[:, None], ranked[:, None], drawn), layout)
  rows = run[:, None] * k + chosen
  parent_1, parent_2 = parallel.take_rows(population, (rows[:, 0], rows[:, 1]), layout)
  make = configs.breeder or offspring

  def one(row, shared):
    (child_key, scale_key, dormancy_key), sign, run, is_elite, parent_1, parent_2 = row
    configs, generation = shared
    config = jax.tree.map(lambda leaf: leaf[run], configs)
    child = make(child_key, parent_1, parent_2, config).replace(layers=parent_1.layers)
    past = jnp.clip((generation - 1) / jnp.maximum(config.generations - 1, 1), 0.0, 1.0)
    deviation = config.scale_deviation + past * (config.final_scale_deviation - config.scale_deviation)
    child = operators.scale_layers(scale_key, child, sign * deviation)
    genome = jax.tree.map(functools.partial(jnp.where, is_elite), parent_1, child)
    return guidance.dormant(dormancy_key, genome, generation, is_elite, config)

  keys_of_child = child_keys[:, 2], scale_keys, child_keys[:, 4]
  rows = parallel.hold((keys_of_child, sign, run, is_elite, parent_1, parent_2), layout)
  children = parallel.map_tickets(one, layout, rows, (configs, generation))
  return children, chosen[: len(keys) * k].reshape(len(keys), k, 2).astype(jnp.int32)


def _held(state: State, layout: parallel.Layout) -> State:
  """The state with the population sharded and all else on every device, at every step alike."""
  population = parallel.hold(state.population, layout)
  return parallel.share(state.replace(population=None), layout).replace(population=population)
