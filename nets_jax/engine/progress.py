"""What a binary shows while it works: a bar on a terminal, lines elsewhere."""

import math
import sys
import time

from tqdm import tqdm

from nets_jax.engine.saved import Saved
from nets_jax.structs import INFEASIBLE, Rows

LINE_SECONDS = 10.0  # least time between two lines of a log


def say(line: str) -> None:
  """Prints a line of progress, apart from the results on standard output."""
  print(line, file=sys.stderr, flush=True)


class Progress:
  """A progress bar on a terminal; elsewhere a line for the first turn, the last, and now and then between."""

  def __init__(self, title: str, total: int):
    """Starts at nothing of `total`."""
    self._title, self._total, self._done, self._before = title, total, 0, 0
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
      shown["s each"] = f"{(now - self._first_at) / (self._done - self._before):.2f}"
    self._bar.set_postfix(shown)
    self._bar.update()
    is_time = self._said_at is None or now - self._said_at >= LINE_SECONDS or self._done == self._total
    if self._bar.disable and is_time:
      self._said_at = now
      say(f"{self._title} {self._done}/{self._total}: " + ", ".join(f"{k} {v}" for k, v in shown.items()))

  def __enter__(self):
    return self

  def __exit__(self, *exception):
    self._bar.close()
