"""What two tickets of one network have in common: masks by layer, scales, live units.

  nets-jax overlap A.safetensors B.safetensors

Jaccard's index, |A and B| / |A or B|, stands beside that of two random masks of the same counts.
"""

import functools

from absl import flags

from nets_jax.analysis import inspection, inspection_text
from nets_jax.cli import command, ticket_flags

flags.adopt_module_key_flags(ticket_flags)


def run(values: flags.FlagValues, first: str, second: str) -> None:
  """Prints the record of two tickets."""
  network, shape = ticket_flags.own_network(values, first), ticket_flags.input_shape(values)
  record = inspection.overlap(first, second, network, shape)
  ticket_flags.show(values, record, inspection_text.common(record))


def main(argv: list[str]) -> None:
  """Runs the command."""
  command.run_main(functools.partial(run, first=argv[1], second=argv[2]))


def parse(argv: list[str]) -> list[str]:
  """Reads the command line."""
  return command.parse(argv, __name__, files=("A", "B"))
