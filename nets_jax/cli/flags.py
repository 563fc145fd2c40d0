"""Flags from settings, and the library's objects from the flags' values.

A flag is a field of a component: a search, a task, a network, a data set, a run. Nothing about it is said
here.
Flags of searches have no value of their own: where one is not given, the search has its own default.
"""

import copy
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from absl import flags
from flax import struct

import nets_jax
from nets_jax import searches, settings
from nets_jax.data import Dataset, DataSettings
from nets_jax.errors import UsageError, suggest
from nets_jax.files import replace_file
from nets_jax.initialisation import Normal
from nets_jax.layers import find_layers, scale_of_each
from nets_jax.networks import NetworkSettings, check_outputs
from nets_jax.seeds import SEED, check_seed
from nets_jax.settings import NUMBER, SWITCH, TEXT, WHOLE, Place, Setting, at_least, choice, one_of, setting
from nets_jax.training.task import Task, Training

NAMES = tuple(searches.SEARCHES)


@struct.dataclass
class RunSettings:
  """What to run, where its files go, and on what."""

  search: str = setting(
    "guided", "The ticket search; --method is the same flag.", group="what to run", kind=choice(NAMES),
    rule=one_of(NAMES), static=True,
  )  # fmt: skip
  seed: int = setting(
    0, "Seed of everything but the data split, from 0 to 2^64 - 1.", group="what to run", kind=WHOLE,
    rule=SEED,
    static=True,
  )  # fmt: skip
  workdir: str | None = setting(
    None, "Directory of the run's files; default in runs/, named by what is run.", group="what to run",
    kind=TEXT,
    static=True, decides=False,
  )  # fmt: skip
  overwrite: bool = setting(
    False, "Remove the run that workdir holds first, unless it is this one, unfinished.", group="what to run",
    kind=SWITCH, static=True, decides=False,
  )  # fmt: skip
  tensorboard: bool = setting(
    False, "Write TensorBoard event files beside a run's other files.", group="what to run", kind=SWITCH,
    static=True, decides=False,
  )  # fmt: skip
  devices: int | None = setting(
    None, "Devices to use; default all: one per core on a CPU.", group="machine", kind=WHOLE, static=True,
    decides=False,
  )  # fmt: skip
  chunk: int | None = setting(
    None, "Genomes an accelerator trains at once; default all. A CPU core takes one.", group="machine",
    kind=WHOLE, static=True, decides=False,
  )  # fmt: skip
  compilation_cache_dir: str | None = setting(
    None, "Where compiled programs are kept; default the user's cache directory, '' nowhere.",
    group="machine", kind=TEXT, static=True, decides=False,
  )  # fmt: skip
  checkpoint_every: int = setting(
    1, "Generations, or epochs of a training, between checkpoints; 0 makes none.", group="if it stops",
    kind=WHOLE, rule=at_least(0), static=True, decides=False,
  )  # fmt: skip
  checkpoint_seconds: float = setting(
    30.0, "Least seconds between two checkpoints.", group="if it stops", kind=NUMBER, rule=at_least(0),
    static=True, decides=False,
  )  # fmt: skip


@struct.dataclass
class HostSettings:
  """Which processes a run is of. Their flags are defined by the command that heeds them, and by no other."""

  coordinator_address: str | None = setting(
    None, "host:port of process 0, of a run over several processes.", group="several hosts", kind=TEXT,
    static=True, decides=False,
  )  # fmt: skip
  num_processes: int | None = setting(
    None, "Processes of the run, each started with the same flags.", group="several hosts", kind=WHOLE,
    static=True, decides=False,
  )  # fmt: skip
  process_id: int | None = setting(
    None, "Which of them this is, from 0; process 0 alone writes files.", group="several hosts", kind=WHOLE,
    static=True, decides=False,
  )  # fmt: skip
  distributed: bool = setting(
    False, "Take the three from the cluster (Slurm, Open MPI, Cloud TPU, ...).", group="several hosts",
    kind=SWITCH, static=True, decides=False,
  )  # fmt: skip


class KindParser(flags.ArgumentParser):
  """Reads and writes a flag as its setting says."""

  def __init__(self, kind: settings.Kind):
    """Takes the kind."""
    super().__init__()
    self.kind = kind

  def parse(self, argument: Any) -> Any:
    """The value of a text; a value as it is."""
    return self.kind.parse(argument) if isinstance(argument, str) else argument

  def flag_type(self) -> str:
    """As absl names it."""
    return self.kind.what


class KindSerializer(flags.ArgumentSerializer):
  """Writes a value as its kind does."""

  def __init__(self, kind: settings.Kind):
    """Takes the kind."""
    self.kind = kind

  def serialize(self, value: Any) -> str:
    """As `KindParser` reads it."""
    return self.kind.write(value)


DEFINED: dict[str, Place] = {}  # every flag that is a setting


def define(component: Any) -> None:
  """Defines a flag for each setting of a component, with its default."""
  for name, place in settings.places(component):
    _define(name, place, settings.value_at(component, place.path))


def _define(name: str, place: Place, default: Any) -> None:
  if name in DEFINED:
    return
  DEFINED[name] = place
  kind = place.about.kind if isinstance(place.about, Setting) else choice(tuple(place.about.options))
  if kind is SWITCH:
    flags.DEFINE_bool(name, default, place.about.help)
  elif kind.choices:
    flags.DEFINE_enum(name, default, kind.choices, place.about.help)
  else:
    flags.DEFINE(KindParser(kind), name, default, place.about.help, serializer=KindSerializer(kind))


BARE_TASK = Task(None, None)  # its settings are those of every task
define(RunSettings())
define(DataSettings())
define(NetworkSettings())
define(BARE_TASK)
RUN, DATA, NETWORK, TASK = (
  tuple(settings.names(own)) for own in (RunSettings(), DataSettings(), NetworkSettings(), BARE_TASK)
)
for _places in (settings.places, searches.all_places):  # what a search has before what it could have
  for _make in searches.SEARCHES.values():
    for _name, _place in _places(_make()):
      _define(_name, _place, None)
SEARCH = tuple(name for name in DEFINED if name not in {*RUN, *DATA, *NETWORK, *TASK})
# What a method of a comparison may have for itself: its search's settings, its training's and its
# initialiser's.
OF_A_METHOD = (*SEARCH, *settings.names(Training()), *settings.names(Normal()))
flags.DEFINE_alias("method", "search")

# Flags of 0.1 that are no more, and what does their work.
RENAMED = {
  "density_rule": "--ranking (of `schedule`: --search=guided)",
  "objectives": "--ranking=pareto",
  "dormancy": "--search (guided is by saliency; --saliency=random is blind)",
  "final_scale_deviation": "--scale_deviation=FIRSTtoLAST",
}


def explain(error: flags.Error) -> str:
  """What is wrong with a flag on one line, with the nearest value it could have."""
  text = " ".join(str(error).split())
  unknown = re.match(r"Unknown command line flag '(\w+)'", text)
  if unknown and unknown[1] in RENAMED:
    return f"there is no flag --{unknown[1]} any more; its work is done by {RENAMED[unknown[1]]}"
  wrong = re.match(r"flag --(\w+)=(.*?): ", text)
  if not wrong or wrong[1] not in flags.FLAGS:
    return text
  parser = flags.FLAGS[wrong[1]].parser
  if isinstance(parser, flags.EnumParser):
    if parser.enum_values == list(NAMES) and wrong[2] == "nets":
      return f"{text}; NeTS is paper, as in the paper, or guided, this project's"
    return text + suggest(wrong[2], parser.enum_values)
  kinds = {
    flags.IntegerParser: "a whole number",
    flags.FloatParser: "a number",
    flags.BooleanParser: "true or false",
  }
  what = parser.kind.what if isinstance(parser, KindParser) else kinds.get(type(parser))
  return f"{wrong[0]}it must be {what}" if what else text


def component(default: Any, values: flags.FlagValues) -> Any:
  """A component with the values of the flags that are its settings.

  Raises:
    UsageError: a value that a setting cannot have.
  """
  made = settings.change(default, {name: values[name].value for name in settings.names(default)})
  settings.check(made)
  return made


def check_run(values: flags.FlagValues) -> None:
  """Raises UsageError for impossible seeds or checkpoints."""
  component(RunSettings(), values)
  for name in ("data_seed", "random_seed"):
    if name in values:
      check_seed(name, values[name].value)


def make_data(values: flags.FlagValues) -> Dataset:
  """The data set that the flags name."""
  return component(DataSettings(), values).load()


def make_network(values: flags.FlagValues, num_classes: int) -> nets_jax.MLP:
  """The network that the flags name."""
  return component(NetworkSettings(), values).make(num_classes)


def make_task(values: flags.FlagValues, data: Dataset, network: Any = None) -> Task:
  """The task that the flags name, checked; on a network of its own where one is given.

  Raises:
    UsageError: settings that make no task, or a network that does not go with the data.
  """
  network = network or make_network(values, data.num_classes)
  task = component(Task(network, data), values)
  check_outputs(network, data.input_shape, data.num_classes)
  scale_of_each(task.initialiser.scale, find_layers(network, data.input_shape))
  task.check()
  return task


def given(values: flags.FlagValues) -> dict[str, Any]:
  """The settings of searches that the flags give."""
  return {name: values[name].value for name in SEARCH if values[name].value is not None}


def make_search(values: flags.FlagValues, own: Iterable[str] | None = None) -> nets_jax.Search:
  """The search that the flags name.

  Args:
    values: the flags.
    own: names that must be settings of this search; others are left to the searches that have them. None is
      every one that is given.

  Raises:
    UsageError: it has no such setting; see `searches.make`.
  """
  changes = given(values)
  if own is not None:
    known = {name for name, _ in searches.all_places(searches.SEARCHES[values.search]())}
    changes = {name: value for name, value in changes.items() if name in own or name in known}
    changes = _fitting(values.search, changes, set(own))
  made = searches.make(values.search, changes)
  settings.check(made)
  return made


def _fitting(name: str, changes: dict[str, Any], own: set[str]) -> dict[str, Any]:
  """The changes without those, not its own, of parts that the search does not have."""
  parts = {n: v for n, v in changes.items() if not isinstance(DEFINED[n].about, Setting)}
  known = settings.names(searches.make(name, parts))
  return {n: v for n, v in changes.items() if n in known or n in own}


def plain(name: str, value: Any) -> Any:
  """A setting's value as JSON can hold it: a number, a word, or what is written on the command line."""
  if value is None or isinstance(value, bool | int | float | str) or name not in DEFINED:
    return value
  about = DEFINED[name].about
  return about.kind.write(value) if isinstance(about, Setting) else settings.describe(value)


def explicit(values: flags.FlagValues) -> dict[str, Any]:
  """Every setting of a run with its value, those of its search too, whether given or not."""
  search = make_search(values)
  found = {name: values[name].value for name in (*RUN, *DATA, *NETWORK, *TASK)} | settings.values(search)
  return {name: plain(name, value) for name, value in found.items()}


def task_settings(values: flags.FlagValues) -> dict[str, Any]:
  """The flags of data, network and task that decide a result."""
  names = [name for name in (*DATA, *NETWORK, *TASK) if DEFINED[name].about.decides]
  return {name: plain(name, values[name].value) for name in names}


DEFAULTS = {name: flags.FLAGS[name].default for name in (*RUN, *DATA, *NETWORK, *TASK)}


def identity(values: flags.FlagValues, search: nets_jax.Search) -> dict[str, Any]:
  """All that a run's results depend on but its seed: what differs from the defaults, and their version.

  So a setting that is added moves no result on disk, and a default that is changed takes none for its own.
  """
  defaults = {name: plain(name, DEFAULTS[name]) for name in task_settings(values)}
  changed = {name: value for name, value in task_settings(values).items() if value != defaults[name]}
  return {**searches.identity(values.search, search), **changed}


def digest(value: Any) -> str:
  """Eight digits that name a record."""
  return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:8]


def deciding(values: flags.FlagValues) -> dict[str, Any]:
  """The settings that decide a run's results, with their values, the seed too."""
  search = settings.values(make_search(values))
  search = {name: plain(name, value) for name, value in search.items()}
  return {"search": values.search, "seed": values.seed, **task_settings(values), **search}


def given_plain(values: flags.FlagValues) -> dict[str, Any]:
  """The settings of searches that the flags give, as JSON can hold them."""
  return {name: plain(name, value) for name, value in given(values).items()}


def as_given(values: flags.FlagValues, own: Iterable[str] = ()) -> dict[str, Any]:
  """The flags of several searches together, as they are given: with others of a command's own."""
  names = [name for name in (*RUN, *DATA, *NETWORK, *TASK) if name != "search"]
  found = {name: plain(name, values[name].value) for name in names} | given_plain(values)
  return found | {name: values[name].value for name in own}


def changed(values: flags.FlagValues, changes: Mapping[str, str]) -> flags.FlagValues:
  """A copy of the flags with other values for some, as they would be written on the command line.

  Raises:
    UsageError: no such setting, or a value it cannot have.
  """
  copied = copy.deepcopy(values)
  known = [*SEARCH, *(name for name in (*DATA, *NETWORK, *TASK) if DEFINED[name].about.decides)]
  for name, value in changes.items():
    if name not in known:
      renamed = f"; its work is done by {RENAMED[name]}" if name in RENAMED else suggest(name, known)
      raise UsageError(f"there is no setting {name!r}{renamed}")
    try:
      copied[name].parse(value)
    except flags.Error as error:
      raise UsageError(explain(error)) from error
  return copied


def flagfile(found: Mapping[str, Any]) -> str:
  """The text of a flagfile that gives these flags the values they have; those not set are left out."""

  def text(value):
    if isinstance(value, bool):
      return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)

  return "".join(f"--{name}={text(value)}\n" for name, value in found.items() if value is not None)


def leave_flagfile(path: os.PathLike, found: Mapping[str, Any]) -> str:
  """Writes the flagfile that repeats a run, but for where its files go; returns the flag that reads it."""
  kept = {name: value for name, value in found.items() if name not in ("workdir", "overwrite")}
  with replace_file(path) as temporary:
    temporary.write_text(flagfile(kept))
  return f"--flagfile={path}"


def network_of_ticket(values: flags.FlagValues, path: str) -> nets_jax.MLP:
  """The network that a ticket's file says it is for.

  Raises:
    UsageError: a flag that is given says otherwise.
  """
  network = nets_jax.load_network(path)
  wanted = make_network(values, network.num_classes)
  sizes = "hidden_sizes" if values.network == "mlp" else "network"  # the flag that says how wide it is
  for name in (sizes, *(name for name in NETWORK if name not in ("hidden_sizes", "network"))):
    field = name if name in network.__dataclass_fields__ else "hidden_sizes"
    there, here = getattr(network, field), getattr(wanted, field)
    if values[name].present and there != here:
      raise UsageError(
        f"{path} is for a network of {field} {there}, not {here}; leave --{name} out, or give another ticket"
      )
  return network


def workdir(values: flags.FlagValues, ticket: str | None = None) -> str:
  """The directory of the run's files; by default named by what is run, a ticket by a hash of its file."""
  if values.workdir:
    return values.workdir
  what = values.search
  if ticket:
    path = pathlib.Path(ticket)
    content = path.read_bytes() if path.is_file() else str(path).encode()
    what = f"ticket-{hashlib.sha256(content).hexdigest()[:8]}"
  return os.path.join("runs", f"{values.dataset}-{what}-seed{values.seed}")
