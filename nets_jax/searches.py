"""Every ticket search by its name: the one table that turns a name into a search.

A search of one's own has the name `package.module:Class(share=0.3)`, or that of a function that gives one.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, TypeVar, Unpack, overload

from nets_jax import baselines, evolution, plugins, structs
from nets_jax.changes import bringing, change
from nets_jax.engine.seeds import KeyLike, KeysLike, as_keys
from nets_jax.errors import UsageError, suggest
from nets_jax.evolution import recipes
from nets_jax.protocol import Outcome, RunOptions, Search
from nets_jax.settings import Part, Place, names, places
from nets_jax.tickets.results import SearchResult
from nets_jax.training.task import Task

Kind = TypeVar("Kind")


def _named() -> Iterator[tuple[str, Callable[..., Search]]]:
  """What the modules of `evolution` and `baselines` have in their own tables `SEARCHES`."""
  for package in (evolution, baselines):
    for module in pkgutil.iter_modules(package.__path__):
      loaded = importlib.import_module(f"{package.__name__}.{module.name}")
      yield from getattr(loaded, "SEARCHES", {}).items()


# A name's value takes settings by name, and gives a search.
SEARCHES: dict[str, Callable[..., Search]] = dict(_named())


def make(name: str, changes: Mapping[str, object] | None = None) -> Search:
  """The search of a name, with other settings than its own for some.

  Args:
    name: in `SEARCHES`, or `package.module:Class(share=0.3)`, or that of a function that gives a search.
    changes: values by the settings' names.

  Raises:
    UsageError: there is no such search, or it has no such setting; the message says which have. Of one's own
      also what `plugins.load` says, or that it is no search.
  """
  search, changes = default(name), changes or {}
  for setting in changes:
    chosen = _with_parts(search, changes)
    if setting not in names(chosen):
      raise UsageError(f"{name} has no setting {setting!r}{_advice(setting, chosen, name)}")
  return change(search, changes, name)


def default(name: str) -> Search:
  """The search of a name as it is where nobody gives settings; see `make`."""
  if name in SEARCHES:
    return SEARCHES[name]()
  if not plugins.is_reference(name):
    raise UsageError(f"search must be one of {', '.join(SEARCHES)}, not {name!r}{suggest(name, SEARCHES)}")
  reference = plugins.parse(name)
  found = plugins.find(reference)
  if inspect.isclass(found) and not issubclass(found, Search):
    raise UsageError(f"{reference.name} is no search; derive it from nets_jax.Search")
  made = plugins.load(reference)
  if not isinstance(made, Search):
    raise UsageError(f"{reference} gave a {type(made).__name__}; it must give a nets_jax.Search")
  kind = type(made)
  if advice := structs.advice(made, needs_fields=True):
    raise UsageError(f"in {kind.__module__}, {advice}")
  if not {"find", "find_all"} & {name for own in kind.__mro__ if own is not Search for name in vars(own)}:
    raise UsageError(f"{kind.__name__} of {kind.__module__} has no find(keys, task, how); write one")
  return made


def _advice(setting: str, search: Search, name: str) -> str:
  """What has a setting that a search has not: another part of it, or other searches; or the nearest name."""
  having = having_setting(setting)
  having = [] if name in having else having  # with the part that it had
  found = bringing(search, setting)
  advice = f"; it comes with {' or '.join(found)}" if found else ""
  advice += f"; those that have it are {', '.join(having)}" if having else ""
  return advice or suggest(setting, names(search))


def _with_parts(search: Search, changes: Mapping[str, object]) -> Search:
  """The search with those parts changed that are chosen by name, which bring settings of their own."""
  parts = {name for name, place in places(search) if isinstance(place.about, Part)}
  return change(search, {name: value for name, value in changes.items() if name in parts})


def having_setting(name: str) -> list[str]:
  """The searches that have a setting as they are; if none has, those that have it with another part."""
  made = {label: make() for label, make in SEARCHES.items()}
  as_they_are = [label for label, search in made.items() if name in names(search)]
  return as_they_are or [label for label, search in made.items() if name in dict(all_places(search))]


def all_places(component: object) -> Iterator[tuple[str, Place]]:
  """The settings of a component, and of every part that could be chosen for one of its own."""
  for name, place in places(component):
    yield name, place
    if isinstance(place.about, Part):
      for option in place.about.options.values():
        yield from all_places(option())


def all_names(component: object) -> tuple[str, ...]:
  """The names of `all_places`."""
  return tuple(dict.fromkeys(name for name, _ in all_places(component)))


def search(key: KeyLike, task: Task, search: Search | None = None, **how: Unpack[RunOptions]) -> SearchResult:
  """Finds a ticket for a task: the `run` of a search for one key.

  The same key gives the same ticket on any number of devices of a kind, alone or beside other runs.

  Args:
    key: a JAX key, or a seed.
    task: what the ticket is for.
    search: any `protocol.Search`; None is `recipes.guided()`.
    **how: see `protocol.Search.run_all`.

  Raises:
    UsageError, SearchFailed: see there.
  """
  keys = as_keys(key)
  if len(keys) != 1:
    raise UsageError(f"search takes one key, not {len(keys)}; search_all takes several")
  return search_all(keys, task, search, **how)[0]


@overload
def search_all(
  keys: KeysLike,
  task: Task | Sequence[Task],
  search: Search | Sequence[Search] | None = None,
  *,
  keep_failures: Literal[False] = False,
  **how: Unpack[RunOptions],
) -> list[SearchResult]: ...


@overload
def search_all(
  keys: KeysLike,
  task: Task | Sequence[Task],
  search: Search | Sequence[Search] | None = None,
  *,
  keep_failures: bool,
  **how: Unpack[RunOptions],
) -> list[Outcome]: ...


def search_all(
  keys: KeysLike,
  task: Task | Sequence[Task],
  search: Search | Sequence[Search] | None = None,
  *,
  keep_failures: bool = False,
  **how: Unpack[RunOptions],
) -> Sequence[Outcome]:
  """One ticket for each key, the runs side by side, each as it would be alone.

  Args:
    keys: one per run, or seeds.
    task: of all runs, or of each.
    search: of all runs, or of each; those of NeTS may differ in all that is traced.
    keep_failures, **how: see `protocol.Search.run_all`.

  Raises:
    UsageError, SearchFailed: see there.
  """
  keys = as_keys(keys)
  search = recipes.guided() if search is None else search
  tasks, searches = _for_each(task, Task, len(keys)), _for_each(search, Search, len(keys))
  kinds = {type(each) for each in searches}
  if len(kinds) != 1:
    raise UsageError("runs side by side are of one kind of search; run the others apart")
  return kinds.pop().run_all(keys, tasks, searches, keep_failures=keep_failures, **how)


def _for_each(value: Kind | Sequence[Kind], kind: type[Kind], count: int) -> list[Kind]:
  """One for each run: of one for all, or as many."""
  if isinstance(value, kind):
    return [value] * count
  values = []
  for item in value if isinstance(value, list | tuple) else [value]:
    if not isinstance(item, kind):
      raise UsageError(
        "a search takes (key, task, search): a nets_jax.Task and, say, nets_jax.recipes.guided(), not "
        f"{item if isinstance(item, str) else type(item).__name__}"
      )
    values.append(item)
  return values
