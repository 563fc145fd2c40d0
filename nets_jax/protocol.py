"""What every ticket search is: settings in a frozen dataclass, and a `run`."""

from collections.abc import Callable, Hashable, Sequence
from typing import Literal, NamedTuple, Self, TypedDict, Unpack, overload

from jaxtyping import Array, Key

from nets_jax import settings, structs
from nets_jax.changes import change
from nets_jax.engine import hosts
from nets_jax.engine.checkpoints import Checkpoints
from nets_jax.engine.layouts import Layout, make_layout
from nets_jax.engine.saved import LoopCheckpoints, Unsaved
from nets_jax.engine.seeds import KeysLike, as_keys
from nets_jax.errors import SearchFailed, UsageError, raise_first
from nets_jax.rows import Rows
from nets_jax.settings import names
from nets_jax.structs import Struct
from nets_jax.tickets.layer_counts import check_density
from nets_jax.tickets.results import SearchResult
from nets_jax.tickets.ticket import Ticket
from nets_jax.training.task import Task

# What comes of a run among others: its result, or why it has none.
Outcome = SearchResult | SearchFailed


# What a search that trains nothing does not look at; the final trainings go side by side in one program.
INSTANT_VARIES = ("learning_rate", "momentum", "weight_decay", "clip_norm")


class How(NamedTuple):
  """On what a search runs, and whom it tells; see `Search.run_all`.

  Nothing of it changes a result, but for `max_seconds` and `prune`, which end a search before its time.
  """

  layout: Layout | None = None
  devices: int | None = None
  chunk: int | None = None
  on_rows: Callable[[Rows], object] = lambda rows: None
  on_tickets: Callable[[int, Ticket], object] = lambda number, tickets: None
  frontier_size: int = 0
  max_seconds: float | None = None
  prune: Callable[[int, Rows], bool] | None = None
  checkpoints: LoopCheckpoints = Unsaved()

  def is_over(self, seconds: float) -> bool:
    """Whether a search has had its time, in any of the processes."""
    return self.max_seconds is not None and hosts.any_of(seconds >= self.max_seconds)[0]

  def layout_of(self, size: int) -> Layout:
    """Where so many networks side by side are."""
    return self.layout or make_layout(size, devices=self.devices, chunk=self.chunk)


class RunOptions(TypedDict, total=False):
  """What a run takes by name besides `keep_failures`; see `Search.run_all`."""

  layout: Layout | None
  devices: int | None
  chunk: int | None
  on_rows: Callable[[Rows], object] | None
  on_tickets: Callable[[int, Ticket], object] | None
  frontier_size: int
  max_seconds: float | None
  prune: Callable[[int, Rows], bool] | None
  checkpoints: Checkpoints | None


class Search(Struct):
  """Base of all ticket searches; a subclass is a `nets_jax.dataclass` whose fields are settings.

  To add one, write a class with `find` in a module of `baselines`, and name it in the module's table
  `SEARCHES`; or anywhere, and give it to `nets_jax.search`. All else here has a default:

      @nets_jax.dataclass
      class Halves(nets_jax.Search):
        share: float = settings.setting(0.5, "Share kept.", group="other searches", kind=settings.NUMBER)

        def find(self, keys, task, how):
          shape, nothing = task.data.input_shape, nets_jax.Cost(0.0, 0.0, 0.0)
          made = [
            nets_jax.random_ticket(key, task.network, shape, self.share, layers=task.layers) for key in keys
          ]
          return [nets_jax.SearchResult(ticket, [], nothing) for ticket in made]

  Attributes:
    passes_densities: whether a search for a low density has, on its way, the tickets of all higher ones that
      the same search would find; see `on_tickets`. Its field `cycles` counts its steps.
    is_instant: whether it is done at once, without generations or cycles after which it could be ended.
    varies: the settings of a task in which runs side by side may differ; those of `find` differ in numbers of
      the training that it does not look at, `INSTANT_VARIES`.
  """

  passes_densities = False
  is_instant = False
  varies: tuple[str, ...] = ()

  def find(self, keys: Key[Array, " runs"], task: Task, how: How) -> Sequence[Outcome]:
    """One ticket for each key, or why there is none; each run as it would be alone.

    Settings and task have been checked.
    """
    raise NotImplementedError

  @classmethod
  def find_all(
    cls, keys: Key[Array, " runs"], tasks: Sequence[Task], searches: Sequence[Self], how: How
  ) -> Sequence[Outcome]:
    """As `find`, each run with a task and settings of its own; here they must all be alike."""
    alike = all(_alike(task, tasks[0], cls.varies) for task in tasks)
    if not alike or any(search != searches[0] for search in searches):
      raise UsageError(f"runs of {cls.__name__} side by side must have the same settings")
    return searches[0].find(keys, tasks[0], how)

  @overload
  def run(
    self, keys: KeysLike, task: Task, *, keep_failures: Literal[False] = False, **how: Unpack[RunOptions]
  ) -> list[SearchResult]: ...

  @overload
  def run(
    self, keys: KeysLike, task: Task, *, keep_failures: bool, **how: Unpack[RunOptions]
  ) -> list[Outcome]: ...

  def run(
    self, keys: KeysLike, task: Task, *, keep_failures: bool = False, **how: Unpack[RunOptions]
  ) -> Sequence[Outcome]:
    """One ticket for each key, the runs side by side: `run_all` with the same task and settings for all."""
    keys = as_keys(keys)
    return self.run_all(keys, [task] * len(keys), [self] * len(keys), keep_failures=keep_failures, **how)

  @classmethod
  def run_all(
    cls,
    keys: Key[Array, " runs"],
    tasks: Sequence[Task],
    searches: Sequence[Self],
    *,
    layout: Layout | None = None,
    devices: int | None = None,
    chunk: int | None = None,
    on_rows: Callable[[Rows], object] | None = None,
    on_tickets: Callable[[int, Ticket], object] | None = None,
    keep_failures: bool = False,
    frontier_size: int = 0,
    max_seconds: float | None = None,
    prune: Callable[[int, Rows], bool] | None = None,
    checkpoints: Checkpoints | None = None,
  ) -> list[Outcome]:
    """One ticket for each key, the runs side by side, each as it would be alone.

    Args:
      keys: one per run [runs].
      tasks: of each run: what its ticket is for. The test part is not looked at.
      searches: the settings of each run.
      layout: of the networks side by side; None is `parallel.make_layout` with `devices` and `chunk`.
      devices, chunk: see there.
      on_rows: called with rows of the histories, as they come about.
      on_tickets: of a search that prunes in steps called before each with its number and the tickets
        [runs], and once more at the end.
      keep_failures: a run that finds no ticket worth the name is its error in place of a result, and the
        others go on.
      frontier_size: how many tickets met, of those that no other dominates in density and validation loss,
        are kept for the result's `frontier`, by a search that meets several. Few, for each is a network in
        the host's memory and in every checkpoint. 0 keeps none.
      max_seconds: ends a search of generations or cycles after the one in which its time is over, compilation
        left out, with what it has. What is found then depends on the machine's speed.
      prune: asked after each generation of a run, with its number and rows; true ends the run as failed. Of
        searches that have generations alone.
      checkpoints: where a search of minutes is saved as it goes, and goes on if it was stopped. The journal
        has the histories' rows, with `run` before the other columns if there are several. None saves nothing.

    Raises:
      UsageError: a setting that makes no search, a network that does not go with the data, runs that cannot
        go side by side, or a checkpoint that cannot be written or is of another run.
      SearchFailed: a run found no ticket, unless `keep_failures`.
    """
    if not len(tasks) == len(searches) == len(keys):
      raise UsageError(
        f"{len(keys)} keys ask for as many tasks and searches, not {len(tasks)} and {len(searches)}"
      )
    if frontier_size < 0:
      raise UsageError(f"frontier_size must be at least 0, not {frontier_size}")
    pairs = zip(searches, tasks, strict=True)
    for search, task in {(id(search), id(task)): (search, task) for search, task in pairs}.values():
      search.check(task)
    if max_seconds is not None:
      check_max_seconds(max_seconds, searches[0])
    how = How(layout, devices, chunk, frontier_size=frontier_size, max_seconds=max_seconds, prune=prune)
    how = how._replace(
      on_rows=how.on_rows if on_rows is None else on_rows,
      on_tickets=how.on_tickets if on_tickets is None else on_tickets,
      checkpoints=how.checkpoints if checkpoints is None else checkpoints,
    )
    outcomes = list(cls.find_all(keys, tasks, searches, how))
    if len(outcomes) != len(keys) or not all(isinstance(outcome, Outcome) for outcome in outcomes):
      raise UsageError(f"{cls.__name__}.find must give a SearchResult, or a SearchFailed, for each key")
    if not keep_failures:
      raise_first(outcomes)
    return outcomes

  def check(self, task: Task) -> None:
    """Raises UsageError for settings that make no search, one line each."""
    if advice := structs.advice(self, needs_fields=True):
      raise UsageError(advice)
    settings.check(self)
    task.check()
    target = settings.values(self).get("target_density")
    if isinstance(target, int | float):
      check_density(task.layers, target)
    task.at_precision(getattr(self, "precision", "float32"))

  def change(self, **changes: object) -> Self:
    """The same search with other settings, by their names on the command line.

    Raises:
      UsageError: it has no such setting.
    """
    return change(self, changes)

  def at_density(self, density: float, task: Task) -> Self:
    """The same search for tickets of exactly that density, or the nearest that it can find."""
    del task
    return self.change(**({"target_density": density} if "target_density" in names(self) else {}))

  def densities(self, asked: Sequence[float]) -> Sequence[float]:
    """At which of some densities a study runs it."""
    return asked

  def reports(self, task: Task, runs: int = 1) -> int:
    """How many times `on_rows` is called, for a progress bar."""
    del task
    return runs

  def genome_epochs(self, task: Task) -> float:
    """Genome-epochs of training that a run takes."""
    del task
    return 0.0

  def identity(self) -> dict[str, object]:
    """All that its results depend on: its class, what differs from the class's defaults, their version.

    The defaults of a user's own class have no version here, so of it every setting is told.
    """
    kind = type(self)
    if not kind.__module__.startswith("nets_jax."):
      return {"search": f"{kind.__module__}.{kind.__qualname__}", **settings.record(self)}
    defaults = settings.DEFAULTS_VERSION
    return {"search": kind.__name__, "defaults": defaults, **settings.differences(self, kind())}

  def program(self) -> Hashable:
    """Equal of searches whose runs may go side by side in one program."""
    return self

  @property
  def genomes(self) -> int:
    """How many networks a run trains side by side."""
    return 1


def check_max_seconds(max_seconds: float, search: Search) -> None:
  """Raises UsageError for an impossible time, or one that a search has no way to heed."""
  if not max_seconds > 0:
    raise UsageError(f"max_seconds must be positive, not {max_seconds}")
  if search.is_instant:
    raise UsageError(
      f"{type(search).__name__} has no generations or cycles that max_seconds could end; leave it out"
    )


def _alike(task: Task, other: Task, varies: Sequence[str]) -> bool:
  """Whether two tasks are one: the same data, and all else equal but for some numbers of the training."""

  def rest(task):
    return task.replace(data=None, training=task.training.replace(**dict.fromkeys(varies)))

  return task.data is other.data and rest(task) == rest(other)
