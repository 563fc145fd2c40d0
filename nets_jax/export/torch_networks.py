"""The ready-made networks as modules of PyTorch: `nets_jax.networks.zoo`, with the same names of layers.

They take what torch is used to, images [batch, channels, height, width], and give the same outputs. Before a
dense layer the channels go last, as here, so that its weights need no other order.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from nets_jax.errors import UsageError
from nets_jax.networks.adapter import Network, name_of, with_tuples
from nets_jax.networks.architectures.conv_nets import HIDDEN, ConvNet
from nets_jax.networks.architectures.lenet5 import LeNet5
from nets_jax.networks.architectures.mlp import MLP
from nets_jax.networks.architectures.resnets import ResNet
from nets_jax.networks.architectures.transformers import CHANNELS as TOKEN_CHANNELS
from nets_jax.networks.architectures.transformers import MLP_RATIO, ViT
from nets_jax.networks.architectures.vgg import CHANNELS, VGG
from nets_jax.networks.images import MOMENTUM, group_size, scaled

EPSILON = 1e-6  # flax's, of group and layer normalisation
ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
  "relu": F.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh,
}  # fmt: skip


def channels_last(x: torch.Tensor) -> torch.Tensor:
  """Images [batch, channels, ...] as rows [batch, ... * channels], the order in which JAX flattens them."""
  return x.movedim(1, -1).flatten(1)


def normalisation(norm: str, channels: int) -> nn.Module:
  """Batch, group or no normalisation of images; see `networks.images.normalised`."""
  if norm == "batch":
    return nn.BatchNorm2d(channels, momentum=1 - MOMENTUM)
  if norm == "group":
    return nn.GroupNorm(channels // group_size(channels), channels, eps=EPSILON)
  return nn.Identity()


class TorchMLP(nn.Module):
  """`MLP`."""

  def __init__(self, network: MLP, input_shape: Sequence[int]):
    super().__init__()
    sizes = (math.prod(input_shape), *network.hidden_sizes, network.num_classes)
    self.hidden = [f"hidden_{i}" for i in range(len(network.hidden_sizes))]
    for name, inputs, units in zip((*self.hidden, "output"), sizes, sizes[1:], strict=False):
      self.add_module(name, nn.Linear(inputs, units, bias=network.use_bias))
    self.activation, self.dropout = ACTIVATIONS[network.activation], nn.Dropout(network.dropout_rate)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """Maps inputs [batch, ...], images with their channels first, to logits."""
    x = channels_last(x)
    for name in self.hidden:
      x = self.dropout(self.activation(self.get_submodule(name)(x)))
    return self.output(x)


class TorchLeNet5(nn.Module):
  """`LeNet5`."""

  def __init__(self, network: LeNet5, input_shape: Sequence[int]):
    super().__init__()
    height, width, channels = input_shape
    first, second, third, fourth = (scaled(count, network.width) for count in (6, 16, 120, 84))
    self.conv_0 = nn.Conv2d(channels, first, 5, padding=2)
    self.conv_1 = nn.Conv2d(first, second, 5)
    places = ((height // 2 - 4) // 2) * ((width // 2 - 4) // 2)
    self.dense_0 = nn.Linear(places * second, third)
    self.dense_1 = nn.Linear(third, fourth)
    self.output = nn.Linear(fourth, network.num_classes)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """Maps images [batch, channels, height, width] to logits."""
    x = F.max_pool2d(F.relu(self.conv_0(x)), 2)
    x = F.max_pool2d(F.relu(self.conv_1(x)), 2)
    x = F.relu(self.dense_0(channels_last(x)))
    return self.output(F.relu(self.dense_1(x)))


class TorchConvNet(nn.Module):
  """`ConvNet`: Conv-2, Conv-4 and Conv-6."""

  def __init__(self, network: ConvNet, input_shape: Sequence[int]):
    super().__init__()
    height, width, before = input_shape
    self.convs, self.dense = [], [f"dense_{i}" for i in range(len(HIDDEN))]
    for channels in (scaled(own, network.width) for own in network.channels for _ in range(2)):
      self.convs.append(f"conv_{len(self.convs)}")
      self.add_module(self.convs[-1], nn.Conv2d(before, channels, 3, padding=1))
      before = channels
    stages = len(network.channels)
    before *= (height >> stages) * (width >> stages)
    for name, units in zip(self.dense, HIDDEN, strict=True):
      self.add_module(name, nn.Linear(before, scaled(units, network.width)))
      before = scaled(units, network.width)
    self.output = nn.Linear(before, network.num_classes)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """Maps images [batch, channels, height, width] to logits."""
    for i, name in enumerate(self.convs):
      x = F.relu(self.get_submodule(name)(x))
      x = F.max_pool2d(x, 2) if i % 2 else x
    x = channels_last(x)
    for name in self.dense:
      x = F.relu(self.get_submodule(name)(x))
    return self.output(x)


class TorchVGG(nn.Module):
  """`VGG`."""

  def __init__(self, network: VGG, input_shape: Sequence[int]):
    super().__init__()
    before = input_shape[-1]
    self.convs = network.convs
    stages = zip(CHANNELS, network.convs, strict=True)
    for i, channels in enumerate(channels for channels, count in stages for _ in range(count)):
      own = scaled(channels, network.width)
      self.add_module(f"conv_{i}", nn.Conv2d(before, own, 3, padding=1, bias=network.norm == "none"))
      self.add_module(f"norm_{i}", normalisation(network.norm, own))
      before = own
    self.output = nn.Linear(before, network.num_classes)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """Maps images [batch, channels, height, width] to logits."""
    i = 0
    for stage, count in enumerate(self.convs):
      for _ in range(count):
        x = F.relu(self.get_submodule(f"norm_{i}")(self.get_submodule(f"conv_{i}")(x)))
        i += 1
      x = F.max_pool2d(x, 2) if stage < len(self.convs) - 1 else x
    return self.output(x.mean((2, 3)))


class TorchResidualBlock(nn.Module):
  """`ResidualBlock`."""

  def __init__(self, before: int, channels: int, stride: int, shortcut: str, norm: str):
    super().__init__()
    bias = norm == "none"
    self.conv_0 = nn.Conv2d(before, channels, 3, stride, 1, bias=bias)
    self.norm_0 = normalisation(norm, channels)
    self.conv_1 = nn.Conv2d(channels, channels, 3, 1, 1, bias=bias)
    self.norm_1 = normalisation(norm, channels)
    self.stride, self.more, self.projects = stride, channels - before, False
    if shortcut == "projection" and (stride > 1 or self.more):
      self.projects = True
      self.shortcut = nn.Conv2d(before, channels, 1, stride, bias=bias)
      self.shortcut_norm = normalisation(norm, channels)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """Maps [batch, channels, height, width] to [batch, own channels, height / stride, width / stride]."""
    y = self.norm_1(self.conv_1(F.relu(self.norm_0(self.conv_0(x)))))
    if self.projects:
      return F.relu(y + self.shortcut_norm(self.shortcut(x)))
    x = x[:, :, :: self.stride, :: self.stride]
    return F.relu(y + F.pad(x, (0, 0, 0, 0, 0, self.more)))


class TorchResNet(nn.Module):
  """`ResNet`."""

  def __init__(self, network: ResNet, input_shape: Sequence[int]):
    super().__init__()
    channels = [scaled(own, network.width) for own in network.channels]
    self.conv_0 = nn.Conv2d(input_shape[-1], channels[0], 3, 1, 1, bias=network.norm == "none")
    self.norm_0 = normalisation(network.norm, channels[0])
    self.blocks, before = [], channels[0]
    for stage, (count, own) in enumerate(zip(network.blocks, channels, strict=True), 1):
      for i in range(count):
        stride = 2 if stage > 1 and i == 0 else 1
        self.blocks.append(f"block_{stage}_{i}")
        block = TorchResidualBlock(before, own, stride, network.shortcut, network.norm)
        self.add_module(self.blocks[-1], block)
        before = own
    self.output = nn.Linear(before, network.num_classes)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """Maps images [batch, channels, height, width] to logits."""
    x = F.relu(self.norm_0(self.conv_0(x)))
    for name in self.blocks:
      x = self.get_submodule(name)(x)
    return self.output(x.mean((2, 3)))


class TorchAttention(nn.Module):
  """flax's `MultiHeadDotProductAttention` of a sequence with itself."""

  def __init__(self, channels: int, heads: int):
    super().__init__()
    self.heads = heads
    for name in ("query", "key", "value", "out"):
      self.add_module(name, nn.Linear(channels, channels))

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """Maps tokens [batch, tokens, channels] to as many."""
    apart = (
      own(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for own in (self.query, self.key, self.value)
    )
    return self.out(F.scaled_dot_product_attention(*apart).transpose(1, 2).flatten(2))


class TorchEncoderBlock(nn.Module):
  """`EncoderBlock`."""

  def __init__(self, channels: int, heads: int):
    super().__init__()
    self.norm_0 = nn.LayerNorm(channels, eps=EPSILON)
    self.attention = TorchAttention(channels, heads)
    self.norm_1 = nn.LayerNorm(channels, eps=EPSILON)
    self.dense_0 = nn.Linear(channels, MLP_RATIO * channels)
    self.dense_1 = nn.Linear(MLP_RATIO * channels, channels)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """Maps tokens [batch, tokens, channels] to as many."""
    x = x + self.attention(self.norm_0(x))
    return x + self.dense_1(F.gelu(self.dense_0(self.norm_1(x)), approximate="tanh"))


class TorchViT(nn.Module):
  """`ViT`."""

  def __init__(self, network: ViT, input_shape: Sequence[int]):
    super().__init__()
    height, width, before = input_shape
    channels = network.heads * max(1, round(scaled(TOKEN_CHANNELS, network.width) / network.heads))
    tokens = (height // network.patch) * (width // network.patch)
    self.has_token = network.pool == "token"
    self.patches = nn.Conv2d(before, channels, network.patch, network.patch)
    if self.has_token:
      self.class_token = nn.Parameter(torch.zeros(1, 1, channels))
    self.positions = nn.Parameter(torch.zeros(1, tokens + self.has_token, channels))
    self.blocks = [f"block_{i}" for i in range(network.depth)]
    for name in self.blocks:
      self.add_module(name, TorchEncoderBlock(channels, network.heads))
    self.norm = nn.LayerNorm(channels, eps=EPSILON)
    self.output = nn.Linear(channels, network.num_classes)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """Maps images [batch, channels, height, width] to logits."""
    x = self.patches(x).flatten(2).transpose(1, 2)
    if self.has_token:
      x = torch.cat([self.class_token.expand(len(x), -1, -1), x], 1)
    x = x + self.positions
    for name in self.blocks:
      x = self.get_submodule(name)(x)
    x = self.norm(x)
    return self.output(x[:, 0] if self.has_token else x.mean(1))


MODULES: dict[type, Callable[..., nn.Module]] = {
  MLP: TorchMLP,
  LeNet5: TorchLeNet5,
  ConvNet: TorchConvNet,
  VGG: TorchVGG,
  ResNet: TorchResNet,
  ViT: TorchViT,
}


def ready_made(network: Network, input_shape: Sequence[int]) -> nn.Module:
  """The module of PyTorch of a ready-made network, for inputs of a shape [height, width, channels].

  Raises:
    UsageError: it is not one of these.
  """
  if type(network) not in MODULES:
    raise UsageError(
      f"{name_of(network)} has no ready module of PyTorch; give yours, of the same layers, as module=..."
    )
  return MODULES[type(network)](with_tuples(network), tuple(input_shape))
