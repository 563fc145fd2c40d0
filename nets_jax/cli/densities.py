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

from absl import flags

from nets_jax.cli import command, method_flags, records, setting_flags, study
from nets_jax.errors import UsageError
from nets_jax.studies import places, work
from nets_jax.studies.frontiers import DENSITIES, check_densities, densities, density_runs
from nets_jax.studies.run_directory import claim
from nets_jax.studies.sanity_checks import sanity

flags.adopt_module_key_flags(setting_flags)
flags.adopt_module_key_flags(study)
flags.adopt_module_key_flags(method_flags)
flags.DEFINE_integer("first_trial", 0, "The first trial: --first_trial=3 --trials=2 adds trials 3 and 4.")
flags.DEFINE_list("sanity", [], "Densities at which masks are shuffled and weights drawn anew, as checks.")
flags.DEFINE_list("densities", [str(density) for density in DENSITIES], "Densities of the tickets.")

METHODS = ["guided", "imp", "snip", "synflow", "random", "dense"]


def read_densities(values: flags.FlagValues) -> list[float]:
  """The densities asked for, the highest first."""
  try:
    return check_densities([float(word) for word in values.densities])
  except UsageError as error:
    raise UsageError(f"densities must be in (0, 1], not {','.join(values.densities)}") from error
  except ValueError as error:
    raise UsageError(f"densities must be numbers, not {','.join(values.densities)}") from error


def run(values: flags.FlagValues) -> None:
  """Every method at every density, and the outputs as they come."""
  for name, least in (("trials", 1), ("train_epochs", 1), ("first_trial", 0)):
    if values.flag_values_dict()[name] < least:
      raise UsageError(f"{name} must be at least {least}, not {values[name].value}")
  asked, how = read_densities(values), study.options(values)
  if other := [word for word in values.sanity if word not in map(str, asked)]:
    raise UsageError(f"sanity must be of the densities {','.join(map(str, asked))}, not {','.join(other)}")
  directory = pathlib.Path(
    values.workdir or pathlib.Path("runs") / f"densities-{places.file_name(values.dataset)}"
  )

  def take() -> None:
    claim(directory, {"seed": values.seed, **records.task_settings(values)})

  methods, chosen = method_flags.tuned_methods(values.methods or METHODS, values, directory, how, take)
  trials = range(values.first_trial, values.first_trial + values.trials)
  runs = density_runs(methods, asked, trials, values.seed, directory)
  if values.dry_run:
    print(work.plan(runs, how))
    return
  if not chosen:
    take()
  found = densities(
    methods,
    densities=asked,
    trials=values.trials,
    first_trial=values.first_trial,
    seed=values.seed,
    directory=directory,
    options=how,
  )
  print("\n".join(filter(None, (chosen, found.write(directory)))))
  if checked := [run for run in found.runs if str(run.columns["target_density"]) in values.sanity]:
    print(sanity(checked, directory=directory, options=how).write(directory))
  print(f"files in {directory}")


def main(argv: list[str]) -> None:
  """Runs the study."""
  del argv
  command.run_main(run)


def parse(argv: list[str]) -> list[str]:
  """Reads the command line."""
  return command.parse_methods(argv, __name__)
