"""What README says: its Python runs as written, and the commands it names exist."""

import pathlib
import re

import nets_jax

README = (pathlib.Path(__file__).parent.parent / "README.md").read_text()


def test_the_python_in_it_runs(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(nets_jax, "use_cpu_cores", lambda: None)  # JAX has started already
  names = {}
  for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
    exec(block, names)
  assert isinstance(names["search"], nets_jax.Nets)
  assert (tmp_path / "ticket.safetensors").exists()
  found = nets_jax.search(0, names["task"], names["search"].replace(generations=1))
  assert found.best["valid_accuracy"] > 0.1


def test_the_files_that_its_commands_name_are_there():
  root = pathlib.Path(__file__).parent.parent
  named = re.findall(
    r"experiments/presets/[\w/]+\.flags|docs/\w+\.md|experiments/notebooks/\w+\.ipynb", README
  )
  assert len(named) > 5
  assert [path for path in named if not (root / path).exists()] == []
