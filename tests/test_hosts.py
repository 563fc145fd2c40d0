"""A search over several processes: two of two devices each, on the loopback interface."""

import pathlib
import socket
import subprocess
import sys
import time

import pytest

import nets_jax
from nets_jax.engine.tables import read_csv

pytestmark = pytest.mark.devices
ROOT = pathlib.Path(nets_jax.__file__).parent.parent
SMALL = (
  "--dataset=xor", "--xor_train_size=100", "--xor_test_size=40", "--hidden_sizes=6", "--population_size=10",
  "--generations=2", "--halvings=1", "--batch_size=10", "--fitness_epochs=1", "--train_epochs=2",
)  # fmt: skip


def start(*arguments):
  command = [sys.executable, "-m", "experiments.search", *SMALL, *arguments]
  return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def start_two(*arguments):
  """Processes 0 and 1 of a run."""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    address = f"--coordinator_address=127.0.0.1:{free.getsockname()[1]}"
  return [start(*arguments, "--devices=2", address, "--num_processes=2", f"--process_id={i}") for i in (0, 1)]


def without_seconds(path):
  return [{k: v for k, v in row.items() if k != "seconds"} for row in read_csv(path)]


def test_two_processes_end_as_one_with_as_many_devices(tmp_path):
  alone = start(f"--workdir={tmp_path}/one", "--devices=4")
  two = start_two(f"--workdir={tmp_path}/two")
  outputs = [process.communicate(timeout=200) for process in (alone, *two)]
  assert [process.returncode for process in (alone, *two)] == [0, 0, 0], outputs
  for name in ("history.csv", "training.csv"):
    assert without_seconds(tmp_path / "two" / name) == without_seconds(tmp_path / "one" / name)
  tickets = [(tmp_path / name / "ticket.safetensors").read_bytes() for name in ("one", "two")]
  assert tickets[0] == tickets[1]
  assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]  # process 1 left nothing
  assert "files in" in outputs[1][0]
  assert outputs[2][0] == ""


@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_dies_ends_the_other_with_a_clear_line(victim, tmp_path):
  processes = start_two("--generations=1000000", f"--workdir={tmp_path}/run")
  for line in processes[0].stderr:
    if line.startswith("guided 1/"):
      break
  processes[victim].kill()
  survivor = processes[1 - victim]
  begin = time.monotonic()
  _, error = survivor.communicate(timeout=100)
  processes[victim].communicate()
  assert survivor.returncode not in (0, None)
  assert time.monotonic() - begin < 60
  assert any(
    line.startswith("error: ") and "process" in line and "stopped" in line for line in error.splitlines()
  ), error
  assert "Traceback" not in error


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (("--num_processes=2",), "coordinator_address, num_processes and process_id go together"),
    (("--distributed",), "cannot join the processes of a run: coordinator_address should be defined"),
    (("--coordinator_address=a:1", "--num_processes=2", "--process_id=2"), "process_id must be from 0 to 1"),
  ],
)
def test_a_wrong_request_is_one_line(arguments, message):
  process = start(*arguments)
  output, error = process.communicate(timeout=100)
  assert process.returncode == 2
  assert output == ""
  assert error.startswith(f"error: {message}")
  assert len(error.splitlines()) == 1
