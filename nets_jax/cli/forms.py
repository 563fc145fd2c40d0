"""How large a trained ticket is in each form, and how fast here.

  nets-jax forms a/trained.safetensors b/trained.safetensors --batch=64

Beside each trained network its ticket.safetensors must lie, as a run with --keep_trained and `nets-jax train`
leave it. Forms are dense, compact, SciPy's CSR, PyTorch's dense and CSR, ONNX whole and compact; outputs
are compared first. Forms of packages that are not installed are left out, and said to be.
"""

import functools
import pathlib

import pandas as pd
from absl import flags

from nets_jax.cli import command, export, ticket_flags
from nets_jax.errors import UsageError
from nets_jax.export.forms import measured
from nets_jax.studies.run_files import TICKET

flags.adopt_module_key_flags(ticket_flags)
flags.DEFINE_integer("batch", 64, "Examples in the batch that is timed.", lower_bound=1)


def run(values: flags.FlagValues, paths: list[str]) -> None:
  """Measures every form of every ticket, and prints one table."""
  rows: list[dict[str, object]] = []
  for path in paths:
    beside = pathlib.Path(path).parent / TICKET
    if not beside.is_file():
      raise UsageError(f"there is no {TICKET} beside {path}; it has the masks")
    found = measured(*export.read(values, str(beside), path), batch=values.batch)
    rows += [{"trained": path, **row._asdict()} for row in found]
  table = pd.DataFrame(rows).rename(columns={"size": "bytes", "ms_batch": f"ms_{values.batch}"})
  text = table.to_markdown(index=False, floatfmt=("", "", ".4f", ",.0f", ".3f", ".3f", ".0e"))
  ticket_flags.show(values, table.to_dict("records"), text)


def main(argv: list[str]) -> None:
  """Runs the command."""
  command.run_main(functools.partial(run, paths=argv[1:]))


def parse(argv: list[str]) -> list[str]:
  """Reads the command line."""
  return command.parse(argv, __name__, files=("TRAINED...",))
