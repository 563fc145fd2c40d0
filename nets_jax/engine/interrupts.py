"""Ctrl-C and SIGTERM: the first asks the work to save and stop, a second one ends the process."""

import contextlib
import signal
import sys
from collections.abc import Iterator

NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
  """The process was asked to stop where nothing saves; not an `Exception`, so that nothing swallows it."""


class _Asked:
  """By which signal, if any; and whether the work stops by itself where it can."""

  number: int | None = None
  deferred = False


def install() -> None:
  """From now on the first signal is noted, or raises `Interrupted` where nothing saves."""
  _Asked.number, _Asked.deferred = None, False
  for number in NUMBERS:
    signal.signal(number, _handle)


def asked() -> bool:
  """Whether the work was asked to stop."""
  return _Asked.number is not None


def status() -> int:
  """The exit status that says by which signal the process ended."""
  return 128 + (_Asked.number or signal.SIGTERM)


def name() -> str:
  """The signal's."""
  return signal.Signals(_Asked.number).name if _Asked.number else "a signal to another process"


@contextlib.contextmanager
def deferred() -> Iterator[None]:
  """While this lasts a signal is noted alone, for the work looks at `asked`.

  Work that ended without a look (a search of seconds, say) is interrupted at its end.
  """
  _Asked.deferred = True
  try:
    yield
  finally:
    _Asked.deferred = False
  if asked():
    raise Interrupted


def _handle(number: int, frame: object) -> None:
  del frame
  _Asked.number = number
  for other in NUMBERS:
    signal.signal(other, signal.SIG_DFL)
  if not _Asked.deferred:
    raise Interrupted
  print(f"{name()}: saving; a second one ends the program at once", file=sys.stderr, flush=True)
