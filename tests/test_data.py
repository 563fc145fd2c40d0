import io
import json
import pathlib
import sys
import threading
import time

import flax.linen as nn
import jax
import numpy as np
import pytest
from conftest import assert_same_bits, without_seconds

import nets_jax
from nets_jax.baselines.one_shot import Snip
from nets_jax.data import tfds
from nets_jax.engine.layouts import replicate
from nets_jax.studies.origins import provenance
from nets_jax.training.evaluation import class_accuracies, evaluate


def test_digits_are_split_and_standardised():
  data = nets_jax.load_data("digits")
  assert [len(split) for split in (data.train, data.valid, data.test)] == [1294, 144, 359]
  assert data.input_shape == (8, 8, 1)
  assert data.num_classes == 10
  assert abs(data.train.inputs.mean()) < 1e-5
  assert abs(data.train.inputs.std() - 1) < 1e-5
  restored = (
    np.concatenate([s.inputs for s in (data.train, data.valid, data.test)]) * data.deviation + data.mean
  )
  from sklearn.datasets import load_digits

  original = load_digits().images
  np.testing.assert_allclose(np.sort(restored.sum((1, 2, 3))), np.sort(original.sum((1, 2))), rtol=1e-4)


def test_the_split_is_seeded_and_disjoint():
  inputs = np.arange(200.0)[:, None]
  labels = np.arange(200) % 2

  def parts(seed):
    data = nets_jax.from_arrays(inputs, labels, seed=seed)
    return [
      np.round(split.inputs * data.deviation + data.mean).astype(int).ravel()
      for split in (data.train, data.valid, data.test)
    ]

  assert [len(part) for part in parts(0)] == [144, 16, 40]
  assert sorted(np.concatenate(parts(0))) == list(range(200))
  np.testing.assert_array_equal(np.concatenate(parts(0)), np.concatenate(parts(0)))
  assert (np.concatenate(parts(0)) != np.concatenate(parts(1))).any()


def test_a_given_test_part_is_standardised_like_the_training_part():
  rng = np.random.default_rng(0)
  inputs, test = rng.normal(5, 3, (50, 2)), rng.normal(5, 3, (9, 2))
  data = nets_jax.from_arrays(inputs, rng.integers(0, 2, 50), test, rng.integers(0, 2, 9))
  assert [len(split) for split in (data.train, data.valid, data.test)] == [45, 5, 9]
  np.testing.assert_allclose(data.test.inputs, (test - data.mean) / data.deviation, rtol=1e-5)
  np.testing.assert_allclose(data.train.inputs.mean(0), 0, atol=1e-6)


def test_a_constant_channel_becomes_zero():
  inputs = np.stack([np.full(40, 7.0), np.arange(40.0)], axis=1)
  data = nets_jax.from_arrays(inputs, np.arange(40) % 2)
  np.testing.assert_array_equal(data.train.inputs[:, 0], 0)


def test_inputs_may_stay_as_they_are():
  tokens = np.arange(120).reshape(40, 3)
  data = nets_jax.from_arrays(tokens, np.arange(40) % 2, standardise=False)
  assert data.train.inputs.dtype == np.int32
  found = np.concatenate([split.inputs for split in (data.train, data.valid, data.test)])
  np.testing.assert_array_equal(np.sort(found, axis=0), tokens)
  assert (data.mean == 0).all()
  assert (data.deviation == 1).all()
  halves = nets_jax.from_arrays(tokens / 2, np.arange(40) % 2, standardise=False)
  assert halves.train.inputs.dtype == np.float32
  np.testing.assert_array_equal(halves.train.inputs * 2, data.train.inputs)
  with pytest.raises(nets_jax.UsageError, match="inputs are too large for int32 numbers"):
    nets_jax.from_arrays(tokens + 2**31, np.arange(40) % 2, standardise=False)


class Normalised(nn.Module):
  """A convolution with batch normalisation."""

  @nn.compact
  def __call__(self, x, train=False):
    x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(nn.Conv(3, (3, 3))(x))
    return nn.Dense(3)(nn.relu(x).reshape((x.shape[0], -1)))


def bytes_and_labels(count=240, shape=(6, 6, 2), seed=0):
  """Images of bytes, as of MNIST but smaller, and which of three classes each is of."""
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, 3, count)
  means = rng.uniform(40, 200, (3, *shape))[labels]
  return np.clip(means + rng.normal(0, 60, (count, *shape)), 0, 255).astype(np.uint8), labels


@pytest.fixture(scope="module")
def both():
  """The same images, as bytes and as the float32 numbers that they were before."""
  images, labels = bytes_and_labels()
  return nets_jax.from_arrays(images, labels), nets_jax.from_arrays(images.astype(np.float64), labels)


def test_bytes_take_a_quarter_of_the_memory(both):
  """On the host, and on a device for a search, but for the table of 256 numbers a channel."""
  packed, floats = (
    jax.tree.leaves(replicate(data.train.replace(labels=data.train.labels[:0]), nets_jax.make_layout(1)))
    for data in both
  )
  size = sum(leaf.nbytes for leaf in floats)
  assert sum(leaf.nbytes for leaf in packed) == size // 4 + 256 * 2 * 4
  assert {leaf.dtype.name for leaf in packed} == {"uint8", "int32", "float32"}


def test_bytes_are_standardised_to_the_last_bit(both):
  """Eagerly, compiled, and compiled with the data as constants, where XLA could divide beforehand."""
  packed, floats = both
  for name in ("mean", "deviation"):
    np.testing.assert_array_equal(getattr(packed, name), getattr(floats, name))
  for name in ("train", "valid", "test"):
    split, want = getattr(packed, name), getattr(floats, name)
    own = (split.inputs.astype(np.float32) - packed.mean) / packed.deviation
    np.testing.assert_array_equal(want.inputs, own)
    rows = np.array([4, 0, 2])
    for found in (
      split.prepared(), jax.jit(lambda s: s.prepared())(split), jax.jit(lambda s=split: s.prepared())()
    ):  # fmt: skip
      assert_same_bits(found, want)
    assert_same_bits(split.examples(rows), want.take(rows))
    np.testing.assert_array_equal(split.take(rows).inputs, split.inputs[rows])
    np.testing.assert_array_equal(jax.vmap(split.standardised)(split.inputs), want.inputs)
    np.testing.assert_array_equal(split.standardised(split.inputs[1]), want.inputs[1])
  assert want.prepared().inputs is want.inputs
  flat = nets_jax.from_arrays(packed.train.inputs.reshape(-1, 72), packed.train.labels)
  own = (flat.train.inputs.astype(np.float32) - flat.mean) / flat.deviation
  np.testing.assert_array_equal(flat.train.prepared().inputs, own)


def test_bytes_that_are_not_standardised_are_tokens():
  images, labels = bytes_and_labels(40)
  data = nets_jax.from_arrays(images, labels, standardise=False)
  assert (data.train.inputs.dtype, data.train.input_type) == (np.int32, "int32")
  assert data.train.prepared().inputs is data.train.inputs


@pytest.mark.devices
@pytest.mark.parametrize("network", [nets_jax.MLP((7,), 3), Normalised()], ids=["MLP", "convolution"])
def test_bytes_search_and_train_to_the_same_bits(both, network):
  """By searches that read them in each of the ways, an objective that is given them, a final training."""

  def worst_class(candidate):
    logits = candidate.valid.inputs.reshape(len(candidate.valid), -1).mean(1)
    return candidate.valid_loss + logits.mean()

  found = []
  for data in both:
    task = nets_jax.Task(network, data, nets_jax.Training("momentum", 0.01, 12), initialiser="he")
    search = nets_jax.recipes.guided(
      population_size=3, generations=1, saliency="gradient", objective=worst_class, fitness_epochs=0.5
    )
    results = [nets_jax.search(0, task, own, devices=2) for own in (search, Snip(score_batch=20))]
    trained = nets_jax.train_tickets(1, results[0].ticket, task, epochs=1)
    weights, state = nets_jax.take((trained.weights, trained.network_states), 0)
    found.append((
      [jax.device_get(result.ticket) for result in results], trained.weights,
      class_accuracies(task, weights, data.test, state), evaluate(task, weights, data.test, state),
      [list(row.values()) for row in without_seconds([*results[0].history, *trained.curves])],
    ))  # fmt: skip
  assert_same_bits(*found)


@pytest.mark.parametrize("name", ["digits", "xor", "PATH.npz", "stranger.data:rings(examples=60)"])
@pytest.mark.usefixtures("stranger")
def test_any_set_may_be_left_as_it_is(name, tmp_path):
  tokens = np.random.default_rng(0).integers(0, 9, (50, 4), dtype=np.uint8)
  np.savez(tmp_path / "tokens.npz", inputs=tokens, labels=tokens[:, 0] % 2)
  name = name.replace("PATH", f"{tmp_path}/tokens")
  data = nets_jax.load_data(name, standardise=False)
  assert (data.mean == 0).all()
  assert (data.deviation == 1).all()
  assert data.train.input_type == ("int32" if name.endswith("npz") else "float32")


@pytest.mark.usefixtures("stranger")
def test_a_data_set_that_is_made_already_is_not_standardised_otherwise():
  with pytest.raises(nets_jax.UsageError, match=r"gave a nets_jax\.Dataset, .*; leave standardise out$"):
    nets_jax.load_data("stranger.data:made", standardise=False)


@pytest.mark.usefixtures("stranger")
def test_a_network_of_floats_refuses_tokens_and_the_reverse():
  """Each in one line that says what to give."""
  from stranger.modules import Attention

  rows, labels = np.random.default_rng(0).integers(0, 6, (60, 4)), np.arange(60) % 2
  tokens, floats = (nets_jax.from_arrays(rows, labels, standardise=own) for own in (False, True))
  for network, data, message in (
    (
      nets_jax.MLP((4,), 2),
      tokens,
      r"^MLP takes floating point numbers, .*; leave standardise at true, or give",
    ),
    (Attention(2), floats, r"^Attention looks up whole numbers, .*: standardise=False, or --nostandardise$"),
  ):
    with pytest.raises(nets_jax.UsageError, match=message):
      nets_jax.Task(network, data).check()
  nets_jax.Task(Attention(2), tokens).check()
  nets_jax.Task(nets_jax.MLP((4,), 2), floats).check()


def test_xor_labels_the_rounded_coordinates():
  data = nets_jax.load_data("xor", xor_train_size=200, xor_test_size=50)
  assert [len(split) for split in (data.train, data.valid, data.test)] == [180, 20, 50]
  for split in (data.train, data.valid, data.test):
    points = split.inputs * data.deviation + data.mean
    assert points.min() >= -1e-6
    assert points.max() <= 1 + 1e-6
    np.testing.assert_array_equal(split.labels, (points[:, 0] > 0.5) ^ (points[:, 1] > 0.5))
  again = nets_jax.load_data("xor", xor_train_size=200, xor_test_size=50)
  np.testing.assert_array_equal(data.train.inputs, again.train.inputs)
  other = nets_jax.load_data("xor", seed=1, xor_train_size=200, xor_test_size=50)
  assert (data.train.inputs != other.train.inputs).any()


@pytest.mark.parametrize(
  ("inputs", "labels", "message"),
  [
    (np.zeros((4, 2)), np.zeros(3, int), "one label each"),
    (np.zeros(4), np.zeros(4, int), "one label each"),
    (np.zeros((4, 2)), np.array(list("abcd")), "labels must be integers"),
    (np.zeros((4, 2)), np.array([0, 1, -1, 0]), "labels must be integers from 0"),
    (np.full((4, 2), np.nan), np.zeros(4, int), "must be finite"),
    (np.zeros((2, 2)), np.zeros(2, int), "too few examples: 2 leave"),
  ],
)
def test_impossible_arrays(inputs, labels, message):
  with pytest.raises(nets_jax.UsageError, match=message):
    nets_jax.from_arrays(inputs, labels)


@pytest.mark.parametrize("fraction", [-0.5, 0.0, 1.0, 2.0, float("nan")])
def test_impossible_fractions(fraction):
  with pytest.raises(nets_jax.UsageError, match=rf"valid_fraction must be in \(0, 1\), not {fraction}"):
    nets_jax.from_arrays(np.zeros((100, 3)), np.arange(100) % 2, valid_fraction=fraction)


class Builder:
  """As TFDS's, of a set that is there in two files of one array each."""

  name, url_infos = "small", {}

  def __init__(self, directory, prepare):
    self.data_dir, self._prepare = directory, prepare

  def download_and_prepare(self, download_config):
    self._prepare(self)


@pytest.mark.parametrize(
  "error",
  [OSError("disk full"), RuntimeError("Failed to\nunpack"), AssertionError(), ValueError("no such config")],
)
def test_whatever_goes_wrong_in_preparing_is_one_line(tmp_path, error):
  package = pytest.importorskip("tensorflow_datasets")

  def fail(_):
    raise error

  with pytest.raises(nets_jax.UsageError) as raised:
    tfds._prepare(package, Builder(tmp_path, fail), None)
  why = " ".join(str(error).split()) or "no reason given"
  assert str(raised.value) == f"could not prepare small: {type(error).__name__}: {why}"


def test_a_set_is_prepared_once_however_many_want_it(tmp_path, monkeypatch):
  """The second waits, says so, and uses what the first has made."""
  begun, go_on, prepared = threading.Event(), threading.Event(), []

  def prepare(builder):
    prepared.append(builder)
    begun.set()
    assert go_on.wait(60)
    pathlib.Path(builder.data_dir).mkdir()
    (pathlib.Path(builder.data_dir) / "dataset_info.json").touch()

  monkeypatch.setattr(tfds, "_import_tfds", lambda name: __import__("tensorflow_datasets"))
  monkeypatch.setattr(tfds, "_builder", lambda _, name, root: Builder(root / "small", prepare))
  arrays = {"inputs": np.arange(6.0).reshape(3, 2), "labels": np.arange(3)}
  monkeypatch.setattr(tfds, "_decode", lambda builder: arrays)
  said, found = io.StringIO(), []  # pytest's own capture may lose what is written while it is read
  monkeypatch.setattr(sys, "stderr", said)
  load = lambda: found.append(tfds.tfds_arrays("small", str(tmp_path), None))  # noqa: E731
  first, second = threading.Thread(target=load), threading.Thread(target=load)
  first.start()
  assert begun.wait(60)
  second.start()
  while "waiting for it" not in said.getvalue() and second.is_alive():
    time.sleep(0.01)  # or this loop takes the time of the threads it waits for
  assert said.getvalue().count(f"another process is preparing small under {tmp_path}; waiting for it") == 1
  go_on.set()
  for thread in (first, second):
    thread.join(60)
  assert len(prepared) == 1
  for one in found:
    np.testing.assert_array_equal(one["inputs"], arrays["inputs"])
  assert len(found) == 2


@pytest.mark.parametrize("name", ["no_such_set", "mnistt"])
def test_an_unknown_data_set(name, tmp_path):
  pytest.importorskip("tensorflow_datasets", reason="pip install -e '.[mnist]'")
  with pytest.raises(
    nets_jax.UsageError, match=f"dataset '{name}' is not one of xor, digits, diabetes, nor known"
  ):
    nets_jax.load_data(name, data_dir=str(tmp_path))


@pytest.mark.parametrize("name", ["../mnist", "mnist/..", "", "Mnist set"])
def test_a_name_that_cannot_be_one(name, tmp_path):
  with pytest.raises(nets_jax.UsageError, match="is no name of a data set"):
    nets_jax.load_data(name, data_dir=str(tmp_path))


@pytest.mark.parametrize("name", ["xor", "digits", "diabetes", "nowhere.npz", "nowhere.at:all"])
def test_original_files_are_of_tfds_alone(name):
  with pytest.raises(nets_jax.UsageError, match=f"manual_dir holds .* TFDS set, which {name} is not; le"):
    nets_jax.load_data(name, manual_dir="files")


def test_without_tfds_the_message_says_what_to_install(monkeypatch, tmp_path):
  monkeypatch.setitem(__import__("sys").modules, "tensorflow_datasets", None)
  with pytest.raises(nets_jax.UsageError, match=r"pip install -e '\.\[mnist\]'"):
    nets_jax.load_data("mnist", data_dir=str(tmp_path))


def test_mnist_neither_prepared_nor_given_nor_downloadable(monkeypatch, tmp_path):
  pytest.importorskip("tensorflow_datasets", reason="pip install -e '.[mnist]'")
  monkeypatch.delenv("NETS_JAX_MNIST_DIR", raising=False)
  monkeypatch.setattr(tfds, "_reachable", lambda url: False)
  with pytest.raises(nets_jax.UsageError, match=r"by --manual_dir \(or NETS_JAX_MNIST_DIR\)"):
    nets_jax.load_data("mnist", data_dir=str(tmp_path))


def test_a_set_that_was_prepared_in_another_format(tmp_path):
  """As by `tfds.load` with its defaults."""
  pytest.importorskip("tensorflow_datasets")
  (tmp_path / "mnist" / "3.0.1").mkdir(parents=True)
  described = {"name": "mnist", "version": "3.0.1", "fileFormat": "tfrecord"}
  (tmp_path / "mnist" / "3.0.1" / "dataset_info.json").write_text(json.dumps(described))
  (tmp_path / "mnist" / "3.0.1" / "features.json").write_text("{}")
  with pytest.raises(nets_jax.UsageError, match="was prepared in another format than array_record"):
    nets_jax.load_data("mnist", data_dir=tmp_path)


def test_a_server_that_does_not_answer_is_unreachable():
  assert not tfds._reachable("http://127.0.0.1:9/file", seconds=2.0)


def test_a_data_set_is_shown_by_its_sizes():
  data = nets_jax.load_data("xor", xor_train_size=100, xor_test_size=50)
  assert repr(data.train) == "Split(inputs (90, 2), labels (90,))"
  assert repr(data).startswith("Dataset(train=Split(inputs (90, 2), labels (90,)), valid=Split(inputs (10,")
  assert len(repr(jax.eval_shape(lambda: data))) < 300
  of_one = jax.tree.map(lambda leaf: leaf[0], data.train)
  assert repr(of_one) == "Split(inputs (2,), labels ())"


@pytest.mark.parametrize("mean", [np.zeros((4, 4, 1)), 0.5, None, np.array([np.nan]), np.zeros(2)])
def test_a_data_set_of_ones_own_may_have_any_mean(mean):
  """A file says by what inputs are standardised only where that is a number for each channel."""
  data = nets_jax.load_data("xor", xor_train_size=100, xor_test_size=50)
  data = data.replace(mean=mean, deviation=np.ones(2))
  known = provenance({"search": "guided"}, data, 0)
  assert (known.mean, known.deviation) == ((), ())


def test_a_ticket_says_how_inputs_and_targets_are_standardised():
  rng = np.random.default_rng(0)
  data = nets_jax.from_arrays(rng.normal(3, 2, (100, 2)), rng.normal(5, 4, 100))
  known = provenance({"search": "guided"}, data, 0)
  for name in ("mean", "deviation", "target_mean", "target_deviation"):
    assert getattr(known, name) == tuple(getattr(data, name).tolist())
