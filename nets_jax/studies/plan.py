"""What a sweep will run: its runs, and which of them share their programs."""

import dataclasses
import functools
import hashlib
import itertools
import json
import pathlib
from collections.abc import Hashable, Sequence

import jax
from absl import flags

import nets_jax
from nets_jax.cli import records
from nets_jax.cli import setting_flags as search_flags
from nets_jax.engine.files import damaged
from nets_jax.engine.seeds import check_seed
from nets_jax.kinds import WHOLE
from nets_jax.studies import effects, grid

GENOMES_AT_ONCE, RUNS_AT_ONCE = 256, 16
TRIAL_STEPS = 200


@dataclasses.dataclass(frozen=True, eq=False)
class Setting:
  """What a sweep varies: the changes, as written, and all flags with them."""

  changes: grid.Changes
  values: flags.FlagValues

  @functools.cached_property
  def search(self) -> nets_jax.Search:
    """The search."""
    return search_flags.make_search(self.values)

  @functools.cached_property
  def hash(self) -> str:
    """Names all that the results depend on, but for the seed."""
    return records.digest(records.identity(self.values, self.search))

  @functools.cached_property
  def program(self) -> Hashable:
    """Equal where runs can go side by side: the search's own, and the task but for what may vary."""
    task = records.task_settings(self.values)
    return self.search.program(), *((k, str(v)) for k, v in task.items() if k not in self.search.varies)


@dataclasses.dataclass(frozen=True)
class Run:
  """One search, and the directory of its files."""

  setting: Setting
  seed: int
  path: pathlib.Path

  @property
  def is_done(self) -> bool:
    """Whether it has left its last file, and all of its records are whole."""
    return (self.path / "summary.json").exists() and not self.damage()

  def damage(self) -> str:
    """Which records of a finished run are not what they were, or cannot be read; nothing if all are whole."""
    if found := damaged(self.path):
      return ", ".join(found)
    try:
      effects.result_rows([(self.setting.changes, self.seed, self.path)])
      effects.history_rows([(self.setting.changes, self.seed, self.path)])
    except (
      nets_jax.UsageError,
      FileNotFoundError,
      ValueError,
      LookupError,
      TypeError,
      AttributeError,
    ) as error:
      return " ".join(str(error).split())
    return ""


def make_runs(values: flags.FlagValues, directory: pathlib.Path) -> list[Run]:
  """Every run of the sweep, setting by setting."""

  def is_whole(name):
    return getattr(getattr(search_flags.DEFINED.get(name), "about", None), "kind", None) is WHOLE

  drawn = [{}]
  if values.random or values.ranges:
    drawn = grid.draw(values.ranges, values.random, values.random_seed, is_whole)
  settings = {}  # by hash: two ways to write a setting, or two draws of it, are one
  for listed, random in itertools.product(grid.product(values.grid), drawn):
    if both := listed.keys() & random.keys():
      raise nets_jax.UsageError(f"{min(both)} is in --grid and in --ranges; leave it in one of them")
    changes = listed | random
    setting = Setting(changes, search_flags.changed(values, changes))
    settings.setdefault(setting.hash, setting)
  seeds = parse_seeds(values.seeds)
  return [
    Run(setting, seed, directory / "runs" / f"{setting.hash}-seed{seed}")
    for setting in settings.values()
    for seed in seeds
  ]


def parse_seeds(text: str) -> list[int]:
  """`0:10` is 0 to 9, `1,5` these two."""
  try:
    first, colon, end = text.partition(":")
    seeds = range(int(first), int(end)) if colon else [int(word) for word in text.split(",")]
  except ValueError as error:
    raise nets_jax.UsageError(
      f"seeds must be first:end or whole numbers with commas between, not {text!r}"
    ) from error
  if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
    raise nets_jax.UsageError(f"seeds must be at least one, each once and none negative, not {text!r}")
  return [check_seed("each of seeds", seed) for seed in seeds]


@dataclasses.dataclass(frozen=True)
class Group:
  """Runs that share their programs, with what they share."""

  runs: Sequence[Run]
  data: nets_jax.Dataset
  tasks: dict[str, nets_jax.Task] = dataclasses.field(default_factory=dict)

  @property
  def values(self) -> flags.FlagValues:
    """The flags of its first run; they differ in what is traced alone."""
    return self.runs[0].setting.values

  def task(self, run: Run) -> nets_jax.Task:
    """What a run's search is for, checked."""
    if run.setting.hash not in self.tasks:
      task = search_flags.make_task(run.setting.values, self.data)
      run.setting.search.check(task)
      self.tasks[run.setting.hash] = task
    return self.tasks[run.setting.hash]

  def batches(self) -> list[Sequence[Run]]:
    """The runs in parts of one length, so that one program serves; the last part may be shorter."""
    genomes = self.runs[0].setting.search.genomes
    most = self.values.at_once or max(1, min(RUNS_AT_ONCE, GENOMES_AT_ONCE // genomes))
    count = -(-len(self.runs) // most)
    length = -(-len(self.runs) // count)
    return [self.runs[first : first + length] for first in range(0, len(self.runs), length)]


def name(batch: Sequence[Run]) -> str:
  """Names a batch by its runs."""
  return hashlib.sha256(" ".join(run.path.name for run in batch).encode()).hexdigest()[:8]


def make_groups(runs: Sequence[Run]) -> list[Group]:
  """The runs by program, each group with its data and network; every setting is checked."""
  by_program = {}
  for run in runs:
    by_program.setdefault(run.setting.program, []).append(run)
  data, groups = {}, []
  for own in by_program.values():
    values = own[0].setting.values
    where = tuple(values[name].value for name in search_flags.DATA)
    data[where] = data.get(where) or search_flags.make_data(values)
    groups.append(Group(own, data[where]))
    for run in own:
      groups[-1].task(run)
  return groups


def describe(runs: Sequence[Run], groups: Sequence[Group]) -> str:
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
    values, task = group.values, group.task(group.runs[0])
    size = nets_jax.make_layout(GENOMES_AT_ONCE, devices=values.devices).mesh.size
    tickets = [
      nets_jax.random_ticket(jax.random.key(i), task.network, group.data.input_shape, 1.0)
      for i in range(size)
    ]
    steps = min(task.steps_per_epoch, TRIAL_STEPS)
    rows = nets_jax.train_tickets(
      jax.random.key(0),
      nets_jax.stack(tickets),
      task.replace(eval_every=steps),
      steps=2 * steps,
      splits=("valid",),
    ).curves
    per_genome_epoch = (rows[-1]["seconds"] - rows[0]["seconds"]) / size * task.steps_per_epoch / steps
    own = sum(run.setting.search.genome_epochs(group.task(run)) + task.epochs for run in group.runs)
    epochs, seconds = epochs + own, seconds + own * per_genome_epoch
  return f"{epochs:,.0f} genome-epochs, about {_time(seconds)} by a short trial, and compilation"


def _time(seconds: float) -> str:
  """A time for people."""
  unit, length = next((u, n) for u, n in (("h", 3600), ("min", 60), ("s", 1)) if seconds >= 2 * n or n == 1)
  return f"{seconds / length:.1f} {unit}"
