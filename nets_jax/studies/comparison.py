"""Methods side by side in independent trials: the paper's Table 1 and Figures 1 to 3 (section 4)."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from nets_jax.analysis.study_figures import seconds_figure, training_figure, trials_figure
from nets_jax.analysis.style import save_figure
from nets_jax.analysis.verdicts import judge, summarise
from nets_jax.engine.tables import Row
from nets_jax.protocol import Search
from nets_jax.studies import tables
from nets_jax.studies.methods import Method, Run, check, measures_of, table_trials, trial_runs
from nets_jax.studies.places import place
from nets_jax.studies.run_files import metrics, tally_layers
from nets_jax.studies.work import Options, complete
from nets_jax.training.measures import Measures, of_rows
from nets_jax.training.task import Task

MOST_COLUMNS = 6
# Table 1 of the paper, and the dense network that it does not report.
PAPER = {
  "mnist": {
    "random": ("22.8 %", "15-39.9 %", "0.350", "0.329", "90.6 %", "90 %"),
    "imp": ("21.1 %", "=", "0.173", "0.163", "95.1 %", "95.2 %"),
    "nets": ("29.7 %", "22.4-41 %", "0.302", "0.263", "91 %", "92.3 %"),
  },
  "xor": {
    "random": ("20 %", "=", "0.032", "0.024", "82 %", "84 %"),
    "imp": ("20 %", "=", "0.0", "0.012", "100 %", "100 %"),
    "nets": ("20 %", "=", "0.0", "0.053", "100 %", "100 %"),
  },
}


def columns(measures: Measures) -> list[str]:
  """Of a comparison's results."""
  return [
    "method", "trial", *metrics(measures), "multiplication_share",
    "search_epochs", "search_seconds", "search_compile_seconds", "empty_layers", "failed",
  ]  # fmt: skip


def as_methods(methods: Mapping[str, Search] | Sequence[Method], task: Task | None) -> list[Method]:
  """Searches by name as methods for one task; methods as they are."""
  if not isinstance(methods, Mapping):
    return list(methods)
  if task is None:
    raise ValueError("searches by name take a task")
  return [Method({"method": name}, search, task) for name, search in methods.items()]


def compare(
  methods: Mapping[str, Search] | Sequence[Method],
  task: Task | None = None,
  *,
  trials: int = 5,
  first_trial: int = 0,
  seed: int = 0,
  directory: str | pathlib.Path | None = None,
  options: Options | None = None,
) -> "Comparison":
  """Runs each method in independent trials and trains every ticket alike; what is done is not run again.

  Args:
    methods: searches by name, for `task`; or `Method`s, each with a training and initialiser of its own.
    task: what the tickets are for.
    trials: of each method; trial t of all methods has the same keys.
    first_trial: number of the first.
    seed: of all randomness.
    directory: of the runs' files; None is a temporary one that lives as long as the result.
    options: how; see `work.Options`.

  Raises:
    UsageError: an impossible setting.
  """
  chosen = as_methods(methods, task)
  numbers = table_trials(trials, first_trial)
  check(chosen)
  where, keeper = place(directory)
  runs = trial_runs(chosen, numbers, seed, where)
  return Comparison(complete(runs, where, options or Options()), keeper, len(runs))


@dataclasses.dataclass(frozen=True)
class Comparison:
  """What came of a comparison.

  Attributes:
    runs: those that are done.
    keeper: keeps a temporary directory of theirs.
    asked: how many were asked for.
  """

  runs: Sequence[Run]
  keeper: object = None
  asked: int = 0

  @property
  def results(self) -> pd.DataFrame:
    """A row for each method and trial: its trained ticket, what its search cost, and why it failed."""
    found = tables.results_of(self.runs).rename(columns={"compile_seconds": "search_compile_seconds"})
    return found[columns(self.measures)]

  @property
  def measures(self) -> Measures:
    """Which loss and score the runs have."""
    return measures_of(self.runs)

  @property
  def generations(self) -> pd.DataFrame:
    """Figure 1's data: the genome of lowest fitness of each generation and trial."""
    found = tables.histories_of(self.runs)
    if "generation" not in found:
      return pd.DataFrame()
    found = found[found["generation"].notna()].astype({"generation": int})
    return found[["method", "trial", "generation", "density", "valid_loss", "fitness"]]

  @property
  def seconds(self) -> pd.DataFrame:
    """Figure 2's data: validation loss and density against the seconds of search, then of training."""
    parts = []
    results = tables.results_of(self.runs).set_index("run")
    for stage, found in (("search", tables.histories_of(self.runs)), ("training", self.curves)):
      if "valid_loss" not in found or not len(found):
        continue
      found = found[found["valid_loss"].notna()].assign(stage=stage)
      if stage == "training":
        searched = self._searched(parts)
        found = found[found["run"].isin(searched)]
        if not len(found):
          continue
        found["seconds"] += found["run"].map(results["search_seconds"])
        found["density"] = found["run"].map(results["density"])
      parts.append(found)
    if not parts:
      return pd.DataFrame()
    both = pd.concat(parts)
    order = {run.name: i for i, run in enumerate(self.runs)}
    both = both.sort_values("run", key=lambda names: names.map(order), kind="stable")
    return both[["method", "trial", "stage", "seconds", "valid_loss", "density"]]

  @staticmethod
  def _searched(parts: Sequence[pd.DataFrame]) -> set[str]:
    """The runs whose searches have losses, so that their trainings go on from them."""
    return {name for part in parts for name in part["run"]}

  @property
  def curves(self) -> pd.DataFrame:
    """A row for each run and evaluation of its final training."""
    return tables.curves_of(self.runs)

  @property
  def training(self) -> pd.DataFrame:
    """Figure 3's data: test loss and score of each ticket after each epoch of training."""
    found, score = self.curves, self.measures.column("test")
    return found[["method", "trial", "epoch", "test_loss", score]] if len(found) else found

  def table(self, dataset: str = "", note: str = "") -> str:
    """The paper's Table 1 in Markdown; see `table1`."""
    return table1(self.results, dataset, note, self.measures)

  def verdicts(self) -> str:
    """Definition 3 for each method against the dense networks of the same trials, if those were run."""
    curves = {(run.columns["method"], run.trial): run for run in self.runs}
    results = {(row["method"], row["trial"]): row for row in tables.rows_of(tables.results_of(self.runs))}
    dense = {
      trial: tables.rows_of(tables.curves_of([run]))
      for (name, trial), run in curves.items()
      if name == "dense"
    }
    if not dense:
      return ""
    lines = [
      "",
      "Definition 3 against dense networks trained by the same keys (means +- 95 % intervals):",
      "",
    ]
    for label in dict.fromkeys(name for name, _ in curves if name != "dense"):
      judged = []
      for (name, trial), run in curves.items():
        own = tables.rows_of(tables.curves_of([run])) if name == label else []
        if own and dense.get(trial):
          row = results[name, trial]
          counts = int(row["unmasked"]), int(row["weights"])
          judged.append(judge(own, dense[trial], *counts, self.measures))
      lines.append(f"- {label}: {summarise(judged) if judged else 'no trial has a ticket'}")
    return "\n".join(lines) + "\n"

  def figures(self, note: str = "") -> dict[str, tuple[pd.DataFrame, Figure]]:
    """Figures 1 to 3 by their file's name, with the data each is drawn from; those that have any."""
    drawn: dict[str, tuple[pd.DataFrame, Callable[[Sequence[Row], str, Measures], Figure]]] = {
      "figure1": (self.generations, trials_figure),
      "figure2": (self.seconds, seconds_figure),
      "figure3": (self.training, training_figure),
    }
    return {
      name: (data, draw(tables.rows_of(data), note, self.measures))
      for name, (data, draw) in drawn.items()
      if len(data)
    }

  def write(self, directory: pathlib.Path, dataset: str = "", note: str = "") -> str:
    """Writes table1.csv, table1.md, and each figure with its data; returns the table."""
    tables.write_table(directory / "table1.csv", self.results)
    text = self.table(dataset, note) + self.verdicts() + tables.how_many(self.runs, self.asked)
    tables.write_text(directory / "table1.md", text)
    for name, (data, figure) in self.figures(note).items():
      tables.write_table(directory / f"{name}.csv", data)
      for suffix in ("png", "svg"):
        save_figure(figure, directory / f"{name}.{suffix}")
    return text


def _cell(column: str, form: str) -> Callable[[pd.DataFrame], str]:
  return lambda own: tables.spread(list(tables.trained(own)[column]), form, "deviation")


def _span(own: pd.DataFrame) -> str:
  densities = tables.trained(own)["density"]
  return span(list(densities)) if len(densities) else "-"


def span(densities: Sequence[float]) -> str:
  """Lowest to highest, or = where all are one."""
  low, high = 100 * min(densities), 100 * max(densities)
  return "=" if f"{low:.1f}" == f"{high:.1f}" else f"{low:.1f}-{high:.1f} %"


def _epochs(own: pd.DataFrame) -> str:
  epochs = tables.trained(own)["search_epochs"]
  return f"{epochs.mean():.0f}" if len(epochs) else "-"


def failed(own: pd.DataFrame) -> str:
  """How many runs have no ticket."""
  count = len(own) - len(tables.trained(own))
  return f"{count} of {len(own)}" if count else "none"


def _lines(measures: Measures) -> list[tuple[str, Callable[[pd.DataFrame], str]]]:
  """The table's lines: a title, and the cell of a method's rows."""
  return [
    ("Mean density", _cell("density", "percent")),
    ("Density range", _span),
    ("Mean validation loss", _cell("valid_loss", "number")),
    ("Mean test loss", _cell("test_loss", "number")),
    (f"Mean validation {measures.words}", _cell(measures.column("valid"), measures.form)),
    (f"Mean test {measures.words}", _cell(measures.column("test"), measures.form)),
    ("Multiplications left", _cell("multiplication_share", "percent")),
    ("Search, genome-epochs", _epochs),
    ("Search, seconds", _cell("search_seconds", "seconds")),
    ("Empty layers", lambda own: tally_layers(list(tables.trained(own)["empty_layers"]))),
    ("Failed", failed),
  ]


def table1(results: pd.DataFrame, dataset: str = "", note: str = "", measures: Measures | None = None) -> str:
  """The paper's Table 1 in Markdown: our mean and standard deviation, the paper's figure beside it.

  The paper's rows, with a column for each method; turned over where there are many methods.

  Args:
    results: see `Comparison.results`.
    dataset: a name in `PAPER`, or another.
    note: after the title.
    measures: which score the results have; None is what their columns say.
  """
  lines = _lines(measures or of_rows([dict.fromkeys(map(str, results.columns))]))
  columns = {"": [title for title, _ in lines]}
  for label, own in results.groupby("method", sort=False):
    paper = PAPER.get(dataset, {}).get(str(label))
    columns[f"{label}, ours" if paper else str(label)] = [cell(own) for _, cell in lines]
    if paper:
      columns[f"{label}, paper"] = [*paper, *[""] * (len(lines) - len(paper))]
  table = pd.DataFrame(columns)
  if results["method"].nunique() > MOST_COLUMNS:
    table = table.set_index("").T.reset_index().rename(columns={"index": ""})
  trials = results["trial"].nunique()
  title = f"{dataset or 'tickets'}, {trials} trials, mean ± standard deviation" + (
    f" ({note})" if note else ""
  )
  return f"{title}\n\n{tables.markdown(table)}"
