"""Packages that the extra `export` brings, and what is said where one is missing."""

import importlib

from nets_jax.errors import UsageError


def missing(package: str, error: ImportError) -> UsageError:
  """What to raise where a package cannot be imported: what to install."""
  return UsageError(f"this needs {package} ({error}); pip install 'nets_jax[export]'")


def need(*packages: str) -> None:
  """Raises UsageError, with what to install, where a package is missing."""
  for package in packages:
    try:
      importlib.import_module(package)
    except ImportError as error:
      raise missing(package, error) from error
