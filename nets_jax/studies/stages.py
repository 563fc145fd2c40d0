"""The stages of a comparison: each method's search and final training in independent trials.

A stage's directory is named by a hash of all that its results depend on. A stage that is finished is not run
again, and one that was stopped goes on where it was. Its records are sealed by checksums; one that is damaged
is set aside and run again. A trial whose search fails is a marked row, and the others go on.
"""

import dataclasses
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import jax
from absl import flags

import nets_jax
from nets_jax import searches, settings
from nets_jax.cli import final_training, outcome, records, saving
from nets_jax.cli import setting_flags as search_flags
from nets_jax.cli.method_labels import LabelsParser, read_label
from nets_jax.engine.files import damaged, seal, set_aside
from nets_jax.engine.progress import Progress, say
from nets_jax.engine.tables import read_csv, write_csv
from nets_jax.protocol import Outcome
from nets_jax.studies import tables
from nets_jax.tickets.storage import save_ticket
from nets_jax.tickets.ticket import maskable_count, unmasked_count

flags.DEFINE_integer("trials", 5, "Independent trials of each method.")
flags.DEFINE(
  LabelsParser(),
  "methods",
  None,
  "Searches, each with settings of its own after colons, and a name before an @ if it is to have one "
  "(short@imp:cycle_epochs=10, mine@package.module:Class:share=0.3); what compares them has its default.",
  serializer=flags.ListSerializer(","),
)


@dataclasses.dataclass(frozen=True)
class Entrant:
  """A search with its settings, and where its files go."""

  label: str
  search: nets_jax.Search
  values: flags.FlagValues
  trials: int
  stages: pathlib.Path
  first_trial: int = 0

  @property
  def stage(self) -> pathlib.Path:
    """The directory of its files, named by a hash of all that its results depend on."""
    name = "".join(c if c.isalnum() else "_" for c in self.label)
    own = {**records.identity(self.values, self.search), "seed": self.values.seed, "trials": self.trials}
    own |= {"first_trial": self.first_trial} if self.first_trial else {}
    return self.stages / f"{name}-{records.digest(own)}"

  def keys(self, purpose: int) -> jax.Array:
    """A key for each trial's search (0) or training (1); all methods train by the same keys."""
    return jax.vmap(
      lambda t: jax.random.split(jax.random.fold_in(nets_jax.key_of_seed(self.values.seed), t))[purpose]
    )(self.first_trial + jax.numpy.arange(self.trials))

  def task(self, data: nets_jax.Dataset) -> nets_jax.Task:
    """What it searches tickets for, checked."""
    task = search_flags.make_task(self.values, data)
    self.search.check(task)
    return task


COSTS, TRAINING = "costs.csv", "training.csv"  # the last files of a search, and of a training


def check_names(labels: Sequence[str]) -> None:
  """Raises UsageError if two of `--methods` have one name."""
  names = [read_label(label)[0] for label in labels]
  for name in names:
    if names.count(name) > 1:
      raise nets_jax.UsageError(f"two methods are called {name!r}; write name@method:setting=value")


def make_entrants(
  labels: Sequence[str], values: flags.FlagValues, stages: pathlib.Path, first_trial: int = 0
) -> list[Entrant]:
  """The entrants of `--methods`. A flag that is given is for every search that has such a setting.

  Args:
    labels: see `read_label`.
    values: the flags; a label's own override them.
    stages: directory of all stages' files.
    first_trial: number of the first trial, which decides the keys.

  Raises:
    UsageError: a label that cannot be read, or a flag that none of these searches has.
  """
  check_names(labels)
  entrants = [_make_entrant(label, values, stages, first_trial) for label in labels]
  heard = {name for entrant in entrants for name in _settings_of(entrant)}
  for name in search_flags.given(values):
    if name not in heard:
      having = ", ".join(searches.having_setting(name))
      raise nets_jax.UsageError(
        f"none of these methods has a setting {name!r}; those that have it are {having}"
      )
  return entrants


def _make_entrant(label: str, values: flags.FlagValues, stages: pathlib.Path, first_trial: int) -> Entrant:
  title, name, changes = read_label(label)
  for setting in changes:
    if setting in search_flags.DEFINED and setting not in search_flags.OF_A_METHOD:
      raise nets_jax.UsageError(f"in {label!r}: all methods share one {setting}; give --{setting} instead")
  try:
    own = search_flags.changed(values, changes)
    own.search = name
    search = search_flags.make_search(own, own=changes)
  except nets_jax.UsageError as error:
    raise nets_jax.UsageError(f"in {label!r}: {error}; write method:setting=value") from error
  return Entrant(title, search, own, values.trials, stages, first_trial)


def _settings_of(entrant: Entrant) -> Iterable[str]:
  return settings.names(entrant.search)


def set_aside_damaged(entrant: Entrant) -> None:
  """Renames a finished stage whose records are not what they were, or cannot be read; says so."""
  if not (entrant.stage / COSTS).exists():
    return
  try:
    is_there = lambda name: name != TRAINING or (entrant.stage / name).exists()  # noqa: E731
    found = ", ".join(filter(is_there, damaged(entrant.stage)))  # a training that is gone is only run again
    if not found:
      costs = read_costs(entrant)
      trials = [row.get("trial") for row in costs]
      if trials != [*range(entrant.trials)] or not {"epochs", "unmasked", "weights"} <= set(costs[0]):
        raise nets_jax.UsageError(f"{entrant.stage / COSTS} is damaged")
      for name in ("history.csv", TRAINING):
        if (entrant.stage / name).exists():
          read_csv(entrant.stage / name)
      for row in tables.found(costs):
        nets_jax.load_ticket(ticket_file(entrant, int(row["trial"])))
  except (nets_jax.UsageError, FileNotFoundError, ValueError) as error:  # any other OSError may pass
    found = " ".join(str(error).split())
  if not found:
    seal(entrant.stage)  # as it was read: a process may have been killed before it could
  else:
    aside = set_aside(entrant.stage)
    say(f"{entrant.label}: {entrant.stage} is damaged ({found}); it is now {aside.name}, and run again")


def is_done(entrant: Entrant, what: str, file: pathlib.Path) -> bool:
  """Whether a stage has left its last file; says so either way."""
  if file.exists():
    say(f"{entrant.label}: {what} is done already ({entrant.stage.name})")
  else:
    say(f"{entrant.label}: {what} of {entrant.trials} trials")
  return file.exists()


def search_stage(entrant: Entrant, data: nets_jax.Dataset, keep_cycles: bool = False) -> None:
  """Finds a ticket in each trial: ticket_<trial>.safetensors, history.csv and, last, costs.csv.

  A trial that fails has its reason in costs.csv, and no ticket.

  Args:
    entrant: the method.
    data: the problem.
    keep_cycles: also keeps the tickets of a search that prunes in steps, before each; see `cycle_ticket`.
  """
  set_aside_damaged(entrant)
  done = entrant.stage / COSTS
  if is_done(entrant, "search", done):
    return
  values, task = entrant.values, entrant.task(data)
  where = entrant.stage / saving.DIRECTORY / "search"

  def keep_cycle(cycle, tickets):
    for trial in range(entrant.trials):
      ticket = nets_jax.take(jax.device_get(tickets), trial)
      if unmasked_count(ticket):
        save_ticket(cycle_ticket(entrant, cycle, trial), ticket, task.network)

  with (
    Progress(entrant.label, entrant.search.reports(task, entrant.trials)) as progress,
    saving.checkpoints(values, where, on_restore=progress.take_up) as checkpoints,
  ):
    results = entrant.search.run(
      entrant.keys(0),
      task,
      devices=values.devices,
      chunk=values.chunk,
      on_rows=progress,
      on_tickets=keep_cycle if keep_cycles else None,
      keep_failures=True,
      checkpoints=checkpoints,
    )
  history = []
  for trial, result in enumerate(results):
    if not isinstance(result, nets_jax.SearchFailed):
      save_ticket(ticket_file(entrant, trial), result.ticket, task.network)
    found = result.result if isinstance(result, nets_jax.SearchFailed) else result
    history += [{"trial": trial, **row} for row in (found.history if found else [])]
  if history:
    write_csv(entrant.stage / "history.csv", history)
  write_costs(entrant, results)
  saving.forget(where)
  seal(entrant.stage)


def write_costs(entrant: Entrant, results: Sequence[Outcome]) -> None:
  """Writes costs.csv, the last file of a search: a row for each trial; says what failed or is cut.

  Its columns are what the search cost, the weights left, the layers left empty, and why there is no ticket.
  """
  costs = []
  for trial, result in enumerate(results):
    if isinstance(result, nets_jax.SearchFailed):
      say(f"{entrant.label}: trial {entrant.first_trial + trial} failed: {result}")
      spent = result.result.cost if result.result else nets_jax.Cost(0.0, 0.0, 0.0)
      counts = {"unmasked": 0, "weights": 0, "empty_layers": "", "failed": str(result)}
    else:
      spent = result.cost
      counts = {"unmasked": int(unmasked_count(result.ticket)), "weights": maskable_count(result.ticket)}
      counts |= {"empty_layers": outcome.name_layers(result.empty_layers), "failed": ""}
    costs.append({"trial": trial, **dataclasses.asdict(spent), **counts})
  tickets = [result.ticket for result in results if not isinstance(result, nets_jax.SearchFailed)]
  outcome.warn_of_empty_layers(entrant.label, tickets)
  write_csv(entrant.stage / COSTS, costs)


def read_costs(entrant: Entrant) -> list[dict[str, Any]]:
  """The rows of costs.csv."""
  return read_csv(entrant.stage / COSTS)


def ticket_file(entrant: Entrant, trial: int) -> pathlib.Path:
  """Where a trial's ticket is."""
  return entrant.stage / f"ticket_{trial}.safetensors"


def cycle_ticket(entrant: Entrant, cycle: int, trial: int) -> pathlib.Path:
  """Where `search_stage` keeps a trial's ticket after so many cycles of imp."""
  return entrant.stage / f"cycle_{cycle}" / f"ticket_{trial}.safetensors"


def training_stage(entrant: Entrant, data: nets_jax.Dataset) -> None:
  """Trains the tickets of all trials side by side: training.csv, its seconds shared out."""
  done = entrant.stage / TRAINING
  trials = [int(row["trial"]) for row in tables.found(read_costs(entrant))]
  if not trials or is_done(entrant, "training", done):
    return
  tickets = [nets_jax.load_ticket(ticket_file(entrant, trial)) for trial in trials]
  where = entrant.stage / saving.DIRECTORY / "training"
  keys = entrant.keys(1)[jax.numpy.array(trials)]
  task = entrant.task(data)
  curves = final_training.train(keys, tickets, task, entrant.values, entrant.label, where)
  densities = [float(nets_jax.density(ticket)) for ticket in tickets]
  rows = [
    {**row, "seconds": row["seconds"] / len(trials), "density": densities[row["ticket"]]} for row in curves
  ]
  write_csv(done, [{"trial": trials[row.pop("ticket")], **row} for row in rows])
  saving.forget(entrant.stage / saving.DIRECTORY)
  seal(entrant.stage)
