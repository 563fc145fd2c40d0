"""Public signatures name real types, with the shapes of arrays; and what says otherwise is few."""

import ast
import pathlib

import jax
import jax.numpy as jnp
import jaxtyping
import pytest

import nets_jax
from nets_jax.training.task import cross_entropy

ROOT = pathlib.Path(nets_jax.__file__).parent
NOT_YET = (
  "studies",
  "cli",
  "evolution",
  "analysis",
  "settings.py",
  "kinds.py",
)  # whose signatures have `Any` left
MOST_SUPPRESSIONS = 10


def public_functions(tree):
  """The functions of a module and the methods of its classes that users may call, with their signatures."""
  for node in tree.body:
    if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
      yield from public_functions(node)
    elif isinstance(node, ast.FunctionDef) and (not node.name.startswith("_") or node.name == "__init__"):
      yield node


def annotations(function):
  arguments = function.args
  every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
  return [a.annotation for a in every if a is not None and a.annotation] + [function.returns] * bool(
    function.returns
  )


def names_in(annotation):
  """The names in an annotation, those within strings too."""
  for node in ast.walk(annotation):
    if isinstance(node, ast.Name):
      yield node.id
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
      yield node.value


def done():
  for path in sorted(ROOT.rglob("*.py")):
    inner = path.relative_to(ROOT)
    if inner.parts[0] not in NOT_YET:
      yield path


@pytest.mark.parametrize("path", done(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_public_signature_takes_or_gives_just_anything(path):
  for function in public_functions(ast.parse(path.read_text())):
    for annotation in annotations(function):
      assert "Any" not in names_in(annotation), f"{function.name} in line {function.lineno}"


def test_what_is_not_done_yet_is_still_there():
  assert all((ROOT / name).exists() for name in NOT_YET)


def test_suppressions_are_few_and_each_has_its_reason():
  lines = [
    line for path in ROOT.rglob("*.py") for line in path.read_text().splitlines() if "pyrefly: ignore" in line
  ]
  assert len(lines) <= MOST_SUPPRESSIONS
  assert all(line.split("pyrefly: ignore")[1].count("#") == 1 for line in lines)


def test_shapes_are_checked_while_the_tests_run(task, ticket):
  logits = jnp.zeros((4, 3))
  cross_entropy(logits, jnp.zeros(4, int))
  with pytest.raises(jaxtyping.TypeCheckError, match="labels"):
    cross_entropy(logits, jnp.zeros(5, int))
  with pytest.raises(jaxtyping.TypeCheckError, match="key"):
    nets_jax.training.train.train(jax.random.split(jax.random.key(0)), ticket, task, jnp.zeros((1, 2), int))
