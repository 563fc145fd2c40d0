"""Tables of accuracy over density: the trials' rows, their means, and what methods differ by."""

import math
from collections.abc import Callable
from typing import Any

from nets_jax.analysis.intervals import mean_and_interval
from nets_jax.cli import outcome
from nets_jax.studies import tables

Rows = list[dict[str, Any]]


def merged(before: Rows, new: Rows) -> Rows:
  """All rows; the new ones replace those of the same method and density from their first trial on."""
  place = lambda row: (row["method"], float(row["target_density"]))  # noqa: E731
  first = {}
  for row in new:
    first[place(row)] = min(row["trial"], first.get(place(row), row["trial"]))
  rows = [{**row, "trial": int(row["trial"])} for row in before]
  kept = [row for row in rows if place(row) not in first or row["trial"] < first[place(row)]]
  names = list(dict.fromkeys(row["method"] for row in [*before, *new]))
  order = lambda row: (names.index(row["method"]), -float(row["target_density"]), int(row["trial"]))  # noqa: E731
  return sorted([*kept, *new], key=order)


def accuracies(rows: Rows) -> str:
  """Mean test accuracy and its 95 % interval of each method at each density, and what its searches cost."""
  title = (
    "Test accuracy, mean and 95 % interval (lowest of the trials; genome-epochs and seconds of search); then "
    "what failed, and which layers are left empty, if any"
  )
  return _by_density(title, rows, cell)


def cell(own: Rows) -> str:
  """One method at one density; with the trials that failed, and the layers that tickets leave empty."""
  sound = tables.found(own)
  notes = [f"{len(own) - len(sound)} of {len(own)} failed"] if sound != own else []
  if not sound:
    return notes[0]
  accuracies = [100 * row["test_accuracy"] for row in sound]
  mean, half = mean_and_interval(accuracies)
  interval = f" ± {half:.1f}" if math.isfinite(half) else ""
  epochs, seconds = (sum(row[f"search_{k}"] for row in sound) / len(sound) for k in ("epochs", "seconds"))
  empty = outcome.tally_layers([row.get("empty_layers", "") for row in sound])
  notes += [f"empty: {empty}"] if empty not in ("none", "-") else []
  figures = f"{mean:.1f}{interval} % ({min(accuracies):.1f} %; {epochs:.0f}, {seconds:.0f} s)"
  return "; ".join([figures, *notes])


def differences(rows: Rows) -> Rows:
  """How much more accurate each method's tickets are than those of the first, in points of test accuracy.

  Paired by trial, for the trials of all methods train by the same keys; of the trials that both have, where
  these are two or more. A dense network is compared with the first method at each of its densities.

  Returns:
    Rows of `method`, `reference`, `target_density`, `difference` (the mean) and `half_width` (of its 95 %
    interval).
  """
  accuracy = {}
  for row in rows:
    place = row["method"], row["target_density"]
    accuracy.setdefault(place, {})[row["trial"]] = 100 * row["test_accuracy"]
  if not rows:
    return []
  reference, *others = dict.fromkeys(row["method"] for row in rows)
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
  return found


def difference_table(found: Rows) -> str:
  """These differences in markdown; nothing if there are none."""
  if not found:
    return ""
  title = f"Difference from {found[0]['reference']} in points, paired by trial: mean and 95 % interval"
  return "\n" + _by_density(title, found, lambda own: "{difference:+.1f} ± {half_width:.1f}".format(**own[0]))


def _by_density(title: str, rows: Rows, cell: Callable[[Rows], str]) -> str:
  """A markdown table of a line for each method and a column for each density."""
  densities = sorted({row["target_density"] for row in rows}, reverse=True)
  head = ["method", *[f"{100 * density:g} %" for density in densities]]
  lines = [head, ["---"] * len(head)]
  for method in dict.fromkeys(row["method"] for row in rows):
    own = [[row for row in rows if (row["method"], row["target_density"]) == (method, d)] for d in densities]
    lines.append([method, *[cell(group) if group else "" for group in own]])
  return "\n".join([title, "", *["| " + " | ".join(line) + " |" for line in lines]]) + "\n"
