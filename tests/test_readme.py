"""What README and the pages of docs/ say: their Python runs, their links, files and flags are there."""

import importlib
import pathlib
import re

import jax
import numpy as np
import pytest
from absl import flags

import nets_jax
from nets_jax.__main__ import COMMANDS

ROOT = pathlib.Path(nets_jax.__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MOST_WORDS = 900
# Settings of the stranger's search and operator, which are flags where these are named.
OF_EXAMPLES = {"share", "flip_rate"}


def python_of(text):
  return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def words_of(text):
  """What stands between spaces and has a letter or a digit."""
  return [word for word in text.split() if re.search(r"\w", word)]


@pytest.mark.docs
def test_the_python_of_readme_runs(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(nets_jax, "use_cpu_cores", lambda: None)  # JAX has started already
  names = {}
  for block in python_of(README):
    exec(block, names)
  assert isinstance(names["search"], nets_jax.Nets)
  assert (tmp_path / "ticket.safetensors").exists()
  found = nets_jax.search(0, names["task"], names["search"].replace(generations=1))
  assert found.best["valid_accuracy"] > 0.1


@pytest.mark.docs
@pytest.mark.parametrize("page", [page.name for page in PAGES[1:] if python_of(page.read_text())])
def test_the_python_of_a_page_runs_in_one_namespace(page, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(nets_jax, "use_cpu_cores", lambda: None)
  names = {"__name__": "page"}
  for block in python_of((ROOT / "docs" / page).read_text()):
    exec(block, names)
  if page == "studies.md":
    assert "Definition 3" in capsys.readouterr().out
  elif page == "sweeps.md":
    assert names["found"].best_method in names["settings"]
  elif page == "export.md":
    assert (tmp_path / "ticket.onnx").exists()
    jax.tree.map(np.testing.assert_array_equal, names["again"].weights, names["ticket"].weights)
  elif page.startswith("own_"):
    assert isinstance(names.get("result"), nets_jax.SearchResult)


def test_readme_is_short():
  """Everything in it counts, code and tables too."""
  assert len(words_of(README)) <= MOST_WORDS


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_relative_links_resolve(page):
  links = re.findall(r"\]\(\s*([^)\s]+)\s*\)", page.read_text())
  relative = [link.partition("#")[0] for link in links if not re.match(r"\w+:|#", link)]
  assert [link for link in relative if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_the_flags_that_a_page_names_exist(page):
  for command in COMMANDS:
    importlib.import_module(f"nets_jax.cli.{command}")
  importlib.import_module("experiments.benchmarking.measure")
  text = re.sub(r"^ *(#SBATCH|sphinx-build) .*$", "", page.read_text(), flags=re.MULTILINE)
  named = set(re.findall(r"(?<![\w-])--([a-z]\w*)", text))
  known = {*flags.FLAGS, *OF_EXAMPLES, "help", "helpfull", "flagfile"}
  assert sorted(name for name in named if name not in known and name.removeprefix("no") not in known) == []


def test_the_files_that_commands_name_are_there():
  text = "\n".join(page.read_text() for page in PAGES)
  named = set(
    re.findall(r"experiments/presets/[\w/]+\.flags|docs/\w+\.md|experiments/notebooks/\w+\.ipynb", text)
  )
  modules = re.findall(r"python -m (experiments(?:\.\w+)+)", text)
  named |= {f"{module.replace('.', '/')}.py" for module in modules}
  assert len(named) > 10
  assert sorted(path for path in named if not (ROOT / path).exists()) == []
