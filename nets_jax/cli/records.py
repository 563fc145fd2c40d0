"""What a command records of its settings: in full, as given, and as the hash that names its results."""

import os
from collections.abc import Iterable, Mapping

from absl import flags

from nets_jax import settings
from nets_jax.changes import fitting
from nets_jax.cli.setting_flags import DATA, DEFINED, NETWORK, RUN, TASK, given, make_search
from nets_jax.data.files import digest
from nets_jax.data.sources import DataSettings
from nets_jax.engine.files import replace_file
from nets_jax.kinds import describe
from nets_jax.protocol import Search
from nets_jax.settings import Setting
from nets_jax.training.task import BARE_TASK


def plain(name: str, value: object) -> object:
  """A setting's value as JSON can hold it: a number, a word, or what is written on the command line."""
  if value is None or isinstance(value, bool | int | float | str) or name not in DEFINED:
    return value
  about = DEFINED[name].about
  return about.kind.write(value) if isinstance(about, Setting) else describe(value)


def explicit(values: flags.FlagValues, search: Search | None = None) -> dict[str, object]:
  """Every setting of a run with its value, those of its search too, whether given or not."""
  found = {name: _value(name, values) for name in (*RUN, *DATA, *NETWORK)} | of_task(values)
  found |= settings.values(search or make_search(values))
  return {name: plain(name, value) for name, value in found.items()}


def of_task(values: flags.FlagValues) -> dict[str, object]:
  """The task's settings, without those of parts that it does not have."""
  return fitting(BARE_TASK, {name: values[name].value for name in TASK}, ())


def _value(name: str, values: flags.FlagValues) -> object:
  """A flag's value; of a data file's content what there is, so that another is not taken for it.

  Raises:
    UsageError: there is no such file.
  """
  content = DataSettings(dataset=values.dataset).digest if name == "dataset_sha256" else None
  return content or values[name].value


def task_settings(values: flags.FlagValues) -> dict[str, object]:
  """The flags of data, network and task that decide a result."""
  found = {name: _value(name, values) for name in (*DATA, *NETWORK)} | of_task(values)
  if values.init_weights is not None:
    found["init_weights"] = f"{values.init_weights} {digest(values.init_weights)}"
  return {name: plain(name, value) for name, value in found.items() if DEFINED[name].about.decides}


def deciding(values: flags.FlagValues) -> dict[str, object]:
  """The settings that decide a run's results, with their values, the seed too."""
  search = settings.values(make_search(values))
  search = {name: plain(name, value) for name, value in search.items()}
  return {"search": values.search, "seed": values.seed, **task_settings(values), **search}


def repeatable(record: Mapping[str, object]) -> dict[str, object]:
  """What of an explicit record decides a result, but for the seed."""

  def decides(name: str) -> bool:
    return name not in DEFINED or getattr(DEFINED[name].about, "decides", True)

  kept = ("search", "init_weights")
  return {name: v for name, v in record.items() if name in kept or (name not in RUN and decides(name))}


def given_plain(values: flags.FlagValues) -> dict[str, object]:
  """The settings of searches that the flags give, as JSON can hold them."""
  return {name: plain(name, value) for name, value in given(values).items()}


def as_given(values: flags.FlagValues, own: Iterable[str] = ()) -> dict[str, object]:
  """The flags of several searches together, as they are given: with others of a command's own."""
  found = {name: _value(name, values) for name in (*RUN, *DATA, *NETWORK) if name != "search"}
  found = {name: plain(name, value) for name, value in (found | of_task(values)).items()}
  return found | given_plain(values) | {name: values[name].value for name in own}


def flagfile(found: Mapping[str, object]) -> str:
  """The text of a flagfile that gives these flags the values they have; those not set are left out."""

  def text(value):
    if isinstance(value, bool):
      return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)

  return "".join(f"--{name}={text(value)}\n" for name, value in found.items() if value is not None)


def leave_flagfile(path: os.PathLike, found: Mapping[str, object]) -> str:
  """Writes the flagfile that repeats a run, but for where its files go; returns the flag that reads it."""
  kept = {name: value for name, value in found.items() if name not in ("workdir", "overwrite")}
  with replace_file(path) as temporary:
    temporary.write_text(flagfile(kept))
  return f"--flagfile={path}"
