import subprocess
import sys

import numpy as np

from nets_jax import plots, storage

HISTORY = [
  {"generation": g, "genome": i, "fitness": 2.0 - g + i, "valid_loss": 1.0 + i, "density": 1 - 0.2 * g}
  for g in range(3)
  for i in range(2)
] + [{"generation": 2, "genome": 2, "fitness": np.inf, "valid_loss": np.nan, "density": 0.5}]


def test_the_evolution_figure_shows_the_best_and_the_range():
  figure = plots.evolution_figure(HISTORY, target_density=0.2)
  density, loss, fitness = figure.axes
  np.testing.assert_allclose(density.lines[0].get_ydata(), [100, 80, 60])
  np.testing.assert_allclose(fitness.lines[0].get_ydata(), [2, 1, 0])
  band = loss.collections[0].get_paths()[0].vertices[:, 1]
  assert (band.min(), band.max()) == (1, 2)
  assert all(axes.get_xlabel() == "generation" and axes.get_ylabel() for axes in figure.axes)


def test_figures_are_made_from_files_alone(tmp_path):
  storage.write_csv(tmp_path / "history.csv", HISTORY)
  code = f"""if True:
    import csv, sys
    sys.modules["jax"] = None
    import importlib.util
    # The package's facade needs jax; the module that draws must not.
    import types
    package = types.ModuleType("nets_jax"); package.__path__ = [{str(plots.__file__.rsplit("/", 1)[0])!r}]
    sys.modules["nets_jax"] = package
    from nets_jax import plots
    table = csv.DictReader(open({str(tmp_path / "history.csv")!r}))
    rows = [{{k: float(v) for k, v in row.items()}} for row in table]
    plots.save_figure(plots.evolution_figure(rows), {str(tmp_path / "figure.png")!r})
  """
  subprocess.run([sys.executable, "-c", code], check=True)
  assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
