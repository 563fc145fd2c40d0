"""Searches that optimise something of their own, against slow references: what all of them keep to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_same_results
from reference import loss_and_accuracy, sgd
from test_checkpoints import in_pieces

import nets_jax
from nets_jax import searches
from nets_jax.baselines import concrete, stepwise
from nets_jax.engine.checkpoints import Checkpoints
from nets_jax.tickets.ticket import unmasked_count
from nets_jax.training.train import minibatch_order

KEY = jax.random.key(5)
# Small settings of each, and how many rows of history they leave.
RIVALS = {
  "concrete": {"concrete_epochs": 3},
  "gradinit": {"scale_steps": 15, "score_batch": 20},
  "random_scales": {"candidates": 3, "score_batch": 20},
  "rigl": {"mask_every": 4},
  "set": {"mask_every": 4},
  "gradual": {"mask_every": 4},
}


@pytest.fixture(scope="module")
def task(task):
  return task.replace(epochs=3)


def rival(name, **changes):
  return searches.make(name, {"target_density": 0.3, **RIVALS[name], **changes})


@pytest.mark.parametrize("name", RIVALS)
def test_the_count_is_exact_and_a_row_says_how_it_went(task, name):
  found = nets_jax.search(KEY, task, rival(name))
  size = sum(layer.size for layer in task.layers)
  assert int(unmasked_count(found.ticket)) == round(0.3 * size)
  assert found.cost.epochs == pytest.approx(rival(name).genome_epochs(task))
  assert found.history[-1]["density"] == pytest.approx(0.3, abs=0.01)
  assert all(np.isfinite(list(row.values())).all() for row in found.history)
  rows = []
  nets_jax.search(KEY, task, rival(name), on_rows=rows.append)
  assert len(rows) == rival(name).reports(task)
  assert (found.own_training is not None) == (name in ("rigl", "set", "gradual"))


@pytest.mark.parametrize("name", RIVALS)
def test_a_layer_with_a_density_of_its_own_keeps_it(task, name):
  own = task.replace(layer_densities={"output": 0.6})
  found = nets_jax.search(KEY, own, rival(name))
  masks = found.ticket.by_layer(found.ticket.masks)
  assert int(masks["output"].sum()) == round(0.6 * masks["output"].size)
  assert int(unmasked_count(found.ticket)) == round(0.3 * sum(layer.size for layer in task.layers))


@pytest.mark.devices
@pytest.mark.parametrize("name", RIVALS)
def test_side_by_side_in_pieces_and_on_other_devices_each_is_the_run_alone(task, tmp_path, name):
  keys = jax.random.split(KEY, 3)

  def together(saved, devices=2):
    return nets_jax.search_all(keys, task, rival(name), checkpoints=saved, devices=devices)

  alone = [nets_jax.search(key, task, rival(name), devices=1) for key in keys]
  whole = together(None)
  assert_same_results(whole, alone)
  pieces, stops = in_pieces(together, tmp_path, 1)
  assert stops >= 1 or name == "random_scales"  # of one epoch, at whose end nothing is left to do
  assert_same_results(pieces, whole)
  assert_same_results(together(Checkpoints(tmp_path), 3), whole)


@pytest.mark.parametrize("name", ["rigl", "gradual", "random_scales"])
def test_a_run_that_diverges_is_marked_and_the_others_are_what_they_were(task, name):
  wild = task.replace(training=task.training.replace(learning_rate=1e30))
  (lost,) = nets_jax.search_all([KEY], wild, rival(name), keep_failures=True)
  assert isinstance(lost, nets_jax.SearchFailed)
  message = "no candidate came through" if name == "random_scales" else "diverged; lower learning_rate"
  assert message in str(lost)


def test_a_mask_that_says_nothing_is_a_failure(task):
  silent = task.replace(initialiser=1e-30)
  (lost,) = nets_jax.search_all([KEY], silent, rival("gradinit"), keep_failures=True)
  assert "the scores of GradInit say nothing of a layer, or are not finite; try another init" in str(lost)


def test_factors_that_could_not_be_found_are_a_failure(task):
  wild = task.replace(training=task.training.replace(learning_rate=1e30))
  (lost,) = nets_jax.search_all([KEY], wild, rival("gradinit"), keep_failures=True)
  assert "the scores of GradInit say nothing of a layer, or are not finite" in str(lost)


def test_probabilities_begin_at_each_layers_own_share(task):
  own = task.replace(layer_densities={"output": 0.6})
  state = rival("concrete").begin(KEY, own)
  shares = {name: float(jax.nn.sigmoid(a).mean()) for name, a in state.ticket.by_layer(state.logits).items()}
  sizes = {layer.name: layer.size for layer in task.layers}
  assert shares["output"] == pytest.approx(0.6, abs=0.02)
  assert sum(shares[name] * sizes[name] for name in sizes) == pytest.approx(
    0.3 * sum(sizes.values()), rel=0.02
  )


def test_a_search_may_be_ended_by_the_clock_after_a_turn(task):
  found = nets_jax.search(KEY, task, rival("concrete"), max_seconds=1e-9)
  assert len(found.history) == 1
  assert found.cost.epochs == pytest.approx(rival("concrete").genome_epochs(task) / 3)
  for name in ("rigl", "random_scales"):
    with pytest.raises(nets_jax.UsageError, match="has no generations or cycles that max_seconds could end"):
      nets_jax.search(KEY, task, rival(name), max_seconds=1.0)


# Concrete Ticket Search


def test_the_divergence_is_that_of_the_definition():
  rng = np.random.default_rng(0)
  sparse, dense = rng.normal(size=(2, 5, 4))
  p, q = (np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in (sparse, dense))
  expected = (p * np.log(p / q)).sum(1)
  np.testing.assert_allclose(concrete.reverse_divergence(jnp.array(sparse), jnp.array(dense)), expected, 1e-5)
  assert (expected > 0).all()


def test_the_balance_makes_both_gradients_as_long_and_is_nought_where_the_mask_is_sparse_enough():
  gradient, slope = {"a": jnp.array([3.0, 4.0])}, {"a": jnp.array([0.0, 0.5])}
  assert float(concrete.balance(gradient, slope, jnp.float32(0.1))) == pytest.approx(10)
  assert float(concrete.balance(gradient, slope, jnp.float32(-0.1))) == 0


@pytest.mark.parametrize("objective", ["kl", "loss"])
def test_concrete_search_is_a_reference_by_finite_differences(task, objective):
  """Three steps of a small network in float64: gates, balance, Adam and the fall of its rate."""
  own = task.replace(network=nets_jax.MLP((4,), 3), training=task.training.replace(batch_size=36))
  search = rival("concrete", concrete_epochs=1, concrete_rate=0.2, concrete_objective=objective)
  steps = search.steps(own)
  assert steps == 2
  begin_key, key = jax.random.split(KEY)
  state = search.begin(begin_key, own)
  after = search.advance(key, state, own, jnp.int32(0), steps)

  order_key, noise_key = jax.random.split(key)
  train = own.data.train
  order = minibatch_order(order_key, len(train), 36, steps)
  weights = {name: np.asarray(layer["kernel"], np.float64) for name, layer in state.ticket.weights.items()}
  names, sizes = list(weights), [w.size for w in weights.values()]
  total = sum(sizes)
  logits = np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(state.logits)])
  assert logits == pytest.approx(np.log(0.3 / 0.7))
  first, second, lever = np.zeros(total), np.zeros(total), None

  def outputs(gates, x):
    parts = np.split(gates, np.cumsum(sizes)[:-1])
    kernels = {n: weights[n] * part.reshape(weights[n].shape) for n, part in zip(names, parts, strict=True)}
    return np.maximum(x @ kernels["hidden_0"], 0) @ kernels["output"]

  def log_softmax(x):
    return x - np.log(np.exp(x).sum(1, keepdims=True))

  def value(logits, noise, x, y):
    sparse = log_softmax(outputs(1 / (1 + np.exp(-(logits + noise * 1.5))), x))
    if objective == "loss":
      return -sparse[np.arange(len(y)), y].mean()
    return (np.exp(sparse) * (sparse - log_softmax(outputs(np.ones(total), x)))).sum(1).mean()

  for t in range(steps):
    x = np.asarray(train.examples(np.asarray(order[t])).inputs, np.float64)
    y = np.asarray(train.labels)[np.asarray(order[t])]
    noise = np.asarray(jax.random.logistic(jax.random.fold_in(noise_key, t), (total,)), np.float64)
    steps_of = 1e-5 * np.eye(total)
    gradient = 100 * np.array(
      [(value(logits + e, noise, x, y) - value(logits - e, noise, x, y)) / 2e-5 for e in steps_of]
    )
    kept, aim = 1 / (1 + np.exp(-logits)), 1.1 * 0.3 * total
    slope = 100 / aim * kept * (1 - kept)
    now = 0.0 if kept.sum() < aim else np.linalg.norm(gradient) / np.linalg.norm(slope)
    lever = now if lever is None else 0.99 * lever + 0.01 * now
    g = gradient + lever * slope
    first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g**2
    rate = 0.2 * (0.1 if t >= round(0.88 * steps) else 1)
    logits = logits - rate * adam(first, second, t)
  found = np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(after.logits)])
  np.testing.assert_allclose(found, logits, rtol=2e-3, atol=2e-3)
  kept = np.argsort(-found)[: round(0.3 * total)]
  masks = jax.tree.leaves(search.finish(after, own).ticket.masks)
  assert set(np.flatnonzero(np.concatenate([np.asarray(mask).ravel() for mask in masks]))) == set(kept)


def test_the_divergence_falls_in_the_course_of_a_concrete_search(task):
  history = nets_jax.search(KEY, task, rival("concrete", concrete_epochs=30)).history
  assert history[-1]["objective"] < 0.7 * history[0]["objective"]
  assert history[-1]["expected_density"] < 1.5 * 0.3


def test_a_divergence_of_classes_is_not_asked_of_numbers():
  rng = np.random.default_rng(0)
  data = nets_jax.from_arrays(rng.normal(size=(40, 3)), rng.normal(size=40))
  task = nets_jax.Task(nets_jax.MLP((4,), 1), data, nets_jax.Training(batch_size=8))
  with pytest.raises(nets_jax.UsageError, match="kl is of class probabilities, which these data"):
    nets_jax.search(KEY, task, rival("concrete"))
  found = nets_jax.search(KEY, task, rival("concrete", concrete_objective="loss"))
  assert int(unmasked_count(found.ticket)) == round(0.3 * 16)


# GradInit


def adam(first, second, t):
  """The step of Adam by its averages, after t + 1 of them."""
  return (first / (1 - 0.9 ** (t + 1))) / (np.sqrt(second / (1 - 0.999 ** (t + 1))) + 1e-8)


NAMES, RATE = ("hidden_0", "output"), 0.2


def loss_and_norm(weights, scales, batches):
  """The loss on the last batch after steps of SGD on the others, of scaled kernels; and the first |g|."""
  whole = [
    (np.asarray(weights[n]["kernel"], np.float64) * s, np.asarray(weights[n]["bias"], np.float64))
    for n, s in zip(NAMES, scales, strict=True)
  ]
  whole = [(kernel, bias, np.ones_like(kernel)) for kernel, bias in whole]
  norm = None
  for inputs, labels in batches[:-1]:
    moved = sgd(whole, inputs, labels, [np.arange(len(labels))], RATE)
    squares = [((a[i] - b[i]) ** 2).sum() for a, b in zip(whole, moved, strict=True) for i in (0, 1)]
    norm = np.sqrt(sum(squares)) / RATE if norm is None else norm
    whole = moved
  return loss_and_accuracy(whole, *batches[-1])[0], norm


def slopes(weights, scales, batches, which):
  """The derivatives by each scale, by finite differences."""
  ends = [
    [loss_and_norm(weights, scales + sign * change, batches)[which] for sign in (1, -1)]
    for change in 1e-5 * np.eye(2)
  ]
  return np.array([(high - low) / 2e-5 for high, low in ends])


@pytest.mark.parametrize(("unroll", "bound"), [(1, 1e3), (2, 1e3), (1, 1e-3)])
def test_gradinit_lowers_what_it_says_by_adam(task, unroll, bound):
  """The first steps of the factors, by finite differences of a NumPy reference."""
  own = task.replace(network=nets_jax.MLP((4,), 3))
  search = rival("gradinit", scale_steps=3, scale_rate=0.05, scale_unroll=unroll, gradient_bound=bound)
  begin_key, key = jax.random.split(KEY)
  state = search.begin(begin_key, own)
  after = search.advance(key, state, search.prepared(own), jnp.int32(0), 3)
  weights, train, half = jax.device_get(state.ticket.weights), own.data.train, own.training.batch_size // 2
  scales, first, second, many = np.ones(2), np.zeros(2), np.zeros(2), unroll + 1
  for t in range(3):
    order = np.asarray(minibatch_order(key, len(train), 2 * half, 3 * many))[t * many : (t + 1) * many]
    rows = [*order[:-1], np.concatenate([order[0][:half], order[-1][half:]])]
    batches = [(np.asarray(train.examples(r).inputs, np.float64), np.asarray(train.labels)[r]) for r in rows]
    slope = slopes(weights, scales, batches, int(bound < 1)).clip(-1, 1)
    first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
    scales = np.maximum(0.01, scales - 0.05 * adam(first, second, t))
  for name, scale in zip(NAMES, scales, strict=True):
    assert float(after.factors[name]["kernel"]) == pytest.approx(scale, rel=1e-3)
    assert float(after.factors[name]["bias"]) == 1  # which is zero, and stays there


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "momentum", "rmsprop"])
def test_gradinits_factors_are_finite_by_any_optimiser(task, optimizer):
  """A square root has no derivative at zero, where the gradients of dead inputs are."""
  train = task.data.train
  data = task.data.replace(train=train.replace(inputs=np.asarray(train.inputs) * (np.arange(6) > 0)))
  own = task.replace(data=data, training=task.training.replace(optimizer=optimizer, learning_rate=0.01))
  found = nets_jax.search(KEY, own, rival("gradinit"))
  factors = np.array([value for name, value in found.history[-1].items() if name.startswith("factor_")])
  assert np.isfinite(factors).all()
  assert np.abs(factors - 1).max() > 0.01
  assert np.isfinite(found.ticket.weights["output"]["kernel"]).all()


def test_gradinit_wants_two_examples_of_a_minibatch(task):
  with pytest.raises(nets_jax.UsageError, match="halves of minibatches; give a batch_size of at least 2"):
    nets_jax.search(KEY, task.replace(training=task.training.replace(batch_size=1)), rival("gradinit"))


# Random search over layer scales


def test_the_best_of_random_scales_is_the_candidate_of_the_lowest_loss(task):
  found = nets_jax.search(KEY, task, rival("random_scales", candidates=5))
  losses = [row["valid_loss"] for row in found.history]
  assert found.best == found.history[int(np.argmin(losses))]
  scales = {float(jnp.std(found.ticket.weights[layer.name]["kernel"])) / 0.1 for layer in task.layers}
  assert max(scales) > 1.3 * min(scales)
  same = nets_jax.search(KEY, task, rival("random_scales", candidates=5, candidate_deviation=0.0))
  for layer in task.layers:
    assert float(jnp.std(same.ticket.weights[layer.name]["kernel"])) == pytest.approx(0.1, rel=0.4)


def test_a_stepwise_search_says_what_its_subclass_lacks(task):
  for name, given in (("steps", (task,)), ("begin", (KEY, task)), ("finish", (None, task))):
    with pytest.raises(NotImplementedError):
      getattr(stepwise.Stepwise(), name)(*given)
