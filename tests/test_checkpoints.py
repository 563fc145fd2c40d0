"""A loop that was stopped goes on to the same bits; whatever happens to its files is said."""

import pathlib
import random
import shutil

import jax
import numpy as np
import orbax.checkpoint
import pytest
from conftest import assert_same_bits, assert_same_results, changed, without_seconds

import nets_jax
from nets_jax.changes import change
from nets_jax.engine import journal
from nets_jax.engine.checkpoints import Checkpoints, Stopped
from nets_jax.engine.saved import Unsaved

SEARCH = nets_jax.recipes.paper(population_size=5, generations=5)


@pytest.fixture(scope="module")
def task(task):
  return change(task, {"learning_rate": 0.1, "batch_size": 8})


def stopping(directory, turns, **kwargs):
  """Checkpoints that ask to stop after some turns."""
  made = Checkpoints(directory, seconds=0, **kwargs)
  count = [0]

  def noted(*arguments, **keywords):
    count[0] += 1
    note(*arguments, **keywords)

  note, made.note = made.note, noted
  made._stop = lambda: count[0] >= turns
  return made


def in_pieces(run, directory, turns=2):
  """What a loop returns that is stopped every few turns, and how often it was."""
  for stops in range(100):
    checkpoints = stopping(directory, turns)
    try:
      return run(checkpoints), stops
    except Stopped:
      pass
    finally:
      checkpoints.close()
  raise AssertionError("it never ends")


@pytest.mark.devices
def test_a_search_in_pieces_is_the_whole_search(tmp_path, task):
  def search(saved, devices=4):
    keys = jax.random.split(jax.random.key(1), 2)
    searches = [SEARCH, SEARCH.change(generations=3, noise_rate=0.3)]
    return nets_jax.search_all(keys, task, searches, devices=devices, checkpoints=saved)

  whole = search(None)
  pieces, stops = in_pieces(search, tmp_path / "a", 3)
  assert stops >= 2
  assert_same_results(pieces, whole)

  # On other devices, and once more at its end, where nothing is left to do.
  with pytest.raises(Stopped, match="generation 2, which is saved"):
    search(stopping(tmp_path / "b", 3), 4)
  for _ in range(2):
    assert_same_results(search(Checkpoints(tmp_path / "b"), 3), whole)


@pytest.mark.devices
@pytest.mark.parametrize("rewind_steps", [0, 5])
def test_imp_in_pieces_is_the_whole_imp(tmp_path, task, rewind_steps):
  imp = nets_jax.Imp(cycles=2, cycle_epochs=3, rewind_steps=rewind_steps)
  own = changed(task, imp, learning_rate=0.01, optimizer="adam")

  def run(saved):
    return nets_jax.search_all(jax.random.split(jax.random.key(1), 2), *own, checkpoints=saved)

  whole = run(None)
  pieces, stops = in_pieces(run, tmp_path)
  assert stops >= 2
  assert_same_results(pieces, whole)
  assert_same_results(run(Checkpoints(tmp_path)), whole)


@pytest.mark.devices
def test_a_training_in_pieces_is_the_whole_training(tmp_path, task, network, data):
  tickets = nets_jax.stack(
    [nets_jax.random_ticket(jax.random.key(i), network, data.input_shape, 0.5) for i in range(3)]
  )
  task = change(task, {"eval_every": 3, "optimizer": "momentum", "learning_rate": 1e-3})

  def run(saved):
    return nets_jax.train_tickets(jax.random.key(0), tickets, task, steps=20, checkpoints=saved)

  whole = run(None)
  pieces, stops = in_pieces(run, tmp_path)
  assert stops >= 2
  assert_same_bits(pieces.weights, whole.weights)
  assert without_seconds(pieces.curves) == without_seconds(whole.curves)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, task):
  """A search stopped after generation 2, whose checkpoints are of turns 2 and 3."""
  directory = tmp_path_factory.mktemp("stopped")
  with pytest.raises(Stopped):
    nets_jax.search(jax.random.key(0), task, SEARCH, checkpoints=stopping(directory, 3))
  assert sorted(path.name for path in directory.iterdir()) == ["2", "3", "journal.csv"]
  return directory


def go_on(directory, task, search=SEARCH, key=0, **changes):
  told = []
  saved = Checkpoints(directory, tell=told.append)
  return nets_jax.search(jax.random.key(key), task.replace(**changes), search, checkpoints=saved), told


def test_it_says_where_it_goes_on(stopped, tmp_path, task):
  shutil.copytree(stopped, tmp_path / "run")
  assert go_on(tmp_path / "run", task)[1] == ["going on after generation 2"]


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"search": SEARCH.change(noise_rate=0.3)}, r"settings.noise_rate 0.1 there and 0.3 here"),
    ({"search": SEARCH.replace(generations=6)}, r"settings.generations 5 there and 6 here"),
    ({"key": 1}, r"keys \w+ there and \w+ here"),
    ({"network": nets_jax.MLP((9, 5), 3)}, r"network MLP"),
    ({"search": SEARCH.replace(operators=(*SEARCH.operators, lambda key, child, context: child))}, "parts "),
    ({"search": SEARCH.replace(operators=SEARCH.operators[::-1])}, "parts "),
    ({"training": nets_jax.Training("adam", 0.2, 12)}, r"training.optimizer sgd there and adam here"),
    ({"initialiser": 0.2}, r"settings.initialiser.init_scale 0.1 there and 0.2 here"),
  ],
)
def test_another_run_is_refused(stopped, tmp_path, task, changes, message):
  shutil.copytree(stopped, tmp_path / "run")
  before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
  with pytest.raises(nets_jax.UsageError, match=f"is of another run or version .*{message}"):
    go_on(tmp_path / "run", task, **changes)
  assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}


def test_another_version_is_refused(stopped, tmp_path, task, monkeypatch):
  shutil.copytree(stopped, tmp_path / "run")
  monkeypatch.setattr(jax, "__version__", "0.0.1")
  monkeypatch.setattr("nets_jax.engine.checkpoints.FORMAT_VERSION", 4)
  monkeypatch.setattr("importlib.metadata.version", lambda package: f"{package} of tomorrow")
  with pytest.raises(nets_jax.UsageError) as error:
    go_on(tmp_path / "run", task)
  assert "format_version 3 there and 4 here" in str(error.value)
  assert "versions.jaxlib " in str(error.value)


IDENTITY = {"of": "the test"}


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
  """Three turns of a loop that only counts; its checkpoints are of turns 2 and 3."""
  directory = tmp_path_factory.mktemp("kept")
  saved = Checkpoints(directory, seconds=0)
  assert saved.restore(lambda: IDENTITY) is None
  for i in range(1, 4):
    saved.note([{"turn": i, "x": 1 / i}], f"turn {i}", lambda i=i: (counted(i), {"i": i}))
  saved.close()
  assert sorted(path.name for path in directory.iterdir()) == ["2", "3", "journal.csv"]
  return directory


def counted(i):
  x = np.random.default_rng(0).normal(size=(5, 40)).astype(np.float32)
  return {"state": {"x": x + i, "mask": x > i, "count": np.int32(i)}}


def test_a_state_of_another_shape_names_its_field(kept):
  saved = Checkpoints(kept).restore(lambda: IDENTITY)
  like = counted(0)["state"]
  assert_same_bits(saved.tree("state", like), counted(3)["state"])
  with pytest.raises(nets_jax.UsageError, match=r"state.count is int32\[\] there and float32\[\] here"):
    saved.tree("state", {**like, "count": np.float32(0)})
  with pytest.raises(nets_jax.UsageError, match=r"state.colour is none there and int32\[3\] here"):
    saved.tree("state", {**like, "colour": np.zeros(3, np.int32)})


def damage(path, how, rng):
  content = bytearray(path.read_bytes())
  if how == "flip" and content:
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
  elif how == "cut" and content:
    del content[rng.randrange(len(content)) :]
  elif how == "zero" and content:
    at = rng.randrange(len(content))
    content[at : at + 40] = bytes(len(content[at : at + 40]))
  elif how == "grow":
    content += bytes(rng.randrange(1, 40))
  path.write_bytes(content)
  if how == "gone":
    path.unlink()


@pytest.mark.parametrize("how", ["flip", "cut", "zero", "grow", "gone"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(kept, tmp_path, how):
  rng, outcomes = random.Random(how), set()
  files = sorted(path.relative_to(kept) for path in [*(kept / "3").rglob("*"), kept / "journal.csv"])
  for attempt, name in enumerate(2 * [name for name in files if (kept / name).is_file()]):
    directory = tmp_path / str(attempt)
    shutil.copytree(kept, directory)
    damage(directory / name, how, rng)
    told = []
    saved = Checkpoints(directory, tell=told.append).restore(lambda: IDENTITY)
    turns = 0 if saved is None else saved.turns
    outcomes.add(turns)
    assert sum("is damaged (" in line for line in told) == 3 - max(turns, 1)
    assert {path.name for path in directory.glob("damaged-*")} == {
      f"damaged-{n}" for n in range(max(turns, 1) + 1, 4)
    }
    if saved is None:
      assert name.name == "journal.csv"
      assert told[-1] == f"no whole checkpoint is left in {directory}; beginning anew"
    else:
      assert told[-1] == f"going on after turn {turns}"
      assert (saved.at, saved.record) == (f"turn {turns}", {"i": turns})
      assert saved.rows == [{"turn": i, "x": 1 / i} for i in range(1, turns + 1)]
      assert_same_bits(saved.tree("state", counted(0)["state"]), counted(turns)["state"])
  assert outcomes >= {2}


def test_after_a_damaged_checkpoint_the_search_ends_as_it_would_have(stopped, tmp_path, task):
  whole = nets_jax.search(jax.random.key(0), task, SEARCH)
  for turns, line in ((["3"], "going on after generation 1"), (["3", "2"], "no whole checkpoint is left")):
    directory = tmp_path / line
    shutil.copytree(stopped, directory)
    for turn in turns:
      for file in (directory / turn).rglob("d/*"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    found, told = go_on(directory, task)
    assert_same_results([found], [whole])
    assert told[-1].startswith(line)


def test_nothing_is_unpacked_that_is_larger_than_its_file(kept, tmp_path, monkeypatch):
  """A file that was made to claim a terabyte."""
  directory = tmp_path / "run"
  shutil.copytree(kept, directory)
  monkeypatch.setattr(
    orbax.checkpoint.CheckpointManager,
    "item_metadata",
    lambda self, step: {"content": jax.ShapeDtypeStruct((1 << 40,), np.uint8)},
  )
  monkeypatch.setattr(orbax.checkpoint.CheckpointManager, "restore", None)
  told = []
  assert Checkpoints(directory, tell=told.append).restore(lambda: IDENTITY) is None
  assert "(it claims 1,099,511,627,776 bytes and has " in told[0]


@pytest.mark.parametrize("arguments", [{"every": 0}, {"seconds": -1}, {"seconds": float("nan")}])
def test_impossible_settings(tmp_path, arguments):
  with pytest.raises(nets_jax.UsageError, match="every 1 or more turns and 0 or more seconds"):
    Checkpoints(tmp_path, **arguments)


def test_checkpoints_are_as_often_as_asked(tmp_path, task):
  def made(**settings):
    directory = tmp_path / str(len(list(tmp_path.iterdir())))
    turns = []
    saved = Checkpoints(directory, **settings)
    save = saved._save
    saved._save = lambda: (turns.append(saved._turns), save())
    nets_jax.search(jax.random.key(0), task, SEARCH, checkpoints=saved)
    return turns

  assert made(seconds=0) == [1, 2, 3, 4, 5, 6]
  assert made(seconds=0, every=4) == [4, 6]  # the last is saved in any case
  assert made(seconds=1000) == [6]


def test_what_is_not_saved_is_waited_for():
  unsaved = Unsaved()
  unsaved.wait(jax.numpy.ones(3) + 1)
  assert unsaved.restore(lambda: 1 / 0) is None


def test_a_journal_grows_and_is_taken_up(tmp_path):
  rows = [{"n": i, "x": i / 3, "word": "a,b", "bad": float("nan") if i else float("inf")} for i in range(5)]
  one = journal.Journal(tmp_path / "deep" / "t.csv")
  one.add([])
  assert not one.path.exists()
  one.add(rows[:2])
  size, digest = one.size, one.digest()
  assert one.path.stat().st_size == size
  one.add(rows[2:3])
  one.close()
  other = journal.Journal(one.path)
  assert repr(other.read(size, digest)) == repr(rows[:2])  # NaN is not equal to itself
  other.resume(size)
  other.add(rows[2:])
  other.close()
  assert repr(journal.Journal(one.path).read(other.size, other.digest())) == repr(rows)
  with pytest.raises(nets_jax.UsageError, match=r"t.csv is not what it was then"):
    journal.Journal(one.path).read(size, other.digest())
  assert pathlib.Path(one.path).stat().st_size == other.size
