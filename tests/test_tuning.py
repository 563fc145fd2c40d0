"""Each method at its best: screened, looked at again, chosen on validation."""

import dataclasses
import json
import math

import pytest
from conftest import squeezed, table

import nets_jax
from nets_jax import studies
from nets_jax.baselines.random_tickets import Dense, Random
from nets_jax.cli import compare as compare_command
from nets_jax.cli import densities as densities_command
from nets_jax.studies import tuning
from nets_jax.studies.frontiers import densities
from nets_jax.studies.run_files import result_row
from nets_jax.studies.tuning import TUNING_TRIALS, candidates, tune

METHODS = {"random": Random(density_deviation=0.0), "dense": Dense()}
RATES = {"learning_rate": (1e-4, 0.3, 0.1)}


@pytest.fixture(scope="module")
def short(task):
  return task.replace(epochs=3)


@pytest.fixture(scope="module")
def tuned(short, tmp_path_factory):
  directory = tmp_path_factory.mktemp("tuning")
  return tune(candidates(METHODS, short, RATES), density=0.5, screen_epochs=1, directory=directory), directory


def test_every_method_has_the_whole_grid(short):
  found = candidates(METHODS, short, {"optimizer": ("sgd", "adam"), **RATES})
  assert {name: len(own) for name, own in found.items()} == {"random": 6, "dense": 6}
  first, *_, last = found["random"]
  assert dict(last.columns) == {"method": "random", "optimizer": "adam", "learning_rate": 0.1}
  assert (first.task.training.learning_rate, last.task.training.learning_rate) == (1e-4, 0.1)
  assert len(candidates({"random": METHODS["random"]}, short)["random"]) == sum(
    math.prod(map(len, grid.values())) for grid in tuning.GRID
  )


def test_the_choice_is_the_best_of_the_best_two(tuned):
  """By hand, from what each run came to on validation examples."""
  found, _ = tuned
  assert found.is_over
  for name in METHODS:
    first = [result_row(run)["valid_accuracy"] for run in found.screened[name]]
    order = sorted(range(3), key=lambda i: -first[i])
    second = [[result_row(run)["valid_accuracy"] for run in runs] for runs in found.second[name]]
    assert [len(runs) for runs in second] == [2, 2]
    assert found.choice(name) == order[max((0, 1), key=lambda i: (sum(second[i]), -i))]
  rows = found.results
  assert set(rows[rows["round"] == 1]["trial"]) == {TUNING_TRIALS}
  assert set(rows[rows["round"] == 2]["trial"]) == {TUNING_TRIALS + 1, TUNING_TRIALS + 2}
  assert set(rows[rows["method"] == "random"]["density"].round(2)) == {0.5}
  assert dict(zip(rows["round"], rows["training_epochs"], strict=True)) == {1: 1, 2: 3}
  chosen = rows[rows["chosen"] == 1].groupby("method")["learning_rate"].nunique()
  assert set(chosen) == {1}


def test_the_table_says_what_hung_on_it_and_what_it_cost(tuned):
  found, directory = tuned
  text = found.write(directory)
  assert "learning_rate=" in text
  rows = table(directory / "tuning.csv")
  assert len(rows) == 2 * (3 + 4)
  line = next(line for line in text.splitlines() if line.startswith("| random"))
  trained = 3 * 1 + 4 * 3
  assert f" {trained} " in line  # its searches cost nothing
  kept = directory / "tuning.csv"
  again = dataclasses.replace(found, candidates={"dense": found.candidates["dense"]}, screened={}, second={})
  again.write(directory)  # of no run: those of other methods stay
  assert {row["method"] for row in table(kept)} == {"random"}
  found.write(directory)


def test_what_is_done_is_not_run_again_and_the_methods_go_on_to_a_study(tuned, short, monkeypatch):
  found, directory = tuned
  monkeypatch.setattr(nets_jax.studies.work, "run_batch", lambda *given: pytest.fail("run again"))
  again = tune(candidates(METHODS, short, RATES), density=0.5, screen_epochs=1, directory=directory)
  assert [again.choice(name) for name in METHODS] == [found.choice(name) for name in METHODS]
  monkeypatch.undo()
  methods = again.methods
  assert [dict(method.columns) for method in methods] == [{"method": "random"}, {"method": "dense"}]
  study = densities(methods, densities=[0.4], trials=2)
  results = study.results
  assert list(results["method"]) == ["random", "random", "dense", "dense"]
  own = found.results[found.results["method"] == "random"]
  first = own[own["round"] == 1]
  assert set(results["tuning_epochs"]) == {3 * 1 + 4 * 3}
  assert set(results["worst_of_grid"][:2]) == {first["valid_accuracy"].min()}
  rate = own[own["chosen"] == 1]["learning_rate"].iloc[0]
  assert set(results["tuned_settings"][:2]) == {f"learning_rate={rate}"}
  worst = f"{100 * first['valid_accuracy'].min():.1f} %"
  assert f"| random | learning_rate={rate} | {worst} | 0 of 3 | 0 | 3 | 15 |" in squeezed(study.table())


def test_what_diverges_is_not_chosen(short):
  methods = {"random": METHODS["random"]}
  found = tune(candidates(methods, short, {"learning_rate": (1e38, 0.1)}), density=0.8, finalists=1)
  assert found.is_over
  assert not found.second
  assert found.methods[0].task.training.learning_rate == 0.1
  lost = tune(candidates(methods, short, {"learning_rate": (1e38,)}), density=0.8)
  assert lost.is_over
  with pytest.raises(nets_jax.UsageError, match="no setting of random came through, so none can be"):
    lost.methods  # noqa: B018
  assert "none came through" in lost.table()


def test_each_choice_is_told_by_its_own_settings(short, tmp_path):
  """Also where another grid was tried in the same directory."""
  one = {"random": METHODS["random"]}
  wanted = {"density": 0.5, "screen_epochs": 1, "finalists": 1, "directory": tmp_path}
  first = tune(candidates(one, short, {"learning_rate": (0.1,)}), **wanted)
  first.write(tmp_path)
  other = {"batch_size": (4, 8), "learning_rate": (0.2,)}
  second = tune(candidates({"other": METHODS["random"]}, short, other), **wanted)
  text = squeezed(second.write(tmp_path))
  size = second.methods[0].task.training.batch_size
  assert "| random | learning_rate=0.1 | " in text
  assert f"| other | batch_size={size}, learning_rate=0.2 | " in text
  assert second.methods[0].tuning["tuned_settings"] == f"batch_size={size}, learning_rate=0.2"
  with pytest.raises(nets_jax.UsageError, match="several grids must name the same settings"):
    candidates(one, short, [{"learning_rate": [0.1]}, {"learning_rate": [0.2], "batch_size": [4]}])


def test_where_no_run_is_done_nothing_is_written(short, tmp_path):
  hours = studies.Options(max_hours=1e-12)
  found = tune(candidates(METHODS, short, RATES), density=0.5, directory=tmp_path, options=hours)
  assert not found.is_over
  with pytest.raises(nets_jax.UsageError, match="no run of the tuning is done yet; the same command goes"):
    found.write(tmp_path)
  assert not (tmp_path / "tuning.csv").exists()


def test_where_the_second_round_fails_the_next_of_the_first_is_chosen(tuned):
  found, _ = tuned
  lost = dataclasses.replace(found, final={name: [] for name in METHODS})
  for name in METHODS:
    assert lost.choice(name) == found.order[name][2]


@pytest.mark.parametrize(
  ("given", "message"),
  [
    ({"finalists": 0}, "finalists must be at least 1, not 0"),
    ({"trials": 0}, "trials must be at least 1, not 0"),
    (
      {"metric": "test_accuracy"},
      "tuning by test_accuracy would show the test examples; give a metric of val",
    ),
    (
      {"metric": "valid_mse"},
      "the best cannot be told by valid_mse, for the score of these runs is accuracy",
    ),
  ],
)
def test_a_wrong_request_is_one_line(short, given, message):
  with pytest.raises(nets_jax.UsageError, match=message):
    tune(candidates(METHODS, short, RATES), **given)


def test_what_the_density_decides_is_not_tuned(short):
  with pytest.raises(nets_jax.UsageError, match="two settings of the grid are the same for random: the"):
    tune(candidates({"random": METHODS["random"]}, short, {"target_density": (0.1, 0.2)}))


def test_methods_have_names_of_their_own(short):
  method = studies.Method({"method": "a"}, METHODS["random"], short)
  with pytest.raises(nets_jax.UsageError, match="two methods are called 'a'; give each a name of its own"):
    candidates([method, method], grid=RATES)
  with pytest.raises(nets_jax.UsageError, match="has no column 'method' to be told by"):
    candidates([studies.Method({"name": "a"}, METHODS["random"], short)], grid=RATES)


def test_a_comparison_that_tunes_repeats_by_its_flagfile(run_binary, tmp_path):
  arguments = ARGUMENTS[:6]
  given = (
    "--methods=random",
    "--trials=1",
    "--devices=1",
    "--density_deviation=0",
    "--tune=learning_rate=0.1,0.3",
  )
  status, out, _ = run_binary(compare_command, *arguments, *given, "--tune_density=0.5", "--workdir=a")
  assert status == 0
  assert "learning_rate=" in out
  assert run_binary(compare_command, "--flagfile=a/compare.flags", "--workdir=b")[0] == 0
  found = [(tmp_path / name / "tuning.csv").read_text().splitlines() for name in "ab"]
  assert [len(rows) for rows in found] == [1 + 2 + 2 * 2] * 2
  assert (tmp_path / "a" / "table1.md").read_text() == (tmp_path / "b" / "table1.md").read_text()


ARGUMENTS = (
  "--dataset=xor", "--xor_train_size=60", "--xor_test_size=20", "--hidden_sizes=4", "--batch_size=10",
  "--train_epochs=2", "--densities=0.5,0.3", "--trials=1", "--devices=1", "--workdir=out", "--init_scale=0.5",
)  # fmt: skip


def test_the_command_tunes_then_checks(run_binary, tmp_path):
  """With a flag that goes with one kind of first weights, as the presets have it."""
  given = ("--methods=plain@random:density_deviation=0,imp@imp:cycle_epochs=1", "--sanity=0.30")
  tuned = ("--tune=learning_rate=0.01,0.3;init=normal,he", "--tune_density=0.5", "--tune_epochs=1")
  status, out, _ = run_binary(densities_command, *ARGUMENTS, *given, *tuned, "--dry_run")
  assert status == 0
  assert "12 runs, 0 of them done" in out  # 2 methods: 4 settings, and 2 densities
  assert "on top come the second round of the tuning and three trainings for each ticket of --sanity" in out
  assert not (tmp_path / "out").exists()
  status, out, _ = run_binary(densities_command, *ARGUMENTS, *given, *tuned)
  assert status == 0
  rows = table(tmp_path / "out" / "tuning.csv")
  assert {row["method"] for row in rows} == {"plain", "imp"}
  assert {(row["init"], row["learning_rate"]) for row in rows if row["round"] == "1"} == {
    (init, rate) for init in ("normal", "he") for rate in ("0.01", "0.3")
  }
  chosen = next(row for row in rows if row["chosen"] == "1" and row["method"] == "plain")
  configs = [
    json.loads(path.read_text())["flags"] for path in (tmp_path / "out").glob("runs/plain*/config.json")
  ]
  in_table = [config for config in configs if "check" not in config and config["train_epochs"] == 2]
  assert {str(config["learning_rate"]) for config in in_table} == {chosen["learning_rate"]}
  checks = table(tmp_path / "out" / "sanity.csv")
  assert {row["target_density"] for row in checks} == {"0.3"}
  assert len(checks) == 2 * 4
  assert "mask shuffled" in out
  status, _, error = run_binary(densities_command, *ARGUMENTS, *given)
  assert status == 2
  assert "out is of another configuration (tune" in error


def test_with_one_finalist_the_first_round_chooses(run_binary, tmp_path):
  given = ("--methods=random", "--tune=learning_rate=0.01,0.3", "--tune_density=0.5", "--tune_finalists=1")
  status, out, _ = run_binary(densities_command, *ARGUMENTS, *given, "--dry_run")
  assert status == 0
  assert "4 runs, 0 of them done" in out
  assert "second round" not in out
  status, _, _ = run_binary(densities_command, *ARGUMENTS, *given)
  assert status == 0
  rows = table(tmp_path / "out" / "tuning.csv")
  assert [row["round"] for row in rows] == ["1", "1"]
  best = max(rows, key=lambda row: (float(row["valid_accuracy"]), -float(row["valid_loss"])))
  assert [row for row in rows if row["chosen"] == "1"] == [best]
  page = (tmp_path / "out" / "report.html").read_text()
  assert "Each point is a run of the tuning. The chosen setting is red." in page
  status, _, error = run_binary(densities_command, *ARGUMENTS, *given[:-1])
  assert status == 2
  assert "out is of another configuration (tune" in error


@pytest.mark.parametrize(
  ("given", "message"),
  [
    (
      ("--methods=random:learning_rate=1", "--tune=learning_rate=1,2"),
      "'random:learning_rate=1' gives learning_",
    ),
    (("--methods=random", "--tune=learning_rat=1,2"), "error: in --tune: there is no setting 'learning_rat'"),
    (("--methods=random", "--tune=elites=1,2"), "error: in --tune: random has no setting 'elites'"),
    (
      ("--methods=random", "--tune=init=hee,he", "--tune_density=2"),
      "in --tune: flag --init=hee: value should be one of",
    ),
    (
      ("--methods=random", "--tune=init=he,glorot", "--tune_density=2"),
      "decides a tuning (--tune_density) must be in (0, 1], not 2.0",
    ),
    (
      ("--methods=random", "--tune=learning_rate=1", "--tune_epochs=0"),
      "screen_epochs (--tune_epochs) must be at least 1, not 0",
    ),
    (
      ("--methods=random", "--tune=learning_rate=1", "--tune_finalists=0"),
      "tune_finalists must be at least 1, not 0",
    ),
    (("--methods=random", "--tune=learning_rate"), "in --tune, 'learning_rate' is not name=values"),
    (("--methods=random", "--tune_finalists=1"), "tune_finalists is of a tuning, but there is none; give"),
    (("--methods=random", "--tune_epochs=1"), "tune_epochs is of a tuning, but there is none; give --tune"),
    (("--methods=random", "--sanity=0.1"), "sanity must be below 1 and of --densities, ["),
    (("--methods=random", "--target_density=0.1"), "a study over densities has them of --densities; leave"),
    (("--methods=random", "--sanity=x"), "sanity must be numbers, not x"),
  ],
)
def test_a_wrong_command_is_one_line_and_leaves_nothing(run_binary, tmp_path, given, message):
  status, _, error = run_binary(densities_command, *ARGUMENTS, *given)
  assert status == 2
  assert message in error
  assert not (tmp_path / "out").exists()
