"""One run over several processes, each with the devices of its host."""

import contextlib
import faulthandler
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator

import jax
from absl import flags

from nets_jax.cli import command, run_settings
from nets_jax.cli import setting_flags as search_flags
from nets_jax.engine import hosts

search_flags.define(run_settings.HostSettings())
LOST = """
import sys
if sys.stdin.read() != "ended":
  print("error: this run has ended, for one of its processes stopped or could not be reached for 30 s (see "
        "each one's last lines); start all of them again", file=sys.stderr)
"""


def run_main(run: Callable[[flags.FlagValues], None]) -> None:
  """`binary.run_main` in one process, or as one of those that the flags tell of."""
  values = flags.FLAGS
  three = {name: values[name].value for name in ("coordinator_address", "num_processes", "process_id")}
  if not values.distributed and all(value is None for value in three.values()):
    command.run_main(run)
    return
  with watched():
    command.run_main(lambda values: run_quietly(run, values), lambda: hosts.join(**three))


@contextlib.contextmanager
def watched() -> Iterator[None]:
  """Ends the program at once when one process fails, for the others would wait for it at its exit.

  A helper says what happened where JAX aborts the program itself, which it does when process 0 is lost.
  """
  helper = subprocess.Popen(
    [sys.executable, "-c", LOST], stdin=subprocess.PIPE, text=True, start_new_session=True
  )
  faulthandler.disable()  # absl's, which would follow JAX's message with every thread's traceback
  status = 1
  try:
    yield
    jax.distributed.shutdown()
    status = 0
  except SystemExit as error:
    status = error.code
  except jax.errors.JaxRuntimeError as error:
    print(
      f"error: a step of the program failed, most likely for another process of this run has stopped: "
      f"{str(error).splitlines()[0]}",
      file=sys.stderr,
    )
  except BaseException:
    traceback.print_exc()
  helper.communicate("ended")
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(status)


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
