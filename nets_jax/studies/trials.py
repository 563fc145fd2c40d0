"""The runs of a study as trials of an Optuna study, in a storage that several workers share.

Optuna's storage decides who takes a run: a trial goes from waiting to running once, whoever asks. By default
it is a journal file in the study's directory, which may be on a shared file system; a URL names a PostgreSQL
or MySQL database. What a run came to is in its own files; the storage says who is at work, and feeds samplers
and pruners.
"""

import contextlib
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence

import filelock
import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState, create_trial

from nets_jax.engine.files import set_aside
from nets_jax.engine.messages import say
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
  except (ValueError, KeyError, AssertionError):
    raise
  except Exception as error:  # of SQLAlchemy and the database's own driver
    why = " ".join(str(error).split())[:200]
    raise UsageError(f"cannot use --storage={url or directory / JOURNAL}: {why}") from error


@contextlib.contextmanager
def reachable(url: str | None) -> Iterator[None]:
  """Makes one line of a database that goes away while workers are at work."""
  try:
    yield
  except Exception as error:  # of SQLAlchemy and the database's own driver, by way of Optuna
    if url is None or type(error).__module__.split(".")[0] not in ("optuna", "sqlalchemy"):
      raise
    why = " ".join(str(error.__cause__ or error).split())[:200]
    raise UsageError(
      f"--storage={url} cannot be reached any more ({why}); the same command goes on when it can"
    ) from error


def _cut_torn_line(path: pathlib.Path) -> None:
  """Cuts what a full disk or a power failure has left of a journal's last line: none could follow it."""
  content = path.read_bytes() if path.exists() else b""
  if content and not content.endswith(b"\n"):
    os.truncate(path, content.rfind(b"\n") + 1)


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
    if url is None:
      with self.alone():
        _cut_torn_line(directory / JOURNAL)
    try:
      self._open(url, name)
    except (ValueError, KeyError, AssertionError) as error:  # of a journal whose last line is cut, say
      if url is not None:
        raise UsageError(f"cannot use --storage={url}: {' '.join(str(error).split())[:200]}") from error
      with self.alone():
        aside = set_aside(directory / JOURNAL)
      say(f"{directory / JOURNAL} is damaged; it is now {aside.name}, and made anew from the runs' files")
      self._open(url, name)
    self._id = self.storage.get_study_id_from_name(name)

  def _open(self, url: str | None, name: str) -> None:
    self.storage = open_storage(self._directory, url)
    self.study = optuna.create_study(storage=self.storage, study_name=name, load_if_exists=True)

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

  def tell(self, trial: int, value: float | None, state: TrialState = TrialState.COMPLETE) -> bool:
    """Notes what a run came to, without a value that its search failed; whether it was not noted before."""
    if value is None and state is TrialState.COMPLETE:
      state = TrialState.FAIL
    try:
      return self.storage.set_trial_state_values(trial, state, None if value is None else [value])
    except optuna.exceptions.UpdateFinishedTrialError:  # taken for dead, and done by others
      return False

  def revive(self, worker: Worker) -> list[str]:
    """Makes new trials of the runs whose worker has died, and says which; under `alone`."""
    running = self.all(TrialState.RUNNING)  # first: a worker notes its runs before it takes them
    alive = worker.in_hand()
    dead = [trial for trial in running if trial.user_attrs.get(RUN, "") not in {*alive, ""}]
    taken_up = [trial.user_attrs[RUN] for trial in dead if self.tell(trial._trial_id, None)]
    self.add(taken_up)
    return taken_up
