"""What a finished run says of itself: `summary.json`, and the list of the runs under a directory."""

import dataclasses
import json
import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import nets_jax
from nets_jax.analysis import verdicts as verdicts_module
from nets_jax.engine.progress import say
from nets_jax.tickets.ticket import empty_layers

NEAR = 1.01  # times the target density: what a rounded count may come to
RESULT_COLUMNS = ("valid_loss", "valid_accuracy", "test_loss", "test_accuracy")


def results_of(ticket: nets_jax.Ticket, last: Mapping[str, float]) -> dict[str, float]:
  """A trained ticket's results: its density, the last row of its curve, and its empty layers."""
  results = {column: last[column] for column in RESULT_COLUMNS}
  empty = list(empty_layers(ticket))
  return {"density": float(nets_jax.density(ticket)), **results, "empty_layers": empty}


def name_layers(names: Sequence[str]) -> str:
  """Empty layers as a cell of a table; unlike a cell that nobody filled, `none` says that there are none."""
  return " ".join(names) or "none"


def tally_layers(cells: Sequence[str]) -> str:
  """Several tickets' cells of empty layers as one: `none`, or how many tickets leave each layer empty."""
  found = [layer for cell in cells for layer in cell.split() if layer != "none"]
  of_each = [f"{layer} in {found.count(layer)} of {len(cells)}" for layer in dict.fromkeys(found)]
  return ", ".join(of_each) or ("none" if all(cells) else "-")


def warn_of_empty_layers(label: str, tickets: Sequence[nets_jax.Ticket]) -> None:
  """Says which layers some tickets of one name leave empty, if they do."""
  tally = tally_layers([name_layers(empty_layers(ticket)) for ticket in tickets])
  if tally not in ("none", "-"):
    say(f"{label}: no weight is left in a layer ({tally} tickets), which cuts whatever passes through it")


def warn_of_density(label: str, ticket: nets_jax.Ticket, target: float | None) -> None:
  """Says so if a search has aimed at a density and its ticket is denser."""
  found = float(nets_jax.density(ticket))
  if target is not None and found > NEAR * target:
    say(f"{label}: the ticket keeps {found:.1%} of the weights, more than the target density {target:.1%}")


def summarise(
  result: nets_jax.SearchResult,
  results: Mapping[str, Mapping[str, float]],
  verdicts: Mapping[str, verdicts_module.Verdict],
) -> dict[str, Any]:
  """The content of `summary.json`.

  Args:
    result: of the search.
    results: of each network that was trained, the ticket's first; see `results_of`.
    verdicts: of Definition 3, by the dense network the ticket was held against.
  """
  return {
    "results": results,
    "verdicts": {to: dataclasses.asdict(v) | {"wins": v.wins} for to, v in verdicts.items()},
    "search_seconds": result.cost.seconds,
    "compile_seconds": result.cost.compile_seconds,
    "search_epochs": result.cost.epochs,
    "best": result.best,
    "density": float(nets_jax.density(result.ticket)),
    "layer_densities": {k: float(v) for k, v in nets_jax.layer_densities(result.ticket).items()},
    "layer_scales": {k: float(v) for k, v in nets_jax.layer_scales(result.ticket).items()},
    "empty_layers": list(result.empty_layers),
  }


def table(results: Mapping[str, Mapping[str, float]], summary: Mapping[str, Any]) -> str:
  """The run's outcome as text: a row for each trained network."""
  lines = [
    f"search: {summary['search_seconds']:.1f} s, {summary['search_epochs']:.0f} genome-epochs "
    f"(and {summary['compile_seconds']:.1f} s of compilation); ticket of density {summary['density']:.1%}"
  ]
  if results:
    lines += [
      "",
      f"{'':10}{'density':>9}{'valid loss':>12}{'test loss':>11}{'test accuracy':>15}{'search s':>10}"
      "  empty layers",
    ]
  for i, (name, row) in enumerate(results.items()):
    seconds = summary["search_seconds"] if i == 0 else 0.0
    lines.append(
      f"{name:10}{row['density']:>9.1%}{row['valid_loss']:>12.3f}{row['test_loss']:>11.3f}"
      f"{row['test_accuracy']:>15.1%}{seconds:>10.1f}  {name_layers(row['empty_layers'])}"
    )
  return "\n".join(lines) + "\n"


def list_runs(directory: str) -> str:
  """A line for each run in or under a directory, by name.

  Raises:
    UsageError: there is no such directory, or it holds no run.
  """
  root = pathlib.Path(directory)
  if not root.is_dir():
    raise nets_jax.UsageError(f"there is no directory {root}")
  found = sorted(root.rglob("config.json"))
  lines = [_line(path.parent, root) for path in found if not path.parent.name.startswith("damaged-")]
  lines = [line for line in lines if line]
  if not lines:
    raise nets_jax.UsageError(f"{root} holds no run of experiments.search or experiments.sweep")
  width = max(len(line[0]) for line in lines)
  head = ("run", "search", "data", "density", "test accuracy", "seconds")
  return "\n".join(
    f"{name:{max(width, 3)}}  {method:<10}{data:<16}{density:>8}{accuracy:>15}{seconds:>10}"
    for name, method, data, density, accuracy, seconds in [head, *lines]
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
    return name, method, data, *_figures(json.loads((run / "summary.json").read_text()))
  except FileNotFoundError:
    return name, method, data, "-", "unfinished", "-"
  except (OSError, ValueError, KeyError, TypeError, AttributeError):
    return name, method, data, "-", "damaged", "-"


def _figures(summary: Mapping[str, Any]) -> Iterator[str]:
  """Density, test accuracy and seconds of search, as text."""
  if "failed" in summary:
    return iter(("-", "failed", "-"))
  results = summary["results"] or {}
  accuracy = next(iter(results.values()))["test_accuracy"] if results else math.nan
  return iter(
    (
      f"{summary['density']:.1%}",
      "not trained" if not results else "diverged" if accuracy is None else f"{accuracy:.1%}",
      f"{summary['search_seconds']:.1f}",
    )
  )
