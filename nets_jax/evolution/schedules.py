"""Rates that change in the course of a search: wherever a number stands, one of these may.

With x in [0, 1] the share of the search that is over, a schedule goes from `first` at 0 to `last` at 1. Its
numbers are traced, so a sweep over them compiles once.
"""

import re
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array

from nets_jax import structs
from nets_jax.kinds import Kind, Number

# A number, or what gives it at a share x in [0, 1] of the search: one of the schedules below, or one's own.
Rate = Number | Callable[[Number], Number]


@structs.dataclass
class Linear:
  """first + x * (last - first)."""

  first: Number
  last: Number

  def __call__(self, x: Number) -> Number:
    """The rate at x."""
    return self.first + x * (self.last - self.first)


@structs.dataclass
class Geometric:
  """first * (last / first)^x; both above 0."""

  first: Number
  last: Number

  @property
  def problem(self) -> str:
    """What is wrong with it, in words; nothing if it can be followed."""
    return "" if self.first > 0 and self.last > 0 else "a geometric schedule begins and ends above 0"

  def __call__(self, x: Number) -> Number:
    """The rate at x."""
    return self.first * (self.last / self.first) ** x


@structs.dataclass
class Cubic:
  """last + (first - last) * (1 - x)^3 (Zhu & Gupta, 2018)."""

  first: Number
  last: Number

  def __call__(self, x: Number) -> Number:
    """The rate at x."""
    return self.last + (self.first - self.last) * (1 - x) ** 3


SHAPES = {"linear": Linear, "geometric": Geometric, "cubic": Cubic}
_FORM = re.compile(r"(?:(\w+)\()?([^()]+?)to([^()]+?)(\))?")


def rate_at(rate: Rate, x: Number) -> Array:
  """A rate at x: the number that it is, or its schedule's."""
  return jnp.asarray(rate(x) if callable(rate) else rate)


def parse_rate(text: str) -> Rate:
  """Reads `0.1`, `2to0.2` (a straight line), `geometric(1to0.05)` or `cubic(1to0.05)`."""
  match = _FORM.fullmatch(text.strip())
  if not match:
    return float(text)
  shape, first, last, end = match.groups()
  if bool(shape) != bool(end) or (shape or "linear") not in SHAPES:
    raise ValueError(text)
  return SHAPES[shape or "linear"](float(first), float(last))


def write_rate(rate: Rate) -> str:
  """As `parse_rate` reads it."""
  for name, shape in SHAPES.items():
    if isinstance(rate, shape):
      line = f"{rate.first}to{rate.last}"
      return line if shape is Linear else f"{name}({line})"
  return str(rate)


RATE = Kind("a number, or a schedule such as 2to0.2", parse_rate, write_rate)
