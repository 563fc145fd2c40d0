"""What a stranger brings, `plugins/stranger`, in the library; what a file names is never imported."""

import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from conftest import assert_same_bits

import nets_jax
from nets_jax import plugins, searches
from nets_jax.data import files
from nets_jax.networks.zoo import make_network
from nets_jax.tickets import storage

ROOT = pathlib.Path(nets_jax.__file__).parent.parent
pytestmark = pytest.mark.usefixtures("stranger")


def metadata(path):
  return storage.read(path)[1]


def save_rings(path, **changes):
  from stranger.data import rings

  np.savez(path, **{**rings(), **changes})


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("stranger", "names nothing of a module; write package.module:name"),
    ("stranger.networks:Skip(5)", "every argument needs its name"),
    ("stranger.networks:Skip(**{'width': 5})", "every argument needs its name"),
    ("stranger.networks:Skip(width=5)(3)", "cannot read the arguments"),
    ("stranger.networks:Skip(width=)", "cannot read the arguments"),
    ("stranger.networks:Skip(width=__import__('os'))", "width must be a literal"),
    ("stranger.networks:Skip(width=[1] * 10)", "width must be a literal"),
    (
      "nowhere.at:all",
      "there is no module 'nowhere' .of nowhere.at:all.; start in the directory",
    ),
    ("stranger.nowhere:all", "there is no module 'stranger.nowhere'"),
    ("stranger.networks:Skp", "stranger.networks has no 'Skp'; did you mean Skip?"),
    (
      "stranger.networks:Skip(wdth=5)",
      "it takes no argument 'wdth', but num_classes, width; did you mean width?",
    ),
    (
      "stranger.networks:Skip(width=5)",
      r"it needs num_classes; write stranger.networks:Skip\(num_classes=...\)",
    ),
    ("stranger.broken:all", "importing stranger.broken failed: ValueError: of two lines; mend the module"),
    (
      "stranger.lacking:all",
      "importing stranger.lacking failed: ModuleNotFoundError: No module named 'nothing_'",
    ),
    ("stranger.data:rings(examples='ten')", r"stranger.data:rings\(examples='ten'\) failed: TypeError"),
    ("stranger.data:np()", "stranger.data:np takes no arguments, for it is made already"),
  ],
)
def test_what_cannot_be_loaded_is_said_on_one_line(tmp_path, monkeypatch, text, message):
  (tmp_path / "broken.py").write_text("raise ValueError('a story\\nof two lines')\n")
  (tmp_path / "lacking.py").write_text("import nothing_\n")
  import stranger

  monkeypatch.setattr(stranger, "__path__", [*stranger.__path__, str(tmp_path)])
  with pytest.raises(nets_jax.UsageError, match=message) as error:
    plugins.load(text)
  assert "\n" not in str(error.value)


def test_what_is_offered_is_taken_where_it_fits():
  assert plugins.load("stranger.networks:Skip(width=5)", num_classes=3, colour="red").num_classes == 3
  assert plugins.load("stranger.networks:Skip(num_classes=7)", num_classes=3).num_classes == 7
  assert plugins.load("stranger.data:np") is np


# The library: data, network, search.


def test_data_of_ones_own():
  from stranger.data import rings

  made = nets_jax.load_data("stranger.data:rings(examples=90)", seed=4)
  assert_same_bits(made, nets_jax.from_arrays(**rings(90, seed=4), seed=4))
  fixed = nets_jax.load_data("stranger.data:rings(examples=90,seed=1)", seed=4)
  assert_same_bits(fixed, nets_jax.from_arrays(**rings(90, seed=1), seed=4))


def test_data_of_a_file(tmp_path):
  from stranger.data import rings

  save_rings(tmp_path / "a.npz")
  assert_same_bits(
    nets_jax.load_data(str(tmp_path / "a.npz"), seed=2), nets_jax.from_arrays(**rings(), seed=2)
  )
  other = rings(seed=5)
  save_rings(tmp_path / "b.npz", test_inputs=other["inputs"], test_labels=other["labels"])
  wanted = nets_jax.from_arrays(**rings(), test_inputs=other["inputs"], test_labels=other["labels"])
  assert_same_bits(nets_jax.load_data(str(tmp_path / "b.npz")), wanted)


@pytest.mark.parametrize(
  ("arrays", "message"),
  [
    ({"inputs": np.ones((9, 2))}, "has no labels; give inputs and labels"),
    ({"inputs": np.ones((9, 2)), "lables": np.ones(9, int)}, "has an array 'lables'; did you mean labels"),
    (
      {"inputs": np.ones((9, 2)), "labels": np.ones(9, int), "test_inputs": np.ones((9, 2))},
      "no test_labels",
    ),
    (
      {"inputs": np.array([{}]), "labels": np.ones(1, int)},
      "cannot be read as arrays of numbers .Object arrays",
    ),
    ({"inputs": np.ones((9, 2)), "labels": np.ones(8, int)}, "with one label each"),
  ],
)
def test_a_file_of_other_arrays_is_refused(tmp_path, arrays, message):
  np.savez(tmp_path / "a.npz", **arrays)
  with pytest.raises(nets_jax.UsageError, match=message):
    nets_jax.load_data(str(tmp_path / "a.npz"))


def test_a_file_of_words_is_refused_in_words(tmp_path):
  (tmp_path / "a.npz").write_text("inputs, labels")
  with pytest.raises(
    nets_jax.UsageError, match=r"numbers \(it is not in NumPy's format\); save it by numpy.savez"
  ):
    nets_jax.load_data(str(tmp_path / "a.npz"))


def test_a_damaged_file_is_refused(tmp_path):
  save_rings(tmp_path / "a.npz")
  content = (tmp_path / "a.npz").read_bytes()
  np.save(tmp_path / "one.npy", np.ones(3))
  for damaged in (content[:500], b"", b"text", (tmp_path / "one.npy").read_bytes()):
    (tmp_path / "a.npz").write_bytes(damaged)
    with pytest.raises(nets_jax.UsageError, match="cannot be read as arrays of numbers"):
      files.npz_arrays(tmp_path / "a.npz")
  with pytest.raises(nets_jax.UsageError, match="there is no data file"):
    nets_jax.load_data(str(tmp_path / "b.npz"))


def test_a_function_must_give_data(monkeypatch):
  import stranger.data

  for value, message in (
    (3, "gave a int; it must give a nets_jax.Dataset"),
    ((1, 2, 3), "gave a tuple"),
    ({"inputs": np.ones((9, 2))}, "has no labels"),
    ((np.ones((9, 2)), np.ones(8, int)), "stranger.data:given: training inputs must be"),
  ):
    monkeypatch.setattr(stranger.data, "given", lambda value=value: value, raising=False)
    with pytest.raises(nets_jax.UsageError, match=message):
      nets_jax.load_data("stranger.data:given")
  own = nets_jax.load_data("xor", xor_train_size=50)
  monkeypatch.setattr(stranger.data, "given", lambda: own)
  assert nets_jax.load_data("stranger.data:given") is own
  monkeypatch.setattr(stranger.data, "given", lambda: (np.ones((90, 2)), np.arange(90) % 3))
  assert nets_jax.load_data("stranger.data:given").num_classes == 3


def test_a_network_of_ones_own():
  from stranger.networks import Skip

  assert make_network("stranger.networks:Skip(width=5)", 3) == Skip(num_classes=3, width=5)
  with pytest.raises(nets_jax.UsageError, match=r"write hidden_sizes in the parentheses of stranger\."):
    make_network("stranger.networks:Skip", 3, (5,))
  with pytest.raises(nets_jax.UsageError, match=r"network must be a flax\.linen module, not dict"):
    make_network("stranger.data:rings", 3)


def test_the_ticket_file_says_by_what_its_network_was_made(tmp_path):
  from stranger.networks import Skip

  for text, wanted in (
    ("stranger.networks:Skip(width=5)", {"width": 5, "num_classes": 3}),
    ("stranger.networks:tower(sizes=(4,3))", {"sizes": [4, 3], "num_classes": 3}),
  ):
    network = make_network(text, 3)
    ticket = nets_jax.random_ticket(jax.random.key(0), network, (2,), 0.5)
    nets_jax.save_ticket(tmp_path / "t", ticket, nets_jax.Task(network, None).network)
    stored = metadata(tmp_path / "t")
    assert stored["network"] == text.partition("(")[0]
    assert stored["network_arguments"] == wanted
    assert_same_bits(nets_jax.load_ticket(tmp_path / "t"), jax.device_get(ticket))
  nets_jax.save_ticket(tmp_path / "t", ticket, Skip(num_classes=3, width=77))  # not made by its name
  assert metadata(tmp_path / "t")["network"] == "Skip"
  assert "network_arguments" not in metadata(tmp_path / "t")


def test_opening_a_ticket_imports_nothing(tmp_path):
  """In a new process, which would end if the module that the file names were imported."""
  (tmp_path / "trap.py").write_text("import sys\nprint('imported')\nsys.exit(3)\n")
  network = make_network("stranger.networks:Skip(width=5)", 3)
  ticket = nets_jax.random_ticket(jax.random.key(0), network, (2,), 0.5)

  def named(network):
    return {"network": "trap:Net", "network_arguments": {"width": 5, "note": "\x1b[2J" + "x" * 1000}}

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(storage, "network_metadata", named)
    nets_jax.save_ticket(tmp_path / "t", ticket, network)
  code = f"""
import nets_jax
nets_jax.load_ticket({str(tmp_path / "t")!r})
try:
  nets_jax.load_network({str(tmp_path / "t")!r})
except nets_jax.UsageError as error:
  print(error)
"""
  environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
  assert done.returncode == 0, done.stderr
  assert "is for the network 'trap:Net', which is not one of nets_jax; give" in done.stdout
  assert "--network=trap:Net(width=5,note=" in done.stdout
  assert "imported" not in done.stdout
  assert "\x1b" not in done.stdout
  assert len(done.stdout) < 700


@pytest.mark.parametrize("arguments", [None, 3, [1], {"width": {"a": [1, None]}}, {"": 1}])
def test_damaged_arguments_are_no_harm(tmp_path, monkeypatch, arguments):
  network = make_network("stranger.networks:Skip(width=5)", 3)
  ticket = nets_jax.random_ticket(jax.random.key(0), network, (2,), 0.5)
  found = {"network": "trap:Net", "network_arguments": arguments}
  monkeypatch.setattr(storage, "network_metadata", lambda network: found)
  nets_jax.save_ticket(tmp_path / "t", ticket, network)
  with pytest.raises(nets_jax.UsageError, match="network 'trap:Net', which is not one of nets_jax"):
    nets_jax.load_network(tmp_path / "t")


def test_a_search_of_ones_own_by_its_name():
  from stranger.searches import Flip, Halves

  assert searches.make("stranger.searches:Halves", {"share": 0.3}) == Halves(share=0.3)
  assert searches.make("stranger.searches:Halves(share=0.4)") == Halves(share=0.4)
  made = searches.make("stranger.searches:flipping", {"flip_rate": 0.2, "elites": 2})
  assert made.operators[1] == Flip(0.2)
  assert made.elites == 2
  with pytest.raises(nets_jax.UsageError, match="Halves has no setting 'elites'; those that have"):
    searches.make("stranger.searches:Halves", {"elites": 2})


def test_what_is_no_search_is_refused(monkeypatch):
  import stranger.searches as module

  class Plain(nets_jax.Search):
    def find(self, keys, task, how):
      return []

  monkeypatch.setattr(module, "Plain", Plain, raising=False)
  monkeypatch.setattr(module, "Empty", nets_jax.Search, raising=False)
  for name, message in (
    ("networks:Skip", "stranger.networks:Skip is no search; derive it from nets_jax.Search"),
    ("data:rings", "stranger.data:rings gave a dict; it must give a nets_jax.Search"),
    ("searches:Plain", "in test_plugins, decorate Plain with nets_jax.dataclass, so that"),
    ("searches:Halves(shar=1)", "it takes no argument 'shar', but share; did you mean share?"),
  ):
    with pytest.raises(nets_jax.UsageError, match=message.replace("(", r"\(").replace(")", r"\)")):
      searches.make(f"stranger.{name}")
  bare = nets_jax.dataclass(type("Bare", (nets_jax.Search,), {}))
  monkeypatch.setattr(module, "Bare", bare, raising=False)
  with pytest.raises(nets_jax.UsageError, match=r"has no find\(keys, task, how\); write one"):
    searches.make("stranger.searches:Bare")


def test_a_hash_tells_all_of_a_search_of_ones_own():
  name = "stranger.searches:Halves"
  found = searches.make(name).identity()
  assert found["search"] == "stranger.searches.Halves"
  assert found["share"] == 0.5  # a default that its owner may change
  assert searches.make(name, {"share": 0.3}).identity() != found
  spaced = searches.make(f"{name}( share = 0.3 )").identity()
  assert spaced == searches.make(f"{name}(share=0.3)").identity()
