"""All figures in one place: `from nets_jax.analysis import figures`. Nothing here needs JAX."""

from nets_jax.analysis.density_figures import cost_figure, densities_figure, differences_figure
from nets_jax.analysis.explaining_figures import genome_figure, strip_figure
from nets_jax.analysis.frontier_figures import frontier_figure
from nets_jax.analysis.history_figures import axis_of, evolution_figure, leaders, lineage_figure
from nets_jax.analysis.study_figures import effects_figure, seconds_figure, training_figure, trials_figure
from nets_jax.analysis.style import save_figure
from nets_jax.analysis.ticket_figures import connectivity_figure, masks_figure, weights_figure

__all__ = [
  "axis_of",
  "connectivity_figure",
  "cost_figure",
  "densities_figure",
  "differences_figure",
  "effects_figure",
  "evolution_figure",
  "frontier_figure",
  "genome_figure",
  "leaders",
  "lineage_figure",
  "masks_figure",
  "save_figure",
  "seconds_figure",
  "strip_figure",
  "training_figure",
  "trials_figure",
  "weights_figure",
]
