"""The commands by name: `nets-jax search --dataset=digits`, or `python -m nets_jax search`."""

import importlib
import sys

import nets_jax
from nets_jax.errors import suggest

# Each is a module of `nets_jax.cli`.
COMMANDS = {
  "search": "finds a winning ticket and shows what it is worth",
  "compare": "the paper's comparison: its Table 1 and Figures 1 to 3",
  "densities": "what methods reach at several densities, and at what cost",
  "sweep": "a search over hyperparameters",
  "controls": "which part of a ticket wins: its weights, its mask, or its layers' densities",
  "report": "writes the page of a run or a study, report.html, from its files",
  "info": "what a ticket's file holds, and where it comes from",
  "overlap": "what two tickets have in common",
  "train": "trains a ticket, and keeps what it has become",
  "verify": "whether a ticket is a winning one, from its file alone",
  "export": "a ticket as PyTorch, ONNX or CSR has it, or as a directory for a hub",
  "forms": "how large a trained ticket is, and how fast, in each of these",
}
WIDTH = max(map(len, COMMANDS))
USAGE = "\n".join(
  [
    "nets-jax COMMAND --flag=value ...   (or python -m nets_jax COMMAND ...)",
    "",
    *(f"  {name.ljust(WIDTH)}  {about}" for name, about in COMMANDS.items()),
    "",
    "nets-jax COMMAND --help lists a command's flags.",
  ]
)


def main(arguments: list[str]) -> None:
  """Runs a command, or lists them; an unknown one ends the program with one line and status 2.

  `help` lists them too, `--version` says which this is.

  Args:
    arguments: of the command line, the command first.
  """
  name = arguments[0] if arguments else "--help"
  if name == "--version":
    print(f"nets_jax {nets_jax.__version__}")
    return
  if name in ("help", "-h", "-help", "--help", "--helpshort"):
    print(USAGE)
    return
  if name not in COMMANDS:
    hint = suggest(name, COMMANDS) or f"; the commands are {', '.join(COMMANDS)}"
    print(f"error: there is no command {name!r}{hint}", file=sys.stderr)
    sys.exit(2)
  from nets_jax.cli.command import start  # a list of commands need not wait for JAX

  sys.argv = [f"nets_jax {name}", *arguments[1:]]
  start(importlib.import_module(f"nets_jax.cli.{name}"))


def script() -> None:
  """The console script `nets-jax`."""
  main(sys.argv[1:])


if __name__ == "__main__":
  script()
