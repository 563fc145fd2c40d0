"""A table that grows on disk: rows are added as they come about, and none is written twice."""

import csv
import errno
import hashlib
import io
import os
import pathlib
from collections.abc import Sequence
from typing import Any, TextIO

from nets_jax.errors import UsageError
from nets_jax.rows import Row, Rows


class Journal:
  """A CSV file to which rows are appended; floats are written exactly.

  Attributes:
    path: of the file.
    size: its length in bytes.
  """

  def __init__(self, path: str | os.PathLike):
    """Writes nothing before the first row; a file that is there is replaced, unless `resume` is called."""
    self.path, self.size = pathlib.Path(path), 0
    self._digest = hashlib.sha256()
    self._file: TextIO | None = None
    self._columns: list[str] | None = None

  def read(self, size: int, digest: str) -> Rows:
    """The rows of the file's first bytes, numbers as numbers; changes nothing.

    Args:
      size, digest: what `size` and `digest()` were.

    Raises:
      UsageError: those bytes are not what they were.
    """
    text = self._begin_of_file(size)
    if len(text) < size or hashlib.sha256(text).hexdigest() != digest:
      raise UsageError(f"{self.path} is not what it was then")
    rows = csv.DictReader(io.StringIO(text.decode(), newline=""))
    return [{name: _value(word) for name, word in row.items()} for row in rows]

  def resume(self, size: int) -> None:
    """Takes up the file after its first bytes, and drops the rest."""
    text = self._begin_of_file(size)
    self.size, self._digest = size, hashlib.sha256(text)
    if size:
      self._columns = next(csv.reader(io.StringIO(text.decode(), newline="")))
      os.truncate(self.path, size)
      self._file = open(self.path, "a", newline="")  # noqa: SIM115

  def add(self, rows: Sequence[Row]) -> None:
    """Appends rows, which have the columns of the first ever written."""
    if not rows:
      return
    text = io.StringIO()
    self._columns = self._columns or list(rows[0])
    writer = csv.DictWriter(text, fieldnames=self._columns, lineterminator="\n")
    if self._file is None:
      self._file = self._begin()
      writer.writeheader()
    writer.writerows(rows)
    self._file.write(text.getvalue())
    self._file.flush()
    written = text.getvalue().encode()
    self.size += len(written)
    self._digest.update(written)

  def digest(self) -> str:
    """The SHA-256 of the file."""
    return self._digest.hexdigest()

  def sync(self) -> None:
    """Returns when the rows are on the disk.

    Raises:
      FileNotFoundError: the file is no longer in its place, or another one is.
    """
    if self._file is not None:
      os.fsync(self._file.fileno())
      if not os.path.samestat(os.fstat(self._file.fileno()), os.stat(self.path)):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.path))

  def close(self) -> None:
    """Closes the file."""
    if self._file is not None:
      self._file.close()

  def _begin_of_file(self, size: int) -> bytes:
    try:
      with open(self.path, "rb") as file:
        return file.read(size)
    except FileNotFoundError:
      return b""

  def _begin(self) -> TextIO:
    self.path.parent.mkdir(parents=True, exist_ok=True)
    return open(self.path, "w", newline="")


def _value(word: str) -> Any:
  for kind in (int, float):
    try:
      return kind(word)
    except ValueError:
      pass
  return word
