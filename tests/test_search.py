"""The main job, from its flags to its files."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from absl import flags
from conftest import assert_same_bits, reset_flags, table

import nets_jax
from nets_jax import recipes
from nets_jax.baselines.random_tickets import Random, random_ticket
from nets_jax.cli import search
from nets_jax.cli import setting_flags as search_flags
from nets_jax.engine import startup
from nets_jax.studies import run_directory
from nets_jax.tickets.ticket import maskable_count, unmasked_count

ROOT = pathlib.Path(search.__file__).parents[2]
PROBLEM = (
  "--dataset=xor", "--xor_train_size=100", "--xor_test_size=40", "--hidden_sizes=6", "--batch_size=10",
  "--train_epochs=3", "--devices=1",
)  # fmt: skip
SMALL = (*PROBLEM, "--population_size=4", "--generations=2", "--fitness_epochs=1", "--halvings=0")


def test_a_run_leaves_its_files(job, tmp_path):
  status, out, _ = job(*SMALL, "--workdir=run", "--seed=3")
  assert status == 0
  directory = tmp_path / "run"
  assert sorted(p.name for p in directory.iterdir()) == [
    "config.json", "figure_evolution.png", "figure_frontier.png", "frontier", "history.csv", "report.html",
    "run.flags", "summary.json", "ticket.safetensors", "training.csv",
  ]  # fmt: skip
  config = json.loads((directory / "config.json").read_text())
  assert config["flags"]["seed"] == 3
  assert config["flags"]["crossover_rate"] == 0.5
  assert config["versions"]["jax"] == jax.__version__
  assert config["device"] == {"platform": "cpu", "kind": "cpu", "count": 1}
  history = table(directory / "history.csv")
  assert list(history[0]) == [
    "generation",
    "genome",
    "parent_1",
    "parent_2",
    "fitness",
    "valid_loss",
    "valid_accuracy",
    "density",
    "seconds",
  ]
  kept = table(directory / "frontier" / "frontier.csv")
  assert 1 <= len(kept) <= len(history)
  places = {(r["generation"], r["genome"]): (r["density"], r["valid_loss"]) for r in history}
  for row in kept:
    assert (row["density"], row["valid_loss"]) == places[row["generation"], row["genome"]]
    ticket = nets_jax.load_ticket(directory / "frontier" / row["file"])
    # In genes, exactly: the program and a call outside it may round their quotient otherwise.
    genes = maskable_count(ticket)
    assert float(row["density"]) * genes == pytest.approx(int(unmasked_count(ticket)), abs=1e-4)
  assert [(r["generation"], r["genome"]) for r in history] == [
    (str(g), str(i)) for g in range(3) for i in range(4)
  ]
  summary = json.loads((directory / "summary.json").read_text())
  assert list(summary["results"]) == ["guided", "random", "dense", "unmasked"]
  assert set(summary["results"]["guided"]) == {
    "density",
    "valid_loss",
    "valid_accuracy",
    "test_loss",
    "test_accuracy",
    "empty_layers",
  }
  assert summary["search_epochs"] == 12
  assert summary["search_seconds"] == float(history[-1]["seconds"])
  assert summary["results"]["dense"]["density"] == 1
  assert summary["results"]["random"]["density"] == pytest.approx(summary["results"]["guided"]["density"])
  training = table(directory / "training.csv")
  assert [r["ticket"] for r in training] == ["guided", "random", "dense", "unmasked"] * 3
  assert float(training[-4]["test_loss"]) == summary["results"]["guided"]["test_loss"]
  for name in (
    "guided",
    "random",
    "dense",
    "files in run; open run/report.html",
    "Definition 3, where each validation loss was lowest (the table is of the end); one seed, ",
    "against its own weights unmasked: ",
    "as fast ",
  ):
    assert name in out
  verdict = summary["verdicts"]["dense"]
  dense = [r for r in training if r["ticket"] == "dense"]
  lowest = min(dense, key=lambda r: float(r["valid_loss"]))
  assert verdict["dense_iteration"] == int(lowest["iteration"])
  assert verdict["dense_accuracy"] == float(lowest["test_accuracy"])
  assert verdict["wins"] == ("against a fresh dense network: a winning ticket" in out)


def test_a_line_of_single_genomes_leaves_its_files(job, tmp_path):
  assert job(*SMALL, "--workdir=run", "--population_size=1", "--elites=0", "--parents=1")[0] == 0
  assert [row["genome"] for row in table(tmp_path / "run" / "history.csv")] == ["0"] * 3
  assert (tmp_path / "run" / "figure_evolution.png").exists()


def test_the_ticket_is_the_initialisation_and_trains_again(job, tmp_path):
  unchanged = ("--search=paper", "--noise_rate=0", "--resample_rate=0", "--generations=0")
  assert job(*SMALL, "--workdir=a", *unchanged)[0] == 0
  ticket = nets_jax.load_ticket(tmp_path / "a" / "ticket.safetensors")
  assert not any(np.asarray(layer["bias"]).any() for layer in ticket.weights.values())  # never trained
  assert nets_jax.load_network(tmp_path / "a" / "ticket.safetensors") == nets_jax.MLP((6,), 2)
  data_flags = SMALL[:3]
  status, out, _ = job(
    *data_flags, "--ticket=a/ticket.safetensors", "--batch_size=10", "--train_epochs=3", "--workdir=b"
  )
  assert status == 0
  results = [json.loads((tmp_path / d / "summary.json").read_text())["results"] for d in "ab"]
  assert results[1]["ticket"] == results[0]["paper"]
  assert results[1]["random"] == results[0]["random"]
  assert "ticket" in out
  assert_same_bits(nets_jax.load_ticket(tmp_path / "b" / "ticket.safetensors"), ticket)
  assert not (tmp_path / "b" / "history.csv").exists()


def test_a_ticket_denser_than_its_target_is_told(job):
  arguments = (
    "--search=paper",
    "--generations=0",
    "--population_size=2",
    "--train_epochs=0",
    "--workdir=run",
  )
  status, _, error = job(*PROBLEM, *arguments)
  assert status == 0, error
  assert "paper: the ticket keeps 100.0% of the weights, more than the target density 20.0%\n" in error
  assert "more than the target" not in job(*PROBLEM, *arguments, "--target_density=1", "--overwrite")[2]


def test_the_same_command_gives_the_same_files(job, tmp_path):
  for name in "ab":
    assert job(*SMALL, f"--workdir={name}")[0] == 0
  for file in ("ticket.safetensors",):
    assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
  for file in ("history.csv", "training.csv"):
    rows = [
      [{k: v for k, v in r.items() if k != "seconds"} for r in table(tmp_path / d / file)] for d in "ab"
    ]
    assert rows[0] == rows[1]


def test_the_random_control_has_the_tickets_count(job, tmp_path):
  ticket = random_ticket(jax.random.key(0), nets_jax.MLP((6,), 2), (2,), 0.5)
  nets_jax.save_ticket(tmp_path / "t.safetensors", ticket, nets_jax.MLP((6,), 2))
  assert job(*SMALL[:3], "--ticket=t.safetensors", "--train_epochs=1", "--workdir=a")[0] == 0
  results = json.loads((tmp_path / "a" / "summary.json").read_text())["results"]
  assert results["random"]["density"] == results["ticket"]["density"] == 0.5


COLUMNS = {
  "random": ["ticket", "density", "seconds"],
  "imp": ["cycle", "iteration", "valid_loss", "valid_accuracy", "density", "seconds"],
  "magnitude": ["round", "density", "seconds"],
  "snip": ["round", "density", "seconds"],
  "grasp": ["round", "density", "seconds"],
  "synflow": ["round", "density", "seconds"],
}


@pytest.mark.parametrize("method", COLUMNS)
def test_every_method_leaves_the_same_files(job, tmp_path, method):
  own = {
    "imp": ("--cycle_epochs=2", "--cycles=3"),
    "random": ("--target_density=0.5", "--density_deviation=0"),
  }
  flags_of_it = own.get(method, ("--target_density=0.5", "--score_batch=20"))
  status, out, _ = job(*PROBLEM, *flags_of_it, f"--method={method}", "--workdir=run", "--train_epochs=1")
  assert status == 0
  assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
    "config.json", "figure_evolution.png", "history.csv", "report.html", "run.flags",
    "summary.json", "ticket.safetensors", "training.csv",
  ]  # fmt: skip
  history = table(tmp_path / "run" / "history.csv")
  assert list(history[0]) == COLUMNS[method]
  results = json.loads((tmp_path / "run" / "summary.json").read_text())["results"]
  assert set(results) == {method, "random", "dense", "unmasked"}
  if method != "imp":
    assert results[method]["density"] == float(history[-1]["density"]) == 0.5
  assert method in out


@pytest.mark.parametrize(
  ("flag", "field"),
  [
    ("--activation=tanh", "activation relu, not tanh"),
    ("--hidden_sizes=7", r"hidden_sizes \(6,\), not \(7,\)"),
    ("--network=lenet_300_100", r"hidden_sizes \(6,\), not \(300, 100\)"),
    ("--nouse_bias", "use_bias True, not False"),
    ("--dropout_rate=0.5", "dropout_rate 0.0, not 0.5"),
  ],
)
def test_a_flag_may_not_contradict_the_tickets_file(job, tmp_path, flag, field):
  network = nets_jax.MLP((6,), 2)
  nets_jax.save_ticket(
    tmp_path / "t.safetensors", random_ticket(jax.random.key(0), network, (2,), 0.5), network
  )
  status, _, error = job(*SMALL[:3], "--ticket=t.safetensors", flag, "--workdir=b")
  name = flag.partition("=")[0].removeprefix("--").removeprefix("no")
  assert status == 2
  assert re.fullmatch(
    rf"error: t\.safetensors is for a network of {field}; leave --{name} out, or give another ticket\n", error
  )
  assert not (tmp_path / "b").exists()


def test_a_ticket_is_trained_in_a_directory_of_its_own(job, tmp_path):
  assert job(*SMALL, "--train_epochs=0")[0] == 0
  before = (tmp_path / "runs" / "xor-guided-seed0" / "summary.json").read_bytes()
  again = (*SMALL[:3], "--ticket=runs/xor-guided-seed0/ticket.safetensors", "--train_epochs=1")
  assert job(*again)[0] == 0
  (own,) = (tmp_path / "runs").glob("xor-ticket-*-seed0")
  assert (own / "training.csv").exists()
  assert (tmp_path / "runs" / "xor-guided-seed0" / "summary.json").read_bytes() == before
  status, _, error = job(*again)
  assert status == 2
  removed = "config.json, run.flags, ticket.safetensors, training.csv, report.html, summary.json"
  assert error == (
    f"error: runs/{own.name} already holds a run; give another --workdir, or --overwrite to remove {removed} "
    "first\n"
  )
  assert f"removing from runs/{own.name}: {removed}\n" in job(*again, "--overwrite")[2]


def test_a_wrong_flag_is_reported_before_what_the_directory_holds(job):
  assert job(*SMALL, "--workdir=a", "--train_epochs=0")[0] == 0
  for wrong in ("--dataset=xorr", "--init_scale=1,2,3", "--batch_size=1000", "--seed=-1"):
    status, _, error = job(*SMALL, "--workdir=a", wrong)
    assert status == 2
    assert "already holds a run" not in error
    assert error.count("\n") == 1


def test_a_seed_of_64_bits_is_another_than_its_lower_half(job, tmp_path):
  for name, seed in (("a", 1), ("b", 2**32 + 1)):
    assert job(*SMALL, f"--workdir={name}", f"--seed={seed}", "--train_epochs=0")[0] == 0
  tickets = [(tmp_path / name / "ticket.safetensors").read_bytes() for name in "ab"]
  assert tickets[0] != tickets[1]
  status, _, error = job(*SMALL, "--workdir=c", f"--seed={2**64}")
  assert (status, error) == (
    2, f"error: seed must be a whole number from 0 to 2^64 - 1, not {2**64}\n",
  )  # fmt: skip


def test_empty_layers_are_in_the_summary_the_table_and_a_line(job, tmp_path):
  arguments = (
    "--method=magnitude",
    "--score_batch=20",
    "--init_scale=10/0.1",
    "--target_density=0.05",
    "--train_epochs=1",
  )
  status, out, error = job(*PROBLEM, *arguments, "--workdir=a")
  assert status == 0, error
  assert "magnitude: no weight is left in a layer (output in 1 of 1 tickets), which cuts" in error
  summary = json.loads((tmp_path / "a" / "summary.json").read_text())
  assert summary["empty_layers"] == summary["results"]["magnitude"]["empty_layers"] == ["output"]
  lines = {
    line.split()[0]: line.split()[-1] for line in out.splitlines() if "%" in line and "search" not in line
  }
  assert (lines["magnitude"], lines["dense"]) == ("output", "none")


SATURATED = ("--method=synflow", "--score_batch=20", "--activation=tanh", "--init_scale=1e9")


def test_a_search_whose_scores_tell_nothing_is_one_line_and_leaves_nothing(job, tmp_path):
  status, _, error = job(*PROBLEM, *SATURATED, "--workdir=a")
  assert status == 2
  line = error.splitlines()[-1]
  assert line.startswith("error: synflow says nothing of the layer hidden_0 in round 1")
  assert "Traceback" not in error
  assert not (tmp_path / "a").exists()


def test_memory_that_is_not_there_is_one_line(job, monkeypatch):
  status, _, error = job(*SMALL, "--population_size=10000000000", "--workdir=a")
  assert status == 2
  assert "a population of 10,000,000,000 genomes" in error
  monkeypatch.setattr(
    "nets_jax.data.sources.load", lambda *_, **__: (_ for _ in ()).throw(MemoryError("8 EiB"))
  )
  status, _, error = job(*SMALL, "--workdir=a")
  assert (status, error) == (2, "error: not enough memory (8 EiB); lower what is asked for\n")


def test_a_device_that_is_not_there_is_one_line():
  command = [sys.executable, "-m", "experiments.search", "--workdir=/nonexistent"]
  environment = os.environ | {"JAX_PLATFORMS": "cuda"}
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
  assert done.returncode == 2
  assert done.stderr.startswith("error: JAX cannot use JAX_PLATFORMS=cuda on this machine (")
  assert done.stderr.count("\n") == 1


def test_no_training_searches_only(job, tmp_path):
  status, out, _ = job(*SMALL, "--train_epochs=0", "--workdir=a")
  assert status == 0
  assert json.loads((tmp_path / "a" / "summary.json").read_text())["results"] == {}
  assert not (tmp_path / "a" / "training.csv").exists()
  assert "test accuracy" not in out


def test_a_directory_holds_one_run(job, tmp_path):
  assert job(*SMALL, "--workdir=a")[0] == 0
  before = (tmp_path / "a" / "summary.json").read_text()
  status, _, error = job(*SMALL, "--workdir=a")
  assert (status, error) == (
    2,
    "error: a already holds a run; give another --workdir, or --overwrite to remove config.json, run.flags, "
    "history.csv, ticket.safetensors, figure_evolution.png, figure_frontier.png, training.csv, report.html, "
    "summary.json, frontier/ first\n",
  )
  assert (tmp_path / "a" / "summary.json").read_text() == before
  (tmp_path / "a" / "notes.txt").write_text("mine")
  assert job(*SMALL, "--workdir=a", "--overwrite", "--train_epochs=0")[0] == 0
  assert not (tmp_path / "a" / "training.csv").exists()
  assert (tmp_path / "a" / "notes.txt").read_text() == "mine"


def test_an_unfinished_run_is_gone_on_with_though_told_to_overwrite(job, tmp_path):
  assert job(*SMALL, "--workdir=whole", "--checkpoint_every=0")[0] == 0
  shutil.copytree(tmp_path / "whole", tmp_path / "cut")
  (tmp_path / "cut" / "summary.json").unlink()
  (tmp_path / "cut" / "ticket.safetensors").unlink()
  status, _, error = job(*SMALL, "--workdir=cut", "--overwrite")
  assert status == 0
  assert error.startswith("cut holds this run, unfinished\n")
  tickets = [(tmp_path / name / "ticket.safetensors").read_bytes() for name in ("whole", "cut")]
  assert tickets[0] == tickets[1]


def test_what_a_directory_holds_decides(tmp_path):
  def take(overwrite, **changes):
    return run_directory.RunDirectory(str(tmp_path), overwrite, {"seed": 0, "elites": 1, **changes}).is_begun

  config, summary = tmp_path / "config.json", tmp_path / "summary.json"
  assert not take(False)
  version = f'{{"format_version": {run_directory.FORMAT_VERSION}, "flags": '
  config.write_text(version + '{"seed": 0, "elites": 1, "workdir": "elsewhere"}}')
  assert take(False)
  assert take(True)
  with pytest.raises(
    nets_jax.UsageError, match=r"\(elites 1 there and 2 here, seed 0 there and 5 here\); give"
  ):
    take(False, seed=5, elites=2)
  assert not take(True, seed=5)
  for text in ("{", "[]", version + "3}", ""):
    config.write_text(text)
    with pytest.raises(nets_jax.UsageError, match=r"config.json is damaged; give another --workdir"):
      take(False)
    assert not take(True)
  config.write_text('{"flags": {"seed": 0, "elites": 1}}')
  with pytest.raises(nets_jax.UsageError, match="holds a run of another version of nets_jax, "):
    take(False)
  assert not take(True)
  summary.write_text("{}")
  with pytest.raises(nets_jax.UsageError, match="already holds a run"):
    take(False)
  assert not take(True)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ("--checkpoint_every=-1", "checkpoint_every must be at least 0, not -1"),
    ("--checkpoint_seconds=nan", "checkpoint_seconds must be at least 0, not nan"),
  ],
)
def test_impossible_checkpoints(job, arguments, message):
  assert job(*SMALL, arguments)[::2] == (2, f"error: {message}\n")


BAD = [
  (["--dataset=no_such_set"], "dataset 'no_such_set' is not one of xor, digits"),
  (["--network=resnet"], "flag --network=resnet: value should be one of <mlp|lenet_300_100|"),
  (["--optimizer=lyon"], "not 'lyon'; did you mean lion?"),
  (["--method=imp2"], "flag --search=imp2: value should be one of"),
  (["--selection=lottery"], "flag --selection=lottery: value should be one of"),
  (["--search=paper", "--noise_rate=1.5"], "noise_rate must be in [0, 1], not 1.5"),
  (["--crossover_rate=-0.1"], "crossover_rate must be in [0, 1]"),
  (["--target_density=0"], "target_density must be in (0, 1], not 0.0"),
  (["--initial_density=2"], "initial_density must be in (0, 1], not 2.0"),
  (["--elites=4"], "elites must be from 0 to population_size - 1 = 3, not 4"),
  (["--population_size=0"], "population_size must be at least 1, not 0"),
  (["--population_size=1", "--elites=0"], "parents must be from 0 to population_size = 1, not 2"),
  (["--batch_size=91"], "batch_size must be from 1 to the 90 training examples, not 91"),
  (["--train_epochs=-1"], "train_epochs must be at least 0, not -1"),
  (["--frontier=-1"], "frontier must be at least 0, not -1"),
  (["--hidden_sizes=ten"], "hidden_sizes=ten: it must be whole numbers with commas between"),
  (["--hidden_sizes=0"], "hidden_sizes must be positive whole numbers, not [0]"),
  (["--dropout_rate=1"], "dropout_rate must be in [0, 1), not 1.0"),
  (["--generations=many"], "flag --generations=many"),
  (["--generatons=3"], "Unknown command line flag 'generatons'. Did you mean: generations"),
  (["search"], "unexpected argument 'search'"),
  (["--flagfile=none.flags"], "none.flags"),
  (["--xor_train_size=0"], "xor_train_size must be at least 1, not 0"),
  (["--devices=5"], "devices must be from 1 to 1 on this machine, not 5"),
  (["--chunk=0"], "chunk must be at least 1, not 0"),
  (["--eval_every=0"], "eval_every must be at least 1, not 0"),
  (["--method=imp", "--prune_fraction=1"], "prune_fraction must be in [0, 1), not 1.0"),
  (["--method=imp", "--cycles=0"], "cycles must be at least 1, not 0"),
  (
    ["--method=imp", "--prune_scope=row"],
    "flag --prune_scope=row: value should be one of <layer|global|lamp>",
  ),
  (["--method=random", "--density_deviation=-1"], "density_deviation must be at least 0, not -1.0"),
  (
    ["--method=snip", "--score_batch=1000"],
    "score_batch must be from 1 to the 90 training examples, not 1000",
  ),
  (["--method=synflow", "--rounds=0"], "rounds must be at least 1, not 0"),
  (["--ticket=none.safetensors"], "there is no ticket file none.safetensors"),
  (["--dataset=digits", "--learning_rate=1e30"], "every genome of generation 0 diverged in training"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[" ".join(a) for a, _ in BAD])
def test_a_wrong_request_ends_with_one_line_and_leaves_nothing(job, tmp_path, arguments, message):
  small = PROBLEM if arguments[0].startswith("--method=") else SMALL
  status, out, error = job(*small, *arguments, "--data_dir=tfds")
  lines = [line for line in error.splitlines() if not line.startswith(("to repeat", "compiling"))]
  assert status == 2
  assert len(lines) == 1
  assert lines[0].startswith("error: ")
  assert message in lines[0]
  assert out == ""
  assert list(tmp_path.rglob("*.json")) == []
  assert not (tmp_path / "runs").exists() or not any((tmp_path / "runs").iterdir())


def test_a_ticket_that_does_not_fit_the_network_or_the_data(job, tmp_path):
  network = nets_jax.MLP((6,), 2)
  nets_jax.save_ticket(tmp_path / "t", random_ticket(jax.random.key(0), network, (2,), 0.5), network)
  for arguments, message in (
    (["--dataset=xor", "--hidden_sizes=7"], "t is for a network of hidden_sizes (6,), not (7,)"),
    (["--dataset=digits"], "the ticket does not fit the network: "),
  ):
    status, _, error = job("--ticket=t", *arguments)
    assert status == 2
    assert error.startswith(f"error: {message}")
    assert not (tmp_path / "runs").exists()


def test_a_directory_that_cannot_be_written(job, tmp_path):
  (tmp_path / "file").write_text("")
  assert job(*SMALL, "--workdir=file")[::2] == (2, "error: workdir file is a file; give another --workdir\n")
  status, _, error = job(*SMALL, "--workdir=file/run")
  assert status == 2
  assert error.startswith("error: cannot use file")
  assert error.count("\n") == 1


def read(*arguments):
  """The search and the training that flags name."""
  reset_flags()
  search.parse(["search", *arguments])
  values = flags.FLAGS
  return search_flags.make_search(values), search_flags.component(nets_jax.Training(), values)


def test_the_presets_parse():
  presets = ROOT / "experiments" / "presets"
  for preset in sorted(presets.glob("*.flags")):
    assert read(f"--flagfile={preset}")[1].batch_size > 0
  found, training = read(f"--flagfile={presets}/paper_mnist.flags")
  # The library's defaults are the paper's.
  assert found == nets_jax.Nets() == recipes.paper()
  assert training == nets_jax.Training(learning_rate=0.001, batch_size=72)
  assert read("--search=imp")[0] == nets_jax.Imp()
  assert read("--search=random")[0] == Random()


def test_the_flags_and_presets_of_guided_nets_are_the_library_s():
  assert read() == (recipes.guided(), nets_jax.Training())
  own = {"digits": recipes.guided(), "mnist": recipes.guided(target_density=0.2), "line": recipes.line()}
  for preset, expected in own.items():
    assert read(f"--flagfile={ROOT}/experiments/presets/guided_{preset}.flags")[0] == expected


@pytest.mark.parametrize(
  ("given", "without", "needed"),
  [
    ("--penalty_weight=4.0", "--ranking=feasible", "--ranking=penalty"),
    ("--dormancy_rate=0.3", "--search=guided", "--density_schedule=constant"),
    ("--density_schedule=cubic", "--search=paper", "--search=guided"),
    ("--saliency=gradient", "--search=paper", "--search=guided"),
    ("--regrowth_rate=0.1", "--search=paper", "--search=guided"),
    ("--parents=3", "--selection=rank", "--selection=truncation"),
    ("--noise_scale=0.5", "--search=guided", "--search=paper"),
  ],
)
def test_a_flag_that_would_change_nothing_is_named(given, without, needed):
  name, there = given.removeprefix("--").partition("=")[0], needed.removeprefix("--").removeprefix("search=")
  with pytest.raises(nets_jax.UsageError, match=f"has no setting '{name}'; .*{there}"):
    read(given, without)
  read(given, needed)


def test_a_run_says_which_flag_would_change_nothing(job, tmp_path):
  told = "guided has no setting 'penalty_weight'; it comes with ranking=penalty; those that have it are paper"
  assert job(*SMALL, "--penalty_weight=4", "--train_epochs=0")[::2] == (2, f"error: {told}\n")
  assert not (tmp_path / "runs").exists()


def test_the_command_as_a_user_types_it(tmp_path):
  command = [sys.executable, "-m", "experiments.search", *SMALL, f"--workdir={tmp_path}/run"]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ})
  assert done.returncode == 0, done.stderr
  assert "test accuracy" in done.stdout
  assert (tmp_path / "run" / "summary.json").exists()
  wrong = subprocess.run([*command, "--overwrite", "--elites=9"], cwd=ROOT, capture_output=True, text=True)
  assert wrong.returncode == 2
  assert wrong.stderr.startswith("error: elites must be")
  assert "Traceback" not in wrong.stderr


def test_precision_is_of_the_search_and_not_of_the_final_training(job, tmp_path):
  for name, arguments in (("plain", ()), ("coarse", ("--precision=bfloat16",))):
    assert job(*SMALL, f"--workdir={name}", *arguments)[0] == 0
  losses = [
    [row["valid_loss"] for row in table(tmp_path / name / "history.csv")] for name in ("plain", "coarse")
  ]
  assert losses[0] != losses[1]
  np.testing.assert_allclose(np.float32(losses[0][:4]), np.float32(losses[1][:4]), atol=0.05)
  trained = [table(tmp_path / name / "training.csv") for name in ("plain", "coarse")]
  dense = [[row["test_loss"] for row in rows if row["ticket"] == "dense"] for rows in trained]
  assert dense[0] == dense[1]


def test_compiled_programs_are_kept_where_asked(monkeypatch, tmp_path, capsys):
  kept = {}
  monkeypatch.setattr(jax.config, "update", kept.__setitem__)
  monkeypatch.setattr(startup, "instruction_set", lambda: "chip")
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  startup.keep_compiled_programs(str(tmp_path / "there"))
  assert kept["jax_compilation_cache_dir"] == str(tmp_path / "there")
  startup.keep_compiled_programs(None)
  assert kept["jax_compilation_cache_dir"] == jax.config.jax_compilation_cache_dir  # the environment's
  startup.keep_compiled_programs("")
  assert kept["jax_compilation_cache_dir"] is None
  (tmp_path / "file").touch()
  startup.keep_compiled_programs(str(tmp_path / "file" / "programs"))
  assert kept["jax_compilation_cache_dir"] is None
  assert capsys.readouterr().err.startswith("programs are not kept for the next run: ")
