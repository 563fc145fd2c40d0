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

Each method's search and training are stages, whose files in stages/ carry a hash of the settings: a stage
that is finished is not run again, and one that was stopped goes on where it was. A directory keeps to one
configuration.
"""

import pathlib
from collections.abc import Sequence

from absl import app, flags

import nets_jax
from experiments import binary, stages, tables
from experiments.progress import say
from experiments.run_directory import claim, locked
from experiments.stages import Entrant
from nets_jax import plots, settings, storage
from nets_jax.cli import flags as search_flags
from nets_jax.cli import records
from nets_jax.files import replace_file

flags.adopt_module_key_flags(search_flags)
flags.adopt_module_key_flags(stages)
flags.DEFINE_bool("quick", False, "A short version for trying out; its outputs say so.")

METHODS = ["random", "imp", "nets@paper"]  # the paper calls it NeTS
OWN_FLAGS = ("trials", "methods", "quick")
QUICK = {"generations": 4, "fitness_epochs": 0.2, "cycle_epochs": 1, "train_epochs": 2}


def run(values: flags.FlagValues) -> None:
  """All stages that are not done, then the tables and figures of what is there."""
  if values.trials < 1:
    raise nets_jax.UsageError(f"trials must be at least 1, not {values.trials}")
  if values.train_epochs < 1:
    raise nets_jax.UsageError(f"train_epochs must be at least 1, not {values.train_epochs}")
  chosen = values.methods or METHODS
  if values.quick:
    shorten(values, chosen)
  name = f"compare-{values.dataset}{'-quick' if values.quick else ''}"
  path = pathlib.Path(values.workdir or pathlib.Path("runs") / name)
  entrants = stages.make_entrants(chosen, values, path / "stages")
  data = search_flags.make_data(values)
  for entrant in entrants:
    entrant.task(data)
  with locked(str(path)) as directory:
    run_stages(directory, entrants, data, values)


def shorten(values: flags.FlagValues, chosen: Sequence[str]) -> None:
  """Sets what makes a version for trying out, of the settings that the chosen methods have."""
  entrants = stages.make_entrants(chosen, values, pathlib.Path())
  known = {name for entrant in entrants for name in settings.names(entrant.search)} | {"train_epochs"}
  for name, value in QUICK.items():
    if name in known:
      values[name].value = value


def run_stages(
  directory: pathlib.Path, entrants: Sequence[Entrant], data: nets_jax.Dataset, values: flags.FlagValues
) -> None:
  """The comparison in a directory of its own."""
  own = {"trials": values.trials, "quick": values.quick, "seed": values.seed}
  claim(directory, own | records.task_settings(values) | {"given": records.given_plain(values)})
  again = records.leave_flagfile(directory / "compare.flags", records.as_given(values, OWN_FLAGS))
  say(f"to repeat this comparison: python -m experiments.compare {again}")
  for entrant in entrants:
    stages.search_stage(entrant, data)
    stages.training_stage(entrant, data)
  write_outputs(directory, entrants, values)
  print((directory / "table1.md").read_text())
  print(f"files in {directory}")


def write_outputs(directory: pathlib.Path, entrants: Sequence[Entrant], values: flags.FlagValues) -> None:
  """The CSVs from the stages' files; the table and figures from the CSVs."""
  note = "quick version, not the paper's setting" if values.quick else ""
  places = [(entrant.label, entrant.stage) for entrant in entrants]
  storage.write_csv(directory / "table1.csv", tables.table1_rows(places))
  table = tables.table1(storage.read_csv(directory / "table1.csv"), values.dataset, note)
  with replace_file(directory / "table1.md") as temporary:
    temporary.write_text(table + tables.verdicts(places))
  drawn = (
    ("figure1", tables.figure1_rows(places), plots.trials_figure),
    ("figure2", tables.figure2_rows(places), plots.seconds_figure),
    ("figure3", tables.figure3_rows(places), plots.training_figure),
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
  presets = pathlib.Path(__file__).parent / "presets"
  found = presets / f"paper_{dataset}.flags", presets / "studies" / f"compare_{dataset}.flags"
  first = [f"--flagfile={preset}" for preset in found if preset.exists()]
  return binary.parse_methods([argv[0], *first, *argv[1:]])


def main(argv: list[str]) -> None:
  """Runs the comparison."""
  del argv
  binary.run_main(run)


if __name__ == "__main__":
  app.run(main, flags_parser=parse)
