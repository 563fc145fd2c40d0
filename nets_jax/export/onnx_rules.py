"""How each operation of a traced network is written in ONNX."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, cast

import jax
import numpy as np
from jax.extend import core
from onnx import helper

from nets_jax.errors import UsageError

BATCH = 7919  # examples that a network is traced for: a prime, which no other axis has
INT = np.dtype(np.int64)


class Shaped(Protocol):
  """What has a shape and a type."""

  @property
  def shape(self) -> tuple[int, ...]:
    """Its axes."""
    ...

  @property
  def dtype(self) -> np.dtype:
    """Of its entries."""
    ...


class Wire(NamedTuple):
  """A value that the inputs have reached: its name in the graph, its shape as traced, its type."""

  name: str
  shape: tuple[int, ...]
  dtype: np.dtype


Value = Wire | np.ndarray  # an array is known before any input is
Attribute = int | list[int] | str


class Builder(Protocol):
  """The graph that operations are added to; see `onnx_graph.Graph`."""

  def node(self, kind: str, inputs: Sequence[Value], like: Shaped, **attributes: Attribute) -> Wire:
    """An operation of ONNX, whose result has a shape and a type."""
    ...

  def running_shape(self, shape: Sequence[int]) -> Value:
    """A shape as a tensor; where the batch is in it, as it is when the graph runs."""
    ...


Rule = Callable[[Builder, core.JaxprEqn, list[Value]], Value]


def of_batch(size: int) -> bool:
  """Whether an axis is as long as the batch, or a multiple."""
  return size > 0 and size % BATCH == 0


def shaped(shape: Sequence[int], dtype: np.dtype) -> Shaped:
  """A shape and a type."""
  return jax.ShapeDtypeStruct(tuple(shape), dtype)


def result(equation: core.JaxprEqn) -> Shaped:
  """The shape and type of what an operation gives."""
  return cast(Shaped, equation.outvars[0].aval)


def refused(what: str) -> UsageError:
  """The error of what no rule is for."""
  return UsageError(f"{what} cannot be written as ONNX here; the other forms can hold this network")


def _plain(kind: str) -> Rule:
  """Of an operation that ONNX has as it is."""
  return lambda graph, equation, operands: graph.node(kind, operands, result(equation))


def _reshape(graph: Builder, equation: core.JaxprEqn, operands: list[Value]) -> Value:
  to = result(equation)
  batch = [i for i, size in enumerate(to.shape) if of_batch(size)]
  if len(batch) == 1:
    shape = np.asarray([-1 if i == batch[0] else size for i, size in enumerate(to.shape)], INT)
  else:
    shape = graph.running_shape(to.shape)
  return graph.node("Reshape", [operands[0], shape], to)


def _broadcast(graph: Builder, equation: core.JaxprEqn, operands: list[Value]) -> Value:
  to, places = result(equation), equation.params["broadcast_dimensions"]
  operand = operands[0]
  from_shape = operand.shape
  between = [1] * len(to.shape)
  for place, size in zip(places, from_shape, strict=True):
    between[place] = size
  like = shaped(between, operand.dtype)
  if isinstance(operand, np.ndarray):
    operand = operand.reshape(between)
  elif tuple(between) != tuple(from_shape):
    batch = [-1 if of_batch(size) else size for size in between]
    operand = graph.node("Reshape", [operand, np.asarray(batch, INT)], like)
  if tuple(between) == tuple(to.shape):
    return operand
  return graph.node("Expand", [operand, graph.running_shape(to.shape)], to)


def _transpose(graph: Builder, equation: core.JaxprEqn, operands: list[Value]) -> Value:
  return graph.node("Transpose", operands, result(equation), perm=list(equation.params["permutation"]))


def _convert(graph: Builder, equation: core.JaxprEqn, operands: list[Value]) -> Value:
  to = result(equation)
  return graph.node("Cast", operands, to, to=helper.np_dtype_to_tensor_dtype(np.dtype(to.dtype)))


def _integer_pow(graph: Builder, equation: core.JaxprEqn, operands: list[Value]) -> Value:
  power = np.asarray(equation.params["y"], operands[0].dtype)
  return graph.node("Pow", [operands[0], power], result(equation))


def _square(graph: Builder, equation: core.JaxprEqn, operands: list[Value]) -> Value:
  return graph.node("Mul", [operands[0], operands[0]], result(equation))


def _expm1(graph: Builder, equation: core.JaxprEqn, operands: list[Value]) -> Value:
  to = result(equation)
  return graph.node("Sub", [graph.node("Exp", operands, to), np.ones((), to.dtype)], to)


def _rsqrt(graph: Builder, equation: core.JaxprEqn, operands: list[Value]) -> Value:
  to = result(equation)
  return graph.node("Reciprocal", [graph.node("Sqrt", operands, to)], to)


def _reduced(kind: str) -> Rule:
  def rule(graph, equation, operands):
    axes = np.asarray(equation.params["axes"], INT)
    return graph.node(kind, [operands[0], axes], result(equation), keepdims=0)

  return rule


def _dot(graph: Builder, equation: core.JaxprEqn, operands: list[Value]) -> Value:
  (left, right), (batch_left, batch_right) = equation.params["dimension_numbers"]
  a, b = (len(operand.shape) for operand in operands)
  letters = iter("abcdefghijklmnopqrstuvwxyz")
  first = [next(letters) for _ in range(a)]
  second = [next(letters) for _ in range(b)]
  for i, j in zip((*left, *batch_left), (*right, *batch_right), strict=True):
    second[j] = first[i]
  out = [first[i] for i in batch_left]
  out += [first[i] for i in range(a) if i not in (*left, *batch_left)]
  out += [second[j] for j in range(b) if j not in (*right, *batch_right)]
  to = result(equation)
  if (a, b, tuple(left), tuple(right)) == (2, 2, (1,), (0,)):
    return graph.node("MatMul", operands, to)
  return graph.node("Einsum", operands, to, equation=f"{''.join(first)},{''.join(second)}->{''.join(out)}")


def _convolution(graph: Builder, equation: core.JaxprEqn, operands: list[Value]) -> Value:
  p, to = equation.params, result(equation)
  numbers = p["dimension_numbers"]
  transposes = any(size != 1 for size in p["lhs_dilation"]) or p["batch_group_count"] != 1
  if transposes or min(map(min, p["padding"])) < 0:
    raise refused("a transposed convolution")
  images = _permuted(graph, operands[0], numbers.lhs_spec)
  kernel = _permuted(graph, operands[1], numbers.rhs_spec)
  like = shaped([to.shape[i] for i in numbers.out_spec], to.dtype)
  pads = [low for low, _ in p["padding"]] + [high for _, high in p["padding"]]
  found = graph.node(
    "Conv", [images, kernel], like, strides=list(p["window_strides"]), pads=pads,
    dilations=list(p["rhs_dilation"]), group=p["feature_group_count"],
  )  # fmt: skip
  return _permuted(graph, found, _inverse(numbers.out_spec))


def _inverse(order: Sequence[int]) -> list[int]:
  return [list(order).index(i) for i in range(len(order))]


def _permuted(graph: Builder, value: Value, order: Sequence[int]) -> Value:
  order = list(order)
  if isinstance(value, np.ndarray):
    return np.transpose(value, order)
  like = shaped([value.shape[i] for i in order], value.dtype)
  return value if order == sorted(order) else graph.node("Transpose", [value], like, perm=order)


def _pooled(graph: Builder, equation: core.JaxprEqn, operands: list[Value]) -> Value:
  p, to = equation.params, result(equation)
  window, strides, padding = p["window_dimensions"], p["window_strides"], p["padding"]
  rank = len(window)
  inner = [i for i in range(rank) if window[i] != 1 or strides[i] != 1]
  outer = [i for i in range(rank) if i not in inner]
  dilated = any(size != 1 for size in (*p["base_dilation"], *p["window_dilation"]))
  if dilated or len(outer) != 2 or any(padding[i] != (0, 0) for i in outer):
    raise refused("such a pooling")
  order = [*outer, *inner]
  images = _permuted(graph, operands[0], order)
  like = shaped([to.shape[i] for i in order], to.dtype)
  pads = [padding[i][0] for i in inner] + [padding[i][1] for i in inner]
  found = graph.node(
    "MaxPool", [images], like, kernel_shape=[window[i] for i in inner], strides=[strides[i] for i in inner],
    pads=pads,
  )  # fmt: skip
  return _permuted(graph, found, _inverse(order))


def _padded(graph: Builder, equation: core.JaxprEqn, operands: list[Value]) -> Value:
  config, to = equation.params["padding_config"], result(equation)
  if any(between or min(low, high) < 0 for low, high, between in config):
    raise refused("a padding between entries, or a negative one,")
  pads = np.asarray([low for low, _, _ in config] + [high for _, high, _ in config], INT)
  return graph.node("Pad", [operands[0], pads, operands[1]], to)


def _slice(graph: Builder, equation: core.JaxprEqn, operands: list[Value]) -> Value:
  p, to = equation.params, result(equation)
  steps = p["strides"] or (1,) * len(to.shape)
  parts = (p["start_indices"], p["limit_indices"], range(len(to.shape)), steps)
  starts, ends, axes, steps = (np.asarray(part, INT) for part in parts)
  ends = np.where([of_batch(int(end)) for end in ends], np.iinfo(np.int64).max, ends)
  return graph.node("Slice", [operands[0], starts, ends, axes, steps], to)


def _reversed(graph: Builder, equation: core.JaxprEqn, operands: list[Value]) -> Value:
  axes = np.asarray(equation.params["dimensions"], INT)
  starts, ends = np.full(len(axes), -1, INT), np.full(len(axes), np.iinfo(np.int64).min, INT)
  return graph.node("Slice", [operands[0], starts, ends, axes, np.full(len(axes), -1, INT)], result(equation))


def _concatenate(graph: Builder, equation: core.JaxprEqn, operands: list[Value]) -> Value:
  return graph.node("Concat", operands, result(equation), axis=equation.params["dimension"])


def _select(graph: Builder, equation: core.JaxprEqn, operands: list[Value]) -> Value:
  choice, *cases = operands
  if len(cases) != 2 or choice.dtype != np.bool_:
    raise refused("a choice of more than two")
  return graph.node("Where", [choice, cases[1], cases[0]], result(equation))


def _gather(graph: Builder, equation: core.JaxprEqn, operands: list[Value]) -> Value:
  """What `jnp.take` of constant places along one axis is traced as."""
  p, to = equation.params, result(equation)
  numbers, places = p["dimension_numbers"], operands[1]
  value = operands[0]
  if not isinstance(places, np.ndarray) or len(numbers.start_index_map) != 1 or numbers.operand_batching_dims:
    raise refused("a look-up in more than one axis, or by the inputs,")
  (axis,) = numbers.start_index_map
  whole = all(size == value.shape[i] for i, size in enumerate(p["slice_sizes"]) if i != axis)
  places = np.clip(places.reshape(places.shape[:-1]), 0, value.shape[axis] - 1).astype(INT)
  shape = (*value.shape[:axis], *places.shape, *value.shape[axis + 1 :])
  if not whole or numbers.collapsed_slice_dims != (axis,) or shape != tuple(to.shape):
    raise refused("such a look-up")
  return graph.node("Gather", [value, places], to, axis=axis)


# Of operations that ONNX has as they are.
PLAIN = {
  "abs": "Abs", "add": "Add", "and": "And", "div": "Div", "eq": "Equal", "erf": "Erf", "exp": "Exp",
  "ge": "GreaterOrEqual", "gt": "Greater", "le": "LessOrEqual", "log": "Log", "logistic": "Sigmoid",
  "lt": "Less", "max": "Max", "min": "Min", "mul": "Mul", "neg": "Neg", "not": "Not", "or": "Or",
  "pow": "Pow", "sqrt": "Sqrt", "sub": "Sub", "tanh": "Tanh",
}  # fmt: skip
RULES: dict[str, Rule] = {
  **{name: _plain(kind) for name, kind in PLAIN.items()},
  "broadcast_in_dim": _broadcast,
  "concatenate": _concatenate,
  "conv_general_dilated": _convolution,
  "convert_element_type": _convert,
  "copy": _plain("Identity"),
  "dot_general": _dot,
  "expand_dims": _reshape,
  "expm1": _expm1,
  "gather": _gather,
  "integer_pow": _integer_pow,
  "optimization_barrier": _plain("Identity"),
  "pad": _padded,
  "reduce_max": _reduced("ReduceMax"),
  "reduce_sum": _reduced("ReduceSum"),
  "reduce_window_max": _pooled,
  "reshape": _reshape,
  "rev": _reversed,
  "rsqrt": _rsqrt,
  "select_n": _select,
  "slice": _slice,
  "square": _square,
  "squeeze": _reshape,
  "stop_gradient": _plain("Identity"),
  "transpose": _transpose,
}
