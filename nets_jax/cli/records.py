"""What a command records of its settings: in full, as given, and as the hash that names its results."""

import hashlib
import json
import os
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from absl import flags

import nets_jax
from nets_jax import plugins, searches, settings
from nets_jax.cli.setting_flags import DATA, DEFINED, NETWORK, RUN, TASK, given, make_search
from nets_jax.data.files import is_file_name
from nets_jax.data.sources import DataSettings
from nets_jax.engine.files import replace_file
from nets_jax.kinds import describe
from nets_jax.settings import Setting


def plain(name: str, value: Any) -> Any:
  """A setting's value as JSON can hold it: a number, a word, or what is written on the command line."""
  if value is None or isinstance(value, bool | int | float | str) or name not in DEFINED:
    return value
  about = DEFINED[name].about
  return about.kind.write(value) if isinstance(about, Setting) else describe(value)


def explicit(values: flags.FlagValues) -> dict[str, Any]:
  """Every setting of a run with its value, those of its search too, whether given or not."""
  search = make_search(values)
  found = {name: _value(name, values) for name in (*RUN, *DATA, *NETWORK, *TASK)} | settings.values(search)
  return {name: plain(name, value) for name, value in found.items()}


def _value(name: str, values: flags.FlagValues) -> Any:
  """A flag's value; of a data file's content what there is, so that another is not taken for it.

  Raises:
    UsageError: there is no such file.
  """
  content = DataSettings(dataset=values.dataset).digest if name == "dataset_sha256" else None
  return content or values[name].value


def task_settings(values: flags.FlagValues) -> dict[str, Any]:
  """The flags of data, network and task that decide a result."""
  names = [name for name in (*DATA, *NETWORK, *TASK) if DEFINED[name].about.decides]
  return {name: plain(name, _value(name, values)) for name in names}


LONGEST = 60  # letters of a name of one's own in that of a directory
DEFAULTS = {name: flags.FLAGS[name].default for name in (*RUN, *DATA, *NETWORK, *TASK)}


def identity(values: flags.FlagValues, search: nets_jax.Search) -> dict[str, Any]:
  """All that a run's results depend on but its seed: what differs from the defaults, and their version.

  So a setting that is added moves no result on disk, and a default that is changed takes none for its own.
  """
  defaults = {name: plain(name, DEFAULTS[name]) for name in task_settings(values)}
  changed = {name: value for name, value in task_settings(values).items() if value != defaults[name]}
  return {**searches.identity(values.search, search), **changed}


def digest(value: Any) -> str:
  """Eight digits that name a record."""
  return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:8]


def deciding(values: flags.FlagValues) -> dict[str, Any]:
  """The settings that decide a run's results, with their values, the seed too."""
  search = settings.values(make_search(values))
  search = {name: plain(name, value) for name, value in search.items()}
  return {"search": values.search, "seed": values.seed, **task_settings(values), **search}


def given_plain(values: flags.FlagValues) -> dict[str, Any]:
  """The settings of searches that the flags give, as JSON can hold them."""
  return {name: plain(name, value) for name, value in given(values).items()}


def as_given(values: flags.FlagValues, own: Iterable[str] = ()) -> dict[str, Any]:
  """The flags of several searches together, as they are given: with others of a command's own."""
  names = [name for name in (*RUN, *DATA, *NETWORK, *TASK) if name != "search"]
  found = {name: plain(name, _value(name, values)) for name in names} | given_plain(values)
  return found | {name: values[name].value for name in own}


def flagfile(found: Mapping[str, Any]) -> str:
  """The text of a flagfile that gives these flags the values they have; those not set are left out."""

  def text(value):
    if isinstance(value, bool):
      return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)

  return "".join(f"--{name}={text(value)}\n" for name, value in found.items() if value is not None)


def leave_flagfile(path: os.PathLike, found: Mapping[str, Any]) -> str:
  """Writes the flagfile that repeats a run, but for where its files go; returns the flag that reads it."""
  kept = {name: value for name, value in found.items() if name not in ("workdir", "overwrite")}
  with replace_file(path) as temporary:
    temporary.write_text(flagfile(kept))
  return f"--flagfile={path}"


def workdir(values: flags.FlagValues, ticket: str | None = None) -> str:
  """The directory of the run's files; by default named by what is run, a ticket by a hash of its file."""
  if values.workdir:
    return values.workdir
  what = file_name(values.search)
  if ticket:
    path = pathlib.Path(ticket)
    content = path.read_bytes() if path.is_file() else str(path).encode()
    what = f"ticket-{hashlib.sha256(content).hexdigest()[:8]}"
  return os.path.join("runs", f"{file_name(values.dataset)}-{what}-seed{values.seed}")


def file_name(name: str) -> str:
  """The name of a search or a data set in that of a file: a user's own without signs, and not too long."""
  if is_file_name(name):
    safe = pathlib.Path(name).stem
  elif plugins.is_reference(name):
    safe = str(plugins.parse(name))
  else:
    return name
  safe = re.sub(r"[^\w.-]+", "_", safe).strip("_.")
  return safe if 0 < len(safe) <= LONGEST else f"{safe[:LONGEST]}-{digest(name)}"
