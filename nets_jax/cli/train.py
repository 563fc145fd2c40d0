"""Trains a ticket, and keeps what it has become.

  nets-jax train runs/digits-guided-seed0/ticket.safetensors
  nets-jax train ticket.safetensors --dataset=mnist --optimizer=adam --learning_rate=0.001 --train_epochs=20

On the data, by the training and with the seed that the file says; a flag takes the place of what it says.
Of a ticket that a search of this library found, and trained, it is that training again, to the bit.

Files: trained.safetensors, its weights and state afterwards; training.csv, summary.json and those of a run.
"""

import functools

from absl import flags

from nets_jax.cli import command, setting_flags, ticket_flags, verify

flags.adopt_module_key_flags(setting_flags)
flags.adopt_module_key_flags(ticket_flags)


def run(values: flags.FlagValues, path: str) -> None:
  """One training, from the file to files."""
  values["keep_trained"].value = True
  verify.run(values, path, is_alone=True)


def main(argv: list[str]) -> None:
  """Runs the command."""
  command.run_main(functools.partial(run, path=argv[1]))


def parse(argv: list[str]) -> list[str]:
  """Reads the command line."""
  return command.parse(argv, __name__, (*verify.DECIDE_NOTHING, "keep_trained"), files=("TICKET",))
