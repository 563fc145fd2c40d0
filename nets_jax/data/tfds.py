"""Image classification sets of TensorFlow Datasets (TFDS), as arrays.

TFDS prepares a set once; its images are decoded once and kept beside it, checksummed. TensorFlow itself
is needed for preparing alone. Of several processes that want one set, one prepares it and the others wait.
"""

import contextlib
import hashlib
import os
import pathlib
import re
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Iterator
from typing import Any

import absl.logging
import filelock
import numpy as np

from nets_jax.engine.files import replace_file
from nets_jax.errors import UsageError, suggest

CACHE_NAME = "nets_jax_arrays.npz"
READ_AT_ONCE = 1000  # examples
EMBEDDED = ("xor", "digits", "diabetes")  # the sets that need no TFDS


def tfds_arrays(name: str, data_dir: str | None, manual_dir: str | None) -> dict[str, np.ndarray]:
  """The arguments of `from_arrays` for a TFDS set, from the decoded copy beside it where there is one."""
  if not re.fullmatch(r"[a-z]\w*(/[\w.-]*\w)?", name):
    raise UsageError(
      f"dataset {name!r} is no name of a data set; give xor, digits, diabetes or a TFDS name such as mnist"
    )
  root = pathlib.Path(data_dir or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()
  cache = root / name / CACHE_NAME
  if (arrays := _read_cache(cache)) is not None:
    return arrays
  tfds = _import_tfds(name)
  with _only_one(root, name):
    if (arrays := _read_cache(cache, quiet=True)) is not None:  # made while this process waited
      return arrays
    builder = _builder(tfds, name, root)
    if not (pathlib.Path(builder.data_dir) / "dataset_info.json").exists():
      _prepare(tfds, builder, manual_dir)
    arrays = _decode(builder)
    stored: dict[str, Any] = {**arrays}
    with replace_file(cache) as temporary, open(temporary, "wb") as file:
      np.savez(file, **stored)
  return arrays


def _read_cache(cache: pathlib.Path, quiet: bool = False) -> dict[str, np.ndarray] | None:
  """The decoded arrays, where they are kept and whole."""
  if not cache.exists():
    return None
  try:
    with np.load(cache, allow_pickle=False) as stored:  # the zip's CRC-32 guards every array
      return {key: stored[key] for key in stored.files}
  except (OSError, ValueError, EOFError, zipfile.BadZipFile):
    if not quiet:
      print(f"{cache} is damaged and will be made again", file=sys.stderr)
    return None


def _import_tfds(name: str):
  try:
    import tensorflow_datasets as tfds
  except ImportError as error:
    raise UsageError(
      f"dataset {name!r} is not one of xor, digits, diabetes{suggest(name, EMBEDDED)}; all others need "
      "TensorFlow Datasets: pip install -e '.[mnist]'"
    ) from error
  return tfds


@contextlib.contextmanager
def _only_one(root: pathlib.Path, name: str) -> Iterator[None]:
  """Holds a set for this process; waits, and says so, while another prepares it."""
  root.mkdir(parents=True, exist_ok=True)
  lock = filelock.FileLock(root / f".{name.replace('/', '-')}.lock")
  try:
    lock.acquire(blocking=False)
  except filelock.Timeout:
    print(f"another process is preparing {name} under {root}; waiting for it", file=sys.stderr)
    lock.acquire()
  try:
    yield
  finally:
    lock.release()


def _builder(tfds, name: str, root: pathlib.Path):
  try:
    with _quiet():  # TFDS warns of a set that is not prepared yet
      return tfds.builder(name, data_dir=str(root), file_format="array_record")
  except tfds.core.registered.DatasetNotFoundError as error:
    raise UsageError(
      f"dataset {name!r} is not one of xor, digits, diabetes, nor known to TensorFlow Datasets"
      + (suggest(name, [*EMBEDDED, *tfds.list_builders()]) or "; check its spelling")
    ) from error
  except ValueError as error:
    if "File format is already set" not in str(error):
      raise
    raise UsageError(
      f"{name} under {root} was prepared in another format than array_record, which is read here without "
      "TensorFlow; choose another --data_dir to prepare it in"
    ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Holds back the warnings that TFDS logs."""
  verbosity = absl.logging.get_verbosity()
  absl.logging.set_verbosity(absl.logging.ERROR)
  try:
    yield
  finally:
    absl.logging.set_verbosity(verbosity)


def _prepare(tfds, builder, manual_dir: str | None) -> None:
  """Has TFDS prepare the set, once it is known that its files can be had."""
  if manual_dir is not None:
    _check_manual_files(builder, pathlib.Path(manual_dir).expanduser())
  elif builder.url_infos and not _reachable(min(builder.url_infos)):
    raise UsageError(
      f"{builder.name} is not prepared under {builder.data_dir} and cannot be downloaded here; give the "
      f"directory of its original files by {_ways(builder)}, or another --data_dir"
    )
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  if not sys.stderr.isatty():
    tfds.disable_progress_bar()
  print(f"preparing {builder.name} under {builder.data_dir} (once)", file=sys.stderr)
  try:
    with _quiet():
      builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=manual_dir))
  except ImportError as error:
    raise UsageError(f"preparing {builder.name} needs: pip install -e '.[mnist]' ({error})") from error
  except Exception as error:  # TFDS and what it calls raise many kinds, and not the same in every version
    why = " ".join(str(error).split()) or "no reason given"
    raise UsageError(f"could not prepare {builder.name}: {type(error).__name__}: {why}") from error


def _check_manual_files(builder, manual_dir: pathlib.Path) -> None:
  """TFDS would download what is missing and retry for minutes: look first, checksums and all."""
  for info in builder.url_infos.values():
    path = manual_dir / info.filename
    if not path.is_file():
      raise UsageError(
        f"{info.filename} of {builder.name} is not in {manual_dir}; point {_ways(builder)} at the "
        "directory that holds the original files"
      )
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != info.checksum:
      raise UsageError(
        f"{path} is damaged or of another set: {len(content):,} bytes, whose checksum is not that of "
        f"{builder.name}'s {int(info.size):,} bytes; get the file anew"
      )


def _ways(builder) -> str:
  """How a directory of original files is named."""
  return "--manual_dir" + (" (or NETS_JAX_MNIST_DIR)" if builder.name == "mnist" else "")


def _reachable(url: str, seconds: float = 3.0) -> bool:
  """Whether the server of `url` answers, by a thread so that a hanging name look-up cannot hold us."""
  answered = []

  def ask():
    host = urllib.parse.urlsplit(url)
    request = urllib.request.Request(f"{host.scheme}://{host.netloc}", method="HEAD")
    try:
      urllib.request.urlopen(request, timeout=seconds).close()
    except urllib.error.HTTPError as error:
      answered.append(error.code < 500)
    except OSError:
      pass
    else:
      answered.append(True)

  thread = threading.Thread(target=ask, daemon=True)
  thread.start()
  thread.join(seconds)
  return any(answered)


def _decode(builder) -> dict[str, np.ndarray]:
  """Every image and label of the train split, and of the test split where there is one."""
  arrays = {}
  try:
    for split, prefix in (("train", ""), ("test", "test_")):
      if split in builder.info.splits:
        source = builder.as_data_source(split=split)
        examples = []
        with _quiet():  # TFDS warns that it decodes with Pillow
          for start in range(0, len(source), READ_AT_ONCE):  # one by one takes half as long again
            indices = range(start, min(start + READ_AT_ONCE, len(source)))
            examples += [(example["image"], example["label"]) for example in source.__getitems__(indices)]
        arrays[f"{prefix}inputs"] = np.stack([image for image, _ in examples])
        arrays[f"{prefix}labels"] = np.asarray([label for _, label in examples])
  except (KeyError, ValueError, NotImplementedError, ImportError) as error:
    raise UsageError(
      f"{builder.name} under {builder.data_dir} cannot be read as images with labels "
      f"({' '.join(str(error).split())}); it needs to be an image classification set in array_record "
      "format: choose another set, or another --data_dir to prepare it in"
    ) from error
  return arrays
