r"""Seeds x settings of a ticket search, side by side in as few compiled programs as they allow.

  python -m experiments.sweep --seeds=0:10 --grid='noise_rate=0.05,0.1;dormancy_rate=0.1,0.2'
  python -m experiments.sweep --seeds=0:3 --random=64 --ranges='noise_rate=0.01:0.3:log;elites=0:3'

Any flag of a search may be swept, by any --method. Each run is that of experiments.search with the same
flags, bit for bit. --dry_run prints the plan, how many programs it compiles, and an estimate of the time.

The directory holds history.csv (a row for each run and generation), results.csv (a row for each run),
settings.csv and settings.md (mean and 95 % interval over the seeds of each setting), figure_effects.png,
best.flags (a flagfile for experiments.search) and, in runs/, the files of every run. A sweep that was stopped
goes on where it was, and one with more seeds or settings than before runs those alone.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags

import nets_jax
from experiments import effects, grid, methods, outcome
from experiments import flags as search_flags
from experiments.progress import Progress, say
from experiments.run_directory import RunDirectory, environment
from nets_jax import nets, plots, storage
from nets_jax.files import replace_file
from nets_jax.training import steps_per_epoch

flags.adopt_module_key_flags(search_flags)
flags.adopt_module_key_flags(methods)
flags.DEFINE_string("seeds", "0:5", "Seeds of each setting: first:end, or a list with commas.")
flags.DEFINE_string("grid", "", "Settings: every combination of 'flag=value,value;flag=value,value'.")
flags.DEFINE_integer("random", 0, "Settings to draw from --ranges, in place of --grid or for each of it.")
flags.DEFINE_string(
  "ranges", "", "What --random draws from: 'flag=low:high;flag=low:high:log;flag=value,value'."
)
flags.DEFINE_integer("random_seed", 0, "Seed of the draws of --random.")
flags.DEFINE_integer("at_once", None, "Runs side by side; default as many as have 256 genomes, at most 16.")
flags.DEFINE_enum(
  "best_by",
  None,
  effects.METRICS,
  "What decides on the best setting; default valid_loss, fitness if untrained.",
)
flags.DEFINE_bool("dry_run", False, "Print the plan and an estimate of the time, and run nothing.")

GENOMES_AT_ONCE, RUNS_AT_ONCE = 256, 16
TRIAL_STEPS = 200
DATA_FLAGS = ("dataset", "data_seed", "xor_train_size", "xor_test_size")
OWN_FLAGS = ("seeds", "grid", "random", "ranges", "random_seed")


@dataclasses.dataclass(frozen=True, eq=False)
class Setting:
  """What a sweep varies: the changes, as written, and all flags with them."""

  changes: grid.Changes
  values: flags.FlagValues

  @functools.cached_property
  def hash(self) -> str:
    """Names all that the results depend on, but for the seed."""
    settings = json.dumps([self.values.method, search_flags.settings(self.values)], sort_keys=True)
    return hashlib.sha256(settings.encode()).hexdigest()[:8]

  @functools.cached_property
  def program(self) -> str:
    """Equal where runs can go side by side: all settings but those that are traced."""
    traced = nets.traced_fields() if self.values.method == "nets" else ()
    return json.dumps({k: v for k, v in search_flags.settings(self.values).items() if k not in traced})


@dataclasses.dataclass(frozen=True)
class Run:
  """One search, and the directory of its files."""

  setting: Setting
  seed: int
  path: pathlib.Path

  @property
  def is_done(self) -> bool:
    """Whether it has left its last file."""
    return (self.path / "summary.json").exists()


def make_runs(values: flags.FlagValues, directory: pathlib.Path) -> list[Run]:
  """Every run of the sweep, setting by setting."""
  is_whole = lambda name: name in values and isinstance(values[name].parser, flags.IntegerParser)  # noqa: E731
  drawn = [{}]
  if values.random or values.ranges:
    drawn = grid.draw(values.ranges, values.random, values.random_seed, is_whole)
  settings = []
  for listed, random in itertools.product(grid.product(values.grid), drawn):
    if both := listed.keys() & random.keys():
      raise nets_jax.UsageError(f"{min(both)} is in --grid and in --ranges; leave it in one of them")
    changes = listed | random
    settings.append(Setting(changes, search_flags.changed(values, changes)))
  seeds = parse_seeds(values.seeds)
  return [
    Run(setting, seed, directory / "runs" / f"{setting.hash}-seed{seed}")
    for setting in settings
    for seed in seeds
  ]


def parse_seeds(text: str) -> list[int]:
  """`0:10` is 0 to 9, `1,5` these two."""
  try:
    first, colon, end = text.partition(":")
    seeds = list(range(int(first), int(end))) if colon else [int(word) for word in text.split(",")]
  except ValueError as error:
    raise nets_jax.UsageError(
      f"seeds must be first:end or whole numbers with commas between, not {text!r}"
    ) from error
  if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
    raise nets_jax.UsageError(f"seeds must be at least one, each once and none negative, not {text!r}")
  return seeds


@dataclasses.dataclass(frozen=True)
class Group:
  """Runs that share their programs, with what they share."""

  runs: Sequence[Run]
  data: nets_jax.Dataset
  network: nets_jax.MLP

  @property
  def values(self) -> flags.FlagValues:
    """The flags of its first run; they differ in what is traced alone."""
    return self.runs[0].setting.values

  def config(self, run: Run) -> Any:
    """The settings of a run's search, checked."""
    return methods.make_config(self.values.method, run.setting.values, len(self.data.train))

  def batches(self) -> list[Sequence[Run]]:
    """The runs in parts of one length, so that one program serves; the last part may be shorter."""
    genomes = self.config(self.runs[0]).population_size if self.values.method == "nets" else 1
    most = self.values.at_once or max(1, min(RUNS_AT_ONCE, GENOMES_AT_ONCE // genomes))
    count = -(-len(self.runs) // most)
    length = -(-len(self.runs) // count)
    return [self.runs[first : first + length] for first in range(0, len(self.runs), length)]


def make_groups(runs: Sequence[Run]) -> list[Group]:
  """The runs by program, each group with its data and network; every setting is checked."""
  by_program = {}
  for run in runs:
    by_program.setdefault(run.setting.program, []).append(run)
  data, groups = {}, []
  for own in by_program.values():
    values = own[0].setting.values
    if (train_epochs := values.train_epochs) < 0:
      raise nets_jax.UsageError(f"train_epochs must be at least 0, not {train_epochs}")
    where = tuple(values[name].value for name in DATA_FLAGS)
    data[where] = data.get(where) or search_flags.make_data(values)
    groups.append(Group(own, data[where], search_flags.make_network(values, data[where].num_classes)))
    for run in own:
      groups[-1].config(run)
  return groups


def run_batch(group: Group, runs: Sequence[Run], length: int, title: str) -> None:
  """Searches, and trains what was found, side by side; then writes the files of each run."""
  values, todo = group.values, [*runs, *[runs[-1]] * (length - len(runs))]
  keys = [methods.run_keys(run.seed) for run in todo]
  configs = [group.config(run) for run in todo]
  total = max(methods.reports(values.method, config, len(group.data.train), length) for config in configs)
  with Progress(title, total) as progress:
    found = methods.search_all(
      values.method,
      jnp.stack([search for search, _, _ in keys]),
      group.network.clone(precision=values.precision),
      group.data,
      configs,
      devices=values.devices,
      chunk=values.chunk,
      on_rows=progress,
      keep_failures=True,
    )
  curves = train(group, todo, found, jnp.stack([training for _, _, training in keys]), title)
  for run, result, curve in zip(runs, found, curves, strict=False):
    write_run(run, group, result, curve)


def train(
  group: Group, runs: Sequence[Run], found: Sequence[methods.Outcome], keys: jax.Array, title: str
) -> list[list[dict[str, Any]]]:
  """The curve of each ticket in the final training of experiments.search; empty if there is none.

  Where a search failed, another's ticket is trained in its place, to keep to the same program.
  """
  values = group.values
  tickets = [None if isinstance(result, nets_jax.UsageError) else result.ticket for result in found]
  any_ticket = next((ticket for ticket in tickets if ticket is not None), None)
  if any_ticket is None or values.train_epochs == 0:
    return [[] for _ in found]
  with Progress(f"{title} training", values.train_epochs) as progress:
    rows = nets_jax.train_tickets(
      keys,
      group.network,
      nets_jax.stack([any_ticket if ticket is None else ticket for ticket in tickets]),
      group.data,
      epochs=values.train_epochs,
      eval_every=values.eval_every,
      optimizer=values.optimizer,
      learning_rate=[run.setting.values.learning_rate for run in runs],
      batch_size=values.batch_size,
      layout=nets_jax.make_layout(len(found), devices=values.devices, chunk=values.chunk),
      on_rows=progress,
    ).curves
  return [[row for row in rows if row["ticket"] == i] for i in range(len(found))]


def write_run(run: Run, group: Group, result: methods.Outcome, curve: Sequence[dict[str, Any]]) -> None:
  """The files that experiments.search leaves, but for the figure; summary.json is the last."""
  method, directory = group.values.method, RunDirectory(str(run.path), overwrite=True)
  directory.open(search_flags.as_dict(run.setting.values) | {"seed": run.seed, "workdir": str(run.path)})
  if isinstance(result, nets_jax.UsageError):
    storage.write_json(directory / "summary.json", {"failed": str(result)})
    return
  storage.write_csv(directory / "history.csv", result.history)
  storage.save_ticket(directory / "ticket.safetensors", result.ticket, group.network)
  results = {}
  if curve:
    storage.write_csv(directory / "training.csv", [{**row, "ticket": method} for row in curve])
    results = {method: outcome.results_of(result.ticket, curve[-1])}
  storage.write_json(directory / "summary.json", outcome.summarise(result, results, {}))


def plan(runs: Sequence[Run], groups: Sequence[Group]) -> str:
  """What a sweep will do."""
  todo = sum(len(group.runs) for group in groups)
  lines = [f"{len(runs)} runs, {len(runs) - todo} of them done; {todo} to go in {len(groups)} program(s)"]
  for i, group in enumerate(groups):
    batches = group.batches()
    lines.append(
      f"program {i + 1}: {len(group.runs)} runs, {len(batches)} batch(es) of {len(batches[0])} side by side"
    )
    settings = dict.fromkeys(json.dumps(run.setting.changes) for run in group.runs)
    for text in settings:
      seeds = [run.seed for run in group.runs if json.dumps(run.setting.changes) == text]
      changes = ", ".join(f"{k}={v}" for k, v in json.loads(text).items()) or "the flags as given"
      lines.append(f"  {changes}: seed {', '.join(map(str, seeds))}")
  return "\n".join(lines)


def estimate(groups: Sequence[Group]) -> str:
  """The time a sweep will take, from the training of one ticket per device for some steps in each program."""
  seconds = epochs = 0.0
  for group in groups:
    values, examples = group.values, len(group.data.train)
    size = nets_jax.make_layout(GENOMES_AT_ONCE, devices=values.devices).mesh.size
    tickets = [
      nets_jax.random_ticket(jax.random.key(i), group.network, group.data.input_shape, 1.0)
      for i in range(size)
    ]
    per_epoch = steps_per_epoch(examples, values.batch_size)
    steps = min(per_epoch, TRIAL_STEPS)
    training = {
      "optimizer": values.optimizer,
      "learning_rate": values.learning_rate,
      "batch_size": values.batch_size,
    }
    rows = nets_jax.train_tickets(
      jax.random.key(0),
      group.network,
      nets_jax.stack(tickets),
      group.data,
      steps=2 * steps,
      eval_every=steps,
      splits=("valid",),
      **training,
    ).curves
    per_genome_epoch = (rows[-1]["seconds"] - rows[0]["seconds"]) / size * per_epoch / steps
    own = sum(
      methods.search_epochs(values.method, group.config(run), examples) + values.train_epochs
      for run in group.runs
    )
    epochs, seconds = epochs + own, seconds + own * per_genome_epoch
  return (
    f"{epochs:,.0f} genome-epochs, about {_time(seconds)} by a trial of {TRIAL_STEPS} steps, and compilation"
  )


def _time(seconds: float) -> str:
  """A time for people."""
  return (
    f"{seconds:.0f} s"
    if seconds < 120
    else f"{seconds / 60:.0f} min"
    if seconds < 7200
    else f"{seconds / 3600:.1f} h"
  )


def write_outputs(directory: pathlib.Path, runs: Sequence[Run], values: flags.FlagValues) -> str:
  """The sweep's tables and figure, from the files of its runs. Returns the table of settings."""
  names = list(runs[0].setting.changes)
  files = [(run.setting.changes, run.seed, run.path) for run in runs]
  storage.write_csv(directory / "results.csv", effects.result_rows(files))
  storage.write_csv(directory / "history.csv", effects.history_rows(files))
  results = storage.read_csv(directory / "results.csv")
  settings = effects.setting_rows(results, names)
  storage.write_csv(directory / "settings.csv", settings)
  best, metric = effects.best(settings, values.best_by)
  table = effects.markdown(settings, names, best)
  with replace_file(directory / "settings.md") as temporary:
    temporary.write_text(table)
  if names:
    figure = plots.effects_figure(results, names)
    plots.save_figure(figure, directory / "figure_effects.png")
  if best is None:
    return f"{table}\nno setting came through with every run"
  setting = list(dict.fromkeys(run.setting for run in runs))[best]
  with replace_file(directory / "best.flags") as temporary:
    temporary.write_text(
      search_flags.flagfile(setting.values, ["method", *search_flags.settings(setting.values)])
    )
  return f"{table}\nbest by {metric}: python -m experiments.search --flagfile={directory / 'best.flags'}"


def run(values: flags.FlagValues) -> None:
  """All runs that are not done, then the tables of all."""
  for name in ("seed", "ticket"):
    if values[name].present:
      raise nets_jax.UsageError(f"--{name} is for experiments.search; a sweep takes --seeds, and searches")
  if values.at_once is not None and values.at_once < 1:
    raise nets_jax.UsageError(f"at_once must be at least 1, not {values.at_once}")
  directory = pathlib.Path(values.workdir or pathlib.Path("runs") / f"sweep-{values.dataset}-{values.method}")
  runs = make_runs(values, directory)
  groups = make_groups([run for run in runs if not run.is_done])
  say(plan(runs, groups))
  if values.dry_run:
    say(estimate(groups))
    return
  own = {name: values[name].value for name in OWN_FLAGS}
  settings = {"method": values.method, **search_flags.settings(values)}
  storage.write_json(directory / "config.json", {"sweep": own, "settings": settings, **environment()})
  for i, group in enumerate(groups):
    batches = group.batches()
    for j, batch in enumerate(batches):
      run_batch(group, batch, len(batches[0]), f"program {i + 1}/{len(groups)}, batch {j + 1}/{len(batches)}")
  print(write_outputs(directory, runs, values))
  print(f"files in {directory}")


def main(argv: list[str]) -> None:
  """Runs the sweep."""
  del argv
  search_flags.run_main(run)


if __name__ == "__main__":
  app.run(main, flags_parser=search_flags.parse)
