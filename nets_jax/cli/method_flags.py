"""The methods of a comparison, from the flags: labels such as `short@imp:cycle_epochs=10`."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import cast

from absl import flags

from nets_jax import searches, settings
from nets_jax.cli import records, setting_flags
from nets_jax.data.dataset import Dataset
from nets_jax.errors import UsageError
from nets_jax.protocol import Search
from nets_jax.studies import space, tuning
from nets_jax.studies.method_labels import read_label, split_labels
from nets_jax.studies.methods import Method, Run, check_counts
from nets_jax.studies.work import Options


class LabelsParser(flags.ArgumentParser):
  """Reads methods with commas between, but for those in brackets."""

  def parse(self, argument: object) -> list[str]:
    """The labels."""
    return split_labels(argument) if isinstance(argument, str) else list(cast(Sequence[str], argument))

  def flag_type(self) -> str:
    """As absl names it."""
    return "methods with commas between"


flags.DEFINE_integer("trials", 5, "Independent trials of each method.")
flags.DEFINE(
  LabelsParser(),
  "methods",
  None,
  "Searches, each with settings of its own after colons, and a name before an @ if it is to have one "
  "(short@imp:cycle_epochs=10); what compares them has its default.",
  serializer=flags.ListSerializer(","),
)

flags.DEFINE_string(
  "tune", "", "First choose settings of each method, of 'flag=value,value;flag=value,value', or of default."
)
flags.DEFINE_float("tune_density", 0.05, "Density of the tickets that --tune looks at.")
flags.DEFINE_integer("tune_epochs", None, "Epochs of training in the first round of --tune; default all.")
flags.DEFINE_integer("tune_finalists", 2, "Settings of a method in --tune's second round; 1 has none.")

TUNING = ("tune", "tune_density", "tune_epochs", "tune_finalists")


def candidates(
  labels: Sequence[str], values: flags.FlagValues, methods: Sequence[Method]
) -> dict[str, list[Method]]:
  """What `--tune` has each method try, by its name; nothing without it."""
  if not values.tune:
    if values["tune"].present:
      raise UsageError("tune is empty; give it 'flag=value,value', or default")
    if other := [name for name in TUNING if values[name].present]:
      raise UsageError(f"{other[0]} is of a tuning, but there is none; give --tune, or leave it out")
    return {}
  grid = space.product(space.as_text(tuning.GRID) if values.tune == "default" else values.tune, "tune")
  data = methods[0].task.data
  return tuning.of_labels(labels, grid, lambda some: make_methods(some, values, data))


def screening(
  tried: Mapping[str, Sequence[Method]], values: flags.FlagValues, where: pathlib.Path
) -> list[Run]:
  """The first runs of `--tune`, their settings checked."""
  check_counts(tune_finalists=(values.tune_finalists, 1))
  return tuning.screening(tried, directory=where, **_about(values))


def tuned(
  tried: Mapping[str, Sequence[Method]], values: flags.FlagValues, where: pathlib.Path, how: Options
) -> list[Method]:
  """Each method with what `--tune` chooses, of which it prints the table; none where hours run out before."""
  found = tuning.tune(tried, directory=where, options=how, finalists=values.tune_finalists, **_about(values))
  print(found.write(where))
  return found.methods if found.is_over else []


def tuning_record(values: flags.FlagValues) -> dict[str, object]:
  """What a directory keeps to of the tuning: as before there were finalists, where these are two."""
  finalists = [values.tune_finalists] * (values.tune_finalists != 2)
  return {"tune": [values.tune, *_about(values).values(), *finalists] if values.tune else None}


def _about(values: flags.FlagValues) -> dict:
  return {"density": values.tune_density, "screen_epochs": values.tune_epochs, "seed": values.seed}


def make_methods(
  labels: Sequence[str], values: flags.FlagValues, data: Dataset | None = None
) -> list[Method]:
  """The methods of `--methods`. A flag that is given is for every search that has such a setting.

  Args:
    labels: see `read_label`.
    values: the flags; a label's own override them.
    data: of the task; None loads it.

  Raises:
    UsageError: a label that cannot be read, or a flag that none of these searches has.
  """
  names = [read_label(label)[0] for label in labels]
  for name in names:
    if names.count(name) > 1:
      raise UsageError(f"two methods are called {name!r}; write name@method:setting=value")
  own = [_with_own_flags(label, values) for label in labels]
  chosen = [_make_search(label, of_label) for label, of_label in zip(labels, own, strict=True)]
  heard = {setting for search in chosen for setting in settings.names(search)}
  for setting in setting_flags.given(values):
    if setting not in heard:
      having = ", ".join(searches.having_setting(setting))
      raise UsageError(f"none of these methods has a setting {setting!r}; those that have it are {having}")
  data = data or setting_flags.make_data(values)
  return [
    Method(
      {"method": name}, search, setting_flags.make_task(of_label, data), records.explicit(of_label, search)
    )
    for name, search, of_label in zip(names, chosen, own, strict=True)
  ]


def _with_own_flags(label: str, values: flags.FlagValues) -> flags.FlagValues:
  """The flags with those of a label."""
  _, name, changes = read_label(label)
  for setting in changes:
    if setting in setting_flags.DEFINED and setting not in setting_flags.OF_A_METHOD:
      raise UsageError(f"in {label!r}: all methods share one {setting}; give --{setting} instead")
  try:
    own = setting_flags.changed(values, changes)
  except UsageError as error:
    raise UsageError(f"in {label!r}: {error}; write method:setting=value") from error
  own.search = name
  return own


def _make_search(label: str, own: flags.FlagValues) -> Search:
  """A label's search with its settings."""
  try:
    return setting_flags.make_search(own, own=read_label(label)[2])
  except UsageError as error:
    raise UsageError(f"in {label!r}: {error}; write method:setting=value") from error
