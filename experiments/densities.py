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
import functools
import math
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence

from absl import app, flags

import nets_jax
from experiments import binary, density_tables, methods, stages, tables
from experiments import flags as search_flags
from experiments.progress import say
from experiments.run_directory import claim, locked
from nets_jax import density_plots, plots, storage
from nets_jax.baselines import imp
from nets_jax.files import replace_file
from nets_jax.layers import find_layers

flags.adopt_module_key_flags(search_flags)
flags.adopt_module_key_flags(methods)
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


# An entrant of one label, with these flags of its own.
Make = Callable[[Mapping[str, str]], stages.Entrant]


def at_density(label: str, density: float, make: Make, data: nets_jax.Dataset) -> stages.Entrant:
  """The entrant whose tickets have a density, its settings checked.

  Raises:
    UsageError: an impossible setting.
  """
  settings = {"target_density": str(density), "density_deviation": "0"}
  if stages.read_label(label)[1] == "imp":
    settings = {"cycles": str(nearest_cycle(density, make, data))}
  entrant = make(settings)
  search_flags.checked_network(entrant.values, data)
  methods.make_config(entrant.method, entrant.values, len(data.train))
  return entrant


def nearest_cycle(density: float, make: Make, data: nets_jax.Dataset) -> int:
  """How many cycles of IMP leave nearest to a density, by ratio."""
  values = make({"cycles": "1"}).values
  config = methods.make_config("imp", values, len(data.train))
  if not 0 < config.prune_fraction < 1:
    raise nets_jax.UsageError(f"prune_fraction must be in (0, 1) here, not {config.prune_fraction}")
  most = 2 + math.ceil(math.log(density) / math.log(1 - config.prune_fraction) * 1.5)
  layers = find_layers(search_flags.make_network(values, data.num_classes), data.input_shape)
  counts = imp.kept_counts(layers, dataclasses.replace(config, cycles=most))
  total = sum(layer.size for layer in layers)
  distances = [abs(math.log(sum(kept.values()) / total / density)) for kept in counts]
  return 1 + distances.index(min(distances))


def search_imp(entrants: Sequence[stages.Entrant], data: nets_jax.Dataset) -> None:
  """IMP once, with the most cycles asked for; the others' tickets are those it had on its way."""
  cycles = lambda entrant: entrant.values.cycles  # noqa: E731
  longest = max(entrants, key=cycles)
  whole = dataclasses.replace(longest, label=f"{longest.label} on its way")  # a stage of its own
  for entrant in entrants:
    stages.set_aside_damaged(entrant)
  todo = [entrant for entrant in entrants if not (entrant.stage / stages.COSTS).exists()]
  if not todo:
    return
  stages.search_stage(whole, data, keep_cycles=True)
  history, costs = storage.read_csv(whole.stage / "history.csv"), stages.read_costs(whole)
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
  before = storage.read_csv(path) if path.exists() else []
  storage.write_csv(path, density_tables.merged(before, new))
  everything = storage.read_csv(path)
  rows = tables.found(everything)
  differences = density_tables.differences(rows)
  with replace_file(directory / "densities.md") as temporary:
    temporary.write_text(density_tables.accuracies(everything) + density_tables.difference_table(differences))
  densest = max((row["target_density"] for row in rows if row["target_density"] < 1), default=1.0)
  figures = {}
  if 0 < len({row["method"] for row in rows}) <= MOST_LINES:
    figures["figure_densities"] = density_plots.densities_figure(rows)
    figures["figure_cost"] = density_plots.cost_figure(rows, densest)
  if differences:
    figures["figure_differences"] = density_plots.differences_figure(differences)
  for name, figure in figures.items():
    for suffix in ("png", "svg"):
      plots.save_figure(figure, directory / f"{name}.{suffix}")


def run(values: flags.FlagValues) -> None:
  """Every method at every density, and the outputs as they come."""
  for name, least in (("trials", 1), ("train_epochs", 1), ("first_trial", 0)):
    if values[name].value < least:
      raise nets_jax.UsageError(f"{name} must be at least {least}, not {values[name].value}")
  densities, chosen = read_densities(values), values.methods or METHODS
  stages.check_names(chosen)
  path = pathlib.Path(values.workdir or pathlib.Path("runs") / f"densities-{values.dataset}")
  data, entrants = search_flags.make_data(values), {}
  for label in chosen:
    make = functools.partial(
      stages.make_entrant, label, values, path / "stages", first_trial=values.first_trial
    )
    own = [1.0] if stages.read_label(label)[1] == "dense" else densities
    entrants[label] = {density: at_density(label, density, make, data) for density in own}
  with locked(str(path)) as directory:
    shared = {name: values[name].value for name in (*stages.SHARED, *ALIKE) if name != "target_density"}
    claim(directory, shared)
    for own in entrants.values():
      if next(iter(own.values())).method == "imp":
        search_imp(list(own.values()), data)
      for density, entrant in own.items():
        stages.search_stage(entrant, data)
        stages.training_stage(entrant, data)
        write_outputs(directory, rows_of(density, entrant))
        say(f"{entrant.label} at {density:.2%} is in {directory / 'densities.md'}")
    print((directory / "densities.md").read_text())
    print(f"files in {directory}")


# What all rows of a table must have in common, besides the training.
ALIKE = ("dataset", "data_seed", "network", "hidden_sizes", "train_epochs")


def main(argv: list[str]) -> None:
  """Runs the study."""
  del argv
  binary.run_main(run)


if __name__ == "__main__":
  app.run(main, flags_parser=binary.parse)
