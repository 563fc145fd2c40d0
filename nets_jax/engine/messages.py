"""Lines for people, apart from results."""

import sys


def say(line: str) -> None:
  """Prints a line of progress on standard error, apart from the results on standard output."""
  print(line, file=sys.stderr, flush=True)


def in_words(seconds: float) -> str:
  """A time for people: `12 s`, `3.4 min`, `1.5 h`."""
  if seconds < 120:
    return f"{seconds:.0f} s"
  return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
