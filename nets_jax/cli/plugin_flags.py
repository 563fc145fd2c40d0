"""The searches of one's own that a command line names, found before it is parsed: their settings are flags.

absl knows a flag or refuses it, so those of `--search=package.module:Class` must be defined first. Naming a
search there is the user's word for importing its module.
"""

import os
import sys
from collections.abc import Sequence

from absl import flags

from nets_jax import plugins
from nets_jax.cli import method_labels
from nets_jax.cli.setting_flags import define_search

NAMING = ("search", "method")


def named(arguments: Sequence[str]) -> list[str]:
  """The searches of one's own in a command line and the flagfiles that it reads, in their order."""
  try:
    arguments = flags.FLAGS.read_flags_from_files(list(arguments), force_gnu=True)
  except (flags.Error, OSError):  # the parser says what is wrong
    arguments = list(arguments)
  found = []
  for word, after in zip(arguments, [*arguments[1:], ""], strict=True):
    name, equals, value = word.lstrip("-").partition("=")
    value = value if equals else after
    if word.startswith("-") and name in NAMING and plugins.is_reference(value):
      found.append(value.strip())
    elif word.startswith("-") and name == "methods":
      found += method_labels.searches_of(method_labels.LabelsParser().parse(value))
  return list(dict.fromkeys(found))


def define(arguments: Sequence[str], module: str) -> None:
  """Defines the flags of the searches that a command line names, for the help of a command's module too.

  Modules are looked for in the current directory as well.

  Raises:
    UsageError: see `setting_flags.define_search`.
  """
  if os.getcwd() not in sys.path:
    sys.path.append(os.getcwd())  # last, so that a file there shadows no installed package
  for name in named(arguments):
    for flag in define_search(name):
      flags.FLAGS.register_key_flag_for_module(module, flag)
