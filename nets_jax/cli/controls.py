r"""What is a ticket's worth owed to: its mask, its weights, or the scales of its layers?

  python -m experiments.controls --flagfile=experiments/presets/paper_mnist.flags --tickets='*.safetensors'

trains each ticket and its controls alike, and writes controls.csv (a row for each ticket and control),
controls.md and the verdicts of the paper's Definition 3 against both dense networks. --controls picks:

  ticket        as it is
  unmasked      its weights without the mask (Definition 3's dense network)
  shuffle_mask  its weights under its mask permuted within each layer
  reinitialise  its mask on new weights of its layers' scales
  reinitialise_plain  its mask on new weights of N(0, init_scale)
  dense_scaled, random_scaled, snip_scaled  other tickets on new weights of its layers' scales: all weights;
                a random mask of its density; SNIP's of its density
  random_layers  a random mask with its density in each layer, on new weights of its layers' scales
  dense         a fresh dense network of N(0, init_scale)

A control that is done is not run again.
"""

import glob
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags

import nets_jax
from nets_jax import searches
from nets_jax.analysis import verdicts
from nets_jax.analysis.intervals import mean_and_interval
from nets_jax.cli import command, final_training, outcome, records, saving
from nets_jax.cli import setting_flags as search_flags
from nets_jax.cli.run_directory import claim, locked
from nets_jax.engine.files import damaged, replace_file, seal, set_aside
from nets_jax.engine.progress import say
from nets_jax.engine.saved import fingerprint
from nets_jax.engine.tables import read_csv, write_csv
from nets_jax.studies import tables
from nets_jax.tickets.controls import reinitialise, shuffle_mask, unmask
from nets_jax.tickets.ticket import check_fits, maskable_count, unmasked_count

flags.adopt_module_key_flags(search_flags)
flags.DEFINE_string(
  "tickets", None, "Ticket files to look into; a pattern, such as 'runs/*/ticket.safetensors'."
)

Rows = list[dict[str, Any]]
METRICS = ("density", "valid_loss", "test_loss", "valid_accuracy", "test_accuracy")


def make_controls(
  task: nets_jax.Task, snip: nets_jax.Search
) -> dict[str, Callable[[jax.Array, nets_jax.Ticket], nets_jax.Ticket]]:
  """Every control by its name: a function of a key and the ticket; `snip` is the search of one of them."""
  network, shape, plain = task.network, task.data.input_shape, task.initialiser.scale

  def scales(ticket):  # in the order in which the network applies its layers, as `init_scale` takes them
    return tuple(float(scale) for scale in nets_jax.layer_scales(ticket).values())

  def random(key, density, scale):
    return nets_jax.random_ticket(key, network, shape, density, init_scale=scale)

  def scored(key, ticket):
    search = snip.change(target_density=float(nets_jax.density(ticket)))
    return nets_jax.search(key, task.replace(initialiser=nets_jax.Normal(scales(ticket))), search).ticket

  def reinitialised(key, ticket):
    return reinitialise(key, ticket, network, shape, scales(ticket))

  return {
    "ticket": lambda key, ticket: ticket,
    "unmasked": lambda key, ticket: unmask(ticket),
    "shuffle_mask": shuffle_mask,
    "reinitialise": reinitialised,
    "reinitialise_plain": lambda key, t: reinitialise(key, t, network, shape, plain),
    "random_layers": lambda key, t: shuffle_mask(key, reinitialised(jax.random.fold_in(key, 1), t)),
    "random_scaled": lambda key, t: random(key, float(nets_jax.density(t)), scales(t)),
    "snip_scaled": scored,
    "dense_scaled": lambda key, t: random(key, 1.0, scales(t)),
    "dense": lambda key, t: random(key, 1.0, plain),
  }


NAMES = (
  "ticket", "unmasked", "shuffle_mask", "reinitialise", "reinitialise_plain", "random_layers",
  "random_scaled", "snip_scaled", "dense_scaled", "dense",
)  # fmt: skip
flags.DEFINE_list("controls", list(NAMES), "Controls to train.")


def make_snip(values: flags.FlagValues) -> nets_jax.Search:
  """SNIP with the settings of it that the flags give; the density is each ticket's.

  Raises:
    UsageError: a setting of another search is given.
  """
  return searches.make("snip", search_flags.given(values))


def train_control(
  name: str,
  found: Sequence[nets_jax.Ticket],
  task: nets_jax.Task,
  values: flags.FlagValues,
  path: pathlib.Path,
) -> None:
  """Trains one control of every ticket, side by side, and writes its curves."""
  control = make_controls(task, make_snip(values))[name]
  keys = [
    jax.random.split(jax.random.fold_in(nets_jax.key_of_seed(values.seed), i)) for i in range(len(found))
  ]
  made, failed = {}, []
  for i, ((key, _), ticket) in enumerate(zip(keys, found, strict=True)):
    try:
      made[i] = control(key, ticket)
    except nets_jax.SearchFailed as error:
      say(f"{name}: ticket {i} failed: {error}")
      failed.append({"ticket": i, "failed": str(error)})
  outcome.warn_of_empty_layers(name, list(made.values()))
  about = [
    {"ticket": i, "unmasked": int(unmasked_count(t)), "weights": maskable_count(t)}
    | {"empty_layers": outcome.name_layers(nets_jax.empty_layers(t)), "failed": ""}
    for i, t in made.items()
  ]
  curves = []
  if made:
    where = path.with_suffix("") / saving.DIRECTORY
    of_made = jnp.stack([keys[i][1] for i in made])
    curves = final_training.train(of_made, list(made.values()), task, values, name, where)
  write_csv(path, [*({**row, **about[row["ticket"]]} for row in curves), *failed])
  saving.forget(path.with_suffix(""))


def write_outputs(directory: pathlib.Path, names: Sequence[str]) -> str:
  """The table of the controls that are done, as CSV and markdown. Returns the latter."""
  curves = {name: read_csv(directory / f"{name}.csv") for name in names}
  curves = {name: [_curve(rows, i) for i in _tickets(rows)] for name, rows in curves.items()}
  rows = [
    {"control": name, "ticket": i} | _last(own[i]) for name, own in curves.items() for i in range(len(own))
  ]
  write_csv(directory / "controls.csv", rows)
  head = ("control", "density", "test loss", "test accuracy", "of each ticket", "empty layers", "failed")
  lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
  for name in names:
    of_name = [row for row in rows if row["control"] == name]
    own = tables.found(of_name)
    each = ", ".join(f"{100 * row['test_accuracy']:.1f}" for row in own) + " %"
    cells = [_spread(own, "density", 100, " %", 1), _spread(own, "test_loss", 1, "", 3)]
    cells += [_spread(own, "test_accuracy", 100, " %", 1), each] if own else ["-", "-"]
    cells += [outcome.tally_layers([row["empty_layers"] for row in own])]
    cells += [f"{len(of_name) - len(own)} of {len(of_name)}" if own != of_name else "none"]
    lines.append(f"| {name} | {' | '.join(cells)} |")
  text = "Mean and 95 % interval over the tickets.\n\n" + "\n".join(lines) + "\n"
  for dense in ("unmasked", "dense"):
    if dense in curves and "ticket" in curves:
      found = [
        verdicts.judge(own, other, int(own[-1]["unmasked"]), int(own[-1]["weights"]))
        for own, other in zip(curves["ticket"], curves[dense], strict=True)
      ]
      text += f"\nDefinition 3 against {dense}: {verdicts.summarise(found)}\n"
  with replace_file(directory / "controls.md") as temporary:
    temporary.write_text(text)
  seal(directory)
  return text


def _tickets(rows: Rows) -> list[int]:
  return sorted({int(row["ticket"]) for row in rows})


def _curve(rows: Rows, ticket: int) -> Rows:
  return [row for row in rows if int(row["ticket"]) == ticket]


def _last(curve: Rows) -> dict[str, Any]:
  """What a control came to: the last row of its curve, or why it has none."""
  last = curve[-1]
  if last.get("failed"):
    return {**dict.fromkeys(METRICS, math.nan), "empty_layers": "", "failed": last["failed"]}
  density = {"density": last["unmasked"] / last["weights"]}
  return (
    density
    | {name: last[name] for name in METRICS[1:]}
    | {name: last.get(name, "") for name in ("empty_layers", "failed")}
  )


def _spread(rows: Rows, name: str, factor: float, unit: str, digits: int) -> str:
  if not rows:
    return "-"
  mean, half = mean_and_interval([factor * row[name] for row in rows])
  return f"{mean:.{digits}f}" + (f" ± {half:.{digits}f}" if math.isfinite(half) else "") + unit


def run(values: flags.FlagValues) -> None:
  """Every control that is not done, and the table as they come."""
  paths = sorted(glob.glob(values.tickets or ""))
  if not paths:
    raise nets_jax.UsageError(
      f"--tickets={values.tickets or ''} names no file; give a pattern of ticket files"
    )
  if values.train_epochs < 1:
    raise nets_jax.UsageError(f"train_epochs must be at least 1, not {values.train_epochs}")
  unknown = [name for name in values.controls if name not in NAMES]
  if unknown:
    raise nets_jax.UsageError(f"controls may be {', '.join(NAMES)}, not {unknown[0]!r}")
  found = [nets_jax.load_ticket(path) for path in paths]
  data = search_flags.make_data(values)
  made = (search_flags.network_of_ticket(values, path, data.num_classes) for path in paths)
  network, *others = dict.fromkeys(made)
  if others:
    raise nets_jax.UsageError(f"the tickets are for {1 + len(others)} different networks; take those of one")
  for ticket in found:
    check_fits(ticket, network, data.input_shape)
  task = search_flags.make_task(values, data, network)
  snip = make_snip(values)  # before anything is written
  if "snip_scaled" in values.controls:
    snip.check(task)
  name = f"controls-{records.file_name(values.dataset)}"
  with locked(values.workdir or str(pathlib.Path("runs") / name)) as directory:
    claimed = [fingerprint(ticket) for ticket in found]
    own = {"tickets": claimed, "seed": values.seed, "given": records.given_plain(values)}
    claim(directory, own | records.task_settings(values))
    broken = set(damaged(directory)) & {f"{name}.csv" for name in NAMES}
    for path in (directory / file for file in sorted(broken) if (directory / file).exists()):
      say(f"{path} is damaged; it is now {set_aside(path).name}, and made again if it is asked for")
    for name in values.controls:
      path = directory / f"{name}.csv"
      if not path.exists():
        say(f"{name}: training of {len(found)} tickets")
        train_control(name, found, task, values, path)
      text = write_outputs(directory, [name for name in NAMES if (directory / f"{name}.csv").exists()])
    print(text)
    print(f"files in {directory}")


def main(argv: list[str]) -> None:
  """Runs the study."""
  del argv
  command.run_main(run)


def parse(argv: list[str]) -> list[str]:
  """Reads the command line."""
  return command.parse_methods(argv, __name__)
