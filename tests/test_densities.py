"""Accuracy over density: the tickets of each method, IMP's on its way, the table that grows."""

import csv
import functools
import shutil

import numpy as np
import pytest

import nets_jax
from experiments import densities, methods, stages

TINY = (
  "--dataset=xor", "--activation=sigmoid", "--trials=2", "--xor_train_size=100", "--xor_test_size=40",
  "--hidden_sizes=6", "--population_size=3", "--generations=2", "--cycle_epochs=2", "--train_epochs=3",
  "--batch_size=10", "--learning_rate=0.05", "--workdir=out", "--devices=4", "--densities=0.7,0.5",
)  # fmt: skip
GUIDED = "nets:dormancy=guided:density_rule=schedule"


@pytest.fixture
def job(run_binary):
  return functools.partial(run_binary, densities)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  return tmp_path_factory.mktemp("finished") / "out"


@pytest.fixture
def done(job, finished, tmp_path):
  """A copy of a finished study, made once."""
  if not finished.exists():
    status, _, error = job(*TINY, f"--methods={GUIDED},imp,dense")
    assert status == 0, error
    shutil.copytree(tmp_path / "out", finished)
  else:
    shutil.copytree(finished, tmp_path / "out")
  return tmp_path / "out"


def table(path):
  with open(path, newline="") as file:
    return list(csv.DictReader(file))


def test_each_method_has_its_tickets_at_each_density(done):
  names = {p.name for p in done.iterdir()}
  figures = {f"figure_{kind}.{suffix}" for kind in ("densities", "cost") for suffix in ("png", "svg")}
  assert names == {"config.json", "densities.csv", "densities.md", "stages"} | figures
  rows = table(done / "densities.csv")
  places = [(row["method"], row["target_density"], row["trial"]) for row in rows]
  assert places == [
    (method, density, trial)
    for method, own in ((GUIDED, ("0.7", "0.5")), ("imp", ("0.7", "0.5")), ("dense", ("1.0",)))
    for density in own
    for trial in ("0", "1")
  ]
  by_density = {row["target_density"]: float(row["density"]) for row in rows if row["method"] == GUIDED}
  assert by_density == {"0.7": pytest.approx(0.7, abs=0.03), "0.5": pytest.approx(0.5, abs=0.03)}
  text = (done / "densities.md").read_text()
  assert "| method | 100 % | 70 % | 50 % |" in text
  assert f"| {GUIDED} |  | " in text


def test_imps_tickets_are_those_of_shorter_runs(done):
  """12 + 12 weights: 24, 20.4, 17.4 are nearest 70 and 50 % after 2 and 4 cycles or so."""
  rows = [row for row in table(done / "densities.csv") if row["method"] == "imp"]
  (whole,) = (p for p in (done / "stages").glob("imp-*") if (p / "cycle_1").exists())
  shorter = [p for p in (done / "stages").glob("imp-*") if p != whole]
  assert len(shorter) == 1
  costs = table(shorter[0] / "costs.csv")
  cycles = int(float(costs[0]["epochs"]) / 2)
  assert [row["search_epochs"] for row in rows] == [f"{2.0 * cycles}"] * 2 + [
    row["epochs"] for row in table(whole / "costs.csv")
  ]
  assert float(costs[0]["seconds"]) < float(table(whole / "costs.csv")[0]["seconds"])
  for trial in range(2):
    own, kept = (
      nets_jax.load_ticket(path)
      for path in (
        shorter[0] / f"ticket_{trial}.safetensors",
        whole / f"cycle_{cycles}" / f"ticket_{trial}.safetensors",
      )
    )
    assert float(nets_jax.density(own)) == float(nets_jax.density(kept)) == float(rows[trial]["density"])
  # A run of its own for so many cycles finds the same.
  values = densities.flags.FLAGS
  entrant = stages.make_entrant("imp", values, done / "alone", {"cycles": str(cycles)})
  stages.search_stage(entrant, densities.search_flags.make_data(values))
  for trial in range(2):
    name = f"ticket_{trial}.safetensors"
    assert (entrant.stage / name).read_bytes() == (shorter[0] / name).read_bytes()


def test_the_table_grows_and_nothing_runs_twice(done, job, monkeypatch):
  before = table(done / "densities.csv")
  assert job(*TINY, "--methods=random", "--densities=0.5")[0] == 0
  rows = table(done / "densities.csv")
  assert rows[: len(before)] == before
  assert [(row["method"], row["density"]) for row in rows[len(before) :]] == [("random", "0.5")] * 2
  monkeypatch.setattr(methods, "search_all", None)
  monkeypatch.setattr(nets_jax, "train_tickets", None)
  assert job(*TINY, f"--methods={GUIDED},imp,dense,random", "--densities=0.5")[0] == 0
  assert table(done / "densities.csv") == rows


def test_a_dense_network_alone_has_a_table_and_figures(tmp_path):
  row = {"trial": 0, "density": 1.0, "test_accuracy": 0.9, "search_epochs": 0.0, "search_seconds": 0.0}
  densities.write_outputs(tmp_path, [{"method": "dense", "target_density": 1.0, **row}])
  assert "| dense | 90.0 % (90.0 %; 0, 0 s) |" in (tmp_path / "densities.md").read_text()
  assert (tmp_path / "figure_cost.png").exists()


def test_the_nearest_cycle():
  values = densities.flags.FLAGS
  data = nets_jax.from_arrays(np.zeros((20, 784)), np.arange(20) % 10)
  densities.search_flags.parse(["densities", "--network=lenet_300_100", "--batch_size=2"])
  found = [
    densities.nearest_cycle("imp", density, values, data, stages.pathlib.Path("x"))
    for density in (0.211, 0.2, 0.135, 0.0358, 0.0185, 0.01)
  ]
  assert found == [7, 7, 9, 15, 18, 21]  # the densities of Frankle & Carbin's rounds


def test_the_guided_entrant_has_the_presets_search_and_its_own_training():
  values = densities.flags.FLAGS
  densities.search_flags.parse(["densities", "--learning_rate=0.3", "--target_density=0.4"])
  own = stages.make_entrant(
    "guided:parents=3", values, stages.pathlib.Path("x"), {"target_density": "0.1"}
  ).values
  assert (own.dormancy, own.density_rule, own.learning_rate) == ("guided", "schedule", 0.3)
  assert (own.target_density, own.parents, own.init_scale) == (0.1, 3, 0.1)
  assert own.fitness_epochs == float(stages.guided_settings("digits")["fitness_epochs"])


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--densities=0.2,x"], "densities must be numbers, not 0.2,x"),
    (["--densities=0.2,0"], "densities must be in (0, 1], not 0.2,0"),
    (["--methods=luck"], "methods may be nets,"),
    (["--methods=imp:prune_fraction=0"], "prune_fraction must be in (0, 1) here, not 0.0"),
    (["--trials=0"], "trials must be at least 1, not 0"),
    (["--train_epochs=0"], "train_epochs must be at least 1, not 0"),
  ],
)
def test_wrong_requests(job, arguments, message):
  status, _, error = job(*TINY, *arguments)
  assert status == 2
  assert error.count("\n") == 1
  assert message in error
