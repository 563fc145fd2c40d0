"""Runs side by side: which share their programs, and how a batch of them is searched and trained."""

import dataclasses
import hashlib
import pathlib
import shutil
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from nets_jax import searches, settings
from nets_jax.analysis.progress import Progress
from nets_jax.analysis.tensorboard import open_board
from nets_jax.engine.layouts import make_layout
from nets_jax.engine.saving import Saving
from nets_jax.engine.tables import Row
from nets_jax.errors import SearchFailed
from nets_jax.protocol import Outcome, Search
from nets_jax.studies.methods import Run
from nets_jax.studies.run_files import results_of, warn_of_empty_layers, write_run, write_trained
from nets_jax.tickets.results import Cost, SearchResult
from nets_jax.tickets.storage import load_ticket, save_ticket
from nets_jax.tickets.ticket import Ticket, stack, take, unmasked_count
from nets_jax.training.trainer import train_tickets

GENOMES_AT_ONCE, RUNS_AT_ONCE = 256, 16
BATCH = "batch.txt"  # in the directory of its checkpoints, the names of its runs


@dataclasses.dataclass(frozen=True)
class Machine:
  """On what a study runs, and how it is saved. Nothing of it changes a result.

  Attributes:
    devices, chunk: see `layouts.make_layout`.
    at_once: runs side by side; None is as many as have `GENOMES_AT_ONCE` genomes, at most `RUNS_AT_ONCE`.
    saving: of searches and trainings as they go.
    tensorboard: whether each run leaves TensorBoard's event files too.
    keep_trained: whether each run leaves its ticket's network as the final training made it; of a single
      search the ticket's alone, not its controls'.
    prune: asked after each generation of a run, with its rows; True ends the run (see `protocol.How`).
  """

  devices: int | None = None
  chunk: int | None = None
  at_once: int | None = None
  saving: Saving = dataclasses.field(default_factory=Saving)
  tensorboard: bool = False
  keep_trained: bool = False
  prune: Callable[[Run, Sequence[Row]], bool] | None = None


@dataclasses.dataclass(frozen=True)
class Batch:
  """Runs that go side by side, and how many of their kind do so at most, so that one program serves."""

  runs: Sequence[Run]
  length: int
  title: str

  @property
  def name(self) -> str:
    """By its runs."""
    return hashlib.sha256(" ".join(run.name for run in self.runs).encode()).hexdigest()[:8]


def programs(runs: Sequence[Run]) -> list[list[Run]]:
  """The runs by the program that they share, in their order."""
  groups: dict[object, list[Run]] = {}
  for run in runs:
    groups.setdefault(run.method.program, []).append(run)
  return list(groups.values())


def batches(runs: Sequence[Run], at_once: int | None) -> list[Batch]:
  """The runs in batches, program by program, each in parts of one length; the last may be shorter.

  Of a search that passes densities on its way, the runs of one seed or trial stay together.
  """
  groups = programs(runs)
  found = []
  for i, group in enumerate(groups):
    most = at_once or max(1, min(RUNS_AT_ONCE, GENOMES_AT_ONCE // group[0].method.search.genomes))
    by_key: dict[object, list[Run]] = {}
    for run in group:
      together = (run.seed, run.trial) if run.method.search.passes_densities else run.name
      by_key.setdefault(together, []).append(run)
    kept = list(by_key.values())
    count = -(-len(kept) // most)
    length = -(-len(kept) // count)
    parts = [kept[first : first + length] for first in range(0, len(kept), length)]
    for j, part in enumerate(parts):
      title = f"{_label(group)}program {i + 1}/{len(groups)}, batch {j + 1}/{len(parts)}"
      found.append(Batch([run for own in part for run in own], length, title))
  return found


def _label(runs: Sequence[Run]) -> str:
  """The name of the only method, or control, that some runs are of."""
  names = {str(run.columns.get("method", run.columns.get("control", ""))) for run in runs}
  return f"{names.pop()}: " if len(names) == 1 and names != {""} else ""


def run_batch(batch: Batch, runs: Sequence[Run], directory: pathlib.Path, machine: Machine) -> None:
  """Searches, and trains what was found, side by side; then writes the files of each run.

  Args:
    batch: whose runs these are.
    runs: those of it that are to be done.
    directory: of the checkpoints as it goes; removed at the end.
    machine: what it runs on.
  """
  directory.mkdir(parents=True, exist_ok=True)
  (directory / BATCH).write_text("\n".join(run.name for run in runs))
  is_on_the_way = runs[0].method.search.passes_densities
  search = _search_on_the_way if is_on_the_way else _search
  outcomes = search(batch, runs, directory, machine)
  tickets = [outcome.ticket for outcome in outcomes if isinstance(outcome, SearchResult)]
  warn_of_empty_layers(batch.title, tickets)
  curves = _train(batch, runs, outcomes, directory, machine)
  for run, outcome, curve in zip(runs, outcomes, curves, strict=True):
    if machine.tensorboard:
      _show(run, outcome, curve)
    write_run(run, outcome, curve)
  shutil.rmtree(directory, ignore_errors=True)


def _show(run: Run, outcome: Outcome, curve: Sequence[Row]) -> None:
  """A run's event files."""
  if isinstance(outcome, SearchFailed):
    return
  with open_board(run.path, True) as board:
    if outcome.history:
      board.search(list(outcome.history))
    board.ticket(outcome.ticket)
    board.training([{**row, "ticket": "ticket"} for row in curve])
    results = results_of(outcome.ticket, curve[-1], run.method.task.measures) if curve else {}
    board.settings(run.columns, results)


def _padded(runs: Sequence[Run], length: int) -> list[Run]:
  """As many as the program takes, the last one again in the place of those that are not there."""
  return [*runs, *[runs[-1]] * (length - len(runs))]


def _search(batch: Batch, runs: Sequence[Run], directory: pathlib.Path, machine: Machine) -> list[Outcome]:
  todo = _padded(runs, batch.length)
  tasks, chosen = [run.method.task for run in todo], [run.method.search for run in todo]
  total = max(search.reports(task, len(todo)) for search, task in zip(chosen, tasks, strict=True))
  prune = machine.prune
  with (
    Progress(batch.title, total, len(runs)) as progress,
    machine.saving.checkpoints(directory / "search", on_restore=progress.take_up) as checkpoints,
  ):
    return searches.search_all(
      jnp.stack([run.keys()[0] for run in todo]),
      tasks,
      chosen,
      devices=machine.devices,
      chunk=machine.chunk,
      on_rows=progress,
      prune=None if prune is None else lambda i, rows: prune(todo[i], rows),
      keep_failures=True,
      checkpoints=checkpoints,
    )[: len(runs)]


def _search_on_the_way(
  batch: Batch, runs: Sequence[Run], directory: pathlib.Path, machine: Machine
) -> list[Outcome]:
  """One search for each seed or trial, the longest; the others' tickets are those it had on its way."""
  firsts = list({(run.seed, run.trial): run for run in runs}.values())
  longest = max((run.method.search for run in runs), key=_cycles)
  task, kept = runs[0].method.task, directory / "on_the_way"
  needed = {_cycles(run.method.search) for run in runs} - {_cycles(longest)}

  def keep(cycle: int, tickets: Ticket) -> None:
    for i in range(len(firsts)) if cycle in needed else ():
      ticket = take(jax.device_get(tickets), i)
      if unmasked_count(ticket):
        save_ticket(kept / f"{cycle}-{i}.safetensors", ticket, task.network)

  with (
    Progress(batch.title, longest.reports(task, len(firsts)), len(firsts)) as progress,
    machine.saving.checkpoints(directory / "search", on_restore=progress.take_up) as checkpoints,
  ):
    outcomes = longest.run(
      jnp.stack([run.keys()[0] for run in firsts]),
      task,
      devices=machine.devices,
      chunk=machine.chunk,
      on_rows=progress,
      on_tickets=keep,
      keep_failures=True,
      checkpoints=checkpoints,
    )
  places = {(run.seed, run.trial): i for i, run in enumerate(firsts)}
  found = []
  for run in runs:
    place, cycles = places[run.seed, run.trial], _cycles(run.method.search)
    whole = outcomes[place]
    if cycles == _cycles(longest):
      found.append(whole)
    else:
      found.append(_on_the_way(whole, cycles, _cycles(longest), kept / f"{cycles}-{place}.safetensors"))
  return found


def _cycles(search: Search) -> int:
  """How many steps a search makes that passes densities on its way."""
  cycles = settings.values(search)["cycles"]
  assert isinstance(cycles, int)
  return cycles


def _on_the_way(whole: Outcome, cycles: int, longest: int, path: pathlib.Path) -> Outcome:
  """What a search of fewer cycles would have found, from the record of the longest."""
  failed = isinstance(whole, SearchFailed)
  result = whole.result if isinstance(whole, SearchFailed) else whole
  if failed or result is None or not path.exists():
    why = str(whole) if failed else "every weight is pruned"
    return SearchFailed(f"{why} (on the way to {longest} cycles)", result)
  rows = [row for row in result.history if row["cycle"] < cycles]
  epochs = result.cost.epochs * rows[-1]["iteration"] / result.history[-1]["iteration"]
  cost = Cost(epochs, rows[-1]["seconds"], result.cost.compile_seconds)
  return SearchResult(load_ticket(path), rows, cost)


def _train(
  batch: Batch, runs: Sequence[Run], outcomes: Sequence[Outcome], directory: pathlib.Path, machine: Machine
) -> list[list[Row]]:
  """The curve of each ticket in the final training, its seconds shared out; empty where there is none."""
  tickets = {i: outcome.ticket for i, outcome in enumerate(outcomes) if isinstance(outcome, SearchResult)}
  sound = list(tickets)
  curves: list[list[Row]] = [[] for _ in runs]
  if runs[0].method.task.epochs == 0:
    return curves
  for number, first in enumerate(range(0, len(sound), batch.length)):
    some = sound[first : first + batch.length]
    todo = [*some, *[some[-1]] * (batch.length - len(some))]  # so that one program serves
    where = directory / f"training-{number}"
    with (
      Progress(f"{batch.title}, training", runs[0].method.task.epochs, len(runs)) as progress,
      machine.saving.checkpoints(where, on_restore=progress.take_up) as checkpoints,
    ):
      trained = train_tickets(
        jnp.stack([runs[i].keys()[1] for i in todo]),
        stack([tickets[i] for i in todo]),
        [runs[i].method.task for i in todo],
        layout=make_layout(len(todo), devices=machine.devices, chunk=machine.chunk),
        on_rows=progress,
        checkpoints=checkpoints,
      )
    rows = trained.curves
    for place, i in enumerate(some):
      if machine.keep_trained:
        write_trained(runs[i].path, trained, place, tickets[i], runs[i].method.task.network, sync=False)
      curves[i] = [
        {name: value for name, value in row.items() if name != "ticket"}
        | {"seconds": row["seconds"] / len(todo)}
        for row in rows
        if row["ticket"] == place
      ]
  return curves
