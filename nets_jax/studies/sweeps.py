"""Seeds x settings of one search: what each hyperparameter does, and which setting is best."""

import dataclasses
import functools
import itertools
import math
import pathlib
from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from nets_jax.analysis.intervals import mean_and_interval
from nets_jax.analysis.study_figures import effects_figure
from nets_jax.analysis.style import save_figure
from nets_jax.changes import change
from nets_jax.engine.seeds import check_seed
from nets_jax.errors import UsageError
from nets_jax.protocol import Search
from nets_jax.searches import all_names
from nets_jax.studies import tables
from nets_jax.studies.adaptive import Adaptive, complete_adaptive
from nets_jax.studies.best import OF_LOSSES, best_setting, by_setting, certainty, metric_of, value_of
from nets_jax.studies.methods import (
  Method,
  Run,
  Value,
  check,
  check_losses,
  check_scores,
  measures_of,
  seed_runs,
)
from nets_jax.studies.places import place
from nets_jax.studies.run_files import metrics, tally_layers
from nets_jax.studies.work import Options, complete
from nets_jax.training.measures import OF_CLASSES, Measures
from nets_jax.training.task import Task

RESULTS = ("search_epochs", "search_seconds", "compile_seconds", "empty_layers", "failed")


def vary(
  search: Search, task: Task, grid: Mapping[str, Sequence[Value]] | Sequence[Mapping[str, Sequence[Value]]]
) -> list[Method]:
  """Every combination of listed values, by the settings' names on the command line, as methods.

  Args:
    search: whose settings are varied,
    task: or those of the task, its training and its initialiser.
    grid: values by name; or several such, one after the other, each combination once.

  Raises:
    UsageError: neither has such a setting.
  """
  grids = [grid] if isinstance(grid, Mapping) else grid
  combinations = [
    dict(zip(own, values, strict=True)) for own in grids for values in itertools.product(*own.values())
  ]
  once = [own for i, own in enumerate(combinations) if own not in combinations[:i]]
  return [changed(search, task, changes) for changes in once]


def changed(search: Search, task: Task, changes: Mapping[str, Value]) -> Method:
  """A search and a task with other settings, each with those of its own, as a method of a sweep."""
  of_task = set(all_names(task.bare))
  own = {name: value for name, value in changes.items() if name not in of_task}
  others = {name: value for name, value in changes.items() if name in of_task}
  return Method(dict(changes), search.change(**own), change(task, others))


def sweep(
  settings: Sequence[Method] | Adaptive,
  seeds: Sequence[int] = range(5),
  *,
  metric: str | None = None,
  directory: str | pathlib.Path | None = None,
  options: Options | None = None,
) -> "Sweep":
  """Runs a search with each setting and seed; what is done is not run again.

  Args:
    settings: of the search, from `vary`; or `Adaptive`, which draws them by what the ones before came to.
    seeds: each a run as that of `experiments.search` with that `--seed`.
    metric: of `best.BEST_BY`, what decides on the best setting; None is `valid_loss` after the final
      training, or `fitness` where there was none. Of settings with several losses a score must decide.
    directory: of the runs' files; None is a temporary one that lives as long as the result.
    options: how; see `work.Options`.

  Raises:
    UsageError: an impossible setting.
  """
  for seed in seeds:
    check_seed("each of seeds", seed)
  where, keeper = place(directory)
  how = options or Options()
  if not isinstance(settings, Adaptive):
    check(settings)
  metric, measures = told_by(metric, settings)
  how = dataclasses.replace(how, value=functools.partial(value_of, metric=metric, measures=measures))
  if isinstance(settings, Adaptive):
    done = complete_adaptive(settings, list(seeds), where, how)
    return Sweep(done, metric, keeper)
  runs = seed_runs(settings, seeds, where)
  return Sweep(complete(runs, where, how), metric, keeper, len(runs))


def told_by(metric: str | None, settings: Sequence[Method] | Adaptive) -> tuple[str | None, Measures]:
  """The column that decides on the best of some settings, and the loss and score that they have.

  Raises:
    UsageError: they have another score, or several; or several losses, and the metric is made of them.
  """
  methods = settings.variants() if isinstance(settings, Adaptive) else list(settings)
  check_scores(methods)
  measures = methods[0].task.measures if methods else OF_CLASSES
  metric = metric_of(metric, measures)
  if metric is None or metric in OF_LOSSES:
    check_losses(methods, metric or "valid_loss", "give --best_by=valid_score")
  return metric, measures


@dataclasses.dataclass(frozen=True)
class Sweep:
  """What came of a sweep.

  Attributes:
    runs: those that are done.
    metric: what decides on the best setting.
    keeper: keeps a temporary directory of the runs.
    asked: how many runs were asked for, if that was known.
  """

  runs: Sequence[Run]
  metric: str | None = None
  keeper: object = None
  asked: int = 0

  @property
  def varied(self) -> list[str]:
    """The names of the settings that were varied."""
    return list(dict.fromkeys(name for run in self.runs for name in run.method.columns))

  @functools.cached_property
  def results(self) -> pd.DataFrame:
    """A row for each run: what was changed, its seed, its ticket's figures, and what the search cost."""
    found = tables.results_of(self.runs)
    return found[["run", *self.varied, "seed", "fitness", *metrics(self.measures), *RESULTS]]

  @property
  def measures(self) -> Measures:
    """Which loss and score the runs have."""
    return measures_of(self.runs)

  @property
  def history(self) -> pd.DataFrame:
    """A row for each run and generation: its best genome."""
    return tables.histories_of(self.runs)

  @functools.cached_property
  def settings(self) -> pd.DataFrame:
    """A row for each setting: the mean of its seeds, and the half-width of the mean's 95 % interval."""
    return setting_rows(self.results, self.varied, self.measures)

  @functools.cached_property
  def best(self) -> tuple[int | None, str]:
    """The index of the best setting, and the metric that says so; see `best_setting`."""
    return best_setting(self.settings, metric_of(self.metric, self.measures), self.measures)

  @property
  def best_method(self) -> Method | None:
    """The setting whose mean is best."""
    index, _ = self.best
    methods = list({run.method.hash: run.method for run in self.runs}.values())
    return None if index is None else methods[index]

  def table(self) -> str:
    """The settings in Markdown: mean ± half-width of the 95 % interval, the best in bold."""
    return setting_table(self.settings, self.results, self.varied, self.best[0], self.measures)

  def certainty(self) -> str:
    """How certain it is that the best setting is the best."""
    index, metric = self.best
    if index is None:
      return ""
    return certainty(self.results, self.settings, self.varied, index, metric, self.measures)

  def figure(self) -> Figure | None:
    """What each hyperparameter does; None where none was varied."""
    rows, varied = tables.rows_of(self.results), self.varied
    return effects_figure(rows, varied, self.measures) if varied else None

  def write(self, directory: pathlib.Path) -> str:
    """Writes results.csv, history.csv, settings.csv, settings.md and the figure; returns the table."""
    tables.write_table(directory / "results.csv", self.results)
    if len(history := self.history):
      tables.write_table(directory / "history.csv", history)
    tables.write_table(directory / "settings.csv", self.settings)
    table = self.table() + tables.how_many(self.runs, self.asked)
    tables.write_text(directory / "settings.md", table)
    if (figure := self.figure()) is not None:
      save_figure(figure, directory / "figure_effects.png")
    return table


def setting_rows(
  results: pd.DataFrame, varied: Sequence[str], measures: Measures = OF_CLASSES
) -> pd.DataFrame:
  """A row for each setting: the mean of its seeds, and the half-width of the mean's 95 % interval.

  Args:
    results: a row for each run.
    varied: the columns of what was varied.
    measures: which loss and score the runs have.
  """
  rows = []
  for values, own in by_setting(results, varied):
    sound = tables.sound(own)
    row = dict(zip(varied, values, strict=True)) | {"runs": len(own), "failed": len(own) - len(sound)}
    row["empty_layers"] = tally_layers([str(layers) for layers in sound.get("empty_layers", [])])
    for name in ("fitness", *metrics(measures), "search_seconds"):
      row[name], row[f"{name}_interval"] = mean_and_interval(list(sound[name]) or [math.nan])
    rows.append(row)
  return pd.DataFrame(rows)


def setting_table(
  settings: pd.DataFrame,
  results: pd.DataFrame,
  varied: Sequence[str],
  best: int | None,
  measures: Measures = OF_CLASSES,
) -> str:
  """The settings in Markdown, the best in bold."""
  shown = {"density": "percent", "valid_loss": "short", "test_loss": "short"}
  shown |= {measures.column("test"): measures.form, "search_seconds": "short"}
  rows = []
  for i, (_, own) in enumerate(by_setting(results, varied)):
    setting, sound = settings.iloc[i], tables.sound(own)
    runs = f"{setting['runs']}" + (f" ({setting['failed']} failed)" if setting["failed"] else "")
    values = {name: setting[name] for name in varied}
    cells = {name: _shown(v) for name, v in values.items()} | {"runs": runs}
    for name, form in shown.items():
      found = list(sound[name])
      if name == "search_seconds" and found:  # shared out evenly among runs side by side: of no deviation
        found = [sum(found) / len(found)]
      cells[name.replace("_", " ")] = tables.spread(found, form)
    cells["empty layers"] = setting["empty_layers"]
    rows.append({name: f"**{cell}**" for name, cell in cells.items()} if i == best else cells)
  return tables.markdown(pd.DataFrame(rows))


def _shown(value: Value) -> str:
  """The value of a setting that was varied; a dash where it was not drawn."""
  if isinstance(value, float):
    return "-" if math.isnan(value) else f"{value:g}"
  return str(value)


def parse_seeds(text: str) -> list[int]:
  """`0:10` is 0 to 9, `1,5` these two.

  Raises:
    UsageError: it cannot be read so.
  """
  try:
    first, colon, end = text.partition(":")
    seeds = list(range(int(first), int(end))) if colon else [int(word) for word in text.split(",")]
  except ValueError as error:
    raise UsageError(f"seeds must be first:end or whole numbers with commas between, not {text!r}") from error
  if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
    raise UsageError(f"seeds must be at least one, each once and none negative, not {text!r}")
  return [check_seed("each of seeds", seed) for seed in seeds]
