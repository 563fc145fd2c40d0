"""What a window meets as it moves over images, copied out, so that a matrix product can follow."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# Of a block's patches: a core's second-level cache has 0.5 to 2 MB.
BLOCK_BYTES = 2**20
# Up to so many, patches are made axis by axis; see `patches_of`.
FEW_CHANNELS = 4


class Window(NamedTuple):
  """What moves over an image, by axis: its entries and their distance, its places and theirs."""

  entries: tuple[int, ...]
  dilation: tuple[int, ...]
  places: tuple[int, ...]
  strides: tuple[int, ...]

  @property
  def exchanged(self) -> "Window":
    """Entries as places and places as entries: it meets the same pixels, summed over places."""
    return Window(self.places, self.strides, self.entries, self.dilation)


def patches_of(images: jax.Array, pads: Sequence[tuple[int, int, int]], window: Window) -> jax.Array:
  """What a window meets at each place, its entries one after the other: [images, places, entries * channels].

  All entries at once, unless channels are so few that what is copied at a time is short. Then axis by axis
  from the last, for the copies that one axis makes are copied whole by the next.
  """
  if images.shape[-1] > FEW_CHANNELS:
    return lax.concatenate(taps_of(images, pads, window), images.ndim - 1)
  patches = _padded(images, pads)
  for axis in reversed(range(1, images.ndim - 1)):
    entries = range(0, window.entries[axis - 1] * window.dilation[axis - 1], window.dilation[axis - 1])
    parts = [_slice_of_axis(patches, axis, first, window) for first in entries]
    patches = lax.concatenate(parts, images.ndim - 1)
  return patches


def taps_of(images: jax.Array, pads: Sequence[tuple[int, int, int]], window: Window) -> list[jax.Array]:
  """For each entry of a window, the pixels that it meets at all places: [images, places, channels]."""
  padded, taps = _padded(images, pads), []
  for entry in np.ndindex(*window.entries):
    tap = padded
    for axis, (i, d) in enumerate(zip(entry, window.dilation, strict=True), 1):
      tap = _slice_of_axis(tap, axis, i * d, window)
    taps.append(tap)
  return taps


def _padded(images: jax.Array, pads: Sequence[tuple[int, int, int]]) -> jax.Array:
  return lax.pad(images, jnp.zeros((), images.dtype), ((0, 0, 0), *pads, (0, 0, 0)))


def _slice_of_axis(images: jax.Array, axis: int, first: int, window: Window) -> jax.Array:
  """Along one axis, what is at each place."""
  count, stride = window.places[axis - 1], window.strides[axis - 1]
  return lax.slice_in_dim(images, first, first + (count - 1) * stride + 1, stride, axis)


def block_size(count: int, size: int) -> int:
  """Of so many images with so many bytes of patches each: how many at a time, in equal blocks."""
  return max(
    block
    for block in range(1, count + 1)
    if count % block == 0 and (block == 1 or block * size <= BLOCK_BYTES)
  )
