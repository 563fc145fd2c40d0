"""Fully connected networks."""

import functools
from collections.abc import Sequence

import flax.linen as nn
import numpy as np
from jaxtyping import Array, Float, Shaped

from nets_jax.networks.precision import matrix_product

ACTIVATIONS = {"relu": nn.relu, "sigmoid": nn.sigmoid, "tanh": nn.tanh}


class MLP(nn.Module):
  """A fully connected network: f = f_{n+1} o ... o f_1 with f_i(x) = a(W_i x + b_i) (paper, 2.1).

  Attributes:
    hidden_sizes: units of each hidden layer.
    num_classes: units of the output layer, whose activation is the identity (logits).
    use_bias: whether layers have bias vectors.
    activation: a name in `ACTIVATIONS`.
    dropout_rate: probability with which a hidden unit is silenced in training.
    precision: of the matrix products in training, a name in `PRECISIONS`; evaluation is always float32.
  """

  hidden_sizes: Sequence[int]
  num_classes: int
  use_bias: bool = True
  activation: str = "relu"
  dropout_rate: float = 0.0
  precision: str = "float32"

  @nn.compact
  def __call__(
    self, inputs: Shaped[Array | np.ndarray, "batch ..."], *, train: bool = False
  ) -> Float[Array, "batch classes"]:
    """Maps inputs [batch, ...] to logits [batch, num_classes]."""
    dense = functools.partial(
      nn.Dense, use_bias=self.use_bias, dot_general=matrix_product(self.precision if train else "float32")
    )
    x = inputs.reshape((inputs.shape[0], -1))
    for i, size in enumerate(self.hidden_sizes):
      x = dense(size, name=f"hidden_{i}")(x)
      x = ACTIVATIONS[self.activation](x)
      x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
    return dense(self.num_classes, name="output")(x)


def mlp(
  num_classes: int,
  hidden_sizes: Sequence[int],
  *,
  use_bias: bool = True,
  activation: str = "relu",
  dropout_rate: float = 0.0,
  precision: str = "float32",
) -> MLP:
  """An `MLP`."""
  return MLP(hidden_sizes, num_classes, use_bias, activation, dropout_rate, precision)


def lenet_300_100(
  num_classes: int = 10,
  *,
  use_bias: bool = True,
  activation: str = "relu",
  dropout_rate: float = 0.0,
  precision: str = "float32",
) -> MLP:
  """LeNet-300-100 (LeCun et al., 1998): 266,200 maskable weights on 28 x 28 inputs."""
  return MLP((300, 100), num_classes, use_bias, activation, dropout_rate, precision)
