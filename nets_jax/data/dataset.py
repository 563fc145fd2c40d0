"""Data sets as arrays in memory, split by one rule.

`xor` is generated, `digits` comes with scikit-learn, everything else is prepared by TensorFlow
Datasets (TFDS) under its own name. A set without a test part gives a fifth of itself; then a seeded
tenth of the training part becomes the validation part (paper, 3.2). Inputs are standardised by the
mean and deviation of the training part that is left, one of each per channel (the last axis). Images of
bytes stay bytes, in memory and on devices, and are standardised where they are used. Numbers to predict are
standardised likewise, one mean and deviation per output; see `targets`.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from nets_jax import structs
from nets_jax.data.targets import (
  CLASSES,
  common_kind,
  count_outputs,
  kind_of,
  prepared,
  say_of_doubt,
  scale_of,
)
from nets_jax.engine.seeds import check_seed
from nets_jax.errors import UsageError
from nets_jax.structs import Struct

TEST_FRACTION = 0.2


@structs.dataclass
class Split(Struct):
  """Some examples, as they are stored; `prepared` and `examples` give them as a network takes them.

  Attributes:
    inputs: [examples, ...], float32; of tokens int32; or bytes, uint8, that are standardised when used.
    labels: what is to be predicted: int32 classes [examples], int32 0 or 1 [examples, labels], or float32
      [examples, outputs].
    table: of bytes, the standardised number of each in each channel, float32; None of inputs that are ready.
  """

  inputs: Num[Array | np.ndarray, "examples ..."]
  labels: Num[Array | np.ndarray, "examples ..."]
  table: Float[Array | np.ndarray, "256 channels"] | None = None

  def __len__(self) -> int:
    return self.labels.shape[0]

  def __repr__(self) -> str:
    """How much there is of it, not all of it."""
    shapes = (getattr(leaf, "shape", "?") for leaf in (self.inputs, self.labels))
    return "Split(inputs {}, labels {})".format(*shapes)

  @property
  def input_type(self) -> str:
    """What a network gets: `float32`, or `int32` of whole numbers."""
    return "int32" if self.table is None and np.issubdtype(self.inputs.dtype, np.integer) else "float32"

  def take(self, rows: slice | Int[Array | np.ndarray, "..."]) -> "Split":
    """Some of the examples, stored likewise."""
    return self.replace(inputs=self.inputs[rows], labels=self.labels[rows])

  def standardised(self, inputs: Num[Array | np.ndarray, "..."]) -> Num[Array | np.ndarray, "..."]:
    """One or several inputs that are stored as this split's, as a network takes them.

    Bytes are looked up, for a compiler divides as it likes: by reciprocals, or to the last bit but one. So
    they have the bits of NumPy's (x - mean) / deviation on every device.
    """
    if self.table is None:
      return inputs
    channels = self.table.shape[1]
    number = jnp.arange(channels).reshape((1,) * (inputs.ndim - 1) + (-1,))
    places = jnp.asarray(inputs, jnp.int32) * channels + number
    return jnp.asarray(self.table).reshape(-1).at[places].get(mode="promise_in_bounds")

  def examples(self, rows: slice | Int[Array | np.ndarray, "..."]) -> "Split":
    """Some of the examples, prepared."""
    return self.take(rows).prepared()

  def prepared(self) -> "Split":
    """The examples as a network takes them, float32 or tokens; bytes take four times the memory then."""
    return self.replace(inputs=self.standardised(self.inputs), table=None)


@structs.dataclass
class Dataset(Struct):
  """What is to be learnt: classes, several labels of each example, or numbers.

  Attributes:
    train, valid, test: its parts.
    mean, deviation: of the training part before standardisation [channels]; 0 and 1 where there is none.
    num_classes: outputs that a network needs: classes, labels of an example, or columns of numbers.
    targets: `classes`, `labels` or `numbers`; see `data.targets`.
    target_mean, target_deviation: of numbers before standardisation [outputs]; 0 and 1 where there was none;
      None of classes and labels.
  """

  train: Split
  valid: Split
  test: Split
  mean: Float[Array | np.ndarray, " channels"]
  deviation: Float[Array | np.ndarray, " channels"]
  num_classes: int = structs.field(pytree_node=False)
  targets: str = structs.field(pytree_node=False, default=CLASSES)
  target_mean: Float[Array | np.ndarray, " outputs"] | None = None
  target_deviation: Float[Array | np.ndarray, " outputs"] | None = None

  def __repr__(self) -> str:
    """Its parts, each in a word."""
    parts = ", ".join(f"{name}={getattr(self, name)!r}" for name in ("train", "valid", "test"))
    return f"Dataset({parts}, targets={self.targets!r}, num_outputs={self.num_classes})"

  @property
  def num_outputs(self) -> int:
    """Outputs that a network needs: `num_classes`, which are classes only where the targets are."""
    return self.num_classes

  def in_units(
    self, outputs: Num[Array | np.ndarray, "... outputs"]
  ) -> Num[Array | np.ndarray, "... outputs"]:
    """Numbers that a network predicts in the units of the data: outputs * target_deviation + target_mean.

    Raises:
      UsageError: the targets are no numbers.
    """
    if self.target_mean is None or self.target_deviation is None:
      raise UsageError(f"in_units is of numbers to predict, but the targets are {self.targets}")
    return outputs * self.target_deviation + self.target_mean

  @property
  def input_shape(self) -> tuple[int, ...]:
    """Shape of one input."""
    return self.train.inputs.shape[1:]


def from_arrays(
  inputs: np.ndarray,
  labels: np.ndarray,
  test_inputs: np.ndarray | None = None,
  test_labels: np.ndarray | None = None,
  *,
  valid_fraction: float = 0.1,
  seed: int = 0,
  standardise: bool = True,
  standardise_targets: bool = True,
) -> Dataset:
  """Makes a `Dataset` of one's own arrays, by the split rule and standardisation of this module.

  Args:
    inputs: [examples, ...] numbers; the last axis counts as channels. Bytes (uint8) that are standardised
      stay bytes, a quarter of float32's memory, until they are used: `Split.prepared`.
    labels: [examples] integers from 0, classes; [examples, labels] of 0 and 1, several of each example; or
      floats, [examples] or [examples, outputs], to predict.
    test_inputs, test_labels: the test part; None takes `TEST_FRACTION` of the examples.
    valid_fraction: share of the training examples that become the validation part, in (0, 1).
    seed: of the shuffle before the split, from 0 to 2^64 - 1.
    standardise: False leaves inputs as they are: whole numbers, such as tokens, as int32.
    standardise_targets: False leaves floats to predict as they are; losses and scores are then in their
      units, else in deviations of the training part.

  Raises:
    UsageError: an impossible fraction or seed, arrays that do not go together, numbers that are not finite,
      or too few examples.
  """
  if not 0 < valid_fraction < 1:
    raise UsageError(f"valid_fraction must be in (0, 1), not {valid_fraction}")
  check_seed("seed", seed)
  inputs, labels = _checked("training", inputs, labels)
  order = np.random.default_rng(seed).permutation(len(labels))
  if test_inputs is None:
    num_test = round(TEST_FRACTION * len(labels))
    order, test_order = order[num_test:], order[:num_test]
    test_inputs, test_labels = inputs[test_order], labels[test_order]
  else:
    test_inputs, test_labels = _checked("test", test_inputs, test_labels)
  num_valid = round(valid_fraction * len(order))
  valid_order, train_order = order[:num_valid], order[num_valid:]
  if not (len(train_order) and len(valid_order) and len(test_labels)):
    raise UsageError(
      f"too few examples: {len(labels)} leave {len(train_order)} to train, {len(valid_order)} to validate "
      f"and {len(test_labels)} to test; give more data"
    )
  channels = inputs.shape[-1]
  mean, deviation = np.zeros(channels, np.float32), np.ones(channels, np.float32)
  if standardise:
    mean, deviation = _mean_and_deviation(inputs[train_order])

  kind = common_kind(labels, test_labels)
  say_of_doubt(kind, labels, test_labels)
  scale = scale_of(kind, labels[train_order], standardise_targets)

  def split(part: np.ndarray, part_labels: np.ndarray) -> Split:
    part_labels = prepared(part_labels, scale)
    if standardise and part.dtype == np.uint8:
      return Split(part, part_labels, _prepared(np.arange(256, dtype=np.uint8)[:, None], (mean, deviation)))
    return Split(_prepared(part, (mean, deviation) if standardise else None), part_labels)

  return Dataset(
    train=split(inputs[train_order], labels[train_order]),
    valid=split(inputs[valid_order], labels[valid_order]),
    test=split(test_inputs, test_labels),
    mean=mean,
    deviation=deviation,
    num_classes=count_outputs(kind, labels, test_labels),
    targets=kind,
    target_mean=None if scale is None else scale[0],
    target_deviation=None if scale is None else scale[1],
  )


def _mean_and_deviation(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Of each channel; a deviation of 0 counts as 1, so that a constant channel becomes zero, not NaN."""
  axes = tuple(range(inputs.ndim - 1))
  with np.errstate(over="ignore", invalid="ignore"):  # `_prepared` says what is too large
    floats = inputs.astype(np.float32)
    mean = floats.mean(axes, dtype=np.float64).astype(np.float32)
    deviation = floats.std(axes, dtype=np.float64).astype(np.float32)
  return mean, np.where(deviation > 0, deviation, 1)


def _prepared(inputs: np.ndarray, by: tuple[np.ndarray, np.ndarray] | None) -> np.ndarray:
  """Inputs as a network gets them: standardised by a mean and deviation, or as they are.

  Raises:
    UsageError: numbers beyond the range of their type.
  """
  if by is None and np.issubdtype(inputs.dtype, np.integer):
    if inputs.size and (inputs.max() > np.iinfo(np.int32).max or inputs.min() < np.iinfo(np.int32).min):
      raise UsageError("inputs are too large for int32 numbers; give smaller ones")
    return inputs.astype(np.int32)
  mean, deviation = (np.float32(0), np.float32(1)) if by is None else by
  with np.errstate(over="ignore", invalid="ignore"):
    prepared = (inputs.astype(np.float32) - mean) / deviation
  if not np.isfinite(prepared).all():
    raise UsageError("inputs are too large for float32 numbers; scale them down first")
  return prepared


def _checked(part: str, inputs: np.ndarray, labels: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
  inputs, labels = np.asarray(inputs), np.asarray(labels)
  if inputs.ndim < 2 or labels.shape[:1] != inputs.shape[:1]:
    raise UsageError(
      f"{part} inputs must be [examples, ...] with one label each, not {inputs.shape} and {labels.shape}"
    )
  kind_of(part, labels)
  if not np.isfinite(inputs).all():
    raise UsageError(f"{part} inputs must be finite, but some are NaN or infinite; clean the data first")
  return inputs, labels
