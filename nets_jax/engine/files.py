"""Files written whole or not at all, and records sealed by their checksums."""

import contextlib
import hashlib
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterator


@contextlib.contextmanager
def replace_file(path: str | os.PathLike, sync: bool = True) -> Iterator[pathlib.Path]:
  """Yields a temporary path beside `path` to write to, which takes its place if all went well.

  A reader sees the old file or the new one, never a part of either; on an exception the temporary
  file is removed and `path` is as it was.

  Args:
    path: of the file; its directory is made if there is none.
    sync: returns when it is on the disk. Without, a power failure may leave a part of it, which a seal tells.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")
  try:
    yield temporary
    if sync:
      with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


SEAL = "SHA256SUMS"  # as `sha256sum -c` reads it
RECORDS = (".csv", ".json", ".safetensors")
PASSING = "checkpoints"  # a directory of what is removed when the work is done


def seal(directory: pathlib.Path) -> None:
  """Notes the checksum of every record in and under a directory, so that `damaged` can tell.

  Nothing is written where every record is noted already. What is in `PASSING` is none.
  """
  names = [
    path.relative_to(directory).as_posix()
    for path in sorted(directory.rglob("*"))
    if path.suffix in RECORDS and path.is_file() and PASSING not in path.relative_to(directory).parts
  ]
  lines = [f"{_sha256(directory / name)}  {name}\n" for name in names]
  if (directory / SEAL).exists() and (directory / SEAL).read_text(errors="replace") == "".join(lines):
    return
  with replace_file(directory / SEAL) as temporary:
    temporary.write_text("".join(lines))


def damaged(directory: pathlib.Path) -> list[str]:
  """The sealed records of a directory that are not there as they were; none where nothing is sealed."""
  if not (directory / SEAL).exists():
    return []
  broken, lines = [], (directory / SEAL).read_text(errors="replace").splitlines()
  if not lines:
    return [SEAL]
  for line in lines:
    digest, _, name = line.partition("  ")
    path = directory / name
    if not name or not path.is_file() or _sha256(path) != digest:
      broken.append(name or SEAL)
  return broken


def set_aside(path: pathlib.Path) -> pathlib.Path:
  """Renames a damaged file or directory to `damaged-<name>` beside it; an earlier one is given up."""
  aside = path.with_name(f"damaged-{path.name}")
  if aside.is_dir():
    shutil.rmtree(aside)
  path.replace(aside)
  return aside


def _sha256(path: pathlib.Path) -> str:
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()
