"""Trained networks in files, and the state that they are evaluated with."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
from conftest import assert_same_bits, table
from test_network_state import Normalised

import nets_jax
from nets_jax import studies
from nets_jax.baselines.random_tickets import Random
from nets_jax.networks.initialisation import Given
from nets_jax.tickets.storage import load_weights
from nets_jax.tickets.ticket import initialise
from nets_jax.tickets.trained import TrainedNetwork, save_trained
from nets_jax.training.evaluation import class_accuracies, evaluate
from nets_jax.training.trainer import train_tickets


@pytest.fixture(scope="module")
def normalised(data):
  task = nets_jax.Task(Normalised(), data, nets_jax.Training(learning_rate=0.3, batch_size=10), epochs=2)
  return task, initialise(jax.random.key(5), task.network, data.input_shape, initialiser=0.7)


@pytest.fixture(scope="module")
def trained(normalised):
  task, ticket = normalised
  return train_tickets(0, [ticket] * 2, task)


def test_the_states_of_a_training_give_its_last_scores(normalised, trained):
  task, _ = normalised
  for row in [row for row in trained.curves if row["epoch"] == 2]:
    weights, state = nets_jax.take((trained.weights, trained.network_states), int(row["ticket"]))
    found = evaluate(task, weights, task.data.test, state)
    assert float(found.loss) == pytest.approx(row["test_loss"], rel=1e-6)
    assert float(found.score) == pytest.approx(row["test_accuracy"], rel=1e-6)
    carried = nets_jax.take(trained.carried_states, int(row["ticket"]))
    assert float(evaluate(task, weights, task.data.test, carried).loss) != pytest.approx(
      row["test_loss"], rel=1e-3
    )


def test_an_evaluation_with_the_averages_of_several_is_refused(normalised, trained):
  task, _ = normalised
  weights = nets_jax.take(trained.weights, 0)
  with pytest.raises(
    nets_jax.UsageError, match="network_state is not of one Normalised; of those of a `Train"
  ):
    evaluate(task, weights, task.data.test, trained.network_states)


def test_an_evaluation_without_the_averages_is_refused(normalised, trained):
  task, _ = normalised
  weights = nets_jax.take(trained.weights, 0)
  for judge in (evaluate, class_accuracies):
    with pytest.raises(
      nets_jax.UsageError, match="Normalised keeps averages of batches, which a training settl"
    ):
      judge(task, weights, task.data.test)
  state = nets_jax.take(trained.network_states, 0)
  classes = class_accuracies(task, weights, task.data.test, state)
  shares = np.bincount(task.data.test.labels, minlength=3) / len(task.data.test)
  assert float(classes @ shares) == pytest.approx(float(evaluate(task, weights, task.data.test, state).score))


def test_a_file_gives_a_trained_network_back(normalised, trained, tmp_path):
  task, _ = normalised
  weights, state = nets_jax.take((trained.weights, trained.network_states), 0)
  save_trained(tmp_path / "trained.safetensors", weights, state, task.network, {"iteration": 7})
  found = nets_jax.load_trained(tmp_path / "trained.safetensors")
  assert_same_bits((found.weights, found.network_state), jax.device_get((weights, state)))
  assert found.metadata["iteration"] == 7
  assert found.metadata["network"] == "Normalised"
  assert float(evaluate(task, found.weights, task.data.test, found.network_state).loss) == pytest.approx(
    trained.curves[-2]["test_loss"], rel=1e-6
  )


def test_any_type_and_any_name_comes_back(tmp_path):
  weights = {"a": {"kernel": jnp.ones((2, 3), jnp.bfloat16)}, "b/c": {"w": jnp.float16(2)}}
  state = {
    "others": {0: jnp.arange(3), 1: jnp.uint32(4)},
    "x": {"key": jax.random.key(3), "on": jnp.bool_(True)},
  }
  state |= {"f8": jnp.ones(2, jnp.float8_e4m3fn), "y/z": jnp.ones(1), "y": {"z": jnp.zeros(1)}}
  save_trained(tmp_path / "t", weights, state, nets_jax.MLP((2,), 2))
  found = nets_jax.load_trained(tmp_path / "t")
  key = found.network_state["x"].pop("key")
  assert key == state["x"].pop("key")
  assert_same_bits((found.weights, found.network_state), jax.device_get((weights, state)))
  assert set(found.metadata) == {"format_version", "network", "network_arguments"}


def forged(path, network, **metadata):
  """A whole file, its checksum right, of which the metadata say something else."""
  save_trained(path, {"a": {"kernel": np.ones(2, np.float32)}}, {}, network)
  from nets_jax.tickets.tensor_files import read, write

  tensors, found = read(path)
  write(path, tensors, found | metadata, True)


@pytest.mark.parametrize(
  "metadata",
  [
    {"kind": "ticket"}, {"kind": None}, {"types": 3}, {"types": {"weights/a/kernel": "float3"}}, {"ways": 3},
    {"types": {"weights/a/kernel": "key none"}}, {"ways": {"weights/a/kernel": []}},
    {"ways": {"weights/a/kernel": ["a"] * 40}}, {"ways": {"weights/a/kernel": [[1]]}},
  ],
)  # fmt: skip
def test_a_strangers_file_is_one_line(tmp_path, metadata):
  forged(tmp_path / "t", nets_jax.MLP((2,), 2), **metadata)
  with pytest.raises(nets_jax.UsageError, match=r"no trained network") as raised:
    nets_jax.load_trained(tmp_path / "t")
  assert "\n" not in str(raised.value)


def test_a_ticket_is_none_and_a_trained_network_is_no_ticket(ticket, network, tmp_path):
  nets_jax.save_ticket(tmp_path / "ticket", ticket, network)
  with pytest.raises(
    nets_jax.UsageError, match=r"holds no trained network, .* load_ticket reads a ticket's file"
  ):
    nets_jax.load_trained(tmp_path / "ticket")
  save_trained(tmp_path / "trained", ticket.weights, {"batch_stats": {"mean": np.ones(2)}}, network)
  with pytest.raises(nets_jax.UsageError, match="is not a ticket"):
    nets_jax.load_ticket(tmp_path / "trained")
  with pytest.raises(nets_jax.UsageError, match="there is no trained network file"):
    nets_jax.load_trained(tmp_path / "nothing")
  damaged = tmp_path / "damaged"
  damaged.write_bytes((tmp_path / "trained").read_bytes()[:-4])
  with pytest.raises(nets_jax.UsageError, match="damaged is not a whole safetensors file"):
    nets_jax.load_trained(damaged)
  assert_same_bits(load_weights(tmp_path / "trained"), jax.device_get(ticket.weights))
  assert isinstance(Given(load_weights(tmp_path / "trained")), Given)


PROBLEM = (
  "--dataset=xor", "--xor_train_size=100", "--xor_test_size=40", "--hidden_sizes=4", "--batch_size=10",
  "--workdir=out", "--devices=1", "--search=random",
)  # fmt: skip


def test_a_run_keeps_its_tickets_network_alone(job, tmp_path):
  status, _, error = job(*PROBLEM, "--train_epochs=2", "--keep_trained")
  assert status == 0, error
  trained = nets_jax.load_trained(tmp_path / "out" / "trained.safetensors")
  rows = [row for row in table(tmp_path / "out" / "training.csv") if row["ticket"] == "random"]
  assert isinstance(trained, TrainedNetwork)
  assert trained.metadata["test_loss"] == pytest.approx(float(rows[-1]["test_loss"]))
  data = nets_jax.load_data("xor", xor_train_size=100, xor_test_size=40)
  task = nets_jax.Task(nets_jax.MLP((4,), 2), data)
  assert float(evaluate(task, trained.weights, data.test).loss) == pytest.approx(
    float(rows[-1]["test_loss"]), rel=1e-5
  )
  ticket = nets_jax.load_ticket(tmp_path / "out" / "ticket.safetensors")
  pruned = ~np.asarray(ticket.masks["hidden_0"]["kernel"])
  assert (trained.weights["hidden_0"]["kernel"][pruned] == 0).all()
  assert "keep_trained" not in json.loads((tmp_path / "out" / "summary.json").read_text())


def test_nothing_to_keep_is_refused(job):
  status, _, error = job(*PROBLEM, "--train_epochs=0", "--keep_trained")
  assert status == 2
  assert error.splitlines()[-1] == (
    "error: keep_trained keeps what the final training makes, but train_epochs is 0; leave one out"
  )


def test_each_run_of_a_study_keeps_its_own(tmp_path, capsys):
  data = nets_jax.load_data("xor", xor_train_size=60, xor_test_size=20)
  task = nets_jax.Task(nets_jax.MLP((3,), 2), data, nets_jax.Training(batch_size=10), epochs=1)
  methods = {"random": Random(0.5)}
  machine = studies.Machine(keep_trained=True)
  found = studies.compare(methods, task, trials=2, directory=tmp_path, options=studies.Options(machine))
  for run in found.runs:
    kept = nets_jax.load_trained(run.path / "trained.safetensors")
    row = table(run.path / "training.csv")[-1]
    assert kept.metadata["test_loss"] == pytest.approx(float(row["test_loss"]))
    assert "trained.safetensors" in (run.path / "SHA256SUMS").read_text()
  (found.runs[0].path / "trained.safetensors").unlink()
  (found.runs[0].path / "SHA256SUMS").unlink()
  studies.compare(methods, task, trials=2, directory=tmp_path, options=studies.Options(machine))
  assert "1 finished runs have kept no trained network; remove their directories" in capsys.readouterr().err


def test_the_file_names_its_tensors_by_their_places(normalised, trained, tmp_path):
  task, _ = normalised
  weights, state = nets_jax.take((trained.weights, trained.network_states), 0)
  save_trained(tmp_path / "t", weights, state, task.network)
  with safetensors.safe_open(tmp_path / "t", framework="numpy") as file:
    names = set(file.keys())
  assert {"weights/first/kernel", "state/batch_stats/norm/mean"} < names
