import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from conftest import assert_same_bits

import nets_jax
from nets_jax import searches
from nets_jax.baselines import one_shot, scores
from nets_jax.baselines.one_shot import Synflow
from nets_jax.baselines.random_tickets import Random
from nets_jax.networks.initialisation import Normal
from nets_jax.tickets.controls import unmask
from nets_jax.tickets.ticket import maskable_count, phenotype, unmasked_count

KEYS = jax.random.split(jax.random.key(0), 3)
NAMES = ("hidden_0", "hidden_1", "output")


@pytest.fixture(scope="module")
def batch(data):
  return jax.tree.map(lambda x: jnp.asarray(x[:30]), data.train)


def scored(score, task, ticket, batch):
  found = jax.jit(lambda w: score(task, w, ticket.masks, batch))(phenotype(ticket))
  assert all(found[name]["bias"] is None for name in NAMES)
  return [np.asarray(found[name]["kernel"], np.float64) for name in NAMES]


def gradients(parameters, batch):
  """Kernel and bias gradients by the NumPy reference: what a step of rate 1 on the whole batch takes off."""
  dense = [(kernel, bias, np.ones_like(mask)) for kernel, bias, mask in parameters]
  inputs, labels = np.asarray(batch.inputs), np.asarray(batch.labels)
  after = reference.sgd(dense, inputs, labels, [np.arange(len(labels))], 1.0)
  return [(k - k2, b - b2) for (k, b, _), (k2, b2, _) in zip(dense, after, strict=True)]


def expressed(ticket):
  return [(kernel * mask, bias, mask) for kernel, bias, mask in reference.layers(ticket)]


def test_magnitude(task, ticket, batch):
  for got, (kernel, _, _) in zip(
    scored(scores.magnitude, task, ticket, batch), expressed(ticket), strict=True
  ):
    np.testing.assert_allclose(got, np.abs(kernel), rtol=1e-6)


def test_snip_is_gradient_times_weight(task, ticket, batch):
  parameters = expressed(ticket)
  got = scored(scores.snip, task, ticket, batch)
  for found, (kernel, _, _), (gradient, _) in zip(got, parameters, gradients(parameters, batch), strict=True):
    np.testing.assert_allclose(found, np.abs(gradient * kernel), rtol=1e-4, atol=1e-7)


def test_grasp_is_weight_times_hessian_times_gradient(task, ticket, batch):
  # Biases off zero: a unit that no input reaches stands exactly on its kink, which has no derivative.
  biases = {
    name: jax.random.normal(jax.random.key(i), (n,))
    for i, (name, n) in enumerate(zip(NAMES, (8, 5, 3), strict=True))
  }
  ticket = ticket.replace(weights={n: {**ticket.weights[n], "bias": biases[n]} for n in NAMES})
  parameters, step = expressed(ticket), 1e-6
  direction = gradients(parameters, batch)

  def moved(sign):
    return gradients(
      [
        (k + sign * step * gk, b + sign * step * gb, m)
        for (k, b, m), (gk, gb) in zip(parameters, direction, strict=True)
      ],
      batch,
    )

  got = scored(scores.grasp, task, ticket, batch)
  for found, (kernel, _, _), (up, _), (down, _) in zip(got, parameters, moved(1), moved(-1), strict=True):
    want = kernel * (up - down) / (2 * step)
    np.testing.assert_allclose(found, want, rtol=1e-3, atol=1e-4 * np.abs(want).max())


def test_synflow_is_the_share_of_each_weight_in_the_flow(task, ticket, batch):
  absolute = [np.abs(kernel) for kernel, _, _ in expressed(ticket)]

  def flow(layers):
    return np.linalg.multi_dot([np.ones((1, 6)), *layers, np.ones((3, 1))]).item()

  for layer, found in enumerate(scored(scores.synflow, task, ticket, batch)):
    for index in np.ndindex(found.shape):
      up, down = ([x.copy() for x in absolute] for _ in range(2))
      up[layer][index] += 1e-3
      down[layer][index] -= 1e-3
      want = absolute[layer][index] * (flow(up) - flow(down)) / 2e-3
      np.testing.assert_allclose(found[index], abs(want), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("score", list(one_shot.SEARCHES))
def test_the_exact_count_of_the_highest_scores_is_kept(task, data, score):
  search = one_shot.SEARCHES[score](target_density=0.3, rounds=1, score_batch=30)
  task = task.replace(initialiser=Normal(0.5))
  for key, result in zip(KEYS, nets_jax.search_all(KEYS, task, search), strict=True):
    count = round(0.3 * 103)
    assert int(unmasked_count(result.ticket)) == count
    assert [row["density"] for row in result.history] == [count / 103]
    batch_key = jax.random.split(key)[1]
    rows = jax.random.choice(batch_key, len(data.train), (30,), replace=False)
    seen = jax.tree.map(lambda x, rows=rows: jnp.asarray(x)[rows], data.train)
    dense = unmask(result.ticket)
    flat = np.concatenate([s.ravel() for s in scored(search.score, task, dense, seen)])
    kept = np.concatenate([np.asarray(result.ticket.masks[n]["kernel"]).ravel() for n in NAMES])
    assert flat[kept].min() >= flat[~kept].max() - 1e-5 * np.abs(flat).max()


@pytest.mark.devices
@pytest.mark.parametrize("score", ["snip", "synflow"])
def test_tickets_side_by_side_are_the_tickets_alone(task, score):
  search = one_shot.SEARCHES[score](rounds=5, score_batch=30)
  together = nets_jax.search_all(KEYS, task, search)
  for i in (0, 2):
    assert_same_bits(nets_jax.search(KEYS[i], task, search).ticket, together[i].ticket)
  assert any(
    (a != b).any()
    for a, b in zip(jax.tree.leaves(together[0].ticket), jax.tree.leaves(together[1].ticket), strict=True)
  )


def test_synflow_keeps_every_layer_alive_at_one_percent_on_an_exponential_schedule():
  data = nets_jax.load_data("digits")
  network = nets_jax.MLP((100, 100, 100, 50), 10)
  search = Synflow(target_density=0.01, score_batch=50)
  result = nets_jax.search(KEYS[0], nets_jax.Task(network, data), search)
  total = maskable_count(result.ticket)
  assert len(result.history) == 100
  assert [row["density"] for row in result.history] == [
    pytest.approx(0.01 ** (r / 100), abs=1 / total) for r in range(1, 101)
  ]
  assert all(float(share) > 0 for share in nets_jax.layer_densities(result.ticket).values())
  flow = scored_flow(network, result.ticket, data)
  assert flow > 0


def scored_flow(network, ticket, data):
  """The sum of outputs of |w| for an input of ones: 0 if no path is left."""
  weights = jax.tree.map(jnp.abs, phenotype(ticket))
  return float(network.apply({"params": weights}, jnp.ones((1, *data.input_shape))).sum())


@pytest.mark.parametrize(
  ("name", "changes", "message"),
  [
    ("luck", {}, "search must be one of .*, magnitude, snip, grasp, synflow, .*, not 'luck'"),
    ("snip", {"target_density": 0.0}, r"target_density must be in \(0, 1\], not 0.0"),
    ("snip", {"rounds": 0}, "rounds must be at least 1, not 0"),
    ("snip", {"score_batch": 87}, "score_batch must be from 1 to the 86 training examples, not 87"),
  ],
)
def test_impossible_settings(task, name, changes, message):
  with pytest.raises(nets_jax.UsageError, match=message):
    nets_jax.search(KEYS[0], task, searches.make(name, changes))


def test_what_looks_at_no_batch_needs_none(task):
  for name in ("magnitude", "synflow"):
    nets_jax.search(KEYS[0], task, searches.make(name, {"score_batch": 87}))


def test_random_tickets_draw_their_density(task):
  search = Random(target_density=0.4, density_deviation=0.1)
  densities = [
    r.history[0]["density"]
    for r in nets_jax.search_all(jax.random.split(jax.random.key(1), 40), task, search)
  ]
  assert abs(np.mean(densities) - 0.4) < 0.06
  assert 0.05 < np.std(densities) < 0.16
  exact = nets_jax.search(KEYS[0], task, search.replace(density_deviation=0.0))
  assert exact.history[0]["density"] == pytest.approx(round(0.4 * 103) / 103)
  wild = nets_jax.search_all(KEYS, task, search.replace(density_deviation=100.0))
  assert all(0 < r.history[0]["density"] <= 1 for r in wild)
  for changes, message in (
    ({"target_density": 0.0}, "target_density"),
    ({"density_deviation": -1.0}, "density_deviation must be at least 0"),
  ):
    with pytest.raises(nets_jax.UsageError, match=message):
      nets_jax.search(KEYS[0], task, search.replace(**changes))
