"""What a finished run says of itself on the screen, and the list of the runs under a directory."""

import json
import math
import pathlib
from collections.abc import Iterator, Mapping

from nets_jax.engine.tables import Row
from nets_jax.errors import UsageError
from nets_jax.studies.run_files import name_layers
from nets_jax.training.measures import Measures


def headline(summary: Row) -> str:
  """What the search cost and what its ticket keeps, in a line."""
  fewer, whole = summary.get("multiplications"), summary.get("whole_multiplications")  # since 0.2
  left = f", {fewer / whole:.1%} of multiplications" if whole and fewer is not None else ""
  costs = tuple(summary.get(name, 0.0) for name in ("search_seconds", "search_epochs", "compile_seconds"))
  search = "search: {:.1f} s, {:.0f} genome-epochs (and {:.1f} s of compilation); ".format(*costs)
  return f"{search if any(costs) else ''}ticket of density {summary['density']:.1%}{left}"


def cells(results: Mapping[str, Row], summary: Row) -> tuple[list[str], list[list[str]]]:
  """The titles of an outcome's table, and the cells of its rows: one for each trained network."""
  measures = Measures.of_record(summary)
  titles = ["", "density", "valid loss", "test loss", f"test {measures.words}", "search s", "empty layers"]
  rows = []
  for i, (name, row) in enumerate(results.items()):
    seconds = summary["search_seconds"] if i == 0 else 0.0
    score = measures.shown(row[measures.column("test")])
    figures = [f"{row['density']:.1%}", f"{row['valid_loss']:.3f}", f"{row['test_loss']:.3f}", score]
    rows.append([name, *figures, f"{seconds:.1f}", name_layers(row["empty_layers"])])
  return titles, rows


def table(results: Mapping[str, Row], summary: Row) -> str:
  """The run's outcome as text: a row for each trained network."""
  measures = Measures.of_record(summary)
  widths = (9, 12, 11, max(15, len(measures.words) + 7), 10)
  first = max(10, *(len(name) + 1 for name in results or {"": 0}))
  titles, rows = cells(results, summary)
  lines = [headline(summary), *([""] if results else [])]
  for name, *figures, empty in [titles, *rows] if results else []:
    padded = (f"{figure:>{width}}" for figure, width in zip(figures, widths, strict=True))
    lines.append(f"{name:{first}}{''.join(padded)}  {empty}")
  return "\n".join(lines) + "\n"


def list_runs(directory: str) -> str:
  """A line for each run in or under a directory, by name.

  Raises:
    UsageError: there is no such directory, or it holds no run.
  """
  root = pathlib.Path(directory)
  if not root.is_dir():
    raise UsageError(f"there is no directory {root}")
  found = sorted(root.rglob("config.json"))
  lines = [_line(path.parent, root) for path in found if not path.parent.name.startswith("damaged-")]
  lines = [line for line in lines if line]
  if not lines:
    raise UsageError(f"{root} holds no run of experiments.search or experiments.sweep")
  width, wide = (max(len(line[i]) for line in lines) for i in (0, 4))
  is_other = any(line[4].endswith(")") for line in lines)  # a score with its name
  head = ("run", "search", "data", "density", "test score" if is_other else "test accuracy", "seconds")
  return "\n".join(
    f"{name:{max(width, 3)}}  {method:<10}{data:<16}{density:>8}{score:>{max(15, wide + 2)}}{seconds:>10}"
    for name, method, data, density, score, seconds in [head, *lines]
  )


def _line(run: pathlib.Path, root: pathlib.Path) -> tuple[str, ...] | None:
  """What the list says of one directory; None where it is not a single run's."""
  name = str(run.relative_to(root)) if run != root else run.name or "."
  try:
    flags = json.loads((run / "config.json").read_text())["flags"]
    method, data = str(flags.get("search") or flags["method"]), str(flags["dataset"])
  except (OSError, ValueError, KeyError, TypeError):
    return None
  try:
    return name, method, data, *figures_of(json.loads((run / "summary.json").read_text()))
  except FileNotFoundError:
    return name, method, data, "-", "unfinished", "-"
  except (OSError, ValueError, KeyError, TypeError, AttributeError):
    return name, method, data, "-", "damaged", "-"


def figures_of(summary: Row) -> Iterator[str]:
  """Density, test score and seconds of search, as text; a score that is not accuracy with its name."""
  if "failed" in summary:
    return iter(("-", "failed", "-"))
  results, measures = summary["results"] or {}, Measures.of_record(summary)
  score = next(iter(results.values()))[measures.column("test")] if results else math.nan
  name = "" if measures.score == "accuracy" else f" ({measures.words})"
  return iter(
    (
      f"{summary['density']:.1%}",
      "not trained" if not results else "diverged" if score is None else measures.shown(score) + name,
      f"{summary['search_seconds']:.1f}",
    )
  )
