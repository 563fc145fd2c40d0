"""What the commands of tickets share: files on the command line, `--json`, and a file's own task as flags."""

import json

from absl import flags

from nets_jax import plugins
from nets_jax.cli import setting_flags
from nets_jax.errors import UsageError
from nets_jax.networks.adapter import Network
from nets_jax.tickets.storage import load_provenance, load_ticket
from nets_jax.tickets.ticket import layers_of

OF_FILE = (*setting_flags.DATA, *setting_flags.TASK, "init_weights")  # what a file may say of its task

flags.DEFINE_bool("json", False, "Print JSON, for machines.")
flags.DEFINE_list("input_shape", [], "Shape of one example, such as 28,28,1, of a file that does not say it.")
flags.declare_key_flag("network")


def show(values: flags.FlagValues, record: object, text: str) -> None:
  """Prints a record: as JSON where that is asked for, else as its text."""
  print(json.dumps(record, indent=1) if values.json else text)


def own_network(values: flags.FlagValues, path: str) -> Network | None:
  """The network of one's own that `--network` names; None is the one that a ticket's file names."""
  if not plugins.is_reference(values.network):
    return None
  return setting_flags.make_network(values, layers_of(load_ticket(path))[-1].shape[-1])


def input_shape(values: flags.FlagValues) -> tuple[int, ...]:
  """That of `--input_shape`; nothing where it is not given.

  Raises:
    UsageError: it is no shape.
  """
  try:
    shape = tuple(int(size) for size in values.input_shape)
  except ValueError:
    shape = (0,)
  if any(size < 1 for size in shape):
    raise UsageError(f"input_shape must be sizes such as 28,28,1, not {','.join(values.input_shape)}")
  return shape


def take_task(values: flags.FlagValues, path: str) -> None:
  """Has a ticket's file say what the flags that are not given are: its data, training and seed.

  Raises:
    UsageError: the file names somebody's own code, which a user's word alone imports; or what is no setting.
  """
  known = load_provenance(path)
  record = {**known.task, "seed": known.seed} if known.task else {}
  for name, value in record.items():
    if name in setting_flags.NETWORK or value is None or (name in values and values[name].present):
      continue  # the file says what network it is for elsewhere
    if name not in (*OF_FILE, "seed"):
      raise UsageError(f"{path} is for a task with {name[:100]!r}, which is no setting of this version")
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if plugins.is_reference(text) or name == "init_weights":
      raise UsageError(f"{path} is for --{name}={text[:200]!r}; give that flag yourself if you trust it")
    try:
      values[name].parse(text)
    except flags.Error as error:
      raise UsageError(f"{path}: {setting_flags.explain(error)}") from error
