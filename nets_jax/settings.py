"""A setting is defined once, as a field of a dataclass: default, meaning, values it may have, group, flag.

Flags, their help, the documents' table, validation, hashes and what a sweep may vary all follow from that.
The dataclasses are pytrees (`flax.struct.dataclass`): a setting that is traced is a leaf, so that a `vmap`
over it compiles nothing; one that shapes the program is static.

A component (a search, an operator, a ranking, ...) has settings of its own, and parts: fields that hold other
components. A setting's name outside is its `flag`, or `<name>_<field>` with the `name` of its component.
A name is one setting's alone: where an operator occurs twice, its copies have names of their own.
"""

import dataclasses
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from nets_jax.errors import UsageError, suggest
from nets_jax.kinds import ANY, WHOLE, Kind, Rule, describe

# To be raised when a default changes, of a setting or in a recipe: a result on disk under a hash of settings
# is then no longer taken for one of the new default. Adding a setting leaves it alone. A test holds both.
DEFAULTS_VERSION = 1


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
  options: Mapping[str, Callable[[], Any]]
  base: type


def setting(
  default: Any,
  help: str,
  *,
  group: str,
  kind: Kind,
  rule: Rule = ANY,
  static: bool = False,
  flag: str | None = None,
  decides: bool = True,
) -> Any:
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
  default: Callable[[], Any],
  help: str = "",
  *,
  group: str = "",
  flag: str | None = None,
  options: Mapping[str, Callable[[], Any]] | None = None,
  base: type = object,
) -> Any:
  """A field of a component that holds another, or a tuple of some.

  Args:
    default: makes what is there where nobody gives another.
    help, group: as of a setting, if it can be chosen by name.
    flag: the setting that chooses, by its name outside; None if there is none.
    options: what may be chosen, by name.
    base: the class that what is there must be of.
  """
  about = Part(help, group, flag, dict(options or {}), base)
  return dataclasses.field(default_factory=default, metadata={"part": about})


class Place(NamedTuple):
  """Where a setting is: the way to its field from a component, and what the field says of itself."""

  path: tuple[str | int, ...]
  about: Setting | Part
  default: Any


def places(component: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str, Place]]:
  """Every setting of a component and its parts, by its name outside, in the order of the fields."""
  for field in dataclasses.fields(component):
    value, where = getattr(component, field.name), (*path, field.name)
    about = field.metadata.get("setting")
    if about is not None:
      yield _flag(component, field.name, about), Place(where, about, field.default)
    about = field.metadata.get("part")
    if about is None:
      continue
    if about.flag is not None:
      yield about.flag, Place(where, about, None)
    for i, own in enumerate(value) if isinstance(value, tuple) else [(None, value)]:
      if dataclasses.is_dataclass(own):
        yield from places(own, where if i is None else (*where, i))


def _flag(component: Any, field: str, about: Setting) -> str:
  own, name = getattr(type(component), "name", ""), getattr(component, "name", "")
  if about.flag is not None and own == name:
    return about.flag
  return f"{name}_{field}" if name else about.flag or field


def names(component: Any) -> list[str]:
  """The names of a component's settings."""
  return list(dict.fromkeys(name for name, _ in places(component)))


def value_at(component: Any, path: Sequence[str | int]) -> Any:
  """What is at a place."""
  for step in path:
    component = component[step] if isinstance(step, int) else getattr(component, step)
  return component


def _put(component: Any, path: Sequence[str | int], value: Any) -> Any:
  """The component with another value at a place."""
  step, *rest = path
  inner = component[step] if isinstance(step, int) else getattr(component, step)
  value = _put(inner, rest, value) if rest else value
  if isinstance(step, int):
    return (*component[:step], value, *component[step + 1 :])
  return dataclasses.replace(component, **{step: value})


def values(component: Any) -> dict[str, Any]:
  """Every setting's value, by its name outside; of a part that is chosen by name that name."""
  found = {}
  for name, place in places(component):
    value = value_at(component, place.path)
    if isinstance(place.about, Part):
      value = next((key for key, make in place.about.options.items() if type(make()) is type(value)), value)
    found.setdefault(name, value)
  return found


def change(component: Any, changes: Mapping[str, Any], what: str = "") -> Any:
  """The component with other values for some settings; those that choose a part come first.

  Args:
    component: it is not changed.
    changes: values by the settings' names outside, or of other fields by theirs. A part is chosen by its
      name, or given itself; where the one before has settings of the same names, these keep their values.
    what: the component's name, for messages.

  Raises:
    UsageError: there is no such setting, or no such part.
  """
  is_part = {name: isinstance(place.about, Part) for name, place in places(component)}
  for name, value in sorted(changes.items(), key=lambda item: not is_part.get(item[0], False)):
    there = [place for own, place in places(component) if own == name]
    if not there and name in {field.name for field in dataclasses.fields(component)}:
      component = dataclasses.replace(component, **{name: value})  # an objective, say, or the operators
      continue
    if not there:
      known = names(component)
      raise UsageError(f"{what or type(component).__name__} has no setting {name!r}{suggest(name, known)}")
    for place in there:
      new = _chosen(name, value, place, component) if isinstance(place.about, Part) else value
      component = _put(component, place.path, new)
  return component


def _chosen(name: str, value: Any, place: Place, component: Any) -> Any:
  """The part of that name, with the settings that the one before had too."""
  if not isinstance(value, str):
    return value
  if value not in place.about.options:
    known = place.about.options
    raise UsageError(f"{name} must be one of {', '.join(known)}, not {value!r}{suggest(value, known)}")
  new, before = place.about.options[value](), value_at(component, place.path)
  if type(new) is type(before):
    return before
  kept = values(before) if dataclasses.is_dataclass(before) else {}
  return change(new, {own: kept[own] for own in names(new) if own in kept})


def check(component: Any) -> None:
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
    if place.about.kind is WHOLE and not _is_whole(value):
      raise UsageError(f"{name} must be a whole number, not {value}")
  check_parts(component)


def check_parts(component: Any) -> None:
  """Raises UsageError for a part that is not of its base, or that JAX does not know as a pytree."""
  for field in dataclasses.fields(component):
    about = field.metadata.get("part")
    for own in _as_tuple(getattr(component, field.name)) if about is not None else ():
      if not isinstance(own, about.base):
        raise UsageError(
          f"{field.name} must be of {about.base.__module__}.{about.base.__name__}, not {own!r}"
        )
      if jax.tree_util.all_leaves([own]):
        raise UsageError(
          f"decorate {type(own).__name__} with flax.struct.dataclass, so that JAX can see into it"
        )
      if dataclasses.is_dataclass(own):
        check_parts(own)


def _in_words(about: Setting) -> str:
  return about.kind.what if about.rule is ANY else about.rule.text


def _is_whole(value: Any) -> bool:
  try:
    operator.index(value)
  except TypeError:
    return False
  return True


def check_value(name: str, rule: Rule, value: Any) -> None:
  """Raises UsageError unless each number of a value (of a schedule, a tuple, an array) keeps to a rule."""
  leaves = jax.tree.leaves(value)
  try:
    holds = all(rule.holds(own) for leaf in leaves for own in (np.ravel(leaf) if np.ndim(leaf) else [leaf]))
  except (TypeError, ValueError):  # a word where a number should be
    holds = False
  if not holds:
    shown = repr(value) if isinstance(value, str) else describe(value)
    raise UsageError(f"{name} must be {rule.text}, not {shown}")
  if problem := getattr(value, "problem", ""):
    raise UsageError(f"{name}={describe(value)}: {problem}")


def record(component: Any) -> dict[str, Any]:
  """All that a component's results depend on: which parts it has, and every setting's value."""
  others = _others(component)
  shape = [type(component).__name__]
  for field in dataclasses.fields(component):
    if "part" in field.metadata:
      shape += [_shape(own) for own in _as_tuple(getattr(component, field.name))]
  found = {name: describe(value) for name, value in values(component).items()}
  return {"parts": " ".join(shape), **others, **found}


def _others(component: Any) -> dict[str, Any]:
  """The fields that are neither settings nor parts, nor the name that settings have before theirs."""
  fields = [field for field in dataclasses.fields(component) if not {"setting", "part"} & set(field.metadata)]
  return {field.name: describe(getattr(component, field.name)) for field in fields if field.name != "name"}


def _shape(own: Any) -> str:
  """A part's class, with what is no setting of it: an operator's own function, say."""
  if not dataclasses.is_dataclass(own):
    return describe(own)
  others = ", ".join(f"{name}={value}" for name, value in _others(own).items())
  return describe(type(own)) + (f"({others})" if others else "")


def differences(component: Any, default: Any) -> dict[str, Any]:
  """What of `record` is not as in a default, by name."""
  here, there = record(component), record(default)
  return {name: value for name, value in here.items() if name not in there or there[name] != value}


def _as_tuple(value: Any) -> tuple:
  return value if isinstance(value, tuple) else (value,)
