r"""Do two trainings of a ticket, on different orders of the data, come to one minimum?

  python -m experiments.benchmarking.barriers --flagfile=experiments/presets/paper_mnist.flags \
    --tickets='runs/imp*/ticket.safetensors' --optimizer=adam --learning_rate=0.0012

prints a line for each ticket: the test errors of both trainings, and the error barrier between them (Frankle et
al., 2020; `nets_jax.analysis.connectivity`), in points. Two trainings a ticket. It writes no file.
"""

import glob

from absl import flags

from nets_jax.analysis.connectivity import connectivity
from nets_jax.cli import command, setting_flags
from nets_jax.errors import UsageError
from nets_jax.tickets.storage import load_ticket
from nets_jax.tickets.ticket import check_fits, density

flags.adopt_module_key_flags(setting_flags)
TICKETS = flags.DEFINE_string("tickets", None, "Ticket files; a pattern, such as 'runs/*/ticket.safetensors'.")


def run(values: flags.FlagValues) -> None:
  """The line of each ticket, as it comes."""
  paths = sorted(glob.glob(TICKETS.value or ""))
  if not paths:
    raise UsageError(f"--tickets={TICKETS.value or ''} names no file; give a pattern of ticket files")
  data = setting_flags.make_data(values)
  print("| ticket | density | errors | highest on the line | barrier |\n|---|---|---|---|---|")
  for path in paths:
    ticket, network = load_ticket(path), setting_flags.network_of_ticket(values, path, data.num_classes)
    check_fits(ticket, network, data.input_shape)
    task = setting_flags.make_task(values, data, network)
    found = connectivity([2 * values.seed, 2 * values.seed + 1], ticket, task)
    if not task.measures.is_share:
      raise UsageError(f"barriers are of errors, which {task.measures.words} is not; give another --score")
    first, last = 100 * found.errors[0], 100 * found.errors[-1]
    print(
      f"| {path} | {float(density(ticket)):.1%} | {first:.2f} %, {last:.2f} % | "
      f"{100 * max(found.errors):.2f} % | {100 * found.barrier:.2f} |",
      flush=True,
    )


def main(argv: list[str]) -> None:
  """Runs the measurement."""
  del argv
  command.run_main(run)


def parse(argv: list[str]) -> list[str]:
  """Reads the command line."""
  return command.parse_methods(argv, __name__)


if __name__ == "__main__":
  import sys

  command.start(sys.modules[__name__])
