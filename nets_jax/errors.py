"""The one exception that means: the request cannot be met, and here is what to do."""

import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from nets_jax.tickets.results import SearchResult


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

  def __init__(self, message: str, result: "SearchResult | None" = None):
    """Takes the message, and what the search had found."""
    super().__init__(message)
    self.result = result


class Diverged(SearchFailed):
  """A search that has ended early, for its trainings diverged."""


def raise_first(outcomes: Sequence[object]) -> None:
  """Raises the first of some outcomes that is a failure."""
  for outcome in outcomes:
    if isinstance(outcome, SearchFailed):
      raise outcome


def suggest(word: str, known: Iterable[str]) -> str:
  """`; did you mean X?` with the nearest of the known words, or nothing if none is near."""
  near = difflib.get_close_matches(word, list(known), 1)
  return f"; did you mean {near[0]}?" if near else ""
