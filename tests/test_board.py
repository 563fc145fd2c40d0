"""TensorBoard files, read back by TensorBoard's own reader."""

import json
import pathlib

import numpy as np
import pytest
from test_search import SMALL, table

import nets_jax
from nets_jax.analysis import tensorboard


def read_back(directory: pathlib.Path):
  """All event files under a directory."""
  event_accumulator = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator",
    reason="needs tensorboard, which tensorflow brings",
  )
  found = event_accumulator.EventAccumulator(str(directory))
  found.Reload()
  return found


def test_a_run_is_written_as_it_was(job, tmp_path):
  assert job(*SMALL, "--tensorboard", "--workdir=run")[0] == 0
  found = read_back(tmp_path / "run" / tensorboard.DIRECTORY)
  history = table(tmp_path / "run" / "history.csv")
  best = [min(float(r["fitness"]) for r in history if r["generation"] == str(g)) for g in range(3)]
  fitness = found.Scalars("search/fitness")
  assert [event.step for event in fitness] == [0, 1, 2]
  np.testing.assert_allclose([event.value for event in fitness], best, rtol=1e-6)
  training = [r for r in table(tmp_path / "run" / "training.csv") if r["ticket"] == "random"]
  losses = found.Scalars("training/test_loss/random")
  np.testing.assert_allclose([e.value for e in losses], [float(r["test_loss"]) for r in training], rtol=1e-6)
  assert [e.step for e in losses] == [int(r["iteration"]) for r in training]
  assert sorted(found.Tags()["images"]) == ["masks/hidden_0", "masks/output"]
  (image,) = found.Images("masks/hidden_0")
  assert (image.height, image.width) == (2, 6)
  settings = read_back(tmp_path / "run" / tensorboard.DIRECTORY / "settings")
  results = json.loads((tmp_path / "run" / "summary.json").read_text())["results"]["guided"]
  assert settings.Scalars("result/test_accuracy")[0].value == pytest.approx(results["test_accuracy"])

  assert job(*SMALL, "--overwrite", "--workdir=run")[0] == 0  # without: the old run's events go too
  assert not (tmp_path / "run" / tensorboard.DIRECTORY).exists()


def test_without_its_writer_it_says_what_to_install(job, monkeypatch, tmp_path):
  monkeypatch.setitem(__import__("sys").modules, "tensorboardX", None)
  status, _, error = job(*SMALL, "--tensorboard", "--workdir=run")
  assert status == 2
  assert error == "error: --tensorboard needs its writer: pip install -e '.[tensorboard]'\n"
  assert not (tmp_path / "run").exists()


def test_a_mask_of_a_convolution_is_an_image(tmp_path):
  masks = {"conv": {"kernel": np.ones((3, 3, 2, 4), bool), "bias": None}}
  with tensorboard.open_board(tmp_path, True) as shown:
    shown.ticket(nets_jax.Ticket({}, masks))
  (image,) = read_back(tmp_path / tensorboard.DIRECTORY).Images("masks/conv")
  assert (image.height, image.width) == (18, 4)
