"""Is a ticket a winning one? Definition 3 again, from its file alone.

  nets-jax verify runs/digits-guided-seed0/ticket.safetensors

trains the ticket, a random one of its density, its own weights without the mask and a fresh dense network
alike, on the data, by the training and with the seed that the file says. A flag takes the place of what it
says. Files as of a search, in --workdir.
"""

import contextlib
import functools
import io
import pathlib

from absl import flags

from nets_jax.cli import command, search, setting_flags, ticket_flags
from nets_jax.errors import UsageError
from nets_jax.studies.places import run_directory
from nets_jax.studies.run_files import SUMMARY

flags.adopt_module_key_flags(setting_flags)
flags.adopt_module_key_flags(ticket_flags)
# Of searches, which there is none of here; the shape of inputs is the data's.
DECIDE_NOTHING = ("search", "method", "input_shape", *setting_flags.SEARCH)


def run(values: flags.FlagValues, path: str, is_alone: bool = False) -> None:
  """One training, from the file to files.

  Args:
    values: the flags.
    path: of the ticket.
    is_alone: trains the ticket without its controls.
  """
  trial = ticket_flags.take_task(values, path)
  if values.train_epochs < 1:
    raise UsageError(f"train_epochs must be at least 1, not {values.train_epochs}: nothing would be trained")
  values["ticket"].value, values["search"].value = path, "random"
  where = run_directory(values.dataset, "random", values.seed, path)
  where = pathlib.Path(values.workdir or (where.with_name(f"{where.name}-trained") if is_alone else where))
  if where.resolve() in pathlib.Path(path).resolve().parents:
    raise UsageError(f"{path} lies in --workdir={where}, where the files of this go; name another directory")
  values["workdir"].value = str(where)
  with contextlib.redirect_stdout(io.StringIO()) if values.json else contextlib.nullcontext():
    search.run(values, is_alone, trial)
  if values.json:
    print((where / SUMMARY).read_text(), end="")


def main(argv: list[str]) -> None:
  """Runs the command."""
  command.run_main(functools.partial(run, path=argv[1]))


def parse(argv: list[str]) -> list[str]:
  """Reads the command line."""
  return command.parse(argv, __name__, DECIDE_NOTHING, files=("TICKET",))
