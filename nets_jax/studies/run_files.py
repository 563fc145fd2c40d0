"""The files of one run: `config.json`, `history.csv`, `ticket.safetensors`, `training.csv`, `summary.json`.

The summary is written last, and a seal of checksums after it, so that a run that was cut short, or whose
files were changed, is told and run again.
"""

import json
import math
import pathlib
from collections.abc import Mapping, Sequence

import jax

from nets_jax import settings
from nets_jax.analysis.history_figures import leaders
from nets_jax.analysis.verdicts import Verdict
from nets_jax.engine.files import damaged, seal
from nets_jax.engine.messages import say
from nets_jax.engine.tables import Row, read_csv, write_csv, write_json
from nets_jax.errors import SearchFailed, UsageError
from nets_jax.networks.adapter import Network
from nets_jax.protocol import Outcome, Search
from nets_jax.studies.methods import Run
from nets_jax.studies.origins import environment, provenance
from nets_jax.tickets.compaction import count_multiplications
from nets_jax.tickets.results import Cost, SearchResult
from nets_jax.tickets.storage import fingerprint, save_ticket
from nets_jax.tickets.ticket import (
  Ticket,
  density,
  empty_layers,
  layer_densities,
  layer_scales,
  maskable_count,
  take,
  unmasked_count,
)
from nets_jax.tickets.trained import FINGERPRINT, save_trained
from nets_jax.training.evaluation import evaluate
from nets_jax.training.measures import Measures
from nets_jax.training.task import Task
from nets_jax.training.trainer import Trained

CONFIG, SUMMARY, HISTORY, TRAINING, TICKET, TRAINED = (
  "config.json", "summary.json", "history.csv", "training.csv", "ticket.safetensors", "trained.safetensors",
)  # fmt: skip
REPORT = "report.html"
OWN = "in_search"  # among the results of a run
NEAR = 1.01  # times the target density: what a rounded count may come to
UNREADABLE = (UsageError, FileNotFoundError, ValueError, LookupError, TypeError, AttributeError)


def write_run(run: Run, outcome: Outcome, curve: Sequence[Row]) -> None:
  """Writes all files of a run that is over.

  Args:
    run: which.
    outcome: what its search found, or why it found nothing.
    curve: of the final training; empty if there was none.
  """
  result = outcome.result if isinstance(outcome, SearchFailed) else outcome
  where, network = run.path, run.method.task.network
  write_json(where / CONFIG, {"flags": run.method.settings | {"seed": run.seed}, **environment()}, sync=False)
  if result is not None and result.history:
    write_csv(where / HISTORY, result.history, sync=False)
  if result is not None and unmasked_count(result.ticket):
    known = provenance(run.method.settings, run.method.task.data, run.seed, run.trial)
    save_ticket(where / TICKET, result.ticket, network, sync=False, provenance=known)
  if isinstance(outcome, SearchFailed):
    say(f"{run.name} failed: {outcome}")
    cost = result.cost if result else Cost(0.0, 0.0, 0.0)
    summary = {"failed": str(outcome), **costs(cost)}
  else:
    if curve:
      write_csv(where / TRAINING, curve, sync=False)
    task = run.method.task
    results = {"ticket": results_of(outcome.ticket, curve[-1], task.measures)} if curve else {}
    summary = summarise(outcome, results, {}, task)
  write_json(where / SUMMARY, summary, sync=False)
  seal(where)


def write_trained(
  where: pathlib.Path, trained: Trained, place: int, ticket: Ticket, network: Network, sync: bool = True
) -> None:
  """Keeps one of the networks that were trained side by side, with the last row of its curve and the ticket's
  fingerprint.
  """
  last = [row for row in trained.curves if row["ticket"] == place][-1]
  notes: Row = {name: value for name, value in last.items() if name not in ("ticket", "seconds")}
  notes[FINGERPRINT] = fingerprint(ticket)
  weights, state = take((trained.weights, trained.network_states), place)
  save_trained(where / TRAINED, weights, state, network, notes, sync)


def costs(cost: Cost) -> dict[str, float]:
  """What a search cost, by column."""
  return {
    "search_epochs": cost.epochs, "search_seconds": cost.seconds, "compile_seconds": cost.compile_seconds
  }  # fmt: skip


def metrics(measures: Measures) -> tuple[str, ...]:
  """The columns of what a trained ticket came to: density, and loss and score on both splits."""
  return (
    "density", "valid_loss", measures.column("valid"), "test_loss", measures.column("test"),
  )  # fmt: skip


def results_of(ticket: Ticket, last: Row, measures: Measures) -> Row:
  """A trained ticket's results: its density, the last row of its curve, and its empty layers."""
  results = {column: last[column] for column in metrics(measures)[1:]}
  return {"density": float(density(ticket)), **results, "empty_layers": list(empty_layers(ticket))}


def summarise(
  result: SearchResult, results: Mapping[str, Row], verdicts: Mapping[str, Verdict], task: Task
) -> Row:
  """The content of `summary.json`.

  Args:
    result: of the search.
    results: of each network that was trained, the ticket's first; see `results_of`.
    verdicts: of Definition 3, by the dense network the ticket was held against.
    task: that it was found for.
  """
  ticket = result.ticket
  results = {**results, **(own_results(result, task) if results else {})}
  fewer, whole = count_multiplications(ticket, task.network, task.data.input_shape)
  return {
    "results": results,
    **task.measures.record(),
    "verdicts": {to: verdict.record() for to, verdict in verdicts.items()},
    **costs(result.cost),
    "best": result.best,
    "density": float(density(ticket)),
    "unmasked": int(unmasked_count(ticket)),
    "weights": maskable_count(ticket),
    "multiplications": fewer,
    "whole_multiplications": whole,
    "layer_densities": {k: float(v) for k, v in layer_densities(ticket).items()},
    "layer_scales": {k: float(v) for k, v in layer_scales(ticket).items()},
    "empty_layers": list(result.empty_layers),
  }


def own_results(result: SearchResult, task: Task) -> dict[str, Row]:
  """What the network came to that a search has trained while its mask moved; nothing of other searches."""
  if result.own_training is None:
    return {}
  own, judge = result.own_training, jax.jit(evaluate)
  row: dict[str, float] = {}
  for name in ("valid", "test"):
    found = judge(task, own.weights, getattr(task.data, name), own.network_state)
    row |= {f"{name}_loss": float(found.loss), task.measures.column(name): float(found.score)}
  return {OWN: results_of(result.ticket, row, task.measures)}


def is_done(run: Run) -> bool:
  """Whether a run has left its last file."""
  return (run.path / SUMMARY).exists()


def damage(run: Run) -> str:
  """Which records of a finished run are not what they were, or cannot be read; nothing if all are whole."""
  if changed := damaged(run.path):
    return ", ".join(changed)
  try:
    result_row(run)
    history_rows(run)
    curve_rows(run)
  except UNREADABLE as error:  # any other OSError may pass
    return " ".join(str(error).split()) or type(error).__name__
  return ""


def result_row(run: Run) -> Row:
  """What a run came to: its ticket's figures after the final training, costs, empty layers, why it failed.

  Figures that a run does not have (it failed, or was not trained) are NaN. What a network came to that the
  search itself has trained is in columns `own_...`.
  """
  summary = json.loads((run.path / SUMMARY).read_text())
  trained = next(iter((summary.get("results") or {}).values()), {})
  best = summary.get("best") or {}
  figures = {"fitness": best.get("fitness"), "density": summary.get("density")} | {
    name: trained.get(name) for name in metrics(run.method.task.measures)[1:]
  }
  figures |= {name: summary.get(name) for name in ("search_epochs", "search_seconds", "compile_seconds")}
  counts = {name: summary.get(name, 0) for name in ("unmasked", "weights")}
  own = (summary.get("results") or {}).get(OWN, {})
  own = {f"own_{name}": own[name] for name in metrics(run.method.task.measures)[1:] if name in own}
  fewer, whole = summary.get("multiplications"), summary.get("whole_multiplications")
  figures["multiplication_share"] = fewer / whole if whole else None
  return (
    {"run": run.name, **run.columns}
    | {name: math.nan if value is None else value for name, value in figures.items()}
    | counts
    | {"empty_layers": name_layers(summary["empty_layers"]) if "empty_layers" in summary else ""}
    | {"failed": summary.get("failed", "")}
    | {name: math.nan if value is None else value for name, value in own.items()}
  )


def history_rows(run: Run) -> list[Row]:
  """A row for each generation of a run (or epoch of a cycle, or round): its best genome."""
  if not (run.path / HISTORY).exists():
    return []
  return [{"run": run.name, **run.columns, **row} for row in leaders(read_csv(run.path / HISTORY))]


def curve_rows(run: Run) -> list[Row]:
  """A row for each evaluation of a run's final training."""
  if not (run.path / TRAINING).exists():
    return []
  return [{"run": run.name, **run.columns, **row} for row in read_csv(run.path / TRAINING)]


def name_layers(names: Sequence[str]) -> str:
  """Empty layers as a cell of a table; unlike a cell that nobody filled, `none` says that there are none."""
  return " ".join(names) or "none"


def tally_layers(cells: Sequence[str]) -> str:
  """Several tickets' cells of empty layers as one: `none`, or how many tickets leave each layer empty."""
  layers = [layer for cell in cells for layer in cell.split() if layer != "none"]
  of_each = [f"{layer} in {layers.count(layer)} of {len(cells)}" for layer in dict.fromkeys(layers)]
  return ", ".join(of_each) or ("none" if all(cells) else "-")


def warn_of_empty_layers(label: str, tickets: Sequence[Ticket]) -> None:
  """Says which layers some tickets of one name leave empty, if they do."""
  tally = tally_layers([name_layers(empty_layers(ticket)) for ticket in tickets])
  if tally not in ("none", "-"):
    say(f"{label}: no weight is left in a layer ({tally} tickets), which cuts whatever passes through it")


def warn_of_density(label: str, ticket: Ticket, target: float | None) -> None:
  """Says so if a search has aimed at a density and its ticket is denser."""
  reached = float(density(ticket))
  if target is not None and reached > NEAR * target:
    say(f"{label}: the ticket keeps {reached:.1%} of the weights, more than the target density {target:.1%}")


def target_density(search: Search) -> float | None:
  """The density that a search aims at; None if at none."""
  density = settings.values(search).get("target_density")
  return float(density) if isinstance(density, int | float) else None
