"""Each method at its best: screened, looked at again, chosen on validation."""

import math

import pytest
from conftest import table

import nets_jax
from nets_jax.baselines.random_tickets import Dense, Random
from nets_jax.studies import tuning
from nets_jax.studies.frontiers import densities
from nets_jax.studies.run_files import result_row
from nets_jax.studies.tuning import FIRST_TRIAL, candidates, tune

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
  assert len(candidates({"random": METHODS["random"]}, short)["random"]) == math.prod(
    len(values) for values in tuning.GRID.values()
  )


def test_the_choice_is_the_best_of_the_best_two(tuned, short):
  """By hand, from what each run came to on validation examples."""
  found, _ = tuned
  assert found.is_over
  for name in METHODS:
    first = [result_row(run) for run in found.screened[name]]
    order = sorted(range(3), key=lambda i: -first[i]["valid_accuracy"])
    assert list(found.best[name]) == order[:2]
    second = [[result_row(run)["valid_accuracy"] for run in runs] for runs in found.final[name]]
    assert [len(runs) for runs in second] == [2, 2]
    winner = order[max((0, 1), key=lambda i: (sum(second[i]), -i))]
    assert found.choice(name) == winner
  rows = found.results
  assert set(rows[rows["round"] == 1]["trial"]) == {FIRST_TRIAL}
  assert set(rows[rows["round"] == 2]["trial"]) == {FIRST_TRIAL + 1, FIRST_TRIAL + 2}
  assert set(rows[rows["method"] == "random"]["density"].round(2)) == {0.5}
  lengths = {number: {run.method.task.epochs for n, run in found.runs if n == number} for number in (1, 2)}
  assert lengths == {1: {1}, 2: {3}}


def test_the_table_says_what_hung_on_it_and_what_it_cost(tuned):
  found, directory = tuned
  text = found.write(directory)
  assert "learning_rate=" in text
  rows = table(directory / "tuning.csv")
  assert len(rows) == 2 * (3 + 4)
  line = next(line for line in text.splitlines() if line.startswith("| random"))
  trained = 3 * 1 + 4 * 3
  assert f" {trained} " in line  # its searches cost nothing
  assert " 0.0 %" not in line


def test_what_is_done_is_not_run_again_and_the_methods_go_on_to_a_study(tuned, short, monkeypatch):
  found, directory = tuned
  monkeypatch.setattr(nets_jax.studies.work, "run_batch", lambda *given: pytest.fail("run again"))
  again = tune(candidates(METHODS, short, RATES), density=0.5, screen_epochs=1, directory=directory)
  assert [again.choice(name) for name in METHODS] == [found.choice(name) for name in METHODS]
  monkeypatch.undo()
  methods = again.methods
  assert [dict(method.columns) for method in methods] == [{"method": "random"}, {"method": "dense"}]
  results = densities(methods, densities=[0.4], trials=2).results
  assert list(results["method"]) == ["random", "random", "dense", "dense"]


def test_what_diverges_is_not_chosen(short):
  methods = {"random": METHODS["random"]}
  found = tune(candidates(methods, short, {"learning_rate": (1e30, 0.1)}), finalists=1)
  assert found.is_over
  assert not found.final
  assert found.methods[0].task.training.learning_rate == 0.1
  with pytest.raises(nets_jax.UsageError, match="no setting of random came through with every run, so none"):
    tune(candidates(methods, short, {"learning_rate": (1e30,)})).choice("random")


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
