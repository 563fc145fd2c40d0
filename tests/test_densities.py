"""Accuracy over density: the tickets of each method, IMP's on its way, the table that grows."""

import functools
import pathlib

import numpy as np
import pytest
from conftest import made_once, reset_flags, table

import nets_jax
from nets_jax import recipes
from nets_jax.analysis.density_figures import differences_figure
from nets_jax.baselines.random_tickets import Dense, Random
from nets_jax.cli import command, densities
from nets_jax.networks.initialisation import Normal
from nets_jax.networks.zoo import lenet_300_100
from nets_jax.studies import density_tables, stages

PROBLEM = (
  "--dataset=xor", "--activation=sigmoid", "--trials=2", "--xor_train_size=100", "--xor_test_size=40",
  "--hidden_sizes=6", "--train_epochs=3", "--batch_size=10", "--learning_rate=0.05", "--workdir=out",
  "--devices=4", "--densities=0.7,0.5",
)  # fmt: skip
TINY = (*PROBLEM, "--population_size=3", "--generations=2", "--cycle_epochs=2")
GUIDED = "guided:crossover_rate=0.6"


@pytest.fixture
def job(run_binary):
  return functools.partial(run_binary, densities)


@pytest.fixture
def done(job, finished, tmp_path):
  """A copy of a finished study, made once."""
  return made_once(finished, tmp_path / "out", lambda: job(*TINY, f"--methods={GUIDED},imp,dense"))


def test_each_method_has_its_tickets_at_each_density(done):
  names = {p.name for p in done.iterdir()}
  figures = {
    f"figure_{kind}.{suffix}" for kind in ("densities", "cost", "differences") for suffix in ("png", "svg")
  }
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
  rows = [row for row in table(done / "densities.csv") if row["method"] == "imp"]
  (whole,) = (done / "stages").glob("imp_on_its_way-*")
  stages_of_imp = sorted((done / "stages").glob("imp-*"), key=lambda p: table(p / "costs.csv")[0]["epochs"])
  assert len(stages_of_imp) == 2
  last = table(whole / "costs.csv")[0]
  for own, found in zip(stages_of_imp, (rows[:2], rows[2:]), strict=True):
    costs = table(own / "costs.csv")
    cycles = int(float(costs[0]["epochs"]) / 2)
    assert [row["search_epochs"] for row in found] == [f"{2.0 * cycles}"] * 2
    for trial in range(2):
      ticket, kept = (p / f"ticket_{trial}.safetensors" for p in (own, whole / f"cycle_{cycles}"))
      assert ticket.read_bytes() == kept.read_bytes()
      assert float(nets_jax.density(nets_jax.load_ticket(ticket))) == float(found[trial]["density"])
  assert costs[0]["epochs"] == last["epochs"]
  assert [float(table(p / "costs.csv")[0]["seconds"]) < float(last["seconds"]) for p in stages_of_imp] == [
    True, False,
  ]  # fmt: skip
  # A run of its own for fewer cycles finds the same.
  cycles = int(float(table(stages_of_imp[0] / "costs.csv")[0]["epochs"]) / 2)
  reset_flags()
  command.parse(["densities", *TINY])
  values = densities.flags.FLAGS
  entrant, _ = stages.make_entrants([f"imp:cycles={cycles}", "guided"], values, done / "alone")
  stages.search_stage(entrant, densities.search_flags.make_data(values))
  for trial in range(2):
    name = f"ticket_{trial}.safetensors"
    assert (entrant.stage / name).read_bytes() == (stages_of_imp[0] / name).read_bytes()


def test_imp_may_be_asked_for_a_density_between_later(done, job):
  """Of fewer cycles than were run, after the ticket of its longest run was found in another way."""
  assert job(*PROBLEM, "--cycle_epochs=2", "--methods=imp", "--densities=0.7,0.8")[0] == 0
  assert [row["target_density"] for row in table(done / "densities.csv") if row["method"] == "imp"] == [
    "0.8", "0.8", "0.7", "0.7", "0.5", "0.5",
  ]  # fmt: skip


def test_what_fails_and_what_is_empty_is_in_the_table(job, tmp_path):
  options = (
    "--score_batch=20",
    "--activation=relu",
    "--optimizer=sgd",
    "--densities=0.5,0.05",
    "--init_scale=10/0.1",
  )
  status, out, error = job(
    *TINY, *options, "--methods=magnitude,guided:learning_rate=1e30,imp:learning_rate=1e30"
  )
  assert status == 0, error
  rows = table(tmp_path / "out" / "densities.csv")
  assert [bool(row["failed"]) for row in rows] == [False] * 4 + [True] * 8
  assert "empty: output in 2 of 2 |" in out
  assert "| guided:learning_rate=1e30 | 2 of 2 failed | 2 of 2 failed |" in out
  assert "| imp:learning_rate=1e30 | 2 of 2 failed | 2 of 2 failed |" in out
  assert (tmp_path / "out" / "figure_densities.png").exists()


def test_the_table_grows_and_nothing_runs_twice(done, job, monkeypatch):
  before = table(done / "densities.csv")
  assert job(*PROBLEM, "--methods=random", "--densities=0.5")[0] == 0
  rows = table(done / "densities.csv")
  assert rows[: len(before)] == before
  assert [(row["method"], row["density"]) for row in rows[len(before) :]] == [("random", "0.5")] * 2
  for search in (nets_jax.Nets, nets_jax.Imp, Random, Dense):
    monkeypatch.setattr(search, "run", None)
  monkeypatch.setattr(nets_jax, "train_tickets", None)
  assert job(*TINY, f"--methods={GUIDED},imp,dense,random", "--densities=0.5")[0] == 0
  assert table(done / "densities.csv") == rows


def test_trials_may_be_added(done, job):
  """Those of a later number are found and trained as they would have been beside the first ones."""
  both = (f"--methods={GUIDED},imp", "--densities=0.5")
  before = table(done / "densities.csv")
  columns = [name for name in before[0] if "seconds" not in name]
  (done / "densities.csv").unlink()
  assert job(*TINY, *both, "--trials=1")[0] == 0
  assert job(*TINY, *both, "--trials=1", "--first_trial=1")[0] == 0
  expected = [row for row in before if row["target_density"] == "0.5"]
  rows = table(done / "densities.csv")
  assert [[row[name] for name in columns] for row in rows] == [
    [row[name] for name in columns] for row in expected
  ]
  assert {row["trial"] for row in rows} == {"0", "1"}


def test_new_rows_replace_those_from_their_first_trial_on():
  row = lambda trial, loss: {"method": "imp", "target_density": 0.2, "trial": trial, "loss": loss}  # noqa: E731
  before = [row(t, "old") for t in range(4)]
  for first, kept in ((0, []), (2, before[:2]), (4, before)):
    new = [row(first, "new")]
    assert density_tables.merged(before, new) == [*kept, *new]
  other = [{**row(0, "new"), "target_density": 0.1}]
  assert density_tables.merged(before, other) == [*before, *other]


def test_a_method_may_have_a_name_of_its_own(done, job):
  assert job(*PROBLEM, "--methods=quick@imp:cycle_epochs=1,imp:cycle_epochs=1", "--densities=0.7")[0] == 0
  rows = table(done / "densities.csv")
  named, plain = ([row for row in rows if row["method"] == m] for m in ("quick", "imp:cycle_epochs=1"))
  assert [row["test_loss"] for row in named] == [row["test_loss"] for row in plain]
  assert len(named) == 2
  assert "| quick |" in (done / "densities.md").read_text()
  (entrant,) = stages.make_entrants(["all@dense"], densities.flags.FLAGS, done)
  assert entrant.search.densities([0.2]) == [1.0]


def test_a_dense_network_alone_has_a_table_and_figures(tmp_path):
  row = {"trial": 0, "density": 1.0, "test_accuracy": 0.9, "search_epochs": 0.0, "search_seconds": 0.0}
  densities.write_outputs(tmp_path, [{"method": "dense", "target_density": 1.0, **row}])
  assert "| dense | 90.0 % (90.0 %; 0, 0 s) |" in (tmp_path / "densities.md").read_text()
  assert (tmp_path / "figure_cost.png").exists()


def test_differences_are_paired_by_trial():
  def rows(method, density, *found):
    return [
      {"method": method, "target_density": density, "trial": t, "test_accuracy": a, "density": density}
      | {"search_epochs": 1.0, "search_seconds": 2.0}
      for t, a in enumerate(found)
    ]

  table = [
    *rows("guided", 0.2, 0.90, 0.80, 0.70), *rows("guided", 0.1, 0.60, 0.70), *rows("imp", 0.2, 0.91, 0.83),
    *rows("imp", 0.05, 0.5, 0.5), *rows("snip", 0.2, 0.7), *rows("dense", 1.0, 0.95, 0.95, 0.95),
  ]  # fmt: skip
  found = density_tables.differences(table)
  places = [(row["method"], row["target_density"]) for row in found]
  assert places == [("imp", 0.2), ("dense", 0.2), ("dense", 0.1)]  # one trial of SNIP says nothing of it
  assert [row["difference"] for row in found] == pytest.approx([2, 15, 30])
  # Student's quantile is 12.706 for two trials: half of 1 and 3 points' interval is as wide as that.
  assert found[0]["half_width"] == pytest.approx(12.706, abs=1e-3)
  text = density_tables.difference_table(found)
  assert "| imp | +2.0 ± 12.7 |  |" in text
  assert "Difference from guided in points" in text
  assert density_tables.difference_table(density_tables.differences(table[:5])) == ""
  figure = differences_figure(found)
  assert [axes.get_xlabel() for axes in figure.axes] == ["points at 20 %", "points at 10 %"]
  assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["imp", "dense"]


def test_many_methods_are_a_table_and_differences_but_no_lines(tmp_path):
  row = {"density": 0.2, "target_density": 0.2, "search_epochs": 1.0, "search_seconds": 2.0}
  rows = [
    {"method": f"guided:parents={i}", "trial": t, "test_accuracy": 0.9 + 0.01 * t, **row}
    for i in range(11)
    for t in range(2)
  ]
  densities.write_outputs(tmp_path, rows)
  assert {p.name for p in tmp_path.iterdir()} == {
    "densities.csv", "densities.md", "figure_differences.png", "figure_differences.svg",
  }  # fmt: skip


@pytest.mark.parametrize(
  ("preset", "study"),
  [
    ("paper_digits", "ablations"),
    ("lottery_mnist", "lottery"),
    ("paper_mnist", "paper"),
    ("paper_mnist", "paper_ablations"),
  ],
)
def test_the_ready_studies_are_such_that_run(preset, study):
  values = densities.flags.FLAGS
  presets = pathlib.Path(densities.__file__).parent / "presets"
  reset_flags()
  command.parse(
    ["densities", f"--flagfile={presets}/{preset}.flags", f"--flagfile={presets}/studies/{study}.flags"]
  )
  data = nets_jax.from_arrays(np.zeros((2000, 64)), np.arange(2000) % 10)
  seen = set()
  for entrant in stages.make_entrants(values.methods, values, pathlib.Path("x")):
    ((_, own),) = densities.at_densities(entrant, [0.05], data).items()
    seen.add(own.stage)
  assert len(seen) == len(values.methods)  # no two are the same


def test_the_nearest_cycle():
  data = nets_jax.from_arrays(np.zeros((20, 784)), np.arange(20) % 10)
  task = nets_jax.Task(lenet_300_100(), data, nets_jax.Training(batch_size=2))
  found = [
    nets_jax.Imp().at_density(density, task).cycles for density in (0.211, 0.2, 0.135, 0.0358, 0.0185, 0.01)
  ]
  assert found == [7, 7, 9, 15, 18, 21]  # the densities of Frankle & Carbin's rounds


def test_the_guided_entrant_has_the_presets_search_and_its_own_training():
  values = densities.flags.FLAGS
  reset_flags()
  command.parse(["densities", "--learning_rate=0.3", "--target_density=0.4"])
  (entrant,) = stages.make_entrants(["guided:parents=3"], values, pathlib.Path("x"))
  assert entrant.search == recipes.guided(parents=3, target_density=0.4)
  data = nets_jax.from_arrays(np.zeros((2000, 64)), np.arange(2000) % 10)
  own = densities.at_densities(entrant, [0.1], data)[0.1]
  assert own.search == recipes.guided(parents=3, target_density=0.1)
  assert (own.task(data).training, own.task(data).initialiser) == (
    nets_jax.Training(learning_rate=0.3), Normal(0.1),
  )  # fmt: skip


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--densities=0.2,x"], "densities must be numbers, not 0.2,x"),
    (["--densities=0.2,0"], "densities must be in (0, 1], not 0.2,0"),
    (["--methods=luck"], "methods may be guided,"),
    (["--methods=luck@luck"], "methods may be guided,"),
    (["--methods=@imp"], "'@imp' needs a name before its @, and not that of another method"),
    (["--methods=imp@paper"], "'imp@paper' needs a name before its @, and not that of another method"),
    (["--methods=a@imp,a@snip"], "two methods are called 'a'; write name@method:setting=value"),
    (["--methods=imp:prune_fraction=0"], "prune_fraction must be in (0, 1) here, not 0.0"),
    (["--methods=guided:elites=16"], "elites must be from 0"),
    (["--methods=imp:rewind_steps=-1"], "rewind_steps must be at least 0"),
    (["--trials=0"], "trials must be at least 1, not 0"),
    (["--train_epochs=0"], "train_epochs must be at least 1, not 0"),
    (["--first_trial=-1"], "first_trial must be at least 0, not -1"),
  ],
)
def test_wrong_requests(job, tmp_path, arguments, message):
  status, _, error = job(*PROBLEM, *arguments)
  assert status == 2
  assert error.count("\n") == 1
  assert message in error
  assert not (tmp_path / "out").exists()
