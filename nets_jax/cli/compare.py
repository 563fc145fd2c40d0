r"""The paper's comparison: Table 1 and Figures 1 to 3, with our figures beside the paper's.

  python -m experiments.compare --dataset=mnist --trials=5
  python -m experiments.compare --dataset=xor --trials=5

Runs each method in independent trials, trains every ticket 50 epochs, and writes table1.md, table1.csv,
figure1, figure2 and figure3 (PNG and SVG) and the CSV that each figure is drawn from. About 40 minutes for
MNIST on two cores; --trials=2 --quick is a version of one minute for trying out.

--methods picks. A method is a search, with settings of its own if need be, as in imp:rewind_epochs=1 or
short@paper:generations=5; a flag that is given is for every method that has such a setting. The flags of
presets/paper_<dataset>.flags are set first, and those of presets/studies/compare_<dataset>.flags if there are
any; the command line overrides them.

The files of each run are in runs/. A run that is finished is not run again, and one that was stopped goes on
where it was. Workers that are started with the same command, on one host or many, share the runs. A directory
keeps to one configuration.
"""

import pathlib
import time

from absl import flags

from nets_jax import settings
from nets_jax.cli import command, method_flags, records, setting_flags, study
from nets_jax.engine.messages import say
from nets_jax.errors import UsageError
from nets_jax.studies import places, report, work
from nets_jax.studies.comparison import compare
from nets_jax.studies.methods import check, trial_runs
from nets_jax.studies.run_directory import claim
from nets_jax.studies.run_files import target_density

flags.adopt_module_key_flags(setting_flags)
flags.adopt_module_key_flags(study)
flags.adopt_module_key_flags(method_flags)
flags.DEFINE_bool("quick", False, "A short version for trying out; its outputs say so.")

METHODS = ["random", "imp", "nets@paper"]  # the paper calls it NeTS
OWN_FLAGS = ("trials", "methods", "quick")
QUICK = {"generations": 4, "fitness_epochs": 0.2, "cycle_epochs": 1, "train_epochs": 2}


def run(values: flags.FlagValues) -> None:
  """All runs that are not done, then the tables and figures of what is there."""
  for name in ("trials", "train_epochs"):
    if values.flag_values_dict()[name] < 1:
      raise UsageError(f"{name} must be at least 1, not {values[name].value}")
  chosen, how, begun = values.methods or METHODS, study.options(values), time.monotonic()
  if values.quick:
    shorten(values, chosen)
  name = f"compare-{places.file_name(values.dataset)}{'-quick' if values.quick else ''}"
  directory = pathlib.Path(values.workdir or places.RUNS / name)
  methods = method_flags.make_methods(chosen, values)
  check(methods, how.machine.keep_trained)
  aims = {next(iter(m.columns.values())): target_density(m.search) for m in methods}
  if len({aim for aim in aims.values() if aim is not None}) > 1:
    told = ", ".join(f"{name} {aim:.1%}" for name, aim in aims.items() if aim is not None)
    say(f"these methods aim at different densities ({told}); give --target_density for one")
  tried = method_flags.candidates(chosen, values, methods)
  runs = trial_runs(methods, range(values.trials), values.seed, directory)
  runs += method_flags.screening(tried, values, directory)
  if values.dry_run:
    print(work.plan(runs, how) + study.on_top(tried and values.tune_finalists > 1, ()))
    return
  own = {"trials": values.trials, "quick": values.quick, "seed": values.seed}
  own |= method_flags.tuning_record(values) | records.task_settings(values)
  claim(directory, own | {"given": records.given_plain(values)})
  kept = (*OWN_FLAGS, *method_flags.TUNING) if values.tune else OWN_FLAGS
  again = records.leave_flagfile(directory / "compare.flags", records.as_given(values, kept))
  say(f"to repeat this comparison: python -m nets_jax compare {again} --workdir={directory}")
  methods = method_flags.tuned(tried, values, directory, how) if tried else methods
  if not methods:
    return
  how = how.less(begun)
  found = compare(methods, trials=values.trials, seed=values.seed, directory=directory, options=how)
  note = "quick version, not the paper's setting" if values.quick else ""
  print(found.write(directory, values.dataset, note))
  report.leave(directory)
  print(f"files in {directory}")


def shorten(values: flags.FlagValues, chosen: list[str]) -> None:
  """Sets what makes a version for trying out, of the settings that the chosen methods have."""
  methods = method_flags.make_methods(chosen, values)
  known = {name for method in methods for name in settings.names(method.search)} | {"train_epochs"}
  for name, value in QUICK.items():
    if name in known:
      values[name].value = value


def parse(argv: list[str]) -> list[str]:
  """Sets the flags of the data set's preset before those of the command line."""
  dataset = "mnist"
  for before, argument in zip([None, *argv], argv, strict=False):
    name, equals, value = argument.lstrip("-").partition("=")
    if before in ("--dataset", "-dataset"):
      dataset = argument
    elif name == "dataset" and equals:
      dataset = value
  found = command.PRESETS / f"paper_{dataset}.flags", command.PRESETS / "studies" / f"compare_{dataset}.flags"
  first = [f"--flagfile={preset}" for preset in found if preset.exists()]
  return command.parse_methods([argv[0], *first, *argv[1:]], __name__)


def main(argv: list[str]) -> None:
  """Runs the comparison."""
  del argv
  command.run_main(run)
