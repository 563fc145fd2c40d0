"""What the library asks of a network, and which of its leaves a mask covers.

Any `flax.linen` module serves: its parameters named `kernel` are maskable, all others (biases, say)
are trained but never masked or evolved. A module that behaves differently in training, for dropout,
takes a keyword argument `train`.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree, Shaped

from nets_jax.errors import UsageError

# A nested dict of arrays (or of their shapes and types), as `flax` lays out a module's parameters.
Params = PyTree[jax.Array | np.ndarray | jax.ShapeDtypeStruct]
Scale = float | jax.Array | tuple[float | jax.Array, ...]  # a standard deviation, for all kernels or for each
Path = tuple[Any, ...]  # of a leaf in a tree: JAX's keys, which have no common class


def check_module(network: object) -> None:
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
    return tuple(as_tuples(item) for item in value) if isinstance(value, list | tuple) else value

  names = [field.name for field in dataclasses.fields(network) if field.name not in ("parent", "name")]
  fields = {name: getattr(network, name) for name in names}
  lists = {name: as_tuples(value) for name, value in fields.items() if isinstance(value, list | tuple)}
  changed: dict[str, Any] = {name: value for name, value in lists.items() if value != fields[name]}
  return network.clone(**changed) if changed else network


def forward(
  network: nn.Module,
  weights: Params,
  inputs: Shaped[Array | np.ndarray, "batch ..."],
  dropout_key: Key[Array, ""] | None = None,
) -> jax.Array:
  """The network's logits [batch, classes] for inputs [batch, ...].

  Args:
    network: the module.
    weights: its parameters.
    inputs: a batch of inputs.
    dropout_key: given in training only; a module without a `train` argument ignores it.
  """
  variables = {"params": weights}
  apply = cast(Callable[..., jax.Array], network.apply)  # flax gives a pair only where state is asked for
  if dropout_key is None or "train" not in inspect.signature(network.__call__).parameters:
    return apply(variables, inputs)
  return apply(variables, inputs, train=True, rngs={"dropout": dropout_key})


def fresh_parameters(key: Key[Array, ""], network: nn.Module, input_shape: Sequence[int]) -> Params:
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
    given = "something else than one array" if shape is None else f"an array of shape {shape}"
    raise UsageError(
      f"{type(network).__name__} must give logits [batch, classes], but for 2 inputs it gives {given}"
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


def is_maskable(path: Path) -> bool:
  """Whether the leaf at this tree path is a connection weight, which a mask covers."""
  return getattr(path[-1], "key", None) == "kernel"
