"""A ticket as another library has it.

  nets-jax export runs/digits-guided-seed0/ticket.safetensors --to=onnx

| --to | what is written |
|---|---|
| torch | a state_dict with torch.nn.utils.prune's weight_orig and weight_mask |
| onnx | a model without dead units, run and compared first |
| csr | the weights as scipy.sparse has them, in an .npz that NumPy reads |
| hub | a directory with model.safetensors, config.json and a card, as Hugging Face's hub has models |

With --trained=trained.safetensors the weights are those after a training. The others need
pip install 'nets_jax[export]'.
"""

import functools
import pathlib
from collections.abc import Sequence

from absl import flags

from nets_jax.cli import command, ticket_flags
from nets_jax.engine.messages import say
from nets_jax.errors import UsageError
from nets_jax.export.exports import FORMATS
from nets_jax.export.hub import save_for_hub
from nets_jax.export.trained_tickets import Whole, load_whole
from nets_jax.tickets.storage import load_provenance

HUB = "hub"
FEW = 3
flags.adopt_module_key_flags(ticket_flags)
flags.DEFINE_enum("to", "onnx", [*FORMATS, HUB], "In which form.")
flags.DEFINE_string("trained", None, "A file of the trained network, whose weights take the ticket's place.")
flags.DEFINE_string(
  "output", None, "File or directory to write; default, the ticket's name with another end."
)


def read(values: flags.FlagValues, path: str, trained: str | None) -> Whole:
  """The ticket of a file, with the weights of a trained network where there is one; see `load_whole`."""
  own, shape = ticket_flags.own_network(values, path), ticket_flags.input_shape(values)
  return load_whole(path, trained, own, shape)


def run(values: flags.FlagValues, path: str) -> None:
  """Writes the one form that is asked for."""
  end, write = FORMATS.get(values.to, ("-hub", None))
  source = values.trained or path
  output = pathlib.Path(values.output or f"{source.removesuffix('.safetensors')}{end}")
  if any(given and output.resolve() == pathlib.Path(given).resolve() for given in (path, values.trained)):
    raise UsageError(f"--output={output} is what is to be exported; name another file")
  if write is not None and output.is_dir():
    raise UsageError(f"--output={output} is a directory; name a file")
  if write is None:
    own, shape = ticket_flags.own_network(values, path), ticket_flags.input_shape(values)
    save_for_hub(output, path, values.trained, own, shape)
  else:
    write(output, read(values, path, values.trained))
  if values.trained is None and write is not None:
    say("the weights are those before any training; --trained=trained.safetensors takes the others")
  known = load_provenance(path)
  if known.mean:
    mean, deviation = (_numbers(each) for each in (known.mean, known.deviation))
    say(f"inputs are to be standardised, (x - mean) / deviation: mean {mean}, deviation {deviation}")
  if known.target_mean:
    mean, deviation = (_numbers(each) for each in (known.target_mean, known.target_deviation))
    say(f"outputs are standardised too, y * deviation + mean: mean {mean}, deviation {deviation}")
  size = output.stat().st_size if output.is_file() else sum(each.stat().st_size for each in output.iterdir())
  ticket_flags.show(values, {"output": str(output), "bytes": size}, f"{output}: {size:,} bytes")


def _numbers(values: Sequence[float]) -> str:
  """A few numbers, and how many more there are."""
  rest = f" and {len(values) - FEW} more" if len(values) > FEW else ""
  return f"{', '.join(f'{value:.4g}' for value in values[:FEW])}{rest}"


def main(argv: list[str]) -> None:
  """Runs the command."""
  command.run_main(functools.partial(run, path=argv[1]))


def parse(argv: list[str]) -> list[str]:
  """Reads the command line."""
  return command.parse(argv, __name__, files=("TICKET",))
