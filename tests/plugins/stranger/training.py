"""How a stranger trains: a schedule of the learning rate, and a chain of optax's transformations."""

import jax.numpy as jnp
import optax


def halved(steps: int, share: float = 0.5) -> optax.Schedule:
  """Half of the learning rate after a share of the training."""
  return lambda iteration: jnp.where(iteration < share * steps, 1.0, 0.5)


def clipped(learning_rate: float, most: float = 1.0) -> optax.GradientTransformation:
  """SGD by gradients of which no entry is larger."""
  return optax.chain(optax.clip(most), optax.sgd(learning_rate))
