import json
import subprocess

import flax.linen as nn
import jax
import numpy as np
import pytest
import safetensors.numpy
from conftest import assert_same_bits

import nets_jax
from nets_jax.engine import files
from nets_jax.engine.tables import read_csv, write_csv, write_json
from nets_jax.networks.zoo import lenet_300_100
from nets_jax.tickets.tensor_files import checksum


@pytest.fixture
def path(tmp_path, ticket, network):
  nets_jax.save_ticket(tmp_path / "ticket.safetensors", ticket, network)
  return tmp_path / "ticket.safetensors"


def test_a_ticket_comes_back_with_the_same_bits(path, ticket):
  assert_same_bits(nets_jax.load_ticket(path), ticket)


def test_anyone_can_read_the_file(path, ticket):
  tensors = safetensors.numpy.load_file(path)
  assert set(tensors) == {
    f"{part}/{layer}/{leaf}"
    for layer in ("hidden_0", "hidden_1", "output")
    for part, leaf in (("weights", "kernel"), ("weights", "bias"), ("masks", "kernel"))
  }
  assert tensors["masks/output/kernel"].dtype == np.bool_
  np.testing.assert_array_equal(tensors["weights/output/kernel"], ticket.weights["output"]["kernel"])


@pytest.mark.parametrize(
  "module",
  [
    nets_jax.MLP((8, 5), 3),
    nets_jax.MLP((7,), 2, use_bias=False, activation="tanh", dropout_rate=0.25),
    lenet_300_100(),
  ],
)
def test_the_file_says_what_network_it_is_for(tmp_path, module):
  ticket = nets_jax.random_ticket(jax.random.key(0), module, (4,), 0.5)
  nets_jax.save_ticket(tmp_path / "t", ticket, module)
  assert nets_jax.load_network(tmp_path / "t") == module


def test_a_module_of_ones_own_must_be_made_by_its_owner(tmp_path, ticket):
  nets_jax.save_ticket(tmp_path / "t", ticket, nn.Dense(3))
  assert_same_bits(nets_jax.load_ticket(tmp_path / "t"), ticket)
  with pytest.raises(nets_jax.UsageError, match="network 'Dense', which is not one of nets_jax"):
    nets_jax.load_network(tmp_path / "t")


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "float8_e4m3fn", "float8_e3m4"])
def test_every_floating_type_comes_back_exactly(tmp_path, ticket, network, name):
  cast = ticket.replace(weights=jax.tree.map(lambda leaf: leaf.astype(name), ticket.weights))
  nets_jax.save_ticket(tmp_path / "t", cast, network)
  assert_same_bits(nets_jax.load_ticket(tmp_path / "t"), cast)


def test_64_bits_are_not_cut_without_a_word(tmp_path, ticket, network):
  wide = ticket.replace(weights=jax.tree.map(lambda leaf: np.asarray(leaf, np.float64) / 3, ticket.weights))
  nets_jax.save_ticket(tmp_path / "t", wide, network)
  with pytest.raises(
    nets_jax.UsageError, match="64-bit weights, which JAX would cut to 32 bits; set JAX_ENABLE"
  ):
    nets_jax.load_ticket(tmp_path / "t")
  with jax.enable_x64(True):
    assert_same_bits(nets_jax.load_ticket(tmp_path / "t").weights, wide.weights)


def test_the_order_of_layers_is_kept(tmp_path, ticket, network):
  backwards = ticket.replace(layers=ticket.layers[::-1])
  nets_jax.save_ticket(tmp_path / "t", backwards, network)
  assert nets_jax.load_ticket(tmp_path / "t").layers == backwards.layers
  nets_jax.save_ticket(tmp_path / "t", ticket.replace(layers=()), network)
  assert nets_jax.load_ticket(tmp_path / "t").layers == ()


def with_masks(ticket, change):
  return ticket.replace(masks=jax.tree.map(change, ticket.masks))


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda t: nets_jax.stack([t, t]), r"this is a population of tickets; save each of them"),
    (lambda t: nets_jax.stack([t, t]).replace(layers=()), "this is a population of tickets"),
    (lambda t: with_masks(t, np.zeros_like), "this ticket keeps no weight, so there is nothing to train"),
    (lambda t: with_masks(t, lambda m: m.astype(float)), "the mask of hidden_0 must be bool"),
    (lambda t: with_masks(t, lambda m: m[:2]), "the mask of hidden_0 must be bool and of its weights' shape"),
    (
      lambda t: t.replace(weights=jax.tree.map(lambda w: w.astype(int), t.weights)),
      "a ticket's weights are floating point numbers, but hidden_0/bias has int32",
    ),
    (
      lambda t: t.replace(weights=jax.tree.map(lambda w: w + np.inf, t.weights)),
      "hidden_0/bias has weights that are NaN or infinite",
    ),
  ],
)
def test_what_could_not_be_loaded_is_not_saved(tmp_path, ticket, network, change, message):
  with pytest.raises(nets_jax.UsageError, match=message):
    nets_jax.save_ticket(tmp_path / "t", change(ticket), network)
  assert not (tmp_path / "t").exists()


def test_a_population_of_a_module_of_ones_own_is_known_too(tmp_path):
  class Own(nn.Module):
    @nn.compact
    def __call__(self, x):
      return nn.Conv(2, (3, 3))(x).mean((1, 2))

  ticket = nets_jax.random_ticket(jax.random.key(0), Own(), (4, 4, 1), 0.5)
  nets_jax.save_ticket(tmp_path / "t", ticket, Own())
  assert_same_bits(nets_jax.load_ticket(tmp_path / "t"), ticket)
  with pytest.raises(nets_jax.UsageError, match="this is a population"):
    nets_jax.save_ticket(tmp_path / "t", nets_jax.stack([ticket, ticket]), Own())


def test_a_missing_file(tmp_path):
  with pytest.raises(nets_jax.UsageError, match="there is no ticket file"):
    nets_jax.load_ticket(tmp_path / "none")


@pytest.mark.parametrize("keep", [0, 5, 100, 0.5, -1])
def test_a_file_cut_short(path, keep):
  content = path.read_bytes()
  path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
  with pytest.raises(nets_jax.UsageError, match="is not a whole safetensors file"):
    nets_jax.load_ticket(path)


def rewritten(path, tensors=None, metadata=None):
  old = safetensors.numpy.load_file(path)
  with safetensors.safe_open(path, framework="numpy") as file:
    stored = json.loads(file.metadata()["nets_jax"])
  tensors = {**old, **(tensors or {})}
  stored = metadata if isinstance(metadata, str) else sealed(tensors, {**stored, **(metadata or {})})
  safetensors.numpy.save_file(tensors, path, {"nets_jax": stored})


def sealed(tensors, metadata):
  """The metadata with the checksum that they and the tensors ask for, as a forger would have them."""
  metadata.pop("sha256", None)
  return json.dumps({**metadata, "sha256": checksum(tensors, metadata)})


def test_the_same_ticket_gives_the_same_bytes(path, tmp_path, ticket, network):
  for i in range(5):
    nets_jax.save_ticket(tmp_path / str(i), ticket, network)
    assert (tmp_path / str(i)).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
  ("tensors", "metadata", "message"),
  [
    ({}, {"format_version": 99}, r"not a ticket of format version 2 or 3 \(its version: 99\)"),
    ({}, "{", r"not a ticket of format version 2 or 3 \(its version: none\)"),
    ({}, "[1]", r"not a ticket of format version 2 or 3 \(its version: none\)"),
    ({"trained/output/kernel": np.zeros(3, np.float32)}, {}, "'trained/output/kernel' .* has no place"),
    ({"weights/output/kernel": np.zeros((5, 3), np.int32)}, {}, "of type int32 has no place"),
    ({}, {"types": {"weights/output/kernel": "float64"}}, "its types are damaged"),
    ({}, {"types": {"weights/output/kernel": "int32"}}, "of type int32 has no place"),
    ({}, {"types": 3}, "its types are damaged"),
    ({}, {"layers": ["hidden_0", "output"]}, "its layers are not those of its masks"),
    ({}, {"layers": "output"}, "its layers are not those of its masks"),
    (
      {
        f"masks/{n}/kernel": np.zeros(s, bool)
        for n, s in (("hidden_0", (6, 8)), ("hidden_1", (8, 5)), ("output", (5, 3)))
      },
      {},
      "its masks keep no weight",
    ),
    (
      {f"{p}/output/kernel": np.ones((2, 5, 3), t) for p, t in (("masks", bool), ("weights", np.float32))},
      {},
      "not a ticket, but a population",
    ),
    (
      {"masks/output/kernel": np.ones((5, 4), bool)},
      {},
      r"masks/output/kernel has no weights of its shape \(5, 4\)",
    ),
    ({"weights/output/bias": np.full(3, np.nan, np.float32)}, {}, "NaN or infinite"),
    ({"weights/output/bias": np.full(3, np.inf, np.float32)}, {}, "NaN or infinite"),
    ({"masks/output/kernel": np.full((5, 3), 2, np.uint8).view(bool)}, {}, "masks are not binary"),
    (
      {"weights/output/bias/x": np.zeros(3, np.float32)},
      {},
      "weights/output/bias is both a tensor and a layer",
    ),
    ({"weights/output//x": np.zeros(3, np.float32)}, {}, "has no place"),
    ({"weights/" + "a/" * 40 + "x": np.zeros(3, np.float32)}, {}, "has no place"),
    ({}, {"format_version": 1}, r"not a ticket of format version 2 or 3 \(its version: 1\)"),
  ],
)
def test_files_that_are_no_tickets(path, tensors, metadata, message):
  rewritten(path, tensors, metadata)
  with pytest.raises(nets_jax.UsageError, match=message):
    nets_jax.load_ticket(path)


def test_a_changed_file_is_told_by_its_checksum(path, tmp_path):
  tensors = safetensors.numpy.load_file(path)
  tensors["masks/output/kernel"][0, 0] ^= True
  with safetensors.safe_open(path, framework="numpy") as file:
    safetensors.numpy.save_file(tensors, tmp_path / "changed", file.metadata())
  for load in (nets_jax.load_ticket, nets_jax.load_network):
    with pytest.raises(nets_jax.UsageError, match="changed is damaged: its checksum is wrong"):
      load(tmp_path / "changed")


@pytest.mark.parametrize(
  "arguments",
  [
    None, [], {"hidden_sizes": 3}, {"hidden_sizes": [8, 5], "colour": 1},
    {"hidden_sizes": [8, 5], "num_classes": -1},
    {"hidden_sizes": ["8"], "num_classes": 3}, {"hidden_sizes": [8, 10**12], "num_classes": 3},
    {"hidden_sizes": [8, 5], "num_classes": 3, "dropout_rate": "0"},
    {"hidden_sizes": [8, 5], "num_classes": 3, "activation": "rm"},
  ],
)  # fmt: skip
def test_damaged_metadata(path, arguments):
  rewritten(path, metadata={"network_arguments": arguments})
  with pytest.raises(nets_jax.UsageError, match="metadata are damaged"):
    nets_jax.load_network(path)


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
  target = tmp_path / "a" / "file"
  with files.replace_file(target) as temporary:
    temporary.write_text("first")
    assert not target.exists()

  def interrupted():
    with files.replace_file(target) as temporary:
      temporary.write_text("half")
      raise OSError("disk full")

  with pytest.raises(OSError, match="disk full"):
    interrupted()
  assert target.read_text() == "first"
  assert [p.name for p in target.parent.iterdir()] == ["file"]


def test_sealed_records_tell_what_is_damaged(tmp_path):
  (tmp_path / "in").mkdir()
  names = ("a.csv", "in/b.json", "c.safetensors")
  for name in (*names, "figure.png"):
    (tmp_path / name).write_text(name)
  assert files.damaged(tmp_path) == []
  files.seal(tmp_path)
  assert subprocess.run(["sha256sum", "-c", "--quiet", files.SEAL], cwd=tmp_path).returncode == 0
  (tmp_path / "figure.png").write_text("drawn again")
  (tmp_path / "new.csv").write_text("not sealed")
  assert files.damaged(tmp_path) == []
  (tmp_path / "a.csv").write_text("b.csv")
  (tmp_path / "in/b.json").unlink()
  assert files.damaged(tmp_path) == ["a.csv", "in/b.json"]
  (tmp_path / files.SEAL).write_bytes(b"\xff\n")
  assert files.damaged(tmp_path) == [files.SEAL]


def test_what_is_damaged_is_set_aside(tmp_path):
  for content in ("first", "second"):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "file").write_text(content)
    assert files.set_aside(tmp_path / "run") == tmp_path / "damaged-run"
    assert not (tmp_path / "run").exists()
    assert (tmp_path / "damaged-run" / "file").read_text() == content


@pytest.mark.parametrize("content", ["", "a,b\n", "a,b\n1\n", "a,b\n1,2,3\n", b"a,b\n\xff,1\n"])
def test_a_damaged_table_is_named(tmp_path, content):
  (tmp_path / "t.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
  with pytest.raises(nets_jax.UsageError, match=r"t\.csv is damaged; remove it"):
    read_csv(tmp_path / "t.csv")


def test_a_table_has_every_column_of_its_rows(tmp_path):
  write_csv(tmp_path / "t.csv", [{"a": 1}, {"a": 2, "b": "x"}])
  assert read_csv(tmp_path / "t.csv") == [{"a": 1, "b": ""}, {"a": 2, "b": "x"}]


def test_tables_keep_every_bit_of_a_float(tmp_path):
  rows = [{"name": "a", "x": float(np.float32(0.1))}, {"name": "b", "x": float("inf")}]
  write_csv(tmp_path / "t.csv", rows)
  assert read_csv(tmp_path / "t.csv") == rows


def test_json_is_standard(tmp_path):
  write_json(tmp_path / "s.json", {"a": float("nan"), "b": [1.5, float("inf")], "c": {"d": (1, None)}})
  assert json.loads((tmp_path / "s.json").read_text()) == {"a": None, "b": [1.5, None], "c": {"d": [1, None]}}


def test_a_loaded_ticket_trains_like_the_one_saved(path, ticket, network, data):
  task = nets_jax.Task(network, data, nets_jax.Training(learning_rate=0.1, batch_size=8), epochs=2)
  one, other = (
    nets_jax.train_tickets(jax.random.key(0), nets_jax.stack([t]), task).weights
    for t in (ticket, nets_jax.load_ticket(path))
  )
  assert_same_bits(jax.device_get(one), jax.device_get(other))


def test_how_a_search_multiplied_is_not_part_of_its_ticket(tmp_path, ticket, network):
  nets_jax.save_ticket(tmp_path / "ticket.safetensors", ticket, network.clone(precision="bfloat16"))
  assert nets_jax.load_network(tmp_path / "ticket.safetensors") == network
