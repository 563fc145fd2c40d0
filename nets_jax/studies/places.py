"""Where a study's files go."""

import hashlib
import pathlib
import re
import tempfile

from nets_jax import plugins
from nets_jax.data.files import is_file_name
from nets_jax.studies.methods import digest

RUNS = pathlib.Path("runs")
LONGEST = 60  # letters of a name of one's own in that of a directory


def place(directory: str | pathlib.Path | None) -> tuple[pathlib.Path, object]:
  """A directory, and what keeps it: a temporary one is removed with its keeper."""
  if directory is not None:
    return pathlib.Path(directory), None
  keeper = tempfile.TemporaryDirectory(prefix="nets_jax-")
  return pathlib.Path(keeper.name), keeper


def run_directory(dataset: str, search: str, seed: int, ticket: str | None = None) -> pathlib.Path:
  """Where a run's files go by default: named by what is run, a ticket by a hash of its file."""
  what = file_name(search)
  if ticket:
    path = pathlib.Path(ticket)
    content = path.read_bytes() if path.is_file() else str(path).encode()
    what = f"ticket-{hashlib.sha256(content).hexdigest()[:8]}"
  return RUNS / f"{file_name(dataset)}-{what}-seed{seed}"


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
