"""One turn of Neuroevolution Ticket Search (paper, Algorithm 1): state, `init` and `step`.

One call of `step` is one turn of the algorithm's loop and one XLA program: the fitness of every
genome, the best ticket so far, then elitism, selection, crossover and mutation for the next
generation. `step_all` is the same for several runs side by side, whose genomes are one population. The
paper writes fitness as maximised in Algorithm 1 and minimised elsewhere, and `mutate(G)` for
`mutate(G')`; here it is minimised, and the offspring are mutated.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from nets_jax import structs
from nets_jax.engine.batching import fetch_rows, keep_replicated, keep_sharded, map_tickets
from nets_jax.engine.layouts import Layout
from nets_jax.evolution import halving
from nets_jax.evolution.breeding import breed, child_context, operator_key
from nets_jax.evolution.configuration import NetsSettings, Settings, longest_steps, stack_settings
from nets_jax.evolution.fitness import Metrics, fitness, last_minibatches, retain
from nets_jax.evolution.halving import Bounds
from nets_jax.evolution.operators import apply
from nets_jax.evolution.places import by_run, row_places, rows_of
from nets_jax.networks.layer_rules import own_counts
from nets_jax.structs import Struct
from nets_jax.tickets.layer_counts import hold
from nets_jax.tickets.ticket import Ticket, initialise
from nets_jax.training.task import Task
from nets_jax.training.train import minibatch_order


@structs.dataclass
class State(Struct):
  """A search between two generations.

  Attributes:
    key: the run's key; generation g uses `fold_in(key, g)`.
    generation: the next to be evaluated, int32.
    population: its genomes, `Layout.rows` of them, and padding; see `places`.
    parents: indices of each genome's parents in the generation before, int32; an elite's are itself, and
      those of generation 0 are -1.
    fitness: of the last generation evaluated; +inf before the first.
    best, best_fitness: the best ticket of all generations so far, and its fitness.

  The state of R runs side by side has a leading axis [R] on all but the population and `generation`; its
  population holds the genomes of all. Where a stage of the search has fewer genomes than there is room for,
  what stands in the place of the others means nothing.
  """

  key: Key[Array, "*runs"]
  generation: Int[Array, ""]
  population: Ticket
  parents: Int[Array, "*runs population 2"]
  fitness: Float[Array, "*runs population"]
  best: Ticket
  best_fitness: Float[Array, "*runs"]


@functools.partial(jax.jit, static_argnames=("layout",))
def init_all(keys: Key[Array, " runs"], task: Task, settings: Settings, layout: Layout) -> State:
  """Generation 0 of several runs; see `first_genome`.

  Args:
    keys: of the runs.
    task: its network, and the shape of an input.
    settings: of the runs, each traced leaf with a leading axis [R].
    layout: of the R x population_size genomes.
  """
  population_keys, run_keys = jax.vmap(lambda key: tuple(jax.random.split(key)))(keys)

  def genome(place, shared):
    run, index = place
    key, settings = jax.tree.map(lambda leaf: leaf[run], shared)
    return first_genome(key, settings, index, task)

  runs, k = keys.shape[0], settings.search.population_size
  population = map_tickets(genome, layout, row_places(runs, layout), (population_keys, settings))
  state = State(
    key=run_keys,
    generation=jnp.int32(0),
    population=population,
    parents=jnp.full((runs, k, 2), -1, jnp.int32),
    fitness=jnp.full((runs, k), jnp.inf, jnp.float32),
    best=fetch_rows(
      population.replace(scores=None), rows_of(jnp.arange(runs), jnp.int32(0), runs, layout), layout
    ),
    best_fitness=jnp.full(runs, jnp.inf, jnp.float32),
  )
  return _held(state, layout)


def first_genome(key: Key[Array, ""], settings: Settings, index: Int[Array, ""], task: Task) -> Ticket:
  """Genome `index` of a run's generation 0: `initialise`, from `fold_in` of its index.

  Then those operators act that say they do, as if it were a child; and each layer that has a count of its own
  is held to it.

  Args:
    key: of the run's first population.
    settings: of the run.
    index: of the genome.
    task: its network, and the shape of an input.
  """
  search = settings.search
  genome_key, density = jax.random.fold_in(key, index), search.initial_density
  genome = initialise(
    genome_key,
    task.network,
    task.data.input_shape,
    initialiser=settings.initialiser,
    initial_density=density,
    layers=task.layers,
  )
  if search.observer is not None:
    numbers = jax.tree.map(lambda mask: jnp.zeros(mask.shape, jnp.float32), genome.masks)
    genome = genome.replace(scores=numbers)
  context = child_context(None, index, jnp.int32(0), jnp.bool_(False), key, settings)
  # `initialise` splits its key in two: the first two of these. The third is the pair's, the fourth its own.
  of_child, of_pair = (jax.random.split(jax.random.fold_in(key, i), 4) for i in (index, index - index % 2))
  streams = of_child[3], of_pair[2]
  for operator in search.operators:
    if operator.on_first:
      genome = apply(operator, operator_key(operator, search.operators, streams), genome, context)
  if not own_counts(genome.layers):
    return genome
  held = jax.random.fold_in(of_child[3], len(search.operators))
  return hold(held, genome, dense_only=search.brings_layers)


@functools.partial(jax.jit, static_argnames=("layout",))
def step_all(
  state: State, task: Task, settings: Settings, layout: Layout, bounds: Bounds | None = None
) -> tuple[State, Metrics]:
  """Evaluates a generation of each run and breeds the next: the body of Algorithm 1's loop.

  Each run is as it would be alone, to the bit.

  Args:
    state: of R runs, from `init_all` or an earlier `step_all`.
    task: its network and loss, and the `train` and `valid` parts of its data.
    settings: of the runs, each traced leaf with a leading axis [R].
    layout: of the R x population_size genomes.
    bounds: how much of a halving search's program its present stage is, if its stages share one. The longest
      trainings of it are those of the last stage.

  Returns:
    The next state, and the metrics of the generation evaluated [R, population_size], +inf where a stage has
    no genome.
  """
  keys = jax.vmap(lambda key: generation_keys(key, state.generation))(state.key)
  shuffle_keys, training_keys, breeding_keys = keys
  search = settings.search
  population, metrics = _evaluate(
    shuffle_keys, training_keys, state.population, task, settings, layout, bounds
  )
  index = jnp.argmin(metrics.fitness, axis=1)
  lowest = jnp.min(metrics.fitness, axis=1)
  rows = rows_of(jnp.arange(index.size), index, index.size, layout)
  leaders = fetch_rows(state.population.replace(scores=None), rows, layout)
  better = jax.vmap(lambda is_better, *two: jax.tree.map(functools.partial(jnp.where, is_better), *two))
  order = jax.vmap(lambda ranking, of_run: ranking.order(of_run))(search.ranking, metrics)
  genomes = None if bounds is None else jnp.asarray(bounds.genomes)
  population, parents = breed(
    breeding_keys, population, order, settings, state.generation + 1, layout, genomes
  )
  next_state = State(
    key=state.key,
    generation=state.generation + 1,
    population=population,
    parents=parents,
    fitness=jnp.asarray(metrics.fitness),
    best=better(lowest < state.best_fitness, leaders, state.best),
    best_fitness=jnp.minimum(lowest, state.best_fitness),
  )
  return _held(next_state, layout), metrics


@functools.partial(jax.jit, static_argnames=("layout",))
def init(key: Key[Array, ""], task: Task, search: NetsSettings, layout: Layout) -> State:
  """Generation 0 of one run; see `init_all`."""
  task = task.at_precision(search.precision)
  return _alone(init_all(key[None], task, stack_settings([task], [search]), layout))


def step(state: State, task: Task, search: NetsSettings, layout: Layout) -> tuple[State, Metrics]:
  """The next state of one run, and the metrics of the generation evaluated [population_size]; see `step_all`.

  It waits for them: of two programs that exchange genomes, two devices of a CPU may take one each, and hang.
  """
  return jax.block_until_ready(_step(state, task, search, layout))


@functools.partial(jax.jit, static_argnames=("layout",))
def _step(state: State, task: Task, search: NetsSettings, layout: Layout) -> tuple[State, Metrics]:
  """`step`, which does not wait."""
  task = task.at_precision(search.precision)
  runs, metrics = step_all(_as_runs(state), task, stack_settings([task], [search]), layout)
  return _alone(runs), jax.tree.map(lambda leaf: leaf[0], metrics)


def generation_keys(
  key: Key[Array, ""], generation: int | Int[Array, ""]
) -> tuple[Key[Array, ""], Key[Array, ""], Key[Array, ""]]:
  """The keys of a run's generation: of its shuffles, of dropout in its trainings, of its breeding."""
  shuffles, trainings, breeding = jax.random.split(jax.random.fold_in(key, generation), 3)
  return shuffles, trainings, breeding


def _as_runs(state: State) -> State:
  """One run's state as that of runs side by side."""
  lifted = jax.tree.map(lambda leaf: leaf[None], state.replace(population=None, generation=None))
  return lifted.replace(population=state.population, generation=state.generation)


def _alone(state: State) -> State:
  """The state of the only run."""
  lowered = jax.tree.map(lambda leaf: leaf[0], state.replace(population=None, generation=None))
  return lowered.replace(population=state.population, generation=state.generation)


def genome_fitness(
  training_key: Key[Array, ""],
  index: int | Int[Array, ""],
  genome: Ticket,
  task: Task,
  order: Int[Array | np.ndarray, "steps batch"],
  search: NetsSettings,
  order_key: Key[Array, ""] | None = None,
  steps: Int[Array, ""] | None = None,
  scored: tuple[int | Int[Array, ""], int] | None = None,
) -> tuple[Metrics, Ticket]:
  """The fitness of genome `index`, and the genome as it goes on.

  That is itself, with what `retain_weights` or an operator that observes make of the training. Augmentations
  are drawn by `order_key`, that of the generation's shuffles. See `fitness` for the last two.
  """
  key = jax.random.fold_in(training_key, index)
  metrics, trained = fitness(
    key, genome, task, order, search.ranking, search.objective, order_key, steps, scored
  )
  if search.observer is not None:
    seen = last_minibatches(order, steps, search.observer.minibatches or 0)
    genome = search.observer.observe(genome, trained, task, seen)
  return metrics, retain(genome, trained) if search.retain_weights else genome


def _evaluate(
  shuffle_keys: Key[Array, " runs"],
  training_keys: Key[Array, " runs"],
  population: Ticket,
  task: Task,
  settings: Settings,
  layout: Layout,
  bounds: Bounds | None,
) -> tuple[Ticket, Metrics]:
  """Every genome's fitness, all of a run on the same minibatches."""
  search, examples = settings.search, len(task.data.train)
  task = task.replace(training=settings.training, initialiser=settings.initialiser)
  own = halving.extent(search, task)  # of the first stage, where they share a program
  longest = own.steps if bounds is None else longest_steps(search, task)
  live, steps, scored = (None, None, own.examples) if bounds is None else map(jnp.asarray, bounds)
  batch_size = task.training.batch_size
  orders = jax.vmap(lambda key: minibatch_order(key, examples, batch_size, longest, needed=steps))(
    shuffle_keys
  )
  of_all = bounds is None and own.examples == len(task.data.valid)
  runs, k = len(orders), search.population_size
  changes = search.retain_weights or search.observer is not None

  def trained(row, shared):
    run, index, genome = row
    task, of_runs, steps, scored = shared
    # Of one run the minibatches are everyone's, and an accelerator gathers them once for all genomes.
    of_run = jax.tree.map(lambda leaf: leaf[0 if runs == 1 else run], of_runs)
    training_key, order, settings, order_key = of_run
    task = task.replace(training=settings.training, initialiser=settings.initialiser)
    metrics, genome = genome_fitness(
      training_key, index, genome, task, order, settings.search, order_key, steps,
      None if scored is None else (scored, own.examples),
    )  # fmt: skip
    return metrics, genome if changes else None

  rows = (*row_places(runs, layout), population)
  order_keys = shuffle_keys if settings.training.augment else None
  of_runs = training_keys, orders, settings, order_keys
  shared = task.replace(training=None, initialiser=None), of_runs, steps, None if of_all else scored
  metrics, changed = map_tickets(trained, layout, rows, shared, None if live is None else runs * live)
  metrics = jax.tree.map(lambda x: by_run(x, runs, k, layout), keep_replicated(metrics, layout))
  if live is not None:
    metrics = jax.tree.map(lambda x: jnp.where(jnp.arange(k) < live, x, jnp.inf), metrics)
  return population if changed is None else changed, metrics


def _held(state: State, layout: Layout) -> State:
  """The state with the population sharded and all else on every device, at every step alike."""
  population = keep_sharded(state.population, layout)
  return keep_replicated(state.replace(population=None), layout).replace(population=population)
