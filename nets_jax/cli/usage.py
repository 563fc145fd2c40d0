"""`--help`: what a binary does and its flags by group; and the documents' table of them."""

import itertools
import pathlib
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from absl import flags

from nets_jax import plugins, searches, settings
from nets_jax.cli import plugin_flags, records
from nets_jax.cli import setting_flags as own_flags
from nets_jax.settings import Place, Setting, places
from nets_jax.studies import run_settings

# The order of the groups that settings name.
GROUPS = (
  "what to run", "network", "search", "genetic operators", "guided dormancy", "layer scales",
  "first population", "fitness", "other searches", "training", "machine", "if it stops", "several hosts",
  "data",
)  # fmt: skip
WIDTH, INDENT = 100, 30
HEAD = """# Flags

Made by `python -m nets_jax.cli.usage docs/flags.md` from the settings themselves. A flag of searches has the
default of the search that `--search` names; in brackets is what each has. Naming a flag that the chosen
search does not have is an error. Those of several hosts are of the search command alone.
"""


def asked_for(arguments: Sequence[str]) -> bool:
  """Whether a command line asks for help."""
  return any(a in ("-h", "-help", "--help", "-helpshort", "--helpshort") for a in arguments)


def chosen_search(arguments: Sequence[str]) -> list[str]:
  """The flag of a command line that names the search, if it names one."""
  found = []
  for word, after in itertools.pairwise([*arguments, ""]):
    name, equals, value = word.lstrip("-").partition("=")
    value = value if equals else after
    if (
      word.startswith("-")
      and name in ("search", "method")
      and (value in searches.SEARCHES or plugins.is_reference(value))
    ):
      found = [f"--search={value}"]
  return found


def text(values: flags.FlagValues, module: str, hidden: Sequence[str] = ()) -> str:
  """A command's documentation, then its flags, but for hidden ones."""
  flags_of_it = values.get_key_flags_for_module(module)
  known = {flag.name: flag for flag in flags_of_it if flag.name not in hidden}
  grouped = _grouped()
  shared = {name for names in grouped.values() for name in names} | {"method"}
  groups = {"this command's own": [name for name in known if name not in shared], **grouped}
  lines = [(sys.modules[module].__doc__ or "").strip()]
  for title, names in groups.items():
    own = [name for name in names if name in known]
    if own:
      lines += ["", f"{title}:", *(_entry(known[name]) for name in own)]
  return "\n".join([*lines, "", "--flagfile=FILE reads flags from a file; --helpfull lists absl's own too."])


def table() -> str:
  """Every flag that is a setting of the library's, in Markdown, group by group."""
  lines = [HEAD]
  for title in GROUPS:
    lines += [f"\n## {title}\n", "| flag | default | meaning |", "|---|---|---|"]
    for name in (own for own in _grouped()[title] if own not in plugin_flags.BROUGHT):
      place = _settings()[name]
      default = flags.FLAGS[name].default if name in own_flags.DEFINED else place.default
      default = "" if default is None else f"`{_shown(name, default)}`"
      lines.append(f"| `--{name}` | {default} | {_meaning(name, searches.SEARCHES)} |".replace("  ", " "))
  return "\n".join(lines) + "\n"


def _settings() -> dict[str, Place]:
  """Every setting that is a flag, of one command or of all."""
  return own_flags.DEFINED | dict(places(run_settings.HostSettings()))


def _grouped() -> dict[str, list[str]]:
  """The flags that are settings, by group; groups of a user's own come last."""
  groups = dict.fromkeys([*GROUPS, *(place.about.group for place in _settings().values())])
  return {
    title: [name for name, place in _settings().items() if place.about.group == title] for title in groups
  }


def _entry(flag: flags.Flag) -> str:
  """A flag with its default, and what it means."""
  if flag.boolean:
    head = f"--[no]{flag.name} ({'on' if flag.default else 'off'})"
  elif flag.name in own_flags.SEARCH:
    own = _of_searches(flag.name).get(flags.FLAGS.search)
    head = f"--{flag.name}=" + ("" if own is None else _shown(flag.name, own))
  else:
    head = flag.serialize() if flag.value is not None else f"--{flag.name}="
  help_text = _meaning(flag.name) if flag.name in own_flags.DEFINED else flag.help
  wrapped = textwrap.wrap(help_text, WIDTH - INDENT)
  head = "  " + head
  first = head.ljust(INDENT) if len(head) < INDENT else head + "\n" + " " * INDENT
  return first + ("\n" + " " * INDENT).join(wrapped)


def _meaning(name: str, among: Iterable[str] | None = None) -> str:
  """What a setting means, what it may be, and the defaults of the searches that have it; None is all."""
  about = _settings()[name].about
  choices = about.kind.choices if isinstance(about, Setting) else tuple(about.options)
  parts = [about.help, f"One of {', '.join(choices)}." if choices else ""]
  if name in own_flags.SEARCH:
    by_value = {}
    for search, value in _of_searches(name, among).items():
      by_value.setdefault(_shown(name, value), []).append(search)
    alike = [f"{', '.join(who)}: {value}" for value, who in by_value.items()]
    parts.append(f"[{'; '.join(alike)}]" if alike else "")
  return " ".join(part for part in parts if part)


def _of_searches(name: str, among: Iterable[str] | None = None) -> dict[str, object]:
  """Each search's own default of a setting; None is all, a user's own too."""
  among = [*searches.SEARCHES, *plugin_flags.OWN_SEARCHES] if among is None else among
  found = {search: settings.values(searches.default(search)) for search in among}
  return {search: own[name] for search, own in found.items() if name in own}


def _shown(name: str, value: object) -> str:
  plain = records.plain(name, value)
  if isinstance(plain, bool):
    return str(plain).lower()
  return "none" if plain is None else str(plain)


def _main(arguments: Sequence[str]) -> Iterator[str]:
  for path in arguments:
    pathlib.Path(path).write_text(table())
    yield f"{path} is written"


if __name__ == "__main__":
  print("\n".join(_main(sys.argv[1:])) or table())
