"""A data set in a file of one's own: arrays in NumPy's `.npz`."""

import functools
import hashlib
import os
import pathlib
import zipfile

import numpy as np

from nets_jax.errors import UsageError, suggest

NEEDED, OTHERS = ("inputs", "labels"), ("test_inputs", "test_labels")
SUFFIX = ".npz"


def is_file_name(name: str) -> bool:
  """Whether a data set's name is that of such a file."""
  return name.endswith(SUFFIX)


def npz_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """The arguments of `from_arrays` from a file; no code in it is run.

  Args:
    path: of a file with the arrays `inputs` and `labels`, and `test_inputs` and `test_labels` or neither.

  Raises:
    UsageError: there is no such file, it is damaged, or it holds other arrays.
  """
  _check_there(path)
  try:
    with np.load(path, allow_pickle=False) as stored:
      arrays = {name: stored[name] for name in stored.files}
  except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, TypeError, MemoryError) as error:
    why = " ".join(str(error).split()) or type(error).__name__
    why = "it is not in NumPy's format" if isinstance(error, ValueError) and "pickled" in why else why
    raise UsageError(f"{path} cannot be read as arrays of numbers ({why}); save it by numpy.savez") from error
  check_names(str(path), arrays)
  return arrays


def check_names(where: str, arrays: dict[str, np.ndarray]) -> None:
  """Raises UsageError unless some arrays are called as `from_arrays` calls them."""
  missing = [name for name in NEEDED if name not in arrays]
  if any(name in arrays for name in OTHERS):
    missing += [name for name in OTHERS if name not in arrays]
  for name in arrays:
    if name not in (*NEEDED, *OTHERS):
      known = f"; known are {', '.join((*NEEDED, *OTHERS))}"
      raise UsageError(f"{where} has an array {name!r}{suggest(name, (*NEEDED, *OTHERS)) or known}")
  if missing:
    raise UsageError(
      f"{where} has no {' and no '.join(missing)}; give inputs and labels, and test_inputs and test_labels "
      "or neither"
    )


def digest(path: str | os.PathLike) -> str:
  """Sixteen digits of the SHA-256 of a file's content, by which another under the same name is known.

  Raises:
    UsageError: there is no such file.
  """
  _check_there(path)
  status = os.stat(path)
  return _digest(os.path.abspath(path), status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=64)  # a sweep asks for each of its settings
def _digest(path: str, changed: int, size: int) -> str:
  del changed, size
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _check_there(path: str | os.PathLike) -> None:
  if not pathlib.Path(path).is_file():
    raise UsageError(f"there is no data file {path}")
