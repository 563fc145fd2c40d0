"""A setting is defined once, as a field of a dataclass: default, meaning, values it may have, group, flag.

Flags, their help, the documents' table, validation, hashes and what a sweep may vary all follow from that.
The dataclasses are pytrees (`structs.dataclass`): a setting that is traced is a leaf, so that a `vmap`
over it compiles nothing; one that shapes the program is static.

A component (a search, an operator, a ranking, ...) has settings of its own, and parts: fields that hold other
components. A setting's name outside is its `flag`, or `<name>_<field>` with the `name` of its component.
A name is one setting's alone: where an operator occurs twice, its copies have names of their own.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FunctionType
from typing import Any, NamedTuple, TypeVar, cast

from nets_jax import structs
from nets_jax.errors import UsageError
from nets_jax.kinds import ANY, WHOLE, Kind, Rule, check_value, describe, in_words, is_whole

# To be raised when a default changes, of a setting or in a recipe: a result on disk under a hash of settings
# is then no longer taken for one of the new default. Adding a setting leaves it alone. A test holds both.
DEFAULTS_VERSION = 6

Value = TypeVar("Value")
Component = TypeVar("Component")
Path = tuple[str | int, ...]


class Setting(NamedTuple):
  """What a field says of itself; see `setting`."""

  help: str
  group: str
  kind: Kind
  rule: Rule
  static: bool
  flag: str | None
  decides: bool


class Part(NamedTuple):
  """A field that holds components; see `part`."""

  help: str
  group: str
  flag: str | None
  options: Mapping[str, Callable[[], object]]
  base: type
  load: Callable[[str], object] | None = None
  decides: bool = True  # a result depends on which part there is, always


def setting(
  default: Value,
  help: str,
  *,
  group: str,
  kind: Kind,
  rule: Rule = ANY,
  static: bool = False,
  flag: str | None = None,
  decides: bool = True,
) -> Value:
  """A field of a component that is a setting.

  Args:
    default: its value where nobody gives another; the one place that says so.
    help: one sentence.
    group: the heading it stands under in `--help`.
    kind: how it is written and read.
    rule: what values it may have. None, where it is the default, is always one.
    static: whether it shapes the program; else it is traced.
    flag: its name outside; None is the component's `name` and the field's.
    decides: whether a result depends on it; what says where to read or write does not.
  """
  about = Setting(help, group, kind, rule, static, flag, decides)
  return dataclasses.field(default=default, metadata={"pytree_node": not static, "setting": about})


def part(
  default: Callable[[], Value],
  help: str = "",
  *,
  group: str = "",
  flag: str | None = None,
  options: Mapping[str, Callable[[], object]] | None = None,
  base: type = object,
  load: Callable[[str], object] | None = None,
) -> Value:
  """A field of a component that holds another, or a tuple of some.

  Args:
    default: makes what is there where nobody gives another.
    help, group: as of a setting, if it can be chosen by name.
    flag: the setting that chooses, by its name outside; None if there is none.
    options: what may be chosen, by name.
    base: the class that what is there must be of.
    load: makes one of any other name, `package.module:name`, or raises UsageError; None is no such thing.
  """
  about = Part(help, group, flag, dict(options or {}), base, load)
  return dataclasses.field(default_factory=default, metadata={"part": about})


class Place(NamedTuple):
  """Where a setting is: the way to its field from a component, and what the field says of itself."""

  path: Path
  about: Setting | Part
  default: object


def places(component: object, path: Path = ()) -> Iterator[tuple[str, Place]]:
  """Every setting of a component and its parts, by its name outside, in the order of the fields."""
  for field in fields_of(component):
    value, where = getattr(component, field.name), (*path, field.name)
    about = field.metadata.get("setting")
    if about is not None:
      yield _flag(component, field.name, about), Place(where, about, field.default)
    about = field.metadata.get("part")
    if about is None:
      continue
    if about.flag is not None:
      yield about.flag, Place(where, about, None)
    for i, inner in enumerate(value) if isinstance(value, tuple) else [(None, value)]:
      if dataclasses.is_dataclass(type(inner)):
        yield from places(inner, where if i is None else (*where, i))


def fields_of(component: object) -> tuple[dataclasses.Field[object], ...]:
  """Of a dataclass, which a component is; its class's base, a `Search` say, need not be one."""
  return dataclasses.fields(cast(Any, component))


def _flag(component: object, field: str, about: Setting) -> str:
  usual, name = getattr(type(component), "name", ""), getattr(component, "name", "")
  if about.flag is not None and usual == name:
    return about.flag
  return f"{name}_{field}" if name else about.flag or field


def names(component: object) -> list[str]:
  """The names of a component's settings."""
  return list(dict.fromkeys(name for name, _ in places(component)))


def value_at(component: object, path: Sequence[str | int]) -> object:
  """What is at a place."""
  for step in path:
    component = _inner(component, step)
  return component


def _inner(component: object, step: str | int) -> object:
  return cast(tuple, component)[step] if isinstance(step, int) else getattr(component, step)


def values(component: object) -> dict[str, object]:
  """Every setting's value, by its name outside; of a part that is chosen by name that name."""
  by_name: dict[str, object] = {}
  for name, place in places(component):
    value = value_at(component, place.path)
    if isinstance(place.about, Part):
      value = next((key for key, make in place.about.options.items() if type(make()) is type(value)), value)
    by_name.setdefault(name, value)
  return by_name


def check(component: object) -> None:
  """Raises UsageError for the first setting that breaks its rule, or the first part that is none.

  The message is `<name> must be <rule>, not <value>`. None is allowed where it is the default.
  """
  for name, place in places(component):
    if not isinstance(place.about, Setting):
      continue
    value = value_at(component, place.path)
    if value is None:
      if place.default is not None:
        raise UsageError(f"{name} must be {_in_words(place.about)}, not None")
      continue
    check_value(name, place.about.rule, value)
    if place.about.kind is WHOLE and not is_whole(value):
      raise UsageError(f"{name} must be a whole number, not {value}")
  check_parts(component)


def check_parts(component: object) -> None:
  """Raises UsageError for a part that is not of its base, or a class that JAX does not know for itself."""
  if advice := structs.advice(component):
    raise UsageError(advice)
  for field in fields_of(component):
    about = field.metadata.get("part")
    if about is None:
      continue
    for inner in _as_tuple(getattr(component, field.name)):
      if not isinstance(inner, about.base):
        raise UsageError(
          f"{field.name} must be of {about.base.__module__}.{about.base.__name__}, not {inner!r}"
        )
      if about.base is object and (not callable(inner) or isinstance(inner, type | FunctionType)):
        raise UsageError(
          f"{about.flag or field.name} must be one of {', '.join(about.options)}, or an object of a class of "
          f"your own that can be called, not {inner!r}"
        )
      if advice := structs.advice(inner):
        raise UsageError(advice)
      if dataclasses.is_dataclass(inner):
        check_parts(inner)


def _in_words(about: Setting) -> str:
  return about.kind.what if about.rule is ANY else about.rule.text


def record(component: object) -> dict[str, object]:
  """All that a component's results depend on: which parts it has, and every setting's value."""
  others = _others(component)
  shape = [type(component).__name__]
  for field in fields_of(component):
    if "part" in field.metadata:
      shape += map(_shape, _as_tuple(getattr(component, field.name)))
  described = {name: describe(value) for name, value in values(component).items()}
  return {"parts": " ".join(shape), **others, **described}


def _others(component: object) -> dict[str, object]:
  """The fields that are neither settings nor parts, nor the name that settings have before theirs."""
  fields = [field for field in fields_of(component) if not {"setting", "part"} & set(field.metadata)]
  return {field.name: describe(getattr(component, field.name)) for field in fields if field.name != "name"}


def _shape(component: object) -> str:
  """A part's class, with what is no setting of it: an operator's own function, say."""
  if not dataclasses.is_dataclass(component):
    return in_words(component)
  others = ", ".join(f"{name}={value}" for name, value in _others(component).items())
  return f"{describe(type(component))}({others})" if others else in_words(type(component))


def differences(component: object, default: object) -> dict[str, object]:
  """What of `record` is not as in a default, by name."""
  here, there = record(component), record(default)
  return {name: value for name, value in here.items() if name not in there or there[name] != value}


def _as_tuple(value: object) -> tuple[object, ...]:
  return value if isinstance(value, tuple) else (value,)
