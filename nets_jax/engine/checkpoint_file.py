"""One checkpoint on disk: an array of bytes that orbax stores, whole or not at all.

The bytes are arrays by name in safetensors format, a JSON record among them, with the SHA-256 of all that at
the end. Nothing in them is code.
"""

import hashlib
import json
import logging
import math
import os
import pathlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import safetensors.numpy

if TYPE_CHECKING:  # orbax takes seconds to load, so that only what saves loads it
  import orbax.checkpoint

Manager: TypeAlias = "orbax.checkpoint.CheckpointManager"
Whole = Mapping[str, Any]  # what JSON gives back; `Checkpoints` says what is in it
KEPT = 2  # so that one is left if the newest is damaged
CONTENT, RECORD = "content", "record"
DIGEST_SIZE = hashlib.sha256().digest_size


def write(
  manager: Manager, turn: int, record: Mapping[str, object], arrays: Mapping[str, np.ndarray]
) -> None:
  """Begins to store the checkpoint of a turn; `manager.wait_until_finished` says how that went."""
  import orbax.checkpoint as ocp

  manager.save(turn, args=ocp.args.PyTreeSave({CONTENT: pack(record, arrays)}))


def make_manager(directory: pathlib.Path) -> Manager:
  """Orbax's manager, in this process alone; arrays are stored as they are, so that no file claims more."""
  import orbax.checkpoint as ocp

  alone = ocp.options.MultiprocessingOptions(
    primary_host=0, active_processes={0}, barrier_sync_key_prefix="nets_jax"
  )
  options = ocp.CheckpointManagerOptions(
    max_to_keep=KEPT, cleanup_tmp_directories=True, create=False, multiprocessing_options=alone
  )
  logging.getLogger("absl").addFilter(_QUIET)
  handler = ocp.PyTreeCheckpointHandler(use_compression=False, multiprocessing_options=alone)
  return ocp.CheckpointManager(directory, options=options, item_handlers=handler)


class _Quiet(logging.Filter):
  """Drops what orbax logs: it tells of one fault in hundreds of lines, and we in one."""

  def filter(self, record: logging.LogRecord) -> bool:
    return f"{os.sep}orbax{os.sep}" not in record.pathname


_QUIET = _Quiet()


def reason(error: BaseException) -> str:
  """Why a file could not be read or written, shortly."""
  text = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
  code = re.search(r"os_error_code='(\d+)'", text)
  return os.strerror(int(code[1])) if code else text[:160]


def read(path: pathlib.Path) -> tuple[Whole, dict[str, np.ndarray]]:
  """A checkpoint's record and arrays; any exception says that it is not whole."""
  import orbax.checkpoint as ocp

  with make_manager(path.parent) as manager:
    described = dict(manager.item_metadata(int(path.name)))
    if described.keys() != {CONTENT}:
      raise ValueError("it has other parts than a checkpoint's")
    on_disk = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    claimed = math.prod(described[CONTENT].shape) * np.dtype(described[CONTENT].dtype).itemsize
    if claimed > on_disk:
      raise ValueError(f"it claims {claimed:,} bytes and has {on_disk:,}")
    as_numpy = {CONTENT: ocp.RestoreArgs(restore_type=np.ndarray)}
    restored = manager.restore(int(path.name), args=ocp.args.PyTreeRestore(restore_args=as_numpy))
  whole, arrays = unpack(restored[CONTENT])
  if whole["turns"] != int(path.name):
    raise ValueError(f"it is of turn {whole['turns']}")
  return whole, arrays


def pack(record: Mapping[str, object], arrays: Mapping[str, np.ndarray]) -> np.ndarray:
  """A record and arrays as bytes, with their SHA-256 at the end."""
  text = np.frombuffer(json.dumps(record).encode(), np.uint8)
  arrays = {name: np.asarray(leaf, order="C") for name, leaf in arrays.items()}
  content = safetensors.numpy.save({**arrays, RECORD: text})
  return np.frombuffer(content + hashlib.sha256(content).digest(), np.uint8)


def unpack(packed: np.ndarray) -> tuple[Whole, dict[str, np.ndarray]]:
  """What `pack` was given."""
  content, digest = packed[:-DIGEST_SIZE].tobytes(), packed[-DIGEST_SIZE:].tobytes()
  if hashlib.sha256(content).digest() != digest:
    raise ValueError("its checksum is wrong")
  arrays = safetensors.numpy.load(content)
  return json.loads(arrays.pop(RECORD).tobytes()), arrays
