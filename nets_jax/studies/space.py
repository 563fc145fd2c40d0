"""The settings of a sweep: every combination of listed values, times draws from ranges by Optuna's samplers.

A value is written as on the command line; in a setting that takes a list, `+` stands for its commas.
"""

import contextlib
import dataclasses
import itertools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, QMCSampler, RandomSampler, TPESampler

from nets_jax import plugins
from nets_jax.errors import UsageError

Changes = dict[str, str]
# Whose values may be `package.module:name`, which is no range.
OF_ONES_OWN = ("network", "dataset", "loss", "score", "schedule", "optimizer")
SAMPLERS = ("grid", "random", "qmc", "tpe")
FIXED = ("grid", "random", "qmc")  # whose settings do not depend on what the others came to


@dataclasses.dataclass(frozen=True)
class Dimension:
  """What one setting is drawn from.

  Attributes:
    name: the setting's.
    choices: values that are as likely; empty for a range.
    low, high: ends of a range, both included where the numbers are whole.
    log: whether it is uniform in the logarithm.
    whole: whether it is of whole numbers.
    condition: values of dimensions before it, by name, without which it is not drawn.
  """

  name: str
  choices: tuple[str, ...] = ()
  low: float = 0.0
  high: float = 1.0
  log: bool = False
  whole: bool = False
  condition: Mapping[str, str] = dataclasses.field(default_factory=dict)

  @property
  def parameter(self) -> str:
    """Its name in Optuna's study: a setting may have several ranges, each under a condition of its own."""
    return self.name + "".join(f"[{name}={value}]" for name, value in self.condition.items())

  def suggest(self, trial: optuna.Trial) -> str:
    """A value as text."""
    if self.choices:
      return str(trial.suggest_categorical(self.parameter, self.choices))
    if self.whole:
      return str(trial.suggest_int(self.parameter, int(self.low), int(self.high), log=self.log))
    return f"{trial.suggest_float(self.parameter, self.low, self.high, log=self.log):.4g}"


def product(text: str, flag: str = "grid") -> list[Changes]:
  """`noise_rate=0.05,0.1;dormancy_rate=0.1,0.2` is four settings; an empty text one, of nothing.

  Between `|` stand several such, of the same settings: each optimiser with rates of its own.

  Raises:
    UsageError: it cannot be read so.
  """
  found: list[Changes] = []
  for part in plugins.split(text, "|"):
    lists = {name: _choices(name, values) for name, values in _entries(part, flag).items()}
    found += [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]
    if set(found[-1]) != set(found[0]):
      raise UsageError(f"in --{flag}, what stands between | must name the same settings: {text!r}")
  return [changes for i, changes in enumerate(found) if changes not in found[:i]]


def as_text(grids: Sequence[Mapping[str, Sequence[object]]]) -> str:
  """Grids as they are written on the command line."""
  texts = [
    ";".join(f"{name}={','.join(map(str, values))}" for name, values in grid.items()) for grid in grids
  ]
  return "|".join(texts)


def read_ranges(text: str, is_whole: Callable[[str], bool]) -> list[Dimension]:
  """Reads `noise_rate=0.01:0.3:log;dormancy_rate=0:0.4;selection=rank,roulette`.

  A range under a condition is `learning_rate[optimizer=adam]=1e-4:1e-2:log`; what that depends on stands
  before it.

  Args:
    text: the ranges.
    is_whole: whether the setting of a name takes whole numbers.

  Raises:
    UsageError: it cannot be read so.
  """
  dimensions: list[Dimension] = []
  for name, values in _entries(text, "ranges").items():
    plain, bracket, inner = name.partition("[")
    condition = _condition(name, inner, dimensions) if bracket else {}
    dimensions.append(dataclasses.replace(_dimension(plain, values, is_whole(plain)), condition=condition))
  plain = [dimension.name for dimension in dimensions if not dimension.condition]
  for dimension in dimensions:
    if dimension.condition and dimension.name in plain:
      raise UsageError(f"in --ranges, {dimension.name} is there with a condition and without")
  return dimensions


def _condition(name: str, inner: str, before: Sequence[Dimension]) -> dict[str, str]:
  """What stands in the brackets of `name[other=value]`."""
  other, equals, value = inner.removesuffix("]").partition("=")
  known = {dimension.name: dimension for dimension in before}
  if not (inner.endswith("]") and equals and other in known):
    raise UsageError(f"in --ranges, {name!r} is no name[other=value] whose other stands before it")
  if known[other].choices and value not in known[other].choices:
    raise UsageError(f"in --ranges, {other} is never {value!r}, so {name!r} would never be drawn")
  return {other: value}


def suggest(trial: optuna.Trial, dimensions: Sequence[Dimension]) -> Changes:
  """A setting, drawn dimension by dimension; one whose condition does not hold is left out."""
  chosen: Changes = {}
  for dimension in dimensions:
    if all(chosen.get(name) == value for name, value in dimension.condition.items()):
      chosen[dimension.name] = dimension.suggest(trial)
  return chosen


def draw(dimensions: Sequence[Dimension], count: int, sampler: str, seed: int) -> list[Changes]:
  """Draws settings by `random` or `qmc`; setting i is the same whatever `count`, and whoever draws it.

  Args:
    dimensions: what to draw from.
    count: settings to draw.
    sampler: `random`, independent draws; or `qmc`, a scrambled Sobol sequence, which covers the ranges
      evenly.
    seed: of the draws.

  Raises:
    UsageError: nothing to draw, or nothing to draw from.
  """
  if not dimensions or count < 1:
    raise UsageError(f"--sampler={sampler} asks for --samples of at least 1 and for --ranges to draw from")
  optuna.logging.set_verbosity(optuna.logging.WARNING)
  if sampler == "qmc":
    study = optuna.create_study(sampler=make_sampler("qmc", seed))
    settings = []
    for _ in range(count):
      trial = study.ask()
      settings.append(suggest(trial, dimensions))
      study.tell(trial, 0.0)
    return settings
  seeds = [np.random.SeedSequence([seed, i]).generate_state(1)[0] for i in range(count)]
  return [
    suggest(optuna.create_study(sampler=RandomSampler(seed=int(own))).ask(), dimensions) for own in seeds
  ]


def make_sampler(name: str, seed: int) -> BaseSampler:
  """Optuna's sampler of that name: `qmc` or `tpe`."""
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", ExperimentalWarning)  # it says so of both, since years
    if name == "tpe":
      return TPESampler(seed=seed % 2**32, multivariate=True, group=True, constant_liar=True)
    return QMCSampler(
      seed=seed % 2**32, scramble=True, warn_independent_sampling=False, warn_asynchronous_seeding=False
    )


def _entries(text: str, flag: str) -> dict[str, str]:
  """`name=values` for each part between semicolons; what stands in brackets or quotes is never cut."""
  entries: dict[str, str] = {}
  for part in filter(None, (part.strip() for part in plugins.split(text, ";"))):
    first, *rest = plugins.split(part, "=")
    name, values = first.strip(), "=".join(rest).strip()
    if not (name and values):
      raise UsageError(f"in --{flag}, {part!r} is not name=values; write 'noise_rate=...;elites=...'")
    if name in entries:
      raise UsageError(f"in --{flag}, {name} is there twice")
    entries[name] = values
  return entries


def _choices(name: str, values: str) -> list[str]:
  """The values of a list; none may be empty or there twice."""
  listed = [value.strip().replace("+", ",") for value in plugins.split(values, ",")]
  if not all(listed) or len(set(listed)) < len(listed):
    raise UsageError(f"the values of {name} must differ and none be empty: {values!r}")
  return listed


def _dimension(name: str, values: str, whole: bool) -> Dimension:
  """What a setting is drawn from, by its text."""
  if ":" not in values or name in OF_ONES_OWN:
    return Dimension(name, tuple(_choices(name, values)))
  first, last, *scale = values.split(":")
  try:
    low, high = (int(first), int(last)) if whole else (float(first), float(last))
  except ValueError as error:
    raise UsageError(
      f"the range of {name} must be two {'whole ' if whole else ''}numbers, low:high or low:high:log, "
      f"not {values!r}"
    ) from error
  if scale not in ([], ["log"]):
    raise UsageError(f"the range of {name} ends in {scale[-1]!r}; only :log may follow low:high")
  if not (math.isfinite(high - low) and low < high and (low > 0 or not scale)):
    raise UsageError(
      f"the range of {name} must go up{', from above 0 for log' if scale else ''}, not {values!r}"
    )
  return Dimension(name, (), low, high, bool(scale), whole)


def as_number(word: str) -> str | int | float:
  """A value as tables have it: the number that a word is, if it is one."""
  for kind in (int, float):
    with contextlib.suppress(ValueError):
      return kind(word)
  return word
