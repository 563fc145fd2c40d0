"""The settings of a sweep: every combination of listed values, times random draws from ranges.

A value is written as on the command line; in a flag that takes a list, `+` stands for its commas.
"""

import itertools
import math
from collections.abc import Callable

import numpy as np

import nets_jax

Changes = dict[str, str]


def product(text: str) -> list[Changes]:
  """`noise_rate=0.05,0.1;dormancy_rate=0.1,0.2` is four settings; an empty text one, of nothing.

  Raises:
    UsageError: it cannot be read so.
  """
  lists = {name: _choices(name, values) for name, values in _entries(text, "grid").items()}
  return [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]


def draw(text: str, count: int, seed: int, is_whole: Callable[[str], bool]) -> list[Changes]:
  """Draws settings: `noise_rate=0.01:0.3:log;dormancy_rate=0:0.4;selection=rank,roulette`.

  A range is uniform, or log-uniform where it is marked `log`, both ends included where the numbers are whole;
  of a list each value is as likely.

  Args:
    text: the ranges.
    count: settings to draw.
    seed: of the draws; setting i is the same whatever `count`.
    is_whole: whether the flag of a name takes whole numbers.

  Raises:
    UsageError: it cannot be read so.
  """
  entries = _entries(text, "ranges")
  if not entries or count < 1:
    raise nets_jax.UsageError("random asks for at least 1 setting and for --ranges to draw from")
  drawers = [_drawer(name, values, is_whole(name)) for name, values in entries.items()]
  settings = []
  for i in range(count):
    rng = np.random.default_rng([seed, i])
    settings.append(dict(zip(entries, [drawer(rng) for drawer in drawers], strict=True)))
  return settings


def _entries(text: str, flag: str) -> dict[str, str]:
  """`name=values` for each part between semicolons."""
  entries = {}
  for part in filter(None, (part.strip() for part in text.split(";"))):
    name, equals, values = (word.strip() for word in part.partition("="))
    if not (name and equals and values):
      raise nets_jax.UsageError(
        f"in --{flag}, {part!r} is not name=values; write 'noise_rate=...;elites=...'"
      )
    if name in entries:
      raise nets_jax.UsageError(f"in --{flag}, {name} is there twice")
    entries[name] = values
  return entries


def _choices(name: str, values: str) -> list[str]:
  """The values of a list; none may be empty or there twice."""
  found = [value.strip().replace("+", ",") for value in values.split(",")]
  if not all(found) or len(set(found)) < len(found):
    raise nets_jax.UsageError(f"the values of {name} must differ and none be empty: {values!r}")
  return found


def _drawer(name: str, values: str, whole: bool) -> Callable[[np.random.Generator], str]:
  """Draws one value as text."""
  if ":" not in values:
    choices = _choices(name, values)
    return lambda rng: choices[rng.integers(len(choices))]
  low, high, *scale = values.split(":")
  try:
    low, high = (int(low), int(high)) if whole else (float(low), float(high))
  except ValueError as error:
    raise nets_jax.UsageError(
      f"the range of {name} must be two {'whole ' if whole else ''}numbers, low:high or low:high:log, "
      f"not {values!r}"
    ) from error
  if scale not in ([], ["log"]):
    raise nets_jax.UsageError(f"the range of {name} ends in {scale[-1]!r}; only :log may follow low:high")
  if not (math.isfinite(high - low) and low < high and (low > 0 or not scale)):
    raise nets_jax.UsageError(
      f"the range of {name} must go up{', from above 0 for log' if scale else ''}, not {values!r}"
    )
  top = high + 1 if whole else high
  if scale:
    number = lambda rng: math.exp(rng.uniform(math.log(low), math.log(top)))  # noqa: E731
  else:
    number = lambda rng: rng.uniform(low, top)  # noqa: E731
  return (lambda rng: str(min(int(number(rng)), high))) if whole else (lambda rng: f"{number(rng):.4g}")
