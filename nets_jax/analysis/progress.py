"""What a long job shows while it works: a bar on a terminal, lines elsewhere; with the time left."""

import math
import sys
import time
from types import TracebackType

from tqdm import tqdm

from nets_jax.engine.messages import in_words, say
from nets_jax.engine.saved import Saved
from nets_jax.structs import INFEASIBLE, Rows

LINE_SECONDS = 10.0  # least time between two lines of a log


class Progress:
  """A progress bar on a terminal; elsewhere a line for the first turn, the last, and now and then between."""

  def __init__(self, title: str, total: int, runs: int = 1):
    """Starts at nothing of `total` turns, of so many runs side by side, the best of which is shown."""
    self._title, self._total, self._done, self._before = title, total, 0, 0
    self._whose = f"the best of {runs} runs has " if runs > 1 else ""
    self._first_at: float | None = None
    self._said_at: float | None = None
    self._bar = tqdm(total=total, desc=title, disable=not sys.stderr.isatty())

  def take_up(self, saved: Saved) -> None:
    """Starts at the turns that an earlier process made."""
    self._done = saved.turns
    self._bar.update(saved.turns)

  def __call__(self, rows: Rows) -> None:
    """Shows the best of some rows of a history."""
    best = min(rows, key=lambda row: row.get("fitness", row.get("valid_loss", 0.0)))
    shown = {k: f"{best[k]:.3f}" for k in ("fitness", "valid_loss", "density") if k in best}
    if INFEASIBLE <= best.get("fitness", 0.0) < math.inf:
      del shown["fitness"]  # it says that the ticket is too dense, as the density does
    self._done += 1
    now = time.perf_counter()
    if self._first_at is None:  # what came before it was compilation too
      self._first_at, self._before = now, self._done
    else:
      each = (now - self._first_at) / (self._done - self._before)
      shown["s each"] = f"{each:.2f}"
      if self._done < self._total:
        shown["left"] = in_words(each * (self._total - self._done))
    self._bar.set_postfix(shown)
    self._bar.update()
    is_time = self._said_at is None or now - self._said_at >= LINE_SECONDS or self._done == self._total
    if self._bar.disable and is_time:
      self._said_at = now
      numbers = ", ".join(f"{k} {v}" for k, v in shown.items())
      whose = self._whose if {"fitness", "valid_loss"} & best.keys() else ""  # densities alone have no best
      say(f"{self._title} {self._done}/{self._total}: {whose}{numbers}")

  def __enter__(self) -> "Progress":
    return self

  def __exit__(
    self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
  ) -> None:
    self._bar.close()


class RunsDone:
  """How many runs of a study are done, and the time left by the pace so far."""

  def __init__(self, total: int, done: int):
    """Starts with those that were done before."""
    self._total, self._before, self._begun = total, done, time.perf_counter()

  def tell(self, done: int) -> None:
    """Says so after a batch."""
    new, left = done - self._before, self._total - done
    if left and new:
      pace = (time.perf_counter() - self._begun) / new
      say(f"{done} of {self._total} runs are done, about {in_words(pace * left)} left")
