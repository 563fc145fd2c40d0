"""What is to be predicted of an example, told by the type and shape of its `labels`.

| labels | are | stored as |
|---|---|---|
| integers [examples] from 0 | `classes`: one of each example | int32 [examples] |
| integers or truth values [examples, labels], all 0 or 1 | `labels`: several of each example | int32 |
| floats [examples] or [examples, outputs] | `numbers`: regression | float32 [examples, outputs] |
"""

import numpy as np
from jaxtyping import Array, Num

from nets_jax.engine.messages import say
from nets_jax.errors import UsageError

CLASSES, LABELS, NUMBERS = "classes", "labels", "numbers"
IN_WORDS = {
  CLASSES: "classes (integers [examples])",
  LABELS: "several labels of each example (0 or 1, [examples, labels])",
  NUMBERS: "numbers (floats)",
}
MOST_CLASSES = 20  # distinct whole numbers, up to which floats may be meant as classes
HOW = (
  "give integers from 0 [examples] as classes, integers of 0 and 1 [examples, labels] as several labels of "
  "each example, or floats as numbers to predict"
)


def kind_of(part: str, labels: np.ndarray) -> str:
  """`classes`, `labels` or `numbers`; see this module.

  Args:
    part: whose labels, for messages.
    labels: [examples] or [examples, outputs].

  Raises:
    UsageError: they are none of these.
  """
  if labels.ndim not in (1, 2) or (labels.ndim == 2 and not labels.shape[1]):
    raise UsageError(f"{part} labels have the shape {labels.shape}; {HOW}")
  if np.issubdtype(labels.dtype, np.floating):
    if not np.isfinite(labels).all():
      raise UsageError(f"{part} labels must be finite, but some are NaN or infinite; clean the data first")
    return NUMBERS
  is_whole = np.issubdtype(labels.dtype, np.integer)
  if labels.ndim == 1:
    if is_whole and not (labels.size and labels.min() < 0):
      return CLASSES
    raise UsageError(f"{part} labels must be integers from 0, or floats to predict; {HOW}")
  if (is_whole or labels.dtype == bool) and np.isin(labels, (0, 1)).all():
    return LABELS
  raise UsageError(f"{part} labels of several columns must be 0 or 1, or floats to predict; {HOW}")


def common_kind(labels: np.ndarray, test_labels: np.ndarray) -> str:
  """The kind of a training and a test part.

  Raises:
    UsageError: they are of two kinds, or of different numbers of columns.
  """
  kind, other = kind_of("training", labels), kind_of("test", test_labels)
  if kind != other:
    raise UsageError(
      f"training labels are {IN_WORDS[kind]}, but test labels {IN_WORDS[other]}; make them alike"
    )
  columns, others = (np.shape(part)[1:] or (1,) for part in (labels, test_labels))
  if columns != others:
    raise UsageError(
      f"training labels have {columns[0]} columns, but test labels {others[0]}; make them alike"
    )
  return kind


def say_of_doubt(kind: str, labels: np.ndarray, test_labels: np.ndarray) -> None:
  """Says what labels are taken as, where they look like classes in another form.

  These are rows of 0 and 1 with a single 1 each, and floats that are few whole numbers from 0. So it does of
  classes without an example, such as class 0 where they are numbered from 1.

  Args:
    kind: what they are taken as; see `kind_of`.
    labels, test_labels: all that there are [examples] or [examples, outputs].
  """
  how = "if they are classes, give integers [examples]"
  if kind == LABELS and labels.shape[1] > 1 and (labels.sum(axis=1) == 1).all():
    say(
      f"every row of the labels has a single 1; they are taken as several labels of each example; {how}, as "
      "labels.argmax(axis=1)"
    )
  if kind == CLASSES and labels.size:
    present = np.unique(np.concatenate([labels, test_labels]))
    count = count_outputs(kind, labels, test_labels)
    if len(present) < count:
      first = int(np.argmax(present != np.arange(len(present))))
      say(
        f"{count - len(present)} of {count} classes have no example, class {first} the first of them; each "
        "has an output all the same; if it should not, number the classes from 0 without gaps"
      )
  is_whole = kind == NUMBERS and labels.min() >= 0 and (labels == np.floor(labels)).all()
  if is_whole and len(np.unique(labels)) <= MOST_CLASSES:
    say(f"the labels are floats, so they are taken as numbers to predict, though all are whole; {how}")


def count_outputs(kind: str, labels: np.ndarray, test_labels: np.ndarray) -> int:
  """How many outputs a network needs: classes, labels, or columns of numbers."""
  if kind == CLASSES:
    return int(max(labels.max(), test_labels.max())) + 1
  return np.shape(labels)[1] if np.ndim(labels) == 2 else 1


def scale_of(kind: str, labels: np.ndarray, standardise: bool) -> tuple[np.ndarray, np.ndarray] | None:
  """Mean and deviation of each column of numbers, float32 [outputs]; 0 and 1 if they stay as they are.

  A deviation of 0 counts as 1. None of what is no number.

  Args:
    kind: see `kind_of`.
    labels: of the training part.
    standardise: whether numbers are standardised.

  Raises:
    UsageError: numbers that are asked for as they are, and are none.
  """
  if kind != NUMBERS:
    if not standardise:
      raise UsageError(
        f"standardise_targets is of numbers to predict, but the labels are {IN_WORDS[kind]}; leave it out"
      )
    return None
  columns = labels.reshape(len(labels), -1).astype(np.float64)
  if not standardise:
    return np.zeros(columns.shape[1], np.float32), np.ones(columns.shape[1], np.float32)
  deviation = columns.std(axis=0).astype(np.float32)
  return columns.mean(axis=0).astype(np.float32), np.where(deviation > 0, deviation, np.float32(1))


def prepared(labels: np.ndarray, scale: tuple[np.ndarray, np.ndarray] | None) -> np.ndarray:
  """Labels as a loss gets them; see the table of this module.

  Args:
    labels: as they are given.
    scale: mean and deviation of numbers; None of classes and labels.

  Raises:
    UsageError: numbers beyond the range of float32.
  """
  if scale is None:
    return labels.astype(np.int32)
  mean, deviation = scale
  with np.errstate(over="ignore", invalid="ignore"):
    found = (labels.reshape(len(labels), -1).astype(np.float64) - mean) / deviation
    found = found.astype(np.float32)
  if not np.isfinite(found).all():
    raise UsageError("labels are too large for float32 numbers; scale them down first")
  return found


def check_kind(kind: str, labels: Num[Array | np.ndarray, "examples ..."]) -> None:
  """Raises UsageError unless a data set's labels have the type and shape that its kind says."""
  if kind not in IN_WORDS:
    raise UsageError(f"targets of a data set must be one of {', '.join(IN_WORDS)}, not {kind!r}")
  is_float = np.issubdtype(labels.dtype, np.floating)
  if is_float != (kind == NUMBERS) or np.ndim(labels) != (1 if kind == CLASSES else 2):
    raise UsageError(
      f"the data say that their labels are {IN_WORDS[kind]}, but they are {labels.dtype.name} "
      f"{list(np.shape(labels))}; make them by nets_jax.from_arrays, or give Dataset its targets"
    )
