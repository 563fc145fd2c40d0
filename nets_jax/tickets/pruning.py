"""Masks of an exact count: the highest scores, ties broken by index; and magnitudes that layers may share."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from nets_jax.networks.adapter import Params

Count = int | Int[Array | np.ndarray, ""]


def top_masks(scores: Params, count: Count) -> Params:
  """Masks of exactly the `count` highest scores over all layers together.

  Ties are broken by index, layers in the tree's order; a NaN score ranks below every number.

  Args:
    scores: a score for each maskable weight; None elsewhere.
    count: how many weights to keep.

  Returns:
    Bool masks in the structure of `scores`.
  """
  return top_masks_of_each([scores], [count])[0]


def top_masks_of_each(parts: Sequence[Params], counts: Sequence[Count]) -> list[Params]:
  """`top_masks` of several trees, each for itself, in one loop, which compiles faster than one for each."""
  keys = [_ascending_keys(scores) for scores in parts]

  def try_bit(thresholds, bit):
    def try_on(threshold, of_part, count):
      higher = threshold | (jnp.uint32(1) << bit)
      return jnp.where(jnp.sum(of_part >= higher, dtype=jnp.int32) >= count, higher, threshold)

    return jax.tree.map(try_on, thresholds, keys, list(counts)), None

  # The count-th highest key, found bit by bit: many times faster than sorting on a CPU.
  none = [jnp.uint32(0)] * len(keys)
  thresholds, _ = jax.lax.scan(try_bit, none, jnp.arange(32, dtype=jnp.uint32)[::-1])
  return [_chosen(*each) for each in zip(parts, keys, thresholds, counts, strict=True)]


def layer_adaptive(weights: Params) -> Params:
  """LAMP scores (Lee et al., 2021, equation 4), by which layers of any scale may be ranked together.

      score(w_i) = w_i^2 / sum_j w_j^2, over the layer's weights j that are at least as large as w_i

  So within a layer they rank as |w| does, and no scale of a layer changes any, from 1e-37 to 1e37. The
  largest has 1, or of several as large each their share.

  Args:
    weights: of the maskable layers, zero where masked; None elsewhere. One that is not finite counts as 0.

  Returns:
    In float32, from 0 to 1.
  """
  return jax.tree.map(_layer_adaptive, weights)


def _layer_adaptive(weights: Array) -> Array:
  sizes = jnp.nan_to_num(jnp.abs(weights.astype(jnp.float32)).reshape(-1), nan=0.0, posinf=0.0)
  # Of the largest, so that no square leaves the range of float32.
  largest = jnp.max(sizes)
  squares = jnp.square(sizes / jnp.where(largest > 0, largest, 1))
  # As integers, whose order is the same: a CPU sorts them eight times as fast.
  keys = squares.view(jnp.int32)
  ascending = jnp.sort(keys)
  as_large = jax.lax.cumsum(ascending.view(jnp.float32), reverse=True)
  of_each = as_large[jnp.searchsorted(ascending, keys)]
  return (squares / jnp.where(of_each > 0, of_each, 1)).reshape(weights.shape)


def _chosen(scores: Params, keys: Array, threshold: Array, count: Count) -> Params:
  """Masks of all keys above a threshold, and of the first that equal it."""
  leaves, treedef = jax.tree.flatten(scores)
  above, equal = keys > threshold, keys == threshold
  left = count - jnp.sum(above, dtype=jnp.int32)
  chosen = above | (equal & (jnp.cumsum(equal, dtype=jnp.int32) <= left))
  parts = jnp.split(chosen, np.cumsum([leaf.size for leaf in leaves])[:-1])
  return jax.tree.unflatten(
    treedef, [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
  )


def _ascending_keys(scores: Params) -> Array:
  """All scores in a row, as unsigned integers in the order of the float32 numbers."""
  flat = jnp.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(scores)]).astype(jnp.float32)
  return _ascending_bits(jnp.where(jnp.isnan(flat), -jnp.inf, flat))


def _ascending_bits(numbers: jax.Array) -> jax.Array:
  """Unsigned integers in the order of the float32 numbers, both zeros alike."""
  bits = (numbers + 0.0).view(jnp.uint32)
  return jnp.where(bits >> 31, ~bits, bits | jnp.uint32(1 << 31))
