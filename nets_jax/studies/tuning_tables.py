"""What a tuning found, in a table: choices, how much hung on them, and what they cost."""

import math

import pandas as pd

from nets_jax.engine.tables import Row
from nets_jax.studies import tables
from nets_jax.studies.frontier_tables import LOST_OF_GRID, TUNED_SETTINGS, TUNING_EPOCHS, WORST_OF_GRID
from nets_jax.training.measures import Measures


def tuning_table(results: pd.DataFrame, measures: Measures) -> str:
  """A line for each method, of the rows of `Tuning.results`."""
  column, form, rows = measures.column("valid"), measures.form, []
  for name, own in results.groupby("method", sort=False):
    chosen, found = own[own["chosen"] == 1], summary_row(own, measures)
    last = chosen[chosen["round"] == chosen["round"].max()]
    rows.append(
      {"method": name, "chosen": found[TUNED_SETTINGS]}
      | {f"valid {measures.words}": tables.spread(list(tables.trained(last)[column]), form)}
      | {"worst of the grid": tables.spread([found[WORST_OF_GRID]], form)}
      | {"settings": int((own["round"] == 1).sum()), "failed": int((~came_through(own)).sum())}
      | {
        "genome-epochs of tuning": f"{found[TUNING_EPOCHS]:,.0f}",
        "seconds of its searches": f"{own['search_seconds'].sum():,.0f}",
      }
    )
  return tables.markdown(pd.DataFrame(rows)) if rows else ""


def summary_row(own: pd.DataFrame, measures: Measures) -> Row:
  """Of one method's rows of `Tuning.results`: what was chosen, the worst of the grid, the genome-epochs."""
  chosen, column = own[own["chosen"] == 1], measures.column("valid")
  first = own[own["round"] == 1]
  screened = list(first[came_through(first)][column])
  return {
    TUNED_SETTINGS: _settings(chosen) if len(chosen) else "none came through",
    WORST_OF_GRID: measures.worst(screened) if screened else math.nan,
    LOST_OF_GRID: f"{len(first) - len(screened)} of {len(first)}",
    TUNING_EPOCHS: float(own["search_epochs"].sum() + own["training_epochs"].sum()),
  }


def _settings(chosen: pd.DataFrame) -> str:
  """What was chosen; tables of before have it in columns alone, between the density and the trial."""
  text, names = chosen.get(TUNED_SETTINGS, pd.Series(dtype=str)).dropna(), list(chosen.columns)
  if len(text):
    return str(text.iloc[0])
  tried = chosen[names[names.index("target_density") + 1 : names.index("trial")]].iloc[0].dropna()
  return ", ".join(f"{name}={value}" for name, value in tried.items())


def came_through(rows: pd.DataFrame) -> pd.Series:
  """Which runs neither failed nor diverged."""
  return (rows["failed"] == "") & rows["valid_loss"].map(math.isfinite).astype(bool)
