"""Data sets by name: `xor` is generated, `digits` and `diabetes` come with scikit-learn; one's own.

All others are of TFDS.
"""

import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from nets_jax import plugins, structs
from nets_jax.data import files
from nets_jax.data.dataset import Dataset, from_arrays
from nets_jax.data.tfds import tfds_arrays
from nets_jax.engine.seeds import SEED, check_seed
from nets_jax.errors import UsageError
from nets_jax.kinds import SWITCH, TEXT, WHOLE, at_least
from nets_jax.settings import setting


@structs.dataclass
class DataSettings:
  """A data set by name, and what it is made with; see `load`."""

  dataset: str = setting(
    "digits",
    "xor, digits, diabetes, the name of a TFDS image classification set (mnist, ...), PATH.npz with inputs "
    "and labels, or package.module:function of your own.",
    group="what to run", kind=TEXT, static=True,
  )  # fmt: skip
  dataset_sha256: str | None = setting(
    None, "Of a PATH.npz: how the SHA-256 of its content must begin; default, it may be any.", group="data",
    kind=TEXT, static=True,
  )  # fmt: skip
  data_dir: str | None = setting(
    None,
    "Where TFDS keeps its sets; default ~/tensorflow_datasets.",
    group="data",
    kind=TEXT,
    static=True,
    decides=False,
  )
  manual_dir: str | None = setting(
    None, "Where the original files of a TFDS set are; default NETS_JAX_MNIST_DIR, for mnist.", group="data",
    kind=TEXT, static=True, decides=False,
  )  # fmt: skip
  standardise: bool = setting(
    True, "Standardise inputs; off leaves them as they are, whole numbers such as tokens as int32.",
    group="data", kind=SWITCH, static=True,
  )  # fmt: skip
  data_seed: int = setting(
    0, "Seed of the data split, and of the points of xor.", group="data", kind=WHOLE, rule=SEED, static=True
  )
  xor_train_size: int = setting(
    1000, "Points of xor to train and validate on.", group="data", kind=WHOLE, rule=at_least(1), static=True
  )
  xor_test_size: int = setting(
    1000, "Points of xor to test on.", group="data", kind=WHOLE, rule=at_least(1), static=True
  )

  standardise_targets: bool = setting(
    True, "Numbers to predict in deviations of the training part; else as they are.", group="data",
    kind=SWITCH, static=True,
  )  # fmt: skip

  def load(self) -> Dataset:
    """The data set.

    Raises:
      UsageError: see `load`; or a file of another content than `dataset_sha256` asks for.
    """
    wanted, found = self.dataset_sha256, self.digest
    if wanted and not found:
      raise UsageError(f"dataset_sha256 is of a PATH.npz, which {self.dataset} is not; leave it out")
    if wanted and found and not (found.startswith(wanted) or wanted.startswith(found)):
      raise UsageError(
        f"{self.dataset} is another file than is asked for: its SHA-256 begins with {found}, not {wanted}; "
        "give that file, or leave dataset_sha256 out"
      )
    return load(
      self.dataset,
      seed=self.data_seed,
      data_dir=self.data_dir,
      manual_dir=self.manual_dir,
      standardise=self.standardise,
      xor_train_size=self.xor_train_size,
      xor_test_size=self.xor_test_size,
      standardise_targets=self.standardise_targets,
    )

  @property
  def digest(self) -> str | None:
    """How the SHA-256 of a file's content begins; None of a data set that is no file."""
    return files.digest(self.dataset) if files.is_file_name(self.dataset) else None


def load(
  name: str,
  *,
  seed: int = 0,
  data_dir: str | None = None,
  manual_dir: str | None = None,
  standardise: bool = True,
  xor_train_size: int = 1000,
  xor_test_size: int = 1000,
  standardise_targets: bool = True,
) -> Dataset:
  """Loads a data set by name.

  Args:
    name: `xor`, `digits`, `diabetes` (regression), or the TFDS name of an image classification set (`mnist`,
      `fashion_mnist`, `kmnist`, `cifar10`, ...); `PATH.npz`, see `files.npz_arrays`; or
      `package.module:function(size=100)`, which gives a `Dataset`, or the arguments of `from_arrays` as a
      dict or a tuple. Such a function is also given `seed`, where it takes that.
    seed: of the split, and of the points of `xor`.
    data_dir: where TFDS keeps its sets; None is TFDS's own default, `TFDS_DATA_DIR` or
      `~/tensorflow_datasets`.
    manual_dir: a directory with a set's original files, from which TFDS prepares it without a network;
      None is, for `mnist`, the environment variable `NETS_JAX_MNIST_DIR`, if set.
    standardise: see `from_arrays`; a function's own `Dataset` is taken as it is.
    xor_train_size, xor_test_size: points of `xor`, the validation part counted as training.
    standardise_targets: see `from_arrays`.

  Raises:
    UsageError: an unknown name, sizes too small, or a set that cannot be had; the message says why.
  """
  is_ours = name == "xor" or name in SKLEARN or files.is_file_name(name) or plugins.is_reference(name)
  if is_ours and manual_dir is not None:
    raise UsageError(f"manual_dir holds the original files of a TFDS set, which {name} is not; leave it out")
  make: Callable[..., Dataset] = functools.partial(
    from_arrays, seed=seed, standardise=standardise, standardise_targets=standardise_targets
  )
  if name == "xor":
    check_seed("seed", seed)
    return make(*_xor([seed, 0], xor_train_size), *_xor([seed, 1], xor_test_size))
  if files.is_file_name(name):
    return make(**files.npz_arrays(name))
  if plugins.is_reference(name):
    check_seed("seed", seed)
    given = plugins.load(name, seed=seed)
    if isinstance(given, Dataset) and not standardise_targets:
      raise UsageError(
        f"{name} gives a Dataset, whose targets stay as they are; leave standardise_targets out"
      )
    return _as_dataset(name, given, make, standardise)
  if name in SKLEARN:
    return make(*SKLEARN[name]())
  if manual_dir is None and name == "mnist":
    manual_dir = os.environ.get("NETS_JAX_MNIST_DIR")
  arrays: dict[str, Any] = {**tfds_arrays(name, data_dir, manual_dir)}
  return make(**arrays)


def _digits() -> tuple[np.ndarray, np.ndarray]:
  """Images [1797, 8, 8, 1] of ten handwritten digits."""
  from sklearn import datasets

  digits: Any = datasets.load_digits()  # a Bunch; a pair only where that is asked for
  return digits.images[..., None], digits.target


def _diabetes() -> tuple[np.ndarray, np.ndarray]:
  """Ten measurements of 442 patients, and how far the disease has come a year later, from 25 to 346."""
  from sklearn import datasets

  diabetes: Any = datasets.load_diabetes(
    scaled=False
  )  # scaled by all examples it would be, the test part too
  return diabetes.data, diabetes.target


SKLEARN = {"digits": _digits, "diabetes": _diabetes}


def _as_dataset(name: str, given: Any, make: Callable[..., Dataset], standardise: bool) -> Dataset:
  """What a function of a user's gave, as a data set."""
  if isinstance(given, Dataset):
    if not standardise:
      raise UsageError(f"{name} gave a nets_jax.Dataset, which is taken as it is; leave standardise out")
    return given
  if isinstance(given, tuple | list) and len(given) in (2, 4):
    given = dict(zip((*files.NEEDED, *files.OTHERS), given, strict=False))
  if not isinstance(given, Mapping):
    raise UsageError(
      f"{name} gave a {type(given).__name__}; it must give a nets_jax.Dataset, or a dict or tuple of inputs, "
      "labels and, if need be, test_inputs, test_labels"
    )
  files.check_names(name, dict(given))
  try:
    return make(**given)
  except UsageError as error:
    raise UsageError(f"{name}: {error}") from error


def _xor(seed: list[int], size: int) -> tuple[np.ndarray, np.ndarray]:
  """Points uniform on [0, 1]^2, labelled with the xor of their rounded coordinates."""
  if size < 1:
    raise UsageError(f"xor_train_size and xor_test_size must be positive, not {size}")
  points = np.random.default_rng(seed).uniform(size=(size, 2))
  bits = np.round(points).astype(np.int32)
  return points, bits[:, 0] ^ bits[:, 1]
