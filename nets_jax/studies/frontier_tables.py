"""What a study over densities found, in tables: scores, differences, Definition 3, and all that it cost."""

import math
from collections.abc import Callable

import pandas as pd

from nets_jax.analysis.intervals import mean_and_interval
from nets_jax.analysis.verdicts import Verdict, judge, minimum
from nets_jax.engine.tables import Row
from nets_jax.studies import tables
from nets_jax.studies.methods import Run
from nets_jax.studies.run_files import curve_rows, tally_layers
from nets_jax.training.measures import OF_CLASSES, Measures, of_rows

NEAR = 0.03  # share of a density that a ticket may miss without a word
MINIMUM = "minimum_"  # before the columns of the evaluation with the lowest validation loss
# Columns of what the tuning found: settings, the worst score of the grid, what failed there, genome-epochs.
TUNED_SETTINGS, WORST_OF_GRID, LOST_OF_GRID, TUNING_EPOCHS = TUNED = (
  "tuned_settings", "worst_of_grid", "lost_of_grid", "tuning_epochs",
)  # fmt: skip


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
  sound = tables.trained(own)
  lost = {"failed": len(own) - len(tables.sound(own)), "diverged": len(tables.sound(own)) - len(sound)}
  notes = [f"{count} of {len(own)} {what}" for what, count in lost.items() if count]
  if not len(sound):
    return "; ".join(notes)
  found = list(sound[measures.column("test")])
  costs = f"{sound['search_epochs'].mean():.0f}, {sound['search_seconds'].mean():.0f} s"
  factor, digits, unit = tables.FORMS[measures.form]
  worst = f"{factor * measures.worst(found):{digits}}{unit}"
  figures = f"{tables.spread(found, measures.form)} ({worst}; {costs})"
  aim, reached = own["target_density"].iloc[0], sound["density"].mean()
  notes = [f"at {100 * reached:.2g} %", *notes] if abs(reached - aim) > NEAR * aim else notes
  empty = tally_layers([str(layers) for layers in sound.get("empty_layers", pd.Series(dtype=str)).dropna()])
  notes += [f"empty: {empty}"] if empty not in ("none", "-") else []
  trained = list(sound.get("own_" + measures.column("test"), pd.Series(dtype=float)).dropna())
  notes += [f"as trained in the search {tables.spread(trained, measures.form)}"] if trained else []
  return "; ".join([figures, *notes])


def differences(results: pd.DataFrame, measures: Measures | None = None) -> pd.DataFrame:
  """Each method's test score less that of the first: of a share in points, else in what the score is in.

  Paired by trial, for the trials of all methods train by the same keys; of the trials that both have, where
  these are two or more. A dense network is compared at each density of the other: the first method's, or
  the methods' where it is the first itself.

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
  densities = {name: [density for own, density in by_place if own == name] for name in (reference, *others)}
  for method in others:
    is_dense, to_dense = (densities[name] == [1.0] for name in (method, reference))
    for density in densities[method if to_dense else reference]:
      own = by_place.get((method, 1.0 if is_dense else density), {})
      first = by_place[reference, 1.0 if to_dense else density]
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

  return _by_density(title, found, shown)


def judgement_row(run: Run) -> Row:
  """What Definition 3 and the costs need of a run, and what its tuning found, by column.

  With j the evaluation of the lowest validation loss: its iteration, that loss, the test score there.
  """
  measures, curve = run.method.task.measures, curve_rows(run)
  best = minimum(curve) if curve else {}
  names = ("iteration", "valid_loss", measures.column("test"))
  return (
    {MINIMUM + name: best.get(name, math.nan) for name in names}
    | {"train_epochs": run.method.task.epochs}
    | dict(run.method.tuning)
  )


def best_dense(results: pd.DataFrame, measures: Measures) -> str | None:
  """The dense method of the best mean score on validation examples, among those of most trials; or None."""
  results = _judged(results)
  whole = results.groupby("method", sort=False)["target_density"].min() == 1
  dense = results[results["method"].isin(whole.index[whole])]
  trials = dense.groupby("method", sort=False)["trial"].nunique()
  whole = trials.index[trials == trials.max()]
  dense = dense[dense["method"].isin(whole)]
  means = dense.groupby("method", sort=False)[measures.column("valid")].mean().dropna()
  return None if not len(means) else str(means.idxmax() if measures.more_is_better else means.idxmin())


def _judged(results: pd.DataFrame) -> pd.DataFrame:
  """The rows that Definition 3 can look at; tables of before have none."""
  column = MINIMUM + "iteration"
  return results[results[column].notna()] if column in results else results[:0]


def verdicts(results: pd.DataFrame, measures: Measures) -> dict[tuple[str, float], list[Verdict]]:
  """Definition 3 of each sparse ticket against the best dense network of its trial, by method and density."""
  rows, reference = tables.rows_of(_judged(results)), best_dense(results, measures)
  dense = {row["trial"]: row for row in rows if row["method"] == reference}
  found: dict[tuple[str, float], list[Verdict]] = {}
  for row in rows:
    if row["target_density"] < 1 and row["trial"] in dense and _as_long(row, dense[row["trial"]]):
      own, other = ([_at_minimum(one)] for one in (row, dense[row["trial"]]))
      judged = judge(own, other, int(row["unmasked"]), int(row["weights"]), measures)
      found.setdefault((row["method"], row["target_density"]), []).append(judged)
  return found


def _as_long(row: Row, other: Row) -> bool:
  """Whether two final trainings are of as many epochs; rows of before do not say."""
  return row.get("train_epochs") == other.get("train_epochs")


def _at_minimum(row: Row) -> Row:
  """The one row of a curve that Definition 3 looks at."""
  return {name.removeprefix(MINIMUM): value for name, value in row.items() if name.startswith(MINIMUM)}


def winning_table(results: pd.DataFrame, measures: Measures) -> str:
  """How many tickets win by Definition 3, and by which of its conditions; nothing without a dense network.

  The definition asks for one training of both. Where each method has settings of its own, iterations are
  those of two trainings, and the title says so.
  """
  found = verdicts(results, measures)
  if not found:
    return ""
  title = (
    f"Definition 3 against {best_dense(results, measures)} of the same trial, each by its own training: how "
    "many tickets win (as fast, as good)"
  )

  def shown(own: pd.DataFrame) -> str:
    judged = found[own["method"].iloc[0], own["target_density"].iloc[0]]
    wins, fast, good = (sum(getattr(one, name) for one in judged) for name in ("wins", "as_fast", "as_good"))
    return f"{wins} of {len(judged)} ({fast}, {good})"

  judged = [place in found for place in zip(results["method"], results["target_density"], strict=True)]
  return _by_density(title, results[judged], shown)


def cost_table(results: pd.DataFrame, measures: Measures) -> str:
  """What each method's settings are and what finding a ticket costs; nothing where none was tuned."""
  if TUNED[0] not in results:
    return ""
  factor, digits, unit = tables.FORMS[measures.form]
  rows = []
  for name, own in results.groupby("method", sort=False):
    chosen, worst, lost, tuning, trained = (own[column].dropna() for column in (*TUNED, "train_epochs"))
    search = sorted({round(epochs) for epochs in own["search_epochs"]})
    rows.append(
      {"method": name, "settings": chosen.iloc[-1] if len(chosen) else "-"}
      | {"worst of the grid": f"{factor * worst.iloc[-1]:{digits}}{unit}" if len(worst) else "-"}
      | {"failed there": lost.iloc[-1] if len(lost) else "-"}
      | {"a search": f"{search[0]:,}" + (f" to {search[-1]:,}" if len(search) > 1 else "")}
      | {"final training": f"{trained.max():,.0f}" if len(trained) else "-"}
      | {"tuning": f"{tuning.iloc[-1]:,.0f}" if len(tuning) else "-"}
    )
  title = (
    f"Settings as tuned, by validation {measures.words}; genome-epochs of the searches, trainings, tuning"
  )
  return f"{title}\n\n{tables.markdown(pd.DataFrame(rows))}"


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
