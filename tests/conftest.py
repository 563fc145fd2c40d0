"""A hostile harness: fake CPU devices, rank promotion raises, our own warnings are errors."""

import contextlib
import csv
import functools
import gc
import os
import re
import pathlib
import shutil
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Programs that several tests, workers and sub-processes share are compiled once per session.
if "PYTEST_XDIST_WORKER" not in os.environ:
  _CACHE = tempfile.TemporaryDirectory(prefix="nets_jax_test_cache")
  os.environ["JAX_COMPILATION_CACHE_DIR"] = _CACHE.name
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
# Compiling is most of the suite, and takes less than half the time without LLVM's optimisation; a third with
# XLA's older emitters besides. These do not keep the bits from one program to another, so only the
# default group and `zoo` have them: others compare bits. test_bits.py has the programs that users get.
QUICK, QUICKER = "--xla_backend_optimization_level=0", "--xla_cpu_use_fusion_emitters=false"
WITH_OLDER_EMITTERS = (
  0,
  11,
)  # jaxlib's versions before this; XLA ends the process at a flag it does not know

import hypothesis
import jax
import numpy as np
import pytest
from absl import flags

import jaxtyping

jaxtyping.install_import_hook("nets_jax", "shape_checks.check_shapes")

hypothesis.settings.register_profile("house", deadline=None)  # a busy machine is no fault of a program
hypothesis.settings.load_profile("house")

# Tracing makes millions of small objects that live on; a pass over all of them for every few hundred is dear.
gc.freeze()
gc.set_threshold(100_000, 20, 20)

import nets_jax
from nets_jax.engine import interrupts
from nets_jax.cli import plugin_flags, search, setting_flags
from nets_jax.changes import change
from nets_jax.settings import names

STRANGER = pathlib.Path(__file__).parent / "plugins"
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure(config):
  """Before the first computation, when XLA reads its flags. One device is compiled for fastest."""
  chosen = config.option.markexpr
  is_exact = not chosen.startswith(("not ", "zoo and not"))  # these two groups compare no bits of programs
  jax.config.update("jax_num_cpu_devices", 4 if is_exact else 1)
  has_older = jax.version.__version_info__[:2] < WITH_OLDER_EMITTERS
  quick = f"{QUICK} {QUICKER}" if has_older and not is_exact else QUICK
  os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {quick}"


@pytest.fixture(scope="module", autouse=True)
def programs_let_go():
  """A worker's compiled programs end with the file they were made for; hundreds together once crashed it."""
  yield
  jax.clear_caches()


@pytest.fixture(scope="session")
def data():
  """A small, learnable problem of 6 inputs and 3 classes."""
  rng = np.random.default_rng(0)
  centres = rng.normal(size=(3, 6)) * 2
  labels = rng.integers(0, 3, 120)
  return nets_jax.from_arrays(centres[labels] + rng.normal(size=(120, 6)), labels)


@pytest.fixture(scope="session")
def network():
  return nets_jax.MLP(hidden_sizes=(8, 5), num_classes=3)


@pytest.fixture(scope="session")
def task(network, data):
  return nets_jax.Task(network, data, nets_jax.Training(learning_rate=0.2, batch_size=12))


@pytest.fixture(scope="session")
def ticket(network, data):
  """A ticket with about 60 % of its weights."""
  from nets_jax.tickets.ticket import initialise

  return initialise(jax.random.key(3), network, data.input_shape, initialiser=0.5, initial_density=0.6)


@pytest.fixture(scope="session")
def mnist_directory():
  """The directory of the four original MNIST files; tests that need it skip elsewhere."""
  directory = os.environ.get("NETS_JAX_MNIST_DIR")
  if not directory:
    pytest.skip("NETS_JAX_MNIST_DIR does not name the directory of the original MNIST files")
  pytest.importorskip("tensorflow_datasets", reason="pip install -e '.[mnist]'")
  return directory


@pytest.fixture(scope="session")
def mnist_data_dir(mnist_directory, tmp_path_factory):
  """A TFDS directory with MNIST prepared from the original files, and its arrays cached."""
  directory = tmp_path_factory.mktemp("tfds")
  nets_jax.load_data("mnist", data_dir=str(directory), manual_dir=mnist_directory)
  return str(directory)


def assert_same_bits(a, b):
  """Every leaf of two trees has the same type, shape and bits."""
  leaves_a, tree_a = jax.tree.flatten(a)
  leaves_b, tree_b = jax.tree.flatten(b)
  assert tree_a == tree_b
  for x, y in zip(leaves_a, leaves_b, strict=True):
    x, y = np.asarray(x), np.asarray(y)
    assert x.dtype == y.dtype
    np.testing.assert_array_equal(x.view(np.uint8) if x.ndim else x, y.view(np.uint8) if y.ndim else y)


def changed(task, search, **changes):
  """A task and a search with other settings, each with those of its own."""
  own = {name: changes.pop(name) for name in names(task) if name in changes}
  return change(task, own), search.change(**changes)


def without_seconds(rows):
  """A history but for its timings."""
  return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def assert_same_results(ones, others):
  """Of searches: the same tickets, histories, epochs and frontiers."""
  for one, other in zip(ones, others, strict=True):
    assert_same_bits(jax.device_get(one.ticket), jax.device_get(other.ticket))
    assert without_seconds(one.history) == without_seconds(other.history)
    assert one.cost.epochs == other.cost.epochs
    for a, b in zip(one.frontier, other.frontier, strict=True):
      assert_same_bits(a.ticket, b.ticket)
      assert without_seconds([a.row]) == without_seconds([b.row])


def table(path):
  """The rows of a CSV file, as they are written."""
  with open(path, newline="") as file:
    return list(csv.DictReader(file))


def squeezed(text):
  """A Markdown table without the padding of its cells."""
  return re.sub(r" {2,}", " ", text)


def made_once(kept, place, make):
  """What `make` leaves at a place: made by the first test that asks, copied from `kept` for the others."""
  if kept.exists():
    shutil.copytree(kept, place)
  else:
    status, _, error = make()
    assert status == 0, error
    shutil.copytree(place, kept)
  return place


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  """Where a module keeps one finished job for several tests; see `made_once`."""
  return tmp_path_factory.mktemp("finished") / "out"


def reset_flags():
  """Every flag of the binaries back to its default, as in a new process."""
  for module, own in flags.FLAGS.flags_by_module_dict().items():
    if module.startswith(("experiments.", "nets_jax.")):
      for flag in own:
        flag.unparse()


@pytest.fixture
def run_binary(tmp_path, monkeypatch, capsys):
  """Runs a binary in this process, in an empty directory: (exit status, standard output, standard error)."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(nets_jax, "use_cpu_cores", lambda count: None)  # JAX has started already
  monkeypatch.setattr(interrupts, "install", lambda: None)  # signals are pytest's

  def run(job, *arguments):
    reset_flags()
    status = 0
    try:
      job.main(job.parse([job.__name__, *arguments]))
    except SystemExit as error:
      status = error.code
    output = capsys.readouterr()
    return status, output.out, output.err

  yield run
  reset_flags()


@pytest.fixture
def job(run_binary):
  """`experiments.search` in this process."""
  return functools.partial(run_binary, search)


@pytest.fixture
def stranger(monkeypatch):
  """The package in `plugins` can be imported; what it brought to the flags is forgotten afterwards."""
  monkeypatch.syspath_prepend(STRANGER)
  yield
  for name in plugin_flags.BROUGHT:
    delattr(flags.FLAGS, name)
    setting_flags.DEFINED.pop(name)
    for known in (setting_flags.SEARCH, setting_flags.OF_A_METHOD):
      known.remove(name)
  plugin_flags.BROUGHT.clear()
  plugin_flags.OWN_SEARCHES.clear()


@contextlib.contextmanager
def counted_compilations():
  """Counts what XLA is asked to compile."""
  count = []
  listener = lambda event, *_, **__: count.append(event) if "backend_compile" in event else None  # noqa: E731
  jax.monitoring.register_event_duration_secs_listener(listener)
  try:
    yield count
  finally:
    # JAX 0.8 cannot; there it goes on counting in a list that nobody reads.
    getattr(jax.monitoring, "unregister_event_duration_listener", lambda _: None)(listener)
