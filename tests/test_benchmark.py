"""The benchmark runs and counts its work; how fast it goes is not asserted."""

import math
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

import nets_jax
from experiments.benchmarking import cases, measure, memory, network_cases, peers, search_cases, table
from nets_jax.baselines.random_tickets import random_ticket
from nets_jax.engine.tables import read_csv
from nets_jax.networks.zoo import lenet_300_100

ROOT = pathlib.Path(nets_jax.__file__).parent.parent
COMMAND = (
  sys.executable, "-m", "experiments.benchmark", "--dataset=xor", "--xor_train_size=100", "--hidden_sizes=6",
  "--populations=2", "--peer_population=2", "--imp_epochs=1", "--fitness_epochs=1", "--batch_size=10",
  "--repeats=2", "--limit_side=64", "--devices=2",
)  # fmt: skip


@pytest.fixture(scope="module")
def done(tmp_path_factory):
  """One run of everything but the scaling, as on a machine without bfloat16; what it printed and said."""
  directory = tmp_path_factory.mktemp("benchmark")
  without = "peer_cases.multiplies_bfloat16 = measure.multiplies_bfloat16 = lambda: False"
  done = patched(without, "--parts=limit,population,breeding,imp,peers", f"--workdir={directory}")
  return directory, done.stdout, done.stderr


@pytest.mark.devices
def test_it_leaves_a_table_and_a_figure(done):
  directory, printed, _ = done
  rows = read_csv(directory / "benchmark.csv")
  assert [row["part"] for row in rows][:4] == ["limit", "population", "breeding", "breeding"]
  assert rows[-1]["name"] == "limit, at the end"
  population, _, breeding, imp = rows[1:5]
  assert (population["population"], population["devices"], population["examples"]) == (2, 2, 90)
  assert population["seconds_low"] <= population["seconds"] <= population["seconds_high"]
  assert population["share_of_limit"] > 0
  assert population["genome_epochs_per_second"] == pytest.approx(2 / population["seconds"])
  assert breeding["times_the_first"] > 0
  assert imp["genome_epochs_per_second"] == pytest.approx(5 / imp["seconds"])
  assert (directory / "benchmark.md").read_text() in printed
  assert (directory / "benchmark.md").read_text().count("\n") == len(rows) + 2
  assert (directory / "figure_benchmark.png").stat().st_size > 10_000


@pytest.mark.devices
def test_peers_do_the_same_work_or_say_why_not(done):
  directory, _, said = done
  found = {row["name"]: row for row in read_csv(directory / "benchmark.csv") if row["part"] == "peers"}
  names = list(found)
  assert names[:3] == [
    "nets_jax, a whole generation",
    "JAX, Python loop of jitted epochs",
    "JAX, vmap on one device",
  ]
  assert found[names[0]]["times_the_first"] == 1
  assert all(found[name]["loss_difference"] < 1e-5 for name in names[1:])
  for name in ("PyTorch, eager loop", "PyTorch, torch.compile", "PyTorch, torch.func.vmap"):
    assert name in found or f"peers: {name} skipped" in said


def patched(change, *words):
  """Runs the benchmark with something of it changed."""
  code = f"from experiments.benchmarking import measure, peer_cases\n{change}\n"
  code += "from nets_jax.cli.command import start\nstart(measure)"
  command = [sys.executable, "-c", code, *COMMAND[3:], *words]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  return done


@pytest.mark.devices
def test_the_search_and_its_tickets_from_cold_caches(tmp_path):
  patched(
    "measure.TICKETS = {0.05: (0.5,)}", "--parts=guided,compact", "--compact_epochs=1", "--repeats=1",
    "--batch_size=2", f"--workdir={tmp_path}",
  )  # fmt: skip
  rows = read_csv(tmp_path / "benchmark.csv")
  paper, warm, cold = (row for row in rows if row["part"] == "guided")
  assert paper["times_the_first"] == 1
  assert paper["genome_epochs_per_second"] * paper["seconds"] == pytest.approx(
    cold["genome_epochs_per_second"] * cold["seconds"]
  )
  assert cold["seconds"] > warm["seconds"]  # by seconds of compiling
  compact, whole = (row for row in rows if row["part"] == "compact")
  assert (compact["density"], compact["structured"]) == (whole["density"], whole["structured"]) == (0.05, 0.5)
  assert 0 < compact["multiplications"] <= whole["multiplications"] == 1
  assert whole["name"] == "5%, structured 0.5, 1 epochs: whole"


def test_what_was_compiled_is_compiled_again_in_the_cold():
  seen = []
  double = jax.jit(lambda x: seen.append(x) or 2 * x)
  for _ in range(2):
    double(1.0)
  assert len(seen) == 1
  with search_cases.cold():
    double(1.0)
  assert len(seen) == 2


@pytest.mark.devices
@pytest.mark.parametrize("name", ["lenet5", "resnet8"])
def test_a_step_of_a_convolutional_network_is_the_peers_or_it_says_why_not(name, monkeypatch, capsys):
  shape, _, _ = network_cases.SETTINGS[name]
  monkeypatch.setitem(network_cases.SETTINGS, name, (shape, 2, 4))
  ours, *peers = network_cases.network_cases(name, 2)
  assert ours.run() > 0
  if peers:
    assert peers[0].about["loss_difference"] < 1e-4
  else:
    assert "PyTorch skipped: torch is not installed" in capsys.readouterr().err


@pytest.mark.parametrize(
  ("argument", "message"),
  [
    ("--elites=99", "elites must be from 0"),
    (
      "--parts=speed",
      "parts may be limit, population, breeding, imp, peers, scaling, networks, guided, compact, not 'speed'",
    ),
    ("--populations=two", "populations must be whole numbers"),
    ("--convolutional=mlp", "convolutional may be lenet5, conv2, resnet8, resnet20, not 'mlp'"),
    ("--activation=tanh", "the peers know sgd of a rate and batch_size alone, cross_entropy"),
    ("--momentum=0.5", "the peers know sgd of a rate and batch_size alone, cross_entropy"),
  ],
)
def test_a_wrong_request_is_one_line(argument, message, tmp_path):
  run = [*COMMAND, "--parts=peers", argument, f"--workdir={tmp_path}/run"]
  done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 2
  assert done.stderr.startswith(f"error: {message}")


def test_the_work_of_lenet_is_counted_as_the_notes_say():
  ticket = random_ticket(jax.random.key(0), lenet_300_100(), (28, 28, 1), 1.0)
  assert cases.training_flops(ticket, 54_000) == 54_000 * (6 * 266_200 - 2 * 235_200)


def test_cases_take_turns_and_ratios_are_within_a_repeat():
  turns = []
  took = {"a": iter([9.0, 1.0, 2.0]), "b": iter([9.0, 3.0, 10.0])}  # a first run each, then two repeats

  def case(name):
    return cases.Case("peers", name, lambda: turns.append(name) or next(took[name]), 8.0, 4.0)

  first, second = measure.measure([case("a"), case("b")], repeats=2, limit=lambda: 2.0)
  assert turns == ["a", "b"] * 3
  assert (first["seconds"], first["seconds_low"], first["seconds_high"]) == (1.5, 1, 2)
  assert (second["seconds"], second["times_the_first"]) == (6.5, (3 / 1 + 10 / 2) / 2)
  assert first["share_of_limit"] == (8 / 1 / 2 + 8 / 2 / 2) / 2
  assert second["genome_epochs_per_second"] == 4 / 6.5


def test_lines_of_an_earlier_run_are_kept_unless_measured_again(tmp_path):
  def row(part, name, seconds, **about):
    times = {"seconds": seconds, "seconds_low": seconds, "seconds_high": seconds, "share_of_limit": 0.5}
    return {"part": part, "name": name, **times, **about}

  def names():
    return [(line["name"], line["seconds"]) for line in table.earlier_rows(tmp_path)]

  assert table.earlier_rows(tmp_path) == []
  start, end = row("limit", "limit, at the start", 1.0), row("limit", table.LIMIT_AT_END, 1.0)
  first = [
    start,
    row("population", "k = 16", 2.0, population=16),
    row("population", "k = 2", 3.0, population=2),
    end,
  ]
  table.write(tmp_path, first)
  assert table.earlier_rows(tmp_path)[0] == first[0]  # without the columns of other lines
  assert [name for name, _ in names()] == [
    "limit, at the start",
    "k = 2",
    "k = 16",
    table.LIMIT_AT_END,
  ]
  again = row("population", "k = 2", 9.0, population=2)
  table.write(tmp_path, [*table.earlier_rows(tmp_path), again, row("imp", "IMP", 4.0)])
  assert names()[1:4] == [("k = 2", 9.0), ("k = 16", 2.0), ("IMP", 4.0)]


def test_devices_are_doubled_up_to_all():
  assert [measure.doubling(n) for n in (1, 2, 3, 8)] == [[1], [1, 2], [1, 2, 3], [1, 2, 4, 8]]


def test_peak_memory_is_that_of_the_stretch():
  memory.reset_peak()
  before = memory.peak()
  block = np.ones(40_000_000, np.float64)
  assert memory.peak() - before > 0.9 * block.nbytes
  del block
  memory.reset_peak()
  if sys.platform == "linux":
    assert memory.peak() - before < 160_000_000


def test_a_figure_of_one_part_alone():
  row = {
    "part": "devices",
    "name": "x",
    "devices": 2,
    "seconds": 1.0,
    "seconds_low": 0.9,
    "seconds_high": 1.1,
  }
  figure = table.figure([{**row, "share_of_limit": 0.5, "width": math.nan}])
  assert next(axes.get_xlabel() for axes in figure.axes if axes.get_visible()) == "devices"


@pytest.mark.devices
def test_peers_in_bfloat16_do_nearly_the_same_where_the_machine_can(tmp_path):
  """Had it such products; the numbers are the same on a machine that has not."""
  done = patched("peer_cases.multiplies_bfloat16 = lambda: True", "--parts=peers", f"--workdir={tmp_path}")
  found = {row["name"]: row for row in read_csv(tmp_path / "benchmark.csv")}
  assert "nets_jax, bfloat16" in found
  assert 0 < found["JAX, Python loop of jitted epochs, bfloat16"]["loss_difference"] < 0.1
  for name in peers.IN_BFLOAT16:
    assert name in found or f"peers: {name} skipped" in done.stderr
