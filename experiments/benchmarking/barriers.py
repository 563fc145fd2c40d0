r"""Do two trainings of a ticket, on different orders of the data, come to one minimum?

  python -m experiments.benchmarking.barriers --flagfile=experiments/presets/paper_mnist.flags \
    --tickets='runs/imp*/ticket.safetensors' --optimizer=adam --learning_rate=0.0012

prints a line for each ticket: the test errors of two trainings, and the error barrier between them in points
(Frankle et al., 2020; `nets_jax.analysis.connectivity`). It writes no file.
"""

import sys

from absl import flags

from nets_jax.analysis.connectivity import connectivity
from nets_jax.cli import command, controls, setting_flags
from nets_jax.errors import UsageError
from nets_jax.tickets.ticket import density

flags.adopt_module_key_flags(setting_flags)
flags.declare_key_flag("tickets")
HIDDEN = ("search", "method", "workdir")  # of which none decides anything here


def run(values: flags.FlagValues) -> None:
  """The line of each ticket, as it comes."""
  tickets, task = controls.read_tickets(values)
  if not task.measures.is_share:
    raise UsageError(f"barriers are of shares, which {task.measures.words} is not; give another --score")
  print("| ticket | density | errors | highest on the line | barrier |\n|---|---|---|---|---|")
  for path, ticket in tickets.items():
    found = connectivity([2 * values.seed, 2 * values.seed + 1], ticket, task)
    first, *_, last = (100 * error for error in found.errors)
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
  return command.parse(argv, __name__, HIDDEN)


if __name__ == "__main__":
  command.start(sys.modules[__name__])
