"""The files of a run's frontier: its tickets, a table of them, and a figure."""

import pathlib
import shutil
from collections.abc import Sequence

from nets_jax.analysis.frontier_figures import frontier_figure
from nets_jax.analysis.style import save_figure
from nets_jax.engine.tables import read_csv, write_csv
from nets_jax.networks.adapter import Network
from nets_jax.studies.run_files import name_layers
from nets_jax.tickets.provenance import Provenance
from nets_jax.tickets.results import KeptTicket
from nets_jax.tickets.storage import save_ticket
from nets_jax.tickets.ticket import empty_layers
from nets_jax.training.measures import Measures

DIRECTORY = "frontier"


def write(
  directory: pathlib.Path,
  frontier: Sequence[KeptTicket],
  network: Network,
  measures: Measures,
  provenance: Provenance | None = None,
) -> None:
  """Writes ticket-00.safetensors, the sparsest, and the others, frontier.csv and figure_frontier.png.

  Args:
    directory: of the run, with its `history.csv`.
    frontier: the tickets, the sparsest first; nothing is written if there are none.
    network: theirs.
    measures: which loss and score the tickets have.
    provenance: of all of them.
  """
  shutil.rmtree(directory / DIRECTORY, ignore_errors=True)
  if not frontier:
    return
  rows = []
  for i, each in enumerate(frontier):
    file = f"ticket-{i:02}.safetensors"
    save_ticket(directory / DIRECTORY / file, each.ticket, network, provenance=provenance)
    own = {name: value for name, value in each.row.items() if name not in ("parent_1", "parent_2")}
    empty = name_layers(empty_layers(each.ticket))
    rows.append({"file": file, **own, "empty_layers": empty})
  write_csv(directory / DIRECTORY / "frontier.csv", rows)
  figure = frontier_figure(read_csv(directory / "history.csv"), rows, measures)
  save_figure(figure, directory / "figure_frontier.png")
