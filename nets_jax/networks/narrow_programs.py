"""A traced program computed with some of the units alone.

What was traced is applied again to parameters of which only the kept units are there. Whatever has no
parameter in it (inputs, draws of dropout) is computed whole, and its kept units are taken where it meets a
parameter. So every draw is the whole network's.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jaxtyping import Array, Int, PyTree

from nets_jax.engine.rewriting import alone
from nets_jax.networks.axis_rules import RULES, Algebra, Label, Labels, shape_of
from nets_jax.networks.factors import Factor
from nets_jax.networks.traced import (
  derivative_of,
  differentiable,
  inner_program,
  is_derived,
  is_forwards,
  with_nothing,
)

Kept = Mapping[int, Int[Array | np.ndarray, " units"]]  # of each group that is not whole, in order


class Value(NamedTuple):
  """An array, and of each axis which units it has; None is all of it."""

  array: Any
  labels: Labels


class Narrow(Algebra):
  """Computes a traced program with the kept units alone."""

  def __init__(self, kept: Kept):
    self._kept = kept

  def same(self, first: Label, second: Label) -> Label:
    """What is narrowed of the two; `coupling` has seen to it that they agree."""
    if first is None or second is None:
      return first if second is None else second
    assert first == second, "coupling has found these axes to be of other units"
    return first

  def apart(self, label: Label, why: str) -> None:
    """Such an axis has all of its entries."""
    assert label is None, f"coupling has left out units although {why}"

  def summed(self, equation: core.JaxprEqn, labels: Sequence[Labels], axes: Sequence[Sequence[int]]) -> None:
    """Units that are left out would add nothing."""
    del equation, labels, axes

  def regrouped(self, labels: Labels, before: Sequence[int], after: Sequence[int]) -> Labels:
    """The factors one after the other, as many an axis as make its length."""
    factors = [
      factor
      for label, size in zip(labels, before, strict=True)
      for factor in (label if label is not None else (Factor(size, None),))
      if factor.size > 1
    ][::-1]
    result: list[Label] = []
    for size in after:
      own: list[Factor] = []
      while size > 1:
        factor = factors.pop()
        if size % factor.size:
          assert factor.units is None, "coupling has let a reshape cut across units that are left out"
          if factor.size % size == 0:
            factors.append(Factor(factor.size // size, None))
            factor = Factor(size, None)
          else:  # of whole axes alone
            return self._torn(labels, after)
        own.append(factor)
        size //= factor.size
      result.append(self.label_of(own))
    return tuple(result)

  def _torn(self, labels: Labels, after: Sequence[int]) -> Labels:
    assert all(label is None for label in labels)
    return (None,) * len(after)

  def label_of(self, factors: Sequence[Factor]) -> Label:
    """The label of an axis that counts these, whole ones side by side as one; None where all are whole."""
    mine: list[Factor] = []
    for factor in factors:
      if factor.units in self._kept:
        mine.append(factor)
      elif mine and mine[-1].units is None:
        mine[-1] = Factor(mine[-1].size * factor.size, None)
      else:
        mine.append(Factor(factor.size, None))
    return tuple(mine) if any(factor.units is not None for factor in mine) else None

  def length(self, label: Label, whole: int) -> int:
    """The kept entries."""
    if label is None:
      return whole
    return len(self.places(label))

  def places(self, label: Sequence[Factor]) -> jax.Array | np.ndarray:
    """Where in the whole axis its kept entries are."""
    return places_of(label, self._kept)

  def taken(self, value: Value, labels: Labels) -> jax.Array:
    """A value's array with the kept units alone along axes that have all."""
    array = value.array
    for axis, (have, want) in enumerate(zip(value.labels, labels, strict=True)):
      if have is None and want is not None:
        places, take = self.places(want), np.take if isinstance(array, np.ndarray) else jnp.take
        array = take(array, places, axis=axis, mode="clip")
    return array

  def brought(self, value: Value, labels: Labels, shape: Sequence[int]) -> jax.Array:
    """A cotangent of an operand that has these labels; it is zero where a whole operand was not looked at."""
    array = self.taken(value, labels)
    for axis, (have, want) in enumerate(zip(value.labels, labels, strict=True)):
      if have is not None and want is None:
        first = jnp.moveaxis(array, axis, 0)
        everything = jnp.zeros((shape[axis], *first.shape[1:]), array.dtype)
        array = jnp.moveaxis(everything.at[self.places(have)].set(first), 0, axis)
    return array

  def run(self, program: core.ClosedJaxpr, given: Sequence[Value]) -> list[Value]:
    """A program's results."""
    known = dict(zip(program.jaxpr.constvars, map(entire, program.consts), strict=True))
    known |= dict(zip(program.jaxpr.invars, given, strict=True))

    def look(variable):
      return entire(variable.val) if isinstance(variable, core.Literal) else known[variable]

    for equation in program.jaxpr.eqns:
      results = self._apply(equation, program.jaxpr, [look(variable) for variable in equation.invars])
      known |= dict(zip(equation.outvars, results, strict=True))
    return [look(variable) for variable in program.jaxpr.outvars]

  def _apply(self, equation: core.JaxprEqn, program: core.Jaxpr, operands: list[Value]) -> Sequence[Value]:
    if all(label is None for operand in operands for label in operand.labels):
      results = core.jaxpr_as_fun(alone(equation, program))(*(operand.array for operand in operands))
      return list(map(entire, results))
    if (inner := inner_program(equation)) is not None:
      if is_derived(equation):
        return self._derived(equation, program, inner, operands)
      return self.run(inner, operands)
    if equation.primitive.name == "cond":
      return self._branches(equation, operands)
    understood = RULES[equation.primitive.name](equation, [operand.labels for operand in operands], self)
    assert understood is not None, "coupling has left out units that an operation mixes"
    arrays = [self.taken(*both) for both in zip(operands, understood.operands, strict=True)]
    results = equation.primitive.bind(*arrays, **{**equation.params, **understood.settings})
    results = results if equation.primitive.multiple_results else [results]
    return [Value(*both) for both in zip(results, understood.results, strict=True)]

  def _derived(
    self, equation: core.JaxprEqn, program: core.Jaxpr, inner: core.ClosedJaxpr, operands: list[Value]
  ) -> list[Value]:
    """A call with a rule for its gradient, which becomes a rule of fewer units."""
    labels = [operand.labels for operand in operands]
    labels_of_results: list[Labels] = []

    def call(kept, *arrays):
      results = Narrow(kept).run(inner, list(map(Value, arrays, labels)))
      labels_of_results[:] = [result.labels for result in results]
      return tuple(result.array for result in results)

    def forwards(given, changes):
      kept, *arrays = given
      tangents = differentiable([*map(Value, changes[1:], labels)], equation.invars)
      found = Narrow(kept).run(derivative_of(equation, program), [*map(Value, arrays, labels), *tangents])
      count = len(equation.outvars)
      results = tuple(result.array for result in found[:count])
      return results, with_nothing([result.array for result in found[count:]], equation.outvars)

    def backwards(given, changes):
      kept, *arrays = given
      cotangents = differentiable([*map(Value, changes, labels_of_results)], equation.outvars)
      narrow = Narrow(kept)
      found = narrow.run(derivative_of(equation, program), [*map(Value, arrays, labels), *cotangents])
      wanted = differentiable(list(zip(labels, map(shape_of, equation.invars), strict=True)), equation.invars)
      results = [narrow.brought(value, *want) for value, want in zip(found, wanted, strict=True)]
      return None, *with_nothing(results, equation.invars)

    arrays = [operand.array for operand in operands]
    jax.eval_shape(call, self._kept, *arrays)  # for the labels; in a gradient the rule alone is called
    if is_forwards(equation):
      of_tangents = jax.custom_jvp(call)
      of_tangents.defjvp(forwards)
      results = of_tangents(self._kept, *arrays)
    else:
      of_cotangents = jax.custom_vjp(call)
      of_cotangents.defvjp(lambda *given: (call(*given), given), backwards)
      results = of_cotangents(self._kept, *arrays)
    return list(map(Value, results, labels_of_results))

  def _branches(self, equation: core.JaxprEqn, operands: list[Value]) -> list[Value]:
    """A choice between programs, whose results have the same units."""
    choice, *given = operands
    arrays = [operand.array for operand in given]
    branches = equation.params["branches"]
    merged: list[Labels] = [(None,) * len(shape_of(variable)) for variable in equation.outvars]

    # The kept units are operands too: in a rule for a gradient they are traced, and no constants.
    kept, treedef = jax.tree.flatten(self._kept)

    def results_of(branch: core.ClosedJaxpr, kept: Sequence[jax.Array], arrays: Sequence[jax.Array]):
      narrow = Narrow(jax.tree.unflatten(treedef, kept))
      own = [Value(array, operand.labels) for array, operand in zip(arrays, given, strict=True)]
      return narrow, narrow.run(branch, own)

    def note(branch: core.ClosedJaxpr, kept: Sequence[jax.Array], arrays: Sequence[jax.Array]) -> None:
      for i, result in enumerate(results_of(branch, kept, arrays)[1]):
        merged[i] = tuple(map(self.same, merged[i], result.labels))

    for branch in branches:
      jax.eval_shape(functools.partial(note, branch), kept, arrays)

    def changed(branch: core.ClosedJaxpr) -> core.ClosedJaxpr:
      def call(kept, *arrays):
        narrow, results = results_of(branch, kept, arrays)
        return [narrow.taken(*both) for both in zip(results, merged, strict=True)]

      return jax.make_jaxpr(call)(kept, *arrays)

    made = tuple(map(changed, branches))
    results = equation.primitive.bind(choice.array, *kept, *arrays, **{**equation.params, "branches": made})
    return list(map(Value, results, merged))


def places_of(
  axis: Sequence[Factor],
  kept: Mapping[int, Int[Array | np.ndarray, " units"]],
  sizes: Mapping[int, int] | None = None,
) -> jax.Array | np.ndarray:
  """Where in an axis the entries of some units are.

  Args:
    axis: what it counts.
    kept: the units, of each group that is not whole.
    sizes: how many units the axis has of a group, where these are fewer than the network has.
  """
  on_host = all(isinstance(places, np.ndarray) for places in kept.values())  # where nothing is compiled
  numbers, lengths = np if on_host else jnp, sizes or {}
  places = numbers.zeros(1, np.int32)
  for size, group in axis:
    own = kept[group] if group in kept else numbers.arange(size, dtype=np.int32)
    length = size if group is None else lengths.get(group, size)
    places = (places[:, None] * length + own[None]).reshape(-1)
  return places


def entire(array: jax.Array | np.ndarray | float) -> Value:
  """An array with all of its entries."""
  return Value(array, (None,) * jnp.ndim(array))


def narrowed(tree: PyTree, leaves: Sequence[Sequence[Sequence[Factor]]], kept: Kept) -> PyTree:
  """Arrays of a whole network with the kept units alone; `leaves` are those of `Coupling`."""
  narrow = Narrow(kept)

  def one(leaf, axes):
    return narrow.taken(entire(leaf), tuple(map(narrow.label_of, axes)))

  arrays, treedef = jax.tree.flatten(tree)
  return jax.tree.unflatten(treedef, [one(*both) for both in zip(arrays, leaves, strict=True)])
