"""Writes report.html, the page of a run, a comparison, a study of densities, controls or a sweep.

  nets-jax report runs/digits-guided-seed0

It is made of the files alone, so of an earlier run too; what such a run does not have is left out.
"""

import functools
import pathlib

from nets_jax.cli import command
from nets_jax.studies import report


def main(argv: list[str]) -> None:
  """Runs the command."""
  command.run_main(
    functools.partial(lambda values, where: print(report.write(where)), where=pathlib.Path(argv[1]))
  )


def parse(argv: list[str]) -> list[str]:
  """Reads the command line."""
  return command.parse(argv, __name__, files=("DIRECTORY",))
