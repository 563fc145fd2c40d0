"""LeNet-5 (LeCun et al., 1998), in the form that is usual today."""

import flax.linen as nn
import numpy as np
from jaxtyping import Array, Float, Shaped

from nets_jax.networks.images import check_images, halved, scaled


class LeNet5(nn.Module):
  """LeNet-5 (LeCun et al., 1998, section II.B) as it is usually built today.

  Two 5x5 convolutions of 6 and 16 channels, each with 2x2 max pooling, then dense layers of 120 and 84 units.
  The paper has averages with gains, a sparse table of connections, scaled tanh and radial outputs. Here there
  are maxima, all connections, ReLU and logits. The first convolution pads by 2, as the paper pads its digits.
  61,706 parameters on 28 x 28 x 1.

  Attributes:
    num_classes: units of the output layer.
    width: multiplies channels and hidden units; 1 is the paper's.
  """

  num_classes: int = 10
  width: float = 1.0

  @nn.compact
  def __call__(
    self, inputs: Shaped[Array | np.ndarray, "batch ..."], *, train: bool = False
  ) -> Float[Array, "batch classes"]:
    """Maps images [batch, height, width, channels] to logits [batch, num_classes]."""
    check_images("lenet5", inputs, least=12)
    x = nn.Conv(scaled(6, self.width), (5, 5), padding=2, name="conv_0")(inputs)
    x = halved(nn.relu(x))
    x = nn.Conv(scaled(16, self.width), (5, 5), padding="VALID", name="conv_1")(x)
    x = halved(nn.relu(x))
    x = x.reshape((x.shape[0], -1))
    for i, units in enumerate((120, 84)):
      x = nn.relu(nn.Dense(scaled(units, self.width), name=f"dense_{i}")(x))
    return nn.Dense(self.num_classes, name="output")(x)


def lenet5(num_classes: int = 10, *, width: float = 1.0) -> LeNet5:
  """LeNet-5 (LeCun et al., 1998): 61,706 parameters on 28 x 28 x 1."""
  return LeNet5(num_classes, width)
