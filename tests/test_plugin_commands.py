"""What a stranger brings, `plugins/stranger`, on the command line and in every record."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from absl import flags
from conftest import STRANGER, assert_same_bits, table

import nets_jax
from nets_jax import settings
from nets_jax.cli import compare, controls, plugin_flags, records, sweep, usage
from nets_jax.cli.search import parse as parse_search
from nets_jax.data import files
from nets_jax.evolution import schedules
from nets_jax.networks.zoo import make_network
from nets_jax.studies import method_labels
from nets_jax.tickets import storage

ROOT = pathlib.Path(nets_jax.__file__).parent.parent
pytestmark = pytest.mark.usefixtures("stranger")
PROBLEM = (
  "--dataset=stranger.data:rings(examples=120)", "--network=stranger.networks:Skip(width=5)",
  "--batch_size=10", "--train_epochs=2", "--devices=1",
)  # fmt: skip
# Skip has 2 x 5, 5 x 3 and 2 x 3 weights.
TOTAL = 31


def config(directory):
  return json.loads((directory / "config.json").read_text())["flags"]


def metadata(path):
  return storage.read(path)[1]


def save_rings(path, **changes):
  from stranger.data import rings

  np.savez(path, **{**rings(), **changes})


@pytest.mark.parametrize(
  ("label", "wanted"),
  [
    ("imp", ("imp", "imp", {})),
    ("short@imp:cycles=2:prune_fraction=0.3", ("short", "imp", {"cycles": "2", "prune_fraction": "0.3"})),
    ("stranger.searches:Halves", ("stranger.searches:Halves", "stranger.searches:Halves", {})),
    ("mine@stranger.searches:Halves:share=0.3", ("mine", "stranger.searches:Halves", {"share": "0.3"})),
    (
      "mine@stranger.searches:Halves(share=0.3):share=0.4",
      ("mine", "stranger.searches:Halves(share=0.3)", {"share": "0.4"}),
    ),
    ("m@p.q:F(a={1: ','},b='x@y:z=3'):c=1", ("m", "p.q:F(a={1: ','},b='x@y:z=3')", {"c": "1"})),
    ("a b@imp:cycles", ("a b", "imp", {"cycles": ""})),
  ],
)
def test_methods_are_read_apart(label, wanted):
  assert method_labels.read_label(label) == wanted
  assert method_labels.split_labels(f"random,{label},dense") == ["random", label, "dense"]


def test_searches_are_found_before_the_command_line_is_read(tmp_path):
  (tmp_path / "some.flags").write_text("--search=a.b:C(x=1)\n--methods=d@e.f:G:h=1,random\n")
  words = ["--seed=3", f"--flagfile={tmp_path}/some.flags", "--method", "i.j:K", "--workdir=l.m:N"]
  assert plugin_flags.named(words) == ["a.b:C(x=1)", "e.f:G", "i.j:K"]
  assert plugin_flags.named(["--flagfile=nowhere", "--search=a.b:C"]) == ["a.b:C"]


def test_a_run_names_all_that_is_a_strangers(job, tmp_path):
  name = "stranger.searches:Halves"
  status, out, error = job(*PROBLEM, f"--search={name}", "--share=0.3", "--seed=3")
  assert status == 0, error
  directory = tmp_path / "runs" / "stranger.data_rings_examples_120-stranger.searches_Halves-seed3"
  found = config(directory)
  assert found["search"] == name
  assert found["share"] == 0.3
  assert found["dataset"] == "stranger.data:rings(examples=120)"
  assert found["network"] == "stranger.networks:Skip(width=5)"
  ticket = nets_jax.load_ticket(directory / "ticket.safetensors")
  assert float(nets_jax.density(ticket)) == pytest.approx(round(0.3 * TOTAL) / TOTAL)
  assert metadata(directory / "ticket.safetensors")["network"] == "stranger.networks:Skip"
  assert name in out
  status, _, error = job(f"--flagfile={directory}/run.flags", "--workdir=again")
  assert status == 0, error
  assert (tmp_path / "again" / "ticket.safetensors").read_bytes() == (
    directory / "ticket.safetensors"
  ).read_bytes()


def test_a_strangers_ticket_is_trained_on_the_network_that_the_user_names(job, run_binary, tmp_path):
  assert job(*PROBLEM, "--search=stranger.searches:Halves", "--workdir=a", "--train_epochs=0")[0] == 0
  rest = ("--dataset=stranger.data:rings(examples=120)", "--train_epochs=1", "--devices=1", "--batch_size=10")
  ticket = "--ticket=a/ticket.safetensors"
  status, _, error = job(*rest, ticket)
  assert status == 2
  assert "give '--network=stranger.networks:Skip(width=5,num_classes=3)' if you trust that module" in error
  assert error.count("\n") == 1
  status, _, error = job(*rest, ticket, "--network=stranger.networks:Skip(width=5)", "--workdir=b")
  assert status == 0, error
  assert metadata(tmp_path / "b" / "ticket.safetensors") == metadata(tmp_path / "a" / "ticket.safetensors")
  status, _, error = job(*rest, ticket, "--network=stranger.networks:Skip(width=6)", "--workdir=c")
  assert status == 2
  assert "the ticket does not fit the network" in error
  tickets = ("--tickets=a/ticket.safetensors", "--controls=ticket,dense", "--workdir=d")
  status, _, error = run_binary(controls, *rest, *tickets, "--network=stranger.networks:Skip(width=5)")
  assert status == 0, error
  assert {row["control"] for row in table(tmp_path / "d" / "controls.csv")} == {"ticket", "dense"}


def test_a_recipe_with_an_operator_of_ones_own(job, tmp_path):
  settings = ("--population_size=4", "--generations=2", "--flip_rate=0.3to0.1", "--workdir=run")
  status, _, error = job(*PROBLEM, "--search=stranger.searches:flipping", *settings)
  assert status == 0, error
  assert len(table(tmp_path / "run" / "history.csv")) == 12
  assert config(tmp_path / "run")["flip_rate"] == "0.3to0.1"
  from stranger.searches import flipping

  data = nets_jax.load_data("stranger.data:rings(examples=120)")
  network = make_network("stranger.networks:Skip(width=5)", data.num_classes)
  task = nets_jax.Task(network, data, nets_jax.Training(batch_size=10))
  search = flipping(population_size=4, generations=2, flip_rate=schedules.Linear(0.3, 0.1))
  key, _ = jax.random.split(nets_jax.key_of_seed(0))
  found = nets_jax.search(key, task, search).ticket
  assert_same_bits(
    jax.device_get(found.masks),
    jax.device_get(nets_jax.load_ticket(tmp_path / "run" / "ticket.safetensors").masks),
  )


def test_a_file_of_data_is_known_by_its_content(job, tmp_path):
  save_rings(tmp_path / "mine.npz")
  given = ("--dataset=mine.npz", "--train_epochs=0", "--search=random", "--devices=1")
  status, _, error = job(*given)
  assert status == 0, error
  directory = tmp_path / "runs" / "mine-random-seed0"
  assert config(directory)["dataset_sha256"] == files.digest(tmp_path / "mine.npz")
  assert job(f"--flagfile={directory}/run.flags", "--workdir=b")[0] == 0
  parsed = ["search", *given]
  parse_search(parsed)
  before = records.task_settings(flags.FLAGS)
  assert before["dataset_sha256"] == files.digest(tmp_path / "mine.npz")
  save_rings(tmp_path / "mine.npz", labels=np.arange(200) % 4)
  assert records.task_settings(flags.FLAGS) != before
  status, _, error = job(f"--flagfile={directory}/run.flags", "--workdir=c")
  assert status == 2
  assert "mine.npz is another file than is asked for: its SHA-256 begins with" in error
  (directory / "summary.json").unlink()  # as if the run had been stopped
  status, _, error = job(*given)
  assert status == 2
  assert "is of another configuration (dataset_sha256" in error
  status, _, error = job("--dataset=digits", "--dataset_sha256=ab", "--train_epochs=0", "--search=random")
  assert status == 2
  assert "dataset_sha256 is of a PATH.npz, which digits is not" in error


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--search=nowhere:Search"], "there is no module 'nowhere'"),
    (["--search=stranger.searches:Halvs"], "stranger.searches has no 'Halvs'; did you mean Halves?"),
    (["--search=stranger.searches:Halves", "--shar=0.3"], "Did you mean: share"),
    (["--search=stranger.searches:Halves", "--share=lots"], "flag --share=lots: it must be a number"),
    (["--search=stranger.searches:Halves", "--share=2"], "share must be in [0, 1], not 2.0"),
    (["--search=stranger.searches:Halves", "--elites=2"], "has no setting 'elites'"),
    (["--search=stranger.searches:Halves(share=lots)"], "share must be a literal"),
    (["--search=stranger.networks:Skip"], "is no search"),
    (["--network=stranger.networks:Skip(", "--search=random"], "value should be one of <mlp|lenet_300_100|"),
    (["--network=stranger.networks:Skip(5)"], "every argument needs its name"),
    (["--network=stranger.networks:Skip", "--hidden_sizes=9"], "hidden_sizes is for the ready-made networks"),
    (["--network=stranger.networks:Skip(num_classes=2)"], "Skip has 2 outputs, but the data have 3 classes"),
    (["--dataset=stranger.data:ring"], "stranger.data has no 'ring'; did you mean rings?"),
  ],
)
def test_what_is_wrong_is_said_on_one_line(job, tmp_path, arguments, message):
  status, _, error = job(*PROBLEM, *arguments)
  assert status == 2
  assert message in error
  assert error.count("\n") == 1
  assert not (tmp_path / "runs").exists()


def test_settings_that_would_hide_a_flag_are_refused(monkeypatch):
  import stranger.searches as module

  def renamed(name, kind):
    field = settings.setting(1, "Other.", group="halves", kind=kind)
    body = {"__annotations__": {name: int}, name: field, "find": lambda self, keys, task, how: []}
    return nets_jax.dataclass(type("Other", (nets_jax.Search,), body))

  for name, kind, message in (
    ("seed", nets_jax.kinds.WHOLE, "has a setting 'seed', but --seed means something else; rename it"),
    (
      "elites",
      nets_jax.kinds.TEXT,
      "has a setting 'elites' that is a text, but --elites is a whole number",
    ),
  ):
    monkeypatch.setattr(module, "Other", renamed(name, kind), raising=False)
    with pytest.raises(nets_jax.UsageError, match=message):
      plugin_flags.define_search("stranger.searches:Other")
  monkeypatch.setattr(module, "Other", renamed("elites", nets_jax.kinds.WHOLE))
  assert plugin_flags.define_search("stranger.searches:Other") == []
  # Of our parts two have a dormancy_rate, each of its own kind.
  monkeypatch.setattr(module, "Other", nets_jax.recipes.guided)
  assert plugin_flags.define_search("stranger.searches:Other") == []


def test_help_shows_the_settings_of_a_strangers_search():
  environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(STRANGER)])}
  words = ["-m", "experiments.search", "--search=stranger.searches:Halves", "--help"]
  done = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment, cwd=ROOT)
  assert done.returncode == 0, done.stderr
  assert "\nhalves:\n  --share=0.5                 Share of the weights that are kept." in done.stdout


def test_the_documents_tell_of_no_stranger():
  before = usage.table()
  plugin_flags.define_search("stranger.searches:Halves")
  plugin_flags.define_search("stranger.searches:flipping")
  assert usage.table() == before


def test_a_sweep_over_a_strangers_setting(run_binary, tmp_path):
  grid = "--grid=share=0.3,0.6;network=stranger.networks:Skip(width=4),stranger.networks:tower(sizes=(4+3))"
  status, _, error = run_binary(
    sweep, *PROBLEM, "--search=stranger.searches:Halves", "--seeds=0:2", grid, "--workdir=out"
  )
  assert status == 0, error
  rows = table(tmp_path / "out" / "results.csv")
  assert len(rows) == 8
  assert {(row["share"], row["network"]) for row in rows} == {
    (share, network)
    for share in ("0.3", "0.6")
    for network in ("stranger.networks:Skip(width=4)", "stranger.networks:tower(sizes=(4,3))")
  }
  best = (tmp_path / "out" / "best.flags").read_text()
  assert "--search=stranger.searches:Halves\n" in best


def test_a_comparison_with_strangers(run_binary, tmp_path):
  methods = (
    "--methods=random,mine@stranger.searches:Halves:share=0.3,stranger.searches:Halves(share=0.6),"
    "stranger.searches:flipping:generations=1:population_size=3"
  )
  status, out, error = run_binary(compare, *PROBLEM, "--trials=2", methods, "--workdir=out")
  assert status == 0, error
  found = {
    (row["method"], round(TOTAL * float(row["density"]))) for row in table(tmp_path / "out" / "table1.csv")
  }
  assert ("mine", round(0.3 * TOTAL)) in found
  assert ("stranger.searches:Halves(share=0.6)", round(0.6 * TOTAL)) in found
  assert "mine" in out
  repeated = (tmp_path / "out" / "compare.flags").read_text()
  assert methods in repeated
  status, _, error = run_binary(compare, "--flagfile=out/compare.flags", "--workdir=out")
  assert status == 0, error
  assert "8 runs, 8 of them done" in error
  status, _, error = run_binary(compare, *PROBLEM, "--methods=random,imp", "--share=0.3")
  assert status == 2  # no search with that setting is named
  status, _, error = run_binary(compare, *PROBLEM, "--methods=stranger.searches:Halves:shar=1")
  assert status == 2
  assert "there is no setting 'shar'; did you mean share?; write method:setting=value" in error


def test_the_current_directory_is_looked_into(tmp_path):
  """A real process, in a directory with a module of its own, and another way to start than `python -m`."""
  source = (STRANGER / "stranger" / "searches.py").read_text()
  (tmp_path / "lonely.py").write_text(source)
  code = "from nets_jax.cli import search; from nets_jax.cli.command import start; start(search)"
  words = ["--search=lonely:Halves", "--share=0.25", "--dataset=xor", "--train_epochs=0", "--workdir=run"]
  program = tmp_path / "bin" / "program.py"  # whose own directory is the one that Python looks into
  program.parent.mkdir()
  program.write_text(code)
  environment = os.environ | {"PYTHONPATH": str(ROOT)}
  done = subprocess.run(
    [sys.executable, str(program), *words], capture_output=True, text=True, env=environment, cwd=tmp_path
  )
  assert done.returncode == 0, done.stderr
  assert config(tmp_path / "run")["share"] == 0.25
