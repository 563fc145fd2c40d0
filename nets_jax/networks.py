"""The networks that tickets are searched in, and which of their leaves a mask covers.

Any `flax.linen` module serves: its parameters named `kernel` are maskable, all others (biases, say)
are trained but never masked or evolved. A module that behaves differently in training, for dropout,
takes a keyword argument `train`.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from nets_jax import settings
from nets_jax.errors import UsageError
from nets_jax.settings import NUMBER, SWITCH, WHOLES, Rule, choice, one_of, setting

Params = Any  # nested dict of arrays, as `flax` lays out a module's parameters
Scale = float | jax.Array | tuple[float, ...]  # a standard deviation, for all kernels or for each


class Precision(NamedTuple):
  """How to multiply: what to ask an accelerator for, and the mantissa bits that operands have."""

  accelerator: jax.lax.Precision | jax.lax.DotAlgorithmPreset
  mantissa_bits: int


PRECISIONS = {
  "float32": Precision(jax.lax.Precision.HIGHEST, 23),
  "tensorfloat32": Precision(jax.lax.DotAlgorithmPreset.TF32_TF32_F32, 10),
  "bfloat16": Precision(jax.lax.DotAlgorithmPreset.BF16_BF16_F32, 7),
}
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
  def __call__(self, inputs: jax.Array, *, train: bool = False) -> jax.Array:
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


def matrix_product(precision: str) -> Callable[..., jax.Array]:
  """A `jax.lax.dot_general` for `flax.linen.Dense` whose operands have a precision, gradients included.

  Weights, results and sums are float32 in all of them. An accelerator multiplies in the format itself; a
  CPU, which knows float32 alone, rounds the operands to it first: the same numbers up to the order of
  sums, and no faster.

  Args:
    precision: a name in `PRECISIONS`.
  """
  if precision == "float32" or jax.default_backend() != "cpu":
    return functools.partial(_product, PRECISIONS[precision].accelerator)
  return functools.partial(_rounded_product, PRECISIONS[precision].mantissa_bits)


def _product(setting, lhs, rhs, dimension_numbers, precision=None, preferred_element_type=None):
  del precision
  return jax.lax.dot_general(
    lhs, rhs, dimension_numbers, precision=setting, preferred_element_type=preferred_element_type
  )


def _rounded_product(mantissa_bits, lhs, rhs, dimension_numbers, precision=None, preferred_element_type=None):
  """A float32 product of rounded operands, whose gradients are such products too."""
  del precision, preferred_element_type
  rounded = lambda x: jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=mantissa_bits)  # noqa: E731
  product = lambda a, b: jax.lax.dot_general(a, b, dimension_numbers)  # noqa: E731

  def forwards(a, b):
    a, b = rounded(a), rounded(b)
    return product(a, b), (a, b)

  differentiable = jax.custom_vjp(lambda a, b: forwards(a, b)[0])
  differentiable.defvjp(forwards, lambda operands, g: jax.vjp(product, *operands)[1](rounded(g)))
  return differentiable(lhs, rhs)


def lenet_300_100(num_classes: int = 10, **kwargs) -> MLP:
  """LeNet-300-100 (LeCun et al., 1998): 266,200 maskable weights on 28 x 28 inputs."""
  return MLP(hidden_sizes=(300, 100), num_classes=num_classes, **kwargs)


# Ready-made networks by name: each takes the number of classes, `hidden_sizes` and `MLP`'s other fields.
NETWORKS: dict[str, Callable[..., MLP]] = {
  "mlp": lambda num_classes, hidden_sizes, **kwargs: MLP(hidden_sizes, num_classes, **kwargs),
  "lenet_300_100": lambda num_classes, hidden_sizes, **kwargs: lenet_300_100(num_classes, **kwargs),
}


@struct.dataclass
class NetworkSettings:
  """A ready-made network by name, and what it is made with.

  Attributes:
    network: a name in `NETWORKS`.
    hidden_sizes: units of each hidden layer of an `mlp`; `lenet_300_100` has its own.
    activation, use_bias, dropout_rate: see `MLP`.
  """

  network: str = setting(
    "mlp", "The network.", group="network", kind=choice(tuple(NETWORKS)), rule=one_of(tuple(NETWORKS)),
    static=True,
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

  def make(self, num_classes: int) -> MLP:
    """The network.

    Raises:
      UsageError: an unknown name or activation, or an impossible size or rate.
    """
    settings.check(self.replace(hidden_sizes=tuple(self.hidden_sizes) or (1,)))
    own = {name: getattr(self, name) for name in ("activation", "use_bias", "dropout_rate")}
    return NETWORKS[self.network](num_classes, tuple(self.hidden_sizes), **own)


def make_network(name: str, num_classes: int, hidden_sizes: Sequence[int] = (), **kwargs) -> MLP:
  """A ready-made network by name.

  Args:
    name: in `NETWORKS`.
    num_classes: number of classes.
    hidden_sizes: units of each hidden layer of an `mlp`.
    **kwargs: `use_bias`, `activation`, `dropout_rate`, `precision` of `MLP`.

  Raises:
    UsageError: an unknown name, activation or precision, or an impossible size or rate.
  """
  precision = kwargs.pop("precision", "float32")
  settings.check_value("precision", one_of(tuple(PRECISIONS)), precision)
  made = NetworkSettings(name, tuple(hidden_sizes), **kwargs).make(num_classes)
  return made.clone(precision=precision)


def check_module(network: Any) -> None:
  """Raises UsageError unless this is a flax.linen module, made."""
  if isinstance(network, nn.Module):
    return
  kind = network if isinstance(network, type) else type(network)
  home = next((base.__module__ for base in kind.__mro__ if "Module" in base.__name__), kind.__module__)
  if isinstance(network, type) and issubclass(network, nn.Module):
    raise UsageError(f"network must be a module, not its class; give {network.__name__}(...)")
  raise UsageError(
    f"network must be a flax.linen module, not {kind.__name__} of {home}; write it as a "
    f"flax.linen.Module whose "
    "weights are parameters named kernel"
  )


def with_tuples(network: nn.Module) -> nn.Module:
  """The module with tuples for the lists among its fields, so that it can be compared and remembered."""

  def as_tuples(value):
    return tuple(as_tuples(own) for own in value) if isinstance(value, list | tuple) else value

  fields = {
    name: getattr(network, name) for name in network.__dataclass_fields__ if name not in ("parent", "name")
  }
  lists = {name: as_tuples(value) for name, value in fields.items() if isinstance(value, list | tuple)}
  changed = {name: value for name, value in lists.items() if value != fields[name]}
  return network.clone(**changed) if changed else network


def forward(
  network: nn.Module, weights: Params, inputs: jax.Array, dropout_key: jax.Array | None = None
) -> jax.Array:
  """The network's logits [batch, classes] for inputs [batch, ...].

  Args:
    network: the module.
    weights: its parameters.
    inputs: a batch of inputs.
    dropout_key: given in training only; a module without a `train` argument ignores it.
  """
  variables = {"params": weights}
  if dropout_key is None or "train" not in inspect.signature(network.__call__).parameters:
    return network.apply(variables, inputs)
  return network.apply(variables, inputs, train=True, rngs={"dropout": dropout_key})


def fresh_parameters(key: jax.Array, network: nn.Module, input_shape: Sequence[int]) -> Params:
  """The parameters by the module's own initialisers.

  Args:
    key: consumed.
    network: the module.
    input_shape: shape of one input, without the batch axis.

  Raises:
    UsageError: the module keeps state besides its parameters (batch statistics, say), or has no kernel.
  """
  variables = network.init(key, jnp.zeros((1, *input_shape)))
  if set(variables) != {"params"}:
    extra = ", ".join(sorted(set(variables) - {"params"})) or "no parameters"
    raise UsageError(f"a network must keep its parameters alone, but {type(network).__name__} has {extra}")
  paths, _ = jax.tree_util.tree_flatten_with_path(variables["params"])
  if not any(is_maskable(path) for path, _ in paths):
    raise UsageError(f"{type(network).__name__} has no parameter named 'kernel', so nothing can be masked")
  return variables["params"]


def abstract_parameters(network: nn.Module, input_shape: Sequence[int]) -> Params:
  """The shapes and types of a network's parameters; nothing is computed."""
  return jax.eval_shape(lambda key: fresh_parameters(key, network, input_shape), jax.random.key(0))


def check_outputs(network: nn.Module, input_shape: Sequence[int], num_classes: int) -> None:
  """Raises UsageError unless the network gives each input a row of logits, at least one for each class."""
  try:
    shape = _output_shape(network, tuple(input_shape))
  except TypeError:  # a module that cannot be remembered
    shape = _output_shape.__wrapped__(network, tuple(input_shape))
  if shape is None or len(shape) != 2 or shape[0] != 2:
    found = "something else than one array" if shape is None else f"an array of shape {shape}"
    raise UsageError(
      f"{type(network).__name__} must give logits [batch, classes], but for 2 inputs it gives {found}"
    )
  if shape[1] < num_classes:
    raise UsageError(
      f"{type(network).__name__} has {shape[1]} outputs, but the data have {num_classes} classes; give the "
      "network an output for each"
    )


@functools.lru_cache(maxsize=64)
def _output_shape(network: nn.Module, input_shape: tuple[int, ...]) -> tuple[int, ...] | None:
  """The shape of what a network gives for two inputs; None if that is no array."""
  parameters = abstract_parameters(network, input_shape)
  inputs = jax.ShapeDtypeStruct((2, *input_shape), jnp.float32)
  outputs = jax.eval_shape(functools.partial(forward, network), parameters, inputs)
  return getattr(outputs, "shape", None)


def is_maskable(path: tuple) -> bool:
  """Whether the leaf at this tree path is a connection weight, which a mask covers."""
  return getattr(path[-1], "key", None) == "kernel"
