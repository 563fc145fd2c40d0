"""Residual networks for CIFAR (He et al., 2016)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from nets_jax.errors import UsageError
from nets_jax.networks.images import check_images, conv_norm, normalised, scaled


class ResidualBlock(nn.Module):
  """relu(x + f(x)), where f is two 3x3 convolutions (He et al., 2016, Figure 2).

  Attributes:
    channels: of the result.
    stride: of the first convolution.
    shortcut: how x comes to the result's shape, where that is another. `identity` keeps every second pixel
      and adds channels of zeros (option A); `projection` is a 1x1 convolution (option B).
    norm: a name in `NORMS`.
  """

  channels: int
  stride: int
  shortcut: str
  norm: str

  @nn.compact
  def __call__(
    self, x: Float[Array, "batch height width channels"], *, train: bool = False
  ) -> Float[Array, "batch ..."]:
    """Maps [batch, height, width, channels] to [batch, height / stride, width / stride, own channels]."""
    y = conv_norm(x, self.channels, 0, norm=self.norm, train=train, stride=self.stride)
    y = conv_norm(nn.relu(y), self.channels, 1, norm=self.norm, train=train)
    return nn.relu(y + self._shortcut(x, train))

  def _shortcut(self, x: jax.Array, train: bool) -> jax.Array:
    if self.stride == 1 and x.shape[-1] == self.channels:
      return x
    if self.shortcut == "identity":
      more = self.channels - x.shape[-1]
      return jnp.pad(x[:, :: self.stride, :: self.stride], ((0, 0), (0, 0), (0, 0), (0, more)))
    conv = nn.Conv(self.channels, (1, 1), strides=self.stride, use_bias=self.norm == "none", name="shortcut")
    return normalised(conv(x), self.norm, train, "shortcut_norm")


class ResNet(nn.Module):
  """A residual network with a 3x3 stem (He et al., 2016, section 4.2), for images as small as CIFAR's.

  Attributes:
    num_classes: units of the output layer.
    blocks: in each stage; every stage but the first halves the image.
    channels: of each stage, not fewer than of the one before.
    shortcut: `identity` (option A, as in section 4.2) or `projection` (option B); see `ResidualBlock`.
    width: multiplies the channels; 1 is the paper's.
    norm: `batch` as in the paper, `group`, or `none`.
  """

  num_classes: int = 10
  blocks: tuple[int, ...] = (3, 3, 3)
  channels: tuple[int, ...] = (16, 32, 64)
  shortcut: str = "identity"
  width: float = 1.0
  norm: str = "batch"

  @nn.compact
  def __call__(
    self, inputs: Shaped[Array | np.ndarray, "batch ..."], *, train: bool = False
  ) -> Float[Array, "batch classes"]:
    """Maps images [batch, height, width, channels] to logits [batch, num_classes]."""
    check_images(f"resnet{2 * sum(self.blocks) + 2}", inputs, least=2 ** (len(self.blocks) - 1))
    if self.shortcut not in ("identity", "projection"):
      raise UsageError(f"shortcut must be identity or projection, not {self.shortcut!r}")
    channels = [scaled(own, self.width) for own in self.channels]
    x = nn.relu(conv_norm(inputs, channels[0], 0, norm=self.norm, train=train))
    for stage, (count, own) in enumerate(zip(self.blocks, channels, strict=True), 1):
      for i in range(count):
        stride = 2 if stage > 1 and i == 0 else 1
        block = ResidualBlock(own, stride, self.shortcut, self.norm, name=f"block_{stage}_{i}")
        x = block(x, train=train)
    return nn.Dense(self.num_classes, name="output")(x.mean((1, 2)))


def resnet8(num_classes: int = 10, *, width: float = 1.0, norm: str = "batch") -> ResNet:
  """He et al.'s (2016) CIFAR network of 6n + 2 layers with n = 1, smaller than any of theirs."""
  return ResNet(num_classes, (1, 1, 1), width=width, norm=norm)


def resnet20(num_classes: int = 10, *, width: float = 1.0, norm: str = "batch") -> ResNet:
  """ResNet-20 (He et al., 2016, section 4.2): 269,722 parameters on CIFAR-10, 0.27 M in the paper."""
  return ResNet(num_classes, (3, 3, 3), width=width, norm=norm)


def resnet32(num_classes: int = 10, *, width: float = 1.0, norm: str = "batch") -> ResNet:
  """ResNet-32 (He et al., 2016, section 4.2): 464,154 parameters on CIFAR-10, 0.46 M in the paper."""
  return ResNet(num_classes, (5, 5, 5), width=width, norm=norm)


def resnet56(num_classes: int = 10, *, width: float = 1.0, norm: str = "batch") -> ResNet:
  """ResNet-56 (He et al., 2016, section 4.2): 853,018 parameters on CIFAR-10, 0.85 M in the paper."""
  return ResNet(num_classes, (9, 9, 9), width=width, norm=norm)


def resnet18(num_classes: int = 10, *, width: float = 1.0, norm: str = "batch") -> ResNet:
  """ImageNet's ResNet-18 (He et al., 2016, Table 1) for CIFAR: a 3x3 stem and no max pooling, 11.17 M."""
  return ResNet(num_classes, (2, 2, 2, 2), (64, 128, 256, 512), "projection", width, norm)
