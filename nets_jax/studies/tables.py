"""Table 1 and the figures' data, made from the files of a comparison's stages."""

import math
import pathlib
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from nets_jax.analysis import verdicts as verdicts_module
from nets_jax.cli import outcome
from nets_jax.engine.tables import read_csv

Stages = Sequence[tuple[str, pathlib.Path]]  # a method's label and the directory of its files
Rows = list[dict[str, Any]]

METRICS = ("density", "valid_loss", "test_loss", "valid_accuracy", "test_accuracy")
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


def table1_rows(stages: Stages) -> Rows:
  """A row for each method and trial: its ticket after the last epoch, and what its search cost.

  Of a trial that failed the figures are NaN, and `failed` says why.
  """
  rows = []
  for label, stage in stages:
    last = {int(row["trial"]): row for row in read_rows(stage / "training.csv")}  # the rows go by iteration
    for cost in read_csv(stage / "costs.csv"):
      trained = last.get(int(cost["trial"]), {})
      rows.append(
        {"method": label, "trial": int(cost["trial"])}
        | {name: trained.get(name, math.nan) for name in METRICS}
        | {f"search_{name}": cost[name] for name in ("epochs", "seconds", "compile_seconds")}
        | {name: cost.get(name, "") for name in ("empty_layers", "failed")}
      )
  return rows


def read_rows(path: pathlib.Path) -> Rows:
  """A table's rows; none where a stage had nothing to write."""
  return read_csv(path) if path.exists() else []


def table1(rows: Rows, dataset: str, note: str = "") -> str:
  """The paper's Table 1 in markdown: our mean and standard deviation, the paper's figure beside it.

  The paper's rows, with a column for each method; turned over where there are many methods.
  """
  labels = list(dict.fromkeys(row["method"] for row in rows))
  trials = len({row["trial"] for row in rows})
  columns = [["", *[title for title, _ in LINES]]]
  for label in labels:
    own = [row for row in rows if row["method"] == label]
    paper = PAPER.get(dataset, {}).get(label)
    columns.append([f"{label}, ours" if paper else label, *[cell(own) for _, cell in LINES]])
    if paper:
      columns.append([f"{label}, paper", *paper, *[""] * (len(LINES) - len(paper))])
  lines = columns if len(labels) > MOST_COLUMNS else list(zip(*columns, strict=True))
  title = f"{dataset}, {trials} trials, mean ± standard deviation" + (f" ({note})" if note else "")
  table = ["| " + " | ".join(line) + " |" for line in lines]
  return "\n".join([title, "", table[0], "|---" * len(lines[0]) + "|", *table[1:]]) + "\n"


def verdicts(stages: Stages) -> str:
  """Definition 3 for each method against the dense networks of the same trials, if those were run."""
  places = dict(stages)
  if "dense" not in places:
    return ""
  lines = ["", "Definition 3 against dense networks trained by the same keys (means +- 95 % intervals):", ""]
  dense = by_trial(places["dense"] / "training.csv")
  for label in (label for label in places if label != "dense"):
    curves, costs = by_trial(places[label] / "training.csv"), read_csv(places[label] / "costs.csv")
    counts = [(int(cost["unmasked"]), int(cost["weights"])) for cost in costs]
    both = sorted(curves.keys() & dense.keys())
    judged = [verdicts_module.judge(curves[trial], dense[trial], *counts[trial]) for trial in both]
    lines.append(f"- {label}: {verdicts_module.summarise(judged) if judged else 'no trial has a ticket'}")
  return "\n".join(lines) + "\n"


def by_trial(path: pathlib.Path) -> dict[int, Rows]:
  """A table's rows for each trial."""
  rows = read_rows(path)
  return {
    trial: [row for row in rows if row["trial"] == trial] for trial in {int(row["trial"]) for row in rows}
  }


def spread(values: Sequence[float], form: str) -> str:
  """Mean ± standard deviation of a sample; of one value that alone."""
  factor, digits, unit = {"percent": (100, 1, " %"), "seconds": (1, 1, "")}.get(form, (1, 3, ""))
  found = [statistics.fmean(values), *([statistics.stdev(values)] if len(values) > 1 else [])]
  return " ± ".join(f"{factor * number:.{digits}f}" for number in found) + unit


def span(densities: Sequence[float]) -> str:
  """Lowest to highest, or = where all are one."""
  low, high = 100 * min(densities), 100 * max(densities)
  return "=" if f"{low:.1f}" == f"{high:.1f}" else f"{low:.1f}-{high:.1f} %"


def found(own: Rows) -> Rows:
  """The rows of the trials that have a ticket."""
  return [row for row in own if not row.get("failed")]


def _cell(name: str, form: str) -> Callable[[Rows], str]:
  return lambda own: spread([row[name] for row in found(own)], form) if found(own) else "-"


# The table's lines: a title, and the cell of a method's rows.
LINES = (
  ("Mean density", _cell("density", "percent")),
  ("Density range", lambda own: span([row["density"] for row in found(own)]) if found(own) else "-"),
  ("Mean validation loss", _cell("valid_loss", "number")),
  ("Mean test loss", _cell("test_loss", "number")),
  ("Mean validation accuracy", _cell("valid_accuracy", "percent")),
  ("Mean test accuracy", _cell("test_accuracy", "percent")),
  (
    "Search, genome-epochs",
    lambda own: f"{statistics.fmean(r['search_epochs'] for r in found(own)):.0f}" if found(own) else "-",
  ),
  ("Search, seconds", _cell("search_seconds", "seconds")),
  ("Empty layers", lambda own: outcome.tally_layers([row.get("empty_layers", "") for row in found(own)])),
  ("Failed", lambda own: f"{len(own) - len(found(own))} of {len(own)}" if found(own) != own else "none"),
)


def figure1_rows(stages: Stages) -> Rows:
  """The genome of lowest fitness of each generation and trial, of the searches that have generations."""
  rows = []
  for label, stage in stages:
    best = {}
    for row in read_rows(stage / "history.csv"):
      place = (int(row["trial"]), int(row.get("generation", -1)))
      if "generation" in row and (place not in best or row["fitness"] < best[place]["fitness"]):
        best[place] = row
    rows += [
      {"method": label, "trial": trial, "generation": generation}
      | {name: row[name] for name in ("density", "valid_loss", "fitness")}
      for (trial, generation), row in best.items()
    ]
  return rows


def figure2_rows(stages: Stages) -> Rows:
  """Validation loss and density against the seconds of search, then of training, compilation apart."""
  rows = []
  generations = figure1_rows(stages)
  for label, stage in stages:
    history, costs = read_rows(stage / "history.csv"), read_csv(stage / "costs.csv")
    if not history or "valid_loss" not in history[0]:
      continue
    if "generation" in history[0]:
      seconds = {(row["trial"], row["generation"]): row["seconds"] for row in history}
      history = [
        {**row, "seconds": seconds[row["trial"], row["generation"]]}
        for row in generations
        if row["method"] == label
      ]
    for stage_name, own in (("search", history), ("training", read_rows(stage / "training.csv"))):
      for row in own:
        trial = int(row["trial"])
        start = costs[trial]["seconds"] if stage_name == "training" else 0.0
        rows.append(
          {
            "method": label,
            "trial": trial,
            "stage": stage_name,
            "seconds": start + row["seconds"],
            "valid_loss": row["valid_loss"],
            "density": row["density"],
          }
        )
  return rows


def figure3_rows(stages: Stages) -> Rows:
  """Test loss and accuracy of each ticket after each epoch of training."""
  return [
    {"method": label, "trial": int(row["trial"])}
    | {name: row[name] for name in ("epoch", "test_loss", "test_accuracy")}
    for label, stage in stages
    for row in read_rows(stage / "training.csv")
  ]
