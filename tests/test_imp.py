import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import assert_same_bits, changed

import nets_jax
from nets_jax.baselines import imp_counts
from nets_jax.baselines.imp_counts import EVERY_LAYER, SCOPES, prune
from nets_jax.changes import change
from nets_jax.errors import Diverged
from nets_jax.networks.layers import Layer
from nets_jax.tickets.ticket import phenotype

IMP = nets_jax.Imp(cycles=4, cycle_epochs=3)
KEYS = jax.random.split(jax.random.key(0), 3)


@pytest.fixture(scope="module")
def task(task):
  return change(task, {"init_scale": 0.5})


def layers_of(sizes, names=None):
  names = names or [str(i) for i in range(len(sizes))]
  return [Layer(name, (size,)) for name, size in zip(names, sizes, strict=True)]


def cycles_of(task, search, keys=KEYS):
  """The tickets at the start of each cycle and at the end, and the results."""
  seen = []
  results = nets_jax.search_all(
    keys, task, search, on_tickets=lambda _, found: seen.append(jax.device_get(found))
  )
  return seen, results


@pytest.fixture(scope="module")
def run(task):
  return cycles_of(task, IMP)


def test_every_cycle_starts_at_mask_times_initial_weights(run):
  seen, results = run
  assert len(seen) == 5
  for found in seen:
    assert_same_bits(found.weights, seen[0].weights)
    for name, layer in jax.vmap(phenotype)(found).items():
      want = np.where(found.masks[name]["kernel"], seen[0].weights[name]["kernel"], 0)
      np.testing.assert_array_equal(layer["kernel"], want)
      assert not np.asarray(layer["bias"]).any()
  for i, result in enumerate(results):
    assert_same_bits(result.ticket, nets_jax.take(seen[-1], i))


@pytest.mark.parametrize("scope", SCOPES)
def test_masks_shrink_by_exact_counts(task, scope):
  seen, _ = cycles_of(task, IMP.replace(prune_scope=scope))
  sizes = [48, 40, 15]
  names = ("hidden_0", "hidden_1", "output")  # which the alphabet has in this order too
  want = IMP.replace(prune_scope=scope).kept_counts(layers_of(sizes, names))
  for before, after, counts in zip(seen, seen[1:], want, strict=False):
    leaves = list(zip(jax.tree.leaves(before.masks), jax.tree.leaves(after.masks), strict=True))
    assert all((new <= old).all() for old, new in leaves)
    kept = np.array([new.sum(axis=(1, 2)) for _, new in leaves])
    if scope != "layer":
      assert (kept.sum(0) == counts[EVERY_LAYER]).all()
    else:
      assert (kept == np.array([counts[name] for name in names])[:, None]).all()


def test_the_smallest_trained_weights_are_pruned_and_ties_go_by_index():
  weights = {"a": {"kernel": jnp.array([[[3.0, -1.0], [1.0, 0.5]]]), "bias": jnp.zeros((1, 2))}}
  masks = {"a": {"kernel": jnp.array([[[True, True], [True, False]]]), "bias": None}}
  for scope, name in (("layer", "a"), ("global", EVERY_LAYER), ("lamp", EVERY_LAYER)):
    pruned = prune(weights, masks, {name: 2}, scope)
    np.testing.assert_array_equal(pruned["a"]["kernel"], [[[True, True], [False, False]]])
    assert pruned["a"]["bias"] is None


def test_lamp_does_not_prune_a_layer_for_its_scale():
  """By sizes alone the layer whose weights are a thousandth of the other's keeps nothing."""
  sizes = jnp.arange(1.0, 9.0).reshape(1, 2, 4)
  weights = {"a": {"kernel": sizes}, "b": {"kernel": sizes / 1000}}
  masks = jax.tree.map(lambda w: jnp.ones_like(w, bool), weights)
  for scope, kept in (("lamp", [4, 4]), ("global", [8, 0])):
    pruned = prune(weights, masks, {EVERY_LAYER: 8}, scope)
    assert [int(m.sum()) for m in jax.tree.leaves(pruned)] == kept


def test_rounds_of_lenet_are_frankle_and_carbins():
  counts = nets_jax.Imp(cycles=18).kept_counts(layers_of([784 * 300, 300 * 100, 100 * 10]))
  left = [100 * sum(c.values()) / 266_200 for c in counts]
  assert [f"{left[r - 1]:.1f}" for r in (3, 7, 9, 11)] == ["51.3", "21.1", "13.5", "8.7"]
  assert [f"{left[r - 1]:.2f}" for r in (15, 18)] == ["3.58", "1.85"]


def test_output_layer_may_be_pruned_like_the_others():
  counts = nets_jax.Imp(cycles=1, output_prune_fraction=None).kept_counts(layers_of([100, 50]))
  assert counts == [{"0": 80, "1": 40}]


class Backwards(nn.Module):
  """A network whose layers the alphabet has in another order than the computation."""

  @nn.compact
  def __call__(self, x):
    for i in range(11):
      x = nn.relu(nn.Dense(10, name=f"Dense_{i}")(x))
    return nn.Dense(3, name="A")(x)


def test_the_output_layer_is_the_one_that_is_applied_last(task):
  search = IMP.replace(cycles=1, cycle_epochs=1, prune_fraction=0.4, output_prune_fraction=0.2)
  ticket = nets_jax.search(KEYS[0], task.replace(network=Backwards()), search).ticket
  shares = {name: float(share) for name, share in nets_jax.layer_densities(ticket).items()}
  assert list(shares) == [*(f"Dense_{i}" for i in range(11)), "A"]
  assert shares == {name: pytest.approx(0.8 if name == "A" else 0.6, abs=0.02) for name in shares}


@pytest.mark.devices
def test_a_run_that_diverges_has_no_ticket_and_leaves_the_others_alone(task):
  """Weights that are not numbers have no order, so there is nothing to prune by."""

  def optimizer(rate):  # a step that is no number for runs whose first bias is off zero
    def update(updates, state, params):
      bad = params["hidden_0"]["bias"][0] > 0
      return jax.tree.map(lambda u: jnp.where(bad, jnp.nan, -rate * u), updates), state

    return optax.GradientTransformation(lambda params: (), update)

  own = changed(task, IMP, optimizer=optimizer, cycles=2)
  outcomes = nets_jax.search_all(KEYS, *own, keep_failures=True)
  failed = [isinstance(outcome, Diverged) for outcome in outcomes]
  assert set(failed) == {True, False}
  bad = outcomes[failed.index(True)]
  assert "the training of cycle 0 diverged; lower learning_rate (0.2) or init_scale (0.5)" in str(bad)
  assert all(np.asarray(mask).all() for mask in jax.tree.leaves(bad.result.ticket.masks))
  with pytest.raises(Diverged, match="the training of cycle 0 diverged"):
    nets_jax.search_all(KEYS, *own)
  good = failed.index(False)
  alone = nets_jax.search(KEYS[good], *own)
  assert_same_bits(alone.ticket, outcomes[good].ticket)


@pytest.mark.devices
def test_runs_side_by_side_are_the_runs_alone(task, run):
  _, together = run
  for i in (0, 2):
    alone = nets_jax.search(KEYS[i], task, IMP)
    assert_same_bits(alone.ticket, together[i].ticket)
    for a, b in zip(alone.history, together[i].history, strict=True):
      assert {k: v for k, v in a.items() if k != "seconds"} == {k: v for k, v in b.items() if k != "seconds"}


def test_the_history_has_a_row_for_each_epoch_of_each_cycle(run):
  _, results = run
  history = results[1].history
  assert [(row["cycle"], row["iteration"]) for row in history] == [
    (c, 21 * c + 7 * e) for c in range(4) for e in (1, 2, 3)
  ]
  assert history[0]["density"] == 1
  assert [row["density"] for row in history] == sorted((row["density"] for row in history), reverse=True)
  assert results[1].cost.epochs == 12
  assert results[1].cost.seconds == history[-1]["seconds"]


@pytest.mark.parametrize("k", [3, 10])
def test_rewinding_goes_back_to_iteration_k(task, k):
  seen, results = cycles_of(task, IMP.replace(rewind_steps=k, cycles=2))
  plain, _ = cycles_of(task, IMP.replace(cycles=1))
  for i in range(3):
    training_key = jax.random.split(KEYS[i])[1]
    start = nets_jax.take(plain[0], jnp.array([i]))
    trained = nets_jax.train_tickets(jax.random.fold_in(training_key, 0), start, task, steps=k)
    for found in seen:
      assert_same_bits(
        jax.tree.map(lambda x, i=i: x[i], found.weights),
        jax.tree.map(lambda x: np.asarray(x[0]), trained.weights),
      )
  assert results[0].cost.epochs == pytest.approx((k + 2 * 21) / 7)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"cycles": 0}, "cycles must be at least 1, not 0"),
    ({"prune_fraction": 1.0}, r"prune_fraction must be in \[0, 1\), not 1.0"),
    ({"output_prune_fraction": -0.1}, "output_prune_fraction must be in"),
    ({"prune_scope": "row"}, "prune_scope must be one of layer, global, lamp, not 'row'"),
    ({"rewind_steps": -1}, "rewind_steps must be at least 0, not -1"),
    ({"cycle_epochs": 0}, "cycle_epochs must be at least 1, not 0"),
    ({"batch_size": 1000}, "batch_size must be from 1 to the 86 training examples"),
  ],
)
def test_impossible_settings(task, changes, message):
  with pytest.raises(nets_jax.UsageError, match=message):
    nets_jax.search(KEYS[0], *changed(task, IMP, **changes))


@pytest.mark.parametrize("scope", SCOPES)
def test_pruning_is_one_program_for_all_cycles(task, scope, monkeypatch):
  traced, patterned = [], imp_counts.patterned
  monkeypatch.setattr(imp_counts, "patterned", lambda *args: traced.append(args) or patterned(*args))
  nets_jax.search(0, task, nets_jax.Imp(cycles=4, cycle_epochs=1, prune_fraction=0.31, prune_scope=scope))
  assert len(traced) <= 1  # none, where another test has pruned this network so
