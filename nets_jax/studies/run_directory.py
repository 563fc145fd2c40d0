"""The directory that holds one run's files, and what every run records of itself."""

import contextlib
import json
import pathlib
import shutil
from collections.abc import Iterator, Mapping

import filelock

from nets_jax.analysis import tensorboard
from nets_jax.engine import saving
from nets_jax.engine.files import SEAL
from nets_jax.engine.messages import say
from nets_jax.engine.tables import write_json
from nets_jax.errors import UsageError
from nets_jax.studies import frontier_files
from nets_jax.studies.origins import FORMAT_VERSION, environment
from nets_jax.studies.run_files import CONFIG, REPORT, TRAINED
from nets_jax.studies.workers import STUDY_LOCK

FILES = (
  "config.json",
  "run.flags",
  "history.csv",
  "ticket.safetensors",
  "figure_evolution.png",
  "figure_frontier.png",
  "training.csv",
  TRAINED,
  REPORT,
  "summary.json",
  SEAL,
)
DIRECTORIES = (tensorboard.DIRECTORY, frontier_files.DIRECTORY, saving.DIRECTORY)
LOCK = ".lock"


class RunDirectory:
  """A directory for the files of one run.

  Attributes:
    path: the directory.
    is_begun: it holds a run of this configuration that has not ended, and is gone on with.
  """

  def __init__(self, path: str, overwrite: bool, deciding: Mapping[str, object] | None = None):
    """Takes a directory that holds no run, or one to go on with, or, with `overwrite`, one to give up.

    Nothing is made or removed before `open`.

    Args:
      path: of the directory.
      overwrite: to give up the run it holds, unless that is this one and has not ended.
      deciding: the flags that decide the results; a run that was begun with others is not gone on with. None
        goes on with none.

    Raises:
      UsageError: the directory holds a finished run or one of another configuration, or is a file.
    """
    self.path, self.is_begun = pathlib.Path(path), False
    if self.path.exists() and not self.path.is_dir():
      raise UsageError(f"workdir {self.path} is a file; give another --workdir")
    advice = f"give another --workdir, or --overwrite to remove {self._listed()} first"
    has_config, has_ended = ((self / name).exists() for name in ("config.json", "summary.json"))
    try:
      if deciding is not None and has_config and not has_ended:
        check_version(self / "config.json", advice)
        check_same(self.path, read_config(self / "config.json", "flags"), deciding, advice)
        self.is_begun = True
      elif any(self._held()):
        raise UsageError(f"{self.path} already holds a run; {advice}")
    except UsageError:
      if not overwrite:
        raise

  def _held(self) -> list[pathlib.Path]:
    return [self.path / name for name in FILES if (self.path / name).exists()]

  def _listed(self) -> str:
    """All that `discard` would remove."""
    there = [path.name for path in self._held()]
    return ", ".join([*there, *(f"{name}/" for name in DIRECTORIES if (self / name).is_dir())])

  def open(self, flags: Mapping[str, object]) -> None:
    """Removes the files of an earlier run, and writes `config.json`; a run that goes on keeps its files."""
    if not self.is_begun:
      if self._held():
        say(f"removing from {self.path}: {self._listed()}")
      self.discard()
    shutil.rmtree(self / tensorboard.DIRECTORY, ignore_errors=True)  # its rows are written again
    if not self.is_begun:
      write_json(self / "config.json", {"flags": flags, **environment()})

  @property
  def is_empty(self) -> bool:
    """Whether the run has left nothing that took any work."""
    return set(self._held()) <= {self / "config.json", self / "run.flags"}

  def discard(self) -> None:
    """Removes the run's files, and nobody else's."""
    for file in self._held():
      file.unlink()
    for name in DIRECTORIES:
      shutil.rmtree(self / name, ignore_errors=True)

  def __truediv__(self, name: str) -> pathlib.Path:
    return self.path / name


@contextlib.contextmanager
def locked(path: str) -> Iterator[pathlib.Path]:
  """Keeps a directory for this process while it lasts; a process that dies lets go of it.

  Raises:
    UsageError: another process has it, or it is a file.
  """
  directory = pathlib.Path(path)
  if directory.exists() and not directory.is_dir():
    raise UsageError(f"workdir {directory} is a file; give another --workdir")
  made = [path for path in (directory, *directory.parents) if not path.exists()]
  directory.mkdir(parents=True, exist_ok=True)
  lock = filelock.FileLock(directory / LOCK, blocking=False)
  try:
    lock.acquire()
  except filelock.Timeout as error:
    raise UsageError(
      f"another process is at work in {directory}; wait for it, or give another --workdir"
    ) from error
  try:
    yield directory
  finally:
    with contextlib.suppress(OSError):  # the directory may be gone
      (directory / LOCK).unlink()
    lock.release()
    with contextlib.suppress(OSError):  # unless there is something in them
      for parent in made:
        parent.rmdir()


def read_config(path: pathlib.Path, part: str) -> dict[str, object]:
  """A part of a `config.json`.

  Raises:
    UsageError: it is damaged.
  """
  try:
    found = json.loads(path.read_text())[part]
    if isinstance(found, dict):
      return found
  except (ValueError, KeyError, TypeError, RecursionError):
    pass
  raise UsageError(f"{path} is damaged; give another --workdir")


def check_version(path: pathlib.Path, advice: str) -> None:
  """Raises UsageError for a `config.json` of another form, whose settings have other names."""
  try:
    found = json.loads(path.read_text())
    version = found.get("format_version", 1) if isinstance(found, dict) else FORMAT_VERSION
  except (ValueError, RecursionError):
    return  # `read_config` says that it is damaged
  if version != FORMAT_VERSION:
    raise UsageError(
      f"{path.parent} holds a run of another version of nets_jax, which this one does not go on with; "
      f"{advice}"
    )


def check_same(
  directory: pathlib.Path, there: Mapping[str, object], here: Mapping[str, object], advice: str
) -> None:
  """Raises UsageError that names the settings of `here` which are not what they are `there`."""
  there, here = dict(there), json.loads(json.dumps(here))
  before, now = _given(there), _given(here)
  for name in before.keys() | now.keys():  # those that are not given have their defaults
    there[name], here[name] = before.get(name, "by default"), now.get(name, "by default")
  differing = [name for name in sorted(here) if there.get(name) != here[name]]
  if differing:
    changes = ", ".join(f"{name} {there.get(name)} there and {here[name]} here" for name in differing)
    raise UsageError(f"{directory} is of another configuration ({changes}); {advice}")


def _given(settings: dict[str, object]) -> dict[str, object]:
  """Takes the settings of searches that were given out of a record."""
  given = settings.pop("given", None)
  return given if isinstance(given, dict) else {}


def claim(directory: pathlib.Path, settings: Mapping[str, object], keeps: bool = True) -> None:
  """Writes config.json, or checks that the directory is of these settings. Workers may come at once.

  Args:
    directory: made if there is none.
    settings: that decide the results.
    keeps: whether a directory keeps to its settings; else they are noted anew.

  Raises:
    UsageError: it is a file, another run's, or of other settings or another version.
  """
  if directory.exists() and not directory.is_dir():
    raise UsageError(f"workdir {directory} is a file; give another --workdir")
  path, advice = directory / CONFIG, "give another --workdir"
  if path.exists():
    check_alone(directory)
  directory.mkdir(parents=True, exist_ok=True)
  with filelock.FileLock(directory / STUDY_LOCK):
    if path.exists():
      check_version(path, advice)
      if keeps:
        check_same(directory, read_config(path, "settings"), settings, advice)
    if not path.exists() or not keeps:
      write_json(path, {"settings": settings, **environment()})


def check_alone(directory: pathlib.Path) -> None:
  """Raises UsageError where a run of `experiments.search` is at work; studies share a directory."""
  if not (directory / LOCK).exists():
    return
  try:
    with filelock.FileLock(directory / LOCK, blocking=False):
      pass
  except filelock.Timeout as error:
    raise UsageError(
      f"another process is at work in {directory}; wait for it, or give another --workdir"
    ) from error
