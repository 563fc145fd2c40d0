"""How good are a method's tickets, the sparser they are, and what did finding them cost?"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence

import filelock
import pandas as pd
from matplotlib.figure import Figure

from nets_jax.analysis.density_figures import cost_figure, densities_figure, differences_figure
from nets_jax.analysis.intervals import mean_and_interval
from nets_jax.analysis.style import save_figure
from nets_jax.errors import UsageError
from nets_jax.protocol import Search
from nets_jax.studies import tables
from nets_jax.studies.comparison import as_methods, columns
from nets_jax.studies.methods import Method, Run, check, check_counts, measures_of, trial_runs
from nets_jax.studies.places import place
from nets_jax.studies.run_files import is_done, tally_layers
from nets_jax.studies.work import Options, complete
from nets_jax.studies.workers import STUDY_LOCK
from nets_jax.training.measures import OF_CLASSES, Measures, of_rows
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
  record = dict(method.record)
  return [
    Method({**method.columns, "target_density": density}, search, method.task, record)
    for density, search in aimed
  ]


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
  check_counts(trials=(trials, 1), first_trial=(first_trial, 0))
  where, keeper = place(directory)
  numbers = range(first_trial, first_trial + trials)
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
    own = [name for name in new.columns if name.startswith("own_")]
    return merged(self.before, new[["method", "target_density", *columns(self.measures)[1:], *own]])

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
    """Scores, then differences, in Markdown."""
    results, measures = self.results, self.measures
    found = differences(tables.sound(results), measures)
    return scores(results, measures) + difference_table(found, measures)

  def figures(self) -> dict[str, Figure]:
    """The figures that the results are enough for, by name."""
    results = tables.sound(self.results)
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
  below = results["target_density"][results["target_density"] < 1]
  drawn = {}
  if 0 < results["method"].nunique() <= MOST_LINES:
    drawn["figure_densities"] = densities_figure(rows, measures)
    drawn["figure_cost"] = cost_figure(rows, float(below.max()) if len(below) else 1.0, measures)
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


def scores(results: pd.DataFrame, measures: Measures | None = None) -> str:
  """Mean test score and its 95 % interval of each method at each density, and what its searches cost.

  Which score, the columns say if nobody does.
  """
  measures = of_rows(tables.rows_of(results[:1]), directed=True) if measures is None else measures
  worst = "lowest" if measures.more_is_better else "highest"
  title = (
    f"Test {measures.words}, mean and 95 % interval ({worst} of the trials; genome-epochs and seconds of "
    "search); then what failed, and which layers are left empty, if any"
  )
  return _by_density(title, results, lambda own: cell(own, measures))


def cell(own: pd.DataFrame, measures: Measures) -> str:
  """One method at one density; with the trials that failed, and the layers that tickets leave empty."""
  sound = tables.sound(own)
  notes = [f"{len(own) - len(sound)} of {len(own)} failed"] if len(sound) < len(own) else []
  if not len(sound):
    return notes[0]
  found = list(sound[measures.column("test")])
  costs = f"{sound['search_epochs'].mean():.0f}, {sound['search_seconds'].mean():.0f} s"
  factor, digits, unit = tables.FORMS[measures.form]
  worst = f"{factor * measures.worst(found):{digits}}{unit}"
  figures = f"{tables.spread(found, measures.form)} ({worst}; {costs})"
  empty = tally_layers([str(layers) for layers in sound.get("empty_layers", [])])
  notes += [f"empty: {empty}"] if empty not in ("none", "-") else []
  trained = list(sound.get("own_" + measures.column("test"), pd.Series(dtype=float)).dropna())
  notes += [f"as trained in the search {tables.spread(trained, measures.form)}"] if trained else []
  return "; ".join([figures, *notes])


def differences(results: pd.DataFrame, measures: Measures | None = None) -> pd.DataFrame:
  """Each method's test score less that of the first: of a share in points, else in what the score is in.

  Paired by trial, for the trials of all methods train by the same keys; of the trials that both have, where
  these are two or more. A dense network is compared with the first method at each of its densities.

  Returns:
    Columns `method`, `reference`, `target_density`, `difference` (the mean) and `half_width` (of its 95 %
    interval).
  """
  measures = of_rows(tables.rows_of(results[:1])) if measures is None else measures
  by_place: dict[tuple[str, float], dict[int, float]] = {}
  for row in tables.rows_of(results):
    of_place = by_place.setdefault((row["method"], row["target_density"]), {})
    of_place[row["trial"]] = measures.factor * row[measures.column("test")]
  reference, *others = dict.fromkeys(method for method, _ in by_place) if by_place else [""]
  found = []
  for method in others:
    is_dense = [density for name, density in by_place if name == method] == [1.0]
    for density in [density for name, density in by_place if name == reference]:
      own, first = by_place.get((method, 1.0 if is_dense else density), {}), by_place[reference, density]
      points = [own[trial] - first[trial] for trial in own if trial in first]
      if len(points) > 1:
        mean, half = mean_and_interval(points)
        found.append(
          {"method": method, "reference": reference, "target_density": density}
          | {"difference": mean, "half_width": half}
        )
  return pd.DataFrame(found)


def difference_table(found: pd.DataFrame, measures: Measures = OF_CLASSES) -> str:
  """These differences in Markdown; nothing if there are none."""
  if not len(found):
    return ""
  unit = "in points" if measures.is_share else f"in {measures.words}"
  title = f"Difference from {found['reference'].iloc[0]} {unit}, paired by trial: mean and 95 % interval"
  digits = ".1f" if measures.is_share else ".3f"

  def shown(own: pd.DataFrame) -> str:
    return f"{own['difference'].iloc[0]:+{digits}} ± {own['half_width'].iloc[0]:{digits}}"

  return "\n" + _by_density(title, found, shown)


def _by_density(title: str, results: pd.DataFrame, cell: Callable[[pd.DataFrame], str]) -> str:
  """A Markdown table of a line for each method and a column for each density."""
  cells = {place: cell(own) for place, own in results.groupby(["method", "target_density"], sort=False)}
  columns = sorted(results["target_density"].unique(), reverse=True)
  table = pd.DataFrame(
    [
      {"method": method, **{f"{100 * density:g} %": cells.get((method, density), "") for density in columns}}
      for method in results["method"].unique()
    ]
  )
  return f"{title}\n\n{tables.markdown(table)}"
