"""What a long job shows while it works: a bar on a terminal or in a notebook, else lines."""

import importlib
import math
import sys
import time
from types import TracebackType
from typing import Any, ClassVar, Self

from tqdm import tqdm

from nets_jax.engine.messages import in_words, say
from nets_jax.engine.saved import Saved
from nets_jax.rows import INFEASIBLE, Rows

LINE_SECONDS = 10.0  # least time between two lines of a log
NOTEBOOK_COLUMNS = 110


def in_notebook() -> bool:
  """Whether a kernel shows what is displayed."""
  return getattr(_shell(), "kernel", None) is not None


def _shell() -> object:
  ipython = sys.modules.get("IPython")
  return ipython and ipython.get_ipython()


class NotebookBar(tqdm):
  """A bar as text that changes in place, in a notebook's output: no widgets, and one line when it is stored.

  Bars that are opened while another is open stand below it, and go when they are done.
  """

  _open: ClassVar[list["NotebookBar"]] = []

  def __init__(self, total: int, desc: str, unit: str = "it", initial: int = 0):
    """As tqdm."""
    super().__init__(total=total, desc=desc, unit=unit, initial=initial, gui=True, ncols=NOTEBOOK_COLUMNS)
    # One that an earlier cell has left open is done.
    self._cell = getattr(_shell(), "execution_count", None)
    self._open[:] = [bar for bar in self._open if bar._cell == self._cell]
    self._open.append(self)
    if self._open[0] is self:
      # Not at the top: a process without IPython may import this module.
      self._place: Any = importlib.import_module("IPython.display").display(
        self._text(), raw=True, display_id=True
      )
    self.display()

  def _text(self) -> dict[str, str]:
    return {"text/plain": "\n".join(map(str, self._open))}

  def display(self, msg: str | None = None, pos: int | None = None) -> None:
    """Shows all that are open."""
    if self._open:
      self._open[0]._place.update(self._text(), raw=True)

  def close(self) -> None:
    """The last is shown as it is in the end; one below another is shown no more."""
    if any(bar is self for bar in self._open):  # by identity, for tqdm's bars are equal by their place
      if self._open[0] is self:
        del self._open[1:]
        self.display()
      self._open[:] = [bar for bar in self._open if bar is not self]
      if self._open:
        self.display()
    super().close()


def make_bar(total: int, title: str, unit: str = "it") -> tqdm:
  """A bar where there is somebody to see it; it is disabled where lines are better."""
  if in_notebook():
    return NotebookBar(total=total, desc=title, unit=unit)
  return tqdm(total=total, desc=title, unit=unit, disable=not sys.stderr.isatty())


class Progress:
  """A progress bar on a terminal or in a notebook; elsewhere a line for the first turn, the last, and now and
  then between.

      with Progress("search", search.reports(task)) as progress:
        nets_jax.search(0, task, search, on_rows=progress)
  """

  def __init__(self, title: str, total: int, runs: int = 1):
    """Starts at nothing of `total` turns, of so many runs side by side, the best of which is shown."""
    self._title, self._total, self._done, self._before = title, total, 0, 0
    self._whose = f"the best of {runs} runs has " if runs > 1 else ""
    self._first_at: float | None = None
    self._said_at: float | None = None
    self._bar = make_bar(total, title)

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
    of_bar = ("s each", "left") if isinstance(self._bar, NotebookBar) else ()  # its own, and room is dear
    self._bar.set_postfix({k: v for k, v in shown.items() if k not in of_bar})
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

  def __init__(self, total: int, done: int, plan: str):
    """Starts with those that were done before; says what is planned, where no bar will."""
    self._total, self._before, self._begun = total, done, time.perf_counter()
    self._bar = NotebookBar(total=total, initial=done, desc="runs", unit="run") if in_notebook() else None
    if self._bar is None:
      say(plan)

  def tell(self, done: int) -> None:
    """Says so after a batch."""
    new, left = done - self._before, self._total - done
    if self._bar is not None:
      self._bar.update(done - self._bar.n)
    elif left and new:
      pace = (time.perf_counter() - self._begun) / new
      say(f"{done} of {self._total} runs are done, about {in_words(pace * left)} left")

  def __enter__(self) -> Self:
    return self

  def __exit__(
    self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
  ) -> None:
    if self._bar is not None:
      self._bar.close()
