"""The state of a loop on disk, so that a run which was stopped goes on to the same bits.

A checkpoint holds arrays by name and a record: what the loop keeps on the host, how far its journal went, and
what run it is of. A loop calls `restore` once before it begins, `note` after every turn, and `wait` in place
of blocking until a turn's arrays are there.
"""

import dataclasses
import importlib.metadata
import json
import math
import os
import pathlib
import shutil
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nets_jax import checkpoint_file, parallel, processes
from nets_jax.errors import UsageError
from nets_jax.journal import Journal

FORMAT_VERSION = 3  # 1 knew of no failures of IMP, 2 of no tasks

# What a loop saves: trees of arrays by name, and a record that JSON can hold.
State = tuple[Mapping[str, Any], Mapping[str, Any]]


class Stopped(Exception):
  """A loop has ended where it was, for it was asked to; its state is saved, if there was any."""


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
  rows: Sequence[dict[str, Any]]
  arrays: Mapping[str, np.ndarray]

  def tree(self, name: str, like: Any) -> Any:
    """The tree of that name as NumPy arrays (and keys), in the structure of `like`.

    Raises:
      UsageError: a leaf is missing, or of another shape or type.
    """

    def leaf(path, expected):
      full, is_key = _leaf_name(name, path), jnp.issubdtype(expected.dtype, jax.dtypes.prng_key)
      want = jax.eval_shape(jax.random.key_data, expected) if is_key else expected
      got = self.arrays.get(full)
      if got is None or (got.shape, got.dtype) != (want.shape, want.dtype):
        is_there = "none" if got is None else f"{got.dtype}{list(got.shape)}"
        raise UsageError(
          f"the checkpoint is of another version of the program: {full} is {is_there} there and "
          f"{want.dtype}{list(want.shape)} here"
        )
      return jax.random.wrap_key_data(got, impl=jax.random.key_impl(expected)) if is_key else got

    return jax.tree_util.tree_map_with_path(leaf, like)


class Unsaved:
  """What a loop has in place of `Checkpoints` when nothing is to be saved."""

  def restore(self, identity: Callable[[], Mapping[str, Any]]) -> None:
    """There is nothing."""

  def note(
    self, rows: Sequence[Mapping[str, Any]], at: str, take: Callable[[], State], last: bool = False
  ) -> None:
    """Does nothing."""

  def wait(self, arrays: Any) -> None:
    """Blocks until the arrays are there."""
    jax.block_until_ready(arrays)


class Checkpoints:
  """The checkpoints of one run of one loop, in a directory of their own.

  Of several processes, process 0 alone reads and writes.
  """

  def __init__(
    self,
    directory: str | os.PathLike,
    *,
    every: int = 1,
    seconds: float = 30.0,
    journal: str | os.PathLike | None = None,
    stop: Callable[[], bool] = lambda: False,
    tell: Callable[[str], None] = lambda line: None,
    on_restore: Callable[[Saved], None] = lambda saved: None,
  ):
    """Makes and reads nothing yet.

    Args:
      directory: of the checkpoints; made when there is one to write.
      every: turns between checkpoints.
      seconds: least time between them.
      journal: the CSV file that the loop's rows are appended to; None is `journal.csv` in `directory`.
      stop: asked at every turn and while waiting for one; once it is true, the state is saved and `Stopped`
        raised.
      tell: called with a line that says where the loop goes on, or which checkpoints are damaged.
      on_restore: called with what was restored.

    Raises:
      UsageError: an impossible setting.
    """
    if every < 1 or not 0 <= seconds < math.inf:
      raise UsageError(
        f"checkpoints are made every 1 or more turns and 0 or more seconds, not {every} and {seconds}"
      )
    self.directory = pathlib.Path(directory).absolute()
    self._every, self._seconds = every, seconds
    self._stop, self._tell, self._on_restore = stop, tell, on_restore
    self._journal = Journal(journal or self.directory / "journal.csv")
    self._manager = self._latest = None
    self._identity, self._turns, self._saved_turns = {}, 0, 0
    self._saved_at = time.monotonic()

  def restore(self, identity: Callable[[], Mapping[str, Any]]) -> Saved | None:
    """The newest whole checkpoint, or None where there is none to go on from.

    Args:
      identity: gives what the run's results depend on, for JSON; kept with every checkpoint.

    Raises:
      UsageError: it is of another run, whose differing fields are named.
    """
    self._identity = _standard({**identity(), **_versions()})
    saved = self._load() if processes.is_primary() else None
    saved = _share(saved)
    if saved is not None:
      self._turns = self._saved_turns = saved.turns
      self._tell(f"going on after {saved.at}")
      self._on_restore(saved)
    return saved

  def note(
    self, rows: Sequence[Mapping[str, Any]], at: str, take: Callable[[], State], last: bool = False
  ) -> None:
    """Appends a turn's rows to the journal, and saves the state if it is time to.

    Args:
      rows: of this turn.
      at: how far the loop has come, in words.
      take: gives the state after this turn; it may be called later, so it must not change what it gives.
      last: this was the last turn: saves in any case, and returns when it is on the disk.

    Raises:
      UsageError: a checkpoint cannot be written.
      Stopped: the loop was asked to stop.
    """
    if processes.is_primary():
      self._journal.add(rows)
    self._turns, self._latest = self._turns + 1, (at, take)
    waited = time.monotonic() - self._saved_at
    due = processes.is_primary() and self._turns % self._every == 0 and waited >= self._seconds
    due, asked = processes.any_of(due or last, self._stop())
    if due or asked:
      self._save()
    if last or asked:
      self._finish()
    if asked:
      raise Stopped(f"after {at}, which is saved")

  def wait(self, arrays: Any) -> None:
    """Blocks until arrays are there.

    A single process that is asked to stop meanwhile saves the state of the turn before, and does not wait for
    this one.

    Raises:
      Stopped: the loop was asked to stop.
    """
    begin, leaves = time.monotonic(), jax.tree.leaves(arrays)
    while jax.process_count() == 1 and not all(leaf.is_ready() for leaf in leaves):
      if self._stop():
        if self._latest is None:
          raise Stopped("where it had gone on from" if self._turns else "before its first turn was over")
        self._save()
        self._finish()
        raise Stopped(f"after {self._latest[0]}, which is saved")
      time.sleep(min(max(0.01 * (time.monotonic() - begin), 1e-4), 0.1))
    jax.block_until_ready(arrays)

  def close(self) -> None:
    """Returns when all is on the disk."""
    self._finish()
    self._journal.close()
    if self._manager is not None:
      self._manager.close()

  def _save(self) -> None:
    if self._saved_turns == self._turns:
      return
    at, take = self._latest
    trees, record = take()
    arrays = {}
    for name, tree in trees.items():
      for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        arrays[_leaf_name(name, path)] = parallel.fetch(jax.random.key_data(leaf) if is_key else leaf)
    self._saved_turns, self._saved_at = self._turns, time.monotonic()
    if not processes.is_primary():
      return
    whole = {
      "format_version": FORMAT_VERSION,
      "identity": self._identity,
      "at": at,
      "turns": self._turns,
      "journal": {"size": self._journal.size, "digest": self._journal.digest()},
      "record": record,
    }

    def write():
      self._journal.sync()
      if self._manager is None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._manager = checkpoint_file.make_manager(self.directory)
      checkpoint_file.write(self._manager, self._turns, whole, arrays)

    self._guarded(write)

  def _finish(self) -> None:
    """Returns when the checkpoints that were begun are on the disk."""
    if self._manager is not None:
      self._guarded(self._manager.wait_until_finished)

  def _guarded(self, write: Callable[[], Any]) -> None:
    """Says in one line why a checkpoint cannot be written; the one before is untouched."""
    try:
      write()
    except Exception as error:  # orbax and tensorstore raise many kinds
      self._manager = None
      why = checkpoint_file.reason(error)
      raise UsageError(
        f"cannot write a checkpoint in {self.directory}: {why}; the last whole one is kept"
      ) from error

  def _load(self) -> Saved | None:
    found = [path for path in self.directory.glob("*") if path.name.isdecimal() and not path.is_symlink()]
    for path in sorted(found, key=lambda path: int(path.name), reverse=True):
      try:
        whole, arrays = checkpoint_file.read(path)
        rows = self._journal.read(**whole["journal"])
      except Exception as error:  # whatever a damaged file makes of the libraries
        self._tell(
          f"the checkpoint {path.name} in {self.directory} is damaged ({checkpoint_file.reason(error)})"
        )
        aside = path.with_name(f"damaged-{path.name}")
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
        continue
      self._check(whole)
      self._journal.resume(whole["journal"]["size"])
      return Saved(whole["at"], whole["turns"], whole["record"], rows, arrays)
    if found:
      self._tell(f"no whole checkpoint is left in {self.directory}; beginning anew")
    return None

  def _check(self, whole: Mapping[str, Any]) -> None:
    there, here = (
      {"format_version": version, **_flat(identity)}
      for version, identity in (
        (whole["format_version"], whole["identity"]),
        (FORMAT_VERSION, self._identity),
      )
    )
    differing = [name for name in sorted(there.keys() | here.keys()) if there.get(name) != here.get(name)]
    if differing:
      fields = ", ".join(f"{name} {there.get(name)} there and {here.get(name)} here" for name in differing)
      raise UsageError(
        f"the checkpoint in {self.directory} is of another run or version ({fields}); use "
        "that, or remove the directory to begin anew"
      )


def _share(saved: Saved | None) -> Saved | None:
  """What process 0 has restored, in every process."""
  if jax.process_count() == 1:
    return saved
  packed = b""
  if saved is not None:
    plain = {field.name: getattr(saved, field.name) for field in dataclasses.fields(saved)}
    arrays = plain.pop("arrays")
    packed = checkpoint_file.pack(plain, arrays).tobytes()
  packed = processes.broadcast(packed)
  if not packed:
    return None
  plain, arrays = checkpoint_file.unpack(np.frombuffer(packed, np.uint8))
  return Saved(**plain, arrays=arrays)


def fingerprint(tree: Any) -> str:
  """A CRC-32 of a tree's arrays, to tell one data set from another."""
  total = 0
  for leaf in jax.tree.leaves(tree):
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    array = np.ascontiguousarray(jax.random.key_data(leaf) if is_key else leaf)
    total = zlib.crc32(f"{array.dtype}{array.shape}".encode(), total)
    total = zlib.crc32(array.reshape(-1).view(np.uint8), total)
  return f"{total:08x}"


def _leaf_name(name: str, path: Sequence[Any]) -> str:
  return ".".join([name, *(jax.tree_util.keystr((key,), simple=True) for key in path)])


def _standard(value: Any) -> Any:
  """As it comes back from JSON, so that it can be compared with what does."""
  return json.loads(json.dumps(value, default=str))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  flat = {}
  for name, value in tree.items():
    flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
  return flat


def _versions() -> dict[str, Any]:
  """What may change the last bits of results."""
  versions = {package: importlib.metadata.version(package) for package in ("nets_jax", "jax", "jaxlib")}
  return {"versions": versions, "platform": jax.devices()[0].platform}
