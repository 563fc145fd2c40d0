"""Seeds x settings of one search: what each hyperparameter does, and which setting is best."""

import dataclasses
import functools
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
from nets_jax.settings import names
from nets_jax.studies import tables
from nets_jax.studies.adaptive import Adaptive, complete_adaptive
from nets_jax.studies.methods import Method, Run, Value, check, seed_runs
from nets_jax.studies.places import place
from nets_jax.studies.run_files import tally_layers
from nets_jax.studies.work import Options, complete
from nets_jax.training.task import Task

METRICS = ("fitness", "density", "valid_loss", "valid_accuracy", "test_loss", "test_accuracy")
SHOWN = {
  "density": "percent", "valid_loss": "short", "test_loss": "short", "test_accuracy": "percent",
  "search_seconds": "short",
}  # fmt: skip
RESULTS = ("search_epochs", "search_seconds", "compile_seconds", "empty_layers", "failed")


def vary(search: Search, task: Task, grid: Mapping[str, Sequence[Value]]) -> list[Method]:
  """Every combination of listed values, by the settings' names on the command line, as methods.

  Args:
    search: whose settings are varied,
    task: or those of the task, its training and its initialiser.
    grid: values by name.

  Raises:
    UsageError: neither has such a setting.
  """
  combinations: list[dict[str, Value]] = [{}]
  for name, values in grid.items():
    combinations = [{**changes, name: value} for changes in combinations for value in values]
  return [changed(search, task, changes) for changes in combinations]


def changed(search: Search, task: Task, changes: Mapping[str, Value]) -> Method:
  """A search and a task with other settings, each with those of its own, as a method of a sweep."""
  of_task = set(names(task.bare))
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
    metric: of `METRICS`, what decides on the best setting; None is `valid_loss` after the final training, or
      `fitness` where there was none.
    directory: of the runs' files; None is a temporary one that lives as long as the result.
    options: how; see `work.Options`.

  Raises:
    UsageError: an impossible setting.
  """
  for seed in seeds:
    check_seed("each of seeds", seed)
  where, keeper = place(directory)
  how = options or Options()
  how = dataclasses.replace(how, value=functools.partial(value_of, metric=metric))
  if isinstance(settings, Adaptive):
    done = complete_adaptive(settings, list(seeds), where, how)
    return Sweep(done, metric, keeper)
  check(settings)
  runs = seed_runs(settings, seeds, where)
  return Sweep(complete(runs, where, how), metric, keeper, len(runs))


def sign(metric: str | None) -> int:
  """1 where a metric is minimised, -1 where it is maximised."""
  return -1 if metric is not None and metric.endswith("accuracy") else 1


def value_of(row: Mapping[str, float], metric: str | None) -> float:
  """What a run came to, to be minimised."""
  if metric is None:
    metric = "valid_loss" if math.isfinite(row["valid_loss"]) else "fitness"
  return sign(metric) * row[metric]


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
    return found[["run", *self.varied, "seed", *METRICS, *RESULTS]]

  @property
  def history(self) -> pd.DataFrame:
    """A row for each run and generation: its best genome."""
    return tables.histories_of(self.runs)

  @functools.cached_property
  def settings(self) -> pd.DataFrame:
    """A row for each setting: the mean of its seeds, and the half-width of the mean's 95 % interval."""
    return setting_rows(self.results, self.varied)

  @functools.cached_property
  def best(self) -> tuple[int | None, str]:
    """The index of the best setting, and the metric that says so; see `best_setting`."""
    return best_setting(self.settings, self.metric)

  @property
  def best_method(self) -> Method | None:
    """The setting whose mean is best."""
    index, _ = self.best
    methods = list({run.method.hash: run.method for run in self.runs}.values())
    return None if index is None else methods[index]

  def table(self) -> str:
    """The settings in Markdown: mean ± half-width of the 95 % interval, the best in bold."""
    return setting_table(self.settings, self.results, self.varied, self.best[0])

  def certainty(self) -> str:
    """How certain it is that the best setting is the best."""
    index, metric = self.best
    return "" if index is None else certainty(self.results, self.settings, self.varied, index, metric)

  def figure(self) -> Figure | None:
    """What each hyperparameter does; None where none was varied."""
    return effects_figure(tables.rows_of(self.results), self.varied) if self.varied else None

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


def setting_rows(results: pd.DataFrame, varied: Sequence[str]) -> pd.DataFrame:
  """A row for each setting: the mean of its seeds, and the half-width of the mean's 95 % interval.

  Args:
    results: a row for each run.
    varied: the columns of what was varied.
  """
  rows = []
  for values, own in by_setting(results, varied):
    sound = tables.sound(own)
    row = dict(zip(varied, values, strict=True)) | {"runs": len(own), "failed": len(own) - len(sound)}
    row["empty_layers"] = tally_layers([str(layers) for layers in sound.get("empty_layers", [])])
    for name in (*METRICS, "search_seconds"):
      row[name], row[f"{name}_interval"] = mean_and_interval(list(sound[name]) or [math.nan])
    rows.append(row)
  return pd.DataFrame(rows)


def by_setting(results: pd.DataFrame, varied: Sequence[str]) -> list[tuple[tuple[Value, ...], pd.DataFrame]]:
  """The runs of each setting, with its values, in the order of the results."""
  if not varied:
    return [((), results)]
  return [(values, own) for values, own in results.groupby(list(varied), sort=False, dropna=False)]


def best_setting(settings: pd.DataFrame, metric: str | None) -> tuple[int | None, str]:
  """The index of the setting whose mean is best, and the metric that says so; None if no mean is finite.

  A setting in which a run failed, or is missing, is not the best.
  """
  if metric is None:
    metric = "valid_loss" if any(map(math.isfinite, settings["valid_loss"])) else "fitness"
  values = list(settings[metric])
  sound = [not failed for failed in settings["failed"]]
  if "runs" in settings:
    sound = [
      own and runs == settings["runs"].max() for own, runs in zip(sound, settings["runs"], strict=True)
    ]
  able = [i for i, own in enumerate(sound) if own and math.isfinite(values[i])]
  return min(able, key=lambda i: sign(metric) * values[i], default=None), metric


def certainty(
  results: pd.DataFrame, settings: pd.DataFrame, varied: Sequence[str], best: int, metric: str
) -> str:
  """How certain it is that the best setting is the best: its mean, and how far the next one is behind it."""
  own, half = settings[metric].iloc[best], settings[f"{metric}_interval"].iloc[best]
  after = "in the search" if metric == "fitness" else "after the final training"
  runs = f"{settings['runs'].iloc[best]} seed(s)"
  said = f"mean {metric} {after}: {own:.4g}{'' if math.isnan(half) else f' ± {half:.2g}'} over {runs}"
  others = [i for i in range(len(settings)) if i != best]
  next_index, _ = best_setting(settings.iloc[others], metric) if others else (None, metric)
  if next_index is None:
    return said
  groups = [tables.sound(own) for _, own in by_setting(results, varied)]
  by_seed = [dict(zip(groups[i]["seed"], groups[i][metric], strict=True)) for i in (best, others[next_index])]
  ours, theirs = by_seed
  gap, width = mean_and_interval([theirs[seed] - ours[seed] for seed in ours if seed in theirs] or [math.nan])
  if math.isnan(width):
    told = "one seed tells nothing of how certain that is"
  elif abs(gap) > width:
    told = "so the best is told from it"
  else:
    told = "so the two are not told apart; more seeds would tell"
  shown = f"{gap:+.2g}" + ("" if math.isnan(width) else f" ± {width:.2g}")
  return f"{said}; the next setting differs by {shown}, paired by seed, {told}"


def setting_table(
  settings: pd.DataFrame, results: pd.DataFrame, varied: Sequence[str], best: int | None
) -> str:
  """The settings in Markdown, the best in bold."""
  rows = []
  for i, (_, own) in enumerate(by_setting(results, varied)):
    setting, sound = settings.iloc[i], tables.sound(own)
    runs = f"{setting['runs']}" + (f" ({setting['failed']} failed)" if setting["failed"] else "")
    values = {name: setting[name] for name in varied}
    cells = {name: _shown(v) for name, v in values.items()} | {"runs": runs}
    for name, form in SHOWN.items():
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
