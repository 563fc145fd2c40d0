"""A small vision transformer (Dosovitskiy et al., 2021)."""

from collections.abc import Callable
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from nets_jax.kinds import at_least, check_value, one_of
from nets_jax.networks.images import check_images, scaled

CHANNELS = 96  # of a token at width 1: half of DeiT-Ti's, for images as small as CIFAR's
MLP_RATIO = 4  # hidden units of a block's dense layers to channels, as in the paper
POOLS = ("token", "mean")


class EncoderBlock(nn.Module):
  """x + attention(norm(x)), then x + dense(gelu(dense(norm(x)))) (Dosovitskiy et al., 2021, eq. 2 and 3).

  Attributes:
    heads: of the attention.
  """

  heads: int

  @nn.compact
  def __call__(self, x: Float[Array, "batch tokens channels"]) -> Float[Array, "batch tokens channels"]:
    """Maps tokens [batch, tokens, channels] to as many."""
    channels = x.shape[-1]
    y = nn.LayerNorm(name="norm_0")(x)
    attention = nn.MultiHeadDotProductAttention(self.heads, name="attention")
    x = x + cast(Callable[..., jax.Array], attention)(y, y)  # flax's overloads name no result
    y = nn.LayerNorm(name="norm_1")(x)
    y = nn.gelu(nn.Dense(MLP_RATIO * channels, name="dense_0")(y))
    return x + nn.Dense(channels, name="dense_1")(y)


class ViT(nn.Module):
  """A vision transformer (Dosovitskiy et al., 2021): patches, learned positions, blocks that normalise first.

  Attributes:
    num_classes: units of the output layer.
    patch: side of a patch, of which the image's sides must be multiples.
    depth: blocks.
    width: multiplies the channels of a token, 96 at 1, rounded to a multiple of the heads.
    heads: of each attention.
    pool: what the output is of: a class `token`, as in the paper, or the `mean` of all patches.
  """

  num_classes: int = 10
  patch: int = 4
  depth: int = 6
  width: float = 1.0
  heads: int = 3
  pool: str = "token"

  @nn.compact
  def __call__(
    self, inputs: Shaped[Array | np.ndarray, "batch ..."], *, train: bool = False
  ) -> Float[Array, "batch classes"]:
    """Maps images [batch, height, width, channels] to logits [batch, num_classes]."""
    self._check(inputs)
    channels = self.heads * max(1, round(scaled(CHANNELS, self.width) / self.heads))
    sides = (self.patch, self.patch)
    x = nn.Conv(channels, sides, strides=sides, padding="VALID", name="patches")(inputs)
    x = x.reshape((x.shape[0], -1, channels))
    if self.pool == "token":
      token = self.param("class_token", nn.initializers.zeros, (1, 1, channels))
      x = jnp.concatenate([jnp.broadcast_to(token, (x.shape[0], 1, channels)), x], axis=1)
    # Deviation 0.02 as in the paper's own code.
    x = x + self.param("positions", nn.initializers.normal(0.02), (1, *x.shape[1:]))
    for i in range(self.depth):
      x = EncoderBlock(self.heads, name=f"block_{i}")(x)
    x = nn.LayerNorm(name="norm")(x)
    x = x[:, 0] if self.pool == "token" else x.mean(axis=1)
    return nn.Dense(self.num_classes, name="output")(x)

  def _check(self, inputs: Array | np.ndarray) -> None:
    for name in ("patch", "depth", "heads"):
      check_value(name, at_least(1), getattr(self, name))
    check_value("pool", one_of(POOLS), self.pool)
    check_images("vit", inputs, least=self.patch, multiple=self.patch)


def vit(
  num_classes: int = 10,
  *,
  patch: int = 4,
  depth: int = 6,
  width: float = 1.0,
  heads: int = 3,
  pool: str = "token",
) -> ViT:
  """A small vision transformer (Dosovitskiy et al., 2021): 0.7 M parameters on CIFAR-10."""
  return ViT(num_classes, patch, depth, width, heads, pool)
