"""What networks of images share: which images they take, how wide they are, how they normalise.

Width has one meaning in all of them: it multiplies the paper's channels, and the units of hidden layers.
"""

import flax.linen as nn
import numpy as np
from jaxtyping import Array, Float, Shaped

from nets_jax.errors import UsageError
from nets_jax.kinds import POSITIVE, check_value, one_of

NORMS = ("batch", "group", "none")
MOMENTUM = 0.9  # of the running averages: flax's 0.99 needs hundreds of steps, more than a short training has
LARGEST_GROUP = 16  # channels, as in Wu & He (2018, Table 3), who find that about as good as 32 groups


def check_images(
  network: str, inputs: Shaped[Array | np.ndarray, "..."], *, least: int = 1, multiple: int = 1
) -> None:
  """Raises UsageError unless the inputs are images that a network can take.

  Args:
    network: its name, for the message.
    inputs: [batch, height, width, channels], or what was given in their place.
    least: what height and width must be at least.
    multiple: what they must be multiples of.
  """
  shape = inputs.shape[1:]
  if len(shape) == 3 and all(side >= least and side % multiple == 0 for side in shape[:2]):
    return
  wanted = f"at least {least} by {least}" if multiple == 1 else f"with sides that are multiples of {multiple}"
  raise UsageError(
    f"{network} takes images [height, width, channels], {wanted}; the data have shape {tuple(shape)}"
  )


def scaled(count: int, width: float) -> int:
  """A layer's channels or units, `count` in the paper, at a width; at least one.

  Raises:
    UsageError: the width is not positive.
  """
  check_value("width", POSITIVE, width)
  return max(1, round(width * count))


def normalised(
  x: Float[Array, "batch height width channels"], norm: str, train: bool, name: str
) -> Float[Array, "batch height width channels"]:
  """A signal after batch, group or no normalisation. Call it in a module's `__call__`.

  Batch normalisation is Ioffe & Szegedy's (2015): training takes the batch's moments and notes their running
  averages in `batch_stats`, which evaluation takes. Group normalisation is Wu & He's (2018).

  Args:
    x: the signal.
    norm: a name in `NORMS`.
    train: whether this is training.
    name: of the layer.

  Raises:
    UsageError: no such normalisation.
  """
  check_value("norm", one_of(NORMS), norm)
  if norm == "batch":
    return nn.BatchNorm(use_running_average=not train, momentum=MOMENTUM, name=name)(x)
  if norm == "group":
    return nn.GroupNorm(num_groups=None, group_size=group_size(x.shape[-1]), name=name)(x)
  return x


def group_size(channels: int) -> int:
  """Channels in a group: the largest divisor up to `LARGEST_GROUP`, so that any width can be normalised."""
  return max(size for size in range(1, LARGEST_GROUP + 1) if channels % size == 0)


def conv_norm(
  x: Shaped[Array | np.ndarray, "batch height width channels"],
  channels: int,
  index: int,
  *,
  norm: str,
  train: bool,
  stride: int = 1,
) -> Float[Array, "batch ..."]:
  """A 3x3 convolution `conv_<index>`, and its normalisation `norm_<index>`. Call it in `__call__`.

  Args:
    x: the signal.
    channels: of the result.
    index: tells the module's convolutions apart.
    norm: a name in `NORMS`; but for none there is no bias, which the normalisation would take away.
    train: whether this is training.
    stride: of the convolution.

  Returns:
    [batch, height / stride, width / stride, channels], sides rounded up.
  """
  # One pixel on every side centres a stride of 2 on the even pixels, those that a shortcut keeps.
  conv = nn.Conv(channels, (3, 3), strides=stride, padding=1, use_bias=norm == "none", name=f"conv_{index}")
  return normalised(conv(x), norm, train, f"norm_{index}")


def halved(x: Shaped[Array | np.ndarray, "batch height width channels"]) -> Float[Array, "batch ..."]:
  """The signal after 2x2 max pooling: [batch, height / 2, width / 2, channels], sides rounded down."""
  return nn.max_pool(x, (2, 2), strides=(2, 2))
