"""Masks of an exact count: the highest scores, ties broken by index."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from nets_jax.networks.adapter import Params


def top_masks(scores: Params, count: int | Int[Array | np.ndarray, ""]) -> Params:
  """Masks of exactly the `count` highest scores over all layers together.

  Ties are broken by index, layers in the tree's order; a NaN score ranks below every number.

  Args:
    scores: a score for each maskable weight; None elsewhere.
    count: how many weights to keep.

  Returns:
    Bool masks in the structure of `scores`.
  """
  leaves, treedef = jax.tree.flatten(scores)
  flat = jnp.concatenate([leaf.reshape(-1) for leaf in leaves]).astype(jnp.float32)
  keys = _ascending_bits(jnp.where(jnp.isnan(flat), -jnp.inf, flat))

  def try_bit(threshold, bit):
    higher = threshold | (jnp.uint32(1) << bit)
    return jnp.where(jnp.sum(keys >= higher, dtype=jnp.int32) >= count, higher, threshold), None

  # The count-th highest key, found bit by bit: many times faster than sorting on a CPU.
  threshold, _ = jax.lax.scan(try_bit, jnp.uint32(0), jnp.arange(32, dtype=jnp.uint32)[::-1])
  above, equal = keys > threshold, keys == threshold
  left = count - jnp.sum(above, dtype=jnp.int32)
  chosen = above | (equal & (jnp.cumsum(equal, dtype=jnp.int32) <= left))
  parts = jnp.split(chosen, np.cumsum([leaf.size for leaf in leaves])[:-1])
  return jax.tree.unflatten(
    treedef, [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
  )


def _ascending_bits(numbers: jax.Array) -> jax.Array:
  """Unsigned integers in the order of the float32 numbers, both zeros alike."""
  bits = (numbers + 0.0).view(jnp.uint32)
  return jnp.where(bits >> 31, ~bits, bits | jnp.uint32(1 << 31))
