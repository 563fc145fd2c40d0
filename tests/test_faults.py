"""Runs that are killed, stopped and starved of disk: nothing finished is lost, and one line says why."""

import contextlib
import json
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import jax
import pytest

import nets_jax
from experiments.benchmarking import memory
from nets_jax.engine.tables import read_csv

pytestmark = pytest.mark.faults

ROOT = pathlib.Path(nets_jax.__file__).parent.parent
XOR = (
  "--dataset=xor", "--xor_train_size=100", "--xor_test_size=40", "--hidden_sizes=6", "--batch_size=10",
  "--checkpoint_seconds=0",
)  # fmt: skip
SEARCH = (*XOR, "--population_size=6", "--fitness_epochs=1", "--halvings=0")
KILLS = 10  # in each of two tests, which two workers share


def start(module, *arguments, before=(), **kwargs):
  command = [*before, sys.executable, "-m", f"experiments.{module}", *map(str, arguments)]
  return subprocess.Popen(
    command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs
  )


def finish(process):
  try:
    out, error = process.communicate(timeout=200)
  except subprocess.TimeoutExpired:
    process.kill()
    raise
  return process.returncode, out, error


def await_line(process, beginning):
  """Reads on to a line of standard error; returns it, or None if the process ends before.

  A program that would go on for hours is killed after two minutes, so that the test fails and ends.
  """
  timer = threading.Timer(120, process.kill)
  timer.start()
  try:
    return _next_line(process, beginning)
  finally:
    timer.cancel()


def _next_line(process, beginning):
  return next((line for line in process.stderr if line.startswith(beginning)), None)


def survive(module, arguments, rng, most):
  """Kills a program at random moments, up to `most` times, starts it again each time; how often it was."""
  for kills in range(most + 1):
    process = start(module, *arguments)
    if kills < most:
      await_line(process, ("compiling", "program", "random", "guided", "nets", "imp"))
      with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(rng.uniform(0, 2.5))
      process.kill()
    status, _, error = finish(process)
    if status != -signal.SIGKILL:
      assert status == 0, error
      return kills
  raise AssertionError("it was killed in the end")


def without_seconds(path):
  return [{k: v for k, v in row.items() if not k.endswith("seconds")} for row in read_csv(path)]


def summary(path):
  found = json.loads(path.read_text())
  (found.get("best") or {}).pop("seconds", None)
  return {k: v for k, v in found.items() if k not in ("search_seconds", "compile_seconds")}


def assert_same_files(one, other):
  """Every table, ticket and summary of two runs, seconds aside, and nothing left of the way there."""
  names = [
    {
      str(p.relative_to(root))
      for p in root.rglob("*")
      if p.is_file() and p.suffix not in (".flags", ".png", ".svg", ".log") and p.name[0] != "."
    }
    for root in (one, other)
  ]
  assert names[0] == names[1]
  for name in names[0]:
    if name.endswith(".csv"):
      assert without_seconds(one / name) == without_seconds(other / name), name
    elif name.endswith("summary.json"):
      assert summary(one / name) == summary(other / name)
    elif name.endswith(".safetensors"):
      assert (one / name).read_bytes() == (other / name).read_bytes()


@pytest.mark.parametrize(
  ("module", "kills", "arguments"),
  [
    ("search", KILLS, (*SEARCH, "--generations=250", "--train_epochs=100")),
    ("search", KILLS, (*SEARCH, "--generations=250", "--train_epochs=100", "--elites=2")),
    ("search", 4, (*XOR, "--method=imp", "--cycles=3", "--cycle_epochs=40", "--train_epochs=40")),
    (
      "compare",
      4,
      (*SEARCH, "--trials=2", "--generations=60", "--cycles=2", "--cycle_epochs=30", "--train_epochs=30"),
    ),
    (
      "sweep",
      3,
      (*SEARCH, "--seeds=0:2", "--grid=elites=1,2", "--generations=60", "--train_epochs=30", "--at_once=2"),
    ),
  ],
  ids=["nets", "two_elites", "imp", "compare", "sweep"],
)
def test_a_killed_run_ends_as_one_that_was_not(tmp_path, module, kills, arguments):
  rng, left, seed = random.Random(len(arguments)), kills, 0
  while left:  # on a fast machine a run ends before it was killed often enough; then another one is
    seeds = () if module == "sweep" else (f"--seed={seed}",)
    whole, killed = tmp_path / f"whole{seed}", tmp_path / f"killed{seed}"
    status, _, error = finish(start(module, *arguments, *seeds, f"--workdir={whole}"))
    assert status == 0, error
    left -= survive(module, (*arguments, *seeds, f"--workdir={killed}"), rng, left)
    assert_same_files(whole, killed)
    assert not list(killed.rglob("checkpoints"))
    seed += 1
    arguments = tuple(a.replace("0:2", "2:4") if seed % 2 else a.replace("2:4", "0:2") for a in arguments)


@pytest.mark.parametrize(("number", "status", "devices"), [(signal.SIGTERM, 143, 2), (signal.SIGINT, 130, 1)])
def test_a_signal_saves_and_the_same_command_goes_on(tmp_path, number, status, devices):
  arguments = (*SEARCH, "--generations=300", "--train_epochs=2", "--checkpoint_seconds=1000")
  process = start("search", *arguments, f"--workdir={tmp_path}/run", "--tensorboard")
  assert await_line(process, "guided 1/301")
  time.sleep(0.5)
  process.send_signal(number)
  got, out, error = finish(process)
  assert (got, out) == (status, "")
  lines = error.splitlines()
  name = signal.Signals(number).name
  assert lines[-2] == f"{name}: saving; a second one ends the program at once"
  assert lines[-1].startswith(f"stopped by {name} after generation ")
  at = lines[-1].split(",")[0].rpartition(" ")[2]
  status, _, error = finish(
    start("search", *arguments, f"--workdir={tmp_path}/run", f"--devices={devices}", "--tensorboard")
  )
  assert status == 0, error
  assert f"going on after generation {at}\n" in error
  assert finish(start("search", *arguments, f"--workdir={tmp_path}/whole", "--tensorboard"))[0] == 0
  shutil.rmtree(tmp_path / "whole" / "tensorboard")
  shutil.rmtree(tmp_path / "run" / "tensorboard")
  assert_same_files(tmp_path / "whole", tmp_path / "run")


def test_a_second_signal_and_one_before_the_search(tmp_path):
  process = start("search", *SEARCH, "--generations=100000", f"--workdir={tmp_path}/run")
  await_line(process, "to repeat")
  process.send_signal(signal.SIGTERM)
  time.sleep(0.05)
  process.send_signal(signal.SIGTERM)
  status, _, error = finish(process)
  assert status in (143, -signal.SIGTERM)
  assert "Traceback" not in error


def test_two_runs_in_one_directory(tmp_path):
  first = start("search", *SEARCH, "--generations=100000", f"--workdir={tmp_path}/run")
  await_line(first, "guided 1/")
  for module in ("search", "compare", "sweep"):
    status, out, error = finish(start(module, *SEARCH, f"--workdir={tmp_path}/run"))
    assert (status, out) == (2, "")
    assert error == (
      f"error: another process is at work in {tmp_path}/run; wait for it, or give another --workdir\n"
    )
  first.kill()
  finish(first)
  again = start("search", *SEARCH, "--generations=100000", f"--workdir={tmp_path}/run")
  assert await_line(again, "going on after generation")
  again.kill()
  finish(again)


def small_disk(directory, size):
  """A command's beginning that gives it a file system of that size, and what else to do in it."""
  directory.mkdir()
  setup = f"mount -t tmpfs -o size={size} tmpfs {directory} && exec"
  before = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", f'{setup} "$@"', "sh")
  try:
    works = subprocess.run([*before, "true"], capture_output=True, check=False).returncode == 0
  except FileNotFoundError:
    works = False
  if not works:
    pytest.skip("this system lets no user mount a tmpfs of his own (unshare)")
  return before


WIDE = (
  *("--dataset=xor", "--hidden_sizes=200,200", "--population_size=4", "--generations=100000"),
  *("--checkpoint_seconds=0", "--search=paper"),
)


def test_a_full_disk(tmp_path):
  shown = f"; status=$?; cd {tmp_path}/disk/run && find . -type f >&2; exit $status"
  before = [word.replace('exec "$@"', f'"$@"{shown}') for word in small_disk(tmp_path / "disk", "3m")]
  status, out, error = finish(start("search", *WIDE, f"--workdir={tmp_path}/disk/run", before=before))
  assert (status, out) == (2, "")
  (line,) = (line for line in error.splitlines() if line.startswith("error"))
  assert line.endswith("No space left on device; the last whole one is kept")
  assert "./checkpoints/search/2/default/manifest.ocdbt" in error
  assert "Traceback" not in error


def test_a_file_limit_and_a_read_only_directory(tmp_path):
  before = ("sh", "-c", 'ulimit -f 900; exec "$@"', "sh")
  limited = start("search", *WIDE, f"--workdir={tmp_path}/run", "--compilation_cache_dir=", before=before)
  status, _, error = finish(limited)
  assert status == 2
  assert error.splitlines()[-1].startswith(
    f"error: cannot write a checkpoint in {tmp_path}/run/checkpoints/search: "
  )
  assert "Traceback" not in error

  before = [
    word.replace("&& exec", f"&& mount -o remount,ro {tmp_path}/disk && exec")
    for word in small_disk(tmp_path / "disk", "1m")
  ]
  status, out, error = finish(start("search", *WIDE, f"--workdir={tmp_path}/disk/run", before=before))
  assert (status, out) == (2, "")
  assert error == f"error: cannot use {tmp_path}/disk/run: Read-only file system\n"


def test_a_vanished_directory(tmp_path):
  process = start("search", *WIDE, f"--workdir={tmp_path}/run")
  await_line(process, "paper 1/")
  for _ in range(1200):  # until there is a whole checkpoint, whose directory has a number for its name
    if any(path.name.isdigit() for path in (tmp_path / "run" / "checkpoints").glob("*/*")):
      break
    time.sleep(0.1)
  (tmp_path / "run").rename(tmp_path / "moved")
  status, out, error = finish(process)
  assert (status, out) == (2, "")
  assert error.splitlines()[-1].endswith("No such file or directory; the last whole one is kept")
  assert "Traceback" not in error
  again = start("search", *WIDE, f"--workdir={tmp_path}/moved")
  assert await_line(again, "going on after generation")
  again.kill()
  finish(again)


def test_two_processes_of_which_one_is_killed_go_on(tmp_path):
  arguments = (*SEARCH, "--generations=150", "--train_epochs=2")

  def both(*more):
    with socket.socket() as free:
      free.bind(("127.0.0.1", 0))
      address = f"--coordinator_address=127.0.0.1:{free.getsockname()[1]}"
    where = (f"--workdir={tmp_path}/two", "--devices=2", address, "--num_processes=2")
    return [start("search", *arguments, *where, f"--process_id={i}", *more) for i in (0, 1)]

  pair = both()
  assert await_line(pair[0], "guided 1/")
  time.sleep(2)
  pair[1].kill()
  assert [finish(process)[0] == 0 for process in pair] == [False, False]
  outcomes = [finish(process) for process in both()]
  assert [status for status, _, _ in outcomes] == [0, 0], outcomes
  assert "going on after generation" in outcomes[0][2]
  assert finish(start("search", *arguments, f"--workdir={tmp_path}/one"))[0] == 0
  assert_same_files(tmp_path / "one", tmp_path / "two")


def test_memory_is_flat_over_500_generations(tmp_path):
  data = nets_jax.load_data("xor", xor_train_size=100, xor_test_size=40)
  task = nets_jax.Task(nets_jax.MLP((6,), 2), data, nets_jax.Training(learning_rate=0.001, batch_size=10))
  search = nets_jax.recipes.paper(population_size=32, generations=500)
  saved, resident = nets_jax.Checkpoints(tmp_path, seconds=0, every=5), []
  nets_jax.search(
    jax.random.key(0), task, search,
    checkpoints=saved, on_rows=lambda rows: resident.append(memory.peak()),
  )  # fmt: skip
  saved.close()
  assert len(resident) == 501
  grown = resident[-1] - resident[100]
  assert grown < 8 << 20, f"{grown / (1 << 20):.1f} MiB in 400 generations"
