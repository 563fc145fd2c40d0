"""What a ticket's file holds: its network, layers, live units, sizes, and where it comes from.

  nets-jax info runs/digits-guided-seed0/ticket.safetensors

Nothing that the file names is imported. Of a network of your own give --network=package.module:Class for its
units and multiplications.
"""

import functools

from absl import flags

from nets_jax.analysis import inspection, inspection_text
from nets_jax.cli import command, ticket_flags

flags.adopt_module_key_flags(ticket_flags)


def run(values: flags.FlagValues, path: str) -> None:
  """Prints the record of one ticket."""
  network, shape = ticket_flags.own_network(values, path), ticket_flags.input_shape(values)
  record = inspection.describe(path, network, shape)
  ticket_flags.show(values, record, inspection_text.description(record))


def main(argv: list[str]) -> None:
  """Runs the command."""
  command.run_main(functools.partial(run, path=argv[1]))


def parse(argv: list[str]) -> list[str]:
  """Reads the command line."""
  return command.parse(argv, __name__, files=("TICKET",))
