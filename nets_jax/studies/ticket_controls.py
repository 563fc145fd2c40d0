"""What is a ticket's worth owed to: its mask, its weights, or the scales of its layers?"""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Self

import jax
import pandas as pd
from jaxtyping import Array, Key

from nets_jax import structs
from nets_jax.analysis.verdicts import judge, summarise
from nets_jax.baselines.one_shot import Snip
from nets_jax.baselines.random_tickets import random_ticket_for
from nets_jax.engine.saved import fingerprint
from nets_jax.errors import SearchFailed, UsageError
from nets_jax.networks.initialisation import Normal
from nets_jax.protocol import How, Outcome, Search
from nets_jax.searches import search as find_ticket
from nets_jax.studies import tables
from nets_jax.studies.comparison import failed
from nets_jax.studies.methods import Method, Run, check, check_counts, measures_of, trial_runs
from nets_jax.studies.places import place
from nets_jax.studies.run_files import is_done, metrics, tally_layers
from nets_jax.studies.work import Options, complete
from nets_jax.tickets.controls import reinitialise, shuffle_mask, unmask
from nets_jax.tickets.results import Cost, SearchResult
from nets_jax.tickets.ticket import Ticket, check_fits, density, layer_scales
from nets_jax.training.measures import Measures
from nets_jax.training.task import Task

# Made of a key, the ticket, the task, and SNIP with its settings.
Make = Callable[[jax.Array, Ticket, Task, Search], Ticket]


def _scales(ticket: Ticket) -> tuple[float, ...]:
  """Of its layers, in the order in which the network applies them, as `Normal` takes them."""
  return tuple(float(scale) for scale in layer_scales(ticket).values())


def _reinitialised(key: jax.Array, ticket: Ticket, task: Task, snip: Search) -> Ticket:
  return reinitialise(key, ticket, task.network, task.data.input_shape, _scales(ticket))


def _reinitialised_plain(key: jax.Array, ticket: Ticket, task: Task, snip: Search) -> Ticket:
  return reinitialise(key, ticket, task.network, task.data.input_shape, task.initialiser)


def _random_layers(key: jax.Array, ticket: Ticket, task: Task, snip: Search) -> Ticket:
  return shuffle_mask(key, _reinitialised(jax.random.fold_in(key, 1), ticket, task, snip))


def _snip_scaled(key: jax.Array, ticket: Ticket, task: Task, snip: Search) -> Ticket:
  search = snip.change(target_density=float(density(ticket)))
  return find_ticket(key, task.replace(initialiser=Normal(_scales(ticket))), search).ticket


CONTROLS: dict[str, Make] = {
  "ticket": lambda key, ticket, task, snip: ticket,
  "unmasked": lambda key, ticket, task, snip: unmask(ticket),
  "shuffle_mask": lambda key, ticket, task, snip: shuffle_mask(key, ticket),
  "reinitialise": _reinitialised,
  "reinitialise_plain": _reinitialised_plain,
  "random_layers": _random_layers,
  "random_scaled": lambda key, ticket, task, snip: random_ticket_for(
    key, task, float(density(ticket)), _scales(ticket)
  ),
  "snip_scaled": _snip_scaled,
  "dense_scaled": lambda key, ticket, task, snip: random_ticket_for(key, task, 1.0, _scales(ticket)),
  "dense": lambda key, ticket, task, snip: random_ticket_for(key, task, 1.0),
}


@structs.dataclass
class Control(Search):
  """A control of a ticket, as a search that finds it.

  Attributes:
    ticket: what it is a control of.
    snip: SNIP with its settings, of which one of the controls is made.
    control: its name in `CONTROLS`.
  """

  ticket: Ticket
  snip: Search
  control: str = structs.field(pytree_node=False)

  def check(self, task: Task) -> None:
    """Raises UsageError unless the ticket is of the task's network."""
    task.check()
    check_fits(self.ticket, task.network, task.data.input_shape)
    if self.control == "snip_scaled":
      self.snip.change(target_density=float(density(self.ticket))).check(task)

  def identity(self) -> dict[str, object]:
    """The control's name, and the ticket by its content."""
    of_snip = self.snip.identity() if self.control == "snip_scaled" else {}
    return {**of_snip, "search": self.control, "ticket": fingerprint(self.ticket)}

  def program(self) -> str:
    """One control of all tickets."""
    return self.control

  @classmethod
  def find_all(
    cls, keys: Key[Array, " runs"], tasks: Sequence[Task], searches: Sequence[Self], how: How
  ) -> list[Outcome]:
    """The control of each ticket, or why there is none."""
    outcomes: list[Outcome] = []
    for key, task, search in zip(keys, tasks, searches, strict=True):
      try:
        ticket = CONTROLS[search.control](key, search.ticket, task, search.snip)
      except SearchFailed as error:
        outcomes.append(error)
      else:
        outcomes.append(SearchResult(jax.device_get(ticket), [], Cost(0.0, 0.0, 0.0)))
    how.on_rows([{"density": float(density(search.ticket))} for search in searches[:1]])
    return outcomes


def controls(
  tickets: Sequence[Ticket],
  task: Task,
  *,
  names: Sequence[str] = tuple(CONTROLS),
  snip: Search | None = None,
  seed: int = 0,
  directory: str | pathlib.Path | None = None,
  options: Options | None = None,
) -> "Controls":
  """Trains each ticket and its controls alike; what is done is not run again, and stays in the table.

  Args:
    tickets: of one network.
    task: what they are for.
    names: of the controls; see `CONTROLS`.
    snip: SNIP with its settings; None is as it is.
    seed: of all randomness.
    directory: of the runs' files; None is a temporary one that lives as long as the result.
    options: how; see `work.Options`.

  Raises:
    UsageError: no such control, or a ticket of another network.
  """
  where, keeper = place(directory)
  runs = control_runs(tickets, task, names, snip or Snip(), seed, where)
  everything = control_runs(tickets, task, tuple(CONTROLS), snip or Snip(), seed, where, checks=False)

  def there() -> Controls:
    missing = sum(not is_done(run) for run in runs)
    done = [run for run in everything if is_done(run)]
    return Controls(done, keeper, len(done) + missing)

  def write() -> None:
    there().write(where)

  complete(runs, where, options or Options(), on_batch=write if directory is not None else lambda: None)
  return there()


def control_runs(
  tickets: Sequence[Ticket],
  task: Task,
  names: Sequence[str],
  snip: Search,
  seed: int,
  where: pathlib.Path,
  checks: bool = True,
) -> list[Run]:
  """A run for each control and ticket, checked if asked; ticket i has the keys of trial i."""
  check_counts(tickets=(len(tickets), 1), train_epochs=(task.epochs, 1))
  if unknown := [name for name in names if name not in CONTROLS]:
    raise UsageError(f"controls may be {', '.join(CONTROLS)}, not {unknown[0]!r}")
  runs = []
  for name in CONTROLS:
    for i, ticket in enumerate(tickets) if name in names else ():
      method = Method({"control": name}, Control(ticket, snip, name), task)
      if checks:
        check([method])
      runs += trial_runs([method], [i], seed, where)
  return runs


@dataclasses.dataclass(frozen=True)
class Controls:
  """What came of a study of controls.

  Attributes:
    runs: those that are done.
    keeper: keeps a temporary directory of theirs.
    asked: how many there would be.
  """

  runs: Sequence[Run]
  keeper: object = None
  asked: int = 0

  @property
  def results(self) -> pd.DataFrame:
    """A row for each control and ticket."""
    found = tables.results_of(self.runs).rename(columns={"trial": "ticket"})
    return found[["control", "ticket", *metrics(self.measures), "empty_layers", "failed"]]

  @property
  def measures(self) -> Measures:
    """Which loss and score the runs have."""
    return measures_of(self.runs)

  def table(self) -> str:
    """Mean and 95 % interval of each control over the tickets, in Markdown."""
    rows, measures = [], self.measures
    factor, digits, unit = tables.FORMS[measures.form]
    for name, own in self.results.groupby("control", sort=False):
      sound = tables.trained(own)
      scores = list(sound[measures.column("test")])
      each = ", ".join(f"{factor * score:{digits}}" for score in scores) + unit
      rows.append(
        {
          "control": name,
          "density": tables.spread(list(sound["density"]), "percent"),
          "test loss": tables.spread(list(sound["test_loss"]), "number"),
          f"test {measures.words}": tables.spread(scores, measures.form),
          "of each ticket": each if len(sound) else "-",
          "empty layers": tally_layers([str(layers) for layers in sound["empty_layers"]]),
          "failed": failed(own),
        }
      )
    return "Mean and 95 % interval over the tickets.\n\n" + tables.markdown(pd.DataFrame(rows))

  def verdicts(self) -> str:
    """Definition 3 against both dense networks, where they and the tickets were trained."""
    by_place = {(run.columns["control"], run.trial): run for run in self.runs}
    counts = {(row["control"], row["trial"]): row for row in tables.rows_of(tables.results_of(self.runs))}
    text = ""
    for dense in ("unmasked", "dense"):
      judged = []
      for (name, trial), run in by_place.items():
        if name == "ticket" and (dense, trial) in by_place:
          own, other = (tables.rows_of(tables.curves_of([one])) for one in (run, by_place[dense, trial]))
          row = counts[name, trial]
          if own and other:
            judged.append(judge(own, other, int(row["unmasked"]), int(row["weights"]), self.measures))
      text += f"\nDefinition 3 against {dense}: {summarise(judged)}\n" if judged else ""
    return text

  def write(self, directory: pathlib.Path) -> str:
    """Writes controls.csv and controls.md; returns the latter."""
    tables.write_table(directory / "controls.csv", self.results)
    text = self.table() + self.verdicts() + tables.how_many(self.runs, self.asked)
    tables.write_text(directory / "controls.md", text)
    return text
