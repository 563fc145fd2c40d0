"""Ends a process at once when another of the same run has failed, and says so."""

import contextlib
import faulthandler
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator

import jax

LOST = """
import sys
if sys.stdin.read() != "ended":
  print("error: this run has ended, for one of its processes stopped or could not be reached for 30 s (see "
        "each one's last lines); start all of them again", file=sys.stderr)
"""


@contextlib.contextmanager
def watched() -> Iterator[None]:
  """Ends the program at once when one process fails, for the others would wait for it at its exit.

  A helper says what happened where JAX aborts the program itself, which it does when process 0 is lost.
  """
  helper = subprocess.Popen(
    [sys.executable, "-c", LOST], stdin=subprocess.PIPE, text=True, start_new_session=True
  )
  faulthandler.disable()  # absl's, which would follow JAX's message with every thread's traceback
  status: int | str | None = 1
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
  os._exit(status if isinstance(status, int) else 1)
