"""MNIST from its original files; in one file, because preparing it takes a minute."""

import gzip
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

import nets_jax
from nets_jax.data import tfds

pytestmark = pytest.mark.mnist
ROOT = pathlib.Path(nets_jax.__file__).parent.parent


def test_mnist_from_the_original_files(mnist_data_dir):
  data = nets_jax.load_data("mnist", data_dir=mnist_data_dir)
  assert [len(split) for split in (data.train, data.valid, data.test)] == [54_000, 6_000, 10_000]
  assert data.input_shape == (28, 28, 1)
  assert data.num_classes == 10
  np.testing.assert_allclose(data.mean / 255, 0.1307, atol=5e-4)
  np.testing.assert_allclose(data.deviation / 255, 0.3081, atol=5e-4)


@pytest.fixture(scope="module")
def tiny_data_dir(tmp_path_factory):
  """A TFDS directory with a set of 2,100 images, `tiny`, prepared and its arrays cached."""
  tfds_library = pytest.importorskip("tensorflow_datasets", reason="pip install -e '.[mnist]'")

  class Tiny(tfds_library.core.GeneratorBasedBuilder):
    """A set that TFDS itself prepares, as any other."""

    pkg_dir_path = ROOT  # where TFDS would look for a description, and finds none
    VERSION = tfds_library.core.Version("1.0.0")

    def _info(self):
      features = {
        "image": tfds_library.features.Image(shape=(4, 3, 1)),
        "label": tfds_library.features.ClassLabel(num_classes=3),
      }
      return self.dataset_info_from_configs(features=tfds_library.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
      return {"train": self._generate_examples(2050), "test": self._generate_examples(50)}

    def _generate_examples(self, size):
      for i in range(size):
        yield i, {"image": np.full((4, 3, 1), i % 251, np.uint8), "label": i % 3}

  directory = tmp_path_factory.mktemp("tiny")
  nets_jax.load_data("tiny", data_dir=str(directory))
  return str(directory)


def test_every_example_is_read_with_its_label(tiny_data_dir):
  arrays = tfds.tfds_arrays("tiny", tiny_data_dir, None)
  for prefix, size in (("", 2050), ("test_", 50)):
    inputs, labels = arrays[f"{prefix}inputs"], arrays[f"{prefix}labels"]
    assert inputs.shape == (size, 4, 3, 1)
    assert inputs.dtype == np.uint8
    values = inputs[:, 0, 0, 0]
    np.testing.assert_array_equal(inputs, np.broadcast_to(values[:, None, None, None], inputs.shape))
    assert sorted(zip(values, labels, strict=True)) == sorted((i % 251, i % 3) for i in range(size))


def test_a_damaged_copy_of_the_arrays_is_made_again(tiny_data_dir, tmp_path, capsys):
  shutil.copytree(tiny_data_dir, tmp_path / "tfds")
  cache = tmp_path / "tfds" / "tiny" / tfds.CACHE_NAME
  content = bytearray(cache.read_bytes())
  content[len(content) // 2] ^= 1
  cache.write_bytes(content)
  data = nets_jax.load_data("tiny", data_dir=str(tmp_path / "tfds"))
  assert "is damaged and will be made again" in capsys.readouterr().err
  want = nets_jax.load_data("tiny", data_dir=tiny_data_dir)
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
  message = "is not in .*point --manual_dir" if fault == "missing" else "is damaged or of another set"
  with pytest.raises(nets_jax.UsageError, match=message):
    nets_jax.load_data("mnist", data_dir=str(tmp_path / "tfds"), manual_dir=str(manual))
  assert not pathlib.Path(tmp_path / "tfds" / "mnist").exists()


def idx(array):
  """An array of bytes as an IDX file, packed as those of MNIST are."""
  sizes = np.array(array.shape, ">u4").tobytes()
  return gzip.compress(bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes(), mtime=0)


def unpacked(path, start, count):
  return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, count, start)


@pytest.fixture
def small_clothes(mnist_directory, tmp_path, monkeypatch):
  """Four files of the first digits of MNIST, which TFDS then takes for those of Fashion-MNIST."""
  module = pytest.importorskip("tensorflow_datasets.image_classification.mnist")
  builder, infos, arrays = module.FashionMNIST, {}, {}
  for part, count in (("train", 60), ("t10k", 20)):
    own = pathlib.Path(mnist_directory)
    images = unpacked(own / f"{part}-images-idx3-ubyte.gz", 16, count * 784).reshape(count, 28, 28)
    arrays[f"{part}-images-idx3-ubyte.gz"] = images
    arrays[f"{part}-labels-idx1-ubyte.gz"] = unpacked(own / f"{part}-labels-idx1-ubyte.gz", 8, count)
  for url, info in builder.url_infos.items():
    content = idx(arrays[info.filename])
    (tmp_path / info.filename).write_bytes(content)
    checksum = hashlib.sha256(content).hexdigest()
    infos[url] = type(info)(size=len(content), checksum=checksum, filename=info.filename)
  assert len(infos) == 4
  monkeypatch.setattr(builder, "url_infos", infos)
  monkeypatch.setattr(module, "_TRAIN_EXAMPLES", 60)
  monkeypatch.setattr(module, "_TEST_EXAMPLES", 20)
  return tmp_path, arrays


def test_fashion_mnist_from_its_original_files(small_clothes, tmp_path, monkeypatch):
  """The directory that is given counts, not MNIST's own."""
  directory, arrays = small_clothes
  monkeypatch.setenv("NETS_JAX_MNIST_DIR", str(tmp_path / "nowhere"))
  given = {"data_dir": str(tmp_path / "tfds"), "manual_dir": str(directory)}
  data = nets_jax.load_data("fashion_mnist", **given)
  assert [len(split) for split in (data.train, data.valid, data.test)] == [54, 6, 20]
  found = sorted(map(bytes, np.asarray(data.test.inputs)))
  assert data.test.inputs.dtype == np.uint8
  assert found == sorted(map(bytes, arrays["t10k-images-idx3-ubyte.gz"]))
  assert sorted(data.test.labels) == sorted(arrays["t10k-labels-idx1-ubyte.gz"])


@pytest.mark.parametrize("name", ["fashion_mnist", "kmnist"])
def test_the_files_of_another_set(name, mnist_directory, tmp_path):
  """All have the same names."""
  with pytest.raises(
    nets_jax.UsageError, match=f"damaged or of another set: .* not that of {name}'s"
  ) as raised:
    nets_jax.load_data(name, data_dir=str(tmp_path), manual_dir=mnist_directory)
  assert "\n" not in str(raised.value)
  (tmp_path / "empty").mkdir()
  with pytest.raises(nets_jax.UsageError, match=rf"ubyte.gz of {name} is not in .*; point --manual_dir at"):
    nets_jax.load_data(name, data_dir=str(tmp_path), manual_dir=str(tmp_path / "empty"))


def test_mnist_through_the_main_job(tmp_path, mnist_data_dir):
  preset = ROOT / "experiments" / "presets" / "paper_mnist.flags"
  command = [
    sys.executable, "-m", "experiments.search", f"--flagfile={preset}", f"--data_dir={mnist_data_dir}",
    "--generations=1", "--fitness_epochs=0.02", "--train_epochs=1", f"--workdir={tmp_path}/run",
  ]  # fmt: skip
  environment = os.environ | {"XLA_FLAGS": ""}  # it trains more than it compiles
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
  assert done.returncode == 0, done.stderr
  ticket = nets_jax.load_ticket(tmp_path / "run" / "ticket.safetensors")
  assert ticket.masks["hidden_0"]["kernel"].shape == (784, 300)
  summary = json.loads((tmp_path / "run" / "summary.json").read_text())
  assert summary["results"]["dense"]["test_accuracy"] > 0.7
