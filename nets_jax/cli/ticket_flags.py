"""What the commands of tickets share: files on the command line, `--json`, and a file's own task as flags."""

import json

from absl import flags

from nets_jax import plugins
from nets_jax.cli import setting_flags
from nets_jax.engine.tables import standard_json
from nets_jax.errors import UsageError
from nets_jax.networks.adapter import Network
from nets_jax.tickets.storage import load_provenance, load_ticket
from nets_jax.tickets.ticket import layers_of

# What a file may say of its task; where data lie on this machine it may not.
OF_FILE = tuple(
  name for name in (*setting_flags.DATA, *setting_flags.TASK) if setting_flags.DEFINED[name].about.decides
)
SHOWN = 100  # signs of what a file says

flags.DEFINE_bool("json", False, "Print JSON, for machines.")
flags.DEFINE_list("input_shape", [], "Shape of one example, such as 28,28,1, of a file that does not say it.")
flags.declare_key_flag("network")


def show(values: flags.FlagValues, record: object, text: str) -> None:
  """Prints a record: as JSON where that is asked for, with null for what is no number, else as its text."""
  print(json.dumps(standard_json(record), indent=1, allow_nan=False) if values.json else text)


def own_network(values: flags.FlagValues, path: str) -> Network | None:
  """The network of one's own that `--network` names; None is the one that a ticket's file names.

  Raises:
    UsageError: it names a ready-made one, or the file does.
  """
  if plugins.is_reference(values.network):
    setting_flags.check_own(path)
    return setting_flags.make_network(values, layers_of(load_ticket(path))[-1].shape[-1])
  if values["network"].present:
    raise UsageError("--network is for one of your own here; a ready-made one is in the file")
  return None


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


def take_task(values: flags.FlagValues, path: str) -> int | None:
  """Has a ticket's file say what the flags that are not given are: its data, training and seed.

  Returns:
    The trial of the file, whose keys its training has, where no seed is given.

  Raises:
    UsageError: the file says nothing of its data and no flag does; it names somebody's own code, which a
      user's word alone imports; or what is no setting.
  """
  known = load_provenance(path)
  if "dataset" not in known.task and not values["dataset"].present:
    raise UsageError(f"{path} does not say what data it is for; give --dataset, and how it is trained")
  for name, value in {**known.task, "seed": known.seed}.items():
    is_given = name in values and values[name].present
    if name in setting_flags.NETWORK or value is None or is_given:
      continue  # what network it is for, the file says elsewhere
    if name == "dataset_sha256" and values["dataset"].present:
      continue  # of another
    shown = f"--{_shown(name)}={_shown(value)}"
    if plugins.is_reference(value) or name == "init_weights":
      raise UsageError(f"{path} is for {shown}; give that flag yourself if you trust it")
    if name not in (*OF_FILE, "seed"):
      raise UsageError(f"{path} is for a task with {shown}, which is no setting of this version")
    try:
      text = str(value).lower() if isinstance(value, bool) else str(value)
      values[name].value = values[name].parser.parse(text)  # not as given: what goes with another falls away
    except (ValueError, TypeError) as error:
      raise UsageError(f"{path} is for {shown}, which that setting cannot be") from error
  setting_flags.check_run(values)
  return None if values["seed"].present else known.trial


def _shown(value: object) -> str:
  """What a file says, cut, and on one line without control characters."""
  text = str(value) if isinstance(value, str | int | float) else type(value).__name__
  return (text if text.isprintable() else ascii(text))[:SHOWN]
