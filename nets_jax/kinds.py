"""How a setting is written and read, and what values it may have."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple


class Rule(NamedTuple):
  """What values a setting may have: in words after `must be`, and as a predicate of each number in it."""

  text: str
  holds: Callable[[Any], bool]


ANY = Rule("anything", lambda value: True)
POSITIVE = Rule("positive", lambda value: 0 < value < math.inf)
SHARE = Rule("in [0, 1]", lambda value: 0 <= value <= 1)
DENSITY = Rule("in (0, 1]", lambda value: 0 < value <= 1)


def at_least(least: float) -> Rule:
  """A finite number from that on."""
  return Rule(f"at least {least}", lambda value: least <= value < math.inf)


def one_of(names: Sequence[str]) -> Rule:
  """One of some words, or a function of one's own."""
  return Rule(f"one of {', '.join(names)}", lambda value: callable(value) or value in names)


class Kind(NamedTuple):
  """How a value is written and read.

  Attributes:
    what: after `it must be`, for a text that cannot be read.
    parse: the value of a text; raises ValueError.
    write: the text of a value.
    choices: the words that it may be; empty if they are not few.
    open: whether `package.module:name` of one's own may stand in a choice's place; see `plugins`.
  """

  what: str
  parse: Callable[[str], Any]
  write: Callable[[Any], str] = str
  choices: tuple[str, ...] = ()
  open: bool = False


def _switch(text: str) -> bool:
  for value, words in ((True, ("true", "t", "1", "yes")), (False, ("false", "f", "0", "no"))):
    if text.lower() in words:
      return value
  raise ValueError(text)


def _numbers(text: str) -> Any:
  found = [float(word) for word in text.replace("/", ",").split(",")]
  return found[0] if len(found) == 1 else tuple(found)


WHOLE = Kind("a whole number", int)
NUMBER = Kind("a number", float)
SWITCH = Kind("true or false", _switch, lambda value: str(bool(value)).lower())
TEXT = Kind("a text", str)
WHOLES = Kind(
  "whole numbers with commas between",
  lambda text: tuple(int(word) for word in text.split(",") if word.strip()),
  lambda values: ",".join(map(str, values)),
)
WORDS = Kind(
  "names with commas between",
  lambda text: tuple(word.strip() for word in text.split(",") if word.strip()),
  lambda values: ",".join(values),
)
# One number, or one for each layer; within a list slashes stand for the commas.
NUMBERS = Kind(
  "a number, or one for each layer",
  _numbers,
  lambda value: "/".join(map(str, value)) if isinstance(value, tuple | list) else str(value),
)


def choice(names: Sequence[str]) -> Kind:
  """One of some words."""
  return Kind(f"one of {', '.join(names)}", str, describe, tuple(names))


def describe(value: Any) -> Any:
  """A value for a record: a function by its name, not by its address; a component by its settings."""
  if isinstance(value, tuple | list):
    return [describe(own) for own in value]
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    own = {field.name: describe(getattr(value, field.name)) for field in dataclasses.fields(value)}
    shown = ", ".join(f"{name}={own[name]}" for name in own if name not in ("parent", "name"))
    return f"{type(value).__name__}({shown})"
  if not callable(value):
    return value
  named = value if hasattr(value, "__qualname__") else type(value)
  return f"{named.__module__}.{named.__qualname__}"
