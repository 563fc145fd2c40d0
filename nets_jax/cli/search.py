r"""Finds a winning ticket and shows what it is worth: the main job.

  python -m experiments.search

evolves a ticket for the digits that come with scikit-learn, then trains it, a random ticket of the
same density and the dense networks alike, and prints how they compare; half a minute on two cores.

  python -m experiments.search --flagfile=experiments/presets/paper_mnist.flags

is the paper's search on MNIST (section 3.4; Figure 1 and the NeTS column of Table 1); --search=imp and
others run another ticket search, which leaves the same files.

A run that was stopped goes on where it was when the same command is given again.

Files in the run's directory: config.json, run.flags (which repeats it), history.csv, ticket.safetensors,
figure_evolution.png, training.csv, summary.json and report.html, a page with all of it; of NeTS also
figure_frontier.png and, in frontier/, the tickets that no other dominates in density and validation loss;
with --tensorboard, event files in tensorboard/. The directory holds one run; --overwrite replaces it.
"""

import dataclasses
import pathlib
import shutil

from absl import flags

from nets_jax.analysis import tensorboard
from nets_jax.cli import command, distributed, records, setting_flags
from nets_jax.engine import hosts, saving
from nets_jax.engine.layouts import make_layout
from nets_jax.engine.messages import say
from nets_jax.errors import SearchFailed, UsageError
from nets_jax.protocol import check_max_seconds
from nets_jax.studies import outcome
from nets_jax.studies.origins import provenance
from nets_jax.studies.places import run_directory
from nets_jax.studies.run_directory import RunDirectory, locked
from nets_jax.studies.run_files import REPORT
from nets_jax.studies.single_run import SingleRun
from nets_jax.tickets.storage import load_provenance, load_ticket
from nets_jax.tickets.ticket import check_fits

flags.adopt_module_key_flags(setting_flags)  # so that --help lists them
flags.DEFINE_string("list", None, "List the runs under this directory, and do nothing else.")
flags.DEFINE_string("ticket", None, "A ticket file to train again, in place of a search.")
flags.DEFINE_integer(
  "frontier",
  32,
  "Most tickets to keep of those that no other dominates in density and loss; 0 none. NeTS only.",
)
flags.DEFINE_float(
  "max_seconds", None, "End the search in good order after so many seconds, with what it has; default never."
)


def make_run(
  values: flags.FlagValues, board: tensorboard.Board, is_alone: bool = False, trial: int | None = None
) -> SingleRun:
  """Reads the flags, loads the data and the ticket, and checks that they go together.

  What the run's directory holds is looked at afterwards, so that a wrong flag is reported as that.
  """
  ticket = load_ticket(values.ticket) if values.ticket else None
  search = setting_flags.make_search(values)
  if values.frontier < 0:
    raise UsageError(f"frontier must be at least 0, not {values.frontier}")
  if values.max_seconds is not None:
    check_max_seconds(values.max_seconds, search)
  data = hosts.primary_first(lambda: setting_flags.make_data(values))
  network = None
  if ticket is not None:
    network = setting_flags.network_of_ticket(values, values.ticket, data.num_classes)
    check_fits(ticket, network, data.input_shape)
    setting_flags.note_network(values, network)
  task = setting_flags.make_task(values, data, network)
  search.check(task)
  make_layout(2, devices=values.devices, chunk=values.chunk)
  if values.tensorboard:
    tensorboard.check_installed()
  name = values.search if ticket is None else "ticket"
  default = run_directory(values.dataset, values.search, values.seed, values.ticket)
  where, machine = pathlib.Path(values.workdir or default), command.machine(values)
  if ticket is None:
    known = provenance(records.deciding(values), data, values.seed)
  else:
    known = load_provenance(values.ticket)
  return SingleRun(
    name,
    search,
    task,
    where,
    machine,
    board,
    values.frontier,
    values.max_seconds,
    ticket,
    is_alone,
    known,
    trial,
  )


def run(values: flags.FlagValues, is_alone: bool = False, trial: int | None = None) -> None:
  """One run, from flags to files; a run that finds nothing leaves nothing.

  Args:
    values: the flags.
    is_alone: a given ticket is trained without its controls.
    trial: of a comparison, by whose keys a given ticket is trained; None is a run of its own.
  """
  if values.list is not None:
    print(outcome.list_runs(values.list))
    return
  job = make_run(values, tensorboard.Silent(), is_alone, trial)
  explicit = records.explicit(values) | {
    name: values[name].value for name in ("ticket", "frontier", "max_seconds")
  }
  own = ({"alone": True} if is_alone else {}) | ({} if trial is None else {"trial": trial})
  deciding = records.deciding(values) | {"ticket": values.ticket} | own
  with locked(str(job.where)) as path:
    directory = RunDirectory(str(path), values.overwrite, deciding)
    if directory.is_begun:
      say(f"{path} holds this run, unfinished")
    directory.open(explicit | own)
    left_out = {*setting_flags.SEARCH, "search", "ticket", "frontier", "max_seconds", "keep_trained"}
    kept = {name: value for name, value in explicit.items() if not is_alone or name not in left_out}
    again = records.leave_flagfile(directory / "run.flags", kept)
    command_again = f"train {values.ticket}" if is_alone else "search"
    say(f"to repeat this run: python -m nets_jax {command_again} {again}")
    try:
      with tensorboard.open_board(path, values.tensorboard) as board:
        print(dataclasses.replace(job, board=board).do(values.seed, records.deciding(values)))
    except SearchFailed as error:
      if error.result is None:
        directory.discard()
        raise
      raise UsageError(f"{error}; {job.keep(error.result)} in {path}") from error
    except UsageError:
      if directory.is_empty:
        directory.discard()
      raise
    shutil.rmtree(directory / saving.DIRECTORY, ignore_errors=True)
    page = path / REPORT
    print(f"files in {path}{f'; open {page}' if page.exists() else ''}")


def main(argv: list[str]) -> None:
  """Runs the job."""
  del argv
  distributed.run_main(run)


def parse(argv: list[str]) -> list[str]:
  """Reads the command line."""
  return command.parse(argv, __name__)
