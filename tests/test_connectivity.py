"""Linear mode connectivity of two trainings, against a slow reference."""

import flax.linen as nn
import jax
import numpy as np
import pytest

import nets_jax
from experiments.benchmarking import barriers
from nets_jax.analysis.connectivity import Connectivity, connectivity
from nets_jax.baselines.random_tickets import random_ticket
from nets_jax.training.evaluation import evaluate
from nets_jax.training.statistics import settled
from nets_jax.training.train import minibatch_order


def test_the_line_is_what_evaluation_says_point_by_point(task, ticket):
  task = task.replace(epochs=2)
  found = connectivity([1, 2], ticket, task, points=5, split="valid")
  first, second = (
    jax.tree.map(lambda leaf: leaf[0], nets_jax.train_tickets(seed, ticket, task).weights) for seed in (1, 2)
  )
  for i, share in enumerate((0, 0.25, 0.5, 0.75, 1)):
    weights = jax.tree.map(lambda a, b, share=share: share * a + (1 - share) * b, first, second)
    expected = evaluate(task, weights, task.data.valid)
    np.testing.assert_allclose(found.losses[i], expected.loss, rtol=1e-5)
    np.testing.assert_allclose(found.scores[i], expected.score, rtol=1e-6)
  np.testing.assert_allclose(found.errors, 1 - found.scores)
  assert found.barrier == pytest.approx(max(found.errors) - (found.errors[0] + found.errors[-1]) / 2)
  assert found.loss_barrier == pytest.approx(max(found.losses) - (found.losses[0] + found.losses[-1]) / 2)


def test_running_averages_are_estimated_anew_at_each_point(data):
  task = nets_jax.Task(Normalised(), data, nets_jax.Training(learning_rate=0.2, batch_size=12), epochs=1)
  ticket = random_ticket(0, task.network, data.input_shape, 0.8)
  found = connectivity([3, 4], ticket, task, points=3)
  trained = nets_jax.train_tickets([3, 4], [ticket, ticket], task)
  middle = jax.tree.map(lambda leaf: (leaf[0] + leaf[1]) / 2, trained.weights)
  state = jax.tree.map(lambda leaf: leaf[0], trained.carried_states)
  order = minibatch_order(jax.random.key(3), len(data.train), 12, task.steps_per_epoch)
  state = settled(jax.random.key(3), task, middle, state, order)
  np.testing.assert_allclose(found.losses[1], evaluate(task, middle, data.test, state).loss, rtol=1e-5)
  ends = [row["test_loss"] for row in trained.curves if row["epoch"] == 1]
  np.testing.assert_allclose(found.losses[[2, 0]], ends, rtol=0.2)  # of other minibatches, so not the same


class Normalised(nn.Module):
  @nn.compact
  def __call__(self, inputs, train: bool = False):
    x = nn.Dense(8, name="hidden")(inputs)
    x = nn.relu(nn.BatchNorm(use_running_average=not train, name="norm")(x))
    return nn.Dense(3, name="output")(x)


def test_of_one_order_there_is_no_barrier(task, ticket):
  found = connectivity([1, 1], ticket, task.replace(epochs=1), points=3)
  assert found.barrier == 0
  assert abs(found.loss_barrier) < 1e-6


def test_of_an_error_less_is_better(task):
  measures = task.measures._replace(score="squared_error", more_is_better=False)
  found = Connectivity(np.array([0, 0.5, 1.0]), np.ones(3), np.array([0.2, 0.9, 0.4]), measures)
  assert found.barrier == pytest.approx(0.6)


@pytest.mark.parametrize(
  ("given", "message"),
  [
    ({"keys": [1]}, "between two trainings, so it takes two keys, not 1"),
    ({"keys": [1, 2], "points": 2}, "points must be at least 3, not 2"),
    ({"keys": [1, 2], "split": "dev"}, "split must be train, valid or test, not 'dev'"),
  ],
)
def test_a_wrong_request_is_one_line(task, ticket, given, message):
  with pytest.raises(nets_jax.UsageError, match=message):
    connectivity(given.pop("keys"), ticket, task.replace(epochs=1), **given)


def test_the_command_says_the_barrier_of_each_file(run_binary, tmp_path):
  data = nets_jax.load_data("xor", xor_train_size=100, xor_test_size=40)
  task = nets_jax.Task(
    nets_jax.MLP((6,), 2), data, nets_jax.Training(learning_rate=0.2, batch_size=10), epochs=2
  )
  ticket = random_ticket(jax.random.key(0), task.network, data.input_shape, 0.5)
  nets_jax.save_ticket(tmp_path / "one.safetensors", ticket, task.network)
  shared = ("--dataset=xor", "--xor_train_size=100", "--xor_test_size=40", "--learning_rate=0.2")
  shared = (*shared, "--batch_size=10", "--train_epochs=2", "--devices=1")
  status, out, error = run_binary(barriers, "--tickets=*.safetensors", *shared)
  assert status == 0, error
  found = connectivity([0, 1], ticket, task)
  first, last = 100 * found.errors[0], 100 * found.errors[-1]
  worst, barrier = 100 * max(found.errors), 100 * found.barrier
  line = f"| one.safetensors | 50.0% | {first:.2f} %, {last:.2f} % | {worst:.2f} % | {barrier:.2f} |"
  assert out.splitlines()[-1] == line
  status, _, error = run_binary(barriers, "--tickets=none", *shared)
  assert (status, "--tickets=none names no file" in error) == (2, True)
