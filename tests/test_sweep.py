"""Seeds x settings in one program: each run is that of experiments.search, and nothing runs twice."""

import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pandas as pd
import pytest
from absl import flags
from conftest import counted_compilations, made_once, reset_flags, squeezed

import nets_jax
from nets_jax.analysis.history_figures import leaders
from nets_jax.cli import command as command_module
from nets_jax.cli import search, sweep
from nets_jax.cli import setting_flags as search_flags
from nets_jax.engine import files
from nets_jax.engine.tables import read_csv
from nets_jax.studies import sweeps, work
from nets_jax.studies.best import METRICS

PROBLEM = (
  "--dataset=xor", "--xor_train_size=100", "--xor_test_size=40", "--hidden_sizes=6", "--batch_size=10",
  "--train_epochs=2", f"--devices={jax.local_device_count()}",
)  # fmt: skip
SMALL = (*PROBLEM, "--search=paper", "--population_size=4", "--generations=2", "--fitness_epochs=1")
GRID = ("--seeds=3:5", "--grid=noise_rate=0.1,0.3;generations=1,2", "--workdir=out")


@pytest.fixture
def job(run_binary):
  """A binary with the small problem in this process."""
  return lambda binary, *arguments, small=SMALL: run_binary(binary, *small, *arguments)


@pytest.fixture
def done(job, finished, tmp_path):
  """A copy of a finished sweep of two rates, two numbers of generations and two seeds, made once."""
  return made_once(finished, tmp_path / "out", lambda: job(sweep, *GRID))


def without_seconds(path):
  return [{k: v for k, v in row.items() if k != "seconds"} for row in read_csv(path)]


def runs_of(directory):
  """The directory of each run, by its flags."""
  found = {}
  for path in (directory / "runs").iterdir():
    own = json.loads((path / "config.json").read_text())["flags"]
    found[own["noise_rate"], own["generations"], own["seed"]] = path
  return found


@pytest.mark.devices
def test_each_run_is_that_of_the_search(done, job, tmp_path):
  runs = runs_of(done)
  assert set(runs) == {(rate, n, seed) for rate in (0.1, 0.3) for n in (1, 2) for seed in (3, 4)}
  for i, (rate, generations, seed) in enumerate([(0.1, 1, 3), (0.3, 2, 4)]):
    arguments = (
      f"--noise_rate={rate}",
      f"--generations={generations}",
      f"--seed={seed}",
      f"--workdir=alone{i}",
    )
    assert job(search, *arguments)[0] == 0
    alone, own = tmp_path / f"alone{i}", runs[rate, generations, seed]
    assert (own / "ticket.safetensors").read_bytes() == (alone / "ticket.safetensors").read_bytes()
    assert without_seconds(own / "history.csv") == without_seconds(alone / "history.csv")
    trained = [row for row in without_seconds(alone / "training.csv") if row.pop("ticket") == "paper"]
    assert without_seconds(own / "training.csv") == trained
    summaries = [json.loads((path / "summary.json").read_text()) for path in (own, alone)]
    assert summaries[0]["results"]["ticket"] == summaries[1]["results"]["paper"]
    configs = [json.loads((path / "config.json").read_text())["flags"] for path in (own, alone)]
    of_a_search = {
      "workdir": "",
      "seed": seed,
      "ticket": None,
      "frontier": 32,
      "max_seconds": None,
    }  # which a sweep has not
    assert configs[0] | of_a_search == configs[1] | of_a_search


def test_it_writes_tables_a_figure_and_the_best_setting(done, job, tmp_path):
  assert {path.name for path in done.iterdir() if path.name[0] != "."} == {
    "config.json", "sweep.flags", "runs", "results.csv", "history.csv", "settings.csv", "settings.md",
    "figure_effects.png", "best.flags", "report.html", "trials.log",
  }  # fmt: skip
  results = read_csv(done / "results.csv")
  assert [(r["noise_rate"], r["generations"], r["seed"]) for r in results] == [
    (rate, n, seed) for rate in (0.1, 0.3) for n in (1, 2) for seed in (3, 4)
  ]
  for row in results:
    summary = json.loads((done / "runs" / row["run"] / "summary.json").read_text())
    assert row["test_accuracy"] == summary["results"]["ticket"]["test_accuracy"]
    assert row["fitness"] == summary["best"]["fitness"]
    assert row["search_epochs"] == 4 * (row["generations"] + 1)
  history = read_csv(done / "history.csv")
  assert len(history) == 2 * 2 * (2 + 3)
  for row in history:
    own = read_csv(done / "runs" / row["run"] / "history.csv")
    assert row["fitness"] == min(r["fitness"] for r in own if r["generation"] == row["generation"])
  settings = read_csv(done / "settings.csv")
  first = [r["valid_loss"] for r in results[:2]]
  assert settings[0]["valid_loss"] == pytest.approx(sum(first) / 2)
  half = abs(first[0] - first[1]) / 2 * 12.706  # Student's t, one degree of freedom
  assert settings[0]["valid_loss_interval"] == pytest.approx(half, rel=1e-3)
  best = min(settings, key=lambda row: row["valid_loss"])
  status, _, error = job(search, "--flagfile=out/best.flags", "--seed=3", "--workdir=again")
  assert status == 0, error
  again = json.loads((tmp_path / "again" / "config.json").read_text())["flags"]
  assert (again["noise_rate"], again["generations"]) == (best["noise_rate"], best["generations"])
  own = runs_of(done)[again["noise_rate"], again["generations"], 3]
  assert (own / "ticket.safetensors").read_bytes() == (tmp_path / "again" / "ticket.safetensors").read_bytes()
  assert "**" in (done / "settings.md").read_text()


@pytest.mark.devices
def test_a_sweep_that_was_stopped_goes_on_with_what_is_left(done, job, monkeypatch):
  runs = runs_of(done)
  lost = runs[0.3, 1, 4]
  before = without_seconds(lost / "history.csv")
  (lost / "summary.json").unlink()
  others = {path: path.stat().st_mtime_ns for path in done.rglob("*") if path.parent.parent.name == "runs"}
  status, out, error = job(sweep, *GRID)
  assert status == 0
  assert "8 runs, 7 of them done; 1 to go in 1 program(s)" in error
  assert without_seconds(lost / "history.csv") == before
  assert all(path.stat().st_mtime_ns == then for path, then in others.items() if path.parent != lost)
  assert "best by valid_loss: python -m experiments.search --flagfile=out/best.flags" in out
  assert "; the next setting differs by +" in out

  monkeypatch.setattr(work, "run_batch", None)  # would fail if anything were run again
  status, out, error = job(sweep, *GRID, "--best_by=test_accuracy")
  assert status == 0, error
  assert "8 runs, 8 of them done; 0 to go in 0 program(s)" in error
  assert "best by test_accuracy" in out


def test_settings_that_do_not_shape_the_program_share_one_compilation(job, monkeypatch):
  calls = []
  run_batch = work.run_batch
  monkeypatch.setattr(work, "run_batch", lambda *arguments: calls.append(arguments) or run_batch(*arguments))
  grid = "--grid=noise_rate=0.1,0.2;target_density=0.2,0.4;penalty_weight=1,2;learning_rate=0.1,0.2"
  arguments = ("--seeds=0:2", "--train_epochs=1", "--at_once=12")
  assert job(sweep, *arguments, grid, "--workdir=out")[0] == 0
  assert [len(runs) for _, runs, *_ in calls] == [11, 11, 10]  # 32 runs, at most 12 at once
  with counted_compilations() as compilations:
    assert job(sweep, *arguments, grid.replace("0.1,0.2", "0.3,0.4"), "--workdir=other")[0] == 0
  assert compilations == []


def test_settings_that_shape_the_program_are_grouped(job):
  grid = "--grid=population_size=3,4;noise_rate=0.1,0.2,0.20"
  status, error, _ = job(sweep, grid, "--dry_run", "--workdir=out")
  assert status == 0
  assert "20 runs, 0 of them done; 20 to go in 2 program(s)" in error
  assert "program 1: 10 runs, 1 batch(es) of 10 side by side" in error
  assert "population_size=3, noise_rate=0.1: seed 0, 1, 2, 3, 4" in error
  epochs = 2 * 5 * (3 + 4) * 3 + 20 * 2
  assert f"{epochs} genome-epochs, about " in error


def test_a_plan_names_a_setting_that_would_change_nothing(job):
  arguments = ("--search=guided", "--grid=penalty_weight=1,4", "--dry_run", "--workdir=out")
  told = "guided has no setting 'penalty_weight'; it comes with ranking=penalty; those that have it are paper"
  assert job(sweep, *arguments) == (2, "", f"error: {told}\n")


@pytest.mark.parametrize("method", ["random", "imp", "snip"])
def test_every_method_is_swept(method, job, tmp_path):
  own = {
    "random": ("--tensorboard",),
    "imp": ("--cycle_epochs=1", "--cycles=2"),
    "snip": ("--score_batch=20",),
  }[method]
  arguments = (f"--method={method}", *own)
  grid = {"random": "target_density", "imp": "prune_fraction", "snip": "target_density"}[method]
  both = (*arguments, "--seeds=1,5", f"--grid={grid}=0.3,0.5", "--workdir=out")
  status, _, error = job(sweep, *both, small=PROBLEM)
  assert status == 0, error
  alone = (*arguments, f"--{grid}=0.5", "--seed=5", "--workdir=alone")
  assert job(search, *alone, small=PROBLEM)[0] == 0
  (own,) = [
    path
    for path in (tmp_path / "out" / "runs").iterdir()
    for f in [json.loads((path / "config.json").read_text())["flags"]]
    if (f[grid], f["seed"]) == (0.5, 5)
  ]
  assert (own / "ticket.safetensors").read_bytes() == (tmp_path / "alone" / "ticket.safetensors").read_bytes()
  assert without_seconds(own / "history.csv") == without_seconds(tmp_path / "alone" / "history.csv")
  assert len(read_csv(tmp_path / "out" / "results.csv")) == 4
  assert any(own.glob("tensorboard/events*")) == (method == "random")


@pytest.mark.devices
def test_a_run_that_diverges_leaves_the_others_alone(job, tmp_path):
  arguments = ("--activation=relu", "--grid=learning_rate=0.1,1e30", "--seeds=0,1", "--workdir=out")
  status, out, _ = job(sweep, *arguments)
  assert status == 0
  results = read_csv(tmp_path / "out" / "results.csv")
  assert [bool(row["failed"]) for row in results] == [False, False, True, True]
  assert "every genome of generation 0 diverged" in results[2]["failed"]
  assert "2 (2 failed)" in squeezed(out)
  assert "--learning_rate=0.1" in (tmp_path / "out" / "best.flags").read_text()
  listed = job(search, "--list=out")[1]
  assert listed.count("failed") == 2
  assert job(sweep, "--grid=learning_rate=1e30", "--seeds=0", "--workdir=none")[0] == 0
  assert not (tmp_path / "none" / "best.flags").exists()


@pytest.mark.devices
@pytest.mark.parametrize(
  ("file", "content", "seals"),
  [
    ("summary.json", "{", False),
    ("summary.json", "[]", False),
    ("history.csv", "", True),
    ("history.csv", "a\n", False),
  ],
)
def test_a_damaged_run_is_set_aside_and_run_again(done, job, file, content, seals):
  """With the seal that tells every change, and without, as of a sweep from before there were seals."""
  run = runs_of(done)[0.3, 1, 4]
  before = without_seconds(run / "history.csv")
  others = {path: path.stat().st_mtime_ns for path in done.rglob("*") if path.parent.parent.name == "runs"}
  (run / file).write_text(content)
  if not seals:
    (run / files.SEAL).unlink()
  status, _, error = job(sweep, *GRID)
  assert status == 0, error
  assert f"{pathlib.Path('out', 'runs', run.name)} is damaged (" in error
  assert f"); it is now damaged-{run.name}, and run again\n" in error
  assert "8 runs, 7 of them done; 1 to go in 1 program(s)" in error
  assert without_seconds(run / "history.csv") == before
  assert (run.with_name(f"damaged-{run.name}") / file).read_text() == content
  assert all(path.stat().st_mtime_ns == then for path, then in others.items() if path.parent != run)


def test_a_sweep_of_another_version_is_not_gone_on_with(done, job):
  (done / "config.json").write_text('{"sweep": {}, "settings": {}}')
  before = {path: path.read_bytes() for path in done.rglob("*") if path.is_file()}
  status, _, error = job(sweep, *GRID)
  assert (status, error.count("\n")) == (2, 1)
  assert "out holds a run of another version of nets_jax, which this one does not go on with; give" in error
  assert before == {path: path.read_bytes() for path in done.rglob("*") if path.is_file()}


def test_a_changed_digit_is_told_by_the_seal(done, job):
  run = runs_of(done)[0.3, 1, 4]
  (run / "history.csv").write_text((run / "history.csv").read_text().replace("0.", "1.", 1))
  assert f"{run.name} is damaged (history.csv)" in job(sweep, *GRID)[2]


def test_empty_layers_are_a_column_of_every_table(job, tmp_path):
  arguments = (
    "--method=magnitude",
    "--score_batch=20",
    "--seeds=0:3",
    "--grid=target_density=0.05,1",
    "--workdir=out",
  )
  status, out, error = job(sweep, *arguments, "--init_scale=10/0.1", small=PROBLEM)
  assert status == 0, error
  assert "no weight is left in a layer (output in 3 of 3 tickets)" in error
  results = read_csv(tmp_path / "out" / "results.csv")
  assert [row["empty_layers"] for row in results] == ["output"] * 3 + ["none"] * 3
  settings = read_csv(tmp_path / "out" / "settings.csv")
  assert [row["empty_layers"] for row in settings] == ["output in 3 of 3", "none"]
  assert "| output in 3 of 3 |" in squeezed(out)


def test_one_scale_and_one_for_each_layer_are_swept_together(job, tmp_path):
  arguments = ("--seeds=0:2", "--grid=init_scale=0.1,0.1/0.5", "--workdir=out")
  status, _, error = job(sweep, *arguments)
  assert status == 0, error
  assert job(search, "--init_scale=0.1/0.5", "--seed=1", "--workdir=alone")[0] == 0
  tickets = [(path / "ticket.safetensors").read_bytes() for path in (tmp_path / "out" / "runs").iterdir()]
  assert (tmp_path / "alone" / "ticket.safetensors").read_bytes() in tickets


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--seeds=18446744073709551616"], "each of seeds must be a whole number from 0 to 2^64 - 1"),
    (["--grid=noise_rat=0.1"], "there is no setting 'noise_rat'; did you mean noise_rate?"),
    (["--grid=noise_rate=much"], "flag --noise_rate=much: it must be a number"),
    (["--grid=noise_rate=2"], "noise_rate must be in [0, 1], not 2.0"),
    (["--grid=seed=1,2"], "there is no setting 'seed'"),
    (["--grid=optimizer=sdg"], "did you mean sgd?"),
    (["--grid=elites=0", "--sampler=qmc", "--ranges=elites=0:2"], "elites is in --grid and in --ranges"),
    (
      ["--sampler=random", "--samples=2"],
      "--sampler=random asks for --samples of at least 1 and for --ranges",
    ),
    (["--ranges=elites=0:2"], "--ranges and --samples are for --sampler=random, qmc or tpe; name one"),
    (["--sampler=tpe", "--samples=2"], "--sampler=tpe asks for --samples of at least 1, for --ranges, and"),
    (
      ["--sampler=tpe", "--samples=2", "--ranges=elite=0:2"],
      "there is no setting 'elite'; did you mean elites?",
    ),
    (["--random=2"], "no flag --random any more; its work is done by --sampler=random --samples=N"),
    (["--max_hours=0"], "max_hours must be positive, not 0.0"),
    (["--storage=nowhere"], "cannot use --storage=nowhere: it is no URL such as postgresql://"),
    (["--seeds=a"], "seeds must be first:end or whole numbers"),
    (["--seeds=3:3"], "seeds must be at least one, each once and none negative, not '3:3'"),
    (["--seeds=1,1"], "each once"),
    (["--seeds=-1:2"], "none negative"),
    (["--seed=3"], "--seed is for experiments.search"),
    (["--at_once=0"], "at_once must be at least 1, not 0"),
    (["--train_epochs=-1"], "train_epochs must be at least 0, not -1"),
    (
      ["--keep_trained", "--train_epochs=0", "--grid=elites=1,2"],
      "keep_trained keeps what the final training",
    ),
    (["--keep_trained", "--train_epochs=0", "--dry_run"], "but train_epochs is 0; leave one out"),
    (
      ["--keep_trained", "--train_epochs=0", "--sampler=tpe", "--samples=2", "--ranges=elites=0:2"],
      "keep_trained keeps what the final training",
    ),
    (["--eval_every=0"], "eval_every must be at least 1, not 0"),
  ],
)
def test_a_wrong_request_is_one_line_and_leaves_nothing(arguments, message, job, tmp_path):
  status, _, error = job(sweep, *arguments, "--workdir=out")
  assert status == 2
  assert message in error
  assert error.count("\n") == 1
  assert not (tmp_path / "out").exists()


def test_a_ticket_is_for_the_search():
  root = command_module.PRESETS.parent.parent
  command = [sys.executable, "-m", "experiments.sweep", "--ticket=t"]
  done = subprocess.run(command, cwd=root, capture_output=True, text=True)
  assert (done.returncode, done.stdout) == (2, "")
  assert done.stderr.startswith("error: Unknown command line flag 'ticket'")
  assert done.stderr.count("\n") == 1


def test_the_ready_sweeps_parse(monkeypatch):
  presets = command_module.PRESETS / "sweeps"
  bases = {"digits", "mnist"}
  names = {path.stem for path in presets.glob("*.flags")}
  assert bases < names
  data = nets_jax.from_arrays(np.zeros((1438, 8, 8, 1)), np.arange(1438) % 10, valid_fraction=0.1)
  monkeypatch.setattr(search_flags, "make_data", lambda values: data)
  for base in bases:
    for name in names - bases:
      reset_flags()
      sweep.parse(["sweep", f"--flagfile={presets}/{base}.flags", f"--flagfile={presets}/{name}.flags"])
      methods, seeds = sweep.make_settings(flags.FLAGS), sweeps.parse_seeds(flags.FLAGS.seeds)
      assert len(seeds) == {"digits": 5, "mnist": 2}[base]
      assert len({method.hash for method in methods}) == len(methods) > 1
      for method in methods:
        method.search.check(method.task)


def test_the_best_setting():
  def best(rows, metric):
    return sweeps.best_setting(pd.DataFrame(rows), metric)

  def row(loss, failed=0, fitness=1.0):
    return {"valid_loss": loss, "valid_accuracy": 1 - loss, "fitness": fitness, "failed": failed}

  nan = float("nan")
  assert best([row(0.1), row(0.5, fitness=0.5)], None) == (0, "valid_loss")
  rows = [row(0.5, fitness=0.1), row(0.3), row(0.1, failed=1)]
  assert best(rows, None) == (1, "valid_loss")
  assert best(rows, "fitness") == (0, "fitness")
  assert best([row(0.5, fitness=nan), row(0.3, fitness=nan)], None) == (1, "valid_loss")
  assert best([row(0.5), row(0.3)], "valid_accuracy") == (1, "valid_accuracy")
  assert best([row(nan, fitness=2.0), row(nan, fitness=1.5)], None) == (1, "fitness")
  assert best([row(nan, fitness=nan)], None) == (None, "fitness")


def test_how_certain_the_best_setting_is():
  def told(*settings):
    results = pd.DataFrame([
      {"elites": i, "seed": seed, "failed": "", "empty_layers": "none", "search_seconds": 1.0}
      | dict.fromkeys(METRICS, loss)
      for i, losses in enumerate(settings)
      for seed, loss in enumerate(losses)
    ])  # fmt: skip
    rows = sweeps.setting_rows(results, ["elites"])
    best, metric = sweeps.best_setting(rows, None)
    return sweeps.certainty(results, rows, ["elites"], best, metric)

  # Student's quantile is 12.706 for two seeds: half of what they differ by, times that.
  assert told([0.1, 0.3], [0.2, 0.41]) == (
    "mean valid_loss after the final training: 0.2 ± 1.3 over 2 seed(s); the next setting differs by "
    "+0.1 ± 0.064, paired by seed, so the best is told from it"
  )
  assert told([0.1, 0.3], [0.2, 0.5]).endswith("so the two are not told apart; more seeds would tell")
  assert told([0.1], [0.2]).endswith("+0.1, paired by seed, one seed tells nothing of how certain that is")
  assert told([0.1]) == "mean valid_loss after the final training: 0.1 over 1 seed(s)"


@pytest.mark.parametrize("sampler", ["random", "qmc", "tpe"])
def test_every_sampler_tries_as_many_settings_as_asked_for(sampler, job, tmp_path):
  ranges = "--ranges=elites=1,2;noise_rate[elites=1]=0.1:0.5"
  arguments = (f"--sampler={sampler}", "--samples=4", ranges, "--seeds=0:2", "--train_epochs=1")
  status, out, error = job(sweep, *arguments, "--workdir=out")
  assert status == 0, error
  results = read_csv(tmp_path / "out" / "results.csv")
  settings = read_csv(tmp_path / "out" / "settings.csv")
  assert 2 <= len(settings) <= 4  # two draws may be one setting
  assert len(results) == 2 * len(settings)
  assert all(np.isnan(row["noise_rate"]) == (row["elites"] == 2) for row in results)
  assert "best by valid_loss: " in out
  again = job(sweep, *arguments, "--workdir=out")
  assert again[0] == 0
  assert again[1] == out  # nothing was tried again


def test_a_pruner_ends_hopeless_runs(job, tmp_path):
  arguments = ("--grid=noise_rate=0,1", "--seeds=0:8", "--pruner=median", "--at_once=1", "--workdir=out")
  status, _, error = job(sweep, *arguments, "--train_epochs=0")
  assert status == 0, error
  failed = [row["failed"] for row in read_csv(tmp_path / "out" / "results.csv")]
  assert 0 < sum("pruned after generation" in str(why) for why in failed) < 16
  assert failed[:4] == [""] * 4  # the pruner begins when it has seen five runs


def test_leaders_of_every_kind_of_history():
  nets = [{"generation": g, "fitness": f} for g, f in ((0, 3.0), (0, 2.0), (1, 1.0), (1, 4.0))]
  assert [row["fitness"] for row in leaders(nets)] == [2.0, 1.0]
  imp = [{"cycle": c, "iteration": i, "valid_loss": 1.0} for c, i in ((0, 10), (1, 20))]
  assert leaders(imp) == imp
