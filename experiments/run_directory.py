"""The directory that holds one run's files, and what every run records of itself."""

import importlib.metadata
import pathlib
import platform
import shutil
import subprocess
from collections.abc import Mapping
from typing import Any

import jax

import nets_jax
from experiments import board
from nets_jax import storage

FILES = (
  "config.json",
  "run.flags",
  "history.csv",
  "ticket.safetensors",
  "figure_evolution.png",
  "training.csv",
  "summary.json",
)
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "nets_jax")


class RunDirectory:
  """A directory for the files of one run.

  Attributes:
    path: the directory.
  """

  def __init__(self, path: str, overwrite: bool):
    """Takes a directory that holds no run, or, with `overwrite`, gives up the run it holds.

    Nothing is made or removed before `open`.

    Raises:
      UsageError: the directory holds a run, or is a file.
    """
    self.path = pathlib.Path(path)
    if self.path.exists() and not self.path.is_dir():
      raise nets_jax.UsageError(f"workdir {self.path} is a file; give another --workdir")
    if any(self._held()) and not overwrite:
      raise nets_jax.UsageError(
        f"{self.path} already holds a run; give another --workdir, or --overwrite to replace it"
      )

  def _held(self) -> list[pathlib.Path]:
    return [self.path / name for name in FILES if (self.path / name).exists()]

  def open(self, flags: Mapping[str, Any]) -> None:
    """Removes the files of an earlier run, and writes `config.json`."""
    self._remove()
    storage.write_json(self / "config.json", {"flags": flags, **environment()})

  def discard_if_empty(self) -> None:
    """Removes the directory of a run that ended before it had anything to keep."""
    if set(self._held()) <= {self / "config.json", self / "run.flags"}:
      self._remove()
      if not any(self.path.iterdir()):
        self.path.rmdir()

  def _remove(self) -> None:
    for file in self._held():
      file.unlink()
    shutil.rmtree(self / board.DIRECTORY, ignore_errors=True)

  def __truediv__(self, name: str) -> pathlib.Path:
    return self.path / name


def environment() -> dict[str, Any]:
  """Versions, device and git revision, which with the flags make a run repeatable."""
  devices = jax.devices()
  return {
    "versions": {"python": platform.python_version()}
    | {package: importlib.metadata.version(package) for package in PACKAGES},
    "device": {"platform": devices[0].platform, "kind": devices[0].device_kind, "count": len(devices)},
    "git_revision": _git_revision(),
  }


def _git_revision() -> str | None:
  """The revision the code was run at, `-dirty` if it was changed since; None outside a checkout."""
  try:
    result = subprocess.run(
      ["git", "describe", "--always", "--dirty", "--abbrev=40", "--match="],
      cwd=pathlib.Path(__file__).parent,
      capture_output=True,
      text=True,
      timeout=10,
    )
  except (OSError, subprocess.TimeoutExpired):
    return None
  return result.stdout.strip() or None
