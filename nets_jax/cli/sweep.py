r"""Seeds x settings of a ticket search, side by side in as few compiled programs as they allow.

  python -m experiments.sweep --search=paper --seeds=0:10 --grid='noise_rate=0.05,0.1;elites=1,2'
  python -m experiments.sweep --seeds=0:3 --sampler=qmc --samples=64 --ranges='noise_rate=0.1:1;elites=0:3'

Any setting of a search or its task may be swept, by any --search. Each run is that of experiments.search
with the same flags, bit for bit. --dry_run prints the plan, how many programs it compiles, and an estimate
of the time. A range may hold under a condition, as in
'optimizer=sgd,adam;learning_rate[optimizer=adam]=1e-4:1e-2:log'.

The directory holds history.csv (a row for each run and generation), results.csv (a row for each run),
settings.csv and settings.md (mean and 95 % interval over the seeds of each setting), figure_effects.png,
best.flags (a flagfile for experiments.search) and, in runs/, the files of every run. A sweep that was stopped
goes on where it was, and one with more seeds or settings than before runs those alone. Workers that are
started with the same command, on one host or many, share the runs; by grid, random and qmc a result does not
depend on who ran it.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping

from absl import flags

from nets_jax.cli import command, records, setting_flags, study
from nets_jax.data.dataset import Dataset
from nets_jax.engine.messages import say
from nets_jax.errors import UsageError
from nets_jax.kinds import WHOLE
from nets_jax.studies import places, report, space, work
from nets_jax.studies.adaptive import Adaptive, choose
from nets_jax.studies.best import BEST_BY
from nets_jax.studies.methods import Method, check, seed_runs
from nets_jax.studies.pruning import PRUNERS, check_prunable, make_prune
from nets_jax.studies.run_directory import claim
from nets_jax.studies.sweeps import Sweep, parse_seeds, sweep, told_by

flags.adopt_module_key_flags(setting_flags)
flags.adopt_module_key_flags(study)
flags.DEFINE_string("seeds", "0:5", "Seeds of each setting: first:end, or a list with commas.")
flags.DEFINE_string("grid", "", "Settings: every combination of 'flag=value,value;flag=value,value'.")
flags.DEFINE_enum("sampler", "grid", space.SAMPLERS, "Draws --samples settings from --ranges, but for grid.")
flags.DEFINE_integer("samples", 0, "Settings to draw from --ranges, for each of --grid.")
flags.DEFINE_string(
  "ranges", "", "What is drawn from: 'flag=low:high;flag=low:high:log;flag=value,value;flag[flag=value]=...'."
)
flags.DEFINE_integer("sampler_seed", 0, "Seed of the draws.")
flags.DEFINE_enum(
  "pruner", "none", tuple(PRUNERS), "Ends hopeless runs early, by Optuna's pruner of that name."
)
flags.DEFINE_enum(
  "best_by", None, BEST_BY, "What tells the best setting; default valid_loss, or fitness without a training."
)

OWN_FLAGS = ("seeds", "grid", "sampler", "samples", "ranges", "sampler_seed", "pruner", "best_by")


def run(values: flags.FlagValues) -> None:
  """All runs that are not done, then the tables of all."""
  if values["seed"].present:
    raise UsageError("--seed is for experiments.search; a sweep takes --seeds")
  seeds, how = parse_seeds(values.seeds), study.options(values)
  settings = make_settings(values)
  name = f"sweep-{places.file_name(values.dataset)}-{places.file_name(values.search)}"
  directory = pathlib.Path(values.workdir or places.RUNS / name)
  if values.pruner != "none":
    check_prunable(settings)
  if isinstance(settings, Adaptive):
    settings.check_kept(how.machine.keep_trained)
    plan = f"{settings.samples} settings by tpe, each as this one:\n" if values.dry_run else ""
    plan += work.plan(seed_runs([settings.example()], seeds, directory), how) if values.dry_run else ""
  else:
    check(settings, how.machine.keep_trained)
    plan = work.plan(seed_runs(settings, seeds, directory), how) if values.dry_run else ""
  told_by(values.best_by, settings)
  if values.dry_run:
    print(plan)
    return
  own = {name: values[name].value for name in OWN_FLAGS}
  record = {"search": values.search, **records.task_settings(values), **records.given_plain(values)}
  claim(directory, record | {"sweep": own}, keeps=False)
  given = {name: value for name, value in records.as_given(values, OWN_FLAGS).items() if name != "seed"}
  again = records.leave_flagfile(directory / "sweep.flags", {"search": values.search, **given})
  say(f"to repeat this sweep: python -m nets_jax sweep {again} --workdir={directory}")
  if values.pruner != "none":
    prune = make_prune(values.pruner, directory, values.storage)
    how = dataclasses.replace(how, machine=dataclasses.replace(how.machine, prune=prune))
  found = sweep(settings, seeds, metric=values.best_by, directory=directory, options=how)
  print(write(directory, found))
  report.leave(directory)
  print(f"files in {directory}")


def write(directory: pathlib.Path, found: Sweep) -> str:
  """The sweep's files; returns the table, with the best setting and how certain that is."""
  table, method, (_, metric) = found.write(directory), found.best_method, found.best
  if method is None:
    return f"{table}\nno setting came through with every run"
  path = directory / "best.flags"
  records.leave_flagfile(path, records.repeatable(method.record))
  return f"{table}\nbest by {metric}: python -m experiments.search --flagfile={path}\n{found.certainty()}"


def make_settings(values: flags.FlagValues) -> list[Method] | Adaptive:
  """What is swept; see `adaptive.choose`."""
  dimensions = space.read_ranges(values.ranges, is_whole)
  listed = space.product(values.grid)
  return choose(_maker(values), listed, dimensions, values.sampler, values.samples, values.sampler_seed)


def _maker(values: flags.FlagValues) -> Callable[[Mapping[str, str]], Method]:
  """Makes a setting of its changes, as they are written; data sets are loaded once."""
  data: dict[tuple, Dataset] = {}

  def make(changes: Mapping[str, str]) -> Method:
    own = setting_flags.changed(values, changes)
    search = setting_flags.make_search(own)
    where = tuple(own[name].value for name in setting_flags.DATA)
    data[where] = data.get(where) or setting_flags.make_data(own)
    task = setting_flags.make_task(own, data[where])
    record = records.explicit(own) | {"workdir": None}
    return Method({name: space.as_number(value) for name, value in changes.items()}, search, task, record)

  return make


def is_whole(name: str) -> bool:
  """Whether the setting of a name takes whole numbers."""
  place = setting_flags.DEFINED.get(name)
  return getattr(getattr(place, "about", None), "kind", None) is WHOLE


def main(argv: list[str]) -> None:
  """Runs the sweep."""
  del argv
  command.run_main(run)


def parse(argv: list[str]) -> list[str]:
  """Reads the command line."""
  return command.parse(argv, __name__, hidden=("seed",))
