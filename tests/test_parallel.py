import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_same_bits

import nets_jax
from nets_jax.engine.batching import fetch_rows, map_tickets, take_rows
from nets_jax.engine.layouts import SHARDED, Layout, compile_program
from nets_jax.tickets.ticket import initialise
from nets_jax.training.evaluation import evaluate

pytestmark = pytest.mark.devices
TRAINING = nets_jax.Training(learning_rate=0.1, batch_size=8)


@pytest.fixture(scope="module")
def task(network, data):
  return nets_jax.Task(network, data, TRAINING, epochs=3)


@pytest.fixture(scope="module")
def population(network, data):
  keys = jax.random.split(jax.random.key(5), 5)
  return nets_jax.stack(
    [initialise(k, network, data.input_shape, initial_density=0.5, initialiser=0.5) for k in keys]
  )


@pytest.mark.parametrize(("size", "devices", "rows"), [(5, 1, 5), (5, 2, 6), (5, 4, 8), (2, 4, 2), (8, 4, 8)])
def test_layout_pads_to_fill_every_device_and_uses_no_idle_one(size, devices, rows):
  layout = nets_jax.make_layout(size, devices=devices)
  assert layout.rows == rows
  assert layout.mesh.size == min(size, devices)


def test_impossible_layouts():
  with pytest.raises(nets_jax.UsageError, match="devices must be from 1 to 4 on this machine, not 5"):
    nets_jax.make_layout(8, devices=5)
  with pytest.raises(nets_jax.UsageError, match="devices must be from 1 to 4 on this machine, not 0"):
    nets_jax.make_layout(8, devices=0)
  with pytest.raises(nets_jax.UsageError, match="chunk must be at least 1, not 0"):
    nets_jax.make_layout(8, chunk=0)
  with pytest.raises(nets_jax.UsageError, match="before JAX is used"):
    nets_jax.use_cpu_cores(3)
  nets_jax.use_cpu_cores(4)


@pytest.mark.parametrize("chunk", [1, 2, 3, None])
@pytest.mark.parametrize("devices", [1, 2, 4])
def test_map_tickets_is_a_plain_loop(devices, chunk):
  # Built by hand, with the chunks an accelerator would use: integers, whose sums are exact.
  layout = nets_jax.make_layout(6, devices=devices)
  layout = Layout(layout.size, layout.mesh, chunk)
  rows = jnp.arange(layout.rows * 3).reshape(layout.rows, 3)
  got = jax.jit(lambda r: map_tickets(lambda row, shared: (row @ row) + shared, layout, r, 7))(rows)
  np.testing.assert_array_equal(got, [int(row @ row) + 7 for row in np.asarray(rows)])


def without_seconds(rows):
  return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


@pytest.mark.parametrize("devices", [2, 4])
def test_training_has_the_same_bits_on_any_number_of_devices(task, population, devices):
  one, many = (
    nets_jax.train_tickets(jax.random.key(0), population, task, layout=nets_jax.make_layout(5, devices=n))
    for n in (1, devices)
  )
  assert_same_bits(jax.device_get(one.weights), jax.device_get(many.weights))
  assert without_seconds(one.curves) == without_seconds(many.curves)


@pytest.mark.parametrize("own_keys", [False, True])
def test_ticket_i_is_trained_as_it_would_be_alone(task, population, own_keys):
  keys = jax.random.split(jax.random.key(0), 5) if own_keys else jax.random.key(0)
  together = nets_jax.train_tickets(keys, population, task)
  for i in (0, 4):
    one = nets_jax.take(population, jnp.array([i]))
    alone = nets_jax.train_tickets(keys[i] if own_keys else keys, one, task)
    assert_same_bits(
      jax.tree.map(lambda x, i=i: np.asarray(x[i]), together.weights),
      jax.tree.map(lambda x: np.asarray(x[0]), alone.weights),
    )
    own = [row["test_loss"] for row in together.curves if row["ticket"] == i]
    assert [row["test_loss"] for row in alone.curves] == own


def test_keys_of_their_own_are_minibatches_of_their_own(task, population):
  twins = nets_jax.take(population, jnp.array([0, 0]))
  same = nets_jax.train_tickets(jax.random.key(0), twins, task).weights["output"]["kernel"]
  keys = jax.random.split(jax.random.key(0))
  other = nets_jax.train_tickets(keys, twins, task).weights["output"]["kernel"]
  np.testing.assert_array_equal(same[0], same[1])
  assert (other[0] != other[1]).any()


@pytest.mark.parametrize("eval_every", [1, 4, 10, 25, 33])
def test_how_often_it_is_scored_changes_no_training(task, population, eval_every):
  task = task.replace(network=nets_jax.MLP((8, 5), 3, dropout_rate=0.2))  # 10 steps an epoch
  whole = nets_jax.train_tickets(jax.random.key(0), population, task, steps=33)
  parts = nets_jax.train_tickets(jax.random.key(0), population, task.replace(eval_every=eval_every), steps=33)
  assert_same_bits(jax.device_get(whole.weights), jax.device_get(parts.weights))
  iterations = [row["iteration"] for row in parts.curves if row["ticket"] == 0]
  assert iterations == [*range(eval_every, 33, eval_every), 33]
  assert [row["epoch"] for row in whole.curves if row["ticket"] == 0] == [1, 2, 3, 3.3]


def test_training_learns_and_reports_every_epoch(task, data, population):
  seen = []
  task = task.replace(training=TRAINING.replace(learning_rate=0.2), epochs=20)
  trained = nets_jax.train_tickets(jax.random.key(0), population, task, on_rows=seen.append)
  curves = trained.curves
  assert [row for rows in seen for row in rows] == curves
  assert [(row["epoch"], row["ticket"]) for row in curves] == [(e, t) for e in range(1, 21) for t in range(5)]
  assert np.mean([r["test_loss"] for r in curves[-5:]]) < 0.7 * np.mean([r["test_loss"] for r in curves[:5]])
  seconds = [row["seconds"] for row in curves]
  assert seconds == sorted(seconds)
  assert trained.compile_seconds > 0
  evaluated = evaluate(task, jax.tree.map(lambda x: x[2], trained.weights), data.test)
  np.testing.assert_allclose(evaluated.loss, curves[-3]["test_loss"], rtol=1e-5)


def test_only_the_splits_asked_for_are_scored(task, population):
  trained = nets_jax.train_tickets(jax.random.key(0), population, task, splits=("valid",))
  assert set(trained.curves[0]) == {"iteration", "epoch", "ticket", "valid_loss", "valid_accuracy", "seconds"}


def test_a_program_is_compiled_once_in_a_process():
  program = jax.jit(lambda x: jnp.sin(x) * 3)
  run, first = compile_program(program, 1.0)
  _, second = compile_program(program, 2.0)
  np.testing.assert_allclose(run(0.5), 3 * np.sin(0.5), rtol=1e-6)
  assert second < first


def awkward_population(layout):
  """Values that a sum or a comparison would change: signed zeros, NaN, infinities; bools; a rank of one."""
  rng = np.random.default_rng(0)
  values = rng.choice(np.array([0.0, -0.0, np.nan, np.inf, -1.5, 1e-40], np.float32), (layout.rows, 3, 2))
  return {
    "weights": values,
    "masks": rng.random((layout.rows, 3)) < 0.5,
    "bias": np.float32(rng.random(layout.rows)),
  }


@pytest.mark.parametrize(("size", "devices"), [(1, 1), (6, 1), (6, 2), (5, 4), (8, 4)])
def test_rows_travel_as_an_index_says(size, devices):
  layout = nets_jax.make_layout(size, devices=devices)
  population = awkward_population(layout)
  rng = np.random.default_rng(1)
  first, second = (rng.integers(0, layout.rows, layout.rows) for _ in range(2))
  placed = jax.device_put(population, jax.NamedSharding(layout.mesh, SHARDED))
  take = jax.jit(lambda p, i: take_rows(p, i, layout))
  for index, got in zip((first, second), take(placed, (first, second)), strict=True):
    expected = jax.NamedSharding(layout.mesh, SHARDED)
    assert got["weights"].sharding.is_equivalent_to(expected, got["weights"].ndim)
    assert_same_bits(got, jax.tree.map(lambda leaf, index=index: leaf[index], population))


@pytest.mark.parametrize(("size", "devices"), [(1, 1), (6, 1), (5, 4), (8, 2)])
def test_some_rows_go_to_every_device(size, devices):
  layout = nets_jax.make_layout(size, devices=devices)
  population = awkward_population(layout)
  placed = jax.device_put(population, jax.NamedSharding(layout.mesh, SHARDED))
  fetch = jax.jit(lambda p, i: fetch_rows(p, i, layout))
  for indices in (np.arange(layout.rows), np.array([size - 1]), np.array([0, size - 1, 0])):
    got = fetch(placed, indices)
    assert got["weights"].sharding.is_fully_replicated
    assert_same_bits(got, jax.tree.map(lambda leaf, indices=indices: leaf[indices], population))
