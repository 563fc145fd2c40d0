"""A traced network as a graph of ONNX, operation by operation, for a batch of any size.

The network is traced for a batch of `BATCH` examples. Whatever is that long, or a multiple, is the batch's in
the graph. What depends on no input is computed here and becomes a constant.
"""

from collections.abc import Callable, Sequence
from typing import cast

import jax
import numpy as np
import onnx
from jax.extend import core
from onnx import helper, numpy_helper

from nets_jax.export.onnx_rules import (
  BATCH,
  INT,
  RULES,
  Attribute,
  Shaped,
  Value,
  Wire,
  of_batch,
  refused,
  shaped,
)
from nets_jax.networks.traced import inner_program

OPSET, IR = 18, 10  # what onnxruntime reads since 2024
INPUT, OUTPUT = "inputs", "outputs"


def as_onnx(
  function: Callable[[jax.Array], jax.Array], input_shape: Sequence[int], dtype: str, what: str
) -> onnx.ModelProto:
  """A function of a batch of inputs as a model of ONNX, from `inputs` to `outputs`.

  Args:
    function: from [batch, *input_shape] to [batch, ...].
    input_shape: of one input.
    dtype: of the inputs.
    what: its name, for the model.

  Raises:
    UsageError: it has an operation that no rule is for.
  """
  inputs = jax.ShapeDtypeStruct((BATCH, *input_shape), dtype)
  traced = jax.make_jaxpr(function)(inputs)
  graph = Graph()
  wire = Wire(INPUT, inputs.shape, np.dtype(dtype))
  (result,) = graph.run(traced.jaxpr, [_known(each) for each in traced.consts], [wire])
  (outputs,) = traced.out_avals
  graph.add("Identity", [result], OUTPUT)
  made = helper.make_graph(
    graph.nodes, what, [_info(INPUT, inputs)], [_info(OUTPUT, outputs)], graph.constants
  )
  model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="nets_jax")
  model.ir_version = IR
  onnx.checker.check_model(model)
  return model


def _info(name: str, array: Shaped) -> onnx.ValueInfoProto:
  """What a graph says of its inputs or outputs."""
  dims = ["batch" if size == BATCH else size for size in array.shape]
  return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(array.dtype)), dims)


class Graph:
  """Nodes and constants, added as they are found."""

  def __init__(self):
    self.nodes: list[onnx.NodeProto] = []
    self.constants: list[onnx.TensorProto] = []
    self._names: dict[bytes, str] = {}

  def add(self, kind: str, inputs: Sequence[Value], name: str, **attributes: Attribute) -> None:
    """Adds an operation, and names its result."""
    made = helper.make_node(kind, list(map(self._name, inputs)), [name], name=name)
    made.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
    self.nodes.append(made)

  def node(self, kind: str, inputs: Sequence[Value], like: Shaped, **attributes: Attribute) -> Wire:
    """Adds an operation, whose result has a shape and a type."""
    name = f"{kind.lower()}_{len(self.nodes)}"
    self.add(kind, inputs, name, **attributes)
    return Wire(name, tuple(like.shape), np.dtype(like.dtype))

  def _name(self, value: Value) -> str:
    """A value's; an array becomes a constant of the graph, each content once."""
    if isinstance(value, Wire):
      return value.name
    content = f"{value.dtype}{value.shape}".encode() + value.tobytes()
    if content not in self._names:
      self._names[content] = f"constant_{len(self.constants)}"
      self.constants.append(numpy_helper.from_array(np.array(value, order="C"), self._names[content]))
    return self._names[content]

  def run(self, program: core.Jaxpr, consts: Sequence[Value], given: Sequence[Value]) -> list[Value]:
    """A program's results."""
    known: dict[core.Var, Value] = dict(zip(program.constvars, consts, strict=True))
    known |= dict(zip(program.invars, given, strict=True))

    def look(variable: core.Var | core.Literal) -> Value:
      return _known(np.asarray(variable.val)) if isinstance(variable, core.Literal) else known[variable]

    for equation in program.eqns:
      results = self._apply(equation, [look(variable) for variable in equation.invars])
      known |= dict(zip(equation.outvars, results, strict=True))
    return [look(variable) for variable in program.outvars]

  def _apply(self, equation: core.JaxprEqn, operands: list[Value]) -> Sequence[Value]:
    name = equation.primitive.name
    sizes = [size for variable in equation.outvars for size in cast(Shaped, variable.aval).shape]
    if not any(isinstance(operand, Wire) for operand in operands) and not any(map(of_batch, sizes)):
      results = equation.primitive.bind(*operands, **equation.params)
      return [_known(each) for each in (results if equation.primitive.multiple_results else [results])]
    if (inner := inner_program(equation)) is not None:
      return self.run(inner.jaxpr, [_known(each) for each in inner.consts], operands)
    if name not in RULES:
      raise refused(f"the operation {name}")
    return [RULES[name](self, equation, operands)]

  def running_shape(self, shape: Sequence[int]) -> Value:
    """A shape as a tensor; where the batch is in it, as it is when the graph runs."""
    if not any(map(of_batch, shape)):
      return np.asarray(shape, INT)
    one = shaped((1,), INT)
    whole = self.node("Shape", [Wire(INPUT, (), np.dtype(INT))], one, start=0, end=1)
    parts: list[Value] = []
    for size in shape:
      if of_batch(size) and size != BATCH:
        parts.append(self.node("Mul", [whole, np.asarray([size // BATCH], INT)], one))
      else:
        parts.append(whole if size == BATCH else np.asarray([size], INT))
    return self.node("Concat", parts, shaped((len(shape),), INT), axis=0)


def _known(value: jax.Array | np.ndarray) -> np.ndarray:
  """A value that is known here; a key stays one, for an evaluation draws nothing from it."""
  is_key = jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key)
  return cast(np.ndarray, value) if is_key else np.asarray(value)
