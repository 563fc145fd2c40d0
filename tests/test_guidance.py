"""Guided dormancy: exact counts, signals that travel with their genes, no trained weight in any genome."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_same_bits, assert_same_results
from hypothesis import given, settings
from hypothesis import strategies as st
from test_checkpoints import in_pieces

import nets_jax
from nets_jax import operators
from nets_jax.changes import change
from nets_jax.evolution import dormancy, saliency
from nets_jax.evolution.context import Context
from nets_jax.evolution.density_schedules import DENSITY_SCHEDULES, ConstantShare
from nets_jax.evolution.dormancy import GuidedDormancy, ScheduledDormancy
from nets_jax.evolution.generation import init, step
from nets_jax.evolution.operators import Crossover
from nets_jax.evolution.ranking import Feasible, Penalised
from nets_jax.evolution.scales import ScaleLayers, scale_layers
from nets_jax.evolution.schedules import Linear
from nets_jax.evolution.selection import Truncation
from nets_jax.tickets.pruning import layer_adaptive
from nets_jax.tickets.ticket import phenotype
from nets_jax.training.train import minibatch_order, train

GUIDED = nets_jax.Nets(
  population_size=5, generations=4, elites=1, selection=Truncation(parents=2), ranking=Feasible(),
  operators=(Crossover(), ScaleLayers(0.0), ScheduledDormancy()),
)  # fmt: skip
MEASURES = [name for name in saliency.SALIENCIES if name != "random"]
KEY = jax.random.key(0)
LAYERS = {"a": (3, 4), "b": (5, 6), "c": (2,)}
TOTAL = 12 + 30 + 2


@pytest.fixture(scope="module")
def task(task):
  return change(task, {"learning_rate": 0.1, "batch_size": 8, "init_scale": 0.3})


def tree(values):
  """44 numbers in three layers, one of them small."""
  ends = np.cumsum([np.prod(shape) for shape in LAYERS.values()])[:-1]
  parts = np.split(np.asarray(values), ends)
  return {
    name: {"kernel": jnp.asarray(p.reshape(s))} for (name, s), p in zip(LAYERS.items(), parts, strict=True)
  }


def flat(masks):
  return np.concatenate([np.asarray(masks[name]["kernel"]).reshape(-1) for name in LAYERS])


def reference_keep(masks, scores, count, regrow, floors):
  """One gene after another, by index where equal."""
  first = []
  start = 0
  for shape, floor in zip(LAYERS.values(), floors, strict=True):
    size = int(np.prod(shape))
    own = [i for i in range(start, start + size) if masks[i]]
    first += sorted(own, key=lambda i: -scores[i])[:floor]
    start += size
  expressed = sorted(
    (i for i in range(TOTAL) if masks[i]), key=lambda i: (i not in first, -scores[i] if i not in first else 0)
  )
  dormant = sorted((i for i in range(TOTAL) if not masks[i]), key=lambda i: -scores[i])
  stay = expressed[: max(0, count - min(regrow, len(dormant)))]
  kept = set(stay) | set(dormant[: count - len(stay)])
  return np.array([i in kept for i in range(TOTAL)])


@settings(max_examples=150, deadline=None)
@given(
  st.lists(st.booleans(), min_size=TOTAL, max_size=TOTAL),
  st.lists(st.sampled_from([0.0, 1e-9, 2e-9, 0.5, 1.0, 3.0, 1e9]), min_size=TOTAL, max_size=TOTAL),
  st.integers(3, TOTAL),
  st.integers(0, 8),
)
def test_keep_has_the_exact_count_and_the_highest(masks, scores, count, regrow):
  regrow = min(regrow, count)
  ticket = nets_jax.Ticket(tree(np.zeros(TOTAL)), tree(masks))
  kept = flat(keep(ticket, tree(np.float32(scores)), count, regrow).masks)
  floors = [
    max(1, round(np.float32(dormancy.LAYER_FLOOR * count) * np.float32(np.prod(s) / TOTAL)))
    for s in LAYERS.values()
  ]
  np.testing.assert_array_equal(kept, reference_keep(masks, np.float32(scores), count, regrow, floors))
  assert kept.sum() == count


@functools.partial(jax.jit, static_argnames="scope")
def keep(ticket, scores, count, regrow, scope="global"):
  return dormancy.SCOPES[scope](ticket, scores, count, regrow)


def test_a_layer_never_dies():
  scores = tree(np.where(np.arange(TOTAL) < 12, 1.0, 0.0).astype(np.float32))
  ticket = nets_jax.Ticket(tree(np.zeros(TOTAL)), tree(np.ones(TOTAL, bool)))
  for count in (3, 5, 12):
    counts = {
      name: int(layer["kernel"].sum()) for name, layer in keep(ticket, scores, count, 0).masks.items()
    }
    assert min(counts.values()) >= 1
    assert counts["a"] == count - 2
  by_layer = keep(ticket, scores, 22, 0, scope="layer").masks
  assert [int(by_layer[name]["kernel"].sum()) for name in LAYERS] == [6, 15, 1]


@pytest.mark.parametrize("schedule", DENSITY_SCHEDULES)
def test_schedules(schedule):
  made = ConstantShare(0.1) if schedule == "constant" else DENSITY_SCHEDULES[schedule]()

  def density(g, first=1.0):
    return float(made(Context(None, 0, g, 20, False, None, 0.1, first, 0.2)))

  found = [density(g) for g in range(21)]
  expected = {
    "geometric": [0.2 ** (g / 20) for g in range(21)],
    "cubic": [0.2 + 0.8 * (1 - g / 20) ** 3 for g in range(21)],
    "constant": [max(0.2, 0.9**g) for g in range(21)],
  }[schedule]
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  assert found[0] == 1
  assert found == sorted(found, reverse=True)
  assert density(20, first=0.1) == pytest.approx(0.1 if schedule == "constant" else 0.2)


@pytest.fixture(scope="module")
def trained(task, data, ticket):
  """A ticket's weights before and after a training, and its minibatches."""
  order = minibatch_order(KEY, len(data.train), 8, 12)
  after = train(KEY, ticket, task, order).weights
  return jax.device_get((phenotype(ticket), after, order))


def lamp_reference(weights):
  """Weight by weight."""
  squares = [float(w) ** 2 for w in np.ravel(weights)]
  found = [own / sum(s for s in squares if s >= own) if own else 0.0 for own in squares]
  return np.reshape(found, np.shape(weights))


def interpolated_reference(w, w_0):
  norm = float(np.sqrt((w**2).sum()))
  r = min(1.0, float(np.sqrt(((w - w_0) ** 2).sum())) / norm)
  return lamp_reference(np.sqrt(np.abs(w * (w - (1 - r) * w_0))))


def test_an_interpolated_saliency_counts_sizes_alone_where_a_layer_has_moved_far():
  """Where it hardly has, one that shrank by r of its size has nothing; one that shrank by far more, much."""
  first = {
    "still": jnp.array([3.0, 2.0, -2.5, 0.5]),
    "shrunk": jnp.full(100, 3.0),
    "moved": jnp.array([0.3, -0.1, 0.2, 0.05]),
  }
  shrunk = jnp.full(100, 3.01).at[0].set(2.9)
  after = {
    "still": jnp.array([2.99, 2.01, -2.49, 0.5]),
    "shrunk": shrunk,
    "moved": jnp.array([2.0, 3.0, -4.0, 1.0]),
  }
  found = saliency.interpolated(saliency.SeenTraining(first, after, dict))
  np.testing.assert_array_equal(np.argsort(found["moved"]), [3, 0, 1, 2])
  np.testing.assert_array_equal(np.argsort(found["still"]), [2, 3, 0, 1])
  assert np.argmax(found["shrunk"]) == 0


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e25])
def test_no_scale_of_a_layer_changes_an_interpolated_saliency(scale):
  key, other = jax.random.split(KEY)
  first = jax.random.normal(key, (4, 5))
  after = first + 0.3 * jax.random.normal(other, (4, 5))
  found, scaled = (
    saliency.interpolated(saliency.SeenTraining({"a": s * first}, {"a": s * after}, dict))["a"]
    for s in (1.0, scale)
  )
  np.testing.assert_allclose(scaled, found, rtol=1e-4)
  np.testing.assert_allclose(found, interpolated_reference(np.asarray(after), np.asarray(first)), rtol=1e-4)


def test_an_interpolated_saliency_beside_what_is_no_number():
  first, after = jnp.array([1.0, 2.0, 0.5]), jnp.array([1.5, jnp.nan, 0.2])
  found = saliency.interpolated(
    saliency.SeenTraining({"a": first, "b": first * 0}, {"a": after, "b": first * 0}, dict)
  )
  others = interpolated_reference(np.array([1.5, 0.2]), np.array([1.0, 0.5]))
  np.testing.assert_allclose(found["a"], [others[0], 0, others[1]], rtol=1e-4)
  np.testing.assert_array_equal(found["b"], 0)


@settings(max_examples=60, deadline=None)
@given(
  st.lists(st.sampled_from([0.0, 1e-3, -1e-3, 0.5, -0.75, 1.0, 3.0]), min_size=1, max_size=12),
  st.sampled_from([1e-30, 1.0, 1e30]),
)
def test_lamp_scores(values, scale):
  """As the equation has them, whatever the scale, though 1e-30 and 1e30 have no squares in float32."""
  found = np.asarray(layer_adaptive({"a": jnp.asarray(values, jnp.float32) * scale, "b": None})["a"])
  np.testing.assert_allclose(found, lamp_reference(values), rtol=1e-5)
  if any(values):
    assert found.max() == pytest.approx(1 / sorted(map(abs, values)).count(max(map(abs, values))))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_scores_of_short_types_are_in_float32(dtype):
  """Whose squares would be 0 in them."""
  after, first = (jnp.array(x, dtype) for x in ([1e-3, -2e-3, 4e-3], [1e-3, -1e-3, 3e-3]))
  w, w_0 = (np.asarray(x, np.float64) for x in (after, first))
  seen = saliency.SeenTraining({"a": first}, {"a": after}, lambda: {"a": jnp.full(3, 1e-7, dtype)})
  shown = float(jnp.array(1e-7, dtype)) * np.abs(w).sum() / (w * (w - w_0)).sum()
  for measure, known in (
    (saliency.lamp, lamp_reference(w)),
    (saliency.interpolated, interpolated_reference(w, w_0)),
    (saliency.product, np.sqrt(w * (w - w_0) * interpolated_reference(w, w_0) * shown)),
  ):
    found = measure(seen)["a"]
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, known, rtol=1e-4)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_lamp_scores_beside_what_is_no_number(wrong):
  found = layer_adaptive({"a": jnp.array([1.0, wrong, 2.0])})["a"]
  np.testing.assert_allclose(found, [0.2, 0.0, 1.0], rtol=1e-6)


@pytest.mark.parametrize("regrowth", [False, True])
@pytest.mark.parametrize("name", MEASURES)
def test_saliencies(task, network, data, ticket, trained, name, regrowth):
  before, after, order = trained
  found = saliency.saliency(saliency.SALIENCIES[name], ticket, after, task, order, regrowth)
  rows = order[-saliency.GRADIENT_BATCHES :].reshape(-1)

  def loss(weights):
    logits = network.apply({"params": weights}, data.train.inputs[rows])
    return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(len(rows)), data.train.labels[rows]])

  gradient = jax.grad(loss)(after)
  for layer, mask in ticket.masks.items():
    w_0, w, g, m = (np.asarray(t[layer]["kernel"]) for t in (before, after, gradient, ticket.masks))
    moved = w * (w - w_0)
    expected = {
      "taylor": moved,
      "movement": w - w_0,
      "magnitude": w,
      "lamp": lamp_reference(w),
      "interpolated": interpolated_reference(w, w_0),
      "gradient": g * w,
      "balanced": moved * np.abs(g * w).sum() / np.abs(moved).sum(),
    }
    expected["product"] = np.sqrt(np.abs(expected["balanced"] * expected["interpolated"]))
    expected = expected[name]
    expected = np.where(m, np.abs(expected), np.abs(g) if regrowth else 0)
    np.testing.assert_allclose(found[layer]["kernel"], expected, rtol=1e-3, atol=1e-7)
    assert found[layer]["bias"] is None
    assert mask["bias"] is None


def test_no_scale_of_a_layer_changes_its_share_of_a_balanced_saliency():
  """By Adam, where each weight moves by a rate, whatever its size; relu passes scales on."""
  data = nets_jax.load_data("xor", xor_train_size=100, xor_test_size=20)
  network = nets_jax.MLP((8, 6), 2)
  adam = nets_jax.Training("adam", learning_rate=1e-4, batch_size=10)
  task = nets_jax.Task(network, data, adam)
  ticket = nets_jax.random_ticket(0, network, data.input_shape, 1.0)
  names = list(ticket.masks)
  scales = dict(zip(names, (100.0, 0.1, 0.1), strict=True))
  scaled = ticket.replace(
    weights={n: {**w, "kernel": w["kernel"] * scales[n]} for n, w in ticket.weights.items()}
  )
  order = minibatch_order(KEY, len(data.train), 10, 12)

  def shares(measure, genome):
    after = train(KEY, genome, task, order).weights
    found = saliency.saliency(measure, genome, after, task, order, True)
    totals = np.array([float(found[name]["kernel"].sum()) for name in names])
    return totals / totals.sum()

  np.testing.assert_allclose(shares(saliency.balanced, scaled), shares(saliency.balanced, ticket), rtol=0.2)
  assert shares(saliency.taylor, scaled)[0] > 0.95 > 2 * shares(saliency.taylor, ticket)[0]


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_a_balanced_saliency_with_a_gene_that_is_no_number_and_small_gradients(dtype):
  """One gene is lost, not its layer; and no product is too small for its type."""
  first = {"a": jnp.ones(4, dtype), "b": jnp.ones(3, dtype)}
  after = {"a": jnp.array([1.1, 1.2, jnp.inf, 1.3], dtype), "b": jnp.array([1.5, 2.0, 1.25], dtype)}
  slopes = {"a": jnp.full(4, 1e-7, dtype), "b": jnp.full(3, 1e-7, dtype)}
  found = saliency.balanced(saliency.SeenTraining(first, after, lambda: slopes))
  assert np.isfinite(np.asarray(found["a"])[[0, 1, 3]]).all()
  for name, own in ((n, np.array([i for i, w in enumerate(after[n]) if np.isfinite(w)])) for n in after):
    w, g = (np.asarray(tree[name], np.float64)[own] for tree in (after, slopes))
    s = w * (w - 1)
    np.testing.assert_allclose(np.asarray(found[name])[own], s * (g * w).sum() / s.sum(), rtol=1e-3)


def test_a_product_of_saliencies_where_numbers_are_small_missing_or_none():
  """Where the product itself is 0 in float32, the mean is not; a layer without a gradient has none."""
  first = {"a": jnp.array([1.0, -2.0, 3e-6, 0.5]), "b": jnp.ones(2)}
  after = {"a": jnp.array([1.5, -2.5, 4e-6, jnp.inf]), "b": jnp.array([1.5, 3.0])}
  slopes = {"a": jnp.full(4, 1e-20), "b": jnp.zeros(2)}
  found = saliency.product(saliency.SeenTraining(first, after, lambda: slopes))
  w, w_0 = (np.asarray(tree["a"], np.float64)[:3] for tree in (after, first))
  moved = w * (w - w_0)
  balanced = moved * np.abs(1e-20 * w).sum() / np.abs(moved).sum()
  lowest = np.float32(balanced.min()) * np.float32(interpolated_reference(w, w_0).min())
  assert lowest < np.finfo(np.float32).tiny
  known = np.sqrt(balanced * interpolated_reference(w, w_0))
  np.testing.assert_allclose(np.asarray(found["a"])[:3], known, rtol=1e-3)
  assert not np.isfinite(found["a"][3])
  np.testing.assert_array_equal(found["b"], 0)


def test_a_layer_that_has_not_moved_has_no_saliency():
  still = {"a": jnp.ones((2, 3)), "b": jnp.full((3,), 2.0)}
  moved = {**still, "b": jnp.array([2.0, 3.0, 2.5])}
  seen = saliency.SeenTraining(still, moved, lambda: jax.tree.map(jnp.ones_like, still))
  found = saliency.balanced(seen)
  np.testing.assert_array_equal(found["a"], 0)
  s = np.array([0.0, 3.0, 1.25])
  np.testing.assert_allclose(found["b"], s * 7.5 / s.sum(), rtol=1e-6)


def test_a_gradient_in_parts_is_that_of_the_whole(task, ticket, trained):
  _, after, order = trained
  parts = task.replace(training=task.training.replace(batch_size=8, accumulate=4))
  whole, found = (saliency.saliency(saliency.gradient, ticket, after, t, order, True) for t in (task, parts))
  for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(whole), strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-7)


def test_a_score_that_is_no_number_is_the_lowest(task, ticket, trained):
  _, after, order = trained
  after = jax.tree.map(lambda w: np.where(w > 0, np.nan, w), after)
  scores = saliency.saliency(saliency.taylor, ticket, after, task, order, False)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(scores))


def test_the_signal_travels_with_its_gene(network, data):
  parents = [nets_jax.random_ticket(jax.random.key(i), network, data.input_shape, 0.5) for i in range(2)]
  parents = [
    p.replace(scores=jax.tree.map(lambda m, i=i: jnp.full(m.shape, 1.0 + i), p.masks))
    for i, p in enumerate(parents)
  ]
  child = operators.crossover(KEY, *parents, 0.3)
  for layer, scores in child.scores.items():
    first = np.asarray(scores["kernel"]) == 1
    assert 0 < first.mean() < 0.6
    for part in ("weights", "masks"):
      got, *own = (np.asarray(getattr(t, part)[layer]["kernel"]) for t in (child, *parents))
      np.testing.assert_array_equal(got, np.where(first, *own))


def populations(task, search, steps):
  """The genomes of each generation, as NumPy arrays without padding."""
  layout = nets_jax.make_layout(search.population_size)
  state = init(KEY, task, search, layout)
  found = []
  for _ in range(steps):
    found.append(
      jax.tree.map(lambda x: np.asarray(x)[: search.population_size], jax.device_get(state.population))
    )
    state, _ = step(state, task, search, layout)
  return found, jax.device_get(state)


def row(population, index):
  return jax.tree.map(lambda leaf: leaf[index], population)


def test_trained_weights_never_enter_a_genome(task):
  """Without noise every weight of every generation is that of some genome of generation 0, at its place."""
  generations, state = populations(task, GUIDED, 4)
  for population in generations[1:]:
    for layer, weights in population.weights.items():
      initial = generations[0].weights[layer]["kernel"]
      assert (weights["kernel"][:, None] == initial[None]).any(axis=1).all()
      assert not weights["bias"].any()
  assert not all((s == 0).all() for s in jax.tree.leaves(generations[-1].scores))
  assert state.best.scores is None


def test_a_population_of_one_is_a_ticket_pruned_again_and_again(task):
  generations, state = populations(task, GUIDED.change(population_size=1, elites=0, parents=1), 5)
  total = 6 * 8 + 8 * 5 + 5 * 3
  before = generations[0]
  for generation, genome in enumerate(generations):
    assert_same_bits(genome.weights, generations[0].weights)
    now, last = (np.concatenate([m.ravel() for m in jax.tree.leaves(g.masks)]) for g in (genome, before))
    assert (now <= last).all()
    assert now.sum() == round(total * 0.2 ** (generation / 4))
    before = genome
  np.testing.assert_array_equal(state.parents, [[0, 0]])
  assert_same_bits(state.best.masks, jax.tree.map(lambda m: m[0], generations[-1].masks))


@pytest.mark.parametrize(
  ("measure", "schedule", "scope"),
  [("taylor", "geometric", "global"), ("taylor", "cubic", "layer"), ("random", "geometric", "global")],
)
def test_every_generation_has_its_count(task, measure, schedule, scope):
  search = GUIDED.change(saliency=measure, density_schedule=schedule, dormancy_scope=scope)
  result = nets_jax.search(KEY, task, search)
  total = sum(mask.size for mask in jax.tree.leaves(result.ticket.masks))
  for row in result.history:
    x = row["generation"] / search.generations
    share = 0.2**x if schedule == "geometric" else 0.2 + 0.8 * (1 - x) ** 3
    slack = 0 if scope == "global" else 2  # each layer rounds for itself
    assert abs(round(row["density"] * total) - round(np.float32(share) * total)) <= slack
  last = [row for row in result.history if row["generation"] == search.generations]
  assert round(float(nets_jax.density(result.ticket)) * total) == round(last[0]["density"] * total)
  assert result.ticket.scores is None
  assert min(row["fitness"] for row in result.history) == min(row["fitness"] for row in last)


def test_without_a_schedule_a_child_loses_the_rate(task):
  search = GUIDED.replace(operators=(Crossover(1.0), GuidedDormancy(0.25)), ranking=Penalised(), elites=0)
  history = nets_jax.search(KEY, task, search).history
  total = 6 * 8 + 8 * 5 + 5 * 3
  counts = {row["generation"]: set() for row in history}
  for row in history:
    counts[row["generation"]].add(round(row["density"] * total))
  expected = [total]
  for _ in range(search.generations):
    expected.append(round(np.float32(expected[-1]) * np.float32(0.75)))
  assert [found == {want} for found, want in zip(counts.values(), expected, strict=True)] == [True] * 5


def test_regrowth_brings_dormant_genes_back(task):
  search = GUIDED.change(
    initial_density=0.5, target_density=0.5, regrowth_rate=0.2, crossover_rate=1.0, elites=0
  )
  generations, _ = populations(task, search, 3)
  ever = jax.tree.map(lambda mask: mask.any(axis=0), generations[0].masks)
  later = generations[2].masks
  regrown = sum(
    int((mask & ~was).sum()) for mask, was in zip(jax.tree.leaves(later), jax.tree.leaves(ever), strict=True)
  )
  assert regrown > 0
  rising = search.change(initial_density=0.2, target_density=0.6)
  history = nets_jax.search(KEY, task, rising).history
  assert history[-1]["density"] == pytest.approx(0.6, abs=0.01)


def test_layers_are_scaled_whole(ticket):
  same = scale_layers(KEY, ticket, 0.0)
  assert_same_bits(same, ticket)
  factors = []
  for i in range(200):
    scaled = jax.jit(scale_layers)(jax.random.key(i), ticket, 0.5)
    assert_same_bits(scaled.masks, ticket.masks)
    own = []
    for layer, weights in scaled.weights.items():
      ratio = np.asarray(weights["kernel"]) / np.asarray(ticket.weights[layer]["kernel"])
      np.testing.assert_allclose(ratio, ratio.flat[0], rtol=1e-5)
      np.testing.assert_array_equal(weights["bias"], ticket.weights[layer]["bias"])
      own.append(np.log(ratio.flat[0]))
    factors.append(own)
  np.testing.assert_allclose(np.std(factors, axis=0), 0.5, atol=0.1)
  assert abs(np.corrcoef(np.transpose(factors))[0, 1]) < 0.25


def test_the_first_genomes_layers_are_scaled_too(task):
  layout = nets_jax.make_layout(GUIDED.population_size)
  plain, scaled = (init(KEY, task, GUIDED.change(scale_deviation=d), layout).population for d in (0.0, 0.7))
  logs = []
  for layer, weights in scaled.weights.items():
    ratio = np.asarray(weights["kernel"])[:5] / np.asarray(plain.weights[layer]["kernel"])[:5]
    ratio = ratio.reshape(5, -1)
    np.testing.assert_allclose(ratio, np.repeat(ratio[:, :1], ratio.shape[1], axis=1), rtol=1e-5)
    logs.append(np.log(ratio[:, 0]))
  logs = np.array(logs)
  assert len(np.unique(np.round(logs, 4))) == 15
  assert 0.3 < np.std(logs) < 1.2
  # Two by two the other way; the fifth is alone.
  np.testing.assert_allclose(logs[:, [1, 3]], -logs[:, [0, 2]], atol=1e-4)
  assert (np.abs(logs[:, 4:] + logs[:, :4]) > 1e-3).all()


def test_children_two_by_two_take_opposite_steps(task):
  """All children of one parent, with nothing else to change its weights."""
  search = GUIDED.replace(operators=(Crossover(1.0), ScaleLayers(0.7)), ranking=Penalised(), elites=0)
  search = search.change(parents=1)
  layout = nets_jax.make_layout(search.population_size)
  state = init(KEY, task, search, layout)
  after, metrics = step(state, task, search, layout)
  best = int(np.argmin(metrics.fitness))
  logs = []
  for layer, weights in after.population.weights.items():
    ratio = np.asarray(weights["kernel"])[:5] / np.asarray(state.population.weights[layer]["kernel"])[best]
    logs.append(np.log(ratio.reshape(5, -1)[:, 0]))
  logs = np.array(logs)
  np.testing.assert_allclose(logs[:, [1, 3]], -logs[:, [0, 2]], atol=1e-4)
  assert np.abs(logs).min() > 1e-4


def test_a_line_keeps_its_scales_and_is_nobody_elses_child(task):
  """The first genome that is no elite; the others are scaled as ever."""
  plain = GUIDED.change(scale_deviation=0.7, elites=2)
  kept = plain.change(unscaled_line=True)
  (first, *bred), state = populations(task, kept, 3)
  layout = nets_jax.make_layout(5)
  unscaled, scaled = (
    jax.device_get(init(KEY, task, search, layout).population)
    for search in (kept.change(scale_deviation=0.0), plain)
  )
  assert_same_bits(row(first, 2), row(unscaled, 2))
  for index in (0, 1, 3, 4):
    assert_same_bits(row(first, index), row(scaled, index))
  for population in bred:
    assert_same_bits(row(population, 2).weights, row(first, 2).weights)
  assert state.parents[2].tolist() == [2, 2]


@pytest.mark.parametrize("schedule", ["cubic", "geometric"])
@pytest.mark.parametrize("counted", [0, 7, 1000])
def test_a_schedule_goes_by_generations_or_by_the_iterations_of_their_trainings(task, schedule, counted):
  """Against NumPy, in a search that halves; where it does not, all trainings are alike."""
  search = GUIDED.change(
    population_size=4, generations=7, halvings=2, fitness_epochs=0.5, target_density=0.25,
    density_schedule=schedule, counted_iterations=counted,
  )  # fmt: skip
  history = nets_jax.search(KEY, task, search).history
  found = [next(row["density"] for row in history if row["generation"] == g) for g in range(8)]
  stages = np.array([0, 0, 0, 1, 1, 1, 2, 2])
  iterations = np.maximum(1, np.round(0.5 * 2.0**stages * task.steps_per_epoch))
  each = np.minimum(iterations, counted) if counted else np.ones(8)
  x = np.concatenate([[0], np.cumsum(each[:-1])]) / each[:-1].sum()
  expected = 0.25 + 0.75 * (1 - x) ** 3 if schedule == "cubic" else 0.25**x
  np.testing.assert_allclose(found, expected, atol=0.01)
  if counted == 7:
    assert len(set(each)) > 1
    alone, plain = (
      nets_jax.search(KEY, task, search.change(halvings=0, counted_iterations=n)) for n in (counted, 0)
    )
    assert_same_bits(alone.ticket, plain.ticket)


def test_each_run_has_its_own_line(task):
  """Side by side, with other elites each, and kept by an operator of one's own."""
  search = GUIDED.replace(operators=(Crossover(), ScaleLayers(0.7), ScheduledDormancy(), Keeper()))
  searches = [search.change(elites=elites) for elites in (1, 3)]
  keys = jax.random.split(KEY, 2)
  together = nets_jax.search_all(keys, task, searches)
  assert_same_results(together, [nets_jax.search(k, task, s) for k, s in zip(keys, searches, strict=True)])
  for result, elites in zip(together, (1, 3), strict=True):
    parents = {(r["parent_1"], r["parent_2"]) for r in result.history[5:] if r["genome"] == elites}
    assert parents == {(elites, elites)}


@nets_jax.dataclass
class Keeper(nets_jax.operators.Operator):
  keeps_line = True

  def __call__(self, key, child, context):
    return child


@pytest.mark.parametrize("halvings", [0, 2])
def test_a_line_wins_where_all_scales_else_are_beyond_use(task, halvings):
  """So the winner has the weights of generation 0, and whoever is chosen of several has them too."""
  search = GUIDED.change(
    population_size=8, generations=5, halvings=halvings, scale_deviation=30.0, unscaled_line=True,
    target_density=0.5, crossover_rate=1.0,
  )  # fmt: skip
  found = nets_jax.search(KEY, task, search).ticket
  first = init(KEY, task, search, nets_jax.make_layout(8)).population
  assert_same_bits(found.weights, row(first, 1).weights)


def test_truncation_to_some_parents():
  fitness = jnp.array([3.0, 1.0, jnp.inf, 2.0, 4.0])
  draw = jax.vmap(lambda key: Truncation(2)(key, fitness))
  assert set(np.asarray(draw(jax.random.split(KEY, 200)))) == {1, 3}


def test_feasible_comes_first():
  def fitness(density, loss):
    return float(Feasible(0.2).fitness(jnp.float32(loss), jnp.float32(density), True))

  assert fitness(0.2, 5.0) == 5.0
  assert fitness(0.1, 2.0) == 2.0
  assert fitness(0.20001, 1.0) == 1.0
  assert fitness(0.2, 1e9) <= fitness(0.21, 0.1) < fitness(0.3, 0.0) < fitness(1.0, 0.0)
  assert fitness(0.3, 0.1) < fitness(0.3, 0.2)


def test_the_nearest_count_of_a_small_network_is_feasible(data):
  """100 weights of which 0.205 are kept keep 20 or 21, and both are as near."""
  rule = Feasible(0.205)
  counted = [float(rule.counted(jnp.float32(kept / 100), 100)) for kept in (19, 20, 21, 22)]
  assert counted == pytest.approx([0.19, 0.205, 0.205, 0.22])
  network = nets_jax.MLP((5,), data.num_classes)  # 45 weights, of which 0.35 are 15.75
  task = nets_jax.Task(network, data, nets_jax.Training(batch_size=12))
  found = nets_jax.search(
    0, task, nets_jax.recipes.guided(population_size=3, generations=2, target_density=0.35)
  )
  assert float(nets_jax.density(found.ticket)) == pytest.approx(16 / 45)
  assert found.best["fitness"] == found.best["valid_loss"]


@pytest.mark.devices
@pytest.mark.parametrize("unscaled_line", [False, True])
def test_the_same_bits_on_any_devices_alone_or_not_resumed_or_not(tmp_path, task, unscaled_line):
  plain = GUIDED.change(regrowth_rate=0.1, unscaled_line=unscaled_line)
  searches = [
    plain.change(scale_deviation=Linear(0.6, 0.1)),
    plain.change(scale_deviation=Linear(0.1, 0.0), target_density=0.4, parents=3, generations=3, elites=2),
  ]
  keys = jax.random.split(KEY, 2)

  def run(saved, devices=4):
    return nets_jax.search_all(keys, task, searches, devices=devices, checkpoints=saved)

  whole = run(None)
  assert_same_results(run(None, 1), whole)
  assert_same_results([nets_jax.search(k, task, s) for k, s in zip(keys, searches, strict=True)], whole)
  assert_same_results(in_pieces(run, tmp_path, 3)[0], whole)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"dormancy": "blind"}, "Nets has no setting 'dormancy'"),
    (
      {"saliency": "luck"},
      "saliency must be one of taylor, .*, gradient, random, not 'luck'",
    ),
    ({"saliency": "random", "ranking": "none"}, "the ranking's target, but this ranking has none"),
    ({"ranking": "own"}, "ranking must be one of penalty, feasible, pareto, none, not 'own'"),
    ({"density_schedule": "steep"}, "density_schedule must be one of geometric, cubic, constant"),
    ({"dormancy_scope": "row"}, "dormancy_scope must be one of global, layer"),
    ({"parents": 6}, "parents must be from 0 to population_size = 5, not 6"),
    ({"regrowth_rate": 1.5}, r"regrowth_rate must be in \[0, 1\], not 1.5"),
    ({"counted_iterations": -1}, "counted_iterations must be at least 0, not -1"),
    ({"scale_deviation": -1.0}, "scale_deviation must be at least 0, not -1.0"),
    ({"unscaled_line": True, "elites": 0}, "at least 3, elites from 1 to population_size - 2,"),
    ({"unscaled_line": True, "elites": 4}, "at least 3, elites from 1 to population_size - 2,"),
    ({"unscaled_line": True, "population_size": 2}, "a population_size of at least 3"),
    ({"unscaled_line": True, "retain_weights": True}, "and no retain_weights"),
  ],
)
def test_impossible_settings(task, changes, message):
  with pytest.raises(nets_jax.UsageError, match=message):
    GUIDED.change(**changes).check(task)
