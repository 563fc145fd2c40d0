"""From one ticket to a population: the one place where tickets are batched, inside a compiled program."""

import functools
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Int

from nets_jax.engine.cpu_forms import with_cpu_forms
from nets_jax.engine.layouts import AXIS, SHARDED, WHOLE, Layout

Row = TypeVar("Row")
Shared = TypeVar("Shared")
Result = TypeVar("Result")
Tree = TypeVar("Tree")


def map_tickets(
  function: Callable[[Row, Shared], Result],
  layout: Layout,
  rows: Row,
  shared: Shared,
  live: Int[Array, ""] | None = None,
) -> Result:
  """`function(row, shared)` for each row of a population: the one place where tickets are batched.

  On a CPU its convolutions and pooling have other forms; see `engine.cpu_forms`.

  Args:
    function: a program for one ticket. Whatever it computes has the same bits on any number of devices.
    layout: of the population.
    rows: a pytree whose leaves have `layout.rows` rows.
    shared: a pytree that every ticket sees whole.
    live: how many tickets there are, known when the program runs, for devices that take one at a time. They
      are dealt to the devices in turn, so each works off its first rows. Results of others mean nothing.

  Returns:
    The results, stacked, sharded as the population is.
  """

  def run_shard(rows, shared, live):
    share = layout.rows // layout.mesh.size
    chunk = min(layout.chunk or share, share)

    @with_cpu_forms
    def run(row):
      return function(row, shared)

    if live is not None:
      assert chunk == 1, "a device that runs tickets at once has programs of its own for fewer of them"
      # As many on every device, also where there is no ticket: XLA gives up on devices that wait for long.
      return _map_first(run, rows, -(-live // layout.mesh.size))
    if chunk == share and share > 1:
      return jax.vmap(run)(rows)
    return jax.lax.map(run, rows, batch_size=None if chunk == 1 else chunk)

  return _map_shards(run_shard, layout, (rows, shared, live), (SHARDED, WHOLE, WHOLE), SHARDED)


def _map_first(function: Callable[[Row], Result], rows: Row, count: Int[Array, ""]) -> Result:
  """`function` of the first `count` rows, one after the other; zeros for those after them."""
  function = jax.jit(function)  # traced once for its shapes and for the loop

  def visit(i, results):
    found = function(jax.tree.map(lambda leaf: leaf[i], rows))
    return jax.tree.map(lambda all_of, one: all_of.at[i].set(one), results, found)

  shapes = jax.eval_shape(function, jax.tree.map(lambda leaf: leaf[0], rows))
  size = len(jax.tree.leaves(rows)[0])
  nothing = jax.tree.map(lambda leaf: jnp.zeros((size, *leaf.shape), leaf.dtype), shapes)
  return jax.lax.fori_loop(0, count, visit, nothing)


def _map_shards(
  function: Callable[..., Result], layout: Layout, arguments: tuple, specs: tuple, result: PartitionSpec
) -> Result:
  """`function` on every device, on its part of each argument."""
  return jax.shard_map(function, mesh=layout.mesh, in_specs=specs, out_specs=result, check_vma=False)(
    *arguments
  )


def take_rows(population: Tree, indices: tuple[Int[Array, " rows"], ...], layout: Layout) -> tuple[Tree, ...]:
  """Inside a compiled program: rows of a population by index, once for each array of `indices`.

  The shards travel round the ring of devices, and each device keeps the rows it wants as they pass. So it
  never holds more of the population than its own shard and the one that passes, besides the results,
  where an indexed read of a sharded axis would gather the whole population on every device.

  Args:
    population: a pytree whose leaves have `layout.rows` rows.
    indices: int arrays [layout.rows], the same on every device.
    layout: of the population.

  Returns:
    For each array the rows it names, sharded as the population is.
  """
  size = layout.mesh.size
  ring = [(i, (i + 1) % size) for i in range(size)]

  def run_shard(population, indices):
    share = layout.rows // size
    device = jax.lax.axis_index(AXIS)

    def keep(kept, shard, turn):
      """The rows kept so far, with those that the shard of `turn` devices back has."""
      first = (device - turn) % size * share
      return tuple(
        jax.tree.map(functools.partial(choose, index - first), shard, old)
        for index, old in zip(indices, kept, strict=True)
      )

    def choose(index, leaf, old):
      here = (index >= 0) & (index < share)
      here = here.reshape(here.shape + (1,) * (leaf.ndim - 1))
      return jnp.where(here, leaf[jnp.clip(index, 0, share - 1)], old)

    def pass_on(carry, turn):
      shard, kept = carry
      shard = jax.tree.map(lambda leaf: jax.lax.ppermute(leaf, AXIS, ring), shard)
      return (shard, keep(kept, shard, turn)), None

    kept = keep(tuple(population for _ in indices), population, 0)
    return jax.lax.scan(pass_on, (population, kept), jnp.arange(1, size))[0][1]

  return _map_shards(run_shard, layout, (population, indices), (SHARDED, SHARDED), SHARDED)


def fetch_rows(population: Tree, indices: Int[Array, " rows"], layout: Layout) -> Tree:
  """Inside a compiled program: some rows of a population, a copy on every device; moves those rows alone."""

  def run_shard(population, indices):
    share = layout.rows // layout.mesh.size
    local = indices - jax.lax.axis_index(AXIS) * share

    def fetch(leaf):
      rows = leaf[jnp.clip(local, 0, share - 1)]
      here = ((local >= 0) & (local < share)).reshape(local.shape + (1,) * (leaf.ndim - 1))
      bits = rows.view(f"uint{8 * rows.dtype.itemsize}")  # a sum of floats would turn -0.0 into 0.0
      summed = jax.lax.psum(jnp.where(here, bits, 0), AXIS)
      return summed.astype(bool) if rows.dtype == bool else summed.view(rows.dtype)

    return jax.tree.map(fetch, population)

  return _map_shards(run_shard, layout, (population, indices), (SHARDED, WHOLE), WHOLE)


def keep_sharded(population: Tree, layout: Layout) -> Tree:
  """Inside a compiled program: keeps the rows of a population on their devices."""
  return jax.lax.with_sharding_constraint(population, NamedSharding(layout.mesh, SHARDED))


def keep_replicated(tree: Tree, layout: Layout) -> Tree:
  """Inside a compiled program: keeps a copy on every device."""
  return jax.lax.with_sharding_constraint(tree, NamedSharding(layout.mesh, WHOLE))
