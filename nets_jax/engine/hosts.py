"""One run over several processes, on one host or many: how they meet, and which of them writes files."""

import itertools
import re
import socket
import time
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax._src import distributed  # its client's barrier has no public name
from jax.experimental import multihost_utils

from nets_jax.errors import UsageError

JOIN_SECONDS = 60  # for all processes to come together
SILENCE_SECONDS = 30  # after which a process counts as lost
LOAD_SECONDS = 3600  # for process 0 to prepare a data set

Loaded = TypeVar("Loaded")

_BARRIERS = itertools.count()


def join(
  coordinator_address: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
  """Makes this one of the processes of a run, each of which calls the same functions with the same arguments.

  To be called before anything else uses JAX. From then on a layout spans the devices of all processes,
  and every process ends with the same results. A process that stops or falls silent ends the others.

  Args:
    coordinator_address: `host:port` of process 0, which listens there.
    num_processes: how many.
    process_id: which of them this is, from 0. None of the three: what JAX detects of its cluster.

  Raises:
    UsageError: an impossible argument, no cluster to detect, or no answer from process 0.
  """
  if (coordinator_address, num_processes, process_id) != (None, None, None):
    if coordinator_address is None or num_processes is None or process_id is None:
      raise UsageError("coordinator_address, num_processes and process_id go together; give all three")
    if not 0 <= process_id < num_processes:
      raise UsageError(f"process_id must be from 0 to {num_processes - 1}, not {process_id}")
    if not re.fullmatch(r".+:\d+", coordinator_address):
      raise UsageError(f"coordinator_address must be host:port, not {coordinator_address!r}")
    if process_id > 0:
      _await_coordinator(coordinator_address)
  jax.config.update("jax_cpu_collectives_implementation", "gloo")
  jax.config.update("jax_enable_preemption_service", False)  # it would keep SIGTERM from ending the process
  try:
    jax.distributed.initialize(
      coordinator_address,
      num_processes,
      process_id,
      initialization_timeout=JOIN_SECONDS,
      heartbeat_timeout_seconds=SILENCE_SECONDS,
    )
  except (ValueError, RuntimeError) as error:
    raise UsageError(f"cannot join the processes of a run: {error}") from error


def _await_coordinator(address: str) -> None:
  """Waits for process 0, whose absence would have JAX abort the program."""
  host, _, port = address.rpartition(":")
  give_up = time.monotonic() + JOIN_SECONDS
  while True:
    try:
      socket.create_connection((host.strip("[]"), int(port)), timeout=JOIN_SECONDS).close()
      return
    except (OSError, OverflowError) as error:
      if time.monotonic() > give_up or isinstance(error, OverflowError):
        raise UsageError(f"no answer from process 0 at {address} ({error}); is it running there?") from error
    time.sleep(0.5)


def is_primary() -> bool:
  """Whether this is the process that writes files: the only one, or process 0."""
  return jax.process_index() == 0


def primary_first(load: Callable[[], Loaded]) -> Loaded:
  """`load()` in process 0, which may prepare files, and only then in the others, which find them."""
  loaded = [load()] if is_primary() else []
  client = distributed.global_state.client
  if client is not None:  # a collective would give up after 30 s, and preparing data may take minutes
    client.wait_at_barrier(f"primary_first_{next(_BARRIERS)}", timeout_in_ms=1000 * LOAD_SECONDS)
  return loaded[0] if loaded else load()


def any_of(*flags: bool) -> tuple[bool, ...]:
  """For each flag whether it is set in any process."""
  if jax.process_count() == 1:
    return flags
  return tuple(bool(flag) for flag in multihost_utils.process_allgather(np.array(flags)).any(axis=0))


def broadcast(content: bytes) -> bytes:
  """The bytes that process 0 gives, in every process."""
  halves = np.array(divmod(len(content), 1 << 31), np.int32)  # JAX has no wider integers by default
  high, low = (int(half) for half in multihost_utils.broadcast_one_to_all(halves))
  size = (high << 31) + low
  padded = np.zeros(size, np.uint8)
  if is_primary():
    padded[:] = np.frombuffer(content, np.uint8)
  return np.asarray(multihost_utils.broadcast_one_to_all(padded)).tobytes()
