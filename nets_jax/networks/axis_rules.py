"""How the axes of an operation's operands and results belong together, for each operation that is understood.

A label says what an axis counts: a tuple of factors, the slowest first, so that one axis may count
pixels times channels. None is an axis that nothing is known of, and an axis of length 1 is (). A rule is
written once and serves two walks of a traced program: the one that finds out which axes count the same units
(`coupling`), and the one that computes with fewer of them (`narrowing`).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, cast

import jax
from jax import lax
from jax.extend import core

Label = tuple[Any, ...] | None  # of an axis
Labels = tuple[Label, ...]  # of a value, an axis each


class Algebra(Protocol):
  """What a rule may say of labels."""

  def same(self, first: Label, second: Label) -> Label:
    """Two axes count the same; what they count."""
    ...

  def apart(self, label: Label, why: str) -> None:
    """An axis is mixed, cut or moved along, so that none of its entries can be left out."""
    ...

  def summed(self, equation: core.JaxprEqn, labels: Sequence[Labels], axes: Sequence[Sequence[int]]) -> None:
    """A product sums over these axes of its two operands, which count the same."""
    ...

  def regrouped(self, labels: Labels, before: Sequence[int], after: Sequence[int]) -> Labels:
    """The axes of a reshape's result."""
    ...

  def length(self, label: Label, whole: int) -> int:
    """How long an axis is that the traced program has whole."""
    ...


class Understood(NamedTuple):
  """What a rule says: the labels that operands must have, those of the results, and changed settings."""

  operands: Sequence[Labels]
  results: Sequence[Labels]
  settings: Mapping[str, Any] = {}


Rule = Callable[[core.JaxprEqn, Sequence[Labels], Algebra], Understood | None]


def shape_of(variable: object) -> tuple[int, ...]:
  """The shape that a traced program has for a value."""
  return tuple(cast(jax.ShapeDtypeStruct, cast(core.Var, variable).aval).shape)


def multiplications_of(equation: core.JaxprEqn) -> int:
  """Of a product or a convolution, as it was traced."""
  result, kernel = shape_of(equation.outvars[0]), shape_of(equation.invars[1])
  if equation.primitive.name == "dot_general":
    (summed, _), _ = equation.params["dimension_numbers"]
    return math.prod(result) * math.prod(shape_of(equation.invars[0])[axis] for axis in summed)
  outs = equation.params["dimension_numbers"].rhs_spec[0]
  return math.prod(result) * math.prod(kernel) // kernel[outs]


def _elementwise(equation: core.JaxprEqn, labels: Sequence[Labels], algebra: Algebra) -> Understood:
  """Every operand has the result's shape, or is a scalar; axes of length 1 are stretched."""
  shape = shape_of(equation.outvars[0])
  shapes = [shape_of(variable) if own else () for variable, own in zip(equation.invars, labels, strict=True)]
  merged: list[Label] = [None] * len(shape)
  for own, lengths in zip(labels, shapes, strict=True):
    for axis, (label, length) in enumerate(zip(own, lengths, strict=True)):
      if length == shape[axis]:
        merged[axis] = algebra.same(merged[axis], label)
  wanted = [
    tuple(merged[axis] if length == shape[axis] else own[axis] for axis, length in enumerate(lengths))
    for own, lengths in zip(labels, shapes, strict=True)
  ]
  return Understood(wanted, [tuple(merged)] * len(equation.outvars))


def _each_apart(equation: core.JaxprEqn, labels: Sequence[Labels], algebra: Algebra) -> Understood:
  """Results are the operands, one by one."""
  del equation, algebra
  return Understood(labels, labels)


def _broadcast(equation: core.JaxprEqn, labels: Sequence[Labels], algebra: Algebra) -> Understood:
  shape, places = equation.params["shape"], equation.params["broadcast_dimensions"]
  result: list[Label] = [None] * len(shape)
  for place, label, length in zip(places, labels[0], shape_of(equation.invars[0]), strict=True):
    if length == shape[place]:
      result[place] = label
  lengths = tuple(map(algebra.length, result, shape))
  return Understood(labels, [tuple(result)], {"shape": lengths})


def _reshape(equation: core.JaxprEqn, labels: Sequence[Labels], algebra: Algebra) -> Understood | None:
  if equation.params["dimensions"] is not None:
    return None
  after = equation.params["new_sizes"]
  result = algebra.regrouped(labels[0], shape_of(equation.invars[0]), after)
  return Understood(labels, [result], {"new_sizes": tuple(map(algebra.length, result, after))})


def _transpose(equation: core.JaxprEqn, labels: Sequence[Labels], algebra: Algebra) -> Understood:
  del algebra
  return Understood(labels, [tuple(labels[0][axis] for axis in equation.params["permutation"])])


def _without(equation: core.JaxprEqn, labels: Sequence[Labels], axes: Sequence[int]) -> Understood:
  result = tuple(label for axis, label in enumerate(labels[0]) if axis not in axes)
  return Understood(labels, [result] * len(equation.outvars))


def _squeeze(equation: core.JaxprEqn, labels: Sequence[Labels], algebra: Algebra) -> Understood:
  del algebra
  return _without(equation, labels, equation.params["dimensions"])


def _reduction(equation: core.JaxprEqn, labels: Sequence[Labels], algebra: Algebra) -> Understood:
  for axis in equation.params["axes"]:
    algebra.apart(labels[0][axis], f"{equation.primitive.name} is taken over them")
  return _without(equation, labels, equation.params["axes"])


def _along(equation: core.JaxprEqn, labels: Sequence[Labels], algebra: Algebra, axes: set[int]) -> Understood:
  """Some axes are moved along; the others are as they were, and the rest of the operands are scalars."""
  for axis in axes:
    algebra.apart(labels[0][axis], f"{equation.primitive.name} goes along them")
  result = tuple(None if axis in axes else label for axis, label in enumerate(labels[0]))
  return Understood(labels, [result] * len(equation.outvars))


def _windowed(equation: core.JaxprEqn, labels: Sequence[Labels], algebra: Algebra) -> Understood:
  settings = [equation.params[name] for name in ("window_dimensions", "window_strides", "padding")]
  axes = {axis for axis, own in enumerate(zip(*settings, strict=True)) if own != (1, 1, (0, 0))}
  return _along(equation, labels, algebra, axes)


def _cumulative(equation: core.JaxprEqn, labels: Sequence[Labels], algebra: Algebra) -> Understood:
  return _along(equation, labels, algebra, {equation.params["axis"]})


def _reversed(equation: core.JaxprEqn, labels: Sequence[Labels], algebra: Algebra) -> Understood:
  return _along(equation, labels, algebra, set(equation.params["dimensions"]))


def _pad(equation: core.JaxprEqn, labels: Sequence[Labels], algebra: Algebra) -> Understood:
  padding = equation.params["padding_config"]
  return _along(equation, labels, algebra, {axis for axis, own in enumerate(padding) if any(own)})


def _slice(equation: core.JaxprEqn, labels: Sequence[Labels], algebra: Algebra) -> Understood:
  whole, cut = shape_of(equation.invars[0]), shape_of(equation.outvars[0])
  axes = {axis for axis, length in enumerate(whole) if length != cut[axis]}
  understood = _along(equation, labels, algebra, axes)
  limits = [
    limit if axis in axes else algebra.length(labels[0][axis], limit)
    for axis, limit in enumerate(equation.params["limit_indices"])
  ]
  return understood._replace(settings={"limit_indices": tuple(limits)})


def _concatenate(equation: core.JaxprEqn, labels: Sequence[Labels], algebra: Algebra) -> Understood:
  along = equation.params["dimension"]
  merged: list[Label] = [None] * len(labels[0])
  for own in labels:
    algebra.apart(own[along], "they are put beside others")
    merged = [algebra.same(*both) for both in zip(merged, own, strict=True)]
    merged[along] = None
  wanted = [tuple(own[i] if i == along else label for i, label in enumerate(merged)) for own in labels]
  return Understood(wanted, [tuple(merged)])


def _product(equation: core.JaxprEqn, labels: Sequence[Labels], algebra: Algebra) -> Understood:
  """A product of matrices: over axes of both, for each of other axes of both, and of each one's own."""
  (summed, kept) = equation.params["dimension_numbers"]
  wanted = [list(own) for own in labels]
  for pairs in (summed, kept):
    for one, other in zip(*pairs, strict=True):
      wanted[0][one] = wanted[1][other] = algebra.same(labels[0][one], labels[1][other])
  both = [tuple(own) for own in wanted]
  algebra.summed(equation, both, summed)
  result = [both[0][axis] for axis in kept[0]]
  for own, gone in zip(both, zip(summed, kept, strict=True), strict=True):
    result += [label for axis, label in enumerate(own) if axis not in (*gone[0], *gone[1])]
  return Understood(both, [tuple(result)])


def _convolution(equation: core.JaxprEqn, labels: Sequence[Labels], algebra: Algebra) -> Understood | None:
  """A convolution of all channels, or of each by itself; its window's axes are moved along."""
  numbers = cast(lax.ConvDimensionNumbers, equation.params["dimension_numbers"])
  groups, shape = equation.params["feature_group_count"], shape_of(equation.invars[0])
  images, kernel = list(labels[0]), list(labels[1])
  channels, outs, ins = numbers.lhs_spec[1], numbers.rhs_spec[0], numbers.rhs_spec[1]
  settings = {}
  if equation.params["batch_group_count"] != 1 or groups not in (1, shape[channels]):
    return None
  for label in (*(images[axis] for axis in numbers.lhs_spec[2:]), *(kernel[a] for a in numbers.rhs_spec[2:])):
    algebra.apart(label, "a window moves along them")
  if groups == 1:
    images[channels] = kernel[ins] = algebra.same(images[channels], kernel[ins])
    algebra.summed(equation, (tuple(images), tuple(kernel)), ((channels,), (ins,)))
  else:
    made = shape_of(equation.invars[1])[outs]
    own, more = algebra.regrouped((kernel[outs],), (made,), (groups, made // groups))
    images[channels] = algebra.same(images[channels], own)
    settings["feature_group_count"] = algebra.length(images[channels], groups)
    algebra.summed(equation, (tuple(images), tuple(kernel)), ((), ()))
    (kernel[outs],) = algebra.regrouped((images[channels], more), (groups, made // groups), (made,))
  result: list[Label] = [None] * len(images)
  result[numbers.out_spec[0]], result[numbers.out_spec[1]] = images[numbers.lhs_spec[0]], kernel[outs]
  return Understood((tuple(images), tuple(kernel)), [tuple(result)], settings)


_ELEMENTWISE = (
  "abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2", "atanh", "cbrt",
  "ceil", "clamp", "convert_element_type", "copy", "copy_p", "cos", "cosh", "digamma", "div", "eq", "erf",
  "erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "ge", "gt", "integer_pow", "is_finite", "le",
  "lgamma", "log", "log1p", "logistic", "lt", "max", "min", "mul", "ne", "neg", "nextafter", "not", "or",
  "pow", "real", "reduce_precision", "rem", "round", "rsqrt", "select_n", "sign", "sin", "sinh", "sqrt",
  "square", "stop_gradient", "sub", "tan", "tanh", "xor",
)  # fmt: skip
_REDUCTIONS = (
  "argmax", "argmin", "reduce_and", "reduce_max", "reduce_min", "reduce_or", "reduce_prod", "reduce_sum",
)  # fmt: skip
_WINDOWED = ("reduce_window", "reduce_window_max", "reduce_window_min", "reduce_window_sum")

# By the name of JAX's primitive. What is in none of these mixes all that it is given.
RULES: dict[str, Rule] = {
  **dict.fromkeys(_ELEMENTWISE, _elementwise),
  **dict.fromkeys(_REDUCTIONS, _reduction),
  **dict.fromkeys(_WINDOWED, _windowed),
  **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"), _cumulative),
  "optimization_barrier": _each_apart,
  "broadcast_in_dim": _broadcast,
  "reshape": _reshape,
  "transpose": _transpose,
  "squeeze": _squeeze,
  "rev": _reversed,
  "pad": _pad,
  "slice": _slice,
  "concatenate": _concatenate,
  "dot_general": _product,
  "conv_general_dilated": _convolution,
}
