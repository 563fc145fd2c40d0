"""Which workers of a study are alive, by files beside its results that each keeps fresh.

A worker that stops, or dies on this host, is told at once; one on another host when its file is stale. Times
are those of the file system, so the hosts' clocks need not agree.
"""

import contextlib
import json
import os
import pathlib
import socket
import threading
import uuid
from collections.abc import Iterator, Sequence

from nets_jax.engine.files import replace_file

DIRECTORY, STUDY_LOCK = "workers", ".study.lock"
BEAT_SECONDS = 5.0
SILENCE_SECONDS = 60.0  # after which a worker of another host counts as dead


class Worker:
  """This process among those that share a study's runs.

  Attributes:
    name: its own.
  """

  def __init__(self, directory: pathlib.Path):
    """Takes a study's directory; see `at_work`."""
    self.name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    self._where, self._path = directory / DIRECTORY, directory / DIRECTORY / f"{self.name}.json"
    self._ended, self._content = threading.Event(), ""

  @contextlib.contextmanager
  def at_work(self) -> Iterator["Worker"]:
    """Counts as alive while this lasts."""
    self.take([])
    beat = threading.Thread(target=self._beat, daemon=True)
    beat.start()
    try:
      yield self
    finally:
      self._ended.set()
      beat.join()
      self._path.unlink(missing_ok=True)
      with contextlib.suppress(OSError):  # others may be at work
        self._where.rmdir()

  def take(self, runs: Sequence[str]) -> None:
    """Notes the runs it is going to be at work on, before it takes them."""
    self._content = json.dumps({"host": host(), "pid": os.getpid(), "runs": list(runs)})
    self._write()

  def _write(self) -> None:
    with replace_file(self._path, sync=False) as temporary:
      temporary.write_text(self._content)

  def _beat(self) -> None:
    while not self._ended.wait(BEAT_SECONDS):
      with contextlib.suppress(OSError):
        self._write()  # anew, for another may have taken this one for dead and removed its file

  def in_hand(self) -> set[str]:
    """The runs that living workers are at work on; what dead ones have left is removed."""
    self._write()
    now = self._path.stat().st_mtime
    runs: set[str] = set()
    for path in self._where.glob("*.json"):
      try:
        content, last = json.loads(path.read_text()), path.stat().st_mtime
      except (OSError, ValueError):
        continue  # it has just ended, or is written at this moment
      here = content["host"] == host()
      if now - last > SILENCE_SECONDS or (here and not _exists(content["pid"])):
        path.unlink(missing_ok=True)
      else:
        runs.update(content["runs"])
    return runs


def host() -> str:
  """This host, and of a container the space of its process numbers, which may be called alike elsewhere."""
  with contextlib.suppress(OSError):
    return f"{socket.gethostname()}-{os.stat('/proc/self/ns/pid').st_ino}"
  return socket.gethostname()


def _exists(pid: int) -> bool:
  """Whether there is such a process on this host."""
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return False
  except PermissionError:
    return True
  return True
