"""MNIST from its original files; in one file, because preparing it takes a minute."""

import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

import nets_jax
from nets_jax.data import tfds

ROOT = pathlib.Path(nets_jax.__file__).parent.parent


def test_mnist_from_the_original_files(mnist_data_dir):
  data = nets_jax.load_data("mnist", data_dir=mnist_data_dir)
  assert [len(split) for split in (data.train, data.valid, data.test)] == [54_000, 6_000, 10_000]
  assert data.input_shape == (28, 28, 1)
  assert data.num_classes == 10
  np.testing.assert_allclose(data.mean / 255, 0.1307, atol=5e-4)
  np.testing.assert_allclose(data.deviation / 255, 0.3081, atol=5e-4)


def test_a_damaged_copy_of_the_arrays_is_made_again(mnist_data_dir, tmp_path, capsys):
  shutil.copytree(mnist_data_dir, tmp_path / "tfds")
  cache = tmp_path / "tfds" / "mnist" / tfds.CACHE_NAME
  content = bytearray(cache.read_bytes())
  content[len(content) // 2] ^= 1
  cache.write_bytes(content)
  data = nets_jax.load_data("mnist", data_dir=str(tmp_path / "tfds"))
  assert "is damaged and will be made again" in capsys.readouterr().err
  want = nets_jax.load_data("mnist", data_dir=mnist_data_dir)
  np.testing.assert_array_equal(data.train.inputs, want.train.inputs)
  assert cache.read_bytes() != bytes(content)


@pytest.mark.parametrize("fault", ["missing", "truncated", "flipped"])
def test_bad_original_files(mnist_directory, tmp_path, fault):
  manual = tmp_path / "manual"
  shutil.copytree(mnist_directory, manual, copy_function=shutil.copyfile)
  manual.chmod(0o755)
  path = manual / "train-labels-idx1-ubyte.gz"
  content = bytearray(path.read_bytes())
  path.unlink()
  if fault == "truncated":
    path.write_bytes(content[:1000])
  elif fault == "flipped":
    content[5000] ^= 1
    path.write_bytes(content)
  message = "is not in .*point --mnist_manual_dir" if fault == "missing" else "is damaged or of another set"
  with pytest.raises(nets_jax.UsageError, match=message):
    nets_jax.load_data("mnist", data_dir=str(tmp_path / "tfds"), manual_dir=str(manual))
  assert not pathlib.Path(tmp_path / "tfds" / "mnist").exists()


def test_mnist_through_the_main_job(tmp_path, mnist_data_dir):
  preset = ROOT / "experiments" / "presets" / "paper_mnist.flags"
  command = [
    sys.executable, "-m", "experiments.search", f"--flagfile={preset}", f"--data_dir={mnist_data_dir}",
    "--generations=1", "--fitness_epochs=0.02", "--train_epochs=1", f"--workdir={tmp_path}/run",
  ]  # fmt: skip
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  ticket = nets_jax.load_ticket(tmp_path / "run" / "ticket.safetensors")
  assert ticket.masks["hidden_0"]["kernel"].shape == (784, 300)
  summary = json.loads((tmp_path / "run" / "summary.json").read_text())
  assert summary["results"]["dense"]["test_accuracy"] > 0.7
