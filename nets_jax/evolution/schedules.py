"""Rates that change in the course of a search: wherever a number stands, one of these may.

With x in [0, 1] the share of the search that is over, a schedule goes from `first` at 0 to `last` at 1. Its
numbers are traced, so a sweep over them compiles once.
"""

import re
from typing import Any

import jax.numpy as jnp
from flax import struct

from nets_jax.kinds import Kind


@struct.dataclass
class Linear:
  """first + x * (last - first)."""

  first: Any
  last: Any

  def __call__(self, x):
    """The rate at x."""
    return self.first + x * (self.last - self.first)


@struct.dataclass
class Geometric:
  """first * (last / first)^x; both above 0."""

  first: Any
  last: Any

  @property
  def problem(self) -> str:
    """What is wrong with it, in words; nothing if it can be followed."""
    return "" if self.first > 0 and self.last > 0 else "a geometric schedule begins and ends above 0"

  def __call__(self, x):
    """The rate at x."""
    return self.first * (self.last / self.first) ** x


@struct.dataclass
class Cubic:
  """last + (first - last) * (1 - x)^3 (Zhu & Gupta, 2018)."""

  first: Any
  last: Any

  def __call__(self, x):
    """The rate at x."""
    return self.last + (self.first - self.last) * (1 - x) ** 3


SHAPES = {"linear": Linear, "geometric": Geometric, "cubic": Cubic}
_FORM = re.compile(r"(?:(\w+)\()?([^()]+?)to([^()]+?)(\))?")


def rate_at(rate: Any, x) -> Any:
  """A rate at x: the number that it is, or its schedule's."""
  return rate(x) if callable(rate) else jnp.asarray(rate)


def parse_rate(text: str) -> Any:
  """Reads `0.1`, `2to0.2` (a straight line), `geometric(1to0.05)` or `cubic(1to0.05)`."""
  found = _FORM.fullmatch(text.strip())
  if not found:
    return float(text)
  shape, first, last, end = found.groups()
  if bool(shape) != bool(end) or (shape or "linear") not in SHAPES:
    raise ValueError(text)
  return SHAPES[shape or "linear"](float(first), float(last))


def write_rate(rate: Any) -> str:
  """As `parse_rate` reads it."""
  for name, shape in SHAPES.items():
    if isinstance(rate, shape):
      line = f"{rate.first}to{rate.last}"
      return line if shape is Linear else f"{name}({line})"
  return str(rate)


RATE = Kind("a number, or a schedule such as 2to0.2", parse_rate, write_rate)
