"""Does a method's mask carry information? Its tickets against themselves, shuffled and drawn anew.

Three checks of Su et al. (2020) and Frankle et al. (2021): the mask shuffled within each layer; the weights
drawn anew at the layers' scales; both. Each is trained as the ticket was, by the same keys. Where the ticket
is not better than a check, its accuracy is owed to the counts of its layers, or to their scales.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

import pandas as pd

from nets_jax.baselines.one_shot import Snip
from nets_jax.errors import UsageError
from nets_jax.studies import tables
from nets_jax.studies.methods import Method, Run, check, measures_of, trial_runs
from nets_jax.studies.places import place
from nets_jax.studies.run_files import TICKET, is_done, metrics
from nets_jax.studies.ticket_controls import Control
from nets_jax.studies.work import Options, complete
from nets_jax.tickets.storage import load_ticket
from nets_jax.training.measures import Measures

# What a check changes, and its name in `ticket_controls.CONTROLS`.
CHECKS = {"mask shuffled": "shuffle_mask", "weights drawn anew": "reinitialise", "both": "random_layers"}


def sanity_runs(runs: Sequence[Run], where: pathlib.Path) -> list[Run]:
  """A run for each check of each ticket, with its method, density and trial; directories name the check.

  Args:
    runs: of a study over densities; those with a dense ticket, or none, have no check.
    where: directory of the files.
  """
  found: list[Run] = []
  for run in runs:
    if not is_done(run) or not (run.path / TICKET).exists() or run.columns.get("target_density") == 1:
      continue
    ticket = load_ticket(run.path / TICKET)
    columns = {name: value for name, value in run.columns.items() if name != "trial"}
    checks = [
      Method({"check": words, **columns}, Control(ticket, Snip(), name), run.method.task)
      for words, name in CHECKS.items()
    ]
    check(checks)
    found += trial_runs(checks, [run.trial or 0], run.seed, where)
  return found


def sanity(
  runs: Sequence[Run], *, directory: str | pathlib.Path | None = None, options: Options | None = None
) -> "Sanity":
  """Trains the checks of a study's tickets; what is done is not run again.

  Args:
    runs: those of `Densities.runs` that are to be looked at.
    directory: of the files; None is a temporary one that lives as long as the result.
    options: how; see `work.Options`.

  Raises:
    UsageError: there is no sparse ticket among them.
  """
  where, keeper = place(directory)
  checks = sanity_runs(runs, where)
  if not checks:
    raise UsageError("there is no sparse ticket whose sanity could be checked")
  return Sanity(list(runs), complete(checks, where, options or Options()), keeper, len(checks))


@dataclasses.dataclass(frozen=True)
class Sanity:
  """What came of the checks.

  Attributes:
    runs: of the study.
    checks: those that are done.
    keeper: keeps a temporary directory of theirs.
    asked: how many there would be.
  """

  runs: Sequence[Run]
  checks: Sequence[Run]
  keeper: object = None
  asked: int = 0

  @property
  def measures(self) -> Measures:
    """Which loss and score the runs have."""
    return measures_of(self.runs)

  @property
  def results(self) -> pd.DataFrame:
    """A row for each ticket, and for each check of it."""
    of_tickets = tables.results_of([run for run in self.runs if is_done(run)]).assign(check="ticket")
    found = pd.concat([of_tickets, tables.results_of(self.checks)], ignore_index=True)
    found = found[found["target_density"] < 1]
    return found[["method", "target_density", "check", "trial", *metrics(self.measures), "failed", "run"]]

  def table(self) -> str:
    """In Markdown: each method's score, and what a check takes from it, paired by ticket."""
    return sanity_table(self.results, self.measures) + tables.how_many(self.checks, self.asked)

  def write(self, directory: pathlib.Path) -> str:
    """Writes sanity.csv and sanity.md, with what is there of other tickets; returns the latter."""
    rows, path = self.results, directory / "sanity.csv"
    if path.exists():
      places = ["method", "target_density", "trial"]
      before, here = tables.read_table(path), pd.MultiIndex.from_frame(rows[places])
      before = before[~pd.MultiIndex.from_frame(before[places]).isin(here)]
      rows = pd.concat([before, rows], ignore_index=True)
    tables.write_table(path, rows)
    text = sanity_table(rows, self.measures) + tables.how_many(self.checks, self.asked)
    tables.write_text(directory / "sanity.md", text)
    return text


def sanity_table(results: pd.DataFrame, measures: Measures) -> str:
  """A line for each method and density, of the rows of `Sanity.results`."""
  column, form = measures.column("test"), "signed points" if measures.is_share else "signed"
  rows = []
  for (name, density), own in tables.trained(results).groupby(["method", "target_density"], sort=False):
    by_check = {words: some.set_index("trial")[column] for words, some in own.groupby("check")}
    whole = by_check.get("ticket", pd.Series(dtype=float))
    row = {"method": name, "density": f"{100 * float(density):g} %", "tickets": len(whole)}
    row |= {f"test {measures.words}": tables.spread(list(whole), measures.form)}
    for words in CHECKS:
      row[words] = tables.spread(list((by_check.get(words, whole[:0]) - whole).dropna()), form)
    rows.append(row)
  unit = "points" if measures.is_share else measures.words
  title = (
    f"The tickets, and how far each check differs from them in {unit}, paired: mean and 95 % interval; "
    "near 0 the mask, or the weights but for their layers' scales, say nothing"
  )
  return f"{title}\n\n{tables.markdown(pd.DataFrame(rows))}"
