"""The notebooks run from their first cell to their last, and are stored with what they show."""

import pathlib

import nbclient
import nbformat
import pytest

import nets_jax

NOTEBOOKS = pathlib.Path(nets_jax.__file__).parent.parent / "experiments" / "notebooks"
PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))


def shown_by(notebook):
  """How many pictures, and how many bars that came to their end."""
  outputs = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
  pictures = sum("image/png" in data for data in outputs)
  return pictures, sum("100%|" in data.get("text/plain", "") for data in outputs)


@pytest.mark.docs
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_it_runs(path, tmp_path, monkeypatch, request):
  if path.stem == "paper":
    monkeypatch.setenv("NETS_JAX_MNIST_DIR", request.getfixturevalue("mnist_directory"))
    monkeypatch.setenv("TFDS_DATA_DIR", request.getfixturevalue("mnist_data_dir"))
  if path.stem == "tickets":
    for package in ("torch", "onnx", "onnxruntime"):
      pytest.importorskip(package, reason="pip install -e '.[export]'")
  monkeypatch.setenv("XLA_FLAGS", "")  # they train more than they compile
  notebook = nbformat.read(path, as_version=4)
  stored = shown_by(notebook)
  nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
  assert shown_by(notebook) == stored


def test_there_are_five():
  assert [path.stem for path in PATHS] == ["compare", "paper", "quickstart", "tickets", "write_your_own"]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_it_is_stored_with_its_outputs_and_a_badge(path):
  notebook = nbformat.read(path, as_version=4)
  nbformat.validate(notebook)
  assert f"experiments/notebooks/{path.name})" in notebook.cells[0].source
  code = [cell for cell in notebook.cells if cell.cell_type == "code"]
  assert "pip install" in code[0].source
  assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
  pictures, bars = shown_by(notebook)
  assert pictures >= 3
  assert bars >= 2
  assert path.stat().st_size < 1_000_000
  assert all("execution" not in cell.metadata for cell in notebook.cells)
  for cell in code:
    for output in cell.outputs:
      assert output.output_type != "error"
      assert output.get("name") != "stderr", output
