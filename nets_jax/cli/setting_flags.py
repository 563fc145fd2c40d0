"""Flags from settings, and the library's objects from the flags' values.

A flag is a field of a component: a search, a task, a network, a data set, a run. All is said there.
Flags of searches have no value of their own: where one is not given, the search has its own default.
"""

import copy
import re
from collections.abc import Iterable, Mapping
from typing import cast

from absl import flags

import nets_jax
from nets_jax import plugins, searches, settings
from nets_jax.changes import Component, fitted, fitting
from nets_jax.data.dataset import Dataset
from nets_jax.data.sources import DataSettings
from nets_jax.engine.seeds import check_seed
from nets_jax.errors import UsageError, suggest
from nets_jax.kinds import SWITCH, Kind, choice
from nets_jax.networks.adapter import Network
from nets_jax.networks.initialisation import Given, Normal
from nets_jax.networks.zoo import NETWORKS, NetworkSettings, named
from nets_jax.settings import Place, Setting, check, names, places
from nets_jax.studies.renamed import RENAMED
from nets_jax.studies.run_settings import NAMES, RunSettings
from nets_jax.tickets.storage import load_weights, network_name
from nets_jax.training import objectives
from nets_jax.training.task import BARE_TASK, Task
from nets_jax.training.training import Training


class KindParser(flags.ArgumentParser):
  """Reads and writes a flag as its setting says."""

  def __init__(self, kind: Kind):
    """Takes the kind."""
    super().__init__()
    self.kind = kind

  def parse(self, argument: object) -> object:
    """The value of a text; a value as it is."""
    return self.kind.parse(argument) if isinstance(argument, str) else argument

  def flag_type(self) -> str:
    """As absl names it."""
    return self.kind.what


class KindSerializer(flags.ArgumentSerializer):
  """Writes a value as its kind does."""

  def __init__(self, kind: Kind):
    """Takes the kind."""
    self.kind = kind

  def serialize(self, value: object) -> str:
    """As `KindParser` reads it."""
    return self.kind.write(value)


class OpenChoiceParser(flags.EnumParser):
  """Reads one of some words, or `package.module:name`."""

  def parse(self, argument: str) -> str:
    """The text, always written alike; nothing is imported."""
    if plugins.is_reference(argument):
      return str(plugins.parse(argument))
    try:
      return super().parse(argument)
    except ValueError as error:
      raise ValueError(f"{error}, or package.module:name of your own") from error


DEFINED: dict[str, Place] = {}  # every flag that is a setting


def define(component: object) -> None:
  """Defines a flag for each setting of a component, with its default."""
  defaults = settings.values(component)
  for name, place in searches.all_places(component):
    define_setting(name, place, defaults.get(name, place.default))


def define_setting(name: str, place: Place, default: object) -> None:
  """Defines a flag for a setting, unless there is one."""
  if name in DEFINED:
    return
  DEFINED[name] = place
  kind = kind_of(place)
  if kind is SWITCH:
    flags.DEFINE_bool(name, cast(bool | None, default), place.about.help)
  elif kind.open:
    parser, serializer = OpenChoiceParser(kind.choices), flags.ArgumentSerializer()
    flags.DEFINE(parser, name, default, place.about.help, serializer=serializer)
  elif kind.choices:
    flags.DEFINE_enum(name, cast(str | None, default), kind.choices, place.about.help)
  else:
    flags.DEFINE(KindParser(kind), name, default, place.about.help, serializer=KindSerializer(kind))


def kind_of(place: Place) -> Kind:
  """How a setting's value is written; of a part the names that may be chosen."""
  if isinstance(place.about, Setting):
    return place.about.kind
  return (plugins.choice if place.about.load else choice)(tuple(place.about.options))


_OF_ALL = (RunSettings(), DataSettings(), NetworkSettings(), BARE_TASK)
for _own in _OF_ALL:
  define(_own)
RUN, DATA, NETWORK, TASK = (searches.all_names(_own) for _own in _OF_ALL)
for _places in (places, searches.all_places):  # what a search has before what it could have
  for _make in searches.SEARCHES.values():
    for _name, _place in _places(_make()):
      define_setting(_name, _place, None)
SEARCH = [name for name in DEFINED if name not in {*RUN, *DATA, *NETWORK, *TASK}]
# What a method of a comparison may have for itself: settings of its search, training and initialiser.
OF_A_METHOD = [*SEARCH, *searches.all_names(Training()), *names(Normal()), "init"]
flags.DEFINE_alias("method", "search")


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
  kinds: dict[type, str] = {
    flags.IntegerParser: "a whole number",
    flags.FloatParser: "a number",
    flags.BooleanParser: "true or false",
  }
  what = parser.kind.what if isinstance(parser, KindParser) else kinds.get(type(parser))
  return f"{wrong[0]}it must be {what}" if what else text


def component(default: Component, values: flags.FlagValues) -> Component:
  """A component with the values of the flags that are its settings.

  Raises:
    UsageError: a value that a setting cannot have.
  """
  changes = {name: values[name].value for name in searches.all_names(default)}
  return fitted(default, changes, {name for name in changes if values[name].present})


def check_run(values: flags.FlagValues) -> None:
  """Raises UsageError for impossible seeds or checkpoints."""
  component(RunSettings(), values)
  for name in ("data_seed", "random_seed"):
    if name in values:
      check_seed(name, values[name].value)


def make_data(values: flags.FlagValues) -> Dataset:
  """The data set that the flags name; the flags say from here on which loss and score it asks for."""
  return _named(values, component(DataSettings(), values).load())


def _named(values: flags.FlagValues, data: Dataset) -> Dataset:
  for name, usual in objectives.usual(data).items():
    values[name].value = values[name].value or usual
  return data


def make_network(values: flags.FlagValues, num_classes: int) -> Network:
  """The network that the flags name."""
  return component(NetworkSettings(), values).make(num_classes)


def make_task(values: flags.FlagValues, data: Dataset, network: Network | None = None) -> Task:
  """The task that the flags name, checked; on a network of its own where one is given.

  Raises:
    UsageError: settings that make no task, or a network that does not go with the data.
  """
  network = network or make_network(values, data.num_classes)
  task = component(Task(network, _named(values, data)), values)
  if values.init_weights is not None:
    if any(values[name].present for name in ("init", *names(Normal()))):
      raise UsageError("init_weights takes the place of init and init_scale; give the one or the others")
    task = task.replace(initialiser=Given(load_weights(values.init_weights)))
  task.check()
  return task


def given(values: flags.FlagValues) -> dict[str, object]:
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
    known = {name for name, _ in searches.all_places(searches.default(values.search))}
    changes = {name: value for name, value in changes.items() if name in own or name in known}
    changes = fitting(searches.default(values.search), changes, set(own))
  made = searches.make(values.search, changes)
  check(made)
  return made


def changed(values: flags.FlagValues, changes: Mapping[str, str]) -> flags.FlagValues:
  """A copy of the flags with other values for some, as they would be written on the command line.

  Raises:
    UsageError: no such setting, or a value it cannot have.
  """
  copied = copy.deepcopy(values)
  if "init" in changes:  # one of another kind: what others are made by is not asked of it
    for name in set(names(Normal())) - set(changes):
      copied[name].present = 0
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


def check_own(path: str) -> None:
  """Raises UsageError where a network of one's own is given for a ticket of a ready-made one."""
  name = network_name(path)
  if isinstance(name, str) and name in NETWORKS:
    raise UsageError(f"{path} is for {name}, which is not a network of your own; leave --network out")


def note_network(values: flags.FlagValues, network: Network) -> None:
  """Has the flags say which ready-made network it is, for the records."""
  if found := named(network):
    name, arguments = found
    for flag, value in {"network": name, **arguments}.items():
      if flag in NETWORK:
        values[flag].value = tuple(value) if isinstance(value, list) else value


def network_of_ticket(values: flags.FlagValues, path: str, num_classes: int) -> Network:
  """The network that a ticket's file says it is for; one of a user's own is the one that --network gives.

  Whether that fits the ticket, `check_fits` says. What the file names is never imported.

  Args:
    values: the flags.
    path: of the ticket.
    num_classes: of the data.

  Raises:
    UsageError: a flag that is given says otherwise.
  """
  if plugins.is_reference(values.network):
    check_own(path)
    return make_network(values, num_classes)
  network = nets_jax.load_network(path)
  given = [name for name in NETWORK if values[name].present]
  if found := component(NetworkSettings(), values).contradiction(network, given):
    name, text = found
    raise UsageError(f"{path} is for {text}; leave --{name} out, or give another ticket")
  return network
