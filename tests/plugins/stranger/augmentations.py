"""Augmentations of one's own."""

import jax


def upside_down(key: jax.Array, images: jax.Array) -> jax.Array:
  """Each image as it is, or the wrong way up."""
  turned = jax.random.bernoulli(key, shape=(images.shape[0], 1, 1, 1))
  return jax.numpy.where(turned, images[:, ::-1], images)


def noisy(scale: float = 0.1):
  """A function that adds noise of a scale."""
  return lambda key, images: images + scale * jax.random.normal(key, images.shape)
