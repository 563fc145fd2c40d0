r"""Finds a winning ticket and shows what it is worth: the main job.

  python -m experiments.search

evolves a ticket for the digits that come with scikit-learn, then trains it, a random ticket of the
same density and the dense networks alike, and prints how they compare; half a minute on two cores.

  python -m experiments.search --flagfile=experiments/presets/paper_mnist.flags

is the paper's search on MNIST (section 3.4; Figure 1 and the NeTS column of Table 1); --search=imp and
others run another ticket search, which leaves the same files.

A run that was stopped goes on where it was when the same command is given again.

Files in the run's directory: config.json, run.flags (which repeats it), history.csv, ticket.safetensors,
figure_evolution.png, training.csv and summary.json; of NeTS also figure_frontier.png and, in frontier/, the
tickets that no other dominates in density and validation loss; with --tensorboard, event files in
tensorboard/. The directory holds one run; --overwrite replaces it.
"""

import dataclasses
import sys

import jax
from absl import flags
from tqdm import tqdm

import nets_jax
from nets_jax import settings
from nets_jax.analysis import tensorboard
from nets_jax.analysis import verdicts as verdicts_module
from nets_jax.analysis.history_figures import evolution_figure
from nets_jax.analysis.style import save_figure
from nets_jax.cli import command, distributed, final_training, frontier, outcome, records, saving
from nets_jax.cli import setting_flags as search_flags
from nets_jax.cli.run_directory import RunDirectory, locked, run_keys
from nets_jax.engine import hosts as hosts_module
from nets_jax.engine.progress import Progress, say
from nets_jax.engine.tables import read_csv, write_csv, write_json
from nets_jax.tickets.controls import unmask
from nets_jax.tickets.storage import save_ticket
from nets_jax.tickets.ticket import check_fits, maskable_count, unmasked_count

flags.adopt_module_key_flags(search_flags)  # so that --help lists them
flags.DEFINE_string("list", None, "List the runs under this directory, and do nothing else.")
flags.DEFINE_string("ticket", None, "A ticket file to train again, in place of a search.")
flags.DEFINE_integer(
  "frontier",
  32,
  "Most tickets to keep of those that no other dominates in density and loss; 0 none. NeTS only.",
)


@dataclasses.dataclass(frozen=True)
class Job:
  """All that a run needs, checked before anything is written."""

  values: flags.FlagValues
  task: nets_jax.Task
  search: nets_jax.Search
  ticket: nets_jax.Ticket | None
  directory: RunDirectory | None = None

  @property
  def network(self) -> nets_jax.MLP:
    """The task's."""
    return self.task.network


def make_job(values: flags.FlagValues) -> Job:
  """Reads the flags, loads the data and the ticket, and checks that they go together.

  What the run's directory holds is looked at afterwards, so that a wrong flag is reported as that.
  """
  ticket = nets_jax.load_ticket(values.ticket) if values.ticket else None
  search = search_flags.make_search(values)
  if values.frontier < 0:
    raise nets_jax.UsageError(f"frontier must be at least 0, not {values.frontier}")
  data = hosts_module.primary_first(lambda: search_flags.make_data(values))
  network = None
  if ticket is not None:
    network = search_flags.network_of_ticket(values, values.ticket, data.num_classes)
    check_fits(ticket, network, data.input_shape)
  task = search_flags.make_task(values, data, network)
  search.check(task)
  nets_jax.make_layout(2, devices=values.devices, chunk=values.chunk)
  if values.tensorboard:
    tensorboard.check_installed()
  return Job(values, task, search, ticket)


def find(key: jax.Array, job: Job, shown: tensorboard.Board) -> nets_jax.SearchResult:
  """Searches for a ticket, with a progress bar."""
  values = job.values
  say(f"compiling on {jax.device_count()} {jax.devices()[0].device_kind} device(s)")

  def show(rows):
    progress(rows)
    shown.search(rows)

  def take_up(saved):
    progress.take_up(saved)
    shown.search(saved.rows)

  with (
    Progress(values.search, job.search.reports(job.task)) as progress,
    saving.checkpoints(
      values,
      job.directory / saving.DIRECTORY / "search",
      journal=job.directory / "history.csv",
      on_restore=take_up,
    ) as checkpoints,
  ):
    (result,) = job.search.run(
      key[None],
      job.task,
      devices=values.devices,
      chunk=values.chunk,
      on_rows=show,
      frontier_size=values.frontier,
      checkpoints=checkpoints,
    )
  return result


def target_density(search: nets_jax.Search) -> float | None:
  """The density that a search aims at; None if at none."""
  return settings.values(search).get("target_density")


def keep(result: nets_jax.SearchResult, job: Job) -> str:
  """Writes what a search has found; returns what that is, for a message."""
  write_csv(job.directory / "history.csv", result.history)
  figure = evolution_figure(read_csv(job.directory / "history.csv"), target_density(job.search))
  save_figure(figure, job.directory / "figure_evolution.png")
  frontier.write(job.directory.path, result.frontier, job.network)
  if not unmasked_count(result.ticket):
    return "the history is"
  save_ticket(job.directory / "ticket.safetensors", result.ticket, job.network)
  return "the history and the best ticket before it are"


def compare(
  keys: tuple[jax.Array, jax.Array], name: str, ticket: nets_jax.Ticket, job: Job, shown: tensorboard.Board
) -> tuple[dict, dict]:
  """Trains the ticket and its controls alike: a random ticket of its density, its own weights unmasked,
  and a dense network; writes training.csv. Returns each one's results, and the verdicts of Definition 3.
  """
  values, task = job.values, job.task
  if task.epochs == 0:
    return {}, {}
  control_key, training_key = keys
  random, dense = (
    nets_jax.random_ticket(
      control_key,
      task.network,
      task.data.input_shape,
      density,
      init_scale=task.initialiser.scale,
      layers=task.layers if density < 1 else (),
    )
    for density in (float(nets_jax.density(ticket)), 1.0)
  )
  trained = {name: ticket, "random": random, "dense": dense, "unmasked": unmask(ticket)}
  trained |= {name: ticket}  # which may be called as one of its controls
  for label, control in list(trained.items())[1:]:
    outcome.warn_of_empty_layers(label, [control])
  say(f"training {', '.join(trained)} for {task.epochs} epochs")
  with (
    tqdm(total=task.epochs, desc="training", disable=not sys.stderr.isatty()) as bar,
    saving.checkpoints(values, job.directory / saving.DIRECTORY / "training") as checkpoints,
  ):
    curves = nets_jax.train_tickets(
      training_key,
      nets_jax.stack(list(trained.values())),
      task,
      layout=final_training.layout(values, len(trained)),
      on_rows=lambda rows: bar.update(rows[0]["epoch"] - bar.n),
      checkpoints=checkpoints,
    ).curves
  rows = [{**row, "ticket": list(trained)[row["ticket"]]} for row in curves]
  write_csv(job.directory / "training.csv", rows)
  shown.training(rows)
  by_name = {name: [row for row in rows if row["ticket"] == name] for name in trained}
  results = {name: outcome.results_of(trained[name], curve[-1]) for name, curve in by_name.items()}
  counts = int(unmasked_count(ticket)), maskable_count(ticket)
  verdicts = {to: verdicts_module.judge(by_name[name], by_name[to], *counts) for to in ("unmasked", "dense")}
  return results, verdicts


def run(values: flags.FlagValues) -> None:
  """One run, from flags to files; a run that finds nothing leaves nothing."""
  if values.list is not None:
    print(outcome.list_runs(values.list))
    return
  job = make_job(values)
  explicit = records.explicit(values) | {name: values[name].value for name in ("ticket", "frontier")}
  deciding = records.deciding(values) | {"ticket": values.ticket}
  with locked(records.workdir(values, values.ticket)) as path:
    directory = RunDirectory(str(path), values.overwrite, deciding)
    job = dataclasses.replace(job, directory=directory)
    if job.directory.is_begun:
      say(f"{job.directory.path} holds this run, unfinished")
    job.directory.open(explicit)
    again = records.leave_flagfile(job.directory / "run.flags", explicit)
    say(f"to repeat this run: python -m experiments.search {again}")
    try:
      with tensorboard.open_board(job.directory.path, values.tensorboard) as shown:
        run_job(job, shown)
    except nets_jax.SearchFailed as error:
      if error.result is None:
        job.directory.discard()
        raise
      kept = keep(error.result, job)
      raise nets_jax.UsageError(f"{error}; {kept} in {job.directory.path}") from error
    except nets_jax.UsageError:
      if job.directory.is_empty:
        job.directory.discard()
      raise
    saving.forget(job.directory / saving.DIRECTORY)


def run_job(job: Job, shown: tensorboard.Board) -> None:
  """Search, comparison, files, table."""
  search_key, *comparison_keys = run_keys(job.values.seed)
  if job.ticket is None:
    result, name = find(search_key, job, shown), job.values.search
    keep(result, job)
    outcome.warn_of_density(name, result.ticket, target_density(job.search))
  else:
    result, name = nets_jax.SearchResult(job.ticket, [], nets_jax.Cost(0.0, 0.0, 0.0)), "ticket"
    save_ticket(job.directory / "ticket.safetensors", result.ticket, job.network)
  shown.ticket(result.ticket)
  outcome.warn_of_empty_layers(name, [result.ticket])
  results, verdicts = compare(comparison_keys, name, result.ticket, job, shown)
  summary = outcome.summarise(result, results, verdicts)
  shown.settings(records.deciding(job.values), results.get(name, {"density": summary["density"]}))
  write_json(job.directory / "summary.json", summary)
  print(outcome.table(results, summary))
  for to, verdict in verdicts.items():
    against = "its own weights unmasked" if to == "unmasked" else "a fresh dense network"
    print(f"against {against}: {verdict}")
  print(f"\nfiles in {job.directory.path}")


def main(argv: list[str]) -> None:
  """Runs the job."""
  del argv
  distributed.run_main(run)


def parse(argv: list[str]) -> list[str]:
  """Reads the command line."""
  return command.parse(argv, __name__)
