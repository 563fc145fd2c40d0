"""The frame of every binary: flags in, the work, and one line where it cannot be done."""

import hashlib
import os
import platform
import sys
from collections.abc import Callable, Sequence
from types import ModuleType

import jax
from absl import app, flags, logging

import nets_jax
from nets_jax.cli import plugin_flags, records, usage
from nets_jax.cli import setting_flags as search_flags
from nets_jax.engine import interrupts

NO_SEARCH = ("search", "method")


def start(module: ModuleType) -> None:
  """Runs a command: its `main`, after its `parse` of the command line."""
  app.run(module.main, flags_parser=module.parse)


def parse(argv: list[str], module: str, hidden: Sequence[str] = ()) -> list[str]:
  """Parses the command line; a wrong flag ends the program with one line and status 2, `--help` with help.

  The settings of a search of one's own are flags from here on.

  Args:
    argv: the command line.
    module: the name of the command's, whose documentation and flags `--help` shows.
    hidden: flags that `--help` leaves out.
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
  if len(rest) > 1:
    fail(f"unexpected argument {rest[1]!r}; every setting is a --flag=value")
  return rest


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
  except nets_jax.Stopped as stopped:
    end(f"stopped by {interrupts.name()} {stopped}; the same command goes on")
  except interrupts.Interrupted:
    end(
      f"stopped by {interrupts.name()}; the same command goes on after the last checkpoint, if there is one"
    )
  except nets_jax.UsageError as error:
    fail(str(error))
  except OSError as error:
    fail(f"cannot use {error.filename or records.workdir(values)}: {error.strerror or error}")
  except MemoryError as error:
    fail(f"not enough memory ({error or 'no more was given'}); lower what is asked for")
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    fail(f"not enough memory on the device ({str(error).splitlines()[0]}); lower population_size or chunk")


def check_devices() -> None:
  """Raises UsageError where JAX is told to use a device that is not here."""
  try:
    jax.devices()
  except (RuntimeError, AssertionError) as error:  # JAX raises either, now and then without a word
    asked = jax.config.jax_platforms or "(not set)"
    why = " ".join(str(error).split()) or "it has none of that kind"
    raise nets_jax.UsageError(
      f"JAX cannot use JAX_PLATFORMS={asked} on this machine ({why}); unset it, or install JAX for that kind"
    ) from error


def fail(message: str) -> None:
  """Prints one line and ends the program with status 2."""
  print(f"error: {message}", file=sys.stderr)
  sys.exit(2)


def end(message: str) -> None:
  """Prints one line and ends the program as the signal would have."""
  print(message, file=sys.stderr)
  sys.exit(interrupts.status())


def keep_compiled_programs(directory: str | None) -> None:
  """Has JAX keep compiled programs: there, or where its environment says, or in the user's cache."""
  if directory is None:
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    ours = os.path.join(caches, "nets_jax", f"programs-{instruction_set()}")
    directory = jax.config.jax_compilation_cache_dir or ours
  if directory:
    try:
      os.makedirs(directory, exist_ok=True)
    except OSError as error:
      print(f"programs are not kept for the next run: {directory}: {error.strerror}", file=sys.stderr)
      directory = None
  jax.config.update("jax_compilation_cache_dir", directory or None)
  if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def instruction_set() -> str:
  """What this machine's programs may run on: hosts that share a home directory must not share them all."""
  try:
    with open("/proc/cpuinfo") as file:
      words = next((line for line in file if line.startswith(("flags", "Features"))), "")
  except OSError:
    words = platform.processor()
  return f"{platform.machine()}-{hashlib.sha256(words.encode()).hexdigest()[:8]}"
