"""Imports point one way: the reading order is the algorithm's order."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

import nets_jax

ROOT = pathlib.Path(nets_jax.__file__).parent
# Modules and packages; what stands lower imports from what stands higher.
ORDER = (
  "rows", "structs", "errors", "kinds", "settings", "changes", "plugins", "engine", "data", "networks",
  "tickets", "training", "protocol", "evolution", "baselines", "searches", "export", "analysis", "studies",
  "cli", "__main__",
)  # fmt: skip
# Within a package too; modules that are not named come last.
INNER = {
  "engine": (
    "messages", "startup", "seeds", "files", "tables", "interrupts", "watch", "hosts",
    "layouts", "exhaustion",
    "rewriting", "patches", "convolutions", "pooling", "cpu_forms",
    "batching", "journal",
    "checkpoint_file", "saved", "checkpoints", "saving",
  ),
  "data": ("tfds", "targets", "dataset", "augmentation", "files", "sources"),
  "networks": (
    "precision", "functional", "adapter", "interface", "maskable", "own", "images", "architectures", "zoo",
    "layers", "traced", "axis_rules", "factors", "coupling", "narrow_programs", "narrowing",
    "layer_rules",
    "initialisation",
  ),
  "tickets": (
    "ticket", "compaction", "pruning", "patterns", "layer_counts", "results", "controls",
    "tensor_files", "provenance", "storage",
  ),
  "training": (
    "optimizers", "rate_schedules", "measures", "losses", "scores", "objectives", "layer_rates",
    "training",
    "task", "train", "evaluation", "statistics",
    "arguments", "parts", "loop", "loops", "trainer",
  ),
  "evolution": (
    "schedules", "context", "saliency", "units", "operators", "density_schedules", "scales", "dormancy",
    "selection", "pareto", "fitness", "ranking", "configuration", "halving", "places", "breeding",
    "generation", "history", "frontier", "run_record", "stages", "resuming", "search", "recipes",
  ),
  "baselines": (
    "scores", "random_tickets", "one_shot", "imp_counts", "imp_runs", "imp",
    "stepwise", "concrete", "gradinit", "random_scales", "dynamic", "rigl", "gradual",
  ),
  "export": (
    "extras", "comparison", "compacted", "torch_layouts", "torch_networks", "torch_modules", "torch_sparse",
    "sparse_network", "onnx_rules", "onnx_graph", "onnx_models", "trained_tickets", "forms", "hub",
    "exports",
  ),
  "analysis": (
    "intervals", "verdicts", "style", "history_figures", "frontier_figures", "ticket_figures",
    "explaining_figures",
    "study_figures", "density_figures", "figures", "interactive", "interactive_runs",
    "interactive_tickets", "interactive_studies", "interactive_densities", "page", "tensorboard", "progress",
    "inspection", "inspection_text",
  ),
  "studies": (
    "renamed", "run_settings", "method_labels", "methods", "places", "origins", "run_files", "frontier_files",
    "outcome", "report_parts", "report_settings", "report_run", "batches", "single_run",
    "workers", "trials", "run_directory", "work", "tables", "space", "best", "adaptive", "pruning",
    "comparison",
    "frontier_tables", "frontiers", "sweeps", "tuning_tables", "tuning", "ticket_controls", "sanity_checks",
    "report_kinds", "report_study", "report",
  ),
  "cli": (
    "setting_flags", "plugin_flags", "records", "usage", "command", "distributed", "study",
    "method_flags", "ticket_flags", "search", "verify", "export",
  ),
}  # fmt: skip


def _is_for_checkers(node):
  """Whether a type checker alone reads what is under this line."""
  return isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"


def imported_modules(path):
  """The nets_jax modules that a file imports, at any depth of it, as tuples: ("evolution", "nets")."""
  tree = ast.parse(path.read_text())
  for_checkers = {
    inner
    for node in ast.walk(tree)
    if _is_for_checkers(node)
    for part in node.body
    for inner in ast.walk(part)
  }
  for node in ast.walk(tree):
    if node in for_checkers:
      continue
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
    assert set(modules) <= {p.stem for p in (ROOT / name).iterdir()}


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_upwards(path):
  module = path.relative_to(ROOT).with_suffix("").parts
  if module == ("__init__",) or path.name == "__init__.py":
    return  # the facade sees everything, and a package's own says what is in it
  for other in imported_modules(path):
    if other == () and module[0] == "cli":
      continue  # the facade
    assert place(other) < place(module), f"{module} imports {other}"


def test_the_library_imports_no_experiments():
  """So that a wheel, which has the library alone, has all that the commands do."""
  for path in ROOT.rglob("*.py"):
    for node in ast.walk(ast.parse(path.read_text())):
      names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
      names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
      assert not any(name.split(".")[0] == "experiments" for name in names), path


def test_the_commands_are_thin():
  """Twelve of them, with what they share."""
  commands = (*ROOT.parent.joinpath("experiments").glob("*.py"), *(ROOT / "cli").glob("*.py"))
  assert sum(len(path.read_text().splitlines()) for path in commands) < 2100


def loaded_by(statement):
  """The names of all modules loaded after a statement, in a new process."""
  code = f"import sys; {statement}; print(*sys.modules)"
  return set(
    subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
  )


def test_heavy_packages_load_only_when_used():
  loaded = loaded_by("import nets_jax")
  heavy = {"matplotlib", "bokeh", "sklearn", "tensorflow", "tensorflow_datasets", "orbax", "pandas", "optuna"}
  assert not loaded & heavy


def test_figures_need_no_jax():
  """Else a notebook that only draws would wait for it; test_plots.py draws without."""
  for path in (ROOT / "analysis").glob("*figures.py"):
    assert not re.search(r"^(import|from) (jax|flax)\b", path.read_text(), re.MULTILINE), path.name


LONGEST_FILE, LONGEST_FUNCTION = 300, 60
SOURCES = [path for folder in (ROOT, ROOT.parent / "experiments") for path in sorted(folder.rglob("*.py"))]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT.parent)))
def test_files_and_functions_are_short(path):
  """Of a function its docstring does not count."""
  text = path.read_text()
  assert len(text.splitlines()) <= LONGEST_FILE
  for node in ast.walk(ast.parse(text)):
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
      start = node.body[0].end_lineno + 1 if ast.get_docstring(node) else node.lineno
      assert node.end_lineno - start < LONGEST_FUNCTION, f"{node.name} in line {node.lineno}"
