"""Imports point one way: the reading order is the algorithm's order."""

import ast
import pathlib
import subprocess
import sys

import pytest

import nets_jax

ROOT = pathlib.Path(nets_jax.__file__).parent
ORDER = (
  "errors",
  "files",
  "statistics",
  "seeds",
  "networks",
  "layers",
  "initialisation",
  "tickets",
  "tfds",
  "data",
  "training",
  "fitness",
  "guidance",
  "operators",
  "pareto",
  "frontier",
  "config",
  "processes",
  "parallel",
  "journal",
  "checkpoint_file",
  "checkpoints",
  "trainer",
  "nets",
  "halving",
  "history",
  "evolution",
  "baselines",
  "winning",
  "storage",
  "plots",
  "density_plots",
)


def imported_modules(path):
  """Names of nets_jax modules a file imports, at any depth of the file."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.ImportFrom) and node.module == "nets_jax":
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nets_jax."):
      yield node.module.split(".")[1]
    elif isinstance(node, ast.Import):
      yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("nets_jax."))


def test_every_module_has_a_place_in_the_order():
  found = {p.stem for p in ROOT.glob("*.py")} | {
    p.name for p in ROOT.iterdir() if (p / "__init__.py").exists()
  }
  assert found - {"__init__"} == set(ORDER)


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_upwards(path):
  name = path.relative_to(ROOT).parts[0].removesuffix(".py")
  if name == "__init__":
    return  # the facade sees everything
  for module in imported_modules(path):
    assert module in ORDER
    assert ORDER.index(module) < ORDER.index(name) or module == name == "baselines"


def test_the_library_knows_no_experiments():
  assert not any("experiments" in path.read_text() for path in ROOT.rglob("*.py"))


def loaded_by(statement):
  """The names of all modules loaded after a statement, in a new process."""
  code = f"import sys; {statement}; print(*sys.modules)"
  return set(
    subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
  )


def test_heavy_packages_load_only_when_used():
  loaded = loaded_by("import nets_jax")
  assert not loaded & {"matplotlib", "sklearn", "tensorflow", "tensorflow_datasets", "orbax"}


def test_figures_need_no_jax():
  source = (ROOT / "plots.py").read_text()
  assert "import jax" not in source
  assert set(imported_modules(ROOT / "plots.py")) == {"errors", "files", "statistics"}
