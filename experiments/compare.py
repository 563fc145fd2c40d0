r"""The paper's comparison: Table 1 and Figures 1 to 3, with our figures beside the paper's.

  python -m experiments.compare --dataset=mnist --trials=5
  python -m experiments.compare --dataset=xor --trials=5

Runs each method in independent trials, trains every ticket 50 epochs, and writes table1.md, table1.csv,
figure1, figure2 and figure3 (PNG and SVG) and the CSV that each figure is drawn from. About 40 minutes for
MNIST on two cores; --trials=2 --quick is a version of one minute for trying out.

--methods picks. A method may have flags of its own, as in imp:rewind_epochs=1 or nets:elites=0; `dense` is
the dense network, `guided` is nets with the search's settings of presets/guided_<dataset>.flags. The flags of
presets/paper_<dataset>.flags are set first; the command line overrides them.

Each method's search and training are stages, whose files in stages/ carry a hash of the settings: a stage
that is finished is not run again, and one that was stopped goes on where it was. A directory keeps to one
configuration.
"""

import pathlib
from collections.abc import Sequence

from absl import app, flags

import nets_jax
from experiments import binary, methods, stages, tables
from experiments import flags as search_flags
from experiments.progress import say
from experiments.run_directory import claim, locked
from experiments.stages import Entrant
from nets_jax import plots, storage
from nets_jax.files import replace_file

flags.adopt_module_key_flags(search_flags)
flags.adopt_module_key_flags(methods)
flags.adopt_module_key_flags(stages)
flags.DEFINE_bool("quick", False, "A short version for trying out; its outputs say so.")

METHODS = ["random", "imp", "nets"]
QUICK = {"generations": 4, "fitness_epochs": 0.2, "cycle_epochs": 1, "train_epochs": 2}


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
  path = pathlib.Path(values.workdir or pathlib.Path("runs") / name)
  chosen = values.methods or METHODS
  stages.check_names(chosen)
  entrants = [stages.make_entrant(label, values, path / "stages") for label in chosen]
  data = search_flags.make_data(values)
  for entrant in entrants:
    search_flags.checked_network(entrant.values, data)
    methods.make_config(entrant.method, entrant.values, len(data.train))
  with locked(str(path)) as directory:
    run_stages(directory, entrants, data, values)


def run_stages(
  directory: pathlib.Path, entrants: Sequence[Entrant], data: nets_jax.Dataset, values: flags.FlagValues
) -> None:
  """The comparison in a directory of its own."""
  claim(directory, {"trials": values.trials, "quick": values.quick, **search_flags.relevant_settings(values)})
  names = [*search_flags.as_dict(values), "trials", "methods", "quick"]
  again = search_flags.leave_flagfile(directory / "compare.flags", values, names)
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
  preset = pathlib.Path(__file__).parent / "presets" / f"paper_{dataset}.flags"
  first = [f"--flagfile={preset}"] if preset.exists() else []
  return binary.parse([argv[0], *first, *argv[1:]])


def main(argv: list[str]) -> None:
  """Runs the comparison."""
  del argv
  binary.run_main(run)


if __name__ == "__main__":
  app.run(main, flags_parser=parse)
