"""Files written whole or not at all."""

import contextlib
import os
import pathlib
from collections.abc import Iterator


@contextlib.contextmanager
def replace_file(path: str | os.PathLike) -> Iterator[pathlib.Path]:
  """Yields a temporary path beside `path` to write to, which takes its place if all went well.

  A reader sees the old file or the new one, never a part of either; on an exception the temporary
  file is removed and `path` is as it was.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
  try:
    yield temporary
    with open(temporary, "rb") as file:
      os.fsync(file.fileno())
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)
