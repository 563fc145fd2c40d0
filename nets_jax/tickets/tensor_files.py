"""Safetensors files with metadata and a checksum, written whole or not at all; opening one runs no code."""

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from nets_jax.engine.files import replace_file
from nets_jax.errors import UsageError

FORMAT_VERSION = 3  # 2 had no provenance
READ = (2, 3)  # 1 had no checksum, so nobody could say whether such a file is whole

Metadata = dict[str, Any]  # what JSON holds


def write(
  path: str | os.PathLike, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, object], sync: bool
) -> None:
  """Writes a file of tensors and metadata, with their checksum; whole or not at all."""
  metadata = {"format_version": FORMAT_VERSION, **metadata}
  metadata["sha256"] = checksum(tensors, metadata)
  with replace_file(path, sync) as temporary:
    temporary.write_bytes(safetensors.numpy.save(dict(tensors), {"nets_jax": json.dumps(metadata)}))


def read(path: str | os.PathLike, what: str = "ticket") -> tuple[dict[str, np.ndarray], Metadata]:
  """The tensors and metadata of a file of `write`.

  Raises:
    UsageError: there is no such file, or it is not whole.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise UsageError(f"there is no {what} file {path}")
  try:
    with safetensors.safe_open(path, framework="numpy") as file:
      metadata = _metadata(file.metadata())
      version = metadata.get("format_version")
      if version not in READ:
        told = "none" if version is None else f"{version!a:.40}"  # whatever a stranger wrote
        raise UsageError(
          f"{path} is not a {what} of format version {' or '.join(map(str, READ))} (its version: {told})"
        )
      tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
  except UsageError:
    raise
  except (safetensors.SafetensorError, OSError, ValueError, TypeError) as error:
    raise UsageError(f"{path} is not a whole safetensors file ({error}); was it cut short?") from error
  if metadata.pop("sha256", None) != checksum(tensors, metadata):
    raise UsageError(f"{path} is damaged: its checksum is wrong")
  return tensors, metadata


def checksum(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, object]) -> str:
  """The SHA-256 of a ticket file's content: its metadata, then each tensor by name."""
  digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
  for name in sorted(tensors):
    digest.update(f"{name}{tensors[name].dtype}{tensors[name].shape}".encode("utf-8", "surrogatepass"))
    digest.update(tensors[name].tobytes())
  return digest.hexdigest()


def _metadata(stored: dict[str, str] | None) -> dict[str, Any]:
  try:
    metadata = json.loads((stored or {})["nets_jax"])
  except (KeyError, ValueError, RecursionError):
    return {}
  return metadata if isinstance(metadata, dict) else {}
