"""Conv-2, Conv-4 and Conv-6 of the lottery ticket hypothesis (Frankle & Carbin, 2019)."""

import flax.linen as nn
import numpy as np
from jaxtyping import Array, Float, Shaped

from nets_jax.networks.images import check_images, halved, scaled

HIDDEN = (256, 256)  # units of the dense layers before the output


class ConvNet(nn.Module):
  """Pairs of 3x3 convolutions with 2x2 max pooling, then dense layers of 256, 256 and the classes.

  From Frankle & Carbin (2019, Figure 2), who scale VGG down for CIFAR-10. Without normalisation, as there.

  Attributes:
    num_classes: units of the output layer.
    channels: of each pair of convolutions.
    width: multiplies channels and hidden units; 1 is the paper's.
  """

  num_classes: int = 10
  channels: tuple[int, ...] = (64,)
  width: float = 1.0

  @nn.compact
  def __call__(
    self, inputs: Shaped[Array | np.ndarray, "batch ..."], *, train: bool = False
  ) -> Float[Array, "batch classes"]:
    """Maps images [batch, height, width, channels] to logits [batch, num_classes]."""
    check_images(f"conv{2 * len(self.channels)}", inputs, least=2 ** len(self.channels))
    x = inputs
    for stage, channels in enumerate(self.channels):
      for i in (2 * stage, 2 * stage + 1):
        x = nn.relu(nn.Conv(scaled(channels, self.width), (3, 3), name=f"conv_{i}")(x))
      x = halved(x)
    x = x.reshape((x.shape[0], -1))
    for i, units in enumerate(HIDDEN):
      x = nn.relu(nn.Dense(scaled(units, self.width), name=f"dense_{i}")(x))
    return nn.Dense(self.num_classes, name="output")(x)


def conv2(num_classes: int = 10, *, width: float = 1.0) -> ConvNet:
  """Conv-2 (Frankle & Carbin, 2019): 4,300,992 weights on CIFAR-10, 4.3 M in the paper."""
  return ConvNet(num_classes, (64,), width)


def conv4(num_classes: int = 10, *, width: float = 1.0) -> ConvNet:
  """Conv-4 (Frankle & Carbin, 2019): 2,425,024 weights on CIFAR-10, 2.4 M in the paper."""
  return ConvNet(num_classes, (64, 128), width)


def conv6(num_classes: int = 10, *, width: float = 1.0) -> ConvNet:
  """Conv-6 (Frankle & Carbin, 2019): 2,261,184 weights on CIFAR-10.

  The paper says 1.7 M, which its own layers do not give. Their convolutions do have its 1.1 M. The rest is a
  first dense layer of 4 * 4 * 256 inputs and 256 units, and half of these inputs would make 1.7 M.
  """
  return ConvNet(num_classes, (64, 128, 256), width)
