"""From one ticket to a population: the only file that knows of batches, devices and meshes.

A population is stored with its leading axis sharded over a mesh axis, `population`. Each device runs
its own tickets: on a CPU core one after the other, so that the weights in training stay in the cache;
on an accelerator `chunk` at once, by default all. The same program serves every number of devices.
"""

import dataclasses
import functools
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nets_jax.data import Dataset
from nets_jax.errors import UsageError
from nets_jax.networks import Params
from nets_jax.tickets import Ticket
from nets_jax.training import (
  Evaluation,
  Optimizer,
  TrainingState,
  advance,
  evaluate,
  make_optimizer,
  minibatch_order,
  start,
  steps_per_epoch,
)

AXIS = "population"


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
    devices: how many of JAX's devices to use; None is all, but no more than tickets.
    chunk: tickets that an accelerator runs at once; None is its whole share. A CPU device takes one
      at a time whatever the chunk: XLA's batched CPU kernels are slower, and their last bits depend
      on the size of the batch.

  Raises:
    UsageError: more devices than there are, or a chunk below 1.
  """
  available = jax.devices()
  if devices is not None and not 1 <= devices <= len(available):
    raise UsageError(f"devices must be from 1 to {len(available)} on this machine, not {devices}")
  if chunk is not None and chunk < 1:
    raise UsageError(f"chunk must be at least 1, not {chunk}")
  used = available[: min(devices or len(available), size)]
  return Layout(size, Mesh(np.array(used), (AXIS,)), 1 if used[0].platform == "cpu" else chunk)


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

  return jax.shard_map(
    run_shard,
    mesh=layout.mesh,
    in_specs=(PartitionSpec(AXIS), PartitionSpec()),
    out_specs=PartitionSpec(AXIS),
    check_vma=False,
  )(rows, shared)


def hold(population: Any, layout: Layout) -> Any:
  """Inside a compiled program: keeps the rows of a population on their devices."""
  return jax.lax.with_sharding_constraint(population, NamedSharding(layout.mesh, PartitionSpec(AXIS)))


def share(tree: Any, layout: Layout) -> Any:
  """Inside a compiled program: keeps a copy on every device."""
  return jax.lax.with_sharding_constraint(tree, NamedSharding(layout.mesh, PartitionSpec()))


def replicate(tree: Any, layout: Layout) -> Any:
  """Copies arrays to every device, once, so that programs need not send them again."""
  return jax.device_put(tree, NamedSharding(layout.mesh, PartitionSpec()))


def pad(population: Any, layout: Layout) -> Any:
  """Puts `layout.size` rows on their devices, with copies of the first as padding."""
  extra = layout.rows - layout.size
  padded = jax.tree.map(lambda x: jnp.concatenate([x] + [x[:1]] * extra), population)
  return jax.device_put(padded, NamedSharding(layout.mesh, PartitionSpec(AXIS)))


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


@functools.partial(jax.jit, static_argnames=("layout", "optimizer"))
def _start_tickets(tickets: Ticket, learning_rate, *, layout, optimizer) -> TrainingState:
  begin = lambda ticket, rate: start(ticket, make_optimizer(optimizer, rate))  # noqa: E731
  return map_tickets(begin, layout, tickets, learning_rate)


@functools.partial(
  jax.jit, static_argnames=("network", "layout", "optimizer", "batch_size", "steps", "whole_epochs")
)
def _train_some_steps(
  rows, shared, *, network, layout, optimizer, batch_size, steps, whole_epochs
) -> tuple[TrainingState, dict[str, Evaluation]]:
  """Some steps of every ticket, each on the minibatches of its own key, then its score on each split."""

  def one(row, shared):
    key, state, masks = row
    first, train_split, scored, learning_rate = shared
    order_key, dropout_key = jax.random.split(key)
    order = minibatch_order(
      order_key, len(train_split), batch_size, steps, first=first, whole_epochs=whole_epochs
    )
    transformation = make_optimizer(optimizer, learning_rate)
    state = advance(dropout_key, network, state, masks, train_split, order, transformation, first)
    return state, {name: evaluate(network, state.weights, split) for name, split in scored.items()}

  return map_tickets(one, layout, rows, shared)


@dataclasses.dataclass(frozen=True)
class Trained:
  """What came of training tickets side by side.

  Attributes:
    weights: theta_T of each, stacked.
    curves: a dict for each evaluation and ticket with keys `iteration`, `epoch`, `ticket`, for each
      split its `<split>_loss` and `<split>_accuracy`, and `seconds`, the wall-clock time since the start
      without compilation.
    compile_seconds: wall-clock time of tracing and compiling.
  """

  weights: Params
  curves: list[dict[str, Any]]
  compile_seconds: float


def train_tickets(
  keys: jax.Array,
  network: nn.Module,
  tickets: Ticket,
  data: Dataset,
  *,
  epochs: int | None = None,
  steps: int | None = None,
  eval_every: int | None = None,
  splits: Sequence[str] = ("valid", "test"),
  optimizer: Optimizer = "sgd",
  learning_rate: float = 1e-3,
  batch_size: int = 72,
  layout: Layout | None = None,
  on_rows: Callable[[list[dict]], None] = lambda rows: None,
) -> Trained:
  """Trains tickets side by side, each as it would be alone, and scores them as they go.

  Args:
    keys: of the shuffles and dropout: one for each ticket, or a single one, by which all are trained on
      the same minibatches.
    network: the module.
    tickets: a population of them.
    data: trained on `train`.
    epochs: how long, or
    steps: how long, in iterations.
    eval_every: iterations between evaluations; None is an epoch. The last iteration is always scored.
    splits: what to score on.
    optimizer, learning_rate, batch_size: see `training`.
    layout: of the tickets; None is `make_layout(number of tickets)`.
    on_rows: called with the rows of each evaluation as it is made.
  """
  count = jax.tree.leaves(tickets)[0].shape[0]
  layout = layout or make_layout(count)
  per_epoch = steps_per_epoch(len(data.train), batch_size)
  steps = epochs * per_epoch if steps is None else steps
  eval_every = min(eval_every or per_epoch, steps)
  keys = jnp.broadcast_to(keys, (count,))
  keys, tickets = pad((keys, tickets), layout)
  train_split, scored = replicate((data.train, {name: getattr(data, name) for name in splits}), layout)
  state = _start_tickets(tickets, learning_rate, layout=layout, optimizer=optimizer)
  static = {"network": network, "layout": layout, "optimizer": optimizer, "batch_size": batch_size}
  curves, seconds, compile_seconds, programs = [], 0.0, 0.0, {}
  for first in range(0, steps, eval_every):
    some = min(eval_every, steps - first)
    rows, shared = (keys, state, tickets.masks), (first, train_split, scored, learning_rate)
    if some not in programs:
      whole = eval_every % per_epoch == 0
      programs[some], taken = compile_program(
        _train_some_steps, rows, shared, **static, steps=some, whole_epochs=whole
      )
      compile_seconds += taken
    begin = time.perf_counter()
    state, evaluations = jax.block_until_ready(programs[some](rows, shared))
    seconds += time.perf_counter() - begin
    found = _curve_rows(first + some, (first + some) / per_epoch, count, jax.device_get(evaluations), seconds)
    curves += found
    on_rows(found)
  return Trained(jax.tree.map(lambda x: x[:count], state.weights), curves, compile_seconds)


def _curve_rows(iteration, epoch, count, evaluations, seconds) -> list[dict[str, Any]]:
  return [
    {"iteration": iteration, "epoch": epoch, "ticket": i}
    | {f"{name}_loss": float(found.loss[i]) for name, found in evaluations.items()}
    | {f"{name}_accuracy": float(found.accuracy[i]) for name, found in evaluations.items()}
    | {"seconds": seconds}
    for i in range(count)
  ]
