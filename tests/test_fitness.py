import jax
import jax.numpy as jnp
import numpy as np
import reference
from conftest import assert_same_bits
from hypothesis import given, settings
from hypothesis import strategies as st

import nets_jax
from nets_jax.evolution.fitness import Metrics, density_penalty, fitness, retain
from nets_jax.evolution.ranking import Penalised, Unconstrained
from nets_jax.training.evaluation import class_accuracies
from nets_jax.training.train import minibatch_order


@settings(deadline=None, max_examples=50)
@given(st.floats(0, 1, width=32), st.floats(0, 0.96875, width=32))
def test_penalty_is_equation_1(density, target):
  want = ((density - target) / (1 - target)) ** 2
  np.testing.assert_allclose(density_penalty(density, target), want, rtol=1e-3, atol=1e-6)


def test_penalty_at_target_density_one_asks_for_nothing():
  assert float(density_penalty(jnp.float32(0.3), jnp.float32(1.0))) == 0


def run(task, ticket, ranking, objective=None, learning_rate=0.1, steps=10):
  task = task.replace(training=nets_jax.Training(learning_rate=learning_rate, batch_size=9))
  order = minibatch_order(jax.random.key(2), len(task.data.train), 9, steps)
  go = jax.jit(lambda k, t: fitness(k, t, task, order, ranking, objective))
  return *go(jax.random.key(0), ticket), order


def test_algorithm_2_is_the_numpy_reference(task, data, ticket):
  before = jax.device_get(ticket)
  metrics, _, order = run(task, ticket, Penalised(0.2, 1.0))
  inputs, labels = np.asarray(data.train.inputs), np.asarray(data.train.labels)
  trained = reference.sgd(reference.layers(ticket), inputs, labels, np.asarray(order), 0.1)
  loss, accuracy = reference.loss_and_accuracy(
    trained, np.asarray(data.valid.inputs), np.asarray(data.valid.labels)
  )
  masks = np.concatenate([mask.ravel() for *_, mask in reference.layers(ticket)])
  np.testing.assert_allclose(metrics.valid_loss, loss, rtol=1e-4)
  np.testing.assert_allclose(metrics.valid_score, accuracy, rtol=1e-5)
  np.testing.assert_allclose(metrics.density, masks.mean(), rtol=1e-6)
  np.testing.assert_allclose(metrics.fitness, loss + ((masks.mean() - 0.2) / 0.8) ** 2, rtol=1e-4)
  assert_same_bits(before, jax.device_get(ticket))


def test_penalty_weight_scales_the_penalty(task, ticket):
  none, double = (run(task, ticket, Penalised(0.2, weight))[0] for weight in (0.0, 2.0))
  assert float(none.fitness) == float(none.valid_loss)
  penalty = density_penalty(none.density, 0.2)
  np.testing.assert_allclose(double.fitness - double.valid_loss, 2 * penalty, rtol=1e-4)


def test_a_diverging_ticket_is_infinitely_unfit(task, ticket):
  metrics, trained, _ = run(task, ticket, Penalised(0.2, 1.0), learning_rate=1e30)
  assert not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(trained))
  assert float(metrics.fitness) == np.inf


def test_an_objective_of_ones_own_sees_all_and_need_not_be_differentiable(task, network, data, ticket):
  seen = {}

  def objective(candidate):
    seen["candidate"] = candidate
    classes = class_accuracies(task, candidate.weights, candidate.valid)
    return (
      jnp.floor(10 * candidate.valid_score) + candidate.density + 0 * candidate.valid_loss + jnp.min(classes)
    )

  metrics, trained, _ = run(task, ticket, Unconstrained(), objective)
  logits = np.asarray(network.apply({"params": trained}, data.valid.inputs))
  labels = np.asarray(data.valid.labels)
  correct = logits.argmax(1) == labels
  worst = min(correct[labels == i].mean() for i in range(3))
  np.testing.assert_allclose(
    metrics.fitness, np.floor(10 * metrics.valid_score) + metrics.density + worst, rtol=1e-6
  )
  assert jax.tree.structure(seen["candidate"].ticket) == jax.tree.structure(ticket)


def test_retained_weights_replace_expressed_genes_only(task, ticket):
  _, trained, _ = run(task, ticket, Penalised(0.2, 1.0))
  kept = retain(ticket, trained)
  assert_same_bits(kept.masks, ticket.masks)
  for name, layer in ticket.masks.items():
    mask = np.asarray(layer["kernel"])
    np.testing.assert_array_equal(kept.weights[name]["kernel"][mask], trained[name]["kernel"][mask])
    np.testing.assert_array_equal(kept.weights[name]["kernel"][~mask], ticket.weights[name]["kernel"][~mask])
    np.testing.assert_array_equal(kept.weights[name]["bias"], trained[name]["bias"])


def test_all_metrics_are_scalars(task, ticket):
  metrics, _, _ = run(task, ticket, Penalised(0.2, 1.0))
  assert {leaf.shape for leaf in jax.tree.leaves(metrics)} == {()}
  assert isinstance(metrics, Metrics)
