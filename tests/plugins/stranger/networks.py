"""A network of one's own."""

from collections.abc import Sequence

import flax.linen as nn
import jax


class Skip(nn.Module):
  """A hidden layer, and a way past it.

  Attributes:
    num_classes: outputs.
    width: units of the hidden layer.
  """

  num_classes: int
  width: int = 8

  @nn.compact
  def __call__(self, inputs: jax.Array) -> jax.Array:
    """Maps inputs [batch, ...] to logits [batch, num_classes]."""
    x = inputs.reshape((inputs.shape[0], -1))
    hidden = nn.relu(nn.Dense(self.width, name="hidden")(x))
    return nn.Dense(self.num_classes, name="output")(hidden) + nn.Dense(self.num_classes, name="skip")(x)


class Small(nn.Module):
  """A convolution with batch normalisation, and the mean of its channels.

  Attributes:
    num_classes: outputs.
  """

  num_classes: int

  @nn.compact
  def __call__(self, images: jax.Array, train: bool) -> jax.Array:
    """Maps images [batch, height, width, channels] to logits [batch, num_classes]."""
    x = nn.Conv(8, (3, 3), name="conv")(images)
    x = nn.relu(nn.BatchNorm(use_running_average=not train, name="norm")(x))
    return nn.Dense(self.num_classes, name="output")(x.mean((1, 2)))


def tower(num_classes: int, sizes: Sequence[int] = (6, 4)) -> nn.Module:
  """A function that gives a module, whose class does not tell how it was made."""
  layers = [layer for size in sizes for layer in (nn.Dense(size), nn.relu)]
  return nn.Sequential([*layers, nn.Dense(num_classes)])
