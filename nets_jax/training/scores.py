"""Scores of an example, whose mean is reported beside the loss."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int


def accuracy(
  logits: Float[Array | np.ndarray, "batch classes"], labels: Int[Array | np.ndarray, " batch"]
) -> Bool[Array, " batch"]:
  """Whether the highest logit is the label's, of each example: [batch]."""
  return jnp.argmax(logits, axis=-1) == labels
