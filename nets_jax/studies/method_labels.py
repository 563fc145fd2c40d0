"""How the methods of a comparison are written: `name@search:setting=value:...`.

The search is one by name, or `package.module:Class(arguments)` of one's own, whose colon comes before no `=`:
of the words between colons, those that begin with `setting=` are settings, and the others are the search.
What stands in brackets or quotes is never cut.
"""

import re
from collections.abc import Mapping, Sequence

from nets_jax import plugins, searches
from nets_jax.errors import UsageError, suggest

_SETTING = re.compile(r"\w+=")


def split_labels(text: str) -> list[str]:
  """Methods with commas between, but for those in brackets."""
  return [label.strip() for label in plugins.split(text, ",") if label.strip()]


def cut(label: str) -> tuple[str, str, list[str]]:
  """The name before the @, or nothing; the search; and the settings as they are written."""
  *title, recipe = plugins.split(label, "@")
  words = plugins.split(recipe, ":")
  after = 1 if words[0] in searches.SEARCHES else len(words)
  count = next((i for i, word in enumerate(words) if i and _SETTING.match(word)), after)
  return "@".join(title), ":".join(words[:count]), words[count:]


def read_label(label: str) -> tuple[str, str, dict[str, str]]:
  """The parts of `name@search:setting=value:...`: the name, or all of it where there is none; search,
  settings.

  Raises:
    UsageError: no such search, or a name that would be taken for one.
  """
  title, name, overrides = cut(label)
  known = list(searches.SEARCHES)
  if name not in known and not plugins.is_reference(name):
    name = name.partition(":")[0]
    hint = "; NeTS is paper or guided" if name == "nets" else suggest(name, known)
    raise UsageError(f"methods may be {', '.join(known[:-1])} or {known[-1]}, not {name!r}{hint}")
  if label.startswith("@") or (title in known and title != name):
    raise UsageError(f"{label!r} needs a name before its @, and not that of another method")
  changes = {name: value for name, _, value in (override.partition("=") for override in overrides)}
  return title or label, name, changes


def with_settings(label: str, changes: Mapping[str, str]) -> str:
  """The label of the same name with other settings."""
  title, search, own = read_label(label)
  return f"{title}@{search}" + "".join(f":{name}={value}" for name, value in {**own, **changes}.items())


def searches_of(labels: Sequence[str]) -> list[str]:
  """The searches of one's own that some methods name."""
  chosen = [cut(label)[1] for label in labels]
  return [name for name in chosen if name not in searches.SEARCHES and plugins.is_reference(name)]
