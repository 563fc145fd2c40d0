"""VGG for CIFAR (Simonyan & Zisserman, 2015), with batch normalisation and one dense layer."""

import flax.linen as nn
import numpy as np
from jaxtyping import Array, Float, Shaped

from nets_jax.networks.images import check_images, conv_norm, halved, scaled

CHANNELS = (64, 128, 256, 512, 512)  # of each stage


class VGG(nn.Module):
  """Five stages of 3x3 convolutions, with 2x2 max pooling between (Simonyan & Zisserman, 2015, Table 1).

  The paper pools after the last stage too, ends in three dense layers and has no normalisation. Here there is
  one dense layer, over the mean of what is left of the image (2 x 2 of 32 x 32), as usual for CIFAR in the
  literature of pruning and lottery tickets (Liu et al., 2019; Frankle et al., 2020).

  Attributes:
    num_classes: units of the output layer.
    convs: convolutions in each stage.
    width: multiplies the channels; 1 is the paper's.
    norm: `batch`, `group`, or `none`.
  """

  num_classes: int = 10
  convs: tuple[int, ...] = (1, 1, 2, 2, 2)
  width: float = 1.0
  norm: str = "batch"

  @nn.compact
  def __call__(
    self, inputs: Shaped[Array | np.ndarray, "batch ..."], *, train: bool = False
  ) -> Float[Array, "batch classes"]:
    """Maps images [batch, height, width, channels] to logits [batch, num_classes]."""
    # The name counts the paper's three dense layers.
    check_images(f"vgg{sum(self.convs) + 3}", inputs, least=2 ** (len(CHANNELS) - 1))
    x, i = inputs, 0
    for stage, (count, channels) in enumerate(zip(self.convs, CHANNELS, strict=True)):
      for _ in range(count):
        x = nn.relu(conv_norm(x, scaled(channels, self.width), i, norm=self.norm, train=train))
        i += 1
      if stage < len(CHANNELS) - 1:  # of CIFAR's last 2 x 2 pixels the mean is taken
        x = halved(x)
    return nn.Dense(self.num_classes, name="output")(x.mean((1, 2)))


def vgg11(num_classes: int = 10, *, width: float = 1.0, norm: str = "batch") -> VGG:
  """VGG-11 (Simonyan & Zisserman, 2015, configuration A) for CIFAR: 9.2 M parameters."""
  return VGG(num_classes, (1, 1, 2, 2, 2), width, norm)


def vgg16(num_classes: int = 10, *, width: float = 1.0, norm: str = "batch") -> VGG:
  """VGG-16 (Simonyan & Zisserman, 2015, configuration D) for CIFAR: 14.7 M parameters."""
  return VGG(num_classes, (2, 2, 3, 3, 3), width, norm)


def vgg19(num_classes: int = 10, *, width: float = 1.0, norm: str = "batch") -> VGG:
  """VGG-19 (Simonyan & Zisserman, 2015, configuration E) for CIFAR: 20.0 M parameters."""
  return VGG(num_classes, (2, 2, 4, 4, 4), width, norm)
