"""The searches of one's own that a command line names, found before it is parsed: their settings are flags.

absl knows a flag or refuses it, so those of `--search=package.module:Class` must be defined first. Naming a
search there is the user's word for importing its module.
"""

import functools
import itertools
import os
import sys
from collections.abc import Sequence

from absl import flags

import nets_jax
from nets_jax import plugins, searches
from nets_jax.cli import setting_flags
from nets_jax.errors import UsageError
from nets_jax.settings import places
from nets_jax.studies import method_labels

NAMING = ("search", "method")
# The searches of a user's own whose settings are flags by now, and the names of the flags that they brought.
OWN_SEARCHES: dict[str, nets_jax.Search] = {}
BROUGHT: list[str] = []


def define_search(name: str) -> list[flags.Flag]:
  """Makes flags of the settings of a search of one's own, with no value; returns those that are new.

  Args:
    name: `package.module:Class`, of which the module is imported.

  Raises:
    UsageError: see `searches.default`; or a setting is called as a flag that means something else.
  """
  search = OWN_SEARCHES[name] = searches.default(name)
  new = []
  for setting, place in (*places(search), *searches.all_places(search)):
    kind = setting_flags.kind_of(place)
    if setting in setting_flags.SEARCH:
      there = setting_flags.kind_of(setting_flags.DEFINED[setting])
      if there.what != kind.what and (setting, kind.what) not in _of_ours():
        raise UsageError(
          f"{name} has a setting {setting!r} that is {kind.what}, but --{setting} is {there.what}; rename it"
        )
    elif setting in flags.FLAGS:
      raise UsageError(f"{name} has a setting {setting!r}, but --{setting} means something else; rename it")
    else:
      setting_flags.define_setting(setting, place, None)
      for known in (setting_flags.SEARCH, setting_flags.OF_A_METHOD, BROUGHT):
        known.append(setting)
      new.append(flags.FLAGS[setting])
  return new


@functools.cache
def _of_ours() -> set[tuple[str, str]]:
  """The settings of our own searches, and what each is: one name may be two kinds, in two parts."""
  ours = [place for make in searches.SEARCHES.values() for place in searches.all_places(make())]
  return {(name, setting_flags.kind_of(place).what) for name, place in ours}


def named(arguments: Sequence[str]) -> list[str]:
  """The searches of one's own in a command line and the flagfiles that it reads, in their order."""
  try:
    arguments = flags.FLAGS.read_flags_from_files(list(arguments), force_gnu=True)
  except (flags.Error, OSError):  # the parser says what is wrong
    arguments = list(arguments)
  found = []
  for word, after in itertools.pairwise([*arguments, ""]):
    name, equals, value = word.lstrip("-").partition("=")
    value = value if equals else after
    if word.startswith("-") and name in NAMING and plugins.is_reference(value):
      found.append(value.strip())
    elif word.startswith("-") and name == "methods":
      found += method_labels.searches_of(method_labels.split_labels(value))
  return list(dict.fromkeys(found))


def define(arguments: Sequence[str], module: str) -> None:
  """Defines the flags of the searches that a command line names, for the help of a command's module too.

  Modules are looked for in the current directory as well.

  Raises:
    UsageError: see `define_search`.
  """
  if os.getcwd() not in sys.path:
    sys.path.append(os.getcwd())  # last, so that a file there shadows no installed package
  for name in named(arguments):
    for flag in define_search(name):
      flags.FLAGS.register_key_flag_for_module(module, flag)
