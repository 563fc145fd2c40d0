"""The benchmark runs and counts its work; how fast it goes is not asserted."""

import pathlib
import subprocess
import sys

import jax

import nets_jax
from nets_jax.baselines.random_tickets import random_ticket

ROOT = pathlib.Path(nets_jax.__file__).parent.parent
COMMAND = (
  sys.executable, "-m", "experiments.benchmark", "--dataset=xor", "--xor_train_size=100", "--hidden_sizes=6",
  "--population_size=2", "--batch_size=10", "--repeats=2",
)  # fmt: skip


def test_it_prints_each_repeat_and_the_medians():
  done = subprocess.run(COMMAND, cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  lines = done.stdout.splitlines()
  assert [line.split(":")[0] for line in lines[1:]] == ["repeat 0", "repeat 1", "median"]
  assert "compile" in lines[0]


def test_a_wrong_request_is_one_line():
  done = subprocess.run([*COMMAND, "--elites=9"], cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 2
  assert done.stderr.startswith("error: elites must be from 0")


def test_the_work_of_lenet_is_counted_as_the_notes_say():
  from experiments.benchmark import training_flops

  ticket = random_ticket(jax.random.key(0), nets_jax.lenet_300_100(), (28, 28, 1), 1.0)
  assert training_flops(ticket, 54_000) == 54_000 * (6 * 266_200 - 2 * 235_200)
