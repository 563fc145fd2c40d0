"""What a traced program has inside: programs, and rules of one's own for their gradients."""

from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from nets_jax.engine.rewriting import CUSTOM, alone

Value = TypeVar("Value")
_CALLS = ("jit", "pjit", "closed_call", "core_call", "checkpoint", "remat2")


def inner_program(equation: core.JaxprEqn) -> core.ClosedJaxpr | None:
  """The program that an operation is no more than a call of; None if it is none, or a loop or a choice."""
  if equation.primitive.name not in (*_CALLS, *CUSTOM):
    return None
  inner: Any = equation.params.get("call_jaxpr", equation.params.get("jaxpr"))
  return inner if isinstance(inner, core.ClosedJaxpr) else core.ClosedJaxpr(inner, ())


def is_derived(equation: core.JaxprEqn) -> bool:
  """Whether a call has a rule of its own for its gradient (`jax.custom_jvp`, `jax.custom_vjp`)."""
  return equation.primitive.name in CUSTOM


def is_forwards(equation: core.JaxprEqn) -> bool:
  """Whether that rule is of tangents (`jax.custom_jvp`), or else of cotangents."""
  return equation.primitive.name == CUSTOM[0]


def differentiable(values: Sequence[Value], variables: Sequence[core.Var | core.Literal]) -> list[Value]:
  """Those of some values that have a tangent, by what the program says of their types."""
  return [value for value, one in zip(values, variables, strict=True) if _is_float(one)]


def with_nothing(
  some: Sequence[Value], variables: Sequence[core.Var | core.Literal]
) -> tuple[Value | np.ndarray, ...]:
  """The same backwards: tangents of all values, of whole numbers one of nothing."""
  rest = iter(some)
  return tuple(next(rest) if _is_float(one) else _nothing(one) for one in variables)


def _is_float(variable: core.Var | core.Literal) -> bool:
  return jnp.issubdtype(_like(variable).dtype, jnp.inexact)


def _nothing(variable: core.Var | core.Literal) -> np.ndarray:
  return np.zeros(_like(variable).shape, jax.dtypes.float0)


def derivative_of(equation: core.JaxprEqn, program: core.Jaxpr) -> core.ClosedJaxpr:
  """The rule for the gradient of a call as a program.

  Of operands and their tangents to results and theirs; or of operands and the results' cotangents to those of
  the operands. Whatever is no floating point number has neither.
  """
  single = alone(equation, program)
  run = core.jaxpr_as_fun(single)
  ins, outs = equation.invars, equation.outvars

  def forwards(operands, tangents):
    results, changes = jax.jvp(lambda *given: tuple(run(*given)), operands, with_nothing(tangents, ins))
    return list(results), differentiable(changes, outs)

  def backwards(operands, cotangents):
    pull = jax.vjp(lambda *given: tuple(run(*given)), *operands)[1]
    return differentiable(pull(with_nothing(cotangents, outs)), ins)

  rule, changed = (forwards, ins) if is_forwards(equation) else (backwards, outs)
  tangents = tuple(differentiable(list(map(_like, changed)), changed))
  return jax.make_jaxpr(rule)(tuple(map(_like, ins)), tangents)


def _like(variable: core.Var | core.Literal) -> jax.ShapeDtypeStruct:
  aval: Any = variable.aval
  return jax.ShapeDtypeStruct(aval.shape, aval.dtype)
