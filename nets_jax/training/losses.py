"""Losses of an example, whose mean is minimised; by name, or of one's own.

Each takes a network's outputs [batch, outputs] and the data's labels, and gives a number for each example.
"""

from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from nets_jax.data.targets import CLASSES, LABELS, NUMBERS

Loss = Callable[[jax.Array, jax.Array], jax.Array]


def cross_entropy(
  logits: Float[Array | np.ndarray, "batch classes"],
  labels: Int[Array | np.ndarray, " batch"],
  label_smoothing: float = 0.0,
) -> Float[Array, " batch"]:
  """-log softmax(logits)[label] of each example, in nats: [batch].

  With a label smoothing s (Szegedy et al., 2016, section 7) it is -sum_c q_c log softmax(logits)[c], of
  q = (1 - s) * one-hot + s / classes.
  """
  if not label_smoothing:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  one_hot = jax.nn.one_hot(labels, logits.shape[-1])
  return optax.softmax_cross_entropy(logits, optax.smooth_labels(one_hot, label_smoothing))


def squared_error(
  outputs: Float[Array | np.ndarray, "batch outputs"], targets: Float[Array | np.ndarray, "batch outputs"]
) -> Float[Array, " batch"]:
  """The mean over the outputs of (output - target)^2, of each example: [batch].

  Of targets that are standardised it is in variances of the training part.
  """
  return jnp.mean(cast(jax.Array, optax.squared_error(jnp.asarray(outputs), jnp.asarray(targets))), axis=-1)


def binary_cross_entropy(
  logits: Float[Array | np.ndarray, "batch labels"], labels: Int[Array | np.ndarray, "batch labels"]
) -> Float[Array, " batch"]:
  """The mean over the labels of -log p, p = sigmoid(+-logit) that of the label, in nats: [batch]."""
  return jnp.mean(optax.sigmoid_binary_cross_entropy(jnp.asarray(logits), jnp.asarray(labels)), axis=-1)


LOSSES: dict[str, Loss] = {
  "cross_entropy": cross_entropy,
  "squared_error": squared_error,
  "binary_cross_entropy": binary_cross_entropy,
}
# What each is of, and so the loss of data that nobody names one for.
TARGETS = {"cross_entropy": CLASSES, "squared_error": NUMBERS, "binary_cross_entropy": LABELS}
