"""Masks that move while a network trains: RigL, SET, gradual magnitude pruning."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import assert_same_bits
from hypothesis import given, settings
from hypothesis import strategies as st

import nets_jax
from nets_jax import searches, studies
from nets_jax.baselines.dynamic import forgotten
from nets_jax.baselines.rigl import swap
from nets_jax.networks.architectures.resnets import resnet8
from nets_jax.studies.run_files import result_row
from nets_jax.tickets.ticket import density
from nets_jax.training.evaluation import evaluate
from nets_jax.training.optimizers import optimizer_names
from nets_jax.training.train import minibatch_order

KEY = jax.random.key(5)
SWAP = jax.jit(swap)


@pytest.fixture(scope="module")
def task(task):
  return task.replace(epochs=4)  # of 7 steps


def stepper(search, whole, key=KEY):
  """A step of a search as one program."""
  return jax.jit(lambda state, at: search.advance(key, state, whole, at, 1))


def search_of(name, **changes):
  return searches.make(name, {"target_density": 0.3, "mask_every": 4, **changes})


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_swap_is_the_papers(data):
  """Drop the smallest, then grow the highest of all that are dormant, dropped ones too; by sorting."""
  size = data.draw(st.sampled_from([3, 24]))
  count = data.draw(st.integers(1, size))
  rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
  mask = np.zeros(size, bool)
  mask[rng.choice(size, count, replace=False)] = True
  weights, growth = np.where(mask, rng.normal(size=size), 0), rng.random(size)
  share = data.draw(st.floats(0, 1, width=32))
  number = min(int(np.round(np.float32(share) * np.float32(count))), size - count)
  kept = sorted(np.flatnonzero(mask), key=lambda i: -abs(weights[i]))[: count - number]
  free = [i for i in range(size) if i not in kept]
  grown = sorted(free, key=lambda i: -growth[i])[:number]
  found = SWAP(jnp.array(mask), jnp.array(weights), jnp.array(growth), count, jnp.float32(share))
  assert set(np.flatnonzero(found)) == {*kept, *grown}
  assert int(found.sum()) == count


@pytest.mark.parametrize("name", ["rigl", "set"])
def test_the_mask_moves_when_it_is_due_by_the_papers_share(task, name):
  """Step by step: the cosine's share of each layer moves, a new weight is zero, and no other weight moves."""
  search = search_of(name, drop_fraction=0.5)
  due, whole = search.changes(task), search.prepared(task)
  assert list(due) == [4, 8, 12, 16, 20]  # below 21, three quarters of 28
  state, advance = search.begin(KEY, whole), stepper(search, whole)
  counts = [int(mask.sum()) for mask in jax.tree.leaves(state.masks)]
  for at in range(search.steps(task)):
    before, state = state, advance(state, jnp.int32(at))
    assert [int(mask.sum()) for mask in jax.tree.leaves(state.masks)] == counts
    moved = [
      int((a & ~b).sum())
      for a, b in zip(jax.tree.leaves(before.masks), jax.tree.leaves(state.masks), strict=True)
    ]
    if at not in due:
      assert not any(moved)
      continue
    share = 0.5 / 2 * (1 + np.cos(at * np.pi / 21))
    for number, count in zip(moved, counts, strict=True):
      assert number <= round(share * count)  # those that were dropped may grow again
    if name == "set":
      assert any(moved) or share * max(counts) < 1
    for layer in task.layers:
      old, new = (s.training.weights[layer.name]["kernel"] for s in (before, state))
      mask_before, mask = (s.masks[layer.name]["kernel"] for s in (before, state))
      np.testing.assert_array_equal(new, np.where(mask & mask_before, old, 0))
      np.testing.assert_array_equal(
        before.training.weights[layer.name]["bias"], state.training.weights[layer.name]["bias"]
      )


def test_what_grows_by_rigl_has_the_largest_gradient_of_the_dense_network(task):
  search, key = search_of("rigl", drop_fraction=0.5), jax.random.key(9)
  whole = search.prepared(task)
  state = search.advance(key, search.begin(KEY, whole), whole, jnp.int32(0), 4)
  after = search.advance(key, state, whole, jnp.int32(4), 1)
  order_key = jax.random.split(key)[0]
  rows = minibatch_order(order_key, len(task.data.train), 12, 1, first=4)[0]  # a turn begins an epoch
  batch = task.data.train.examples(np.asarray(rows))

  def loss(weights):
    logits = task.network.apply({"params": weights}, batch.inputs)
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels).mean()

  gradient = jax.grad(loss)(state.training.weights)
  for layer in task.layers:
    before, new = (np.asarray(s.masks[layer.name]["kernel"]) for s in (state, after))
    size = np.abs(np.asarray(gradient[layer.name]["kernel"]))
    grown = new & ~before
    if grown.any():
      assert size[grown].min() >= size[~new].max() - 1e-7


@pytest.mark.zoo
@pytest.mark.parametrize("optimizer", optimizer_names())
def test_any_optimiser_follows_a_mask_that_moves_or_is_refused(task, optimizer):
  own = task.replace(training=nets_jax.Training(optimizer, learning_rate=0.01, batch_size=12))
  search = search_of("rigl")
  if optimizer == "sm3":
    with pytest.raises(nets_jax.UsageError, match="the state of sm3 cannot be told weight by weight, so it"):
      search.check(own)
    return
  search.check(own)
  whole = search.prepared(own)
  state = jax.eval_shape(lambda: search.begin(KEY, whole))
  after = jax.eval_shape(lambda state: search.advance(KEY, state, whole, jnp.int32(0), 5), state)
  assert jax.tree.structure(after) == jax.tree.structure(state)


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_an_optimiser_forgets_what_it_knew_of_a_weight_that_is_masked_or_new(optimizer):
  made = nets_jax.Training(optimizer).make_optimizer()
  weights = {"a": {"kernel": jnp.ones(4), "bias": jnp.ones(2)}}
  _, state = made.update(weights, made.init(weights), weights)
  before = {"a": {"kernel": jnp.array([True, True, False, False]), "bias": None}}
  after = {"a": {"kernel": jnp.array([True, False, True, False]), "bias": None}}
  found = forgotten(made, state, weights, before, after)
  vectors = [leaf for leaf in jax.tree.leaves(found) if leaf.shape == (4,)]
  assert vectors
  for leaf in vectors:
    assert np.flatnonzero(leaf).tolist() == [0]
  for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(state), strict=True):
    if one.shape != (4,):
      np.testing.assert_array_equal(one, other)


def test_gradual_pruning_follows_the_cubic_schedule_and_never_comes_back(task):
  search = search_of("gradual", target_density=0.1)
  whole, size = search.prepared(task), sum(layer.size for layer in task.layers)
  due = list(search.changes(task))
  assert due == [4, 8, 12, 16, 20]
  state, expected, advance = search.begin(KEY, whole), 1.0, stepper(search, whole)
  for at in range(search.steps(task)):
    before, state = state, advance(state, jnp.int32(at))
    if at in due:
      way = (at - due[0] + 4) / (due[-1] - due[0] + 4)
      expected = 0.1 + 0.9 * (1 - way) ** 3
    kept = sum(int(mask.sum()) for mask in jax.tree.leaves(state.masks))
    assert kept == max(1, round(expected * size))
    for one, other in zip(jax.tree.leaves(before.masks), jax.tree.leaves(state.masks), strict=True):
      assert not (other & ~one).any()
    for layer in task.layers:
      weights, mask = state.training.weights[layer.name]["kernel"], state.masks[layer.name]["kernel"]
      assert not np.asarray(weights)[~np.asarray(mask)].any()
    gone = before.training.weights["output"]["kernel"], before.masks["output"]["kernel"]
    if at in due and (lost := np.asarray(gone[1] & ~state.masks["output"]["kernel"])).any():
      assert np.abs(gone[0])[lost].max() <= np.abs(np.asarray(gone[0]))[np.asarray(gone[1])].max()


@pytest.mark.devices
def test_gradual_pruning_of_nothing_is_the_plain_training(task):
  """The same key, the same minibatches, the same network."""
  key = jax.random.key(3)
  found = nets_jax.search(key, task, search_of("gradual", target_density=1.0), devices=1)
  first, steps = jax.random.split(key)
  del first
  plain = nets_jax.train_tickets(steps[None], found.ticket, task, splits=("valid",))
  assert float(density(found.ticket)) == 1
  jax.tree.map(
    lambda one, other: np.testing.assert_allclose(one, other[0], rtol=1e-4, atol=1e-6),
    found.own_training.weights, plain.weights,
  )  # fmt: skip
  for row, other in zip(found.history, plain.curves, strict=True):
    assert row["valid_loss"] == pytest.approx(other["valid_loss"], rel=1e-4)


def test_a_schedule_of_the_rate_is_the_final_trainings(task):
  """By a rate that falls to zero at the end, the last steps move nothing."""
  own = task.replace(training=task.training.replace(schedule="cosine"))
  search = search_of("rigl")
  whole = search.prepared(own)
  assert whole.training.schedule.steps == 28
  state = search.begin(KEY, whole)
  state = search.advance(KEY, state, whole, jnp.int32(0), 27)
  after = search.advance(KEY, state, whole, jnp.int32(27), 1)
  before, last = state.training.weights, after.training.weights
  change = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), before, last)
  assert max(jax.tree.leaves(change)) < 1e-3


def test_a_mask_that_would_never_change_is_refused(task):
  with pytest.raises(nets_jax.UsageError, match=r"mask_from \(0.9\) must be below mask_until \(0.75\)"):
    nets_jax.search(KEY, task, search_of("gradual", mask_from=0.9))
  for name in ("rigl", "gradual"):
    with pytest.raises(nets_jax.UsageError, match=r"no multiple of mask_every \(100\) lies within"):
      nets_jax.search(KEY, task, search_of(name, mask_every=100))


@pytest.mark.zoo
def test_batch_normalisation_is_evaluated_by_settled_averages():
  rng = np.random.default_rng(0)
  images = rng.normal(size=(60, 8, 8, 1)).astype(np.float32)
  data = nets_jax.from_arrays(images, rng.integers(0, 3, 60))
  network = resnet8(3, width=0.25)
  task = nets_jax.Task(network, data, nets_jax.Training(batch_size=10), epochs=1, initialiser="he")
  found = nets_jax.search(KEY, task, search_of("rigl", mask_every=2))
  own = found.own_training
  judged = evaluate(task, own.weights, data.valid, own.network_state)
  assert float(judged.loss) == pytest.approx(found.history[-1]["valid_loss"], rel=1e-3)


def test_a_study_reports_the_network_as_it_was_trained_apart(task, tmp_path):
  methods = {"rigl": search_of("rigl"), "snip": searches.make("snip", {"score_batch": 20})}
  found = studies.densities(methods, task, [0.3], trials=2, directory=tmp_path)
  rows = found.results
  assert rows[rows["method"] == "rigl"]["own_test_accuracy"].notna().all()
  assert rows[rows["method"] == "snip"]["own_test_accuracy"].isna().all()
  line = next(line for line in found.table().splitlines() if line.startswith("| rigl"))
  assert "as trained in the search" in line
  run = next(run for run in found.runs if run.columns["method"] == "rigl")
  row = result_row(run)
  again = nets_jax.search(run.keys()[0], run.method.task, run.method.search)
  judged = evaluate(task, again.own_training.weights, task.data.test, again.own_training.network_state)
  assert row["own_test_loss"] == pytest.approx(float(judged.loss), rel=1e-4)
  found.write(tmp_path)
  assert_same_bits(nets_jax.load_ticket(run.path / "ticket.safetensors").masks, again.ticket.masks)
