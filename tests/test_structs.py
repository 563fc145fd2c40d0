"""Dataclasses that are pytrees: told by their classes, which those of Flax are not."""

import dataclasses
import pathlib
import re

import flax
import jax
import jax.numpy as jnp
import pytest

import nets_jax
from nets_jax import searches, structs
from nets_jax.evolution import schedules
from nets_jax.evolution.operators import Operator
from nets_jax.networks import initialisation
from nets_jax.settings import Part, places
from nets_jax.training import rate_schedules


def two(decorate):
  """Two classes with the same fields."""
  about = structs.field(pytree_node=False)
  return [
    decorate(type(name, (), {"__annotations__": {"rate": float, "kind": str}, "kind": about}))
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


def test_all_parts_have_structures_of_their_own(task):
  """Whatever their fields: a program of one must never be taken for that of another."""
  components = [task, task.training, *map(searches.make, searches.SEARCHES)]
  seen = 0
  for component in components:
    for _, place in places(component):
      if isinstance(place.about, Part):
        nodes = list(
          {type(node): node for node in (make() for make in place.about.options.values())}.values()
        )
        assert [advice for node in nodes if (advice := structs.advice(node))] == []
        assert differ(nodes)
        seen += len(nodes) > 1
  assert seen > 15
  assert differ([schedules.Linear(1, 2), schedules.Geometric(1, 2), schedules.Cubic(1, 2)])


def differ(nodes):
  trees = [jax.tree.structure(node) for node in nodes]
  return all(a != b for i, a in enumerate(trees) for b in trees[:i])


def test_no_program_runs_for_another_class():
  """By Flax's decorator, or JAX's, some of these hundred get another's number."""
  made = [
    nets_jax.dataclass(type(f"Rate{i}", (), {"__annotations__": {"x": float}, "value": i}))
    for i in range(100)
  ]
  compiled = jax.jit(lambda node: node.value + 0 * node.x)
  assert [int(compiled(kind(0.5))) for kind in made] == list(range(100))


def test_searches_with_other_parts_do_not_go_side_by_side(task):
  guided = nets_jax.recipes.guided(population_size=4, generations=2, halvings=0)
  both = [guided.change(density_schedule=name) for name in ("cubic", "geometric")]
  with pytest.raises(nets_jax.UsageError, match="must agree in density_schedule, not have cubic"):
    nets_jax.search_all(jax.random.split(jax.random.key(0), 2), task, both)


def by_jax(cls):
  return jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True)(cls))


@pytest.mark.parametrize("decorate", [flax.struct.dataclass, by_jax])
def test_a_class_that_may_be_taken_for_another_is_refused(task, decorate):
  """A search, an operator, a rate, whatever a field holds, a rate schedule, first weights."""
  one, other = two(decorate)
  if jax.tree.structure(one(1.0, "a")) != jax.tree.structure(other(1.0, "a")):
    pytest.skip("this JAX tells such classes apart")
  paper = nets_jax.recipes.paper(generations=1)
  call = {"__call__": lambda self, *arguments: arguments[1]}
  flip = decorate(type("Mine", (Operator,), call))()
  inner = decorate(type("Mine", (), call))()
  holder = nets_jax.dataclass(type("Holder", (Operator,), {"__annotations__": {"a": object}, **call}))(inner)
  whole = decorate(type("Mine", (nets_jax.Search,), {"find": lambda self, keys, task, how: []}))()
  schedule = decorate(type("Mine", (rate_schedules.Constant,), {}))()
  weights = decorate(type("Mine", (initialisation.He,), {}))()
  for search, on in (
    (paper.replace(operators=(flip,)), task),
    (paper.replace(operators=(holder,)), task),
    (paper.change(noise_scale=inner), task),
    (whole, task),
    (paper, task.replace(training=task.training.replace(schedule=schedule))),
    (paper, task.replace(initialiser=weights)),
  ):
    with pytest.raises(
      nets_jax.UsageError, match=r"^decorate Mine with nets_jax\.dataclass in place of flax\."
    ):
      nets_jax.search(0, on, search)


def test_a_search_without_fields_of_its_own_is_one_line(task):
  bare = type("Bare", (nets_jax.Search,), {"find": lambda self, keys, task, how: []})()
  with pytest.raises(
    nets_jax.UsageError, match=r"^decorate Bare with nets_jax\.dataclass, so that JAX can see"
  ):
    nets_jax.search(0, task, bare)


@pytest.mark.parametrize("schedule", [None, 0.5, [1.0], lambda context: 0.5, schedules.Cubic])
def test_what_is_no_object_of_a_class_is_no_schedule(task, schedule):
  guided = nets_jax.recipes.guided()
  *others, last = guided.operators
  search = guided.replace(operators=(*others, last.replace(schedule=schedule)))
  with pytest.raises(
    nets_jax.UsageError, match=r"^density_schedule must be one of geometric, cubic, constant, or an"
  ):
    search.check(task)


def test_what_cannot_be_decorated_is_one_line():
  with pytest.raises(TypeError, match="One is a dataclass already: leave out what makes it one besides"):
    two(lambda cls: nets_jax.dataclass(flax.struct.dataclass(cls)))
  late = type("Late", (), {"__annotations__": {"x": float}, "x": dataclasses.field(init=False, default=1.0)})
  with pytest.raises(TypeError, match=r"Late\.x must not be init=False"):
    nets_jax.dataclass(late)


def test_no_class_of_ours_is_by_the_decorator_of_flax():
  package = pathlib.Path(nets_jax.__file__).parent
  paths = [path for path in package.rglob("*.py") if path != package / "structs.py"]
  assert len(paths) > 150
  others = re.compile(r"flax\.struct|from flax import [^#]*struct|tree_util\.register_dataclass")
  assert [path for path in paths if others.search(path.read_text())] == []
