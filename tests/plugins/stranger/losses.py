"""A loss and scores of one's own."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax


def pinball(outputs: jax.Array, targets: jax.Array) -> jax.Array:
  """The loss whose least is the median: half of the absolute error, of each example."""
  return 0.5 * jnp.mean(jnp.abs(outputs - targets), axis=-1)


def huber(delta: float) -> Callable[[jax.Array, jax.Array], jax.Array]:
  """A function that gives a loss."""

  def loss(outputs, targets):
    return jnp.mean(optax.huber_loss(outputs, targets, delta=delta), axis=-1)

  return loss


def within(outputs: jax.Array, targets: jax.Array) -> jax.Array:
  """Whether an example is predicted to within half a deviation: more is better."""
  return jnp.all(jnp.abs(outputs - targets) < 0.5, axis=-1)


def farthest(outputs: jax.Array, targets: jax.Array) -> jax.Array:
  """The largest error of an example: less is better."""
  return jnp.max(jnp.abs(outputs - targets), axis=-1)


def wide(outputs: jax.Array, targets: jax.Array) -> jax.Array:
  """No loss, for it has a number for each output."""
  return outputs - targets


def broken(outputs: jax.Array, targets: jax.Array) -> jax.Array:
  """A loss with a slip in it."""
  return outputs.nothing


CONSTANT = 3
