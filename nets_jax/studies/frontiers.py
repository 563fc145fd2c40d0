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
from nets_jax.studies.comparison import COLUMNS, as_methods
from nets_jax.studies.methods import Method, Run, check, check_counts, trial_runs
from nets_jax.studies.places import place
from nets_jax.studies.run_files import is_done, tally_layers
from nets_jax.studies.work import Options, complete
from nets_jax.studies.workers import STUDY_LOCK
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
    return Densities([run for run in runs if is_done(run)], before, keeper, len(runs))

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
  """

  runs: Sequence[Run]
  before: pd.DataFrame
  keeper: object = None
  asked: int = 0

  @property
  def results(self) -> pd.DataFrame:
    """A row for each method, density and trial: the trained ticket, what its search cost, why it failed."""
    if not self.runs and len(self.before):
      return self.before
    new = tables.results_of(self.runs)
    new = new.rename(columns={"compile_seconds": "search_compile_seconds"})
    return merged(self.before, new[["method", "target_density", *COLUMNS[1:]]])

  def table(self) -> str:
    """Accuracies, then differences, in Markdown."""
    results = self.results
    return accuracies(results) + difference_table(differences(tables.sound(results)))

  def figures(self) -> dict[str, Figure]:
    """The figures that the results are enough for, by name."""
    results = tables.sound(self.results)
    return figures(results) if len(results) else {}

  def write(self, directory: pathlib.Path) -> str:
    """Writes densities.csv, densities.md and the figures; returns the table."""
    tables.write_table(directory / TABLE, self.results)
    text = self.table() + tables.how_many(self.runs, self.asked)
    tables.write_text(directory / "densities.md", text)
    for name, figure in self.figures().items():
      for suffix in ("png", "svg"):
        save_figure(figure, directory / f"{name}.{suffix}")
    return text


def figures(results: pd.DataFrame) -> dict[str, Figure]:
  """The figures of some sound results, by name."""
  rows = tables.rows_of(results)
  below = results["target_density"][results["target_density"] < 1]
  drawn = {}
  if 0 < results["method"].nunique() <= MOST_LINES:
    drawn["figure_densities"] = densities_figure(rows)
    drawn["figure_cost"] = cost_figure(rows, float(below.max()) if len(below) else 1.0)
  found = differences(results)
  if len(found):
    drawn["figure_differences"] = differences_figure(tables.rows_of(found))
  return drawn


def merged(before: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
  """All rows; the new ones replace those of the same method and density from their first trial on."""
  if not len(before):
    return new
  first = new.groupby(["method", "target_density"])["trial"].min()
  places = pd.MultiIndex.from_frame(before[["method", "target_density"]])
  limits = first.reindex(places).to_numpy()
  kept = before[~(before["trial"].to_numpy() >= limits)]  # of no limit, NaN, none is replaced
  names = list(dict.fromkeys([*before["method"], *new["method"]]))
  both = pd.concat([kept, new], ignore_index=True)
  place = pd.DataFrame({"method": both["method"].map(names.index), "density": -both["target_density"]})
  order = place.assign(trial=both["trial"]).sort_values(["method", "density", "trial"], kind="stable").index
  return both.loc[order].reset_index(drop=True)


def accuracies(results: pd.DataFrame) -> str:
  """Mean test accuracy and its 95 % interval of each method at each density, and what its searches cost."""
  title = (
    "Test accuracy, mean and 95 % interval (lowest of the trials; genome-epochs and seconds of search); then "
    "what failed, and which layers are left empty, if any"
  )
  return _by_density(title, results, cell)


def cell(own: pd.DataFrame) -> str:
  """One method at one density; with the trials that failed, and the layers that tickets leave empty."""
  sound = tables.sound(own)
  notes = [f"{len(own) - len(sound)} of {len(own)} failed"] if len(sound) < len(own) else []
  if not len(sound):
    return notes[0]
  accuracy = list(sound["test_accuracy"])
  costs = f"{sound['search_epochs'].mean():.0f}, {sound['search_seconds'].mean():.0f} s"
  figures = f"{tables.spread(accuracy, 'percent')} ({100 * min(accuracy):.1f} %; {costs})"
  empty = tally_layers([str(layers) for layers in sound.get("empty_layers", [])])
  notes += [f"empty: {empty}"] if empty not in ("none", "-") else []
  return "; ".join([figures, *notes])


def differences(results: pd.DataFrame) -> pd.DataFrame:
  """How much more accurate each method's tickets are than those of the first, in points of test accuracy.

  Paired by trial, for the trials of all methods train by the same keys; of the trials that both have, where
  these are two or more. A dense network is compared with the first method at each of its densities.

  Returns:
    Columns `method`, `reference`, `target_density`, `difference` (the mean) and `half_width` (of its 95 %
    interval).
  """
  accuracy: dict[tuple[str, float], dict[int, float]] = {}
  for row in tables.rows_of(results):
    accuracy.setdefault((row["method"], row["target_density"]), {})[row["trial"]] = 100 * row["test_accuracy"]
  reference, *others = dict.fromkeys(method for method, _ in accuracy) if accuracy else [""]
  found = []
  for method in others:
    is_dense = [density for name, density in accuracy if name == method] == [1.0]
    for density in [density for name, density in accuracy if name == reference]:
      own, first = accuracy.get((method, 1.0 if is_dense else density), {}), accuracy[reference, density]
      points = [own[trial] - first[trial] for trial in own if trial in first]
      if len(points) > 1:
        mean, half = mean_and_interval(points)
        found.append(
          {"method": method, "reference": reference, "target_density": density}
          | {"difference": mean, "half_width": half}
        )
  return pd.DataFrame(found)


def difference_table(found: pd.DataFrame) -> str:
  """These differences in Markdown; nothing if there are none."""
  if not len(found):
    return ""
  title = f"Difference from {found['reference'].iloc[0]} in points, paired by trial: mean and 95 % interval"

  def shown(own: pd.DataFrame) -> str:
    return f"{own['difference'].iloc[0]:+.1f} ± {own['half_width'].iloc[0]:.1f}"

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
