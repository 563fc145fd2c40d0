"""Other values for a component's settings, and other parts, which bring settings of their own."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar, cast

from nets_jax.errors import UsageError, suggest
from nets_jax.settings import Part, check, fields_of, names, places, value_at, values

Component = TypeVar("Component")


def change(component: Component, changes: Mapping[str, object], what: str = "") -> Component:
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
    there = [place for known, place in places(component) if known == name]
    if not there and name in {field.name for field in fields_of(component)}:
      component = _with(component, name, value)  # an objective, say, or the operators
      continue
    if not there:
      known = names(component)
      raise UsageError(f"{what or type(component).__name__} has no setting {name!r}{suggest(name, known)}")
    for place in there:
      new = value
      if isinstance(place.about, Part) and isinstance(value, str):
        new = _chosen(name, value, place.about, value_at(component, place.path))
      component = _put(component, place.path, new)
  return component


def bringing(component: object, setting: str) -> list[str]:
  """What brings a setting that a component has not: other parts, as `init=normal`."""
  parts = [(name, place.about) for name, place in places(component)]
  options = [(name, about.options) for name, about in parts if isinstance(about, Part)]
  return [f"{name}={option}" for name, of in options for option in of if setting in names(of[option]())]


def _chosen(name: str, value: str, about: Part, before: object) -> object:
  """The part of that name, with the settings that the one before had too."""
  options = about.options
  if value not in options and about.load is None:
    raise UsageError(f"{name} must be one of {', '.join(options)}, not {value!r}{suggest(value, options)}")
  new = options[value]() if value in options or about.load is None else about.load(value)
  if type(new) is type(before) and value in options:
    return before
  kept = values(before) if dataclasses.is_dataclass(before) else {}
  return change(new, {setting: kept[setting] for setting in names(new) if setting in kept})


def fitting(component: object, changes: Mapping[str, object], asked: Collection[str]) -> dict[str, object]:
  """The changes without those of parts that a component does not have once its parts are chosen.

  Args:
    component: it is not changed.
    changes: see `change`.
    asked: names that stay in any case, so that `change` says what is wrong with them.

  Raises:
    UsageError: one of these comes with another part.
  """
  parts = {name for name, place in places(component) if isinstance(place.about, Part)}
  chosen = change(component, {name: value for name, value in changes.items() if name in parts})
  known = names(chosen)
  for name in asked:
    if name not in known and (found := bringing(chosen, name)):
      raise UsageError(f"{name} comes with {' or '.join(found)}; choose that, or leave {name} out")
  return {name: value for name, value in changes.items() if name in known or name in asked}


def fitted(component: Component, changes: Mapping[str, object], asked: Collection[str]) -> Component:
  """`change` by those changes alone that are settings of the component; checked.

  Raises:
    UsageError: see `change` and `settings.check`.
  """
  made = change(component, fitting(component, changes, asked))
  check(made)
  return made


def _put(component: Component, path: Sequence[str | int], value: object) -> Component:
  """The component with another value at a place."""
  step, *rest = path
  value = _put(value_at(component, (step,)), rest, value) if rest else value
  if isinstance(step, int):
    parts = cast(tuple, component)
    return cast(Component, (*parts[:step], value, *parts[step + 1 :]))
  return _with(component, step, value)


def _with(component: Component, field: str, value: object) -> Component:
  return dataclasses.replace(cast(Any, component), **{field: value})
