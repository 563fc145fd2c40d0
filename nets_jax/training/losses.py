"""Losses of an example, whose mean is minimised."""

import numpy as np
import optax
from jaxtyping import Array, Float, Int


def cross_entropy(
  logits: Float[Array | np.ndarray, "batch classes"], labels: Int[Array | np.ndarray, " batch"]
) -> Float[Array, " batch"]:
  """-log softmax(logits)[label] of each example: [batch]."""
  return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
