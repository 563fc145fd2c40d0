"""Accuracy over density: the tickets of each method, IMP's on its way, the table that grows."""

import functools
import json
import math
import pathlib

import jax
import numpy as np
import pandas as pd
import pytest
from conftest import assert_same_bits, made_once, reset_flags, squeezed, table

import nets_jax
from nets_jax import recipes, studies
from nets_jax.analysis.density_figures import differences_figure
from nets_jax.baselines.random_tickets import Dense, Random
from nets_jax.cli import command, densities, method_flags
from nets_jax.networks.initialisation import Normal
from nets_jax.networks.zoo import lenet_300_100
from nets_jax.studies import frontier_tables, frontiers, tables, work
from nets_jax.training.measures import OF_CLASSES

PROBLEM = (
  "--dataset=xor", "--activation=sigmoid", "--trials=2", "--xor_train_size=100", "--xor_test_size=40",
  "--hidden_sizes=6", "--train_epochs=3", "--batch_size=10", "--learning_rate=0.05", "--workdir=out",
  "--devices=1", "--densities=0.7,0.5",
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
  names = {p.name for p in done.iterdir() if not p.name.startswith(".")}
  figures = {
    f"figure_{kind}.{suffix}" for kind in ("densities", "cost", "differences") for suffix in ("png", "svg")
  }
  others = {"config.json", "densities.flags", "report.html", "runs", "trials.log"}
  assert names == {"densities.csv", "densities.md"} | others | figures
  rows = table(done / "densities.csv")
  places = [(row["method"], row["target_density"], row["trial"]) for row in rows]
  assert places == [
    (method, density, trial)
    for method, own in ((GUIDED, ("0.7", "0.5")), ("imp", ("0.7", "0.5")), ("dense", ("1.0",)))
    for density in own
    for trial in ("0", "1")
  ]
  by_density = {row["target_density"]: float(row["density"]) for row in rows if row["method"] == GUIDED}
  assert all((done / "runs" / row["run"] / "ticket.safetensors").exists() for row in rows)
  assert by_density == {"0.7": pytest.approx(0.7, abs=0.03), "0.5": pytest.approx(0.5, abs=0.03)}
  text = squeezed((done / "densities.md").read_text())
  assert "| method | 100 % | 70 % | 50 % |" in text
  assert f"| {GUIDED} | | " in text


def test_imps_tickets_are_those_of_shorter_runs(done):
  rows = [row for row in table(done / "densities.csv") if row["method"] == "imp"]
  task = nets_jax.Task(
    nets_jax.MLP((6,), 2, activation="sigmoid"),
    nets_jax.load_data("xor", xor_train_size=100, xor_test_size=40),
    nets_jax.Training(learning_rate=0.05, batch_size=10),
    epochs=3,
  )
  for of_density in (rows[:2], rows[2:]):
    density = float(of_density[0]["target_density"])
    search = nets_jax.Imp(cycle_epochs=2).at_density(density, task)
    assert [row["search_epochs"] for row in of_density] == [f"{2.0 * search.cycles}"] * 2
    for trial, row in enumerate(of_density):
      key = jax.random.split(jax.random.fold_in(nets_jax.key_of_seed(0), trial))[0]
      alone = nets_jax.search(key, task, search).ticket  # a run of its own for so many cycles
      (ticket,) = [
        nets_jax.load_ticket(path / "ticket.safetensors")
        for path in (done / "runs").glob(f"imp-*-{trial}")
        if json.loads((path / "summary.json").read_text())["search_epochs"] == float(row["search_epochs"])
      ]
      assert_same_bits(jax.device_get(ticket), jax.device_get(alone))
      assert float(nets_jax.density(ticket)) == float(row["density"])
  assert float(rows[0]["search_seconds"]) < float(rows[2]["search_seconds"])


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
  out = squeezed(out)
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
  monkeypatch.setattr(work, "run_batch", None)
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
  def rows(*trials, loss="old", density=0.2):
    return pd.DataFrame(
      [{"method": "imp", "target_density": density, "trial": t, "loss": loss} for t in trials]
    )

  before = rows(*range(4))
  for first, kept in ((0, 0), (2, 2), (4, 4)):
    found = frontiers.merged(before, rows(first, loss="new"))
    assert list(found["loss"]) == ["old"] * kept + ["new"]
  found = frontiers.merged(before, rows(0, loss="new", density=0.1))
  assert list(found["loss"]) == ["old"] * 4 + ["new"]


def test_a_method_may_have_a_name_of_its_own(done, job):
  assert job(*PROBLEM, "--methods=quick@imp:cycle_epochs=1,imp:cycle_epochs=1", "--densities=0.7")[0] == 0
  rows = table(done / "densities.csv")
  named, plain = ([row for row in rows if row["method"] == m] for m in ("quick", "imp:cycle_epochs=1"))
  assert [row["test_loss"] for row in named] == [row["test_loss"] for row in plain]
  assert len(named) == 2
  assert "| quick |" in squeezed((done / "densities.md").read_text())
  (method,) = method_flags.make_methods(["all@dense"], densities.flags.FLAGS)
  assert [own.columns["target_density"] for own in frontiers.at_densities(method, [0.2])] == [1.0]


SOUND = {"failed": "", "empty_layers": "none"}


def test_a_dense_network_alone_has_a_table_and_figures():
  row = {"trial": 0, "density": 1.0, "test_accuracy": 0.9, "search_epochs": 0.0, "search_seconds": 0.0}
  results = pd.DataFrame([{"method": "dense", "target_density": 1.0, **row, **SOUND}])
  assert "| dense | 90.0 % (90.0 %; 0, 0 s) |" in squeezed(frontier_tables.scores(results))
  assert set(frontiers.figures(results)) == {"figure_densities", "figure_cost"}


def test_differences_are_paired_by_trial():
  def rows(method, density, *found):
    return [
      {"method": method, "target_density": density, "trial": t, "test_accuracy": a, "density": density}
      for t, a in enumerate(found)
    ]

  results = pd.DataFrame([
    *rows("guided", 0.2, 0.90, 0.80, 0.70), *rows("guided", 0.1, 0.60, 0.70), *rows("imp", 0.2, 0.91, 0.83),
    *rows("imp", 0.05, 0.5, 0.5), *rows("snip", 0.2, 0.7), *rows("dense", 1.0, 0.95, 0.95, 0.95),
  ])  # fmt: skip
  found = frontier_tables.differences(results)
  places = list(zip(found["method"], found["target_density"], strict=True))
  assert places == [("imp", 0.2), ("dense", 0.2), ("dense", 0.1)]  # one trial of SNIP says nothing of it
  assert list(found["difference"]) == pytest.approx([2, 15, 30])
  # Student's quantile is 12.706 for two trials: half of 1 and 3 points' interval is as wide as that.
  assert found["half_width"][0] == pytest.approx(12.706, abs=1e-3)
  text = squeezed(frontier_tables.difference_table(found))
  assert "| imp | +2.0 ± 12.7 | |" in text
  assert "Difference from guided in points" in text
  assert frontier_tables.difference_table(frontier_tables.differences(results[:5])) == ""
  figure = differences_figure(tables.rows_of(found))
  assert [axes.get_xlabel() for axes in figure.axes] == ["points at 20 %", "points at 10 %"]
  assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["imp", "dense"]


def test_definition_3_is_that_of_the_paper_against_the_best_dense_network():
  """By hand: of the network with the lowest validation loss, its iteration and its accuracy."""
  task = nets_jax.Task(
    nets_jax.MLP((6,), 2),
    nets_jax.load_data("xor", xor_train_size=100, xor_test_size=40),
    nets_jax.Training(learning_rate=0.2, batch_size=10),
    epochs=8,
  )
  slow = task.replace(training=nets_jax.Training(learning_rate=1e-4, batch_size=10))
  methods = [
    studies.Method({"method": name}, search, of)
    for name, search, of in (
      ("random", Random(target_density=0.5, density_deviation=0), task),
      ("slow", Dense(), slow), ("dense", Dense(), task),
    )
  ]  # fmt: skip
  found = studies.densities(methods, densities=[0.5, 0.25], trials=3)
  results, measures = found.results, found.measures
  assert frontier_tables.best_dense(results, measures) == "dense"
  lowest = {}
  for run in found.runs:
    curve = table(run.path / "training.csv")
    best = min(curve, key=lambda row: float(row["valid_loss"]))
    place = run.columns["method"], run.columns["target_density"], run.trial
    lowest[place] = int(best["iteration"]), float(best["test_accuracy"])
  expected = {
    ("random", density): [
      lowest["random", density, t][0] <= lowest["dense", 1.0, t][0]
      and lowest["random", density, t][1] >= lowest["dense", 1.0, t][1]
      for t in range(3)
    ]
    for density in (0.5, 0.25)
  }
  judged = frontier_tables.verdicts(results, measures)
  assert {place: [one.wins for one in own] for place, own in judged.items()} == expected
  fast = sum(one.as_fast for one in judged["random", 0.5])
  good = sum(one.as_good for one in judged["random", 0.5])
  cell = f"| random | {sum(expected['random', 0.5])} of 3 ({fast}, {good}) |"
  text = squeezed(found.table())
  assert (
    "Definition 3 against dense of the same trial, each by its own training: how many tickets win" in text
  )
  assert cell in text
  assert "Settings as tuned" not in text  # nothing was


def test_rows_of_before_have_no_verdict_and_no_dense_network_none_at_all():
  row = {"trial": 0, "density": 0.2, "test_accuracy": 0.9, "valid_accuracy": 0.9, "search_epochs": 0.0}
  old = pd.DataFrame(
    [{"method": name, "target_density": d, **row} for name, d in (("a", 0.2), ("dense", 1.0))]
  )
  assert frontier_tables.winning_table(old, OF_CLASSES) == ""
  new = old.assign(
    minimum_iteration=1, minimum_valid_loss=0.1, minimum_test_accuracy=0.9, unmasked=1, weights=5
  )
  assert "1 of 1 (1, 1)" in frontier_tables.winning_table(new, OF_CLASSES)
  both = pd.concat([new, old.assign(method="b", target_density=0.2)[:1]])
  assert "| b" not in frontier_tables.winning_table(both, OF_CLASSES)
  assert frontier_tables.winning_table(new[:1], OF_CLASSES) == ""


def test_what_diverges_is_counted_apart_and_no_part_of_a_mean():
  row = {"target_density": 0.2, "density": 0.2, "search_epochs": 1.0, "search_seconds": 2.0, **SOUND}
  results = pd.DataFrame([
    {"method": "a", "trial": 0, "valid_loss": math.nan, "test_accuracy": 0.1, **row},
    {"method": "a", "trial": 1, "valid_loss": 0.3, "test_accuracy": 0.9, **row},
    {"method": "b", "trial": 0, "valid_loss": math.nan, "test_accuracy": 0.1, **row},
    {"method": "b", "trial": 1, "valid_loss": 0.3, "test_accuracy": 0.1, **row, "failed": "no"},
  ])  # fmt: skip
  text = squeezed(frontier_tables.scores(results))
  assert "| a | 90.0 % (90.0 %; 1, 2 s); 1 of 2 diverged |" in text
  assert "| b | 1 of 2 failed; 1 of 2 diverged |" in text
  denser = results.assign(density=0.22)
  assert "(90.0 %; 1, 2 s); at 22 %; 1 of 2 diverged |" in squeezed(frontier_tables.scores(denser))
  assert len(tables.trained(results)) == 1


def test_an_error_that_is_no_number_is_not_drawn(job, tmp_path):
  """A study goes on past a final training that diverges."""
  data = ("--dataset=diabetes", "--hidden_sizes=6", "--batch_size=20", "--train_epochs=2", "--devices=1")
  study = ("--trials=1", "--densities=0.5", "--score_batch=20", "--workdir=out", "--learning_rate=0.01")
  hot = "hot@snip:optimizer=sgd:learning_rate=1000000"
  status, out, error = job(*data, *study, f"--methods={hot},random:density_deviation=0")
  assert status == 0, error
  assert "| hot | 1 of 1 diverged |" in squeezed(out)
  assert len(table(tmp_path / "out" / "densities.csv")) == 2
  assert (tmp_path / "out" / "figure_densities.png").exists()


def test_the_best_dense_network_is_of_whole_methods():
  row = {"target_density": 1.0, "valid_loss": 0.1, "minimum_iteration": 10}
  results = pd.DataFrame([
    {"method": "hot", "trial": 0, "valid_accuracy": 0.96, **row},
    *({"method": "dense", "trial": t, "valid_accuracy": 0.95, **row} for t in range(2)),
  ])  # fmt: skip
  assert frontier_tables.best_dense(results, OF_CLASSES) == "dense"
  assert frontier_tables.best_dense(results[:1], OF_CLASSES) == "hot"
  old = results.assign(minimum_iteration=[10, math.nan, math.nan])  # rows of before do not say
  assert frontier_tables.best_dense(old, OF_CLASSES) == "hot"


def test_a_dense_network_may_be_the_first_method():
  rows = [
    {"method": name, "target_density": density, "trial": t, "test_accuracy": accuracy + t / 100}
    for name, density, accuracy in (
      ("dense", 1.0, 0.9),
      ("imp", 0.2, 0.8),
      ("imp", 0.1, 0.7),
      ("big", 1.0, 0.9),
    )
    for t in range(2)
  ]
  found = frontier_tables.differences(pd.DataFrame(rows))
  places = list(zip(found["method"], found["target_density"], strict=True))
  assert places == [("imp", 0.2), ("imp", 0.1), ("big", 1.0)]
  assert list(found["difference"]) == pytest.approx([-10, -20, 0])


def test_many_methods_are_a_table_and_differences_but_no_lines():
  row = {"density": 0.2, "target_density": 0.2, "search_epochs": 1.0, "search_seconds": 2.0, **SOUND}
  results = pd.DataFrame([
    {"method": f"guided:parents={i}", "trial": t, "test_accuracy": 0.9 + 0.01 * t, **row}
    for i in range(11)
    for t in range(2)
  ])  # fmt: skip
  assert set(frontiers.figures(results)) == {"figure_differences"}


@pytest.mark.parametrize(
  ("preset", "study"),
  [
    ("paper_digits", "ablations"),
    ("lottery_mnist", "lottery"),
    ("paper_mnist", "paper"),
    ("paper_mnist", "paper_ablations"),
    ("paper_mnist", "tuned"),
    ("paper_mnist", "tuned_rivals"),
    ("paper_mnist", "tuned_imp"),
  ],
)
def test_the_ready_studies_are_such_that_run(preset, study):
  values = densities.flags.FLAGS
  presets = command.PRESETS
  reset_flags()
  flagfiles = (f"--flagfile={presets}/{preset}.flags", f"--flagfile={presets}/studies/{study}.flags")
  densities.parse(["densities", *flagfiles])
  data = nets_jax.from_arrays(np.zeros((2000, 64)), np.arange(2000) % 10)
  methods = method_flags.make_methods(values.methods, values, data)
  runs = frontiers.density_runs(methods, [0.05], [0], 0, pathlib.Path("x"))
  assert len({run.path for run in runs}) == len(values.methods)  # no two are the same


def test_the_nearest_cycle():
  data = nets_jax.from_arrays(np.zeros((20, 784)), np.arange(20) % 10)
  task = nets_jax.Task(lenet_300_100(), data, nets_jax.Training(batch_size=2))
  found = [
    nets_jax.Imp().at_density(density, task).cycles for density in (0.211, 0.2, 0.135, 0.0358, 0.0185, 0.01)
  ]
  assert found == [7, 7, 9, 15, 18, 21]  # the densities of Frankle & Carbin's rounds


def test_a_guided_method_has_its_own_settings_and_the_flags_training():
  values = densities.flags.FLAGS
  reset_flags()
  densities.parse(["densities", "--learning_rate=0.3", "--target_density=0.4"])
  data = nets_jax.from_arrays(np.zeros((2000, 64)), np.arange(2000) % 10)
  (method,) = method_flags.make_methods(["guided:parents=3"], values, data)
  assert method.search == recipes.guided(parents=3, target_density=0.4)
  (own,) = frontiers.at_densities(method, [0.1])
  assert own.search == recipes.guided(parents=3, target_density=0.1)
  assert (own.task.training, own.task.initialiser) == (
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
    (["--first_trial=999999"], "first_trial + trials must be at most that, not 1,000,00"),
    (["--methods=impp"], "not 'impp'; did you mean imp?"),
    (["--sanity=0.3"], "sanity must be below 1 and of --densities, ["),
    (["--tune=", "--methods=imp"], "tune is empty; give it 'flag=value,value', or default"),
  ],
)
def test_wrong_requests(job, tmp_path, arguments, message):
  status, _, error = job(*PROBLEM, *arguments)
  assert status == 2
  assert error.count("\n") == 1
  assert message in error
  assert not (tmp_path / "out").exists()
