"""Comparisons, frontiers, sweeps, tuning and controls: from searches, tasks and seeds to tables.

    from nets_jax import studies

    found = studies.compare({"guided": nets_jax.recipes.guided(), "imp": nets_jax.Imp()}, task, trials=5)
    print(found.table())
    found.results  # a pandas table, a row for each method and trial

Each study takes a directory, in which nothing is run twice; see `work.Options` for workers that share it.
"""

import importlib
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from nets_jax.studies.adaptive import Adaptive
  from nets_jax.studies.batches import Machine
  from nets_jax.studies.comparison import Comparison, compare
  from nets_jax.studies.frontiers import Densities, densities
  from nets_jax.studies.methods import Method
  from nets_jax.studies.sanity_checks import Sanity, sanity
  from nets_jax.studies.sweeps import Sweep, sweep, vary
  from nets_jax.studies.ticket_controls import Controls, controls
  from nets_jax.studies.tuning import Tuning, candidates, tune
  from nets_jax.studies.work import Options

# Optuna loads bars that no study shows, and in a notebook these ask for widgets.
warnings.filterwarnings("ignore", "IProgress not found")

# Loaded when they are first used: pandas, Optuna and matplotlib take a second.
_HOMES = {
  "Adaptive": "adaptive",
  "Comparison": "comparison",
  "Controls": "ticket_controls",
  "Densities": "frontiers",
  "Machine": "batches",
  "Method": "methods",
  "Options": "work",
  "Sanity": "sanity_checks",
  "Sweep": "sweeps",
  "Tuning": "tuning",
  "candidates": "tuning",
  "compare": "comparison",
  "controls": "ticket_controls",
  "densities": "frontiers",
  "sanity": "sanity_checks",
  "sweep": "sweeps",
  "tune": "tuning",
  "vary": "sweeps",
}


def __getattr__(name: str) -> object:
  """A study, or a type of one, from the module that has it."""
  if name not in _HOMES:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


__all__ = [
  "Adaptive",
  "Comparison",
  "Controls",
  "Densities",
  "Machine",
  "Method",
  "Options",
  "Sanity",
  "Sweep",
  "Tuning",
  "candidates",
  "compare",
  "controls",
  "densities",
  "sanity",
  "sweep",
  "tune",
  "vary",
]
