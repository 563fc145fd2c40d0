"""One run over several processes, each with the devices of its host."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable

from absl import flags

from nets_jax.cli import command
from nets_jax.cli import setting_flags as search_flags
from nets_jax.engine import hosts
from nets_jax.engine.watch import watched
from nets_jax.studies import run_settings

search_flags.define(run_settings.HostSettings())


def run_main(run: Callable[[flags.FlagValues], None]) -> None:
  """`binary.run_main` in one process, or as one of those that the flags tell of."""
  values = flags.FLAGS
  three = {name: values[name].value for name in ("coordinator_address", "num_processes", "process_id")}
  if not values.distributed and all(value is None for value in three.values()):
    command.run_main(run)
    return
  with watched():
    command.run_main(lambda values: run_quietly(run, values), lambda: hosts.join(**three))


def run_quietly(run: Callable[[flags.FlagValues], None], values: flags.FlagValues) -> None:
  """Runs the job; of all processes but the first, what is written and printed is thrown away."""
  if hosts.is_primary():
    run(values)
    return
  with (
    tempfile.TemporaryDirectory(prefix="nets_jax") as directory,
    open(os.devnull, "w") as nowhere,
    contextlib.redirect_stderr(nowhere),
  ):
    os.dup2(nowhere.fileno(), sys.stdout.fileno())  # gloo's own lines too; the process ends after this
    values.workdir = directory
    run(values)
