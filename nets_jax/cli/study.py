"""What the commands of many runs share: how these are run, planned, and kept in one directory."""

from absl import flags

from nets_jax.analysis.tensorboard import check_installed
from nets_jax.cli import command
from nets_jax.errors import UsageError
from nets_jax.studies.work import Options

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
  if values.storage is not None and "://" not in values.storage:
    raise UsageError(
      f"cannot use --storage={values.storage}: it is no URL such as postgresql://user@host/name"
    )
  if values.tensorboard:
    check_installed()
  return Options(command.machine(values), values.storage, values.max_hours)


def on_top(has_second_round: object, checked: object) -> str:
  """What a plan does not count."""
  parts = ["the second round of the tuning"] if has_second_round else []
  parts += ["three trainings for each ticket of --sanity"] if checked else []
  return f"\non top come {' and '.join(parts)}" if parts else ""
