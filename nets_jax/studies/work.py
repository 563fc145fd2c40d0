"""The loop of one worker: takes batches of runs that nobody has taken, until all of a study are done."""

import contextlib
import dataclasses
import math
import pathlib
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Sequence

import filelock
import jax
from optuna.trial import TrialState

from nets_jax.analysis.progress import RunsDone
from nets_jax.baselines.random_tickets import random_ticket_for
from nets_jax.engine.files import seal, set_aside
from nets_jax.engine.layouts import make_layout
from nets_jax.engine.messages import in_words, say
from nets_jax.engine.saving import DIRECTORY as CHECKPOINTS
from nets_jax.engine.tables import Row
from nets_jax.studies.batches import BATCH, GENOMES_AT_ONCE, Batch, Machine, batches, programs, run_batch
from nets_jax.studies.methods import Run, check_kept
from nets_jax.studies.run_files import SUMMARY, TRAINED, damage, is_done, result_row
from nets_jax.studies.trials import Trials, reachable
from nets_jax.studies.workers import STUDY_LOCK, Worker
from nets_jax.tickets.ticket import stack
from nets_jax.training.trainer import train_tickets

WAIT_SECONDS = 1.0
TRIAL_STEPS = 200
STUDY = "runs"


@dataclasses.dataclass(frozen=True)
class Options:
  """How a study is run, besides what it runs.

  Attributes:
    machine: see `batches.Machine`.
    storage: URL of the database that workers share; None is a journal file in the study's directory.
    max_hours: no batch is begun after so many; None never stops.
    value: what a run came to, from its `result_row`, for Optuna's study.
  """

  machine: Machine = dataclasses.field(default_factory=Machine)
  storage: str | None = None
  max_hours: float | None = None
  value: Callable[[Row], float] = lambda row: row["valid_loss"]

  def less(self, begun: float) -> "Options":
    """The same for what follows: with the hours that are left since a reading of `time.monotonic`."""
    if self.max_hours is None:
      return self
    return dataclasses.replace(self, max_hours=max(0.0, self.max_hours - (time.monotonic() - begun) / 3600))


def complete(
  runs: Sequence[Run],
  directory: pathlib.Path,
  options: Options,
  on_batch: Callable[[], None] = lambda: None,
) -> list[Run]:
  """Does every run that is not done, with whoever else is at work on them; returns those that are done.

  Args:
    runs: all of the study.
    directory: of its files.
    options: how.
    on_batch: called when runs were added to those that are done, to write tables of what is there.

  Raises:
    UsageError: trained networks are to be kept, but none is trained.
  """
  for run in runs:
    check_kept(options.machine.keep_trained, run.method.task.epochs)
  begun = time.monotonic()
  directory.mkdir(parents=True, exist_ok=True)
  trials = Trials(directory, options.storage, study_name(directory, options.storage, STUDY))
  with Worker(directory).at_work() as worker, reachable(options.storage):
    with trials.alone():
      check_files(runs, keep_pruned=options.machine.prune is not None)
      left = {run.name for run in runs if not is_done(run)}
      if options.machine.keep_trained:
        warn_of_unkept(runs)
      trials.revive(worker)
      trials.add(run.name for run in runs if run.name in left)
    parts = batches(runs, options.machine.at_once)
    plan = describe(runs, options.machine.at_once)
    with RunsDone(len(runs), len(runs) - len(left), plan) as progress:
      while left and not is_over(begun, options):
        did = False
        for part in parts:
          todo = [run for run in part.runs if run.name in left and not is_done(run)]
          claimed = trials.claim([run.name for run in todo], worker) if todo else {}
          if claimed:
            did = True
            _do(part, [run for run in todo if run.name in claimed], claimed, directory, options, trials)
            worker.take([])
            left -= set(claimed)
            progress.tell(len(runs) - len(left))
            on_batch()
          if is_over(begun, options):
            break
        left = {run.name for run in runs if not is_done(run)}
        if left and not did:  # others are at work on what is left
          time.sleep(WAIT_SECONDS)
          with trials.alone():
            if dead := trials.revive(worker):
              say(f"{len(dead)} runs of a worker that has died are taken up")
            alive = worker.in_hand()
            trials.add(run.name for run in runs if not is_done(run) and run.name not in alive)
    if left:
      say(f"{len(left)} of {len(runs)} runs are not done yet; the same command goes on with them")
  forget_checkpoints(directory)
  return [run for run in runs if is_done(run)]


def warn_of_unkept(runs: Sequence[Run]) -> None:
  """Says so if finished runs have kept no trained network, though they found a ticket."""
  done = [run for run in runs if is_done(run) and not (run.path / TRAINED).exists()]
  if unkept := [run for run in done if not result_row(run)["failed"]]:
    say(
      f"{len(unkept)} finished runs have kept no trained network; remove their directories under "
      f"{unkept[0].path.parent} to have them made again"
    )


def forget_checkpoints(directory: pathlib.Path) -> None:
  """Removes the checkpoints of batches whose runs are all done; those of other commands stay."""
  for path in (directory / CHECKPOINTS).glob(f"*/{BATCH}"):
    with contextlib.suppress(OSError):  # another worker may remove it too
      if all((directory / "runs" / name / SUMMARY).exists() for name in path.read_text().split()):
        shutil.rmtree(path.parent, ignore_errors=True)
  with contextlib.suppress(OSError):  # unless there are others
    (directory / CHECKPOINTS).rmdir()


def study_name(directory: pathlib.Path, storage: str | None, kind: str) -> str:
  """The name of Optuna's study: in a database, which may hold many, with what tells directories apart."""
  if storage is None:
    return kind
  path = directory / ".study.id"
  with filelock.FileLock(directory / STUDY_LOCK):
    if not path.exists():
      path.write_text(uuid.uuid4().hex)
  return f"{directory.name}-{path.read_text()}/{kind}"


def is_over(begun: float, options: Options) -> bool:
  """Whether the study has had its hours."""
  return options.max_hours is not None and time.monotonic() - begun > 3600 * options.max_hours


def _do(
  part: Batch,
  runs: Sequence[Run],
  claimed: dict[str, int],
  directory: pathlib.Path,
  options: Options,
  trials: Trials,
) -> None:
  """Runs what was claimed of a batch, and tells the storage."""
  own = Batch(runs, min(part.length, len(runs)) if len(runs) < len(part.runs) else part.length, part.title)
  run_batch(own, runs, directory / CHECKPOINTS / own.name, options.machine)
  for run in runs:
    row = result_row(run)
    value = options.value(row)
    state = TrialState.PRUNED if is_pruned(row) else TrialState.COMPLETE
    trials.tell(claimed[run.name], value if math.isfinite(value) else None, state)


def check_files(runs: Iterable[Run], keep_pruned: bool) -> None:
  """Renames the directory of every finished run whose records are not whole, so that it is run again.

  Args:
    runs: of the study.
    keep_pruned: whether runs that a pruner has ended count as done; else these are run again too.
  """
  for run in runs:
    if not is_done(run):
      continue
    if found := damage(run):
      say(f"{run.path} is damaged ({found}); it is now {set_aside(run.path).name}, and run again")
    elif not keep_pruned and is_pruned(result_row(run)):
      (run.path / SUMMARY).unlink()
    else:
      seal(run.path)  # as it was read: a process may have been killed before it could


def is_pruned(row: Row) -> bool:
  """Whether a run was ended by a pruner."""
  return str(row["failed"]).startswith("pruned")


def plan(runs: Sequence[Run], options: Options) -> str:
  """What a study will do, and how long it will take; see `complete` for what it refuses."""
  for run in runs:
    check_kept(options.machine.keep_trained, run.method.task.epochs)
  return f"{describe(runs, options.machine.at_once)}\n{estimate(runs, options.machine)}"


def describe(runs: Sequence[Run], at_once: int | None) -> str:
  """What a study will do: its runs, how many are done, its programs and their batches."""
  todo = [run for run in runs if not is_done(run)]
  groups = programs(todo)
  lines = [
    f"{len(runs)} runs, {len(runs) - len(todo)} of them done; {len(todo)} to go in {len(groups)} program(s)"
  ]
  for i, group in enumerate(groups):
    parts = batches(group, at_once)
    lines.append(
      f"program {i + 1}: {len(group)} runs, {len(parts)} batch(es) of {len(parts[0].runs)} side by side"
    )
    by_method: dict[str, list[Run]] = {}
    for run in group:
      by_method.setdefault(run.method.hash, []).append(run)
    for own in by_method.values():
      columns = own[0].method.columns
      changes = ", ".join(f"{k}={v}" for k, v in columns.items()) or "the settings as given"
      which = "seed" if own[0].trial is None else "trial"
      numbers = [run.seed if run.trial is None else run.trial for run in own]
      lines.append(f"  {changes}: {which} {', '.join(map(str, numbers))}")
  return "\n".join(lines)


def estimate(runs: Sequence[Run], machine: Machine) -> str:
  """The time that is left, from the training of one ticket per device for some steps in each program."""
  seconds = epochs = 0.0
  groups = programs([run for run in runs if not is_done(run)])
  for group in groups:
    task = group[0].method.task
    size = make_layout(GENOMES_AT_ONCE, devices=machine.devices).mesh.size
    tickets = [random_ticket_for(jax.random.key(i), task, 1.0) for i in range(size)]
    steps = min(task.steps_per_epoch, TRIAL_STEPS)
    rows = train_tickets(
      jax.random.key(0),
      stack(tickets),
      task.replace(eval_every=steps),
      steps=2 * steps,
      splits=("valid",),
    ).curves
    per_genome_epoch = (rows[-1]["seconds"] - rows[0]["seconds"]) / size * task.steps_per_epoch / steps
    once = {(run.seed, run.trial): run for run in sorted(group, key=_genome_epochs)}
    searched = once.values() if group[0].method.search.passes_densities else group
    own = sum(map(_genome_epochs, searched)) + len(group) * task.epochs
    epochs, seconds = epochs + own, seconds + own * per_genome_epoch
  compilations = sum(1 + _trains(group) for group in groups)
  return (
    f"{epochs:,.0f} genome-epochs, about {in_words(seconds)} ({seconds / 3600:.2f} h) by a short trial here; "
    f"{compilations} compilations, of each program's search and final training, come on top"
  )


def _genome_epochs(run: Run) -> float:
  return run.method.search.genome_epochs(run.method.task)


def _trains(group: Sequence[Run]) -> int:
  return int(group[0].method.task.epochs > 0)
