"""What a command does before JAX is used: where compiled programs are kept, and whether devices are there."""

import hashlib
import importlib.metadata
import os
import platform
import sys

import jax

from nets_jax.engine.messages import say
from nets_jax.errors import UsageError


def check_devices() -> None:
  """Raises UsageError where JAX is told to use a device that is not here."""
  try:
    jax.devices()
  except (RuntimeError, AssertionError) as error:  # JAX raises either, now and then without a word
    asked = getattr(jax.config, "jax_platforms", None) or "(not set)"
    why = " ".join(str(error).split()) or "it has none of that kind"
    raise UsageError(
      f"JAX cannot use JAX_PLATFORMS={asked} on this machine ({why}); unset it, or install JAX for that kind"
    ) from error


def installed_version(package: str) -> str:
  """Its version; of a source tree that is on PYTHONPATH and not installed, what the package itself says."""
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return getattr(sys.modules.get(package), "__version__", "not installed")


def keep_compiled_programs(directory: str | None) -> None:
  """Has JAX keep compiled programs: there, or where its environment says, or in the user's cache."""
  if directory is None:
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    ours = os.path.join(caches, "nets_jax", f"programs-{instruction_set()}")
    directory = getattr(jax.config, "jax_compilation_cache_dir", None) or ours
  if directory:
    try:
      os.makedirs(directory, exist_ok=True)
    except OSError as error:
      say(f"programs are not kept for the next run: {directory}: {error.strerror}")
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
