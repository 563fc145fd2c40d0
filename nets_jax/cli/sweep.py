r"""Seeds x settings of a ticket search, side by side in as few compiled programs as they allow.

  python -m experiments.sweep --search=paper --seeds=0:10 --grid='noise_rate=0.05,0.1;elites=1,2'
  python -m experiments.sweep --seeds=0:3 --random=64 --ranges='crossover_rate=0.1:1;elites=0:3'

Any setting of a search or its task may be swept, by any --search. Each run is that of experiments.search
with the same flags, bit for bit. --dry_run prints the plan, how many programs it compiles, and an estimate
of the time.

The directory holds history.csv (a row for each run and generation), results.csv (a row for each run),
settings.csv and settings.md (mean and 95 % interval over the seeds of each setting), figure_effects.png,
best.flags (a flagfile for experiments.search) and, in runs/, the files of every run. A sweep that was stopped
goes on where it was, and one with more seeds or settings than before runs those alone.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags

import nets_jax
from nets_jax.analysis import tensorboard
from nets_jax.analysis.study_figures import effects_figure
from nets_jax.analysis.style import save_figure
from nets_jax.cli import command, final_training, outcome, records, saving
from nets_jax.cli import setting_flags as search_flags
from nets_jax.cli.run_directory import RunDirectory, check_version, environment, locked, run_keys
from nets_jax.engine.files import replace_file, seal, set_aside
from nets_jax.engine.progress import Progress, say
from nets_jax.engine.tables import read_csv, write_csv, write_json
from nets_jax.protocol import Outcome
from nets_jax.studies import effects, plan
from nets_jax.tickets.storage import save_ticket
from nets_jax.tickets.ticket import unmasked_count

flags.adopt_module_key_flags(search_flags)
flags.DEFINE_string("seeds", "0:5", "Seeds of each setting: first:end, or a list with commas.")
flags.DEFINE_string("grid", "", "Settings: every combination of 'flag=value,value;flag=value,value'.")
flags.DEFINE_integer("random", 0, "Settings to draw from --ranges, in place of --grid or for each of it.")
flags.DEFINE_string(
  "ranges", "", "What --random draws from: 'flag=low:high;flag=low:high:log;flag=value,value'."
)
flags.DEFINE_integer("random_seed", 0, "Seed of the draws of --random.")
flags.DEFINE_integer("at_once", None, "Runs side by side; default as many as have 256 genomes, at most 16.")
flags.DEFINE_enum(
  "best_by",
  None,
  effects.METRICS,
  "What decides on the best setting; default valid_loss after the final training, or fitness where there "
  "is none.",
)
flags.DEFINE_bool("dry_run", False, "Print the plan and an estimate of the time, and run nothing.")

OWN_FLAGS = ("seeds", "grid", "random", "ranges", "random_seed")


def run_batch(
  group: plan.Group, runs: Sequence[plan.Run], length: int, title: str, directory: pathlib.Path
) -> None:
  """Searches, and trains what was found, side by side; then writes the files of each run.

  Both are saved in `directory` as they go.
  """
  values, todo = group.values, [*runs, *[runs[-1]] * (length - len(runs))]
  keys = [run_keys(run.seed) for run in todo]
  tasks, chosen = [group.task(run) for run in todo], [run.setting.search for run in todo]
  total = max(search.reports(task, length) for search, task in zip(chosen, tasks, strict=True))
  with (
    Progress(title, total) as progress,
    saving.checkpoints(values, directory / "search", on_restore=progress.take_up) as checkpoints,
  ):
    found = nets_jax.search_all(
      jnp.stack([search for search, _, _ in keys]),
      tasks,
      chosen,
      devices=values.devices,
      chunk=values.chunk,
      on_rows=progress,
      keep_failures=True,
      checkpoints=checkpoints,
    )
  training_keys = jnp.stack([training for _, _, training in keys])
  sound = [result for result in found[: len(runs)] if isinstance(result, nets_jax.SearchResult)]
  outcome.warn_of_empty_layers(title, [result.ticket for result in sound])
  curves = train(values, tasks, found, training_keys, title, directory / "training")
  for run, result, curve in zip(runs, found, curves, strict=False):
    write_run(run, tasks[0].network, result, curve)
  saving.forget(directory)


def train(
  values: flags.FlagValues,
  tasks: Sequence[nets_jax.Task],
  found: Sequence[Outcome],
  keys: jax.Array,
  title: str,
  directory: pathlib.Path,
) -> list[list[dict[str, Any]]]:
  """The curve of each ticket in the final training of experiments.search; empty if there is none.

  Where a search failed, another's ticket is trained in its place, to keep to the same program.
  """
  tickets = [None if isinstance(result, nets_jax.SearchFailed) else result.ticket for result in found]
  any_ticket = next((ticket for ticket in tickets if ticket is not None), None)
  if any_ticket is None or tasks[0].epochs == 0:
    return [[] for _ in found]
  tickets = [any_ticket if ticket is None else ticket for ticket in tickets]
  rows = final_training.train(keys, tickets, tasks, values, title, directory)
  return [[row for row in rows if row["ticket"] == i] for i in range(len(found))]


def write_run(run: plan.Run, network: nets_jax.MLP, result: Outcome, curve: Sequence[dict[str, Any]]) -> None:
  """The files that experiments.search leaves, but for the figure; summary.json is the last."""
  values, directory = run.setting.values, RunDirectory(str(run.path), overwrite=True)
  directory.open(records.explicit(values) | {"seed": run.seed, "workdir": str(run.path)})
  if isinstance(result, nets_jax.SearchFailed):
    say(f"{run.path.name} failed: {result}")
    if result.result is not None:
      write_csv(directory / "history.csv", result.result.history)
      if unmasked_count(result.result.ticket):
        save_ticket(directory / "ticket.safetensors", result.result.ticket, network)
    write_json(directory / "summary.json", {"failed": str(result)})
    seal(run.path)
    return
  write_csv(directory / "history.csv", result.history)
  save_ticket(directory / "ticket.safetensors", result.ticket, network)
  name = values.search
  results, curve = {}, [{**row, "ticket": name} for row in curve]
  if curve:
    write_csv(directory / "training.csv", curve)
    results = {name: outcome.results_of(result.ticket, curve[-1])}
  with tensorboard.open_board(run.path, values.tensorboard) as shown:
    shown.search(result.history)
    shown.ticket(result.ticket)
    shown.training(curve)
    shown.settings({**run.setting.changes, "seed": run.seed}, results.get(name, {}))
  write_json(directory / "summary.json", outcome.summarise(result, results, {}))
  seal(run.path)


def write_outputs(directory: pathlib.Path, runs: Sequence[plan.Run], values: flags.FlagValues) -> str:
  """The sweep's tables and figure, from the files of its runs. Returns the table of settings."""
  names = list(runs[0].setting.changes)
  files = [(run.setting.changes, run.seed, run.path) for run in runs]
  write_csv(directory / "results.csv", effects.result_rows(files))
  if history := effects.history_rows(files):
    write_csv(directory / "history.csv", history)
  results = read_csv(directory / "results.csv")
  settings = effects.setting_rows(results, names)
  write_csv(directory / "settings.csv", settings)
  best, metric = effects.best(settings, values.best_by)
  table = effects.markdown(settings, names, best)
  with replace_file(directory / "settings.md") as temporary:
    temporary.write_text(table)
  if names:
    figure = effects_figure(results, names)
    save_figure(figure, directory / "figure_effects.png")
  if best is None:
    return f"{table}\nno setting came through with every run"
  setting = list(dict.fromkeys(run.setting for run in runs))[best]
  with replace_file(directory / "best.flags") as temporary:
    temporary.write_text(records.flagfile(_repeatable(setting.values)))
  how = effects.certainty(results, settings, names, best, metric)
  return (
    f"{table}\nbest by {metric}: python -m experiments.search --flagfile={directory / 'best.flags'}\n{how}"
  )


def _repeatable(values: flags.FlagValues) -> dict[str, Any]:
  """All that decides a run of a setting, but for its seed."""
  return {name: value for name, value in records.deciding(values).items() if name != "seed"}


def run(values: flags.FlagValues) -> None:
  """All runs that are not done, then the tables of all."""
  if values["seed"].present:
    raise nets_jax.UsageError("--seed is for experiments.search; a sweep takes --seeds")
  if values.tensorboard:
    tensorboard.check_installed()
  if values.at_once is not None and values.at_once < 1:
    raise nets_jax.UsageError(f"at_once must be at least 1, not {values.at_once}")
  name = f"sweep-{records.file_name(values.dataset)}-{records.file_name(values.search)}"
  path = values.workdir or str(pathlib.Path("runs") / name)
  if values.dry_run:
    runs = plan.make_runs(values, pathlib.Path(path))
    groups = plan.make_groups([run for run in runs if not run.is_done])
    print(plan.describe(runs, groups), plan.estimate(groups), sep="\n")
    return
  runs = plan.make_runs(values, pathlib.Path(path))
  with locked(path) as directory:
    run_all(directory, runs, values)


def run_all(directory: pathlib.Path, runs: Sequence[plan.Run], values: flags.FlagValues) -> None:
  """The sweep in a directory of its own."""
  if (directory / "config.json").exists():
    check_version(directory / "config.json", "give another --workdir")
  for run in runs:
    if not (run.path / "summary.json").exists():
      continue
    if damage := run.damage():
      say(f"{run.path} is damaged ({damage}); it is now {set_aside(run.path).name}, and run again")
    else:
      seal(run.path)  # as it was read: a process may have been killed before it could
  groups = plan.make_groups([run for run in runs if not run.is_done])
  say(plan.describe(runs, groups))
  given = {name: value for name, value in records.as_given(values, OWN_FLAGS).items() if name != "seed"}
  again = records.leave_flagfile(directory / "sweep.flags", {"search": values.search, **given})
  say(f"to repeat this sweep: python -m experiments.sweep {again}")
  own = {name: values[name].value for name in OWN_FLAGS}
  settings = {
    "search": values.search,
    **records.task_settings(values),
    **records.given_plain(values),
  }
  write_json(directory / "config.json", {"sweep": own, "settings": settings, **environment()})
  for i, group in enumerate(groups):
    batches = group.batches()
    for j, batch in enumerate(batches):
      title = f"program {i + 1}/{len(groups)}, batch {j + 1}/{len(batches)}"
      run_batch(group, batch, len(batches[0]), title, directory / saving.DIRECTORY / plan.name(batch))
  saving.forget(directory / saving.DIRECTORY)
  print(write_outputs(directory, runs, values))
  print(f"files in {directory}")


def main(argv: list[str]) -> None:
  """Runs the sweep."""
  del argv
  command.run_main(run)


def parse(argv: list[str]) -> list[str]:
  """Reads the command line."""
  return command.parse(argv, __name__)
