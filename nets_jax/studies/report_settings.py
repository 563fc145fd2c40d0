"""The settings of a run as its page shows them, those that are not the default marked; how to repeat it."""

import functools
from collections.abc import Mapping

from nets_jax import searches, settings
from nets_jax.analysis.page import Code, Paragraph, Part, Section, Table
from nets_jax.data.sources import DataSettings
from nets_jax.kinds import describe
from nets_jax.networks.zoo import NetworkSettings
from nets_jax.settings import Place, Setting
from nets_jax.studies.run_settings import RunSettings
from nets_jax.training.task import BARE_TASK

Known = Mapping[str, object]
OF_A_RUN = {"ticket": None, "frontier": 32, "max_seconds": None}  # flags of `experiments.search`
WHERE = ("workdir", "overwrite")  # which every run has of its own
OF_LABELS = ("loss", "score")  # which follow from the data's labels, so that their defaults are none


@functools.cache
def defaults(search: str | None) -> Known | None:
  """Every setting's default by its name, as `config.json` writes it; None of a search that is not ours.

  Nothing is imported that a file names.

  Args:
    search: whose settings are there too; None is no search's.
  """
  if search is not None and search not in searches.SEARCHES:
    return None
  found: dict[str, object] = dict(OF_A_RUN)
  own = [] if search is None else [searches.default(search)]
  for component in (RunSettings(), DataSettings(), NetworkSettings(), BARE_TASK, *own):
    places = dict(searches.all_places(component))
    found |= {name: _written(places.get(name), value) for name, value in settings.values(component).items()}
  return found | {"search": "guided"}


def _written(place: Place | None, value: object) -> object:
  """A value as JSON has it; see `cli.records.plain`."""
  if value is None or isinstance(value, bool | int | float | str) or place is None:
    return value
  return place.about.kind.write(value) if isinstance(place.about, Setting) else describe(value)


def settings_table(flags: Known, known: Known | None, folded: bool = True) -> list[Part]:
  """What was set otherwise than by default, and a table of all."""
  given = {name: value for name, value in flags.items() if name not in WHERE}
  shown = [(name, in_words(value)) for name, value in given.items() if value is not None]
  if known is None:
    return [Table(("setting", "value"), shown, "All settings", folded=folded, numbers=2)]
  other = {name for name, value in given.items() if value is not None and is_changed(name, value, known)}
  rows = [
    (name, value, in_words(known[name]) if name in other and name in known else "") for name, value in shown
  ]
  marked = [i for i, row in enumerate(rows) if row[0] in other]
  titles = ("setting", "value", "by default")
  caption = "All settings; those that are not the default stand out"
  every = Table(titles, rows, caption, marked=marked, folded=folded, numbers=3)
  changed = [row for row in rows if row[0] in other]
  if not changed:
    return [Paragraph("Every setting is the default."), every]
  return [Table(titles, changed, "What is not the default", numbers=3), every]


def is_changed(name: str, value: object, known: Known) -> bool:
  """Whether a setting has another value than the default; one that has none counts as changed."""
  if name in OF_LABELS and known.get(name) is None:
    return False
  return value != known[name] if name in known else value is not False


def in_words(value: object) -> str:
  """A setting's value as a table shows it."""
  if value is None:
    return "none"
  if isinstance(value, bool):
    return "yes" if value else "no"
  if isinstance(value, Mapping):
    return ", ".join(f"{name}={in_words(own)}" for name, own in value.items()) or "none"
  return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def repeating(command: str, flagfile: str, text: str, config: Known) -> Section:
  """How to do it again: the command, the flagfile's content, versions, device and revision.

  Args:
    command: that reads the flagfile.
    flagfile: its name; none where there is no such file.
    text: its content.
    config: a `config.json`.
  """
  parts: list[Part] = []
  if text:
    parts += [
      Paragraph(
        "In this directory, with another --workdir for the files. Relative paths among the flags are from "
        "where it was started."
      ),
      Code(f"python -m nets_jax {command} --flagfile={flagfile} --workdir=AGAIN"),
      Code(text.rstrip("\n"), flagfile, folded=True),
    ]
  rows = []
  versions, device = config.get("versions"), config.get("device")
  if isinstance(versions, Mapping):
    rows += [(str(name), str(version)) for name, version in versions.items() if version is not None]
  if isinstance(device, Mapping):
    rows.append(("device", f"{device.get('count', '?')} {device.get('kind', '?')}"))
  if config.get("git_revision"):
    rows.append(("git revision", str(config["git_revision"])))
  if rows:
    parts.append(Table(("with", "version"), rows, "What it was made with", numbers=2))
  return Section("How to repeat it", parts)
