"""How often a loop is saved as it goes, and whether signals stop it."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Iterator

from nets_jax.engine import interrupts
from nets_jax.engine.checkpoints import Checkpoints
from nets_jax.engine.messages import say
from nets_jax.engine.saved import Saved

DIRECTORY = "checkpoints"


@dataclasses.dataclass(frozen=True)
class Saving:
  """How the loops of a job are saved.

  Attributes:
    every: turns between checkpoints; 0 makes none.
    seconds: least time between them.
    signals: whether Ctrl-C and SIGTERM make a loop save and stop, where `interrupts.install` has been called.
  """

  every: int = 1
  seconds: float = 30.0
  signals: bool = False

  @contextlib.contextmanager
  def checkpoints(
    self,
    directory: pathlib.Path,
    *,
    journal: pathlib.Path | None = None,
    on_restore: Callable[[Saved], None] = lambda saved: None,
  ) -> Iterator[Checkpoints | None]:
    """The checkpoints of one loop, in a directory of their own; None where none are made."""
    if self.every == 0:
      yield None
      return
    made = Checkpoints(
      directory,
      every=self.every,
      seconds=self.seconds,
      journal=journal,
      stop=interrupts.asked if self.signals else lambda: False,
      tell=say,
      on_restore=on_restore,
    )
    with interrupts.deferred() if self.signals else contextlib.nullcontext():
      try:
        yield made
      finally:
        made.close()
