"""The most memory a stretch of work has held."""

import pathlib
import resource
import sys

import jax

_STATUS, _CLEAR = pathlib.Path("/proc/self/status"), pathlib.Path("/proc/self/clear_refs")


def reset_peak() -> None:
  """Starts a new stretch, where the system can: Linux can for a process, JAX cannot for an accelerator."""
  if _CLEAR.exists():
    _CLEAR.write_text("5")


def peak() -> int:
  """Bytes: of the first accelerator since the program began, or of this process since `reset_peak`."""
  statistics = jax.local_devices()[0].memory_stats()
  if statistics:
    return statistics["peak_bytes_in_use"]
  if _STATUS.exists():
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
  unit = 1 if sys.platform == "darwin" else 1024
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
