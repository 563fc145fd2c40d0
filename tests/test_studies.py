"""Studies as a notebook has them: a few lines, tables of pandas, and workers that share the runs."""

import contextlib
import functools
import json
import os
import pathlib
import signal
import sqlite3
import subprocess
import sys
import time

import flax.linen as nn
import jax
import numpy as np
import pandas as pd
import pytest
from conftest import assert_same_bits

import nets_jax
from nets_jax import studies
from nets_jax.analysis.progress import Progress
from nets_jax.baselines.one_shot import Snip
from nets_jax.baselines.random_tickets import Random
from nets_jax.engine.tables import read_csv
from nets_jax.networks.initialisation import Normal
from nets_jax.studies import methods, trials, workers
from nets_jax.training.losses import cross_entropy

ROOT = pathlib.Path(nets_jax.__file__).parent.parent


@pytest.fixture(scope="module")
def small():
  """A task of seconds."""
  data = nets_jax.load_data("xor", xor_train_size=60, xor_test_size=20)
  return nets_jax.Task(nets_jax.MLP((4,), 2), data, nets_jax.Training(batch_size=10), epochs=2)


PAPER = nets_jax.recipes.paper(population_size=3, generations=1)


def test_a_comparison_in_five_lines(small):
  found = studies.compare({"nets": PAPER, "random": Random()}, small, trials=2)
  results = found.results
  assert isinstance(results, pd.DataFrame)
  assert list(results["method"]) == ["nets"] * 2 + ["random"] * 2
  assert results["test_accuracy"].between(0, 1).all()
  assert set(found.figures()) == {"figure1", "figure2", "figure3"}
  # A method's trial is the library's own search and training with the trial's keys.
  search_key, training_key = jax.random.split(jax.random.fold_in(nets_jax.key_of_seed(0), 1))
  alone = nets_jax.search(search_key, small, PAPER)
  (run,) = [run for run in found.runs if run.columns == {"method": "nets", "trial": 1}]
  ticket = nets_jax.load_ticket(run.path / "ticket.safetensors")
  assert_same_bits(jax.device_get(ticket), jax.device_get(alone.ticket))
  curve = nets_jax.train_tickets(training_key, alone.ticket, small).curves
  assert results["test_loss"][1] == curve[-1]["test_loss"]


def test_a_method_may_have_a_training_of_its_own(small):
  fast = small.replace(training=nets_jax.Training(learning_rate=0.5, batch_size=10))
  chosen = [studies.Method({"method": "slow"}, PAPER, small), studies.Method({"method": "fast"}, PAPER, fast)]
  losses = studies.compare(chosen, trials=1).results["test_loss"]
  assert losses[0] != losses[1]


def test_a_sweep_in_five_lines(small, tmp_path):
  grid = {"noise_rate": [0.1, 0.5], "learning_rate": [0.1, 0.2]}
  settings = studies.vary(PAPER, small, grid)
  found = studies.sweep(settings, seeds=range(2), directory=tmp_path)
  assert list(found.results.columns[:4]) == ["run", "noise_rate", "learning_rate", "seed"]
  assert len(found.results) == 8
  assert len(found.settings) == 4
  assert found.best_method in settings
  assert found.best_method.columns == found.settings.iloc[found.best[0]][list(grid)].to_dict()
  again = studies.sweep(settings, seeds=range(2), directory=tmp_path)
  pd.testing.assert_frame_equal(again.results, found.results)
  with pytest.raises(nets_jax.UsageError, match="Nets has no setting 'noise_rat'; did you mean noise_rate"):
    studies.vary(PAPER, small, {"noise_rat": [1]})


def test_densities_and_controls_in_five_lines(small, tmp_path):
  found = studies.densities({"snip": Snip(score_batch=20)}, small, [0.5, 0.25], trials=1)
  assert list(found.results["density"]) == [0.5, 0.25]
  ticket = nets_jax.load_ticket(found.runs[0].path / "ticket.safetensors")
  names = ["ticket", "shuffle_mask", "dense"]
  judged = studies.controls([ticket], small, names=names, directory=tmp_path)
  assert list(judged.results["control"]) == names
  assert list(judged.results["density"]) == [0.5, 0.5, 1.0]
  assert "Definition 3 against dense: " in judged.verdicts()
  more = studies.controls([ticket], small, names=["unmasked"], directory=tmp_path)
  assert list(more.results["control"]) == ["ticket", "unmasked", "shuffle_mask", "dense"]


def test_a_hash_tells_data_settings_and_training_apart(small):
  def named(search, task):
    return methods.Method({}, search, task).hash

  other = nets_jax.load_data("xor", seed=1, xor_train_size=60, xor_test_size=20)
  same = nets_jax.load_data("xor", xor_train_size=60, xor_test_size=20)
  assert named(PAPER, small) == named(PAPER, small.replace(data=same))
  names = {
    named(PAPER, small),
    named(PAPER, small.replace(data=other)),
    named(PAPER, small.replace(epochs=3)),
    named(PAPER, small.replace(initialiser=Normal(0.2))),
    named(PAPER, small.replace(training=nets_jax.Training(learning_rate=0.3, batch_size=10))),
    named(PAPER.change(noise_rate=0.3), small),
    named(nets_jax.recipes.guided(), small),
    named(Random(), small),
  }
  assert len(names) == 8


def test_a_hash_tells_functions_classes_and_parts_apart(small):
  def named(task, search=PAPER):
    return methods.Method({}, search, task).hash

  def scaled(factor):
    return lambda outputs, labels: factor * cross_entropy(outputs, labels)

  def powered(power, outputs, labels):
    return cross_entropy(outputs, labels) ** power

  losses = [scaled(1.0), scaled(2.0), functools.partial(powered, 1.0), functools.partial(powered, 2.0)]
  assert len({named(small.replace(loss=loss)) for loss in losses}) == 4
  assert named(small.replace(loss=scaled(2.0))) == named(small.replace(loss=scaled(2.0)))
  nets = [type("Net", (nn.Dense,), {"__module__": module}) for module in ("one", "other")]
  assert len({named(small.replace(network=net(2))) for net in nets}) == 2
  assert named(small, PAPER.replace(operators=PAPER.operators[:2])) != named(small)


def test_numbers_of_numpy_are_settings_too(small, tmp_path):
  settings = studies.vary(PAPER, small, {"elites": np.arange(2), "noise_rate": [np.float32(0.1)]})
  found = studies.sweep(settings, seeds=[0], directory=tmp_path)
  assert list(found.results["elites"]) == [0, 1]


def test_a_worker_that_takes_runs_meanwhile_is_not_taken_for_dead(tmp_path, monkeypatch):
  queue = trials.Trials(tmp_path, None, "runs")
  first, second = workers.Worker(tmp_path), workers.Worker(tmp_path)
  with first.at_work(), second.at_work():
    queue.add(["a"])
    look = second.in_hand

    def take_first():
      alive = look()
      queue.claim(["a"], first)  # just after the other has looked who is at work on what
      return alive

    monkeypatch.setattr(second, "in_hand", take_first)
    assert queue.revive(second) == []


def test_a_journal_that_is_damaged_costs_nothing_that_was_done(small, tmp_path):
  settings = studies.vary(PAPER, small, {"noise_rate": [0.1]})
  found = studies.sweep(settings, seeds=[0, 1], directory=tmp_path)
  journal = tmp_path / trials.JOURNAL
  journal.write_bytes(journal.read_bytes()[:-20])  # as a power failure may leave it
  again = studies.sweep(settings, seeds=[0, 1, 2], directory=tmp_path)
  assert len(again.results) == 3
  pd.testing.assert_frame_equal(again.results[:2], found.results)
  assert not (tmp_path / f"damaged-{trials.JOURNAL}").exists()
  journal.write_text("nonsense\n" + journal.read_text())
  last = studies.sweep(settings, seeds=[0, 1, 2], directory=tmp_path)
  pd.testing.assert_frame_equal(last.results, again.results)
  assert (tmp_path / f"damaged-{trials.JOURNAL}").exists()


def test_what_a_pruner_ended_is_run_again_without_it(small, tmp_path):
  settings = studies.vary(PAPER, small, {"noise_rate": [0.1]})
  machine = studies.Machine(prune=lambda run, rows: rows[0]["generation"] == 0)
  options = studies.Options(machine=machine)
  assert studies.sweep(settings, [0], directory=tmp_path, options=options).results["failed"][0] == (
    "pruned after generation 0"
  )
  assert studies.sweep(settings, [0], directory=tmp_path).results["failed"][0] == ""


@pytest.mark.parametrize("storage", ["journal", "database"])
def test_a_batch_is_claimed_once_and_taken_up_when_its_worker_dies(tmp_path, storage):
  url = None if storage == "journal" else f"sqlite:///{tmp_path}/trials.db"
  queue = trials.Trials(tmp_path, url, "runs")
  first, second = workers.Worker(tmp_path), workers.Worker(tmp_path)
  with first.at_work(), second.at_work():
    queue.add(["a", "b", "c"])
    queue.add(["a"])  # it is there
    assert set(queue.claim(["a", "b"], first)) == {"a", "b"}
    claimed = queue.claim(["a", "b", "c"], second)
    assert set(claimed) == {"c"}
    assert queue.claim(["a", "b", "c"], second) == {}
    queue.tell(claimed["c"], 1.0)
    assert queue.revive(second) == []
    first.take([])  # as if it had died with its hands full
    assert queue.revive(second) == ["a", "b"]
    assert set(queue.claim(["a", "b", "c"], second)) == {"a", "b"}


def test_a_dead_process_is_no_worker(tmp_path):
  living = workers.Worker(tmp_path)
  with living.at_work():
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    path = tmp_path / workers.DIRECTORY / "dead.json"
    path.write_text(json.dumps({"host": workers.host(), "pid": dead.pid, "runs": ["a"]}))
    living.take(["b"])
    assert living.in_hand() == {"b"}
    assert not path.exists()
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "runs": ["a"]}))
    assert living.in_hand() == {"a", "b"}
    long_ago = time.time() - 2 * workers.SILENCE_SECONDS
    os.utime(path, (long_ago, long_ago))
    assert living.in_hand() == {"b"}
  assert not (tmp_path / workers.DIRECTORY).exists()


def test_a_budget_of_hours_begins_no_more(small, tmp_path):
  settings = studies.vary(PAPER, small, {"noise_rate": [0.1, 0.2, 0.3]})
  options = studies.Options(machine=studies.Machine(at_once=1), max_hours=1e-9)
  found = studies.sweep(settings, seeds=[0], directory=tmp_path, options=options)
  assert not found.runs
  with pytest.raises(nets_jax.UsageError, match="no run is done yet; the same command goes on"):
    found.write(tmp_path)
  assert len(studies.sweep(settings, seeds=[0], directory=tmp_path).results) == 3


SWEEP = (
  "--dataset=xor", "--xor_train_size=60", "--xor_test_size=20", "--hidden_sizes=4", "--batch_size=10",
  "--train_epochs=10", "--search=paper", "--population_size=4", "--generations=30", "--at_once=1",
  "--seeds=0:4", "--grid=noise_rate=0.1,0.3,0.5", "--checkpoint_seconds=0",
)  # fmt: skip


@pytest.mark.faults
def test_three_workers_of_which_one_is_killed_end_as_one(tmp_path):
  """And one is started again: tables are equal byte by byte, but for seconds."""

  def start(directory):
    command = [sys.executable, "-m", "experiments.sweep", *SWEEP, f"--workdir={tmp_path}/{directory}"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

  alone = start("alone")
  assert alone.communicate(timeout=300)[0]
  assert alone.returncode == 0
  several = [start("several") for _ in range(3)]
  for line in several[0].stderr:
    if "runs are done" in line:
      break
  several[0].send_signal(signal.SIGKILL)
  several[0].wait()
  several.append(start("several"))
  for worker in several[1:]:
    _, error = worker.communicate(timeout=300)
    assert worker.returncode == 0, error
  one, other = tmp_path / "alone", tmp_path / "several"
  for name in ("results.csv", "history.csv", "settings.csv"):
    rows = [
      [{k: v for k, v in row.items() if "seconds" not in k} for row in read_csv(where / name)]
      for where in (one, other)
    ]
    assert len(rows[0]) > 2
    assert repr(rows[0]) == repr(rows[1])  # NaN too
  tables = [(where / "settings.md").read_text().splitlines() for where in (one, other)]
  columns = [[line.split("|")[1:7] for line in lines] for lines in tables]
  assert columns[0] == columns[1]
  for run in (one / "runs").iterdir():
    ticket = (run / "ticket.safetensors").read_bytes()
    assert ticket == (other / "runs" / run.name / "ticket.safetensors").read_bytes()
  assert not (other / "workers").exists()
  assert not (other / "checkpoints").exists()


def test_a_database_that_goes_away_is_one_line(tmp_path):
  url = f"sqlite:///{tmp_path}/trials.db"
  known = trials.Trials(tmp_path, url, "study")
  with contextlib.closing(sqlite3.connect(tmp_path / "trials.db")) as database, database:
    database.execute("drop table trials")
  message = r"trials\.db cannot be reached any more \(.*no such table"
  with pytest.raises(nets_jax.UsageError, match=message), trials.reachable(url):
    known.add(["run"])
  with pytest.raises(KeyError), trials.reachable(url):
    raise KeyError("of something else")


def test_a_line_of_progress_says_whose_numbers_it_shows(capsys):
  for runs, rows in ((2, [{"valid_loss": 3.0}, {"valid_loss": 2.0}]), (1, [{"valid_loss": 2.0}])):
    with Progress("sweep", 1, runs) as progress:
      progress(rows)
  with Progress("sweep", 1, 2) as progress:
    progress([{"density": 0.2}, {"density": 0.1}])
  said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("sweep")]
  wanted = ["the best of 2 runs has valid_loss 2.000", "valid_loss 2.000", "density 0.200"]
  assert said == [f"sweep 1/1: {text}" for text in wanted]
