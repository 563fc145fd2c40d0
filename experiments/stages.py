"""The stages of a comparison: each method's search and final training in independent trials.

A stage's directory is named by a hash of all that its results depend on. A stage that is finished is not run
again, and one that was stopped goes on where it was. Its records are sealed by checksums; one that is damaged
is set aside and run again. A trial whose search fails is a marked row, and the others go on.
"""

import dataclasses
import hashlib
import json
import pathlib
import types
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from absl import flags

import nets_jax
from experiments import final_training, methods, outcome, saving, tables
from experiments import flags as search_flags
from experiments.progress import Progress, say
from nets_jax import storage
from nets_jax.files import damaged, seal, set_aside
from nets_jax.tickets import maskable_count, unmasked_count

flags.DEFINE_integer("trials", 5, "Independent trials of each method.")
flags.DEFINE_list(
  "methods",
  None,
  "Methods, each with flags of its own after colons, and a name before an @ if it is to have one "
  "(short@imp:cycle_epochs=10); what compares them has its default.",
)


@dataclasses.dataclass(frozen=True)
class Entrant:
  """A method with its flags, and where its files go."""

  label: str
  method: str
  values: flags.FlagValues
  trials: int
  stages: pathlib.Path
  first_trial: int = 0

  @property
  def stage(self) -> pathlib.Path:
    """The directory of its files, named by a hash of all that its results depend on."""
    name = "".join(c if c.isalnum() else "_" for c in self.label)
    own = [self.method, self.trials, search_flags.relevant_settings(self.values)]
    own += [self.first_trial] if self.first_trial else []
    return self.stages / f"{name}-{hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:8]}"

  def keys(self, purpose: int) -> jax.Array:
    """A key for each trial's search (0) or training (1); all methods train by the same keys."""
    return jax.vmap(
      lambda t: jax.random.split(jax.random.fold_in(nets_jax.key_of_seed(self.values.seed), t))[purpose]
    )(self.first_trial + jax.numpy.arange(self.trials))


COSTS, TRAINING = "costs.csv", "training.csv"  # the last files of a search, and of a training
DENSE = {"target_density": "1", "density_deviation": "0"}  # of a random ticket
# Of a preset's settings those that are of the training that all methods share, or of the ticket asked for.
SHARED = ("optimizer", "learning_rate", "batch_size", "init_scale", "target_density")


def read_label(label: str) -> tuple[str, str, dict[str, str]]:
  """The parts of `name@method:flag=value:...`: the name, or all of it where there is none; method and flags.

  Raises:
    UsageError: no such method, or a name that would be taken for one.
  """
  title, at, recipe = label.rpartition("@")
  method, *overrides = recipe.split(":")
  known = [*methods.METHODS, "dense", "guided"]
  if method not in known:
    raise nets_jax.UsageError(f"methods may be {', '.join(known[:-1])} or guided, not {method!r}")
  if at and (not title or title in known):
    raise nets_jax.UsageError(f"{label!r} needs a name before its @, and not that of a method")
  changes = {name: value for name, _, value in (override.partition("=") for override in overrides)}
  return title or recipe, method, changes


def check_names(labels: Sequence[str]) -> None:
  """Raises UsageError if two of `--methods` have one name."""
  names = [read_label(label)[0] for label in labels]
  for name in names:
    if names.count(name) > 1:
      raise nets_jax.UsageError(f"two methods are called {name!r}; write name@method:flag=value")


def make_entrant(
  label: str,
  values: flags.FlagValues,
  stages: pathlib.Path,
  settings: Mapping[str, str] = types.MappingProxyType({}),
  first_trial: int = 0,
) -> Entrant:
  """Reads `name@method:flag=value:...` (see `read_label`), where the method may also be `dense` or `guided`.

  `dense` is a random ticket that keeps every weight; `guided` is nets with the search's settings of
  presets/guided_<dataset>.flags, or of MNIST's for a set that has none.

  Args:
    label: as in `--methods`.
    values: the flags.
    stages: directory of all stages' files.
    settings: more flags for this entrant, which the label's own override.
    first_trial: number of its first trial, which decides their keys.
  """
  title, name, changes = read_label(label)
  method, first = {"dense": ("random", DENSE), "guided": ("nets", {})}.get(name, (name, {}))
  if name == "guided":
    first = guided_settings(values.dataset)
  changes = {**first, **settings, **changes} if name != "dense" else {**settings, **first, **changes}
  try:
    own = search_flags.changed(values, changes)
  except nets_jax.UsageError as error:
    raise nets_jax.UsageError(f"in {label!r}: {error}; write method:flag=value") from error
  return Entrant(title, method, own, values.trials, stages, first_trial)


def guided_settings(dataset: str) -> dict[str, str]:
  """The search's own settings in the preset of guided NeTS, as written there."""
  presets = pathlib.Path(__file__).parent / "presets"
  own = presets / f"guided_{dataset}.flags"
  text = (own if own.exists() else presets / "guided_mnist.flags").read_text()
  given = dict(line[2:].split("=", 1) for line in text.splitlines() if line.startswith("--"))
  fields = nets_jax.NetsConfig.__dataclass_fields__
  return {name: value for name, value in given.items() if name in fields and name not in SHARED}


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
          storage.read_csv(entrant.stage / name)
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
    keep_cycles: of imp also keeps the tickets that it had after each cycle; see `cycle_ticket`.
  """
  set_aside_damaged(entrant)
  done = entrant.stage / COSTS
  if is_done(entrant, "search", done):
    return
  values = entrant.values
  network = search_flags.make_network(values, data.num_classes)
  config = methods.make_config(entrant.method, values, len(data.train))
  total = methods.reports(entrant.method, config, len(data.train), entrant.trials)
  where = entrant.stage / saving.DIRECTORY / "search"

  def keep_cycle(cycle, tickets):
    for trial in range(entrant.trials):
      ticket = nets_jax.take(jax.device_get(tickets), trial)
      if unmasked_count(ticket):
        storage.save_ticket(cycle_ticket(entrant, cycle, trial), ticket, network)

  kept = {"on_cycle": keep_cycle} if keep_cycles else {}
  with (
    Progress(entrant.label, total) as progress,
    saving.checkpoints(values, where, on_restore=progress.take_up) as checkpoints,
  ):
    results = methods.search_all(
      entrant.method,
      entrant.keys(0),
      network.clone(precision=values.precision),
      data,
      [config] * entrant.trials,
      devices=values.devices,
      chunk=values.chunk,
      on_rows=progress,
      keep_failures=True,
      checkpoints=checkpoints,
      **kept,
    )
  history = []
  for trial, result in enumerate(results):
    if not isinstance(result, nets_jax.SearchFailed):
      storage.save_ticket(ticket_file(entrant, trial), result.ticket, network)
    found = result.result if isinstance(result, nets_jax.SearchFailed) else result
    history += [{"trial": trial, **row} for row in (found.history if found else [])]
  if history:
    storage.write_csv(entrant.stage / "history.csv", history)
  write_costs(entrant, results)
  saving.forget(where)
  seal(entrant.stage)


def write_costs(entrant: Entrant, results: Sequence[methods.Outcome]) -> None:
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
  storage.write_csv(entrant.stage / COSTS, costs)


def read_costs(entrant: Entrant) -> list[dict[str, Any]]:
  """The rows of costs.csv."""
  return storage.read_csv(entrant.stage / COSTS)


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
  network = search_flags.make_network(entrant.values, data.num_classes)
  curves = final_training.train(keys, tickets, network, data, entrant.values, entrant.label, where)
  densities = [float(nets_jax.density(ticket)) for ticket in tickets]
  rows = [
    {**row, "seconds": row["seconds"] / len(trials), "density": densities[row["ticket"]]} for row in curves
  ]
  storage.write_csv(done, [{"trial": trials[row.pop("ticket")], **row} for row in rows])
  saving.forget(entrant.stage / saving.DIRECTORY)
  seal(entrant.stage)
