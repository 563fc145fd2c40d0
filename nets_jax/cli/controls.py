r"""What is a ticket's worth owed to: its mask, its weights, or the scales of its layers?

  python -m experiments.controls --flagfile=experiments/presets/paper_mnist.flags --tickets='*.safetensors'

trains each ticket and its controls alike, and writes controls.csv (a row for each ticket and control),
controls.md and the verdicts of the paper's Definition 3 against both dense networks. --controls picks:

  ticket        as it is
  unmasked      its weights without the mask (Definition 3's dense network)
  shuffle_mask  its weights under its mask permuted within each layer
  reinitialise  its mask on new weights of its layers' scales
  reinitialise_plain  its mask on new weights of N(0, init_scale)
  dense_scaled, random_scaled, snip_scaled  other tickets on new weights of its layers' scales: all weights;
                a random mask of its density; SNIP's of its density
  random_layers  a random mask with its density in each layer, on new weights of its layers' scales
  dense         a fresh dense network of N(0, init_scale)

A control that is done is not run again; workers that are started with the same command share them.
"""

import glob
import pathlib

from absl import flags

from nets_jax import searches
from nets_jax.cli import command, records, setting_flags, study
from nets_jax.engine.saved import fingerprint
from nets_jax.errors import UsageError
from nets_jax.protocol import Search
from nets_jax.studies import places, report, work
from nets_jax.studies.run_directory import claim
from nets_jax.studies.ticket_controls import CONTROLS, control_runs, controls
from nets_jax.tickets.storage import load_ticket
from nets_jax.tickets.ticket import Ticket, check_fits
from nets_jax.training.task import Task

flags.adopt_module_key_flags(setting_flags)
flags.adopt_module_key_flags(study)
flags.DEFINE_string(
  "tickets", None, "Ticket files to look into; a pattern, such as 'runs/*/ticket.safetensors'."
)
flags.DEFINE_list("controls", list(CONTROLS), "Controls to train.")


def make_snip(values: flags.FlagValues) -> Search:
  """SNIP with the settings of it that the flags give; the density is each ticket's.

  Raises:
    UsageError: a setting of another search is given.
  """
  return searches.make("snip", setting_flags.given(values))


def read_tickets(values: flags.FlagValues) -> tuple[dict[str, Ticket], Task]:
  """The tickets that `--tickets` names, by path, and what they are trained for.

  Raises:
    UsageError: there is none, or they are not for one network and the data.
  """
  paths = sorted(glob.glob(values.tickets or ""))
  if not paths:
    raise UsageError(f"--tickets={values.tickets or ''} names no file; give a pattern of ticket files")
  if values.train_epochs < 1:
    raise UsageError(f"train_epochs must be at least 1, not {values.train_epochs}")
  tickets, data = [load_ticket(path) for path in paths], setting_flags.make_data(values)
  made = (setting_flags.network_of_ticket(values, path, data.num_classes) for path in paths)
  network, *others = dict.fromkeys(made)
  if others:
    raise UsageError(f"the tickets are for {1 + len(others)} different networks; take those of one")
  for ticket in tickets:
    check_fits(ticket, network, data.input_shape)
  return dict(zip(paths, tickets, strict=True)), setting_flags.make_task(values, data, network)


def run(values: flags.FlagValues) -> None:
  """Every control that is not done, and the table as they come."""
  if unknown := [name for name in values.controls if name not in CONTROLS]:
    raise UsageError(f"controls may be {', '.join(CONTROLS)}, not {unknown[0]!r}")
  read, task = read_tickets(values)
  tickets, snip, how = list(read.values()), make_snip(values), study.options(values)
  directory = pathlib.Path(
    values.workdir or pathlib.Path("runs") / f"controls-{places.file_name(values.dataset)}"
  )
  runs = control_runs(tickets, task, values.controls, snip, values.seed, directory)
  if values.dry_run:
    print(work.plan(runs, how))
    return
  own = {"tickets": [fingerprint(ticket) for ticket in tickets], "seed": values.seed}
  own |= {"given": records.given_plain(values)}
  claim(directory, own | records.task_settings(values))
  again = records.as_given(values, ("tickets", "controls"))
  records.leave_flagfile(directory / "controls.flags", again)
  found = controls(
    tickets, task, names=values.controls, snip=snip, seed=values.seed, directory=directory, options=how
  )
  print(found.write(directory))
  report.leave(directory)
  print(f"files in {directory}")


def main(argv: list[str]) -> None:
  """Runs the study."""
  del argv
  command.run_main(run)


def parse(argv: list[str]) -> list[str]:
  """Reads the command line."""
  return command.parse_methods(argv, __name__)
