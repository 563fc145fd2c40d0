"""The state of a loop on disk, so that a run which was stopped goes on to the same bits.

A checkpoint holds arrays by name and a record: what the loop keeps on the host, how far its journal went, and
what run it is of. A loop calls `restore` once before it begins, `note` after every turn, and `wait` in place
of blocking until a turn's arrays are there.
"""

import math
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from nets_jax.engine import checkpoint_file, hosts
from nets_jax.engine.journal import Journal
from nets_jax.engine.layouts import fetch
from nets_jax.engine.saved import Saved, State, flat, leaf_name, share_saved, standard, versions
from nets_jax.errors import UsageError
from nets_jax.rows import Row

FORMAT_VERSION = 3  # 1 knew of no failures of IMP, 2 of no tasks


class Stopped(Exception):
  """A loop has ended where it was, for it was asked to; its state is saved, if there was any."""


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
    self._manager: checkpoint_file.Manager | None = None
    self._latest: tuple[str, Callable[[], State]] | None = None
    self._identity, self._turns, self._saved_turns = {}, 0, 0
    self._saved_at = time.monotonic()

  def restore(self, identity: Callable[[], Mapping[str, object]]) -> Saved | None:
    """The newest whole checkpoint, or None where there is none to go on from.

    Args:
      identity: gives what the run's results depend on, for JSON; kept with every checkpoint.

    Raises:
      UsageError: it is of another run, whose differing fields are named.
    """
    self._identity = standard({**identity(), **versions()})
    saved = self._load() if hosts.is_primary() else None
    saved = share_saved(saved)
    if saved is not None:
      self._turns = self._saved_turns = saved.turns
      self._tell(f"going on after {saved.at}")
      self._on_restore(saved)
    return saved

  def note(self, rows: Sequence[Row], at: str, take: Callable[[], State], last: bool = False) -> None:
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
    if hosts.is_primary():
      self._journal.add(rows)
    self._turns, self._latest = self._turns + 1, (at, take)
    waited = time.monotonic() - self._saved_at
    due = hosts.is_primary() and self._turns % self._every == 0 and waited >= self._seconds
    due, asked = hosts.any_of(due or last, self._stop())
    if due or asked:
      self._save()
    if last or asked:
      self._finish()
    if asked:
      raise Stopped(f"after {at}, which is saved")

  def wait(self, arrays: PyTree) -> None:
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
          first = "in its first turn, which begins anew"
          raise Stopped("where it had gone on from" if self._turns else first)
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
    if self._latest is None or self._saved_turns == self._turns:
      return
    at, take = self._latest
    trees, record = take()
    arrays: dict[str, np.ndarray] = {}
    for name, tree in trees.items():
      for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        arrays[leaf_name(name, path)] = np.asarray(fetch(jax.random.key_data(leaf) if is_key else leaf))
    self._saved_turns, self._saved_at = self._turns, time.monotonic()
    if not hosts.is_primary():
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

  def _guarded(self, write: Callable[[], object]) -> None:
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
    kept = [path for path in self.directory.glob("*") if path.name.isdecimal() and not path.is_symlink()]
    for path in sorted(kept, key=lambda path: int(path.name), reverse=True):
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
    if kept:
      self._tell(f"no whole checkpoint is left in {self.directory}; beginning anew")
    return None

  def _check(self, whole: checkpoint_file.Whole) -> None:
    there, here = (
      {"format_version": version, **flat(identity)}
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
