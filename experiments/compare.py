r"""The paper's comparison: Table 1 and Figures 1 to 3, with our figures beside the paper's.

  python -m experiments.compare --dataset=mnist --trials=5
  python -m experiments.compare --dataset=xor --trials=5

Runs each method in independent trials, trains every ticket 50 epochs, and writes table1.md, table1.csv,
figure1, figure2 and figure3 (PNG and SVG) and the CSV that each figure is drawn from. About 40 minutes for
MNIST on two cores; --trials=2 --quick is a version of one minute for trying out.

--methods picks. A method may have flags of its own, as in imp:rewind_epochs=1 or nets:elites=0; `dense` is
the dense network. The flags of presets/paper_<dataset>.flags are set first; the command line overrides them.

Each method's search and training are stages, whose files in stages/ carry a hash of the settings: a stage
that is finished is not run again, and one that was stopped goes on where it was. A directory keeps to one
configuration.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
from absl import app, flags

import nets_jax
from experiments import flags as search_flags
from experiments import methods, saving, tables
from experiments.progress import Progress, say
from experiments.run_directory import check_same, environment, locked, read_config
from nets_jax import plots, storage
from nets_jax.files import replace_file
from nets_jax.tickets import maskable_count, unmasked_count

flags.adopt_module_key_flags(search_flags)
flags.adopt_module_key_flags(methods)
flags.DEFINE_integer("trials", 5, "Independent trials of each method.")
flags.DEFINE_list("methods", ["random", "imp", "nets"], "Methods, each with flags of its own after colons.")
flags.DEFINE_bool("quick", False, "A short version for trying out; its outputs say so.")

QUICK = {"generations": 4, "fitness_epochs": 0.2, "cycle_epochs": 1, "train_epochs": 2}


@dataclasses.dataclass(frozen=True)
class Entrant:
  """A method with its flags, and where its files go."""

  label: str
  method: str
  values: flags.FlagValues
  trials: int
  stages: pathlib.Path

  @property
  def stage(self) -> pathlib.Path:
    """The directory of its files, named by a hash of all that its results depend on."""
    name = "".join(c if c.isalnum() else "_" for c in self.label)
    settings = json.dumps([self.method, self.trials, relevant_settings(self.values)], sort_keys=True)
    return self.stages / f"{name}-{hashlib.sha256(settings.encode()).hexdigest()[:8]}"


def relevant_settings(values: flags.FlagValues) -> dict[str, Any]:
  """The flags that decide results."""
  return {"seed": values.seed, **search_flags.settings(values)}


def make_entrant(label: str, values: flags.FlagValues, stages: pathlib.Path) -> Entrant:
  """Reads `method:flag=value:...`; `dense` is a random ticket that keeps every weight."""
  spec = "random:target_density=1:density_deviation=0" if label == "dense" else label
  method, *overrides = spec.split(":")
  if method not in methods.METHODS:
    raise nets_jax.UsageError(f"methods may be {', '.join(methods.METHODS)} or dense, not {method!r}")
  changes = {name: value for name, _, value in (override.partition("=") for override in overrides)}
  try:
    own = search_flags.changed(values, changes)
  except nets_jax.UsageError as error:
    raise nets_jax.UsageError(f"in {label!r}: {error}; write method:flag=value") from error
  return Entrant(label, method, own, values.trials, stages)


def is_done(entrant: Entrant, what: str, file: pathlib.Path) -> bool:
  """Whether a stage has left its last file; says so either way."""
  if file.exists():
    say(f"{entrant.label}: {what} is done already ({entrant.stage.name})")
  else:
    say(f"{entrant.label}: {what} of {entrant.trials} trials")
  return file.exists()


def search_stage(entrant: Entrant, data: nets_jax.Dataset) -> None:
  """Finds a ticket in each trial: ticket_<trial>.safetensors, history.csv and, last, costs.csv."""
  done = entrant.stage / "costs.csv"
  if is_done(entrant, "search", done):
    return
  values = entrant.values
  network = search_flags.make_network(values, data.num_classes)
  config = methods.make_config(entrant.method, values, len(data.train))
  total = methods.reports(entrant.method, config, len(data.train), entrant.trials)
  where = entrant.stage / saving.DIRECTORY / "search"
  with (
    Progress(entrant.label, total) as progress,
    saving.checkpoints(values, where, on_restore=progress.take_up) as checkpoints,
  ):
    results = methods.search_all(
      entrant.method,
      trial_keys(values, 0),
      network.clone(precision=values.precision),
      data,
      [config] * entrant.trials,
      devices=values.devices,
      chunk=values.chunk,
      on_rows=progress,
      checkpoints=checkpoints,
    )
  for trial, result in enumerate(results):
    storage.save_ticket(entrant.stage / f"ticket_{trial}.safetensors", result.ticket, network)
  history = [{"trial": t, **row} for t, result in enumerate(results) for row in result.history]
  storage.write_csv(entrant.stage / "history.csv", history)
  costs = [
    {"trial": trial, **dataclasses.asdict(result.cost)}
    | {"unmasked": int(unmasked_count(result.ticket)), "weights": maskable_count(result.ticket)}
    for trial, result in enumerate(results)
  ]
  storage.write_csv(done, costs)
  saving.forget(where)


def training_stage(entrant: Entrant, data: nets_jax.Dataset) -> None:
  """Trains the tickets of all trials side by side: training.csv, its seconds shared out."""
  done = entrant.stage / "training.csv"
  if is_done(entrant, "training", done):
    return
  values = entrant.values
  paths = [entrant.stage / f"ticket_{trial}.safetensors" for trial in range(entrant.trials)]
  tickets = [nets_jax.load_ticket(path) for path in paths]
  where = entrant.stage / saving.DIRECTORY / "training"
  with (
    Progress(f"{entrant.label} training", values.train_epochs) as progress,
    saving.checkpoints(values, where, on_restore=progress.take_up) as checkpoints,
  ):
    trained = nets_jax.train_tickets(
      trial_keys(values, 1),
      search_flags.make_network(values, data.num_classes),
      nets_jax.stack(tickets),
      data,
      epochs=values.train_epochs,
      eval_every=values.eval_every,
      optimizer=values.optimizer,
      learning_rate=values.learning_rate,
      batch_size=values.batch_size,
      layout=nets_jax.make_layout(entrant.trials, devices=values.devices, chunk=values.chunk),
      on_rows=progress,
      checkpoints=checkpoints,
    )
  densities = [float(nets_jax.density(ticket)) for ticket in tickets]
  rows = [
    {**row, "seconds": row["seconds"] / entrant.trials, "density": densities[row["ticket"]]}
    for row in trained.curves
  ]
  storage.write_csv(done, [{"trial": row.pop("ticket"), **row} for row in rows])
  saving.forget(entrant.stage / saving.DIRECTORY)


def trial_keys(values: flags.FlagValues, purpose: int) -> jax.Array:
  """A key for each trial's search (0) or training (1); all methods train by the same keys."""
  return jax.vmap(lambda t: jax.random.split(jax.random.fold_in(jax.random.key(values.seed), t))[purpose])(
    jax.numpy.arange(values.trials)
  )


def claim(directory: pathlib.Path, values: flags.FlagValues) -> None:
  """Writes config.json, or checks that the directory is of this configuration."""
  settings = {"trials": values.trials, "quick": values.quick, **relevant_settings(values)}
  path = directory / "config.json"
  if path.exists():
    check_same(directory, read_config(path, "settings"), settings, "give another --workdir")
  else:
    storage.write_json(path, {"settings": settings, **environment()})


def run(values: flags.FlagValues) -> None:
  """All stages that are not done, then the tables and figures of what is there."""
  if values.trials < 1:
    raise nets_jax.UsageError(f"trials must be at least 1, not {values.trials}")
  if values.train_epochs < 1:
    raise nets_jax.UsageError(f"train_epochs must be at least 1, not {values.train_epochs}")
  if values.quick:
    for name, value in QUICK.items():
      values[name].value = value
  name = f"compare-{values.dataset}{'-quick' if values.quick else ''}"
  with locked(values.workdir or str(pathlib.Path("runs") / name)) as directory:
    run_stages(directory, values)


def run_stages(directory: pathlib.Path, values: flags.FlagValues) -> None:
  """The comparison in a directory of its own."""
  entrants = [make_entrant(label, values, directory / "stages") for label in values.methods]
  data = search_flags.make_data(values)
  for entrant in entrants:
    search_flags.make_network(entrant.values, data.num_classes)
    methods.make_config(entrant.method, entrant.values, len(data.train))
  claim(directory, values)
  names = [*search_flags.as_dict(values), "trials", "methods", "quick"]
  again = search_flags.leave_flagfile(directory / "compare.flags", values, names)
  say(f"to repeat this comparison: python -m experiments.compare {again}")
  for entrant in entrants:
    search_stage(entrant, data)
    training_stage(entrant, data)
  write_outputs(directory, entrants, values)
  print((directory / "table1.md").read_text())
  print(f"files in {directory}")


def write_outputs(directory: pathlib.Path, entrants: Sequence[Entrant], values: flags.FlagValues) -> None:
  """The CSVs from the stages' files; the table and figures from the CSVs."""
  note = "quick version, not the paper's setting" if values.quick else ""
  stages = [(entrant.label, entrant.stage) for entrant in entrants]
  storage.write_csv(directory / "table1.csv", tables.table1_rows(stages))
  table = tables.table1(storage.read_csv(directory / "table1.csv"), values.dataset, note)
  with replace_file(directory / "table1.md") as temporary:
    temporary.write_text(table + tables.verdicts(stages))
  drawn = (
    ("figure1", tables.figure1_rows(stages), plots.trials_figure),
    ("figure2", tables.figure2_rows(stages), plots.seconds_figure),
    ("figure3", tables.figure3_rows(stages), plots.training_figure),
  )
  for name, rows, draw in drawn:
    if rows:
      storage.write_csv(directory / f"{name}.csv", rows)
      figure = draw(storage.read_csv(directory / f"{name}.csv"), note)
      for suffix in ("png", "svg"):
        plots.save_figure(figure, directory / f"{name}.{suffix}")


def parse(argv: list[str]) -> list[str]:
  """Sets the flags of the data set's preset before those of the command line."""
  dataset = "mnist"
  for before, argument in zip([None, *argv], argv, strict=False):
    name, equals, value = argument.lstrip("-").partition("=")
    if before in ("--dataset", "-dataset"):
      dataset = argument
    elif name == "dataset" and equals:
      dataset = value
  preset = pathlib.Path(__file__).parent / "presets" / f"paper_{dataset}.flags"
  first = [f"--flagfile={preset}"] if preset.exists() else []
  return search_flags.parse([argv[0], *first, *argv[1:]])


def main(argv: list[str]) -> None:
  """Runs the comparison."""
  del argv
  search_flags.run_main(run)


if __name__ == "__main__":
  app.run(main, flags_parser=parse)
