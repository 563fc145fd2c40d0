"""What a study is made of: methods, each a search for a task, and their runs by seed or trial."""

import dataclasses
import functools
import hashlib
import json
import pathlib
import weakref
from collections.abc import Hashable, Mapping, Sequence

import jax
import numpy as np

from nets_jax import settings
from nets_jax.data.dataset import Dataset
from nets_jax.engine.saved import fingerprint
from nets_jax.engine.seeds import key_of_seed
from nets_jax.errors import UsageError
from nets_jax.kinds import describe
from nets_jax.protocol import Search
from nets_jax.training.measures import OF_CLASSES, Measures
from nets_jax.training.task import BARE_TASK, Task
from nets_jax.training.training import Training

TUNING_TRIALS = 1_000_000  # and on: those that tune; tables have trials below it

Value = object  # of a setting: a number, a word, a schedule
_FINGERPRINTS: dict[int, tuple[weakref.ref, str]] = {}


@dataclasses.dataclass(frozen=True, eq=False)
class Method:
  """A search with its settings, for a task: what is compared, or a setting of a sweep.

  Attributes:
    columns: what tells it apart in tables, by column: its name, or the settings that were varied.
    search: how it finds tickets.
    task: what for; a method may have a training and an initialiser of its own.
    record: what `config.json` of its runs is to say of it; by default the settings of search and task.
    tuning: what a table is to say of how its settings were chosen, by column; see `tuning.Tuning.methods`.
  """

  columns: Mapping[str, Value]
  search: Search
  task: Task
  record: Mapping[str, Value] = dataclasses.field(default_factory=dict)
  tuning: Mapping[str, Value] = dataclasses.field(default_factory=dict)

  def __repr__(self) -> str:
    """Short, for its task holds whole data sets."""
    return f"Method({dict(self.columns)}, {type(self.search).__name__})"

  @functools.cached_property
  def hash(self) -> str:
    """Names all that its results depend on but the seed: what differs from defaults, and their version."""
    return digest({"search": self.search.identity(), "task": task_identity(self.task)})

  @functools.cached_property
  def program(self) -> Hashable:
    """Equal of methods whose runs can go side by side in one program."""
    bare = settings.values(self.task.bare)
    training = settings.values(self.task.training)
    is_traced = {name: isinstance(value, int | float) for name, value in training.items()}
    shaping = {
      name: str(value)
      for name, value in bare.items()
      if name not in self.search.varies or not is_traced.get(name, True)
    }
    network = settings.describe(self.task.network)
    return (
      self.search.program(), id(self.task.data), network, self.task.loss, self.task.score,
      tuple(shaping.items()),
    )  # fmt: skip

  @functools.cached_property
  def settings(self) -> dict[str, Value]:
    """What `config.json` says of it."""
    if self.record:
      return dict(self.record)
    found = {"search": type(self.search).__name__, "dataset": data_fingerprint(self.task.data)}
    return {**found, **task_identity(self.task), **self.search.identity()}


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
  """One search of a method, the final training of its ticket, and the directory of its files.

  Attributes:
    method: what is run.
    seed: all its randomness, with `trial`.
    trial: of a comparison, whose methods train by the same keys; None is a run of `experiments.search`.
    path: its directory.
  """

  method: Method
  seed: int
  trial: int | None
  path: pathlib.Path

  @property
  def name(self) -> str:
    """Its directory's."""
    return self.path.name

  @property
  def columns(self) -> dict[str, Value]:
    """What tells it apart in tables."""
    return {**self.method.columns, "seed": self.seed} if self.trial is None else (
      {**self.method.columns, "trial": self.trial}
    )  # fmt: skip

  def keys(self) -> tuple[jax.Array, jax.Array]:
    """The keys of its search and of its final training."""
    if self.trial is None:
      search_key, _, training_key = run_keys(self.seed)
      return search_key, training_key
    return trial_keys(self.seed, self.trial)


def trial_keys(seed: int, trial: int) -> tuple[jax.Array, jax.Array]:
  """The keys of a trial of a comparison: of its search and of its final training."""
  found = jax.random.split(jax.random.fold_in(key_of_seed(seed), trial))
  return found[0], found[1]


def run_keys(seed: int) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The keys of a run of `experiments.search`: of its search, its controls and its final training."""
  search_key, comparison_key = jax.random.split(key_of_seed(seed))
  control_key, training_key = jax.random.split(comparison_key)
  return search_key, control_key, training_key


def seed_runs(methods: Sequence[Method], seeds: Sequence[int], directory: pathlib.Path) -> list[Run]:
  """A run of each method for each seed; methods that are one by their hash are run once."""
  once = list({method.hash: method for method in reversed(methods)}.values())[::-1]
  return [
    Run(method, seed, None, directory / "runs" / f"{method.hash}-seed{seed}")
    for method in once
    for seed in seeds
  ]


def trial_runs(
  methods: Sequence[Method], trials: Sequence[int], seed: int, directory: pathlib.Path
) -> list[Run]:
  """A run of each method for each trial; trial t of every method has the same keys."""
  return [
    Run(method, seed, trial, directory / "runs" / f"{_file_name(method)}-{method.hash}-{seed}-{trial}")
    for method in methods
    for trial in trials
  ]


def table_trials(trials: int, first_trial: int) -> range:
  """The trials of a table.

  Raises:
    UsageError: there is none, or one of those by which tuning chooses, which no table may have.
  """
  check_counts(trials=(trials, 1), first_trial=(first_trial, 0))
  numbers = range(first_trial, first_trial + trials)
  if numbers.stop > TUNING_TRIALS:
    raise UsageError(
      f"trials from {TUNING_TRIALS:,} on are tuning's; first_trial + trials must be at most that, not "
      f"{numbers.stop:,}"
    )
  return numbers


def _file_name(method: Method) -> str:
  label = str(next(iter(method.columns.values())))
  return "".join(c if c.isalnum() else "_" for c in label)[:60]


def task_identity(task: Task) -> dict[str, Value]:
  """All of a task that a result depends on: its data by their content, and what differs from the defaults."""
  training = task.training.record()
  default = Training().record()
  found = settings.differences(task.bare, BARE_TASK)
  found |= {name: value for name, value in training.items() if value != default.get(name)}
  return {**found, "task": task.record(), "data": data_fingerprint(task.data)}


def data_fingerprint(data: Dataset) -> str:
  """A checksum of a data set, computed once while it lives."""
  known = _FINGERPRINTS.get(id(data))
  if known is None or known[0]() is not data:
    known = weakref.ref(data), fingerprint(data)
    _FINGERPRINTS[id(data)] = known
  return known[1]


def digest(value: object) -> str:
  """Eight digits that name a record."""
  return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:8]


def check(methods: Sequence[Method], keep_trained: bool = False) -> None:
  """Raises UsageError for a method whose settings make no search for its task, or no network to be kept."""
  for method in methods:
    check_kept(keep_trained, method.task.epochs)
    method.search.check(method.task)
  check_scores(methods)


def check_kept(keep_trained: bool, epochs: int) -> None:
  """Raises UsageError where a trained network is to be kept, but none is trained."""
  if keep_trained and not epochs:
    raise UsageError("keep_trained keeps what the final training makes, but train_epochs is 0; leave one out")


def check_scores(methods: Sequence[Method]) -> None:
  """Raises UsageError for methods of several scores or scales of targets: no table could compare them."""
  found = {(method.task.measures[1:], str(describe(method.task.score))): None for method in methods}
  if len(found) > 1:
    scores = [score for (score, _), _ in found]
    if len(set(scores)) < len(scores):  # then their arguments or directions tell them apart
      scores = [f"{score} (more_is_better={better})" for (_, better), score in found]
    raise UsageError(
      f"the runs of a study have one score, not {' and '.join(scores)}; give all of them the same"
    )
  scales = {_is_standardised(method.task.data) for method in methods}
  if {True, False} <= scales:
    raise UsageError(
      "the targets of some runs are standardised, and of others not, so their losses and scores are in "
      "different units; give all of them the same standardise_targets"
    )


def _is_standardised(data: Dataset) -> bool | None:
  """Whether numbers to predict are in deviations of the training part; None of other targets."""
  if data.target_mean is None or data.target_deviation is None:
    return None
  return bool(np.any(np.asarray(data.target_mean) != 0) or np.any(np.asarray(data.target_deviation) != 1))


def check_losses(methods: Sequence[Method], what: str, how: str) -> None:
  """Raises UsageError for methods of several losses, by their names and arguments.

  Args:
    methods: that are compared by a loss, or by the fitness that is made of it.
    what: compares them, for the message.
    how: to do without.
  """
  found = dict.fromkeys(str(describe(method.task.loss)) for method in methods)
  if len(found) > 1:
    raise UsageError(f"{what} cannot compare settings of several losses ({', '.join(found)}); {how}")


def measures_of(runs: Sequence[Run]) -> Measures:
  """The loss and score of a study's runs; where their losses differ, none of them by name."""
  found = list(dict.fromkeys(run.method.task.measures for run in runs)) or [OF_CLASSES]
  return found[0] if len(found) == 1 else found[0]._replace(loss="several losses")


def check_counts(**counts: tuple[int, int]) -> None:
  """Raises UsageError for a count below what it must be: `trials=(value, least)`."""
  for name, (value, least) in counts.items():
    if value < least:
      raise UsageError(f"{name} must be at least {least}, not {value}")
