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

from absl import flags

import nets_jax
from nets_jax.analysis.study_figures import seconds_figure, training_figure, trials_figure
from nets_jax.analysis.style import save_figure
from nets_jax.cli import command, records
from nets_jax.cli import setting_flags as search_flags
from nets_jax.cli.run_directory import claim, locked
from nets_jax.engine.files import replace_file
from nets_jax.engine.progress import say
from nets_jax.engine.tables import read_csv, write_csv
from nets_jax.settings import names
from nets_jax.studies import stages, tables
from nets_jax.studies.stages import Entrant

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
  name = f"compare-{records.file_name(values.dataset)}{'-quick' if values.quick else ''}"
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
  known = {name for entrant in entrants for name in names(entrant.search)} | {"train_epochs"}
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
  write_csv(directory / "table1.csv", tables.table1_rows(places))
  table = tables.table1(read_csv(directory / "table1.csv"), values.dataset, note)
  with replace_file(directory / "table1.md") as temporary:
    temporary.write_text(table + tables.verdicts(places))
  drawn = (
    ("figure1", tables.figure1_rows(places), trials_figure),
    ("figure2", tables.figure2_rows(places), seconds_figure),
    ("figure3", tables.figure3_rows(places), training_figure),
  )
  for name, rows, draw in drawn:
    if rows:
      write_csv(directory / f"{name}.csv", rows)
      figure = draw(read_csv(directory / f"{name}.csv"), note)
      for suffix in ("png", "svg"):
        save_figure(figure, directory / f"{name}.{suffix}")


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
  return command.parse_methods([argv[0], *first, *argv[1:]], __name__)


def main(argv: list[str]) -> None:
  """Runs the comparison."""
  del argv
  command.run_main(run)
