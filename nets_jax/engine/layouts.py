"""Where a population lives: devices, meshes and hosts, and arrays on their way to them.

A population is stored with its leading axis sharded over a mesh axis, `population`. Each device runs
its own tickets: on a CPU core one after the other, so that the weights in training stay in the cache;
on an accelerator `chunk` at once, by default all. The same program serves every number of devices, and
of processes (see `hosts.py`), each of which runs the same Python code on its own devices.
"""

import contextlib
import dataclasses
import os
import pathlib
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from nets_jax.errors import UsageError

Tree = TypeVar("Tree")

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

    Rows beyond the tickets are padding; nothing reads them. Where they lie, `pad` and `evolution.places` say.
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
  available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
  count = count or available or 1
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


def on_device(layout: Layout, device: jax.Device, size: int) -> Layout:
  """The same for some tickets on one device."""
  return Layout(size, Mesh(np.array([device]), (AXIS,)), layout.chunk)


def check_memory(ticket: PyTree, layout: Layout) -> None:
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


def replicate(tree: Tree, layout: Layout) -> Tree:
  """Copies arrays to every device, once, so that programs need not send them again."""
  return _place(tree, NamedSharding(layout.mesh, WHOLE))


def pad(population: Tree, layout: Layout) -> Tree:
  """Puts `layout.size` rows on their devices, with copies of the first as padding."""
  extra = layout.rows - layout.size
  return shard(jax.tree.map(lambda x: jnp.concatenate([x] + [x[:1]] * extra), population), layout)


def shard(population: Tree, layout: Layout) -> Tree:
  """Puts `layout.rows` rows on their devices."""
  return _place(population, NamedSharding(layout.mesh, SHARDED))


def unpadded(population: Tree, layout: Layout) -> Tree:
  """The shapes and types of a population without its padding, which depends on the number of devices."""
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct((layout.size, *x.shape[1:]), x.dtype), population)


def fetch_population(population: Tree, layout: Layout) -> Tree:
  """A population without its padding, as NumPy arrays in every process."""
  return jax.tree.map(lambda x: x[: layout.size], fetch(population))


def fetch(tree: Tree) -> Tree:
  """Arrays as NumPy arrays in every process, wherever their parts lie."""

  def whole(leaf):
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
      return jax.device_get(leaf)
    return multihost_utils.process_allgather(leaf, tiled=True)

  return jax.tree.map(whole, tree)


def _place(tree: Tree, sharding: NamedSharding) -> Tree:
  """Arrays that every process has alike, each process's part of them put on its own devices."""
  if jax.process_count() == 1:
    return jax.device_put(tree, sharding)

  def place(leaf):
    if jnp.issubdtype(jnp.asarray(leaf).dtype, jax.dtypes.prng_key):
      return jax.random.wrap_key_data(place(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
    local = np.asarray(leaf)
    return jax.make_array_from_callback(local.shape, sharding, lambda part: local[part])

  return jax.tree.map(place, tree)


def compile_in_thread(program: jax.stages.Wrapped, *args: object) -> Future[jax.stages.Compiled]:
  """Traces a jitted program now, and compiles it beside whatever comes next.

  Args:
    program: a function under `jax.jit`.
    *args: their shapes, types and shardings, or arrays; and the static ones.

  Returns:
    What holds the compiled program, or the error, once that is done.
  """
  lowered = program.lower(*args)
  executor = ThreadPoolExecutor(1, "compile")
  compiled = executor.submit(lowered.compile)
  executor.shutdown(wait=False)
  return compiled


def compile_program(
  program: jax.stages.Wrapped, *args: object, **kwargs: object
) -> tuple[jax.stages.Compiled, float]:
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
