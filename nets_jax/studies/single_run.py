"""One search, and what its ticket is worth: trained beside its controls, judged, and all in files."""

import dataclasses
import pathlib
import sys
from collections.abc import Mapping

import jax
from tqdm import tqdm

from nets_jax.analysis import tensorboard
from nets_jax.analysis.history_figures import evolution_figure
from nets_jax.analysis.progress import Progress
from nets_jax.analysis.style import save_figure
from nets_jax.analysis.verdicts import Verdict, judge
from nets_jax.baselines.random_tickets import random_ticket_for
from nets_jax.engine import saving
from nets_jax.engine.layouts import make_layout
from nets_jax.engine.messages import say
from nets_jax.engine.saved import Saved
from nets_jax.engine.tables import Row, read_csv, write_csv, write_json
from nets_jax.networks.initialisation import Given
from nets_jax.protocol import Search
from nets_jax.studies import frontier_files, outcome, report_parts, report_run, run_files
from nets_jax.studies.batches import Machine
from nets_jax.studies.methods import check_kept, run_keys, trial_keys
from nets_jax.tickets.controls import unmask
from nets_jax.tickets.provenance import Provenance
from nets_jax.tickets.results import Cost, SearchResult
from nets_jax.tickets.storage import save_ticket
from nets_jax.tickets.ticket import Ticket, density, maskable_count, stack, unmasked_count
from nets_jax.training.task import Task
from nets_jax.training.trainer import train_tickets


@dataclasses.dataclass(frozen=True)
class SingleRun:
  """A run of `experiments.search`.

  Attributes:
    name: of its ticket in tables.
    search: that is run; not looked at where there is a ticket.
    task: what the ticket is for.
    where: the directory of its files.
    machine: what it runs on.
    board: where TensorBoard's files go.
    frontier_size: tickets to keep of those that no other dominates.
    max_seconds: ends the search in good order; None never does.
    ticket: to train again, in place of a search.
    is_alone: trains the ticket without its controls, and judges nothing.
    provenance: of the ticket, for its file.
    trial: of a comparison, by whose keys a given ticket is trained.
  """

  name: str
  search: Search
  task: Task
  where: pathlib.Path
  machine: Machine
  board: tensorboard.Board
  frontier_size: int = 0
  max_seconds: float | None = None
  ticket: Ticket | None = None
  is_alone: bool = False
  provenance: Provenance | None = None
  trial: int | None = None

  def do(self, seed: int, record: Mapping[str, object]) -> str:
    """Search, comparison, files; returns the table.

    Args:
      seed: of all randomness.
      record: settings for TensorBoard's page of them.
    """
    check_kept(self.machine.keep_trained, self.task.epochs)
    search_key, control_key, training_key = run_keys(seed)
    if self.trial is not None:
      training_key = trial_keys(seed, self.trial)[1]
    if self.ticket is None:
      result = self._find(search_key)
      self.keep(result)
      run_files.warn_of_density(self.name, result.ticket, run_files.target_density(self.search))
    else:
      result = SearchResult(self.ticket, [], Cost(0.0, 0.0, 0.0))
      self._save(result.ticket)
    self.board.ticket(result.ticket)
    run_files.warn_of_empty_layers(self.name, [result.ticket])
    results, verdicts = self._compare(control_key, training_key, result.ticket)
    summary = run_files.summarise(result, results, verdicts, self.task)
    self.board.settings(record, results.get(self.name, {"density": summary["density"]}))
    write_json(self.where / run_files.SUMMARY, summary)
    # After it: by its summary a run is done, whatever becomes of the page.
    report_parts.guarded(self.where, lambda: report_run.run_page(self.where))
    lines = [outcome.table(summary["results"], summary)]
    is_given = isinstance(self.task.initialiser, Given)
    if verdicts:
      count = len(self.task.data.test)
      lines.append(
        "Definition 3, where each validation loss was lowest (the table is of the end); one seed, "
        f"{count:,} test examples:"
      )
    for to, verdict in verdicts.items():
      dense = "the dense network of the given weights" if is_given else "a fresh dense network"
      against = "its own weights unmasked" if to == "unmasked" else dense
      lines.append(f"against {against}: {verdict}")
    return "\n".join([*lines, ""])

  def _find(self, key: jax.Array) -> SearchResult:
    """Searches for a ticket, with a progress bar."""
    say(f"compiling on {jax.device_count()} {jax.devices()[0].device_kind} device(s)")

    def show(rows: list[Row]) -> None:
      progress(rows)
      self.board.search(rows)

    def take_up(saved: Saved) -> None:
      progress.take_up(saved)
      self.board.search(saved.rows)

    with (
      Progress(self.name, self.search.reports(self.task)) as progress,
      self.machine.saving.checkpoints(
        self.where / saving.DIRECTORY / "search",
        journal=self.where / run_files.HISTORY,
        on_restore=take_up,
      ) as checkpoints,
    ):
      (result,) = self.search.run(
        key[None],
        self.task,
        devices=self.machine.devices,
        chunk=self.machine.chunk,
        on_rows=show,
        frontier_size=self.frontier_size,
        max_seconds=self.max_seconds,
        checkpoints=checkpoints,
      )
    return result

  def keep(self, result: SearchResult) -> str:
    """Writes what a search has found; returns what that is, for a message."""
    write_csv(self.where / run_files.HISTORY, result.history)
    history = read_csv(self.where / run_files.HISTORY)
    target, measures = run_files.target_density(self.search), self.task.measures
    figure = evolution_figure(history, target, measures)
    save_figure(figure, self.where / "figure_evolution.png")
    frontier_files.write(self.where, result.frontier, self.task.network, measures, self.provenance)
    if not unmasked_count(result.ticket):
      return "the history is"
    self._save(result.ticket)
    return "the history and the best ticket before it are"

  def _save(self, ticket: Ticket) -> None:
    save_ticket(self.where / run_files.TICKET, ticket, self.task.network, provenance=self.provenance)

  def _compare(
    self, control_key: jax.Array, training_key: jax.Array, ticket: Ticket
  ) -> tuple[dict[str, Row], dict[str, Verdict]]:
    """Trains the ticket and its controls alike: a random ticket of its density, its own weights unmasked,
    and a dense network; writes training.csv. Returns each one's results, and the verdicts of Definition 3.
    """
    task = self.task
    if task.epochs == 0:
      return {}, {}
    trained = {self.name: ticket}
    if not self.is_alone:
      random, dense = (random_ticket_for(control_key, task, share) for share in (float(density(ticket)), 1.0))
      trained |= {"random": random, "dense": dense, "unmasked": unmask(ticket)}
    trained |= {self.name: ticket}  # which may be called as one of its controls
    for label, control in list(trained.items())[1:]:
      run_files.warn_of_empty_layers(label, [control])
    say(f"training {', '.join(trained)} for {task.epochs} epochs")
    where = self.where / saving.DIRECTORY / "training"
    with (
      tqdm(total=task.epochs, desc="training", disable=not sys.stderr.isatty()) as bar,
      self.machine.saving.checkpoints(where) as checkpoints,
    ):
      found = train_tickets(
        training_key,
        stack(list(trained.values())),
        task,
        layout=make_layout(len(trained), devices=self.machine.devices, chunk=self.machine.chunk),
        on_rows=lambda rows: bar.update(rows[0]["epoch"] - bar.n),
        checkpoints=checkpoints,
      )
    if self.machine.keep_trained:
      run_files.write_trained(self.where, found, 0, ticket, task.network)
    rows: list[Row] = [{**row, "ticket": list(trained)[int(row["ticket"])]} for row in found.curves]
    write_csv(self.where / run_files.TRAINING, rows)
    self.board.training(rows)
    by_name = {name: [row for row in rows if row["ticket"] == name] for name in trained}
    measures = task.measures
    results = {
      name: run_files.results_of(trained[name], curve[-1], measures) for name, curve in by_name.items()
    }
    counts = int(unmasked_count(ticket)), maskable_count(ticket)
    others = () if self.is_alone else ("unmasked", "dense")
    verdicts = {to: judge(by_name[self.name], by_name[to], *counts, measures) for to in others}
    return results, verdicts
