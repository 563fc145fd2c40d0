"""Each method at its best: a grid of settings, screened cheaply, its best few looked at again, one chosen.

An untuned comparison says little (Liu et al., 2019; Ma et al., 2021). So every method tries the same grid, on
one density and one trial, with a shorter final training; the best few have more trials, and the whole of it.
One setting is chosen for all densities, on validation examples, by trials that no table uses.
"""

import dataclasses
import math
import pathlib
import re
import time
from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from nets_jax.errors import UsageError
from nets_jax.protocol import Search
from nets_jax.studies import tables
from nets_jax.studies.best import value_of
from nets_jax.studies.comparison import as_methods
from nets_jax.studies.frontier_tables import TUNED_SETTINGS
from nets_jax.studies.frontiers import at_densities
from nets_jax.studies.method_labels import read_label, with_settings
from nets_jax.studies.methods import TUNING_TRIALS, Method, Run, Value, check, check_counts, trial_runs
from nets_jax.studies.places import place
from nets_jax.studies.run_files import is_done, result_row
from nets_jax.studies.space import as_number
from nets_jax.studies.sweeps import told_by, vary
from nets_jax.studies.tuning_tables import summary_row, tuning_table
from nets_jax.studies.work import Options, complete
from nets_jax.training.measures import Measures
from nets_jax.training.task import Task

# Optimisers, learning rates and first weights that the field uses; for `tune` and `--tune=default`.
INITS = ("normal", "he", "glorot")
_OF_A_LABEL = re.compile(r"^in '.*?': |; write method:setting=value$")  # of a message about one
GRID: tuple[dict[str, tuple[Value, ...]], ...] = (
  {"optimizer": ("sgd",), "learning_rate": (0.03, 0.1, 0.3, 1.0), "init": INITS},
  {"optimizer": ("adam",), "learning_rate": (0.0003, 0.0012, 0.004), "init": INITS},
)
METHOD = "method"  # the column of a method's name
NOT_TRIED = (METHOD, "target_density", "trial")  # all other columns of a candidate's runs are what is tried


def candidates(
  methods: Mapping[str, Search] | Sequence[Method],
  task: Task | None = None,
  grid: Mapping[str, Sequence[Value]] | Sequence[Mapping[str, Sequence[Value]]] | None = None,
) -> dict[str, list[Method]]:
  """Every method with every combination of listed values, by the method's name.

  Args:
    methods: searches by name, for `task`; or methods, each for a task of its own.
    task: what the tickets are for.
    grid: values by the settings' names, as on the command line; or several; None is `GRID`.

  Raises:
    UsageError: a method has no such setting, two have one name, or two grids name other settings.
  """
  grids = [grid] if isinstance(grid, Mapping) else GRID if grid is None else grid
  if len({frozenset(own) for own in grids}) > 1:
    raise UsageError("several grids must name the same settings, so that what is chosen can be told")
  found: dict[str, list[Method]] = {}
  for method in as_methods(methods, task):
    if (name := label_of(method)) in found:
      raise UsageError(f"two methods are called {name!r}; give each a name of its own")
    varied = vary(method.search, method.task, grids)
    found[name] = [dataclasses.replace(own, columns={METHOD: name, **own.columns}) for own in varied]
  return found


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
    try:
      made = make([with_settings(label, changes) for label in labels])
    except UsageError as error:
      raise UsageError(f"in --tune: {_OF_A_LABEL.sub('', str(error))}") from error
    for method in made:
      columns = {**method.columns, **{name: as_number(value) for name, value in changes.items()}}
      found.setdefault(label_of(method), []).append(dataclasses.replace(method, columns=columns))
  return found


def label_of(method: Method) -> str:
  """The name of a method in tables.

  Raises:
    UsageError: it has none.
  """
  if METHOD not in method.columns:
    raise UsageError(f"{method} has no column {METHOD!r} to be told by; give Method({{'method': name}}, ...)")
  return str(method.columns[METHOD])


def screening(
  candidates: Mapping[str, Sequence[Method]],
  *,
  density: float = 0.05,
  screen_epochs: int | None = None,
  seed: int = 0,
  directory: pathlib.Path,
) -> list[Run]:
  """The runs of the first round, one for each candidate, their settings checked; see `tune`."""
  if not 0 < density <= 1:
    raise UsageError(f"the density that decides a tuning (--tune_density) must be in (0, 1], not {density}")
  if screen_epochs is not None and screen_epochs < 1:
    raise UsageError(f"screen_epochs (--tune_epochs) must be at least 1, not {screen_epochs}")
  for name, own in candidates.items():
    aimed = [_at(method, density, screen_epochs) for method in own]
    check(aimed)
    if len({method.hash for method in aimed}) < len(aimed):
      raise UsageError(
        f"two settings of the grid are the same for {name}: the density of a ticket, and what follows from "
        "it, is given; leave it out of the grid"
      )
  everything = [_at(method, density, screen_epochs) for own in candidates.values() for method in own]
  return trial_runs(everything, [TUNING_TRIALS], seed, directory)


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
    screen_epochs: of the final training in the first round, and so of its schedule; None is all.
    finalists: settings of each method that go on to the second round; 1 chooses by the first alone.
    trials: of each of them there, other ones than that of the first round.
    seed: of all randomness.
    metric: of `best.BEST_BY`, what decides; of validation examples.
    directory: of the runs' files; None is a temporary one that lives as long as the result.
    options: how; see `work.Options`. Its hours are those of both rounds.

  Raises:
    UsageError: an impossible setting.
  """
  check_counts(finalists=(finalists, 1), trials=(trials, 1))
  if metric.startswith("test"):
    raise UsageError(f"tuning by {metric} would show the test examples; give a metric of validation")
  begun, how = time.monotonic(), options or Options()
  where, keeper = place(directory)
  first = screening(candidates, density=density, screen_epochs=screen_epochs, seed=seed, directory=where)
  column, measures = told_by(metric, [run.method for run in first])
  complete(first, where, how)
  screened = {name: [run for run in first if label_of(run.method) == name] for name in candidates}
  order = {name: _ranked([[run] for run in runs], column, measures) for name, runs in screened.items()}
  second: dict[str, list[list[Run]]] = {}
  if finalists > 1 and all(map(is_done, first)):
    again = range(TUNING_TRIALS + 1, TUNING_TRIALS + 1 + trials)
    for name, best in order.items():
      aimed = [_at(candidates[name][i], density, None) for i in best[:finalists]]
      second[name] = [trial_runs([method], again, seed, where) for method in aimed]
    complete([run for own in second.values() for runs in own for run in runs], where, how.less(begun))
  runs = [*first, *(run for own in second.values() for each in own for run in each)]
  is_over = bool(second) == (finalists > 1) and all(map(is_done, runs))
  final = {name: [order[name][i] for i in _ranked(own, column, measures)] for name, own in second.items()}
  return Tuning(candidates, screened, second, order, final, is_over, measures, keeper)


@dataclasses.dataclass(frozen=True)
class Tuning:
  """What came of a tuning.

  Attributes:
    candidates: of each method by its name.
    screened: the first round's runs, one for each candidate.
    second: the second round's runs, of each finalist.
    order: the candidates that came through the first round, by their place in `candidates`, the best first.
    final: those that came through the second, likewise.
    is_over: whether all runs are done: a study with a budget of hours may stop before.
    measures: loss and score of the runs.
    keeper: keeps a temporary directory of the runs.
  """

  candidates: Mapping[str, Sequence[Method]]
  screened: Mapping[str, Sequence[Run]]
  second: Mapping[str, Sequence[Sequence[Run]]]
  order: Mapping[str, Sequence[int]]
  final: Mapping[str, Sequence[int]]
  is_over: bool
  measures: Measures
  keeper: object = None

  def choice(self, name: str) -> int | None:
    """The candidate that a method has in the end: the best of the second round, or the next of the first.

    None where no setting of the method came through.
    """
    again = self.order[name][: len(self.second.get(name, []))]
    return next(iter([*self.final.get(name, []), *(i for i in self.order[name] if i not in again)]), None)

  @property
  def methods(self) -> list[Method]:
    """Each method with what was chosen, by its own name alone.

    Raises:
      UsageError: no setting of a method came through.
    """
    chosen = {name: self.choice(name) for name in self.candidates}
    if lost := [name for name, i in chosen.items() if i is None]:
      raise UsageError(
        f"no setting of {', '.join(lost)} came through, so none can be chosen; give others, or leave it out"
      )
    found = {name: self.candidates[name][i] for name, i in chosen.items() if i is not None}
    notes = {name: summary_row(own, self.measures) for name, own in self.results.groupby(METHOD, sort=False)}
    return [
      dataclasses.replace(method, columns={METHOD: name}, tuning=notes[name])
      for name, method in found.items()
    ]

  @property
  def results(self) -> pd.DataFrame:
    """A row for each run that is done: method, settings, round, what it came to, whether it was chosen."""
    rounds = [(1, i, run) for own in self.screened.values() for i, run in enumerate(own)]
    for name, own in self.second.items():
      rounds += [(2, self.order[name][i], run) for i, runs in enumerate(own) for run in runs]
    rows = []
    for number, i, run in rounds:
      if is_done(run):
        row = result_row(run)
        trained = 0 if row["failed"] else run.method.task.epochs
        chosen = self.choice(label_of(run.method)) == i
        tried = {name: value for name, value in run.columns.items() if name not in NOT_TRIED}
        words = ", ".join(f"{name}={value}" for name, value in tried.items())
        found = {"round": number, "training_epochs": trained, "chosen": int(chosen), TUNED_SETTINGS: words}
        rows.append({**row, **found})
    return pd.DataFrame(rows)

  def table(self) -> str:
    """In Markdown: each method's choice, how much hung on it, and what finding it cost."""
    return tuning_table(self.results, self.measures)

  def write(self, directory: pathlib.Path) -> str:
    """Writes tuning.csv and tuning.md, with what is there of other methods; returns the table.

    Raises:
      UsageError: no run is done.
    """
    rows, path = self.results, directory / "tuning.csv"
    if path.exists():
      before = tables.read_table(path)
      rows = pd.concat([before[~before[METHOD].isin(list(self.candidates))], rows], ignore_index=True)
    if not len(rows):
      raise UsageError("no run of the tuning is done yet; the same command goes on with it")
    tables.write_table(path, rows)
    tables.write_text(directory / "tuning.md", table := tuning_table(rows, self.measures))
    return table


def _at(method: Method, density: float, epochs: int | None) -> Method:
  """A method for tickets of one density, with another length of the final training."""
  (aimed,) = at_densities(method, [density])
  columns = {METHOD: label_of(method), "target_density": density}
  aimed = dataclasses.replace(aimed, columns={**columns, **method.columns})
  if epochs is None:
    return aimed
  record = {**aimed.record, "train_epochs": epochs} if aimed.record else {}
  return dataclasses.replace(aimed, task=aimed.task.replace(epochs=epochs), record=record)


def _ranked(groups: Sequence[Sequence[Run]], metric: str | None, measures: Measures) -> list[int]:
  """The groups in which no run failed or diverged, by their mean, the best first; ties by the mean loss."""
  means = {}
  for i, runs in enumerate(groups):
    rows = [result_row(run) for run in runs if is_done(run)]
    rows = [row for row in rows if not row["failed"] and math.isfinite(row["valid_loss"])]
    sound = [value_of(row, metric, measures) for row in rows]
    if len(sound) == len(runs) and all(map(math.isfinite, sound)):
      means[i] = sum(sound) / len(sound), sum(row["valid_loss"] for row in rows)
  return sorted(means, key=lambda i: means[i])
