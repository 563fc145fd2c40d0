"""How a binary's loops are saved as they go, and stopped."""

import contextlib
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any

from absl import flags

import nets_jax
from nets_jax.engine import interrupts
from nets_jax.engine.progress import say

DIRECTORY = "checkpoints"


@contextlib.contextmanager
def checkpoints(
  values: flags.FlagValues,
  directory: pathlib.Path,
  *,
  journal: pathlib.Path | None = None,
  on_restore: Callable[[Any], None] = lambda saved: None,
) -> Iterator[nets_jax.Checkpoints | None]:
  """The checkpoints of a loop as the flags ask for them; while it runs, signals make it save and stop."""
  if values.checkpoint_every == 0:
    yield None
    return
  made = nets_jax.Checkpoints(
    directory,
    every=values.checkpoint_every,
    seconds=values.checkpoint_seconds,
    journal=journal,
    stop=interrupts.asked,
    tell=say,
    on_restore=on_restore,
  )
  with interrupts.deferred():
    try:
      yield made
    finally:
      made.close()


def forget(directory: pathlib.Path) -> None:
  """Removes checkpoints that are no longer needed."""
  shutil.rmtree(directory, ignore_errors=True)
