"""How a setting is written and read, and what values it may have."""

import dataclasses
import functools
import hashlib
import inspect
import math
import operator
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import jax
import numpy as np
from jaxtyping import Array, Num

from nets_jax.errors import UsageError

# One number: of Python, of NumPy, or traced.
Number = int | float | np.number | Num[np.ndarray, ""] | Num[Array, ""]


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
  parse: Callable[[str], object]
  write: Callable[[Any], str] = str
  choices: tuple[str, ...] = ()
  open: bool = False


def _switch(text: str) -> bool:
  for value, words in ((True, ("true", "t", "1", "yes")), (False, ("false", "f", "0", "no"))):
    if text.lower() in words:
      return value
  raise ValueError(text)


def _numbers(text: str) -> float | tuple[float, ...]:
  numbers = [float(word) for word in text.replace("/", ",").split(",")]
  return numbers[0] if len(numbers) == 1 else tuple(numbers)


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


DEEPEST = 8  # functions within functions that a record looks into: a chain of optax has six


def choice(names: Sequence[str]) -> Kind:
  """One of some words."""
  return Kind(f"one of {', '.join(names)}", str, in_words, tuple(names))


def describe(value: object) -> object:
  """A value for a record: a function by its name, not by its address; a component by its settings."""
  if isinstance(value, tuple | list):
    return [describe(item) for item in value]
  if isinstance(made_by := getattr(value, "made_by", None), str):
    return made_by  # a network that was made by name; its functions would not tell its arguments
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    fields = {field.name: describe(getattr(value, field.name)) for field in dataclasses.fields(value)}
    shown = ", ".join(f"{name}={text}" for name, text in fields.items() if name not in ("parent", "name"))
    return f"{_class_name(type(value))}({shown})"
  if isinstance(value, functools.partial):
    given = [
      *map(repr, map(describe, value.args)),
      *(f"{k}={describe(v)!r}" for k, v in value.keywords.items()),
    ]
    return f"{describe(value.func)}({', '.join(given)})"
  if isinstance(value, Mapping):
    return {str(name): describe(item) for name, item in value.items()}
  if isinstance(value, np.ndarray | jax.Array):
    array = np.asarray(value)
    return f"{array.dtype.name}{list(array.shape)} {hashlib.sha256(array.tobytes()).hexdigest()[:16]}"
  if not callable(value):
    return value
  named = value if hasattr(value, "__qualname__") else type(value)
  name = f"{named.__module__}.{named.__qualname__}"
  if "<" in name and inspect.isfunction(value):
    return f"{name} {_code(value)}"
  if named is value and not inspect.ismethod(value):
    return name
  own = _without_address(value, DEEPEST)  # what an object holds that can be called, or whose method this is
  return name if isinstance(own, str) else f"{name} {zlib.crc32(repr(own).encode()):08x}"


def _class_name(kind: type) -> str:
  """A class by its name; one of a user's own with its module, for two modules may have one of that name."""
  ours = kind.__module__.split(".")[0] in ("nets_jax", "flax")
  return kind.__name__ if ours else f"{kind.__module__}.{kind.__qualname__}"


def _code(function: Callable, depth: int = DEEPEST) -> str:
  """A CRC-32 of a nameless function's code, and of the plain values and functions that it closes over."""
  code, cells = function.__code__, function.__closure__ or ()
  values = [*code.co_consts, *(cell.cell_contents for cell in cells), *(function.__defaults__ or ())]
  text = repr([code.co_names, *(_without_address(value, depth) for value in values)])
  return f"{zlib.crc32(code.co_code + text.encode()):08x}"


def _without_address(value: object, depth: int) -> object:
  """What of a value is the same in every process; of things within things down to a depth."""
  if value is None or isinstance(value, int | float | str):
    return value
  if isinstance(value, np.ndarray | jax.Array | np.generic):
    return describe(np.asarray(value))
  if not depth or isinstance(value, type):
    return _class_name(value if isinstance(value, type) else type(value))
  if isinstance(value, tuple | list):
    return tuple(_without_address(item, depth) for item in value)
  if isinstance(value, Mapping):
    return tuple((str(name), _without_address(item, depth)) for name, item in value.items())
  if inspect.isfunction(value):
    return _code(value, depth - 1)
  if inspect.ismethod(value):
    return value.__name__, _without_address(value.__self__, depth)
  if isinstance(value, functools.partial):
    return tuple(_without_address(part, depth - 1) for part in (value.func, value.args, value.keywords))
  held = getattr(value, "__dict__", None) if type(value).__module__ not in sys.builtin_module_names else None
  return (_class_name(type(value)), _without_address(held, depth - 1)) if held else type(value).__name__


def in_words(value: object) -> str:
  """`describe` as a text."""
  return str(describe(value))


def is_whole(value: object) -> bool:
  """Whether it is a whole number, of Python, NumPy or JAX."""
  try:
    operator.index(cast(Any, value))
  except TypeError:
    return False
  return True


def check_hashable(name: str, value: object) -> None:
  """Raises UsageError for what cannot be hashed, as a static setting is: programs are kept by it."""
  try:
    hash(value)
  except TypeError as error:
    raise UsageError(
      f"{name}={describe(value)} cannot be hashed, so no program can be kept for it; decorate it with "
      "dataclass(frozen=True)"
    ) from error


def check_value(name: str, rule: Rule, value: object) -> None:
  """Raises UsageError unless each number of a value (of a schedule, a tuple, an array) keeps to a rule."""
  leaves = jax.tree.leaves(value)
  try:
    holds = all(rule.holds(n) for leaf in leaves for n in (np.ravel(leaf) if np.ndim(leaf) else [leaf]))
  except (TypeError, ValueError):  # a word where a number should be
    holds = False
  if not holds:
    shown = repr(value) if isinstance(value, str) else describe(value)
    raise UsageError(f"{name} must be {rule.text}, not {shown}")
  if problem := getattr(value, "problem", ""):
    raise UsageError(f"{name}={describe(value)}: {problem}")
