"""Convolutions that are fast on a CPU: matrix products, and XLA's own where that is fast.

XLA's CPU backend multiplies matrices at the machine's rate. It convolves so too, by Eigen, where it knows the
form: of images with channels last, forwards. Gradients have other forms. That of a 3 x 3 convolution over
32 x 32 images ran at about a hundredth of that rate. So the gradient of the images is put as a convolution
forwards. All else is a product of patches and the kernel. It is worked off in blocks of images whose patches
fit in a core's cache, for they are several times the images themselves.
"""

import functools
import itertools
import math
from collections.abc import Mapping
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nets_jax.engine.patches import Window, block_size, patches_of, taps_of

# Each is an operation of the program, and so is compiled; beyond, XLA's own is the lesser evil.
MOST_SLICES = 128
# From so many on, Eigen's convolution is faster: patches and a product took 1.1 to 1.3 times as long.
MANY_CHANNELS = 16


class _Convolution(NamedTuple):
  """What is the same for every axis, image and channel; `pads` are below, above and between, by axis."""

  window: Window
  pads: tuple[tuple[int, int, int], ...]
  groups: int
  precision: lax.PrecisionLike
  result: np.dtype


def convolution(lhs: jax.Array, rhs: jax.Array, **settings: object) -> jax.Array:
  """`lax.conv_general_dilated` as it was traced; products where it is lowered for a CPU.

  For every stride, padding, dilation, order of axes and number of groups, and any number of axes. Complex
  numbers, integers and what is empty are left to XLA.

  Args:
    lhs: the images, or what a gradient has in their place.
    rhs: the kernel, or what a gradient has in its place.
    **settings: those of the primitive.
  """
  as_xla_has_it = functools.partial(lax.conv_general_dilated_p.bind, **settings)
  is_empty = not lhs.size or not rhs.size
  if not jnp.issubdtype(lhs.dtype, jnp.floating) or is_empty or _slices(lhs, rhs, settings) > MOST_SLICES:
    return as_xla_has_it(lhs, rhs)
  settings.pop("out_sharding", None)
  products = functools.partial(_as_products, **settings)
  return lax.platform_dependent(lhs, rhs, cpu=products, default=as_xla_has_it)


def _slices(lhs: jax.Array, rhs: jax.Array, settings: Mapping[str, object]) -> int:
  """How many slices the patches are made of: entries of the window, or its places where these are fewer."""
  convolve = functools.partial(lax.conv_general_dilated_p.bind, **settings)
  numbers = cast(lax.ConvDimensionNumbers, settings["dimension_numbers"])
  places = jax.eval_shape(convolve, lhs, rhs).shape
  return min(
    math.prod(rhs.shape[axis] for axis in numbers.rhs_spec[2:]),
    math.prod(places[axis] for axis in numbers.out_spec[2:]),
  )


@functools.partial(jax.jit, static_argnames=(
  "dimension_numbers", "window_strides", "padding", "lhs_dilation", "rhs_dilation", "feature_group_count",
  "batch_group_count", "precision", "preferred_element_type",
))  # fmt: skip
def _as_products(
  lhs: jax.Array, rhs: jax.Array, *, dimension_numbers: lax.ConvDimensionNumbers,
  window_strides: tuple[int, ...], padding: tuple[tuple[int, int], ...], lhs_dilation: tuple[int, ...],
  rhs_dilation: tuple[int, ...], feature_group_count: int, batch_group_count: int,
  precision: lax.PrecisionLike, preferred_element_type: np.dtype | None,
) -> jax.Array:  # fmt: skip
  """With channels last; groups of images are groups of channels. Traced once for layers alike."""
  (image, channel, *axes), of_kernel, order = dimension_numbers
  images = lax.transpose(lhs, (image, *axes, channel))
  out_channel, in_channel, *kernel_axes = of_kernel
  kernel = lax.transpose(rhs, (*kernel_axes, in_channel, out_channel))
  if batch_group_count > 1:
    apart = images.reshape(batch_group_count, -1, *images.shape[1:])
    together = jnp.moveaxis(apart, 0, -2)
    images = together.reshape(*together.shape[:-2], -1)
  pads = tuple((low, high, d - 1) for (low, high), d in zip(padding, lhs_dilation, strict=True))
  entries = kernel.shape[:-2]
  places = tuple(
    max(0, (low + high + (size - 1) * (between + 1) - (count - 1) * d) // stride + 1)
    for size, (low, high, between), count, d, stride in zip(
      images.shape[1:-1], pads, entries, rhs_dilation, window_strides, strict=True
    )
  )
  result = preferred_element_type or jnp.result_type(lhs, rhs)
  settings = _Convolution(
    Window(entries, rhs_dilation, places, window_strides),
    pads, max(feature_group_count, batch_group_count), precision, result,
  )  # fmt: skip
  convolved = _convolve(images, kernel, settings)
  back = np.argsort((order[0], *order[2:], order[1]))
  return lax.transpose(convolved, tuple(int(axis) for axis in back))


def _convolve(images: jax.Array, kernel: jax.Array, settings: _Convolution) -> jax.Array:
  """[images, axes, in] and [axes, in / groups, out] to [images, axes, out], by the cheapest form."""
  window, pads = settings.window, settings.pads
  if 0 in window.places:
    return jnp.zeros((len(images), *window.places, kernel.shape[-1]), settings.result)
  if any(between for *_, between in pads) and set(window.dilation) == set(window.strides) == {1}:
    return _between(images, kernel, settings)
  if math.prod(window.entries) > math.prod(window.places):
    return _summed_over_images(images, kernel, settings)
  if _is_known_to_eigen(images, settings):
    return _as_eigen_has_it(images, kernel, settings)
  return _by_images(images, kernel, settings)


def _is_known_to_eigen(images: jax.Array, settings: _Convolution) -> bool:
  """Whether XLA gives it to Eigen: images of two axes, one group, float32; no padding that cuts off."""
  is_plain = images.ndim == 4 and settings.groups == 1 and images.dtype == settings.result == jnp.float32
  return is_plain and images.shape[-1] >= MANY_CHANNELS and all(min(pad) >= 0 for pad in settings.pads)


def _as_eigen_has_it(images: jax.Array, kernel: jax.Array, settings: _Convolution) -> jax.Array:
  """The same by XLA. A reversal of the kernel stays apart, for taken up into the window Eigen knows none."""
  window, pads = settings.window, settings.pads
  return lax.conv_general_dilated(
    images, lax.optimization_barrier(kernel), window.strides, [(low, high) for low, high, _ in pads],
    [between + 1 for *_, between in pads], window.dilation, dimension_numbers=("NHWC", "HWIO", "NHWC"),
    precision=settings.precision, preferred_element_type=settings.result,
  )  # fmt: skip


def _between(images: jax.Array, kernel: jax.Array, settings: _Convolution) -> jax.Array:
  """Of images with zeros between their pixels, as the gradient of a stride has them: no zero is multiplied.

  A place's remainder by the distance of pixels says which entries of the kernel meet pixels there. So the
  places of each remainder are a convolution with these entries alone, and are put between one another.
  """
  window = settings.window
  choices = [
    [_remainder(first, size, *pad, count, places) for first in range(min(pad[2] + 1, places))]
    for size, pad, count, places in zip(
      images.shape[1:-1], settings.pads, window.entries, window.places, strict=True
    )
  ]
  total = jnp.zeros((len(images), *window.places, kernel.shape[-1]), settings.result)
  for chosen in itertools.product(*choices):
    taken = kernel[tuple(one.taken for one in chosen)]
    if not taken.size:
      continue  # between the pixels, where no entry meets any
    inner = Window(taken.shape[:-2], window.dilation, tuple(one.places for one in chosen), window.strides)
    pads = tuple(one.pad for one in chosen)
    part = _convolve(images, taken, settings._replace(window=inner, pads=pads))
    spread = ((0, 0, 0), *(one.spread for one in chosen), (0, 0, 0))
    total = total + lax.pad(part, jnp.zeros((), part.dtype), spread)
  return total


class _Remainder(NamedTuple):
  """The places of one remainder along an axis: kernel entries, how many, the pads, how they are spread."""

  taken: slice
  places: int
  pad: tuple[int, int, int]
  spread: tuple[int, int, int]


def _remainder(
  first: int, size: int, low: int, high: int, between: int, entries: int, places: int
) -> _Remainder:
  """Of the places `first`, `first + between + 1`, and so on, of an axis of so many pixels."""
  del high  # the number of places says it
  step = between + 1
  entry = (low - first) % step
  count, taken = len(range(first, places, step)), len(range(entry, entries, step))
  below = (low - first - entry) // step
  spread = (first, places - first - (count - 1) * step - 1, between)
  return _Remainder(slice(entry, None, step), count, (below, count + taken - 1 - size - below, 0), spread)


def _by_images(images: jax.Array, kernel: jax.Array, settings: _Convolution) -> jax.Array:
  """Patches of a block of images, times the kernel; block by block."""
  window, groups = settings.window, settings.groups
  entries, per_group = math.prod(window.entries), kernel.shape[-2]
  flat = kernel.reshape(entries, per_group, groups, -1)

  def convolve(block):
    if per_group == 1 < groups:  # depthwise: nothing to sum but the entries
      shape = (1,) * (block.ndim - 1)
      taps = zip(taps_of(block, settings.pads, window), flat, strict=True)
      exact = jnp.promote_types(settings.result, jnp.float32)
      parts = (tap[..., None].astype(exact) * own.reshape(*shape, *own.shape[1:]) for tap, own in taps)
      convolved = functools.reduce(jnp.add, parts).astype(settings.result)
    else:
      patches = patches_of(block, settings.pads, window)
      convolved = _product(patches.reshape(-1, entries, groups, per_group), flat, settings)
    return convolved.reshape(len(block), *window.places, -1)

  size = math.prod(window.places) * entries * images.shape[-1] * images.dtype.itemsize
  block = block_size(len(images), size)
  if block == len(images):
    return convolve(images)
  blocks = images.reshape(-1, block, *images.shape[1:])
  return lax.map(convolve, blocks).reshape(len(images), *window.places, -1)


def _product(patches: jax.Array, kernel: jax.Array, settings: _Convolution) -> jax.Array:
  """[patches, entries, groups, in] times [entries, in, groups, out], summed over entries and in."""
  multiply = functools.partial(
    lax.dot_general, precision=settings.precision, preferred_element_type=settings.result
  )
  if settings.groups == 1:
    patches, kernel = patches.reshape(len(patches), -1), kernel.reshape(-1, kernel.shape[-1])
    return multiply(patches, kernel, (((1,), (0,)), ((), ())))
  product = multiply(patches, kernel, (((1, 3), (0, 1)), ((2,), (2,))))
  return lax.transpose(product, (1, 0, 2))


def _summed_over_images(images: jax.Array, kernel: jax.Array, settings: _Convolution) -> jax.Array:
  """The gradient of a kernel, whose window is as large as the image: patches of few places, summed up.

  It has the images where a convolution has channels, so what is summed over a block of them is added to the
  sum of the blocks before.
  """
  window, groups = settings.window, settings.groups
  few, count = len(images), kernel.shape[-2]
  apart = images.reshape(*images.shape[:-1], groups, count)
  last = images.ndim  # of the axes now
  summed_first = lax.transpose(apart, (last, *range(1, last), 0))
  summed_first = summed_first.reshape(count, *images.shape[1:-1], -1)
  of_kernel = lax.transpose(kernel, (kernel.ndim - 2, *range(kernel.ndim - 2), kernel.ndim - 1))
  places = math.prod(window.places)
  exact = jnp.promote_types(settings.result, jnp.float32)  # a sum over blocks is rounded once

  def convolve(block, own):
    patches = patches_of(block, settings.pads, window.exchanged)
    patches = patches.reshape(-1, places, groups, few)
    multiply = functools.partial(lax.dot_general, precision=settings.precision, preferred_element_type=exact)
    # The kernel first: Eigen packs a long operand faster where what is summed over is not its last axis.
    if groups == 1:
      patches = patches.reshape(len(patches), -1)
      return multiply(own.reshape(len(patches), -1), patches, (((0,), (0,)), ((), ())))
    own = own.reshape(len(patches), groups, -1)
    return multiply(own, patches, (((0,), (0,)), ((1,), (2,))))

  size = math.prod(window.entries) * places * groups * few * images.dtype.itemsize
  block = block_size(count, size)
  if block == count:
    total = convolve(summed_first, of_kernel)
  else:
    blocks = tuple(x.reshape(-1, block, *x.shape[1:]) for x in (summed_first, of_kernel))
    nothing = jax.eval_shape(lambda blocks: convolve(*(x[0] for x in blocks)), blocks)
    total = jnp.zeros(nothing.shape, nothing.dtype)
    total = lax.scan(lambda total, own: (total + convolve(*own), None), total, blocks)[0]
  total = total.astype(settings.result).reshape(groups, -1, *window.places, few)
  axes = len(window.places)
  total = lax.transpose(total, (axes + 2, *range(2, axes + 2), 0, 1))
  return total.reshape(few, *window.places, -1)
