"""Ready-made networks by name."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import TypedDict, Unpack

import flax.linen as nn
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Shaped

from nets_jax import plugins
from nets_jax.errors import UsageError
from nets_jax.kinds import NUMBER, SWITCH, WHOLES, Rule, choice, one_of
from nets_jax.networks.own import own_network
from nets_jax.networks.precision import PRECISIONS, matrix_product
from nets_jax.settings import check, check_value, setting
from nets_jax.structs import Struct

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


class MLPOptions(TypedDict, total=False):
  """What a ready-made network may have otherwise; see `MLP`."""

  use_bias: bool
  activation: str
  dropout_rate: float


def lenet_300_100(num_classes: int = 10, *, precision: str = "float32", **kwargs: Unpack[MLPOptions]) -> MLP:
  """LeNet-300-100 (LeCun et al., 1998): 266,200 maskable weights on 28 x 28 inputs."""
  return MLP(hidden_sizes=(300, 100), num_classes=num_classes, precision=precision, **kwargs)


# Ready-made networks by name: each takes the number of classes, `hidden_sizes` and `MLP`'s other fields.
NETWORKS: dict[str, Callable[..., MLP]] = {
  "mlp": lambda num_classes, hidden_sizes, **kwargs: MLP(hidden_sizes, num_classes, **kwargs),
  "lenet_300_100": lambda num_classes, hidden_sizes, **kwargs: lenet_300_100(num_classes, **kwargs),
}


@struct.dataclass
class NetworkSettings(Struct):
  """A network by name, and what a ready-made one is made with.

  Attributes:
    network: a name in `NETWORKS`, or `package.module:Class(width=32)` of one's own; see `own_network`.
    hidden_sizes: units of each hidden layer of an `mlp`; `lenet_300_100` has its own.
    activation, use_bias, dropout_rate: see `MLP`.
  """

  network: str = setting(
    "mlp", "The network: one of these, or package.module:Class(width=32) of your own.", group="network",
    kind=plugins.choice(tuple(NETWORKS)), rule=plugins.one_of(tuple(NETWORKS)), static=True,
  )  # fmt: skip
  hidden_sizes: tuple[int, ...] = setting(
    (100, 50), "Units of each hidden layer of an mlp.", group="network", kind=WHOLES,
    rule=Rule("positive whole numbers", lambda size: size >= 1), static=True,
  )  # fmt: skip
  activation: str = setting(
    "relu", "Activation of the hidden layers.", group="network", kind=choice(tuple(ACTIVATIONS)),
    rule=one_of(tuple(ACTIVATIONS)), static=True,
  )  # fmt: skip
  use_bias: bool = setting(
    True,
    "Whether layers have bias vectors (trained, never masked).",
    group="network",
    kind=SWITCH,
    static=True,
  )
  dropout_rate: float = setting(
    0.0, "Probability that training silences a hidden unit.", group="network", kind=NUMBER,
    rule=Rule("in [0, 1)", lambda rate: 0 <= rate < 1), static=True,
  )  # fmt: skip

  def make(self, num_classes: int) -> nn.Module:
    """The network.

    Raises:
      UsageError: an unknown name or activation, or an impossible size or rate; or a setting of ready-made
        networks for one of one's own.
    """
    if plugins.is_reference(self.network):
      network = own_network(self.network, num_classes)
      for field in dataclasses.fields(self):
        if field.name != "network" and getattr(self, field.name) != field.default:
          name = plugins.parse(self.network).name
          raise UsageError(
            f"{field.name} is for the ready-made networks; write {name}(...) with the arguments it takes"
          )
      return network
    check(self.replace(hidden_sizes=tuple(self.hidden_sizes) or (1,)))
    fields = {name: getattr(self, name) for name in ("activation", "use_bias", "dropout_rate")}
    return NETWORKS[self.network](num_classes, tuple(self.hidden_sizes), **fields)


def make_network(
  name: str,
  num_classes: int,
  hidden_sizes: Sequence[int] = (),
  *,
  precision: str = "float32",
  **kwargs: Unpack[MLPOptions],
) -> nn.Module:
  """A network by name.

  Args:
    name: in `NETWORKS`; or `package.module:Class(width=32)` of one's own, which takes all else there.
    num_classes: number of classes.
    hidden_sizes: units of each hidden layer of an `mlp`.
    precision, **kwargs: `use_bias`, `activation`, `dropout_rate` of `MLP`, and its `precision`.

  Raises:
    UsageError: an unknown name, activation or precision, or an impossible size or rate.
  """
  if plugins.is_reference(name):
    given = {"hidden_sizes": hidden_sizes, **kwargs} if hidden_sizes else kwargs
    if given:
      raise UsageError(f"write {', '.join(given)} in the parentheses of {plugins.parse(name).name}(...)")
    return own_network(name, num_classes)
  check_value("precision", one_of(tuple(PRECISIONS)), precision)
  network = NetworkSettings(name, tuple(hidden_sizes), **kwargs).make(num_classes)
  return network.clone(precision=precision)
