"""From one ticket to a population: the only file that knows of batches, devices, meshes and hosts.

A population is stored with its leading axis sharded over a mesh axis, `population`. Each device runs
its own tickets: on a CPU core one after the other, so that the weights in training stay in the cache;
on an accelerator `chunk` at once, by default all. The same program serves every number of devices, and
of processes (see `processes.py`), each of which runs the same Python code on its own devices.
"""

import contextlib
import dataclasses
import functools
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nets_jax.errors import UsageError

AXIS = "population"
SHARDS_AT_ONCE = 6  # that a device holds in breeding; see `take_rows`
SHARDED, WHOLE = PartitionSpec(AXIS), PartitionSpec()


@dataclasses.dataclass(frozen=True)
class Layout:
  """Where the tickets of a population live, and how many of them run at once.

  Attributes:
    size: tickets in the population.
    mesh: the devices, in one axis.
    chunk: tickets a device runs at once; None is its whole share.
  """

  size: int
  mesh: Mesh
  chunk: int | None

  @property
  def rows(self) -> int:
    """Leading axis of a stored population: `size` rounded up to fill every device equally.

    Rows from `size` on are padding; nothing reads them.
    """
    return -(-self.size // self.mesh.size) * self.mesh.size


def use_cpu_cores(count: int | None = None) -> None:
  """Gives JAX one CPU device per core, which trains tickets faster than one device of many cores.

  To be called before anything else uses JAX, keys included; without effect on accelerators.

  Args:
    count: number of CPU devices; None is the number of cores this process may use.

  Raises:
    UsageError: JAX has already started with another number of CPU devices.
  """
  count = count or len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count()))
  try:
    jax.config.update("jax_num_cpu_devices", count)
  except RuntimeError as error:
    if len(jax.devices("cpu")) != count:
      raise UsageError("use_cpu_cores must be called before JAX is used; restart the runtime") from error


def make_layout(size: int, *, devices: int | None = None, chunk: int | None = None) -> Layout:
  """A layout for `size` tickets.

  Args:
    size: tickets in the population.
    devices: how many devices of each process to use; None is all, but, in a single process, no more than
      tickets. (Of several processes each takes part, with padding if need be.)
    chunk: tickets that an accelerator runs at once; None is its whole share. A CPU device takes one
      at a time whatever the chunk: XLA's batched CPU kernels are slower, and their last bits depend
      on the size of the batch.

  Raises:
    UsageError: more devices than there are, or a chunk below 1.
  """
  available = len(jax.local_devices())
  if devices is not None and not 1 <= devices <= available:
    raise UsageError(f"devices must be from 1 to {available} on this machine, not {devices}")
  if chunk is not None and chunk < 1:
    raise UsageError(f"chunk must be at least 1, not {chunk}")
  count = devices or available
  if jax.process_count() == 1:
    count = min(count, size)
  used = [d for p in range(jax.process_count()) for d in jax.local_devices(process_index=p)[:count]]
  return Layout(size, Mesh(np.array(used), (AXIS,)), 1 if used[0].platform == "cpu" else chunk)


def resized(layout: Layout, size: int) -> Layout:
  """The same for another number of tickets, in a single process on no more devices than these."""
  devices = layout.mesh.devices[: size if jax.process_count() == 1 else None]
  return Layout(size, Mesh(devices, (AXIS,)), layout.chunk)


def check_memory(ticket: Any, layout: Layout) -> None:
  """Raises UsageError if a population cannot be bred in the memory there is.

  Breeding holds the population `SHARDS_AT_ONCE` times. A host's memory is that of all of its CPU devices
  together; an accelerator has its own. Training takes more on top, so no population that fits is refused.

  Args:
    ticket: one genome, or its shapes and types.
    layout: of the population.
  """
  size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(ticket))
  device = layout.mesh.local_devices[0]
  limit = (device.memory_stats() or {}).get("bytes_limit") or host_memory()
  share = jax.process_count() if device.platform == "cpu" else layout.mesh.size
  if not limit or layout.size <= (fits := share * limit // (SHARDS_AT_ONCE * size)):
    return
  raise UsageError(
    f"a population of {layout.size:,} genomes of {size:,} bytes needs "
    f"{layout.size * SHARDS_AT_ONCE * size / 1e9:,.1f} GB to be bred; here are {share * limit / 1e9:,.1f}; "
    f"lower population_size (or runs side by side): at most {fits:,} genomes fit, less what training takes"
  )


def host_memory() -> int:
  """Bytes of memory that this process may use, by the machine and by its control group; 0 if unknown."""
  limits = []
  with contextlib.suppress(AttributeError, OSError, ValueError):
    limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
  for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
    with contextlib.suppress(OSError, ValueError):  # `max` is no number
      limits.append(int(pathlib.Path(path).read_text()))
  return min(limits, default=0)


def map_tickets(function: Callable, layout: Layout, rows: Any, shared: Any) -> Any:
  """`function(row, shared)` for each row of a population: the one place where tickets are batched.

  Args:
    function: a program for one ticket. Whatever it computes has the same bits on any number of devices.
    layout: of the population.
    rows: a pytree whose leaves have `layout.rows` rows.
    shared: a pytree that every ticket sees whole.

  Returns:
    The results, stacked, sharded as the population is.
  """

  def run_shard(rows, shared):
    share = layout.rows // layout.mesh.size
    chunk = min(layout.chunk or share, share)
    run = lambda row: function(row, shared)  # noqa: E731
    if chunk == share and share > 1:
      return jax.vmap(run)(rows)
    return jax.lax.map(run, rows, batch_size=None if chunk == 1 else chunk)

  return _map_shards(run_shard, layout, (rows, shared), (SHARDED, WHOLE), SHARDED)


def _map_shards(
  function: Callable, layout: Layout, arguments: tuple, specs: tuple, result: PartitionSpec
) -> Any:
  """`function` on every device, on its part of each argument."""
  return jax.shard_map(function, mesh=layout.mesh, in_specs=specs, out_specs=result, check_vma=False)(
    *arguments
  )


def take_rows(population: Any, indices: tuple[jax.Array, ...], layout: Layout) -> tuple[Any, ...]:
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
    own = jax.lax.axis_index(AXIS)

    def keep(kept, shard, turn):
      """The rows kept so far, with those that the shard of `turn` devices back has."""
      first = (own - turn) % size * share
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


def fetch_rows(population: Any, indices: jax.Array, layout: Layout) -> Any:
  """Inside a compiled program: some rows of a population, a copy on every device; moves those rows alone."""

  def run_shard(population, indices):
    share = layout.rows // layout.mesh.size
    local = indices - jax.lax.axis_index(AXIS) * share

    def fetch(leaf):
      rows = leaf[jnp.clip(local, 0, share - 1)]
      here = ((local >= 0) & (local < share)).reshape(local.shape + (1,) * (leaf.ndim - 1))
      bits = rows.view(f"uint{8 * rows.dtype.itemsize}")  # a sum of floats would turn -0.0 into 0.0
      found = jax.lax.psum(jnp.where(here, bits, 0), AXIS)
      return found.astype(bool) if rows.dtype == bool else found.view(rows.dtype)

    return jax.tree.map(fetch, population)

  return _map_shards(run_shard, layout, (population, indices), (SHARDED, WHOLE), WHOLE)


def hold(population: Any, layout: Layout) -> Any:
  """Inside a compiled program: keeps the rows of a population on their devices."""
  return jax.lax.with_sharding_constraint(population, NamedSharding(layout.mesh, SHARDED))


def share(tree: Any, layout: Layout) -> Any:
  """Inside a compiled program: keeps a copy on every device."""
  return jax.lax.with_sharding_constraint(tree, NamedSharding(layout.mesh, WHOLE))


def replicate(tree: Any, layout: Layout) -> Any:
  """Copies arrays to every device, once, so that programs need not send them again."""
  return _place(tree, NamedSharding(layout.mesh, WHOLE))


def pad(population: Any, layout: Layout) -> Any:
  """Puts `layout.size` rows on their devices, with copies of the first as padding."""
  extra = layout.rows - layout.size
  padded = jax.tree.map(lambda x: jnp.concatenate([x] + [x[:1]] * extra), population)
  return _place(padded, NamedSharding(layout.mesh, SHARDED))


def unpadded(population: Any, layout: Layout) -> Any:
  """The shapes and types of a population without its padding, which depends on the number of devices."""
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct((layout.size, *x.shape[1:]), x.dtype), population)


def fetch_population(population: Any, layout: Layout) -> Any:
  """A population without its padding, as NumPy arrays in every process."""
  return jax.tree.map(lambda x: x[: layout.size], fetch(population))


def fetch(tree: Any) -> Any:
  """Arrays as NumPy arrays in every process, wherever their parts lie."""

  def whole(leaf):
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
      return jax.device_get(leaf)
    return multihost_utils.process_allgather(leaf, tiled=True)

  return jax.tree.map(whole, tree)


def _place(tree: Any, sharding: NamedSharding) -> Any:
  """Arrays that every process has alike, each process's part of them put on its own devices."""
  if jax.process_count() == 1:
    return jax.device_put(tree, sharding)

  def place(leaf):
    if jnp.issubdtype(jnp.asarray(leaf).dtype, jax.dtypes.prng_key):
      return jax.random.wrap_key_data(place(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
    local = np.asarray(leaf)
    return jax.make_array_from_callback(local.shape, sharding, lambda part: local[part])

  return jax.tree.map(place, tree)


def compile_program(program: Callable, *args, **kwargs) -> tuple[Callable, float]:
  """Compiles a jitted program ahead of its first run, so that the time of it stands apart.

  Args:
    program: a function under `jax.jit`.
    *args, **kwargs: what it will be called with.

  Returns:
    The compiled program, which takes the arguments that are not static; and the seconds it took,
    near zero where the process has compiled the same before.
  """
  begin = time.perf_counter()
  compiled = program.lower(*args, **kwargs).compile()
  return compiled, time.perf_counter() - begin
