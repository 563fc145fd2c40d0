"""Which axes of a network's parameters count the same units, and which weights read a unit.

The network is traced, in training and in evaluation, and the traced program is walked once. Whatever is added
entry by entry, or passes through an activation, a pooling, a normalisation over examples or a flattening, has
the same units. A product or a convolution with a kernel reads the units that it sums over. Units that
anything else mixes are whole: none of them can be left out. As in torch-pruning (Fang et al., 2023), but the
groups are found in the program, whatever library wrote it.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence

import jax
from jax.extend import core

from nets_jax.errors import UsageError
from nets_jax.networks.adapter import (
  Network,
  Path,
  abstract_parameters,
  forward,
  forward_in_training,
  initial_state,
  input_type,
  name_of,
  remembered,
)
from nets_jax.networks.axis_rules import RULES, Algebra, Label, Labels, multiplications_of, shape_of
from nets_jax.networks.factors import (
  Atom,
  Coupling,
  Factor,
  Reading,
  fresh,
  keep_whole,
  regroup,
  resolved,
  unite,
)
from nets_jax.networks.traced import derivative_of, differentiable, inner_program, is_derived, is_forwards
from nets_jax.plugins import last_line

_EXAMPLES = 2  # in the traced batch


@dataclasses.dataclass(frozen=True)
class _Value:
  """What is known of a value.

  Attributes:
    labels: of its axes; None are those of a value that no parameter is in.
    leaf: the parameter that it is, if it is one.
    is_cotangent: whether it is one, up to a factor, in a rule for a gradient: zero where a unit is dead.
  """

  labels: Labels | None
  leaf: int | None = None
  is_cotangent: bool = False


class _Finder(Algebra):
  """Unites axes as a traced program is walked."""

  def __init__(self):
    self.readings: list[tuple[int, list[Atom], int]] = []
    self._operands: list[_Value] = []
    self._in_gradient = False

  def same(self, first: Label, second: Label) -> Label:
    if first is None or second is None:
      return first if second is None else second
    unite(first, second)
    return first

  def apart(self, label: Label, why: str) -> None:
    keep_whole(label or (), why)

  def summed(self, equation: core.JaxprEqn, labels: Sequence[Labels], axes: Sequence[Sequence[int]]) -> None:
    leaves = [i for i, operand in enumerate(self._operands) if operand.leaf is not None]
    if self._in_gradient:
      self._summed_in_gradient(equation, labels, axes[0])
      return
    atoms = [atom for axis in axes[0] for atom in resolved(labels[0][axis] or ())]
    if len(leaves) != 1:
      keep_whole(atoms, f"{equation.primitive.name} sums over them, of no kernel")
      return
    leaf = self._operands[leaves[0]].leaf
    assert leaf is not None
    kernel = math.prod(shape_of(equation.invars[leaves[0]]))
    self.readings.append((leaf, atoms, multiplications_of(equation) // (kernel * _EXAMPLES)))

  def _summed_in_gradient(
    self, equation: core.JaxprEqn, labels: Sequence[Labels], axes: Sequence[int]
  ) -> None:
    """Left out may be units whose cotangents are zero, or that a kernel sums over as it does forwards.

    Any other product, of two values forwards or by weights that the rule alone has, keeps all of them.
    """
    mine = {id(atom) for axis in axes for atom in resolved(labels[0][axis] or ())}
    leaves = [operand.leaf for operand in self._operands if operand.leaf is not None]
    read = [atoms for leaf, atoms, _ in self.readings if leaf in leaves]
    if any(operand.is_cotangent for operand in self._operands):
      if read or not _over_units(labels[0], axes):
        return
    elif any(mine <= {id(atom) for atom in resolved(atoms)} for atoms in read):  # as forwards
      return
    for own in labels:
      for label in own:
        keep_whole(label or (), f"{equation.primitive.name} in a rule for a gradient may mix them")

  def regrouped(self, labels: Labels, before: Sequence[int], after: Sequence[int]) -> Labels:
    lengths = zip(labels, before, strict=True)
    return regroup([fresh(size) if label is None else label for label, size in lengths], after)

  def length(self, label: Label, whole: int) -> int:
    del label
    return whole

  def walk(self, program: core.Jaxpr, consts: Sequence[object], given: Sequence[_Value]) -> list[_Value]:
    """What is known of a program's results, given what is known of its arguments."""
    known = dict(zip(program.constvars, [_Value(None)] * len(consts), strict=True))
    known |= dict(zip(program.invars, given, strict=True))

    def look(variable):
      return _Value(None) if isinstance(variable, core.Literal) else known[variable]

    for equation in program.eqns:
      results = self._apply(equation, program, [look(variable) for variable in equation.invars])
      known |= dict(zip(equation.outvars, results, strict=True))
    return [look(variable) for variable in program.outvars]

  def _apply(self, equation: core.JaxprEqn, program: core.Jaxpr, operands: list[_Value]) -> Sequence[_Value]:
    if all(operand.labels is None for operand in operands):
      return [_Value(None)] * len(equation.outvars)
    if (inner := inner_program(equation)) is not None:
      results = self.walk(inner.jaxpr, inner.consts, operands)
      if is_derived(equation) and not self._in_gradient:  # the rule for its gradient may mix what it does not
        self._differentiate(equation, program, operands, results)
      return results
    if equation.primitive.name == "cond":
      return self._branches(equation, operands[1:])
    rule = RULES.get(equation.primitive.name)
    self._operands = operands
    labels = [
      (None,) * len(shape_of(variable)) if operand.labels is None else operand.labels
      for variable, operand in zip(equation.invars, operands, strict=True)
    ]
    understood = rule(equation, labels, self) if rule is not None else None
    if understood is None:
      return self._mixed(equation, labels)
    leaf = operands[0].leaf if equation.primitive.name in _VIEWS else None
    is_cotangent = equation.primitive.name in _ZERO_OF_ZERO and any(own.is_cotangent for own in operands)
    why = None if equation.primitive.name == "broadcast_in_dim" else "they are no parameter's"
    return [
      _Value(_completed(result, shape_of(variable), why), leaf, is_cotangent)
      for result, variable in zip(understood.results, equation.outvars, strict=True)
    ]

  def _differentiate(
    self, equation: core.JaxprEqn, program: core.Jaxpr, operands: list[_Value], results: list[_Value]
  ) -> None:
    before, self._in_gradient = self._in_gradient, True
    rule = derivative_of(equation, program)
    shapes = map(shape_of, equation.invars)  # in the rule inputs meet cotangents, which count units
    operands = [_in_full(*both) for both in zip(operands, shapes, strict=True)]
    if is_forwards(equation):
      given = differentiable([dataclasses.replace(own, leaf=None) for own in operands], equation.invars)
      found = self.walk(rule.jaxpr, rule.consts, operands + given)[len(results) :]
      same_as = differentiable(results, equation.outvars)
    else:
      cotangents = [dataclasses.replace(own, leaf=None, is_cotangent=True) for own in results]
      given = differentiable(cotangents, equation.outvars)
      found = self.walk(rule.jaxpr, rule.consts, operands + given)
      same_as = differentiable(operands, equation.invars)
    for one, other in zip(found, same_as, strict=True):
      self.united(one, other)
    self._in_gradient = before

  def _mixed(self, equation: core.JaxprEqn, labels: Sequence[Labels]) -> list[_Value]:
    """An operation that is not understood: all it is given, and all that comes of it, is whole."""
    why = f"{equation.primitive.name} may mix them"
    for own in labels:
      for label in own:
        self.apart(label, why)
    shapes = [getattr(variable.aval, "shape", ()) for variable in equation.outvars]
    return [_Value(tuple(fresh(size, why) for size in shape)) for shape in shapes]

  def _branches(self, equation: core.JaxprEqn, operands: Sequence[_Value]) -> list[_Value]:
    """A choice between programs, whose results count the same."""
    results = [self.walk(one.jaxpr, one.consts, operands) for one in equation.params["branches"]]
    merged = results[0]
    for others in results[1:]:
      merged = [self.united(*both) for both in zip(merged, others, strict=True)]
    return merged

  def united(self, first: _Value, second: _Value) -> _Value:
    """Two values that count the same, axis by axis."""
    leaf = first.leaf if first.leaf == second.leaf else None
    if first.labels is None or second.labels is None:
      return _Value(first.labels if second.labels is None else second.labels, leaf)
    return _Value(tuple(map(self.same, first.labels, second.labels)), leaf)


# What only shows a parameter otherwise; a zero among its entries stays one.
_VIEWS = ("convert_element_type", "copy", "copy_p", "reshape", "squeeze", "transpose", "reduce_precision")
# What is zero where any of its operands is.
_ZERO_OF_ZERO = (*_VIEWS, "mul", "neg", "broadcast_in_dim")


def _in_full(value: _Value, shape: Sequence[int]) -> _Value:
  return _Value(tuple(map(fresh, shape))) if value.labels is None else value


def _over_units(labels: Labels, axes: Sequence[int]) -> bool:
  """Whether some of the axes count units that may be left out."""
  return any(atom.why_whole is None for axis in axes for atom in resolved(labels[axis] or ()))


def _completed(labels: Labels, shape: Sequence[int], why: str | None) -> Labels:
  return tuple(
    fresh(size, why) if label is None else label for label, size in zip(labels, shape, strict=True)
  )


def find_coupling(network: Network, input_shape: Sequence[int]) -> Coupling:
  """What the parameters of a network count; found once, nothing is computed.

  Raises:
    UsageError: the network cannot be traced with two examples.
  """
  try:
    return _find_coupling(network, tuple(input_shape))
  except Exception as error:  # whatever a stranger's code raises
    raise UsageError(f"the units of {name_of(network)} cannot be found ({last_line(error)})") from error


@remembered
def _find_coupling(network: Network, input_shape: tuple[int, ...]) -> Coupling:
  weights = abstract_parameters(network, input_shape)
  state = jax.eval_shape(lambda: initial_state(network, input_shape))
  inputs = jax.ShapeDtypeStruct((_EXAMPLES, *input_shape), input_type(network, input_shape))
  leaves = jax.tree.leaves((weights, state))
  finder = _Finder()
  values = [
    _Value(tuple(fresh(size) for size in leaf.shape), i if i < len(jax.tree.leaves(weights)) else None)
    for i, leaf in enumerate(leaves)
  ]
  others = [_Value(None), _Value(None)]
  run = functools.partial(forward_in_training, network)
  traced = jax.make_jaxpr(run)(weights, state, inputs, jax.random.key(0))
  outputs, changed = _parted(finder.walk(traced.jaxpr, traced.consts, values + others), state)
  for before, after in zip(values[-len(changed) :] if changed else [], changed, strict=True):
    finder.united(before, after)

  def evaluated(weights, state, inputs):
    return forward(network, weights, inputs, state=state)

  of_training = len(finder.readings)
  traced = jax.make_jaxpr(evaluated)(weights, state, inputs)
  outputs += finder.walk(traced.jaxpr, traced.consts, values + others[:1])
  for value in outputs:
    for label in value.labels or ():
      finder.apart(label, "they are outputs")
  paths = [path for path, _ in jax.tree_util.tree_flatten_with_path((weights, state))[0]]
  return _numbered(values, paths, finder.readings, of_training)


def _parted(values: list[_Value], state: object) -> tuple[list[_Value], list[_Value]]:
  """The results of a training's forward pass as outputs, and as what becomes of the state."""
  count = len(jax.tree.leaves(state))
  return values[: len(values) - count], values[len(values) - count :]


def _numbered(
  values: Sequence[_Value],
  paths: Sequence[Path],
  readings: Sequence[tuple[int, list[Atom], int]],
  of_training: int,
) -> Coupling:
  """What was found, with numbers for what has the same units, in the order of the parameters."""
  numbers: dict[Atom, int] = {}
  leaves, whole = [], []
  for value, path in zip(values, paths, strict=True):
    axes = [resolved(label or ()) for label in value.labels or ()]
    for axis, atoms in enumerate(axes):
      for atom in atoms:
        if atom.why_whole is None:
          numbers.setdefault(atom, len(numbers))
        elif isinstance(path[0], jax.tree_util.SequenceKey) and path[0].idx == 0:
          name = jax.tree_util.keystr(path[1:], simple=True, separator="/")
          whole.append((f"{name}, axis {axis}", atom.why_whole))
    leaves.append(tuple(tuple(Factor(a.size, numbers.get(a)) for a in atoms) for atoms in axes))
  found = [
    Reading(leaf, tuple(numbers[a] for a in resolved(atoms) if a in numbers), places)
    for leaf, atoms, places in readings
  ]
  found = found[:of_training] + [one for one in found[of_training:] if one not in found[:of_training]]
  return Coupling(tuple(atom.size for atom in numbers), tuple(leaves), tuple(found), tuple(whole))
