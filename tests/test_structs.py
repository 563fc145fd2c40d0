"""Dataclasses that are pytrees: told by their classes, which those of Flax are not."""

import pathlib
import re

import flax
import jax
import jax.numpy as jnp
import pytest

import nets_jax
from nets_jax import searches, structs
from nets_jax.evolution.operators import Operator
from nets_jax.settings import Part, places


def two(decorate):
  """Two classes with the same fields."""
  return [
    decorate(
      type(
        name, (), {"__annotations__": {"rate": float, "kind": str}, "kind": structs.field(pytree_node=False)}
      )
    )
    for name in ("One", "Other")
  ]


def test_two_classes_of_the_same_fields_have_other_structures():
  one, other = two(nets_jax.dataclass)
  assert jax.tree.structure(one(1.0, kind="a")) == jax.tree.structure(one(2.0, kind="a"))
  assert jax.tree.structure(one(1.0, kind="a")) != jax.tree.structure(one(1.0, kind="b"))
  assert jax.tree.structure(one(1.0, kind="a")) != jax.tree.structure(other(1.0, kind="a"))


def test_a_dataclass_is_a_tree_of_its_fields():
  one, _ = two(nets_jax.dataclass)
  node = one(3.0, kind="a")
  assert jax.tree.leaves(node) == [3.0]
  [(path, _)], _ = jax.tree_util.tree_flatten_with_path(node)
  assert jax.tree_util.keystr(path) == ".rate"
  assert jax.tree.map(lambda leaf: leaf + 1, node) == one(4.0, kind="a") == node.replace(rate=4.0)
  assert jax.vmap(lambda node: node.rate)(one(jnp.arange(3.0), kind="a")).tolist() == [0, 1, 2]
  with pytest.raises(AttributeError):
    node.rate = 1.0


def test_the_parts_of_all_searches_have_structures_of_their_own():
  """Whatever their fields: a program of one must never be taken for that of another."""
  seen = 0
  for name in searches.SEARCHES:
    for _, place in places(searches.make(name)):
      if not isinstance(place.about, Part):
        continue
      made = [make() for make in place.about.options.values()]
      nodes = list({type(node): node for node in made if structs.advice(node) is None}.values())
      trees = [jax.tree.structure(node) for node in nodes]
      assert all(a != b for i, a in enumerate(trees) for b in trees[:i])
      seen += len(nodes) > 1
  assert seen > 10


def test_searches_with_other_parts_do_not_go_side_by_side(task):
  guided = nets_jax.recipes.guided(population_size=4, generations=2, halvings=0)
  both = [guided.change(density_schedule=name) for name in ("cubic", "geometric")]
  with pytest.raises(nets_jax.UsageError, match="must agree in density_schedule, not have cubic"):
    nets_jax.search_all(jax.random.split(jax.random.key(0), 2), task, both)


def test_a_part_by_the_decorator_of_flax_is_refused(task):
  flip = flax.struct.dataclass(
    type("Flip", (Operator,), {"__call__": lambda self, key, child, context: child})
  )
  message = r"decorate Flip with nets_jax\.dataclass in place of flax\.struct\.dataclass"
  with pytest.raises(nets_jax.UsageError, match=message):
    nets_jax.search(0, task, nets_jax.recipes.paper().replace(operators=(flip(),), generations=1))


def test_no_class_of_ours_is_by_the_decorator_of_flax():
  paths = list(pathlib.Path(nets_jax.__file__).parent.rglob("*.py"))
  files = {path.name: path.read_text() for path in paths if path.name != "structs.py"}
  assert len(files) > 100
  assert [name for name in files if re.search(r"flax\.struct|from flax import .*struct", files[name])] == []
