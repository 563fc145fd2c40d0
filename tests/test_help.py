"""`--help`, `--list` and what is said of a wrong flag."""

import json
import pathlib
import re
import subprocess
import sys

import pytest
from test_search import PROBLEM, SMALL

import nets_jax
from nets_jax.cli import setting_flags as search_flags
from nets_jax.cli import usage as flag_help

ROOT = pathlib.Path(nets_jax.__file__).parent.parent


def shared_flags():
  """The names of the flags that the groups should hold."""
  modules = search_flags.flags.FLAGS.flags_by_module_dict()
  return {flag.name for flag in modules[search_flags.__name__]}


def test_every_shared_flag_is_in_one_group():
  grouped = [name for names in flag_help._grouped().values() for name in names]
  assert len(set(grouped)) == len(grouped)
  assert set(grouped) | {"method"} == shared_flags()


def test_the_documents_table_is_the_flags():
  command = "python -m nets_jax.cli.usage docs/flags.md"
  assert (ROOT / "docs" / "flags.md").read_text() == flag_help.table(), f"make it again: {command}"
  assert "`--num_processes`" in flag_help.table()


@pytest.mark.parametrize("binary", ["search", "sweep", "compare", "densities", "controls", "benchmark"])
def test_help_shows_groups_with_defaults(binary):
  done = subprocess.run(
    [sys.executable, "-m", f"experiments.{binary}", "--help"], cwd=ROOT, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  assert done.stderr == ""
  assert f"python -m experiments.{binary}" in done.stdout
  for line in (
    "genetic operators:",
    "  --crossover_rate=0.5",
    "  --[no]retain_weights (off)",
    "One of tournament, rank",
  ):
    assert line in done.stdout
  assert "this command's own:" in done.stdout
  assert ("--num_processes" in done.stdout) == ("several hosts:" in done.stdout) == (binary == "search")
  picks = binary in ("search", "sweep", "benchmark")  # all others take --methods, or run no search
  assert ("One of guided, halved" in done.stdout) == ("  --search=guided" in done.stdout) == picks
  assert ("--trials" in done.stdout) == (binary in ("compare", "densities"))


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (
      ["--selection=rnak"],
      "value should be one of <tournament|rank|truncation|roulette>; did you mean rank?",
    ),
    (["--elites=few"], "flag --elites=few: it must be a whole number"),
    (["--noise_rate=some"], "flag --noise_rate=some: it must be a number"),
    (["--use_bias=perhaps"], "flag --use_bias=perhaps: it must be true or false"),
    (["--dormancy_rat=0.1"], "Did you mean: dormancy_rate"),
    (["--dataset=digit"], "did you mean digits?"),
    (["--list=nowhere"], "there is no directory nowhere"),
    (["--list=."], ". holds no run of experiments.search or experiments.sweep"),
  ],
)
def test_the_nearest_is_suggested(job, arguments, message):
  status, _, error = job(*arguments)
  assert status == 2
  assert message in error
  assert error.count("\n") == 1


def test_runs_are_listed(job, tmp_path):
  assert job(*SMALL, "--workdir=all/one")[0] == 0
  assert job(*PROBLEM, "--workdir=all/two", "--method=random", "--train_epochs=0")[0] == 0
  for name, text in (("three", None), ("four", "{")):
    (tmp_path / "all" / name).mkdir()
    config = {"flags": {"method": "imp", "dataset": "mnist"}}
    (tmp_path / "all" / name / "config.json").write_text(json.dumps(config))
    if text:
      (tmp_path / "all" / name / "summary.json").write_text(text)
  (tmp_path / "all" / "other").mkdir()
  (tmp_path / "all" / "other" / "config.json").write_text("[]")
  status, out, _ = job("--list=all")
  assert status == 0
  head, *lines = [re.split(r"\s{2,}", line) for line in out.splitlines()]
  assert head == ["run", "search", "data", "density", "test accuracy", "seconds"]
  summary = json.loads((tmp_path / "all" / "one" / "summary.json").read_text())
  assert [line[0] for line in lines] == ["four", "one", "three", "two"]
  found = {line[0]: line[1:] for line in lines}
  assert found["one"] == [
    "guided", "xor", f"{summary['density']:.1%}", f"{summary['results']['guided']['test_accuracy']:.1%}",
    f"{summary['search_seconds']:.1f}",
  ]  # fmt: skip
  assert found["two"][0] == "random"
  assert found["two"][3] == "not trained"
  assert found["three"] == ["imp", "mnist", "-", "unfinished", "-"]
  assert found["four"] == ["imp", "mnist", "-", "damaged", "-"]


def test_the_flagfile_of_a_run_repeats_it(job, tmp_path):
  status, _, error = job(*SMALL, "--workdir=a", "--seed=7", "--nouse_bias", "--hidden_sizes=6,4")
  assert status == 0
  assert "to repeat this run: python -m nets_jax search --flagfile=a/run.flags\n" in error
  assert job("--flagfile=a/run.flags", "--workdir=b")[0] == 0
  tickets = [(tmp_path / name / "ticket.safetensors").read_bytes() for name in "ab"]
  assert tickets[0] == tickets[1]
