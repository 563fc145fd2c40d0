"""Augmentation: what a training sees in place of its images, drawn anew at each step.

An augmentation is a function `(key, images [batch, height, width, channels]) -> images` of the same shape.
Images are standardised, so 0 is a channel's mean in the training part. That is what crops are padded with and
squares are filled with, as by He et al. (2016) and by DeVries & Taylor (2017).
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, Num

from nets_jax import plugins
from nets_jax.errors import UsageError, suggest
from nets_jax.kinds import Kind, check_hashable, in_words

Augmentation = Callable[[Key[Array, ""], jax.Array], jax.Array]
Images = Num[Array | np.ndarray, "batch height width channels"]
Augmented = Num[Array, "batch height width channels"]
# What sizes there are where nobody gives others, by the augmentation that has them.
SIZES = {"crop": ("crop_padding", 4), "cutout": ("cutout_size", 8)}


def crop(key: Key[Array, ""], images: Images, padding: int = 4) -> Augmented:
  """Each image moved by up to `padding` pixels either way, what comes in being 0 (He et al., 2016).

  It is padded on each side, and a window of its own size is taken at one of (2 padding + 1)^2 places, each as
  likely.
  """
  batch, *shape = images.shape
  sides = [(0, 0), (padding, padding), (padding, padding), (0, 0)]
  corners = jax.random.randint(key, (batch, 2), 0, 2 * padding + 1)

  def window(image, corner):
    return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), shape)

  return jax.vmap(window)(jnp.pad(images, sides), corners)


def flip(key: Key[Array, ""], images: Images) -> Augmented:
  """Each image mirrored left to right with probability 1/2."""
  mirrored = jax.random.bernoulli(key, shape=(images.shape[0], 1, 1, 1))
  return jnp.where(mirrored, images[:, :, ::-1], images)


def cutout(key: Key[Array, ""], images: Images, size: int = 8) -> Augmented:
  """A square of each image set to 0 (DeVries & Taylor, 2017).

  Its middle is any pixel, each as likely, and what lies beyond the image's edges is lost. So from row y come
  the rows y - size // 2 to y - size // 2 + size - 1, and columns likewise.
  """
  batch, height, width, _ = images.shape
  first = jax.random.randint(key, (batch, 2), 0, jnp.array([[height, width]])) - size // 2

  def within(first, length):
    return (first[:, None] <= jnp.arange(length)[None]) & (jnp.arange(length)[None] < first[:, None] + size)

  rows, columns = within(first[:, 0], height), within(first[:, 1], width)
  return jnp.where((rows[:, :, None] & columns[:, None])[..., None], 0, images)


AUGMENTATIONS: Mapping[str, Augmentation] = {"crop": crop, "flip": flip, "cutout": cutout}


def _parse(text: str) -> tuple[str, ...]:
  """Names between commas; between signs of plus in a list, whose own commas part its values."""
  parts = [part.strip() for whole in plugins.split(text, ",") for part in plugins.split(whole, "+")]
  return tuple(part for part in parts if part)


NAMES = Kind("augmentations with commas between", _parse, lambda value: ",".join(map(in_words, value)))


def as_names(given: str | Augmentation | Sequence[str | Augmentation] | None) -> tuple | None:
  """Augmentations as a setting holds them: names and functions; None is none."""
  if isinstance(given, str):
    return _parse(given) or None
  if isinstance(given, list | tuple):
    return tuple(given) or None
  return given if given is None else (given,)


def chain(names: Sequence[str | Augmentation], sizes: Mapping[str, int | None]) -> Augmentation:
  """One augmentation of several, each acting on what the one before gave; the i-th by `fold_in(key, i)`.

  Args:
    names: of `AUGMENTATIONS`; functions; or `package.module:function`, with arguments what it makes.
    sizes: `crop_padding` and `cutout_size`, each None where nobody has given it.

  Raises:
    UsageError: there is none of a name, or a size is of one that is not among them.
  """
  for name, (size, _) in SIZES.items():
    if sizes[size] is not None and name not in names:
      raise UsageError(f"{size} is of {name}, which is not in augment; add it, or leave {size} out")
  functions = [_function(name, sizes) for name in names]

  def augment(key: Key[Array, ""], images: jax.Array) -> jax.Array:
    for i, function in enumerate(functions):
      images = function(jax.random.fold_in(key, i), images)
    return images

  return augment


def _function(name: str | Augmentation, sizes: Mapping[str, int | None]) -> Augmentation:
  if callable(name):
    return name
  if plugins.is_reference(name):
    reference = plugins.parse(name)
    found = plugins.find(reference) if reference.arguments is None else plugins.load(reference)
    if not callable(found):
      raise UsageError(f"augment: {name} is a {type(found).__name__}, not a function (key, images) -> images")
    return cast(Augmentation, found)
  if name not in AUGMENTATIONS:
    raise UsageError(
      f"augment must be of {', '.join(AUGMENTATIONS)}, or package.module:function of your own, not {name!r}"
      f"{suggest(str(name), AUGMENTATIONS)}"
    )
  if name not in SIZES:
    return AUGMENTATIONS[name]
  argument = SIZES[name][0].partition("_")[2]
  return functools.partial(AUGMENTATIONS[name], **{argument: _size(name, sizes)})


def _size(name: str, sizes: Mapping[str, int | None]) -> int:
  """Of an augmentation that has one."""
  setting, default = SIZES[name]
  size = sizes[setting]
  return default if size is None else size


def check(
  names: Sequence[str | Augmentation],
  sizes: Mapping[str, int | None],
  batch: jax.ShapeDtypeStruct,
) -> None:
  """Raises UsageError for augmentations that do not go with a batch of inputs [batch, ...]."""
  shape = batch.shape[1:]
  for name in names:
    check_hashable("augment", name)
    if name in AUGMENTATIONS and len(shape) != 3:
      raise UsageError(f"augment: {name} is of images [height, width, channels], not of inputs {list(shape)}")
    if name in SIZES:
      size, side = _size(name, sizes), min(shape[:2])
      if size > side:
        raise UsageError(f"{SIZES[name][0]} must be at most {side}, the images' smaller side, not {size}")
    function, own = _function(name, sizes), in_words(name)
    try:
      given = jax.eval_shape(function, jax.random.key(0), batch)
    except Exception as error:  # whatever a stranger's code raises
      raise UsageError(f"augment: {own} failed: {plugins.last_line(error)}; mend it") from error
    if (getattr(given, "shape", None), getattr(given, "dtype", None)) != (batch.shape, batch.dtype):
      raise UsageError(
        f"augment: {own} must give images as it takes them, {_shown(batch)}, not {_shown(given)}"
      )


def _shown(given: object) -> str:
  """An array's type and shape, or what it is instead."""
  if not isinstance(given, jax.ShapeDtypeStruct):
    return type(given).__name__
  return f"{given.dtype.name}{list(given.shape)}"
