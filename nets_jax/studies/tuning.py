"""Each method at its best: a grid of settings, screened cheaply, its best few looked at again, one chosen.

An untuned comparison says little (Liu et al., 2019; Ma et al., 2021). So every method tries the same grid, on
one density and one trial, with a shorter final training. The best few of each have more trials, and the whole
training. The best of these is the method's, for all densities. All is decided on validation examples, by
trials that no table uses.
"""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from nets_jax.errors import UsageError
from nets_jax.protocol import Search
from nets_jax.studies import tables
from nets_jax.studies.best import metric_of, value_of
from nets_jax.studies.comparison import as_methods
from nets_jax.studies.frontiers import at_densities
from nets_jax.studies.method_labels import read_label, with_settings
from nets_jax.studies.methods import Method, Run, Value, check, check_counts, measures_of, trial_runs
from nets_jax.studies.places import place
from nets_jax.studies.run_files import is_done
from nets_jax.studies.space import as_number
from nets_jax.studies.sweeps import changed
from nets_jax.studies.work import Options, complete
from nets_jax.training.measures import Measures
from nets_jax.training.task import Task

# Learning rates, first weights and optimisers that the field uses; for `tune` and `--tune=default`.
GRID: dict[str, tuple[Value, ...]] = {
  "optimizer": ("sgd", "adam"),
  "learning_rate": (0.001, 0.01, 0.1, 0.3),
  "init": ("normal", "he", "glorot"),
}
FIRST_TRIAL = 1_000_000  # of those that tune; tables have trials from 0 on


def candidates(
  methods: Mapping[str, Search] | Sequence[Method],
  task: Task | None = None,
  grid: Mapping[str, Sequence[Value]] | None = None,
) -> dict[str, list[Method]]:
  """Every method with every combination of listed values, by the method's name.

  Args:
    methods: searches by name, for `task`; or methods, each for a task of its own.
    task: what the tickets are for.
    grid: values by the settings' names, as on the command line; None is `GRID`.

  Raises:
    UsageError: a method has no such setting.
  """
  found: dict[str, list[Method]] = {}
  for method in as_methods(methods, task):
    combinations: list[dict[str, Value]] = [{}]
    for name, values in (GRID if grid is None else grid).items():
      combinations = [{**changes, name: value} for changes in combinations for value in values]
    found[label_of(method)] = [
      dataclasses.replace(changed(method.search, method.task, changes), columns={**method.columns, **changes})
      for changes in combinations
    ]
  return found


def as_text(grid: Mapping[str, Sequence[Value]]) -> str:
  """A grid as it is written on the command line."""
  return ";".join(f"{name}={','.join(map(str, values))}" for name, values in grid.items())


def of_labels(
  labels: Sequence[str], grid: Sequence[Mapping[str, str]], make: Callable[[list[str]], Sequence[Method]]
) -> dict[str, list[Method]]:
  """As `candidates`, of methods as they are written on the command line.

  Args:
    labels: see `method_labels`.
    grid: settings as they are written.
    make: the methods of some labels.

  Raises:
    UsageError: a label says what the grid is to find.
  """
  for label in labels:
    if both := set(read_label(label)[2]) & set(grid[0]):
      raise UsageError(f"{label!r} gives {', '.join(sorted(both))}, which tuning is to choose; leave one out")
  found: dict[str, list[Method]] = {}
  for changes in grid:
    for method in make([with_settings(label, changes) for label in labels]):
      columns = {**method.columns, **{name: as_number(value) for name, value in changes.items()}}
      found.setdefault(label_of(method), []).append(dataclasses.replace(method, columns=columns))
  return found


def label_of(method: Method) -> str:
  """The name of a method in tables."""
  return str(next(iter(method.columns.values())))


def screening(
  candidates: Mapping[str, Sequence[Method]],
  *,
  density: float = 0.05,
  screen_epochs: int | None = None,
  seed: int = 0,
  directory: pathlib.Path,
) -> list[Run]:
  """The runs of the first round, one for each candidate, their settings checked; see `tune`."""
  aimed = [_at(method, density, screen_epochs) for own in candidates.values() for method in own]
  check(aimed)
  return trial_runs(aimed, [FIRST_TRIAL], seed, directory)


def tune(
  candidates: Mapping[str, Sequence[Method]],
  *,
  density: float = 0.05,
  screen_epochs: int | None = None,
  finalists: int = 2,
  trials: int = 2,
  seed: int = 0,
  metric: str = "valid_score",
  directory: str | pathlib.Path | None = None,
  options: Options | None = None,
) -> "Tuning":
  """Chooses a setting for each method; what is done is not run again.

  Args:
    candidates: of each method by its name, from `candidates`.
    density: of the tickets that decide.
    screen_epochs: of the final training in the first round; None is all.
    finalists: settings of each method that go on to the second round; 1 chooses by the first alone.
    trials: of each of them there, other ones than that of the first round.
    seed: of all randomness.
    metric: of `best.BEST_BY`, what decides; of validation examples.
    directory: of the runs' files; None is a temporary one that lives as long as the result.
    options: how; see `work.Options`.

  Raises:
    UsageError: an impossible setting.
  """
  check_counts(finalists=(finalists, 1), trials=(trials, 1))
  if metric.startswith("test"):
    raise UsageError(f"tuning by {metric} would show the test examples; give a metric of validation")
  where, keeper = place(directory)
  how = options or Options()
  first = screening(candidates, density=density, screen_epochs=screen_epochs, seed=seed, directory=where)
  screened = {name: [run for run in first if label_of(run.method) == name] for name in candidates}
  measures = measures_of(first)
  column = metric_of(metric, measures) or "valid_loss"
  complete(first, where, how)
  best: dict[str, list[int]] = {
    name: _ranked([[run] for run in runs], column, measures)[:finalists] for name, runs in screened.items()
  }
  final: dict[str, list[list[Run]]] = {}
  if finalists > 1 and all(map(is_done, first)):
    again = range(FIRST_TRIAL + 1, FIRST_TRIAL + 1 + trials)
    for name, chosen in best.items():
      aimed = [_at(candidates[name][i], density, None) for i in chosen]
      final[name] = [trial_runs([method], again, seed, where) for method in aimed]
    complete([run for own in final.values() for runs in own for run in runs], where, how)
  return Tuning(candidates, screened, best, final, finalists > 1, column, measures, keeper)


@dataclasses.dataclass(frozen=True)
class Tuning:
  """What came of a tuning.

  Attributes:
    candidates: of each method by its name.
    screened: the first round's runs, one for each candidate.
    best: which candidates went on, the best first.
    final: the second round's runs of each of these; empty before it.
    has_second: whether there is a second round.
    metric: what decides.
    measures: loss and score of the runs.
    keeper: keeps a temporary directory of the runs.
  """

  candidates: Mapping[str, Sequence[Method]]
  screened: Mapping[str, Sequence[Run]]
  best: Mapping[str, Sequence[int]]
  final: Mapping[str, Sequence[Sequence[Run]]]
  has_second: bool
  metric: str
  measures: Measures
  keeper: object = None

  @property
  def runs(self) -> list[tuple[int, Run]]:
    """All runs so far, each with its round, 1 or 2."""
    second = [(2, run) for own in self.final.values() for runs in own for run in runs]
    return [*((1, run) for own in self.screened.values() for run in own), *second]

  @property
  def is_over(self) -> bool:
    """Whether all runs are done: a study with a budget of hours may stop before."""
    return bool(self.final) >= self.has_second and all(is_done(run) for _, run in self.runs)

  def choice(self, name: str) -> int:
    """The candidate that a method has in the end.

    Raises:
      UsageError: no setting of the method came through.
    """
    best = self.best[name]
    ranked = _ranked(self.final[name], self.metric, self.measures) if self.final else range(len(best))
    if not ranked:
      raise UsageError(f"no setting of {name} came through with every run, so none can be chosen")
    return best[ranked[0]]

  @property
  def methods(self) -> list[Method]:
    """Each method with what was chosen, by its own name alone."""
    chosen = [self.candidates[name][self.choice(name)] for name in self.candidates]
    return [
      dataclasses.replace(method, columns=dict([next(iter(method.columns.items()))])) for method in chosen
    ]

  @property
  def results(self) -> pd.DataFrame:
    """A row for each run that is done: method, settings, round, and what it came to."""
    done = [tables.results_of([run]).assign(round=number) for number, run in self.runs if is_done(run)]
    return pd.concat(done, ignore_index=True) if done else pd.DataFrame()

  def table(self) -> str:
    """In Markdown: each method's choice, how much hung on it, and what finding it cost."""
    return tables.markdown(pd.DataFrame([self._row(name) for name in self.candidates]))

  def _row(self, name: str) -> dict[str, Value]:
    chosen = dict(list(self.candidates[name][self.choice(name)].columns.items())[1:])
    own = self.results[self.results["method"] == name]
    last = tables.rows_of(own[own["round"] == own["round"].max()])
    column, form = self.measures.column("valid"), self.measures.form
    found = [row[column] for row in last if all(row[k] == v for k, v in chosen.items())]
    screened = list(tables.sound(own[own["round"] == 1])[column])
    trained = sum(
      run.method.task.epochs for _, run in self.runs if is_done(run) and label_of(run.method) == name
    )
    return {
      "method": name, "chosen": ", ".join(f"{k}={v}" for k, v in chosen.items()),
      f"valid {self.measures.words}": tables.spread(found, form),
      "worst in the grid": tables.spread([self.measures.worst(screened)], form),
      "settings": len(self.screened[name]), "failed": int((own["failed"] != "").sum()),
      "genome-epochs of tuning": f"{own['search_epochs'].sum() + trained:,.0f}",
      "seconds of its searches": f"{own['search_seconds'].sum():,.0f}",
    }  # fmt: skip

  def write(self, directory: pathlib.Path) -> str:
    """Writes tuning.csv and tuning.md; returns the table."""
    tables.write_table(directory / "tuning.csv", self.results)
    tables.write_text(directory / "tuning.md", table := self.table())
    return table


def _at(method: Method, density: float, epochs: int | None) -> Method:
  """A method for tickets of one density, with another length of the final training."""
  (aimed,) = at_densities(method, [density])
  return aimed if epochs is None else dataclasses.replace(aimed, task=aimed.task.replace(epochs=epochs))


def _ranked(groups: Sequence[Sequence[Run]], metric: str, measures: Measures) -> list[int]:
  """The groups of runs in which none failed, by their mean, the best first; ties by their order."""
  means = {}
  for i, runs in enumerate(groups):
    if not all(map(is_done, runs)):
      continue
    rows = tables.rows_of(tables.results_of(runs))
    mean = sum(value_of(row, metric, measures) for row in rows) / len(rows)
    if not any(row["failed"] for row in rows) and math.isfinite(mean):
      means[i] = mean
  return sorted(means, key=lambda i: means[i])
