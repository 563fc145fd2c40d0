"""Comparisons, frontiers, sweeps and controls: from searches, tasks and seeds to tables.

    from nets_jax import studies

    found = studies.compare({"guided": nets_jax.recipes.guided(), "imp": nets_jax.Imp()}, task, trials=5)
    print(found.table())
    found.results  # a pandas table, a row for each method and trial

Each study takes a directory, in which nothing is run twice; see `work.Options` for workers that share it.
"""

from nets_jax.studies.adaptive import Adaptive
from nets_jax.studies.batches import Machine
from nets_jax.studies.comparison import Comparison, compare
from nets_jax.studies.frontiers import Densities, densities
from nets_jax.studies.methods import Method
from nets_jax.studies.sweeps import Sweep, sweep, vary
from nets_jax.studies.ticket_controls import Controls, controls
from nets_jax.studies.work import Options

__all__ = [
  "Adaptive",
  "Comparison",
  "Controls",
  "Densities",
  "Machine",
  "Method",
  "Options",
  "Sweep",
  "compare",
  "controls",
  "densities",
  "sweep",
  "vary",
]
