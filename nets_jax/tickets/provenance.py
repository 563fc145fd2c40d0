"""Where a ticket comes from, as its file says: what it was found for, by which search, and by what code."""

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from typing import Any

from nets_jax.engine.tables import standard_json
from nets_jax.errors import UsageError

# A file that asks for more is not believed: numbers in an example, its axes, signs of the record, its levels.
LARGEST_INPUT, MOST_AXES, LONGEST, DEEPEST = 10**6, 6, 100_000, 6
MOST_CHANNELS, LARGEST_NUMBER = 1_000, 3.5e38  # of means and deviations
SCALES = (("mean", "deviation"), ("target_mean", "target_deviation"))


@dataclasses.dataclass(frozen=True)
class Provenance:
  """What is known of a ticket's making; empty where nothing is.

  Attributes:
    input_shape: of one example.
    task: the settings of data and training that decide a result, by the names of their flags.
    search: its name, or `package.module:Class`.
    settings: of the search, likewise.
    seed, trial: all its randomness; a trial is one of a comparison.
    versions: of Python and the packages that computed it.
    git_revision: of the code, where it was a checkout.
    mean, deviation: of each channel of the inputs, which are standardised by them, (x - mean) / deviation;
      empty where they are not, or where there are more than `MOST_CHANNELS`.
    target_mean, target_deviation: of numbers to predict, likewise.
  """

  input_shape: tuple[int, ...] = ()
  task: Mapping[str, object] = dataclasses.field(default_factory=dict)
  search: str | None = None
  settings: Mapping[str, object] = dataclasses.field(default_factory=dict)
  seed: int | None = None
  trial: int | None = None
  versions: Mapping[str, object] = dataclasses.field(default_factory=dict)
  git_revision: str | None = None
  mean: tuple[float, ...] = ()
  deviation: tuple[float, ...] = ()
  target_mean: tuple[float, ...] = ()
  target_deviation: tuple[float, ...] = ()

  def record(self) -> dict[str, object]:
    """What is known, as JSON holds it."""
    found = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
    known = {name: value for name, value in found.items() if value not in (None, {}, ())}
    return json.loads(json.dumps(standard_json(known), default=str))


def read_provenance(path: str | os.PathLike, record: object) -> Provenance:
  """What a file's record says, which may be a stranger's: nothing in it is imported or run.

  Raises:
    UsageError: it has another form than `Provenance.record` gives.
  """
  if record is None:
    return Provenance()
  fields = {field.name for field in dataclasses.fields(Provenance)}
  if not isinstance(record, dict) or not set(record) <= fields or not _is_well_formed(record):
    raise UsageError(f"{path} does not say where it comes from: its provenance is damaged")
  lists: dict[str, Any] = {name: tuple(map(float, record.get(name, ()))) for pair in SCALES for name in pair}
  return Provenance(**record | {"input_shape": tuple(record.get("input_shape", ()))} | lists)


def _is_well_formed(record: Mapping[str, Any]) -> bool:
  shape, seed, trial = record.get("input_shape", []), record.get("seed", 0), record.get("trial", 0)
  return (
    _depth(record) <= DEEPEST
    and len(json.dumps(record)) <= LONGEST
    and isinstance(shape, list)
    and len(shape) <= MOST_AXES
    and all(_is_whole(size) and size > 0 for size in shape)
    and math.prod(shape) <= LARGEST_INPUT
    and all(are_scales(record.get(mean, []), record.get(deviation, [])) for mean, deviation in SCALES)
    and all(_is_whole(number) and number >= 0 for number in (seed, trial))
    and all(isinstance(record.get(name, {}), dict) for name in ("task", "settings", "versions"))
    and all(isinstance(record.get(name, ""), str) for name in ("search", "git_revision"))
  )


def _depth(value: object) -> int:
  """How many levels of dicts and lists a value has; no deeper than one more than may be."""
  level, found = [value], 0
  while level and found <= DEEPEST:
    inner = [
      each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list)
    ]
    level, found = [each for own in inner for each in own], found + 1
  return found


def are_scales(mean: object, deviation: object) -> bool:
  """Whether these are lists of as many finite numbers, the second above 0, that can be standardised by."""
  if not (isinstance(mean, list) and isinstance(deviation, list)):
    return False
  are_numbers = all(
    (_is_whole(each) or isinstance(each, float)) and abs(each) < LARGEST_NUMBER for each in mean + deviation
  )
  return are_numbers and len(mean) == len(deviation) <= MOST_CHANNELS and all(each > 0 for each in deviation)


def _is_whole(value: object) -> bool:
  return isinstance(value, int) and not isinstance(value, bool)
