"""Imports point one way: the reading order is the algorithm's order."""

import ast
import pathlib
import subprocess
import sys

import pytest

import nets_jax

ROOT = pathlib.Path(nets_jax.__file__).parent
# Modules and packages; what stands lower imports from what stands higher.
ORDER = (
  "errors", "kinds", "settings", "plugins", "engine", "data", "networks", "tickets", "training", "protocol",
  "evolution", "baselines", "searches", "analysis", "studies", "cli",
)  # fmt: skip
# Within a package too; modules that are not named come last.
INNER = {
  "engine": (
    "seeds", "files", "tables", "interrupts", "hosts", "layouts", "batching", "journal", "checkpoint_file",
    "saved", "checkpoints", "progress",
  ),
  "data": ("tfds", "dataset", "files", "sources"),
  "networks": ("precision", "adapter", "own", "zoo", "layers", "layer_rules", "initialisation"),
  "tickets": ("ticket", "pruning", "layer_counts", "results", "controls", "storage"),
  "training": ("optimizers", "task", "train", "trainer"),
  "evolution": (
    "schedules", "saliency", "operators", "scales", "dormancy", "selection", "pareto", "fitness", "ranking",
    "configuration", "breeding", "generation", "halving", "frontier", "history", "search", "recipes",
  ),
  "baselines": ("scores", "random_tickets", "one_shot", "imp_counts", "imp_runs", "imp"),
  "analysis": (
    "intervals", "verdicts", "style", "history_figures", "frontier_figures", "ticket_figures",
    "study_figures", "density_figures", "figures", "tensorboard",
  ),
  "cli": ("run_settings", "setting_flags", "method_labels", "plugin_flags", "records", "usage"),
}  # fmt: skip


def imported_modules(path):
  """The nets_jax modules that a file imports, at any depth of it, as tuples: ("evolution", "nets")."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "nets_jax":
      package = tuple(node.module.split(".")[1:])
      for alias in node.names:
        inner = ROOT.joinpath(*package, alias.name)
        is_module = inner.is_dir() or inner.with_suffix(".py").exists()
        yield (*package, alias.name) if is_module else package
    elif isinstance(node, ast.Import):
      yield from (tuple(a.name.split(".")[1:]) for a in node.names if a.name.startswith("nets_jax."))


def place(module):
  """Where a module stands in the order of all."""
  name, *inner = module
  listed = INNER.get(name, ())
  if not inner:
    return ORDER.index(name), -1
  return ORDER.index(name), listed.index(inner[0]) if inner[0] in listed else len(listed)


def test_every_module_has_a_place_in_the_order():
  found = {p.stem for p in ROOT.glob("*.py")} | {
    p.name for p in ROOT.iterdir() if (p / "__init__.py").exists()
  }
  assert found - {"__init__"} == set(ORDER)


def test_the_orders_within_packages_name_what_is_there():
  """What is not named, an operator or a search that was added, comes last, so that nothing else needs it."""
  for name, modules in INNER.items():
    assert set(modules) <= {p.stem for p in (ROOT / name).glob("*.py")}


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_upwards(path):
  module = path.relative_to(ROOT).with_suffix("").parts
  if module == ("__init__",) or path.name == "__init__.py":
    return  # the facade sees everything, and a package's own says what is in it
  for other in imported_modules(path):
    if other == () and module[0] == "cli":
      continue  # the facade
    assert place(other) < place(module), f"{module} imports {other}"


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
  source = (ROOT / "analysis" / "figures.py").read_text()
  assert "import jax" not in source
  assert set(imported_modules(ROOT / "plots.py")) == {("errors",), ("files",), ("statistics",)}
