"""Data sets by name: `xor` is generated, `digits` comes with scikit-learn, all others are of TFDS."""

import os
from typing import Any

import numpy as np
from flax import struct

from nets_jax.data.dataset import Dataset, from_arrays
from nets_jax.data.tfds import tfds_arrays
from nets_jax.engine.seeds import SEED, check_seed
from nets_jax.errors import UsageError
from nets_jax.kinds import TEXT, WHOLE, at_least
from nets_jax.settings import setting


@struct.dataclass
class DataSettings:
  """A data set by name, and what it is made with; see `load`."""

  dataset: str = setting(
    "digits", "xor, digits, or the name of a TFDS image classification set (mnist, ...).", group="what to "
    "run",
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
  mnist_manual_dir: str | None = setting(
    None, "Original files of the set; default NETS_JAX_MNIST_DIR, for mnist.", group="data", kind=TEXT,
    static=True, decides=False,
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

  def load(self) -> Dataset:
    """The data set."""
    return load(
      self.dataset,
      seed=self.data_seed,
      data_dir=self.data_dir,
      manual_dir=self.mnist_manual_dir,
      xor_train_size=self.xor_train_size,
      xor_test_size=self.xor_test_size,
    )


def load(
  name: str,
  *,
  seed: int = 0,
  data_dir: str | None = None,
  manual_dir: str | None = None,
  xor_train_size: int = 1000,
  xor_test_size: int = 1000,
) -> Dataset:
  """Loads a data set by name.

  Args:
    name: `xor`, `digits`, or the TFDS name of an image classification set (`mnist`, `fashion_mnist`,
      `kmnist`, `cifar10`, ...).
    seed: of the split, and of the points of `xor`.
    data_dir: where TFDS keeps its sets; None is TFDS's own default, `TFDS_DATA_DIR` or
      `~/tensorflow_datasets`.
    manual_dir: a directory with a set's original files, from which TFDS prepares it without a network;
      None is, for `mnist`, the environment variable `NETS_JAX_MNIST_DIR`, if set.
    xor_train_size, xor_test_size: points of `xor`, the validation part counted as training.

  Raises:
    UsageError: an unknown name, sizes too small, or a set that cannot be had; the message says why.
  """
  if name == "xor":
    check_seed("seed", seed)
    train, test = _xor([seed, 0], xor_train_size), _xor([seed, 1], xor_test_size)
    return from_arrays(*train, *test, seed=seed)
  if name == "digits":
    from sklearn import datasets

    digits: Any = datasets.load_digits()  # a Bunch; a pair only where that is asked for
    return from_arrays(digits.images[..., None], digits.target, seed=seed)
  if manual_dir is None and name == "mnist":
    manual_dir = os.environ.get("NETS_JAX_MNIST_DIR")
  arrays: dict[str, Any] = {**tfds_arrays(name, data_dir, manual_dir)}
  return from_arrays(**arrays, seed=seed)


def _xor(seed: list[int], size: int) -> tuple[np.ndarray, np.ndarray]:
  """Points uniform on [0, 1]^2, labelled with the xor of their rounded coordinates."""
  if size < 1:
    raise UsageError(f"xor_train_size and xor_test_size must be positive, not {size}")
  points = np.random.default_rng(seed).uniform(size=(size, 2))
  bits = np.round(points).astype(np.int32)
  return points, bits[:, 0] ^ bits[:, 1]
