"""Dataclasses that are pytrees, each of its own kind."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Self, TypeVar, dataclass_transform

import jax
from flax import struct

T = TypeVar("T")

field = struct.field  # of a dataclass; with `pytree_node=False` no part of the tree


class Struct:
  """Base of classes under `dataclass`: tells a type checker of the method that it adds."""

  if TYPE_CHECKING:

    def replace(self, **changes: object) -> Self:
      """A copy with other values in some fields."""
      ...


@dataclass_transform(field_specifiers=(struct.field,))
def dataclass(cls: type[T]) -> type[T]:
  """Makes a class a frozen dataclass and a pytree, as `flax.struct.dataclass` does, but one of its own kind.

  Fields are leaves or trees of them, but for those of `field(pytree_node=False)`; `replace` gives
  a copy with other values.

  Flax registers by `jax.tree_util.register_dataclass`. In JAX 0.10 to 0.12 the structures of such nodes are
  equal where the fields are, whatever the classes. Only a hash keeps the programs of two classes apart, and
  JAX's tables first look at seven bits of it. So now and then a program made for one ran for the other.

  Raises:
    TypeError: the class is a dataclass already, or has a field that its constructor does not take.
  """
  if "__dataclass_fields__" in vars(cls):
    raise TypeError(f"{cls.__name__} is a dataclass already: leave out what makes it one besides")
  made: Any = dataclasses.dataclass(frozen=True)(cls)
  if unset := [field.name for field in dataclasses.fields(made) if not field.init]:
    raise TypeError(f"{cls.__name__}.{unset[0]} must not be init=False: the fields make a copy")
  is_leaf = {field.name: field.metadata.get("pytree_node", True) for field in dataclasses.fields(made)}
  leaves, others = ([name for name in is_leaf if is_leaf[name] == wanted] for wanted in (True, False))

  def parts(node, wrap=lambda name, value: value):
    values = [wrap(name, getattr(node, name)) for name in leaves]
    return values, tuple(getattr(node, name) for name in others)

  def with_keys(node):
    return parts(node, lambda name, value: (jax.tree_util.GetAttrKey(name), value))

  def made_of(static, values):
    return made(**dict(zip(leaves, values, strict=True)), **dict(zip(others, static, strict=True)))

  jax.tree_util.register_pytree_with_keys(made, with_keys, made_of, parts)
  made.replace = dataclasses.replace
  return made


def advice(tree: object, needs_fields: bool = False) -> str | None:
  """How to decorate a class of what goes into a program; None where all is well.

  Args:
    tree: a component, with whatever is in its fields.
    needs_fields: whether it must be a dataclass of its own, and not only by what it is derived from.
  """
  kind = type(tree)
  if jax.tree_util.all_leaves([tree]) or (needs_fields and "__dataclass_fields__" not in vars(kind)):
    return f"decorate {kind.__name__} with nets_jax.dataclass, so that JAX can see into it"
  if kind := next(_mistakable(tree), None):
    return (
      f"decorate {kind.__name__} with nets_jax.dataclass in place of flax.struct.dataclass or JAX's own, by "
      "which JAX may take it for another class of the same fields"
    )
  return None


def _mistakable(tree: object) -> Iterator[type]:
  """The classes in a tree that JAX tells from others by their fields alone."""
  children, structure = jax.tree.flatten(tree, is_leaf=lambda node: node is not tree)
  if dataclasses.is_dataclass(tree) and (about := structure.node_data()) is not None:
    kind, static = about
    static = static if isinstance(static, tuple) else (static,)
    probe = _probe(len(children), len(static))(*range(len(children)), *static)
    if structure == jax.tree.structure(probe):
      yield kind
  for child in children:
    if child is not tree:
      yield from _mistakable(child)


@functools.cache
def _probe(leaves: int, others: int) -> Any:
  """A class that is no other, by JAX's own registration, with so many fields of either kind."""
  names = [f"leaf_{i}" for i in range(leaves)], [f"other_{i}" for i in range(others)]
  probe = dataclasses.make_dataclass("Probe", [*names[0], *names[1]])
  return jax.tree_util.register_dataclass(probe, *names)
