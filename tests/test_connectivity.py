"""Linear mode connectivity of two trainings, against a slow reference."""

import jax
import numpy as np
import pytest

import nets_jax
from nets_jax.analysis.connectivity import Connectivity, connectivity
from nets_jax.training.evaluation import evaluate


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
