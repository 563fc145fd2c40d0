"""The next generation: elites, selection, and the operators on each child (paper, Algorithm 1)."""

import functools
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from nets_jax.engine.batching import keep_replicated, keep_sharded, map_tickets, take_rows
from nets_jax.engine.layouts import Layout
from nets_jax.evolution.configuration import NetsSettings, Settings
from nets_jax.evolution.context import Context
from nets_jax.evolution.operators import Operator, apply
from nets_jax.evolution.places import by_run, row_places, rows_of
from nets_jax.networks.layer_rules import own_counts
from nets_jax.tickets.layer_counts import hold
from nets_jax.tickets.ticket import Ticket

# Of one child: the key that its operators draw from, and that of its pair.
Streams = tuple[Key[Array, ""], Key[Array, ""]]


def child_context(
  parents: tuple[Ticket, Ticket] | None,
  index: Int[Array, ""],
  generation: Int[Array, ""],
  is_elite: Bool[Array, ""],
  key: Key[Array, ""],
  settings: Settings,
) -> Context:
  """What the operators see besides the child; see `Context`.

  Args:
    parents, index, generation, is_elite: of the child.
    key: of its run's breeding.
    settings: of its run.
  """
  search = settings.search
  return Context(
    parents=parents,
    index=index,
    generation=generation,
    generations=search.generations,
    is_elite=is_elite,
    key=key,
    initialiser=settings.initialiser,
    initial_density=search.initial_density,
    target_density=search.ranking.target_density,
    is_line=jnp.bool_(search.keeps_line) & (index == search.elites),
    iterations=settings.iterations,
  )


def operator_key(operator: Operator, operators: Sequence[Operator], streams: Streams) -> Key[Array, ""]:
  """An operator's key for a child, from the child's own stream, or its pair's if it is paired.

  Of the own stream that of its place in the list; of the pair's that of its place among the paired, or the
  stream itself where it is the only one.
  """
  place = next(i for i, other in enumerate(operators) if other is operator)
  of_child, of_pair = streams
  if not operator.paired:
    return jax.random.split(of_child, len(operators))[place]
  number, before = (sum(other.paired for other in some) for some in (operators, operators[:place]))
  return of_pair if number == 1 else jax.random.split(of_pair, number)[before]


def offspring(streams: Streams, context: Context, search: NetsSettings) -> Ticket:
  """One child of the context's parents: a copy of the first, changed by the operators in their order.

  An elite is such a copy too, changed by those alone that act on elites. In the end each layer that has a
  count of its own is held to it.

  Args:
    streams: the keys that the operators draw from: the child's own, and that of its pair.
    context: of the child, with its parents.
    search: its operators.
  """
  assert context.parents is not None
  genome = context.parents[0]
  for on_elites, some in itertools.groupby(search.operators, key=lambda operator: operator.on_elites):
    child = genome
    for operator in some:
      child = apply(operator, operator_key(operator, search.operators, streams), child, context)
    if not on_elites:
      child = jax.tree.map(functools.partial(jnp.where, context.is_elite), genome, child)
    genome = child
  if not own_counts(genome.layers):
    return genome
  # Another key than any of the operators', who have those of the first indices.
  key = jax.random.fold_in(streams[0], len(search.operators))
  return hold(key, genome, dense_only=search.brings_layers)


def choose_parents(
  keys: Key[Array, "rows 2"],
  fitness: Float[Array, "runs population"],
  places: tuple[Int[Array, " rows"], Int[Array, " rows"]],
  search: NetsSettings,
  genomes: Int[Array, ""] | None = None,
) -> tuple[Int[Array, "rows parents"], Bool[Array, " rows"]]:
  """Whose children the next genomes are, by index among the genomes of their run.

  The genome of a line that an operator keeps has the index `elites`, and one parent: that at its own index.

  Args:
    keys: of each row, one for either parent.
    fitness: of each genome, minimised.
    places: each row's run, and its index there.
    search: of the runs, each traced leaf with a leading axis [runs].
    genomes: how many there are in each run, if fewer than there is room for.

  Returns:
    The parents of each row, an elite's both itself; and whether the row is an elite.
  """
  run, index = places

  def draw(key, run):
    return jax.tree.map(lambda leaf: leaf[run], search.selection)(key, fitness[run])

  drawn = jax.vmap(jax.vmap(draw, (0, None)))(keys, run)
  if genomes is not None:  # where none is finite, all are equal, but for those that the stage has no more
    of_all = jax.vmap(jax.vmap(lambda key: jax.random.randint(key, (), 0, genomes)))(keys)
    drawn = jnp.where(jnp.isfinite(fitness).any(axis=1)[run][:, None], drawn, of_all)
  last = search.population_size - 1
  ranked = jnp.argsort(fitness, axis=1, stable=True)[run, jnp.minimum(index, last)]
  elites = jnp.asarray(search.elites)[run]
  is_elite = (index < elites) & jnp.isfinite(fitness[run, ranked])
  if search.keeps_line:
    drawn = jnp.where((index == elites)[:, None], index[:, None], drawn)
  return jnp.where(is_elite[:, None], ranked[:, None], drawn), is_elite


def breed(
  keys: Key[Array, " runs"],
  population: Ticket,
  fitness: Float[Array, "runs population"],
  settings: Settings,
  generation: Int[Array, ""],
  layout: Layout,
  genomes: Int[Array, ""] | None = None,
) -> tuple[Ticket, Int[Array, "runs population 2"]]:
  """The next generation of each run: the elites in its first rows, offspring in all others (Algorithm 1).

  Args:
    keys: of each run's breeding; child i uses `fold_in` of its index.
    population: the genomes [layout.rows].
    fitness: of each, minimised; or another number that orders them. It is +inf where there is no genome.
    settings: of the runs, each traced leaf with a leading axis [runs].
    generation: the one that is bred.
    layout: of the population.
    genomes: how many there are in each run, where that is known when the program runs.

  Returns:
    The population, and each genome's parents; see `State`.
  """
  runs, k = fitness.shape
  run, index = row_places(runs, layout)
  # Of each child: a key for either parent, the stream that its operators draw from, and that of its pair.
  child_key = jax.vmap(lambda run, i: jax.random.split(jax.random.fold_in(keys[run], i), 4))
  child_keys = child_key(run, index)
  streams = child_keys[:, 2], child_key(run, index - index % 2)[:, 3]
  chosen, is_elite = choose_parents(child_keys[:, :2], fitness, (run, index), settings.search, genomes)
  chosen = keep_replicated(chosen, layout)
  rows = rows_of(run[:, None], chosen, runs, layout)
  parents = take_rows(population, (rows[:, 0], rows[:, 1]), layout)

  def child(row, shared):
    streams, index, run, is_elite, parents = row
    settings, keys, generation = shared
    settings, key = jax.tree.map(lambda leaf: leaf[run], (settings, keys))
    context = child_context(parents, index, generation, is_elite, key, settings)
    return offspring(streams, context, settings.search)

  rows = keep_sharded((streams, index, run, is_elite, parents), layout)
  live = None if genomes is None else runs * genomes
  children = map_tickets(child, layout, rows, (settings, keys, generation), live)
  return children, by_run(chosen, runs, k, layout).astype(jnp.int32)
