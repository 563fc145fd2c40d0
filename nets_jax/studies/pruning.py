"""Hopeless runs ended early: Optuna's pruners, asked after each generation of a run."""

import pathlib
from collections.abc import Callable, Sequence

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.trial import TrialState

from nets_jax.engine.tables import Row
from nets_jax.errors import UsageError
from nets_jax.evolution.search import Nets
from nets_jax.studies.adaptive import Adaptive
from nets_jax.studies.methods import Method, Run, check_losses
from nets_jax.studies.trials import RUN, Trials
from nets_jax.studies.work import STUDY, study_name

PRUNERS: dict[str, Callable[[], BasePruner]] = {
  "none": NopPruner, "median": MedianPruner, "halving": SuccessiveHalvingPruner, "hyperband": HyperbandPruner,
}  # fmt: skip


def check_prunable(settings: Sequence[Method] | Adaptive) -> None:
  """Raises UsageError where nothing would ask a pruner, or where it would compare several losses."""
  if isinstance(settings, Adaptive):
    raise UsageError("--pruner is for --sampler=grid, random or qmc; TPE's trials are whole settings")
  if not all(isinstance(method.search, Nets) for method in settings):
    raise UsageError("--pruner ends generations of NeTS; this search has none")
  check_losses(settings, "--pruner", "leave it out")


def make_prune(
  name: str, directory: pathlib.Path, storage: str | None
) -> Callable[[Run, Sequence[Row]], bool]:
  """Reports the lowest fitness of each generation to the study, and asks the pruner of that name.

  What is pruned depends on the runs that came before, and so on their order.
  """
  directory.mkdir(parents=True, exist_ok=True)
  trials = Trials(directory, storage, study_name(directory, storage, STUDY))
  trials.study.pruner = PRUNERS[name]()
  numbers: dict[str, int] = {}

  def prune(run: Run, rows: Sequence[Row]) -> bool:
    if run.name not in numbers:
      running = {trial.user_attrs.get(RUN): trial._trial_id for trial in trials.all(TrialState.RUNNING)}
      if run.name not in running:
        return False
      numbers[run.name] = running[run.name]
    trial = optuna.Trial(trials.study, numbers[run.name])
    best = min(rows, key=lambda row: row["fitness"])
    trial.report(best["fitness"], int(best["generation"]))
    return bool(trial.should_prune())  # NumPy's, which a checkpoint does not take

  return prune
