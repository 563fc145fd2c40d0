"""What a binary shows while it works: a bar on a terminal, lines elsewhere."""

import sys
import time
from typing import Any

from tqdm import tqdm


def say(line: str) -> None:
  """Prints a line of progress, apart from the results on standard output."""
  print(line, file=sys.stderr, flush=True)


class Progress:
  """A progress bar on a terminal, lines elsewhere."""

  def __init__(self, title: str, total: int):
    """Starts at nothing of `total`."""
    self._title, self._total, self._done = title, total, 0
    self._begin = time.perf_counter()
    self._bar = tqdm(total=total, desc=title, disable=not sys.stderr.isatty())

  def __call__(self, rows: list[dict[str, Any]]) -> None:
    """Shows the best of some rows of a history."""
    best = min(rows, key=lambda row: row.get("fitness", row.get("valid_loss", 0.0)))
    shown = {k: f"{best[k]:.3f}" for k in ("fitness", "valid_loss", "density") if k in best}
    self._done += 1
    shown["s each"] = f"{(time.perf_counter() - self._begin) / self._done:.2f}"
    self._bar.set_postfix(shown)
    self._bar.update()
    if self._bar.disable:
      say(f"{self._title} {self._done}/{self._total}: " + ", ".join(f"{k} {v}" for k, v in shown.items()))

  def __enter__(self):
    return self

  def __exit__(self, *exception):
    self._bar.close()
