"""Where a study's files go."""

import pathlib
import tempfile


def place(directory: str | pathlib.Path | None) -> tuple[pathlib.Path, object]:
  """A directory, and what keeps it: a temporary one is removed with its keeper."""
  if directory is not None:
    return pathlib.Path(directory), None
  keeper = tempfile.TemporaryDirectory(prefix="nets_jax-")
  return pathlib.Path(keeper.name), keeper
