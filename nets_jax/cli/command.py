"""The frame of every binary: flags in, the work, and one line where it cannot be done."""

import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import NoReturn

import jax
from absl import app, flags, logging

import nets_jax
from nets_jax.cli import plugin_flags, usage
from nets_jax.cli import setting_flags as search_flags
from nets_jax.engine import interrupts
from nets_jax.engine.checkpoints import Stopped
from nets_jax.engine.saving import Saving
from nets_jax.engine.startup import check_devices, keep_compiled_programs
from nets_jax.studies import places
from nets_jax.studies.batches import Machine

PRESETS = pathlib.Path(nets_jax.__file__).parent.parent / "experiments" / "presets"  # in a checkout
NO_SEARCH = ("search", "method")


def start(module: ModuleType) -> None:
  """Runs a command: its `main`, after its `parse` of the command line."""
  app.run(module.main, flags_parser=module.parse)


def parse(argv: list[str], module: str, hidden: Sequence[str] = (), files: Sequence[str] = ()) -> list[str]:
  """Parses the command line; a wrong flag ends the program with one line and status 2, `--help` with help.

  The settings of a search of one's own are flags from here on.

  Args:
    argv: the command line.
    module: the name of the command's, whose documentation and flags `--help` shows.
    hidden: flags that `--help` leaves out.
    files: what each word is that is no flag, where a command takes such; one that ends in points, several.
  """
  try:
    plugin_flags.define(argv[1:], module)
  except nets_jax.UsageError as error:
    fail(str(error))
  if usage.asked_for(argv[1:]):
    flags.FLAGS(argv[:1] + usage.chosen_search(argv[1:]))
    try:
      print(usage.text(flags.FLAGS, module, hidden), flush=True)
    except BrokenPipeError:  # a pager that was left early
      os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)
  try:
    rest = flags.FLAGS(argv)
  except flags.Error as error:
    fail(f"{search_flags.explain(error)} (--help lists the flags)")
  except OSError as error:  # an unreadable --flagfile
    fail(f"{error.filename}: {error.strerror}")
  given = rest[1:]
  if files and (ignored := _ignored(module, hidden)):
    fail(f"--{ignored} decides nothing here (--help lists the flags)")
  if files and (len(given) < len(files) or (len(given) > len(files) and not files[-1].endswith("..."))):
    fail(f"give {' '.join(files)}, and every setting as a --flag=value (--help lists them)")
  if given and not files:
    fail(f"unexpected argument {rest[1]!r}; every setting is a --flag=value")
  return rest


def _ignored(module: str, hidden: Sequence[str]) -> str | None:
  """A flag of this library's that is given, and that a command does not heed."""
  heeded = {flag.name for flag in flags.FLAGS.get_key_flags_for_module(module)} - set(hidden)
  heeded |= {"compilation_cache_dir"}  # of every command's frame
  for owner, own in flags.FLAGS.flags_by_module_dict().items():
    for flag in own:
      if owner.startswith(("nets_jax", "experiments")) and flag.present and flag.name not in heeded:
        return flag.name
  return None


def parse_methods(argv: list[str], module: str) -> list[str]:
  """`parse` of a command that runs several searches, or none, so that --search would decide nothing."""
  for word in argv[1:]:
    if word.startswith("-") and word.lstrip("-").partition("=")[0] in NO_SEARCH:
      fail(f"{word} decides nothing here; it is for the search and the sweep")
  return parse(argv, module, NO_SEARCH)


def run_main(run: Callable[[flags.FlagValues], None], join: Callable[[], None] = lambda: None) -> None:
  """Runs a binary's work with the parsed flags; what cannot be met ends it with one line and status 2.

  Args:
    run: the work.
    join: makes this one of several processes, before JAX is used.
  """
  values = flags.FLAGS
  if not values["verbosity"].present:
    logging.set_verbosity(logging.WARNING)  # else JAX tells of every accelerator it does not find
  keep_compiled_programs(values.compilation_cache_dir)
  try:
    interrupts.install()
    nets_jax.use_cpu_cores(values.devices)
    join()
    check_devices()
    search_flags.check_run(values)
    run(values)
  except Stopped as stopped:
    end(f"stopped by {interrupts.name()} {stopped}; the same command goes on")
  except interrupts.Interrupted:
    end(
      f"stopped by {interrupts.name()}; the same command goes on after the last checkpoint, if there is one"
    )
  except nets_jax.UsageError as error:
    fail(str(error))
  except OSError as error:
    fail(f"cannot use {error.filename or values.workdir or places.RUNS}: {error.strerror or error}")
  except MemoryError as error:
    fail(f"not enough memory ({error or 'no more was given'}); lower what is asked for")
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    fail(f"not enough memory on the device ({str(error).splitlines()[0]}); lower population_size or chunk")


def machine(values: flags.FlagValues) -> Machine:
  """On what the flags ask for a command to run, and how it is saved."""
  at_once = values.at_once if "at_once" in values else None
  saving = Saving(values.checkpoint_every, values.checkpoint_seconds, signals=True)
  return Machine(values.devices, values.chunk, at_once, saving, values.tensorboard, values.keep_trained)


def fail(message: str) -> NoReturn:
  """Prints one line and ends the program with status 2."""
  print(f"error: {message}", file=sys.stderr)
  sys.exit(2)


def end(message: str) -> NoReturn:
  """Prints one line and ends the program as the signal would have."""
  print(message, file=sys.stderr)
  sys.exit(interrupts.status())
