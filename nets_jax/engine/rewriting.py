"""A program with other forms of some of its operations, whoever wrote it."""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar, cast

import jax
from jax.extend import core

# What stands in for an operation: its operands, and its settings by name, to its one result.
Form = Callable[..., jax.Array]
Result = TypeVar("Result")
# The rule for differentiating what is inside decides nothing any more, once a whole program is traced.
CUSTOM = ("custom_jvp_call", "custom_vjp_call")


def rewritten(function: Callable[..., Result], forms: Mapping[str, Form]) -> Callable[..., Result]:
  """The function with a form of ours wherever it uses an operation by that name, in loops and branches too.

  The function is traced, and what was traced is applied again, operation by operation. So gradients within it
  are rewritten as what they come to, forwards, backwards or both; but the result is not to be differentiated
  where a form cannot be. A function without such an operation is the program that it was.

  Args:
    function: of pytrees of arrays.
    forms: from the name of a primitive of JAX to a function of its operands and settings.
  """

  def run(*arguments):
    traced, shape = jax.make_jaxpr(function, return_shape=True)(*arguments)
    results = _apply(traced, forms, *jax.tree.leaves(arguments))
    return jax.tree.unflatten(jax.tree.structure(shape), results)

  return run


def _apply(program: core.ClosedJaxpr, forms: Mapping[str, Form], *arguments: jax.Array) -> list[jax.Array]:
  """What a traced program results in, with forms in place of operations."""
  if not _uses(program.jaxpr, forms):
    return core.jaxpr_as_fun(program)(*arguments)
  known = dict(zip(program.jaxpr.constvars, program.consts, strict=True))
  known |= dict(zip(program.jaxpr.invars, arguments, strict=True))

  def read(variable):
    return variable.val if isinstance(variable, core.Literal) else known[variable]

  for equation in program.jaxpr.eqns:
    operands = [read(variable) for variable in equation.invars]
    if equation.primitive.name in forms:
      results = [forms[equation.primitive.name](*operands, **equation.params)]
    elif _uses_inside(equation, forms):
      results = _apply_inside(equation, forms, operands)
    else:
      results = core.jaxpr_as_fun(alone(equation, program.jaxpr))(*operands)
    known |= dict(zip(equation.outvars, results, strict=True))
  return [read(variable) for variable in program.jaxpr.outvars]


def alone(equation: core.JaxprEqn, program: core.Jaxpr) -> core.ClosedJaxpr:
  """A program of one operation out of another, which takes all that the operation does, literals too."""
  names: list[core.Var | core.Literal] = [core.Var(variable.aval) for variable in equation.invars]
  alone = program.replace(
    constvars=[], invars=names, outvars=equation.outvars, eqns=[equation.replace(invars=names)]
  )
  return core.ClosedJaxpr(alone, ())


def _apply_inside(
  equation: core.JaxprEqn, forms: Mapping[str, Form], operands: list[jax.Array]
) -> list[jax.Array]:
  """An operation with the programs inside it rewritten."""
  primitive, settings = equation.primitive, equation.params
  if primitive.name in CUSTOM:
    return _apply(settings["call_jaxpr"], forms, *operands)
  changed = {name: _rewritten_inside(settings[name], forms) for name, _ in _inner(equation)}
  results = primitive.bind(*operands, **settings | changed)
  return results if primitive.multiple_results else [results]


def _rewritten_inside(value: object, forms: Mapping[str, Form]) -> object:
  """A program that is a setting of an operation, or several (of its branches), rewritten."""
  if isinstance(value, tuple):
    changed = [_rewritten_inside(one, forms) for one in value]
    return value._make(changed) if hasattr(value, "_make") else tuple(changed)  # a solver has them by name
  program = value if isinstance(value, core.ClosedJaxpr) else core.ClosedJaxpr(cast(core.Jaxpr, value), ())
  changed = jax.make_jaxpr(functools.partial(_apply, program, forms))(*program.in_avals)
  if isinstance(value, core.ClosedJaxpr):
    return changed
  assert not changed.consts  # no form has any, and an open program has no place for them
  return changed.jaxpr


def _uses(program: core.Jaxpr, forms: Mapping[str, Form]) -> bool:
  """Whether a program has one of the operations, in whatever is inside it too."""
  return any(equation.primitive.name in forms or _uses_inside(equation, forms) for equation in program.eqns)


def _uses_inside(equation: core.JaxprEqn, forms: Mapping[str, Form]) -> bool:
  return any(_uses(program, forms) for _, programs in _inner(equation) for program in programs)


def _inner(equation: core.JaxprEqn) -> Iterator[tuple[str, list[core.Jaxpr]]]:
  """The settings of an operation that are programs, by name, each as a list."""
  for name, value in equation.params.items():
    programs = list(value) if isinstance(value, tuple) else [value]
    if programs and all(isinstance(one, core.Jaxpr | core.ClosedJaxpr) for one in programs):
      yield name, [one.jaxpr if isinstance(one, core.ClosedJaxpr) else one for one in programs]
