"""The runs of a study as trials of an Optuna study, in a storage that several workers share.

Optuna's storage decides who takes a run: a trial goes from waiting to running once, whoever asks. By default
it is a journal file in the study's directory, which may be on a shared file system; a URL names a PostgreSQL
or MySQL database. What a run came to is in its own files; the storage says who is at work, and feeds samplers
and pruners.
"""

import contextlib
import pathlib
from collections.abc import Iterable, Iterator, Sequence

import filelock
import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState, create_trial

from nets_jax.errors import UsageError
from nets_jax.studies.workers import STUDY_LOCK, Worker

JOURNAL, RUN = "trials.log", "run"
OPEN = (TrialState.WAITING, TrialState.RUNNING)


def open_storage(directory: pathlib.Path, url: str | None) -> BaseStorage:
  """The storage of a study: the journal file in its directory, or the database of a URL.

  Raises:
    UsageError: it cannot be opened.
  """
  optuna.logging.set_verbosity(optuna.logging.WARNING)
  try:
    if url is None:
      path = str(directory / JOURNAL)
      return JournalStorage(JournalFileBackend(path, lock_obj=JournalFileOpenLock(path)))
    return RDBStorage(url, heartbeat_interval=None)
  except Exception as error:  # of SQLAlchemy and the database's own driver
    why = " ".join(str(error).split())[:200]
    raise UsageError(f"cannot use --storage={url or directory / JOURNAL}: {why}") from error


class Trials:
  """The trials of one study; each names its run."""

  def __init__(self, directory: pathlib.Path, url: str | None, name: str):
    """Opens the study, or makes it.

    Args:
      directory: of the study's files.
      url: see `open_storage`.
      name: of the study in a database, which may hold many.
    """
    self._directory = directory
    self.storage = open_storage(directory, url)
    self.study = optuna.create_study(storage=self.storage, study_name=name, load_if_exists=True)
    self._id = self.storage.get_study_id_from_name(name)

  @contextlib.contextmanager
  def alone(self) -> Iterator[None]:
    """Keeps the study's lock while it lasts; a process that dies lets go of it."""
    with filelock.FileLock(self._directory / STUDY_LOCK):
      yield

  def all(self, *states: TrialState) -> list[FrozenTrial]:
    """The trials in some states, in the order they were made."""
    return self.storage.get_all_trials(self._id, deepcopy=False, states=states or None)

  def add(self, runs: Iterable[str]) -> None:
    """Makes a waiting trial of each run that has none that is open. To be called under `alone`."""
    there = {trial.user_attrs.get(RUN) for trial in self.all(*OPEN)}
    for name in dict.fromkeys(runs):
      if name not in there:
        trial = create_trial(state=TrialState.WAITING, user_attrs={RUN: name})
        self.storage.create_new_trial(self._id, template_trial=trial)

  def claim(self, runs: Sequence[str], worker: Worker) -> dict[str, int]:
    """Takes those of some runs that nobody else has: their trials' numbers in the storage, by run."""
    wanted = set(runs)
    waiting = {
      trial.user_attrs[RUN]: trial._trial_id
      for trial in self.all(TrialState.WAITING)
      if trial.user_attrs.get(RUN) in wanted
    }
    if not waiting:
      return {}
    worker.take(list(waiting))  # before the claim, so that none is ever without a living worker
    claimed = {
      name: waiting[name]
      for name in runs
      if name in waiting and self.storage.set_trial_state_values(waiting[name], TrialState.RUNNING)
    }
    worker.take(list(claimed))
    return claimed

  def tell(self, trial: int, value: float | None, state: TrialState = TrialState.COMPLETE) -> None:
    """Notes what a run came to; without a value that its search failed."""
    with contextlib.suppress(
      optuna.exceptions.UpdateFinishedTrialError
    ):  # taken for dead, and done by others
      if value is None:
        state = TrialState.FAIL if state is TrialState.COMPLETE else state
      self.storage.set_trial_state_values(trial, state, None if value is None else [value])

  def revive(self, worker: Worker) -> list[str]:
    """Makes new trials of the runs whose worker has died, and says which; under `alone`."""
    alive = worker.in_hand()
    dead = [
      trial for trial in self.all(TrialState.RUNNING) if trial.user_attrs.get(RUN, "") not in {*alive, ""}
    ]
    for trial in dead:
      self.tell(trial._trial_id, None)
    self.add(trial.user_attrs[RUN] for trial in dead)
    return [trial.user_attrs[RUN] for trial in dead]
