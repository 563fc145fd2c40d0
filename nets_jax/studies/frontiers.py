"""How good are a method's tickets, the sparser they are, and what did finding them cost?"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import filelock
import pandas as pd
from matplotlib.figure import Figure

from nets_jax import settings
from nets_jax.analysis.density_figures import cost_figure, densities_figure, differences_figure
from nets_jax.analysis.style import save_figure
from nets_jax.errors import UsageError
from nets_jax.protocol import Search
from nets_jax.studies import tables
from nets_jax.studies.comparison import as_methods, columns
from nets_jax.studies.frontier_tables import (
  cost_table,
  difference_table,
  differences,
  judgement_row,
  scores,
  winning_table,
)
from nets_jax.studies.methods import Method, Run, check, measures_of, table_trials, trial_runs
from nets_jax.studies.places import place
from nets_jax.studies.run_files import is_done
from nets_jax.studies.work import Options, complete
from nets_jax.studies.workers import STUDY_LOCK
from nets_jax.training.measures import Measures, of_rows
from nets_jax.training.task import Task

DENSITIES = (0.2, 0.1, 0.05, 0.02, 0.01)
MOST_LINES = 10  # methods that a figure of lines can still show apart
TABLE = "densities.csv"


def check_densities(densities: Sequence[float]) -> list[float]:
  """The densities, each once, the highest first.

  Raises:
    UsageError: there is none, or one that is not in (0, 1].
  """
  if not len(densities) or not all(0 < density <= 1 for density in densities):
    raise UsageError(f"densities must be in (0, 1], not {','.join(map(str, densities))}")
  return sorted(set(densities), reverse=True)


def at_densities(method: Method, densities: Sequence[float]) -> list[Method]:
  """The same method aimed at each density, in `target_density`; a dense network at its own alone."""
  aimed = [
    (density, method.search.at_density(density, method.task))
    for density in method.search.densities(densities)
  ]
  before = settings.values(method.search)
  found = []
  for density, search in aimed:
    moved = {name: v for name, v in settings.values(search).items() if v != before.get(name)}
    record = {name: moved.get(name, value) for name, value in method.record.items()}
    columns = {**method.columns, "target_density": density}
    found.append(dataclasses.replace(method, columns=columns, search=search, record=record))
  return found


def density_runs(
  methods: Sequence[Method], densities: Sequence[float], trials: Sequence[int], seed: int, where: pathlib.Path
) -> list[Run]:
  """A run of each method for each density and trial, its settings checked."""
  aimed = [own for method in methods for own in at_densities(method, densities)]
  check(aimed)
  return trial_runs(aimed, trials, seed, where)


def densities(
  methods: Mapping[str, Search] | Sequence[Method],
  task: Task | None = None,
  densities: Sequence[float] = DENSITIES,
  *,
  trials: int = 5,
  first_trial: int = 0,
  seed: int = 0,
  directory: str | pathlib.Path | None = None,
  options: Options | None = None,
) -> "Densities":
  """Finds and trains the tickets of each method at each density; what is done is not run again.

  A search that passes densities on its way (IMP) runs once for each trial, down to the lowest; its ticket of
  a density is that of the nearest cycle. Rows that an earlier call left in the directory's table stay in it,
  those of the same method and density from `first_trial` on excepted.

  Args:
    methods, task, trials, first_trial, seed, directory, options: see `comparison.compare`.
    densities: of the tickets.

  Raises:
    UsageError: an impossible setting.
  """
  chosen = as_methods(methods, task)
  where, keeper = place(directory)
  numbers = table_trials(trials, first_trial)
  runs = density_runs(chosen, check_densities(densities), numbers, seed, where)

  def there() -> Densities:
    """What is done, with the rows that others have left in the table meanwhile."""
    path = where / TABLE
    before = tables.read_table(path) if path.exists() else pd.DataFrame()
    return Densities([run for run in runs if is_done(run)], before, keeper, len(runs), measures_of(runs))

  def write() -> None:
    with filelock.FileLock(where / STUDY_LOCK):
      there().write(where)

  complete(runs, where, options or Options(), on_batch=write if directory is not None else lambda: None)
  return there()


@dataclasses.dataclass(frozen=True)
class Densities:
  """What came of a study over densities.

  Attributes:
    runs: those that are done.
    before: rows of an earlier study in the same directory.
    keeper: keeps a temporary directory of the runs.
    asked: how many runs were asked for.
    planned: which loss and score those have that were asked for.
  """

  runs: Sequence[Run]
  before: pd.DataFrame
  keeper: object = None
  asked: int = 0
  planned: Measures | None = None

  @property
  def results(self) -> pd.DataFrame:
    """A row for each method, density and trial: the trained ticket, what its search cost, why it failed."""
    if not self.runs and len(self.before):
      return self.before
    new = tables.results_of(self.runs)
    new = new.rename(columns={"compile_seconds": "search_compile_seconds"})
    judged = pd.DataFrame([judgement_row(run) for run in self.runs])
    own = [name for name in new.columns if name.startswith("own_")]
    names = ["method", "target_density", *columns(self.measures)[1:], *own, "unmasked", "weights", "run"]
    return merged(self.before, pd.concat([new[names], judged], axis="columns"))

  @property
  def measures(self) -> Measures:
    """Which loss and score the runs have; without runs those of the table that is there."""
    if self.runs:
      return measures_of(self.runs)
    rows = tables.rows_of(self.before[:1])
    named = of_rows(rows)
    if self.planned is not None and self.planned.score == named.score:
      return self.planned
    return of_rows(rows, directed=True)

  def table(self) -> str:
    """Scores, differences, Definition 3 and costs, in Markdown."""
    results, measures = self.results, self.measures
    sound = tables.trained(results)
    parts = [
      scores(results, measures),
      difference_table(differences(sound, measures), measures),
      winning_table(sound, measures),
      cost_table(sound, measures),
    ]
    return "\n".join(part for part in parts if part)

  def figures(self) -> dict[str, Figure]:
    """The figures that the results are enough for, by name."""
    results = tables.trained(self.results)
    return figures(results, self.measures) if len(results) else {}

  def write(self, directory: pathlib.Path) -> str:
    """Writes densities.csv, densities.md and the figures; returns the table."""
    tables.write_table(directory / TABLE, self.results)
    text = self.table() + tables.how_many(self.runs, self.asked)
    tables.write_text(directory / "densities.md", text)
    for name, figure in self.figures().items():
      for suffix in ("png", "svg"):
        save_figure(figure, directory / f"{name}.{suffix}")
    return text


def figures(results: pd.DataFrame, measures: Measures | None = None) -> dict[str, Figure]:
  """The figures of some sound results, by name; which score they have, their columns say if nobody does."""
  rows = tables.rows_of(results)
  measures = of_rows(rows, directed=True) if measures is None else measures
  drawn = {}
  if 0 < results["method"].nunique() <= MOST_LINES:
    drawn["figure_densities"] = densities_figure(rows, measures)
    drawn["figure_cost"] = cost_figure(rows, measures)
  found = differences(results, measures)
  if len(found):
    drawn["figure_differences"] = differences_figure(tables.rows_of(found), measures)
  return drawn


def merged(before: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
  """All rows; the new ones replace those of the same method and density from their first trial on.

  Raises:
    UsageError: those before have another score.
  """
  if not len(before):
    return new
  if missing := [name for name in new.columns if name.startswith("test_") and name not in before]:
    raise UsageError(f"the table that is there has another score than {missing[0]}; give another directory")
  first = new.groupby(["method", "target_density"])["trial"].min()
  places = pd.MultiIndex.from_frame(before[["method", "target_density"]])
  limits = first.reindex(places).to_numpy()
  kept = before[~(before["trial"].to_numpy() >= limits)]  # of no limit, NaN, none is replaced
  names = list(dict.fromkeys([*before["method"], *new["method"]]))
  both = pd.concat([kept, new], ignore_index=True)
  place = pd.DataFrame({"method": both["method"].map(names.index), "density": -both["target_density"]})
  order = place.assign(trial=both["trial"]).sort_values(["method", "density", "trial"], kind="stable").index
  return both.loc[order].reset_index(drop=True)
