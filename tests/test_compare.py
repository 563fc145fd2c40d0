"""The paper's comparison: stages, tables and figures."""

import functools
import json
import pathlib

import pytest
from absl import flags
from conftest import made_once, reset_flags, squeezed, table, without_seconds

from nets_jax import searches
from nets_jax.cli import command, compare
from nets_jax.cli import setting_flags as search_flags
from nets_jax.engine import files
from nets_jax.settings import values
from nets_jax.studies import comparison, tables, work

PROBLEM = (
  "--dataset=xor", "--trials=2", "--xor_train_size=100", "--xor_test_size=40", "--hidden_sizes=6",
  "--train_epochs=3", "--batch_size=10", "--workdir=out", "--devices=1",
)  # fmt: skip
TINY = (*PROBLEM, "--population_size=3", "--generations=2", "--cycles=2", "--cycle_epochs=2")
ALL = "--methods=random,imp,nets@paper,dense"


@pytest.fixture
def job(run_binary):
  """The comparison in this process."""
  return functools.partial(run_binary, compare)


@pytest.fixture
def done(job, finished, tmp_path):
  """A copy of that comparison, made once."""
  return made_once(finished, tmp_path / "out", lambda: job(*TINY, ALL))


def test_it_writes_the_table_the_figures_and_their_data(done):
  names = {p.name for p in done.iterdir() if not p.name.startswith(".")}
  assert names == {
    "config.json",
    "compare.flags",
    "report.html",
    "runs",
    "trials.log",
    "table1.csv",
    "table1.md",
  } | {f"figure{i}.{suffix}" for i in (1, 2, 3) for suffix in ("csv", "png", "svg")}
  rows = table(done / "table1.csv")
  assert [(r["method"], r["trial"]) for r in rows] == [
    (m, t) for m in ("random", "imp", "nets", "dense") for t in "01"
  ]
  assert [r["density"] for r in rows if r["method"] == "dense"] == ["1.0", "1.0"]
  assert {r["search_epochs"] for r in rows if r["method"] == "nets"} == {"9.0"}
  assert {r["search_epochs"] for r in rows if r["method"] == "imp"} == {"4.0"}
  text = squeezed((done / "table1.md").read_text())
  assert "| Mean test accuracy |" in text
  assert "nets, paper" in text
  assert "dense, paper" not in text
  assert "- nets: " in text
  assert "- dense: " not in text
  assert " of 2 win: j' " in text
  assert text.count("100 %") >= 4  # the paper's IMP and NeTS columns
  assert {(r["method"], r["trial"], r["generation"]) for r in table(done / "figure1.csv")} == {
    ("nets", t, g) for t in "01" for g in "012"
  }
  figure3 = table(done / "figure3.csv")
  assert len(figure3) == 4 * 2 * 3


def test_seconds_go_on_from_search_to_training(done):
  rows = table(done / "figure2.csv")
  assert {r["method"] for r in rows} == {"imp", "nets"}
  for method in ("imp", "nets"):
    for trial in "01":
      own = [r for r in rows if (r["method"], r["trial"]) == (method, trial)]
      seconds = [float(r["seconds"]) for r in own]
      assert seconds == sorted(seconds)
      assert [r["stage"] for r in own] == sorted(r["stage"] for r in own)


def test_the_last_epoch_is_the_tables_figure(done):
  last = {(r["method"], r["trial"]): r["test_loss"] for r in table(done / "figure3.csv")}
  for row in table(done / "table1.csv"):
    assert last[row["method"], row["trial"]] == row["test_loss"]


def test_the_figures_best_genome_is_that_of_lowest_fitness(done):
  for row in table(done / "figure1.csv"):
    (run,) = (done / "runs").glob(f"nets-*-{row['trial']}")
    history = table(run / "history.csv")
    own = [float(r["fitness"]) for r in history if r["generation"] == row["generation"]]
    assert float(row["fitness"]) == min(own)


def test_a_finished_run_is_not_run_again(done, job, monkeypatch):
  before = {p: p.read_bytes() for p in done.rglob("*.csv")}

  def never(*args, **kwargs):
    raise AssertionError("a finished run was run again")

  monkeypatch.setattr(work, "run_batch", never)
  status, _, error = job(*TINY, ALL)
  assert status == 0
  assert "8 runs, 8 of them done; 0 to go in 0 program(s)" in error
  assert {p: p.read_bytes() for p in done.rglob("*.csv")} == before


def test_an_interrupted_comparison_goes_on(done, job):
  (run,) = (done / "runs").glob("imp-*-1")
  training = without_seconds(table(run / "training.csv"))
  (run / "summary.json").unlink()
  status, _, error = job(*TINY, ALL)
  assert status == 0
  assert "8 runs, 7 of them done; 1 to go in 1 program(s)" in error
  assert without_seconds(table(run / "training.csv")) == training


@pytest.mark.parametrize(
  ("file", "content", "seals"),
  [
    ("summary.json", "{", True),
    ("history.csv", "cycle,loss\n1\n", False),
    ("training.csv", "", False),
    ("ticket.safetensors", "x", True),
  ],
)
def test_a_damaged_run_is_set_aside_and_run_again(done, job, file, content, seals):
  """With the seal that tells every change, and without, as of a process that was killed before it."""
  (run,) = (done / "runs").glob("imp-*-1")
  before = (run / "ticket.safetensors").read_bytes()
  (run / file).write_text(content)
  if not seals:
    (run / files.SEAL).unlink()
  status, _, error = job(*TINY, ALL)
  assert status == 0, error
  assert f"{pathlib.Path('out', 'runs', run.name)} is damaged (" in error
  assert f"); it is now damaged-{run.name}, and run again\n" in error
  assert "8 runs, 7 of them done" in error
  assert (run / "ticket.safetensors").read_bytes() == before
  assert (run.with_name(f"damaged-{run.name}") / file).read_text() == content


def test_a_trial_that_fails_is_a_marked_row_and_the_others_go_on(job, tmp_path):
  """At that rate NeTS and IMP diverge; of weights so large SynFlow's scores are infinite."""
  chosen = "paper:learning_rate=1e30,imp:learning_rate=1e30,synflow:init_scale=1e20,random"
  arguments = ("--score_batch=20", "--activation=relu", f"--methods={chosen}")
  status, out, error = job(*TINY, *arguments, "--optimizer=sgd")
  assert status == 0, error
  assert error.count(" failed: every genome of generation 0 diverged") == 2
  assert error.count(" failed: the training of cycle 0 diverged") == 2
  rows = table(tmp_path / "out" / "table1.csv")
  assert [bool(row["failed"]) for row in rows] == [True] * 6 + [False] * 2
  assert [row["test_accuracy"] for row in rows][:4] == ["nan"] * 4
  lines = [line for line in squeezed(out).splitlines() if line.startswith("| Failed")]
  assert lines == ["| Failed | 2 of 2 | 2 of 2 | 2 of 2 | none | |"]
  assert job(*TINY, *arguments, "--optimizer=sgd")[0] == 0


def test_empty_layers_are_a_column_and_a_line_on_the_screen(job, tmp_path):
  arguments = (
    "--methods=magnitude,random",
    "--score_batch=20",
    "--init_scale=10/0.1",
    "--target_density=0.05",
  )
  status, out, error = job(*PROBLEM, *arguments)
  assert status == 0, error
  assert "magnitude: program 1/2, batch 1/1: no weight is left in a layer (output in 2 of 2 tickets)" in error
  rows = table(tmp_path / "out" / "table1.csv")
  assert [row["empty_layers"] for row in rows if row["method"] == "magnitude"] == ["output"] * 2
  assert "| Empty layers | output in 2 of 2 |" in squeezed(out)


def test_a_flag_that_would_decide_nothing_is_refused(job):
  for flag in ("--search=imp", "--method=imp"):
    status, _, error = job(*TINY, ALL, flag)
    assert (status, error.count("\n")) == (2, 1)
    assert f"{flag} decides nothing here; it is for the search and the sweep" in error


def test_means_have_one_form():
  one = [tables.spread([0.25], form, "deviation") for form in ("percent", "seconds", "number")]
  assert one == ["25.0 %", "0.2", "0.250"]
  assert tables.spread([0.2, 0.4], "percent", "deviation") == "30.0 ± 14.1 %"
  # Half the difference of two, times Student's quantile of 12.706.
  assert tables.spread([0.2, 0.4], "percent") == "30.0 ± 127.1 %"
  assert tables.spread([], "percent") == tables.spread([float("nan")], "number") == "-"


def test_another_configuration_is_refused_and_named(done, job):
  status, _, error = job(*TINY, ALL, "--learning_rate=0.5", "--seed=4")
  assert status == 2
  assert (
    "out is of another configuration (learning_rate 0.01 there and 0.5 here, seed 0 there and 4 here)"
    in error
  )
  status, _, error = job(*PROBLEM, "--methods=random,imp", "--density_deviation=0.01")
  assert status == 2
  assert "out is of another configuration (cycle_epochs 2 there and by default here, cycles 2 there" in error
  (done / "config.json").write_text("{")
  status, _, error = job(*PROBLEM, "--methods=random")
  assert (status, error) == (2, "error: out/config.json is damaged; give another --workdir\n")


def test_methods_may_have_flags_of_their_own(done, job):
  assert job(*TINY, "--methods=paper,paper:elites=0:noise_rate=0,imp:rewind_epochs=1")[0] == 0
  assert {r["method"] for r in table(done / "table1.csv")} == {
    "paper", "paper:elites=0:noise_rate=0", "imp:rewind_epochs=1",
  }  # fmt: skip
  assert {r["search_epochs"] for r in table(done / "table1.csv") if r["method"].startswith("imp")} == {"5.0"}
  assert len(list((done / "runs").glob("paper*"))) == 2 * 2


def test_the_quick_version_says_so(job, tmp_path):
  arguments = [a for a in PROBLEM if not a.startswith(("--workdir", "--train_epochs"))]
  status, out, _ = job(*arguments, "--quick", "--methods=random")
  assert status == 0
  assert "quick version, not the paper's setting" in out
  assert (tmp_path / "runs" / "compare-xor-quick" / "table1.md").exists()
  config = json.loads((tmp_path / "runs" / "compare-xor-quick" / "config.json").read_text())
  assert config["settings"]["train_epochs"] == 2


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (
      ["--methods=luck"],
      "methods may be guided, halved, line, frontier, paper, concrete, gradinit, gradual, imp, magnitude, "
      "snip, grasp, synflow, random_scales, random, erk, smart_ratios, dense, rigl or set, not 'luck'",
    ),
    (["--methods=nets"], "not 'nets'; NeTS is paper or guided"),
    (
      ["--methods=paper:colour=1"],
      "in 'paper:colour=1': there is no setting 'colour'; write method:setting=value",
    ),
    (["--methods=paper:elites=many"], "in 'paper:elites=many': flag --elites=many"),
    (["--methods=paper:elites=9,imp"], "elites must be from 0"),
    (["--methods=imp:cycles=0"], "cycles must be at least 1"),
    (["--methods=imp:activation=tanh"], "all methods share one activation; give --activation instead"),
    (
      ["--methods=random,imp"],
      "none of these methods has a setting 'population_size'; those that have it are guided, halved, line,",
    ),
    (["--trials=0"], "trials must be at least 1, not 0"),
    (["--train_epochs=0"], "train_epochs must be at least 1, not 0"),
  ],
)
def test_wrong_requests(job, tmp_path, arguments, message):
  status, _, error = job(*TINY, *arguments)
  assert status == 2
  assert error.count("\n") == 1
  assert message in error
  assert not (tmp_path / "out").exists()


def test_the_data_sets_preset_comes_first(job):
  for arguments in (["--dataset=xor"], ["--dataset", "xor"], ["--batch_size=7", "--dataset=xor"]):
    compare.parse(["compare", *arguments])
    assert flags.FLAGS.activation == "sigmoid"
    assert flags.FLAGS.dataset == "xor"
  assert flags.FLAGS.batch_size == 7


def test_the_span_of_densities():
  assert comparison.span([0.2, 0.2]) == "="
  assert comparison.span([0.2, 0.31]) == "20.0-31.0 %"


def test_every_method_has_a_colour_of_its_own():
  from nets_jax.analysis.study_figures import _by_method

  rows = [{"method": name, "trial": 0} for name in [*searches.SEARCHES, "imp:rewind_epochs=1"]]
  colours = [colour for _, colour, _ in _by_method(rows)]
  assert len(set(colours)) == len(colours)


def test_presets_are_complete():
  presets = list(command.PRESETS.glob("paper_*.flags"))
  assert len(presets) >= 3
  for preset in presets:
    reset_flags()
    command.parse(["compare", f"--flagfile={preset}"], "nets_jax.cli.search")
    assert values(search_flags.make_search(flags.FLAGS))["target_density"] == 0.2


def test_methods_that_aim_at_different_densities_are_told(run_binary):
  _, _, error = run_binary(
    compare, "--dataset=xor", "--methods=guided,snip,dense", "--trials=1", "--dry_run", "--workdir=out"
  )
  assert "these methods aim at different densities (guided 10.0%, snip 20.0%" in error
  _, _, error = run_binary(
    compare, "--dataset=xor", "--methods=guided,snip", "--trials=1", "--dry_run", "--target_density=0.3"
  )
  assert "different densities" not in error
