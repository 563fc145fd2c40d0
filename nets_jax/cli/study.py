"""What the commands of many runs share: how these are run, planned, and kept in one directory."""

import pathlib
from collections.abc import Mapping, Sequence

import filelock
from absl import flags

from nets_jax.studies.run_directory import LOCK, check_same, check_version, read_config
from nets_jax.engine.saving import Saving
from nets_jax.engine.tables import write_json
from nets_jax.errors import UsageError
from nets_jax.studies import trials
from nets_jax.studies.batches import Machine
from nets_jax.studies.methods import Run
from nets_jax.studies.run_files import CONFIG, environment
from nets_jax.studies.work import Options, describe, estimate

flags.DEFINE_integer("at_once", None, "Runs side by side; default as many as have 256 genomes, at most 16.")
flags.DEFINE_string(
  "storage",
  None,
  "Database that workers share, such as postgresql://user@host/name; default a journal file in workdir.",
)
flags.DEFINE_float("max_hours", None, "Begin no batch of runs after so many hours; default never stops.")
flags.DEFINE_bool("dry_run", False, "Print the plan, its programs and the hours it takes, and run nothing.")


def options(values: flags.FlagValues) -> Options:
  """How the flags ask for a study to be run.

  Raises:
    UsageError: an impossible number.
  """
  if values.at_once is not None and values.at_once < 1:
    raise UsageError(f"at_once must be at least 1, not {values.at_once}")
  if values.max_hours is not None and not values.max_hours > 0:
    raise UsageError(f"max_hours must be positive, not {values.max_hours}")
  machine = Machine(values.devices, values.chunk, values.at_once, saving(values))
  return Options(machine, values.storage, values.max_hours)


def saving(values: flags.FlagValues) -> Saving:
  """How the flags ask for loops to be saved."""
  return Saving(values.checkpoint_every, values.checkpoint_seconds, signals=True)


def plan(runs: Sequence[Run], how: Options) -> str:
  """What a study will do, and how long it will take."""
  return f"{describe(runs, how.machine.at_once)}\n{estimate(runs, how.machine)}"


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
    check_version(path, advice)
    if keeps:
      check_same(directory, read_config(path, "settings"), settings, advice)
  directory.mkdir(parents=True, exist_ok=True)
  with filelock.FileLock(directory / trials.LOCK):
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
