r"""How good are a method's tickets, the sparser they are, and what did finding them cost?

  python -m experiments.densities --flagfile=experiments/presets/paper_mnist.flags --trials=5

finds and trains the tickets of each method at each density, and writes densities.csv (a row for each ticket),
densities.md, and as PNG and SVG figure_densities and figure_cost (of ten methods at most) and
figure_differences, what each method differs by from the first. --methods are those of experiments.compare;
IMP searches once, down to the lowest density; its ticket of a density is that of the nearest cycle.
presets/studies/ablations.flags has the ablations of guided NeTS.

Stages that are finished are not run again, and one that was stopped goes on where it was. Rows of methods and
densities that are not asked for stay in the table, and those of trials before --first_trial, so that it can
be made piece by piece.
"""

import dataclasses
import pathlib
import shutil
from collections.abc import Sequence

from absl import flags

import nets_jax
from nets_jax.analysis.density_figures import cost_figure, densities_figure, differences_figure
from nets_jax.analysis.style import save_figure
from nets_jax.cli import command, records
from nets_jax.cli import setting_flags as search_flags
from nets_jax.cli.run_directory import claim, locked
from nets_jax.engine.files import replace_file
from nets_jax.engine.progress import say
from nets_jax.engine.tables import read_csv, write_csv
from nets_jax.studies import density_tables, stages, tables

flags.adopt_module_key_flags(search_flags)
flags.adopt_module_key_flags(stages)
flags.DEFINE_integer("first_trial", 0, "The first trial: --first_trial=3 --trials=2 adds trials 3 and 4.")
flags.DEFINE_list("densities", ["0.2", "0.1", "0.05", "0.02", "0.01"], "Densities of the tickets.")

METHODS = ["guided", "imp", "snip", "synflow", "random", "dense"]
MOST_LINES = 10  # methods that a figure of lines can still show apart


def read_densities(values: flags.FlagValues) -> list[float]:
  """The densities asked for, the highest first."""
  try:
    found = sorted({float(word) for word in values.densities}, reverse=True)
  except ValueError as error:
    raise nets_jax.UsageError(f"densities must be numbers, not {','.join(values.densities)}") from error
  if not found or not all(0 < density <= 1 for density in found):
    raise nets_jax.UsageError(f"densities must be in (0, 1], not {','.join(values.densities)}")
  return found


def at_densities(
  entrant: stages.Entrant, densities: Sequence[float], data: nets_jax.Dataset
) -> dict[float, stages.Entrant]:
  """The same search aimed at each density, its settings checked.

  Raises:
    UsageError: an impossible setting.
  """
  task, found = entrant.task(data), {}
  for density in entrant.search.densities(densities):
    found[density] = dataclasses.replace(entrant, search=entrant.search.at_density(density, task))
    found[density].task(data)
  return found


def search_on_the_way(entrants: Sequence[stages.Entrant], data: nets_jax.Dataset) -> None:
  """A search that passes all densities, once; the others' tickets are those it had on its way.

  IMP is such a one: with the most cycles asked for it has had the tickets of fewer.
  """

  def cycles(entrant):
    return entrant.search.cycles

  longest = max(entrants, key=cycles)
  whole = dataclasses.replace(longest, label=f"{longest.label} on its way")  # a stage of its own
  for entrant in entrants:
    stages.set_aside_damaged(entrant)
  todo = [entrant for entrant in entrants if not (entrant.stage / stages.COSTS).exists()]
  if not todo:
    return
  stages.search_stage(whole, data, keep_cycles=True)
  history, costs = read_csv(whole.stage / "history.csv"), stages.read_costs(whole)
  last = max(row["iteration"] for row in history)
  for entrant in todo:
    results = []
    for trial, cost in enumerate(costs):
      path = stages.ticket_file(entrant, trial)
      path.parent.mkdir(parents=True, exist_ok=True)
      rows = [row for row in history if int(row["trial"]) == trial and row["cycle"] < cycles(entrant)]
      epochs = cost["epochs"] * rows[-1]["iteration"] / last
      spent = nets_jax.Cost(epochs, rows[-1]["seconds"], cost["compile_seconds"])
      kept = stages.cycle_ticket(whole, cycles(entrant), trial)
      if cost.get("failed") or not kept.exists():
        why = cost.get("failed") or "every weight is pruned"
        results.append(nets_jax.SearchFailed(f"{why} (on the way to {cycles(whole)} cycles)"))
        continue
      shutil.copyfile(kept, path)
      results.append(nets_jax.SearchResult(nets_jax.load_ticket(path), rows, spent))
    stages.write_costs(entrant, results)


def rows_of(density: float, entrant: stages.Entrant) -> density_tables.Rows:
  """A row for each trial: the trained ticket, and what its search cost."""
  rows = tables.table1_rows([(entrant.label, entrant.stage)])
  return [
    {"method": row.pop("method"), "target_density": density, "trial": entrant.first_trial + row.pop("trial")}
    | row
    for row in rows
  ]


def write_outputs(directory: pathlib.Path, new: density_tables.Rows) -> None:
  """The table with the new rows, as CSV and markdown, and the figures drawn from it."""
  path = directory / "densities.csv"
  before = read_csv(path) if path.exists() else []
  write_csv(path, density_tables.merged(before, new))
  everything = read_csv(path)
  rows = tables.found(everything)
  differences = density_tables.differences(rows)
  with replace_file(directory / "densities.md") as temporary:
    temporary.write_text(density_tables.accuracies(everything) + density_tables.difference_table(differences))
  densest = max((row["target_density"] for row in rows if row["target_density"] < 1), default=1.0)
  figures = {}
  if 0 < len({row["method"] for row in rows}) <= MOST_LINES:
    figures["figure_densities"] = densities_figure(rows)
    figures["figure_cost"] = cost_figure(rows, densest)
  if differences:
    figures["figure_differences"] = differences_figure(differences)
  for name, figure in figures.items():
    for suffix in ("png", "svg"):
      save_figure(figure, directory / f"{name}.{suffix}")


def run(values: flags.FlagValues) -> None:
  """Every method at every density, and the outputs as they come."""
  for name, least in (("trials", 1), ("train_epochs", 1), ("first_trial", 0)):
    if values[name].value < least:
      raise nets_jax.UsageError(f"{name} must be at least {least}, not {values[name].value}")
  densities, chosen = read_densities(values), values.methods or METHODS
  name = f"densities-{records.file_name(values.dataset)}"
  path = pathlib.Path(values.workdir or pathlib.Path("runs") / name)
  data = search_flags.make_data(values)
  made = stages.make_entrants(chosen, values, path / "stages", values.first_trial)
  entrants = [at_densities(entrant, densities, data) for entrant in made]
  with locked(str(path)) as directory:
    claim(directory, {"seed": values.seed, **records.task_settings(values)})
    for own in entrants:
      if next(iter(own.values())).search.passes_densities:
        search_on_the_way(list(own.values()), data)
      for density, entrant in own.items():
        stages.search_stage(entrant, data)
        stages.training_stage(entrant, data)
        write_outputs(directory, rows_of(density, entrant))
        say(f"{entrant.label} at {density:.2%} is in {directory / 'densities.md'}")
    print((directory / "densities.md").read_text())
    print(f"files in {directory}")


def main(argv: list[str]) -> None:
  """Runs the study."""
  del argv
  command.run_main(run)


def parse(argv: list[str]) -> list[str]:
  """Reads the command line."""
  return command.parse_methods(argv, __name__)
