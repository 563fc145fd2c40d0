"""The one exception that means: the request cannot be met, and here is what to do."""

import difflib
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any


class UsageError(ValueError):
  """A value, file or setting that cannot be used.

  The message is one line: what is wrong, and what to do about it. The experiment binaries print it
  and exit with status 2; every other exception is a fault of the program and keeps its traceback.
  """


class SearchFailed(UsageError):
  """A search that has found no ticket worth the name; the message says why.

  A single search raises it. Of searches side by side (`keep_failures`) it stands in place of the result, and
  the others go on.

  Attributes:
    result: the `SearchResult` up to there, its ticket from before the failure; None if there is none.
  """

  def __init__(self, message: str, result: Any = None):
    """Takes the message, and what the search had found."""
    super().__init__(message)
    self.result = result


class Diverged(SearchFailed):
  """A search that has ended early, for its trainings diverged."""


def raise_first(outcomes: Sequence[Any]) -> None:
  """Raises the first of some outcomes that is a failure."""
  for outcome in outcomes:
    if isinstance(outcome, SearchFailed):
      raise outcome


def check(config: Any, names: Sequence[str], rule: str, holds: Callable[[Any], bool]) -> None:
  """Raises UsageError, `<name> must be <rule>, not <value>`, for the first field that breaks a rule.

  A field that is None asks for a default and breaks none.
  """
  for name in names:
    value = getattr(config, name)
    if value is not None and not holds(value):
      shown = repr(value) if isinstance(value, str) else value
      raise UsageError(f"{name} must be {rule}, not {shown}")


def check_scale(config: Any) -> None:
  """Raises UsageError unless `init_scale` is a positive number, or a positive number for each layer."""

  def holds(scale):
    scales = scale if isinstance(scale, tuple | list) else [scale]
    return len(scales) > 0 and all(0 < own < math.inf for own in scales)

  check(config, ["init_scale"], "positive", holds)


def check_fits_data(config: Any, name: str, num_examples: int) -> None:
  """Raises UsageError unless a number of examples can be drawn from the training part."""
  check(config, [name], f"from 1 to the {num_examples} training examples", lambda n: 1 <= n <= num_examples)


def suggest(word: str, known: Iterable[str]) -> str:
  """`; did you mean X?` with the nearest of the known words, or nothing if none is near."""
  near = difflib.get_close_matches(word, list(known), 1)
  return f"; did you mean {near[0]}?" if near else ""
