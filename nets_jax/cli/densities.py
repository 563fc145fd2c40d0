r"""How good are a method's tickets, the sparser they are, and what did finding them cost?

  python -m experiments.densities --flagfile=experiments/presets/paper_mnist.flags --trials=5

finds and trains the tickets of each method at each density, and writes densities.csv (a row for each ticket),
densities.md, and as PNG and SVG figure_densities and figure_cost (of ten methods at most) and
figure_differences, what each method differs by from the first. --methods are those of experiments.compare;
IMP searches once, down to the lowest density; its ticket of a density is that of the nearest cycle.
presets/studies/ablations.flags has the ablations of guided NeTS. --tune chooses settings of each method
first, on validation examples, by trials of its own, and writes tuning.csv and tuning.md.

Runs that are finished are not run again, and one that was stopped goes on where it was. Workers that are
started with the same command share the runs. Rows of methods and densities that are not asked for stay in the
table, and those of trials before --first_trial, so that it can be made piece by piece.
"""

import pathlib
import time
from collections.abc import Sequence

from absl import flags

from nets_jax.cli import command, method_flags, records, setting_flags, study
from nets_jax.errors import UsageError
from nets_jax.studies import places, report, work
from nets_jax.studies.frontiers import DENSITIES, check_densities, densities, density_runs
from nets_jax.studies.methods import check_counts, table_trials
from nets_jax.studies.run_directory import claim
from nets_jax.studies.sanity_checks import sanity

flags.adopt_module_key_flags(setting_flags)
flags.adopt_module_key_flags(study)
flags.adopt_module_key_flags(method_flags)
flags.DEFINE_integer("first_trial", 0, "The first trial: --first_trial=3 --trials=2 adds trials 3 and 4.")
flags.DEFINE_list("sanity", [], "Densities at which masks are shuffled and weights drawn anew, as checks.")
flags.DEFINE_list("densities", [str(density) for density in DENSITIES], "Densities of the tickets.")

OWN_FLAGS = ("densities", "trials", "first_trial", "methods", "sanity")
METHODS = ["guided", "imp", "snip", "synflow", "random", "dense"]


def read_densities(words: Sequence[str], flag: str = "densities") -> list[float]:
  """The densities that a flag gives, the highest first."""
  try:
    return check_densities([float(word) for word in words])
  except UsageError as error:
    raise UsageError(f"{flag} must be in (0, 1], not {','.join(words)}") from error
  except ValueError as error:
    raise UsageError(f"{flag} must be numbers, not {','.join(words)}") from error


def run(values: flags.FlagValues) -> None:
  """Every method at every density, and the outputs as they come."""
  check_counts(train_epochs=(values.train_epochs, 1))
  trials = table_trials(values.trials, values.first_trial)
  asked, how, begun = read_densities(values.densities), study.options(values), time.monotonic()
  checked = read_densities(values.sanity, "sanity") if values.sanity else []
  if not set(checked) <= set(asked) - {1.0}:
    raise UsageError(f"sanity must be below 1 and of --densities, {asked}, not {','.join(values.sanity)}")
  if values["target_density"].present:
    raise UsageError("a study over densities has them of --densities; leave target_density out")
  directory = pathlib.Path(
    values.workdir or pathlib.Path("runs") / f"densities-{places.file_name(values.dataset)}"
  )
  labels = values.methods or METHODS
  methods = method_flags.make_methods(labels, values)
  runs = density_runs(methods, asked, trials, values.seed, directory)
  tried = method_flags.candidates(labels, values, methods)
  runs += method_flags.screening(tried, values, directory)
  if values.dry_run:
    print(work.plan(runs, how) + study.on_top(tried and values.tune_finalists > 1, values.sanity))
    return
  of_tuning = method_flags.tuning_record(values)
  claim(directory, {"seed": values.seed, **of_tuning, **records.task_settings(values)})
  kept = (*OWN_FLAGS, *method_flags.TUNING) if values.tune else OWN_FLAGS
  records.leave_flagfile(directory / "densities.flags", records.as_given(values, kept))
  methods = method_flags.tuned(tried, values, directory, how) if tried else methods
  if not methods:
    return
  found = densities(
    methods,
    densities=asked,
    trials=values.trials,
    first_trial=values.first_trial,
    seed=values.seed,
    directory=directory,
    options=how.less(begun),
  )
  print(found.write(directory))
  if some := [run for run in found.runs if run.columns["target_density"] in checked]:
    print(sanity(some, directory=directory, options=how.less(begun)).write(directory))
  report.leave(directory)
  print(f"files in {directory}")


def main(argv: list[str]) -> None:
  """Runs the study."""
  del argv
  command.run_main(run)


def parse(argv: list[str]) -> list[str]:
  """Reads the command line."""
  return command.parse_methods(argv, __name__)
