"""Regression and several labels of each example, from the command line to the last table and figure."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import table

import nets_jax
from nets_jax.analysis import figures
from nets_jax.cli import compare, sweep
from nets_jax.evolution.fitness import Metrics
from nets_jax.evolution.history import History
from nets_jax.studies import best, comparison, frontier_tables, frontiers, outcome
from nets_jax.training.measures import Measures

pytestmark = pytest.mark.zoo

ERROR = Measures("squared_error", "absolute_error", False)
SMALL = ("--hidden_sizes=4", "--devices=1", "--batch_size=50", "--train_epochs=2")
DIABETES = ("--dataset=diabetes", *SMALL)


def summary_of(directory):
  return json.loads((directory / "summary.json").read_text())


def flags_of(directory):
  return json.loads((directory / "config.json").read_text())["flags"]


def labels_of(figure):
  return [axes.get_ylabel() for axes in figure.axes]


def test_a_search_for_diabetes_says_errors(job, tmp_path):
  search = ("--search=paper", "--population_size=3", "--generations=1", "--workdir=run", "--frontier=0")
  status, out, error = job(*DIABETES, *search)
  assert status == 0, error
  run = tmp_path / "run"
  assert "test absolute error" in out
  assert "as good " in out
  assert "accura" not in out + (run / "summary.json").read_text() + (run / "history.csv").read_text()
  found, flags = summary_of(run), flags_of(run)
  assert Measures.of_record(found) == ERROR
  assert (flags["loss"], flags["score"]) == ("squared_error", "absolute_error")
  assert "--loss=squared_error\n" in (run / "run.flags").read_text()
  curve = [row for row in table(run / "training.csv") if row["ticket"] == "paper"]
  assert float(curve[-1]["test_absolute_error"]) == found["results"]["paper"]["test_absolute_error"]
  assert set(found["verdicts"]["dense"]) >= {"absolute_error", "dense_absolute_error"}
  best_row = min(table(run / "history.csv"), key=lambda row: float(row["fitness"]))
  assert float(best_row["valid_absolute_error"]) == found["best"]["valid_absolute_error"]
  ticket = nets_jax.load_ticket(run / "ticket.safetensors")
  assert ticket.weights["output"]["kernel"].shape == (4, 1)
  assert "(absolute error)" in outcome.list_runs(str(tmp_path))
  drawn = figures.evolution_figure([{k: float(v) for k, v in r.items()} for r in table(run / "history.csv")])
  assert labels_of(drawn)[1] == "validation loss after training\n(squared error)"


def test_a_comparison_for_diabetes(run_binary, tmp_path):
  methods = "--methods=imp:cycles=2:cycle_epochs=1,snip:score_batch=50,dense"
  status, out, error = run_binary(compare, *DIABETES, methods, "--trials=1", "--workdir=out")
  assert status == 0, error
  assert "| Mean test absolute error " in out
  assert "a' " in out
  assert "accuracy" not in out
  rows = table(tmp_path / "out" / "table1.csv")
  assert len(rows) == 3
  assert all(0 < float(row["test_absolute_error"]) < 3 for row in rows)
  third = table(tmp_path / "out" / "figure3.csv")
  assert list(third[0]) == ["method", "trial", "epoch", "test_loss", "test_absolute_error"]
  config = json.loads((tmp_path / "out" / "config.json").read_text())["settings"]
  assert (config["loss"], config["score"]) == ("squared_error", "absolute_error")


def test_a_sweep_for_diabetes_chooses_the_lowest_error(run_binary, tmp_path):
  grid = ("--search=random", "--grid=learning_rate=0.1,0.00001", "--seeds=0:2", "--workdir=out")
  status, out, error = run_binary(sweep, *DIABETES, *grid, "--best_by=test_score")
  assert status == 0, error
  assert "best by test_absolute_error" in out
  assert "--learning_rate=0.1\n" in (tmp_path / "out" / "best.flags").read_text()
  settings = table(tmp_path / "out" / "settings.csv")
  means = [float(row["test_absolute_error"]) for row in settings]
  assert means[0] < means[1]
  assert len(table(tmp_path / "out" / "results.csv")) == 4
  status, _, error = run_binary(sweep, *DIABETES, *grid, "--best_by=test_accuracy")
  assert status == 2
  assert error.startswith(
    "error: the best cannot be told by test_accuracy, for the score of these runs is absolute_error"
  )


def test_several_labels_of_each_example(job, tmp_path):
  rng = np.random.default_rng(0)
  inputs = rng.normal(size=(120, 5))
  np.savez(tmp_path / "mine.npz", inputs=inputs, labels=(inputs[:, :3] > 0).astype(np.uint8))
  status, out, error = job("--dataset=mine.npz", *SMALL, "--search=random", "--workdir=run")
  assert status == 0, error
  assert "test label accuracy" in out
  found = summary_of(tmp_path / "run")
  assert Measures.of_record(found) == Measures("binary_cross_entropy", "label_accuracy", True)
  assert 0.3 < found["results"]["random"]["test_label_accuracy"] < 1


@pytest.mark.usefixtures("stranger")
def test_a_loss_and_a_score_of_ones_own_on_the_command_line(job, tmp_path):
  own = ("--loss=stranger.losses:huber(delta=0.5)", "--score=stranger.losses:farthest")
  status, out, error = job(
    *DIABETES,
    *own,
    "--more_is_better=false",
    "--search=random",
    "--workdir=run",
    "--standardise_targets=false",
  )
  assert status == 0, error
  found = summary_of(tmp_path / "run")
  assert Measures.of_record(found) == Measures("huber", "farthest", False)
  assert "test farthest" in out
  verdict = found["verdicts"]["dense"]
  assert verdict["farthest"] > 10  # in the units of the data
  assert flags_of(tmp_path / "run")["loss"] == "stranger.losses:huber(delta=0.5)"
  status, _, error = job("--flagfile=run/run.flags", "--workdir=again")
  assert status == 0, error
  assert summary_of(tmp_path / "again")["results"] == found["results"]


@pytest.mark.usefixtures("stranger")
@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (
      ["--loss=cross_entropy"],
      "loss cross_entropy is of classes (integers [examples]), but the data's labels",
    ),
    (["--score=accuracy"], "give score=absolute_error, or leave score out"),
    (["--loss=squared_eror"], "did you mean squared_error?"),
    (["--label_smoothing=0.1"], "label_smoothing is a setting of cross_entropy, which squared_error lacks"),
    (
      ["--more_is_better"],
      "more_is_better is for a score of your own; of absolute_error, less is better any",
    ),
    (
      ["--loss=stranger.losses:wide"],
      "loss wide must give a number for each example, [batch], but for 3 exa",
    ),
    (
      ["--loss=stranger.losses:broken"],
      "loss broken failed for outputs and labels of the shapes [3, 1], [3, 1]: Attri",
    ),
    (["--loss=stranger.losses:pinbal"], "stranger.losses has no 'pinbal'; did you mean pinball?"),
    (["--loss=stranger.losses:CONSTANT"], "is no function of outputs and targets"),
    (["--score=stranger.losses:huber(delt=1)"], "it takes no argument 'delt', but delta"),
    (["--dataset=xor", "--loss=squared_error"], "give loss=cross_entropy, or leave loss out"),
    (["--dataset=xor", "--standardise_targets=false"], "standardise_targets is of numbers to predict, but"),
    (["--dataset=xor", "--label_smoothing=1"], "label_smoothing must be in [0, 1), not 1.0"),
  ],
)
def test_what_is_wrong_is_said_on_one_line(job, tmp_path, arguments, message):
  status, _, error = job(*DIABETES, "--search=random", *arguments)
  assert status == 2
  assert message in error
  assert error.count("\n") == 1
  assert not (tmp_path / "runs").exists()


def test_figures_of_an_error_are_drawn_from_rows_alone():
  curve = [
    {"method": m, "trial": t, "epoch": e, "test_loss": 1 / e, "test_absolute_error": 10 / e + t}
    for m in ("random", "imp")
    for t in range(2)
    for e in range(1, 12)
  ]
  loss, score = figures.training_figure(curve).axes
  assert (loss.get_ylabel(), score.get_ylabel()) == ("test loss (squared error)", "test absolute error")
  assert 6 < score.get_ylim()[1] < 12
  rows = [
    {"method": m, "trial": t, "target_density": d, "density": d, "test_absolute_error": 0.5 + 0.1 * t + d}
    | {"search_epochs": 3.0, "search_seconds": 1.0, "failed": "", "empty_layers": "none"}
    for m in ("random", "imp")
    for t in range(3)
    for d in (0.1, 0.5)
  ]
  assert labels_of(figures.densities_figure(rows)) == ["test absolute error"]
  costs = labels_of(figures.cost_figure(rows))
  assert costs == ["test absolute error at 50 %", "test absolute error at 10 %"]
  found = frontier_tables.differences(pd.DataFrame(rows))
  assert found["difference"].abs().max() == 0
  title = figures.differences_figure(found.to_dict("records"), ERROR).get_suptitle()
  assert title == "test absolute error, difference from random; less is better"
  assert "| 0.700 ± " in frontier_tables.scores(pd.DataFrame(rows))
  assert "(0.800; 3, 1 s)" in frontier_tables.scores(pd.DataFrame(rows))
  others = pd.DataFrame(rows).rename(columns={"test_absolute_error": "test_accuracy"})
  with pytest.raises(nets_jax.UsageError, match="has another score than test_absolute_error; give another"):
    frontiers.merged(others, pd.DataFrame(rows))


def test_the_best_of_an_error_is_the_lowest_and_of_ones_own_as_it_says():
  settings = pd.DataFrame([{"test_own": 0.5, "failed": 0}, {"test_own": 0.3, "failed": 0}])
  for more_is_better, index in ((False, 1), (True, 0)):
    measures = Measures("squared_error", "own", more_is_better)
    assert best.best_setting(settings, "test_own", measures) == (index, "test_own")
    values = [best.value_of(row, "test_own", measures) for row in settings.to_dict("records")]
    assert np.argmin(values) == index
  assert best.metric_of("valid_score", Measures()) == "valid_accuracy"


def test_a_study_has_one_score(data, network):
  task = nets_jax.Task(network, data, epochs=1)
  other = task.replace(score=lambda outputs, labels: outputs[:, 0])
  methods = [
    comparison.Method({"method": name}, nets_jax.Imp(), of) for name, of in (("a", task), ("b", other))
  ]
  with pytest.raises(nets_jax.UsageError, match="the runs of a study have one score, not accuracy and score"):
    comparison.compare(methods, trials=1)


SCALES = "the targets of some runs are standardised, and of others not"
LOSSES = "cannot compare settings of several losses (squared_error, stranger.losses:"


@pytest.mark.usefixtures("stranger")
@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--grid=loss=squared_error,stranger.losses:pinball"], f"valid_loss {LOSSES}pinball); give --best_by=v"),
    (
      ["--grid=loss=stranger.losses:huber(delta=1),stranger.losses:huber(delta=2)", "--best_by=fitness"],
      "fitness cannot compare settings of several losses (stranger.losses:huber(delta=1), stranger.losses:hu",
    ),
    (["--grid=standardise_targets=true,false", "--best_by=valid_score"], SCALES),
    (["--grid=score=squared_error,absolute_error"], "one score, not squared_error and absolute_error"),
    (
      ["--grid=more_is_better=true,false", "--score=stranger.losses:farthest"],
      "not stranger.losses:farthest (more_is_better=True) and stranger.losses:farthest (more_is_better=Fal",
    ),
    (
      ["--ranges=loss=squared_error,stranger.losses:pinball"],
      "valid_loss cannot compare settings of several l",
    ),
    (["--ranges=standardise_targets=true,false"], SCALES),
    (
      ["--ranges=score=absolute_error,squared_error;learning_rate=0.1:1"],
      "error: the runs of a study have one score, not ",
    ),
    (["--grid=loss=squared_error,squared_eror"], "did you mean squared_error?"),
    (
      ["--grid=loss=squared_error,stranger.losses:pinball", "--search=paper", "--pruner=median"],
      "--pruner cannot compare settings of several losses (squared_error, stranger.losses:pinball); leave it",
    ),
  ],
)
def test_a_sweep_refuses_what_it_cannot_compare(run_binary, tmp_path, arguments, message):
  tpe = ("--sampler=tpe", "--samples=2") if "--ranges" in arguments[0] else ()
  status, _, error = run_binary(sweep, *DIABETES, "--search=random", *tpe, *arguments)
  assert status == 2
  assert message in error
  assert error.count("\n") == 1
  assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("stranger")
def test_settings_of_several_losses_are_told_by_their_score(run_binary):
  grid = ("--search=random", "--grid=loss=squared_error,stranger.losses:pinball", "--seeds=0:1")
  status, out, error = run_binary(sweep, *DIABETES, *grid, "--best_by=valid_score", "--workdir=out")
  assert status == 0, error
  assert "best by valid_absolute_error" in out


def test_a_history_of_another_score_is_taken_up_again():
  columns = [np.float32(values) for values in ([1, 2], [0.5, 0.6], [0.3, 0.4], [1.0, 0.2])]
  history = History((), "absolute_error")
  rows = history.add(0, Metrics(*columns), np.full((2, 2), -1), 1.5)
  assert rows[1]["valid_absolute_error"] == np.float32(0.4)
  assert "valid_accuracy" not in rows[1]
  assert list(History(rows, "absolute_error")) == rows
