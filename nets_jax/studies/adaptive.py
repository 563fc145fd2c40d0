"""Settings drawn by what the ones before came to: Optuna's TPE, shared by all workers of a study.

Here a trial is a setting with all its seeds, and its value their mean. So a result depends on the order in
which settings were tried; by the other samplers it does not.
"""

import contextlib
import dataclasses
import itertools
import math
import pathlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from nets_jax.engine.messages import say
from nets_jax.engine.saving import DIRECTORY as CHECKPOINTS
from nets_jax.errors import UsageError
from nets_jax.studies.batches import batches, run_batch
from nets_jax.studies.methods import Method, Run, check, check_kept, check_scores, digest, seed_runs
from nets_jax.studies.run_files import is_done, result_row
from nets_jax.studies.space import Changes, Dimension, draw, make_sampler, suggest
from nets_jax.studies.trials import OPEN, RUN, Trials, reachable
from nets_jax.studies.work import WAIT_SECONDS, Options, check_files, complete, is_over, study_name
from nets_jax.studies.workers import Worker

SETTING, FAILED, IMPOSSIBLE = "setting", "failed", "impossible"
DRAWS = 20  # of a setting that no other worker has in hand


@dataclasses.dataclass(frozen=True)
class Adaptive:
  """What TPE draws settings from.

  Attributes:
    dimensions: what is varied; see `space.read_ranges`.
    make: a setting by its changes, as they are written.
    samples: settings to try.
    seed: of the sampler.
  """

  dimensions: Sequence[Dimension]
  make: Callable[[Mapping[str, str]], Method]
  samples: int
  seed: int = 0

  def example(self) -> Method:
    """One setting of the space."""
    return self.make(self._drawn())

  def variants(self) -> list[Method]:
    """The example, and it with each listed value in turn: every loss, score and kind of data of the space."""
    changes, found = self._drawn(), [self.example()]
    for dimension in self.dimensions:
      for choice in dimension.choices:
        with contextlib.suppress(UsageError):  # said when it is drawn
          found.append(self.make({**changes, dimension.name: choice}))
    return found

  def _drawn(self) -> Changes:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return suggest(optuna.create_study(sampler=make_sampler("tpe", self.seed)).ask(), self.dimensions)

  def check_kept(self, keep_trained: bool) -> None:
    """Raises UsageError where trained networks are to be kept, but no setting trains any."""
    if all(dimension.name != "train_epochs" for dimension in self.dimensions):  # else setting by setting
      check_kept(keep_trained, self.example().task.epochs)


def choose(
  make: Callable[[Mapping[str, str]], Method],
  grid: Sequence[Changes],
  dimensions: Sequence[Dimension],
  sampler: str,
  samples: int,
  seed: int,
) -> list[Method] | Adaptive:
  """What is swept: every setting of a grid, each with every draw; or what TPE draws from.

  Args:
    make: a setting by its changes, as they are written.
    grid: see `space.product`.
    dimensions: see `space.read_ranges`.
    sampler: a name in `space.SAMPLERS`.
    samples: settings to draw.
    seed: of the draws.

  Raises:
    UsageError: a setting in both, or nothing to draw from, or a value that a setting cannot have.
  """
  if both := {name for changes in grid for name in changes} & {own.name for own in dimensions}:
    raise UsageError(f"{min(both)} is in --grid and in --ranges; leave it in one of them")
  if sampler == "tpe":
    if grid != [{}] or not dimensions or samples < 1:
      raise UsageError("--sampler=tpe asks for --samples of at least 1, for --ranges, and for no --grid")
    space = Adaptive(dimensions, make, samples, seed)
    space.example()  # says what is wrong before anything is run
    return space
  drawn: Sequence[Changes] = [{}]
  if sampler != "grid":
    drawn = draw(dimensions, samples, sampler, seed)
  elif dimensions or samples:
    raise UsageError("--ranges and --samples are for --sampler=random, qmc or tpe; name one")
  return [make({**listed, **own}) for listed, own in itertools.product(grid, drawn)]


def complete_adaptive(
  space: Adaptive, seeds: Sequence[int], directory: pathlib.Path, options: Options
) -> list[Run]:
  """Tries settings until there are as many as asked for; returns the runs of all that were tried.

  Args:
    space: what to draw from.
    seeds: of each setting.
    directory: of the study's files.
    options: how; its `value` is minimised.

  Raises:
    UsageError: trained networks are to be kept, but none is trained.
  """
  space.check_kept(options.machine.keep_trained)
  begun = time.monotonic()
  directory.mkdir(parents=True, exist_ok=True)
  ranges = digest([space.make({}).hash, [repr(dimension) for dimension in space.dimensions], space.seed])
  trials = Trials(directory, options.storage, study_name(directory, options.storage, f"tpe-{ranges}"))
  with Worker(directory).at_work() as worker, reachable(options.storage):
    while not is_over(begun, options):
      with trials.alone():
        _revive(trials, worker)
        trial = _next(trials, space, worker)
      if trial is not None:
        _try(trial, space, seeds, directory, options, trials)
        worker.take([])
      elif not trials.all(*OPEN):
        break
      else:
        time.sleep(WAIT_SECONDS)
  runs = [
    run
    for trial in _tried(trials)
    if IMPOSSIBLE not in trial.user_attrs
    for run in _runs(trial.user_attrs[SETTING], space, seeds, directory)
  ]
  runs = list({run.name: run for run in runs}.values())
  return complete(runs, directory, options)  # what is missing, or damaged, of those that were tried before


def _tried(trials: Trials) -> list[FrozenTrial]:
  """The trials whose setting was run, each with it."""
  return [
    trial
    for trial in trials.all()
    if SETTING in trial.user_attrs
    and (trial.state is not TrialState.FAIL or trial.user_attrs.get(FAILED))  # else its worker has died
  ]


def _next(trials: Trials, space: Adaptive, worker: Worker) -> optuna.Trial | None:
  """A trial to run; None where there are as many as asked for."""
  if not trials.all(TrialState.WAITING) and len(_tried(trials)) >= space.samples:
    return None
  for _ in range(DRAWS):
    seed = np.random.SeedSequence([space.seed, len(trials.all())]).generate_state(1)[0]
    trials.study.sampler = make_sampler("tpe", int(seed))  # no two workers' draws are alike
    trial = trials.study.ask()
    changes = suggest(trial, space.dimensions)
    running = trials.all(TrialState.RUNNING)
    if all(other.user_attrs.get(SETTING) != changes for other in running):
      name = f"setting {trial.number}"
      trial.set_user_attr(SETTING, changes)
      trial.set_user_attr(RUN, name)
      worker.take([name])
      return trial
    trials.tell(trial._trial_id, None)  # another worker has it in hand
  return None


def _runs(changes: Changes, space: Adaptive, seeds: Sequence[int], directory: pathlib.Path) -> list[Run]:
  return seed_runs([space.make(changes)], seeds, directory)


def _try(
  trial: optuna.Trial,
  space: Adaptive,
  seeds: Sequence[int],
  directory: pathlib.Path,
  options: Options,
  trials: Trials,
) -> None:
  """Runs a setting with all its seeds, and tells the study their mean."""
  try:
    runs = _runs(trial.user_attrs[SETTING], space, seeds, directory)
    check([run.method for run in runs[:1]], options.machine.keep_trained)
    check_scores([space.example(), *(run.method for run in runs[:1])])
  except UsageError as error:
    say(f"setting {trial.number + 1} is not possible: {error}")
    for name in (FAILED, IMPOSSIBLE):
      trial.set_user_attr(name, True)
    trials.tell(trial._trial_id, None)
    return
  check_files(runs, keep_pruned=False)
  say(f"setting {trial.number + 1}: " + ", ".join(f"{k}={v}" for k, v in trial.user_attrs[SETTING].items()))
  todo = [run for run in runs if not is_done(run)]
  for part in batches(todo, options.machine.at_once):
    run_batch(part, part.runs, directory / CHECKPOINTS / part.name, options.machine)
  rows = [result_row(run) for run in runs]
  values = [options.value(row) for row in rows]
  is_sound = all(map(math.isfinite, values)) and not any(row["failed"] for row in rows)
  if not is_sound:
    trial.set_user_attr(FAILED, True)
  trials.tell(trial._trial_id, statistics.fmean(values) if is_sound else None)


def _revive(trials: Trials, worker: Worker) -> None:
  """Has the settings of workers that have died tried again."""
  running = trials.all(TrialState.RUNNING)
  alive = worker.in_hand()
  for trial in running:
    if trial.user_attrs.get(RUN) not in alive and trials.tell(trial._trial_id, None):
      trials.study.enqueue_trial(trial.params)
