"""Scores of an example, whose mean is reported beside the loss; by name, or of one's own.

Each takes a network's outputs [batch, outputs] and the data's labels, and gives a number for each example.
Whether more of it is better, `measures` says.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from nets_jax.data.targets import CLASSES, LABELS, NUMBERS
from nets_jax.training import losses

Score = Callable[[jax.Array, jax.Array], jax.Array]


def accuracy(
  logits: Float[Array | np.ndarray, "batch classes"], labels: Int[Array | np.ndarray, " batch"]
) -> Bool[Array, " batch"]:
  """Whether the highest logit is the label's, of each example: [batch]."""
  return jnp.argmax(logits, axis=-1) == labels


def label_accuracy(
  logits: Float[Array | np.ndarray, "batch labels"], labels: Int[Array | np.ndarray, "batch labels"]
) -> Float[Array, " batch"]:
  """The share of an example's labels that are right, a label being 1 where its logit is above 0: [batch]."""
  return jnp.mean((jnp.asarray(logits) > 0) == (jnp.asarray(labels) > 0), axis=-1)


def exact_match(
  logits: Float[Array | np.ndarray, "batch labels"], labels: Int[Array | np.ndarray, "batch labels"]
) -> Bool[Array, " batch"]:
  """Whether an example has all of its labels right: [batch]; see `label_accuracy`."""
  return jnp.all((jnp.asarray(logits) > 0) == (jnp.asarray(labels) > 0), axis=-1)


def absolute_error(
  outputs: Float[Array | np.ndarray, "batch outputs"], targets: Float[Array | np.ndarray, "batch outputs"]
) -> Float[Array, " batch"]:
  """The mean over the outputs of |output - target|, of each example: [batch]. Less is better.

  Of targets that are standardised it is in deviations of the training part, `Dataset.target_deviation`.
  """
  return jnp.mean(jnp.abs(jnp.asarray(outputs) - jnp.asarray(targets)), axis=-1)


SCORES: dict[str, Score] = {
  "accuracy": accuracy,
  "label_accuracy": label_accuracy,
  "exact_match": exact_match,
  "absolute_error": absolute_error,
  "squared_error": losses.squared_error,
}
# What each is of; the first of a kind is the score of data that nobody names one for.
TARGETS = {
  "accuracy": CLASSES,
  "label_accuracy": LABELS,
  "exact_match": LABELS,
  "absolute_error": NUMBERS,
  "squared_error": NUMBERS,
}
