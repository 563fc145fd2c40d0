"""Public signatures name real types, with the shapes of arrays; and what says otherwise is few."""

import ast
import pathlib
import re

import jax
import jax.numpy as jnp
import jaxtyping
import pytest

import nets_jax
from nets_jax.training.losses import cross_entropy

ROOT = pathlib.Path(nets_jax.__file__).parent
MOST_SUPPRESSIONS = 10


def public_functions(tree):
  """The functions of a module and the methods of its classes that users may call, with their signatures."""
  for node in tree.body:
    if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
      yield from public_functions(node)
    elif isinstance(node, ast.FunctionDef) and (not node.name.startswith("_") or node.name == "__init__"):
      yield node


def signature(function):
  """What a function's arguments and result are said to be; None where nothing is."""
  arguments = function.args
  every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
  given = [argument for argument in every if argument is not None and argument.arg not in ("self", "cls")]
  named = {argument.arg: argument.annotation for argument in given}
  return named | {"return": function.returns if function.name != "__init__" else ast.Constant(None)}


MODULES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_public_signatures_say_what_they_take_and_give(path):
  for function in public_functions(ast.parse(path.read_text())):
    for name, annotation in signature(function).items():
      where = f"{function.name} in line {function.lineno}: {name}"
      assert annotation is not None, where
      assert not re.search(r"\bAny\b", ast.unparse(annotation)), where


def test_suppressions_are_few_and_each_has_its_reason():
  lines = [line for path in ROOT.rglob("*.py") for line in path.read_text().splitlines()]
  suppressed = [line for line in lines if "pyrefly: ignore" in line]
  assert len(suppressed) <= MOST_SUPPRESSIONS
  assert all(line.split("pyrefly: ignore")[1].count("#") == 1 for line in suppressed)


def test_shapes_are_checked_while_the_tests_run(task, ticket):
  logits = jnp.zeros((4, 3))
  cross_entropy(logits, jnp.zeros(4, int))
  with pytest.raises(jaxtyping.TypeCheckError, match="labels"):
    cross_entropy(logits, jnp.zeros(5, int))
  with pytest.raises(jaxtyping.TypeCheckError, match="key"):
    nets_jax.training.train.train(jax.random.split(jax.random.key(0)), ticket, task, jnp.zeros((1, 2), int))
