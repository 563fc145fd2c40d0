"""What a loop saves and finds saved: trees of arrays by name, a record, and what run they are of."""

import dataclasses
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from nets_jax.engine import checkpoint_file, hosts
from nets_jax.engine.startup import installed_version
from nets_jax.errors import UsageError
from nets_jax.rows import Row

# What a loop saves: trees of arrays by name, and a record that JSON can hold.
State = tuple[Mapping[str, PyTree], Mapping[str, object]]


@dataclasses.dataclass(frozen=True)
class Saved:
  """A state as it was saved.

  Attributes:
    at: how far the loop had come, in words.
    turns: how many turns it had made.
    record: what the loop kept on the host.
    rows: of its journal.
    arrays: by name.
  """

  at: str
  turns: int
  record: Mapping[str, Any]
  rows: Sequence[Row]
  arrays: Mapping[str, np.ndarray]

  def tree(self, name: str, like: PyTree) -> PyTree:
    """The tree of that name as NumPy arrays (and keys), in the structure of `like`.

    Raises:
      UsageError: a leaf is missing, or of another shape or type.
    """

    def leaf(path, expected):
      full, is_key = leaf_name(name, path), jnp.issubdtype(expected.dtype, jax.dtypes.prng_key)
      want = jax.eval_shape(jax.random.key_data, expected) if is_key else expected
      got = self.arrays.get(full)
      if got is None or (got.shape, got.dtype) != (want.shape, want.dtype):
        is_there = "none" if got is None else f"{got.dtype}{list(got.shape)}"
        raise UsageError(
          f"the checkpoint is of another version of the program: {full} is {is_there} there and "
          f"{want.dtype}{list(want.shape)} here"
        )
      return jax.random.wrap_key_data(jnp.asarray(got), impl=jax.random.key_impl(expected)) if is_key else got

    return jax.tree_util.tree_map_with_path(leaf, like)


class LoopCheckpoints(Protocol):
  """What a loop needs to save its state and to go on from it; see `checkpoints.Checkpoints`."""

  def restore(self, identity: Callable[[], Mapping[str, object]]) -> Saved | None:
    """What the loop goes on from; None is its beginning."""
    ...

  def note(self, rows: Sequence[Row], at: str, take: Callable[[], State], last: bool = False) -> None:
    """Takes a turn's rows, and the state after it."""
    ...

  def wait(self, arrays: PyTree) -> None:
    """Blocks until the arrays are there."""
    ...


class Unsaved:
  """What a loop has in place of `Checkpoints` when nothing is to be saved."""

  def restore(self, identity: Callable[[], Mapping[str, object]]) -> None:
    """There is nothing."""

  def note(self, rows: Sequence[Row], at: str, take: Callable[[], State], last: bool = False) -> None:
    """Does nothing."""

  def wait(self, arrays: PyTree) -> None:
    """Blocks until the arrays are there."""
    jax.block_until_ready(arrays)


def share_saved(saved: Saved | None) -> Saved | None:
  """What process 0 has restored, in every process."""
  if jax.process_count() == 1:
    return saved
  packed = b""
  if saved is not None:
    plain = {field.name: getattr(saved, field.name) for field in dataclasses.fields(saved)}
    arrays = plain.pop("arrays")
    packed = checkpoint_file.pack(plain, arrays).tobytes()
  packed = hosts.broadcast(packed)
  if not packed:
    return None
  plain, arrays = checkpoint_file.unpack(np.frombuffer(packed, np.uint8))
  return Saved(**plain, arrays=arrays)


def fingerprint(tree: PyTree) -> str:
  """A CRC-32 of a tree's arrays, to tell one data set from another."""
  total = 0
  for leaf in jax.tree.leaves(tree):
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    array = np.ascontiguousarray(jax.random.key_data(leaf) if is_key else leaf)
    total = zlib.crc32(f"{array.dtype}{array.shape}".encode(), total)
    total = zlib.crc32(array.reshape(-1).view(np.uint8).data, total)
  return f"{total:08x}"


def leaf_name(name: str, path: Sequence[object]) -> str:
  """The name of a leaf among a checkpoint's arrays: its tree's, and the way to it."""
  return ".".join([name, *(jax.tree_util.keystr((key,), simple=True) for key in path)])


def standard(value: Mapping[str, object]) -> dict[str, object]:
  """As it comes back from JSON, so that it can be compared with what does."""
  return json.loads(json.dumps(value, default=str))


def flat(tree: Mapping[str, object], prefix: str = "") -> dict[str, object]:
  """A record of records as one, names joined by points."""
  record = {}
  for name, value in tree.items():
    record |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
  return record


def versions() -> dict[str, object]:
  """What may change the last bits of results."""
  versions = {package: installed_version(package) for package in ("nets_jax", "jax", "jaxlib")}
  return {"versions": versions, "platform": jax.devices()[0].platform}
