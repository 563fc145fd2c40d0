"""Calls that people make: each works, or ends in one line that says what to give."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import assert_same_bits, assert_same_results, without_seconds
from flax import nnx

import nets_jax
from nets_jax import recipes
from nets_jax.baselines.one_shot import Snip
from nets_jax.baselines.random_tickets import Dense, Random
from nets_jax.evolution import ranking, schedules, selection
from nets_jax.evolution.generation import init, step
from nets_jax.networks.initialisation import Normal
from nets_jax.studies.methods import Method
from nets_jax.training.optimizers import make_optimizer, optimizer_names

KEY = jax.random.key(7)
SEARCH = recipes.guided(population_size=3, generations=1)


class Stack(nn.Module):
  """A module of one's own with a list among its fields, which Python cannot hash."""

  sizes: list

  @nn.compact
  def __call__(self, x):
    for size in self.sizes:
      x = nn.relu(nn.Dense(size)(x))
    return nn.Dense(3)(x)


def test_one_ticket_is_a_population_of_one(task, ticket):
  alone = nets_jax.train_tickets(KEY, ticket, task, epochs=1)
  stacked = nets_jax.train_tickets(KEY, nets_jax.stack([ticket]), task, epochs=1)
  listed = nets_jax.train_tickets(KEY, [ticket], task, epochs=1)
  assert without_seconds(alone.curves) == without_seconds(stacked.curves) == without_seconds(listed.curves)
  assert_same_bits(alone.weights, stacked.weights)


def test_arguments_in_another_order_are_one_line(task, ticket):
  with pytest.raises(nets_jax.UsageError, match="the order of arguments is keys, tickets, task"):
    nets_jax.train_tickets(0, task, ticket, epochs=1)
  with pytest.raises(nets_jax.UsageError, match="task must be a Task, or one for each ticket"):
    nets_jax.train_tickets(0, ticket, ticket, epochs=1)
  for wrong in ([task], [], None):
    with pytest.raises(nets_jax.UsageError, match="tickets must be a Ticket, or several"):
      nets_jax.train_tickets(0, wrong, task, epochs=1)
  with pytest.raises(nets_jax.UsageError, match="task must be a Task, or one for each ticket"):
    nets_jax.train_tickets(0, ticket, [], epochs=1)


def test_a_seed_is_the_key_of_it(task, ticket):
  assert_same_results([nets_jax.search(7, task, SEARCH)], [nets_jax.search(KEY, task, SEARCH)])
  assert_same_results(nets_jax.search_all([7], task, SEARCH), [nets_jax.search(KEY, task, SEARCH)])
  old_style = nets_jax.search(jax.random.PRNGKey(7), task, SEARCH)
  assert_same_results([old_style], [nets_jax.search(KEY, task, SEARCH)])
  one, other = (nets_jax.train_tickets(key, ticket, task, epochs=1).weights for key in (7, KEY))
  assert_same_bits(one, other)
  assert_same_bits(
    nets_jax.random_ticket(7, task.network, (6,), 0.5), nets_jax.random_ticket(KEY, task.network, (6,), 0.5)
  )


@pytest.mark.parametrize("key", [1.5, -1, "a", jnp.zeros(3)], ids=["fraction", "negative", "word", "array"])
def test_what_is_no_key_is_one_line(task, key):
  with pytest.raises(nets_jax.UsageError, match=r"must be a whole number|a key is jax\.random\.key"):
    nets_jax.search(key, task, SEARCH)


@pytest.mark.parametrize("name", optimizer_names())
def test_every_optimiser_of_optax_that_takes_a_rate_alone_works_by_name(name):
  weights = {"kernel": jnp.ones((2, 3))}

  def step(weights):
    optimizer = make_optimizer(name, 0.1)
    updates, _ = optimizer.update(weights, optimizer.init(weights), weights)
    return optax.apply_updates(weights, updates)

  assert jax.eval_shape(step, weights)["kernel"].shape == (2, 3)


def test_an_optimiser_is_a_name_a_function_or_an_object(task, ticket):
  found = [
    nets_jax.train_tickets(KEY, ticket, task.replace(training=training), epochs=1).weights
    for training in (
      nets_jax.Training("adamw", 0.01, 12),
      nets_jax.Training(optax.adamw, 0.01, 12),
      nets_jax.Training(optax.adamw(jnp.float32(0.01)), batch_size=12),
    )
  ]
  for other in found[1:]:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found[0], other)


def test_a_learning_rate_may_be_a_function_of_the_iteration(task, ticket):
  scheduled = nets_jax.Training("sgd", optax.piecewise_constant_schedule(0.2, {4: 0.0}), 12)
  at_once = nets_jax.Training("sgd", 0.2, 12)
  one = nets_jax.train_tickets(KEY, ticket, task.replace(training=scheduled), epochs=1).weights
  other = nets_jax.train_tickets(KEY, ticket, task.replace(training=at_once), steps=4).weights
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), one, other)
  result = nets_jax.search(KEY, task.replace(training=scheduled), SEARCH)
  assert np.isfinite(result.best["valid_loss"])


def test_a_module_with_a_list_is_the_one_with_a_tuple(task):
  listed, tupled = (task.replace(network=Stack(sizes)) for sizes in ([8, 4], (8, 4)))
  for search in (SEARCH, Snip(score_batch=20), Random()):
    assert_same_results([nets_jax.search(KEY, listed, search)], [nets_jax.search(KEY, tupled, search)])


class OfNnx(nnx.Module):
  def __init__(self):
    self.layer = nnx.Linear(6, 3, rngs=nnx.Rngs(0))

  def __call__(self, x):
    return self.layer(x)


@pytest.mark.parametrize(
  ("module", "message"),
  [
    (OfNnx(), r"network must be made anew for each key; give nets_jax\.from_nnx\(lambda rngs: OfNnx"),
    (nets_jax.MLP, r"network must be a module, not its class; give MLP\(\.\.\.\)"),
    (lambda x: x, "network must be a flax.linen module, not function"),
  ],
)
def test_what_is_no_linen_module_is_one_line(task, ticket, module, message):
  other = nets_jax.Task(module, task.data, task.training)
  for run in (
    lambda: nets_jax.search(KEY, other, SEARCH),
    lambda: nets_jax.search(KEY, other, nets_jax.Imp()),
    lambda: nets_jax.train_tickets(KEY, ticket, other),
    lambda: nets_jax.judge_ticket([KEY], ticket, other),
  ):
    with pytest.raises(nets_jax.UsageError, match=message):
      run()


@pytest.mark.parametrize("number", [1.0, 3, np.float64(2.0)])
def test_an_objective_may_give_any_number(task, number):
  search = recipes.paper(population_size=3, generations=1, ranking="none").replace(objective=lambda c: number)
  assert nets_jax.search(KEY, task, search).best["fitness"] == float(number)


@pytest.mark.parametrize(
  ("value", "what"),
  [
    (jnp.ones(3), r"float32\[3\]; take its mean"),
    (jnp.bool_(True), r"bool\[\]"),
    (None, "a NoneType"),
    ("a", "a str"),
    ({"a": 1.0}, "a dict"),
  ],
)
def test_an_objective_that_gives_no_number_is_one_line(task, value, what):
  search = SEARCH.replace(objective=lambda candidate: value)
  with pytest.raises(
    nets_jax.UsageError, match=f"an objective must give one number for a genome, not {what}"
  ):
    nets_jax.search(KEY, task, search)


def weights_alone(key, child, context):
  return child.weights


def half_a_mask(key, child, context):
  return child.replace(masks=jax.tree.map(lambda mask: mask[:1], child.masks))


def other_leaves(key, child, context):
  return child.replace(weights={"a": "x"})


def half_precision(key, child, context):
  return child.replace(weights=jax.tree.map(lambda leaf: leaf.astype(jnp.float16), child.weights))


@pytest.mark.parametrize(
  ("operator", "message"),
  [
    (weights_alone, "the operator weights_alone gave a dict; it must give a ticket"),
    (half_a_mask, "the operator half_a_mask gave a ticket of another network"),
    (other_leaves, "the operator other_leaves gave a ticket of another network"),
    (half_precision, "the operator half_precision gave a ticket of another network"),
    ("crossover", "an operator is a function .* not 'crossover'"),
  ],
)
def test_an_operator_that_gives_no_ticket_is_one_line(task, operator, message):
  search = nets_jax.Nets(population_size=3, operators=(nets_jax.operators.Crossover(), operator))
  with pytest.raises(nets_jax.UsageError, match=message):
    nets_jax.search(KEY, task, search)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"training": nets_jax.Training(batch_size=87)}, "batch_size must be from 1 to the 86 training examples"),
    ({"training": nets_jax.Training("adamv")}, "optimizer must be one of .*did you mean adam"),
    ({"training": nets_jax.Training(lambda rate: rate)}, "to an optax transformation, but gave a float"),
    (
      {"training": nets_jax.Training(optax.sgd(0.1), 0.2)},
      "a learning rate of its own; leave learning_rate out",
    ),
    ({"training": nets_jax.Training(learning_rate=0.0)}, "learning_rate must be positive, not 0.0"),
    ({"epochs": 0}, "epochs must be at least 1, not 0"),
    ({"eval_every": 0}, "eval_every must be at least 1, not 0"),
    (
      {"initialiser": Normal((0.1, 0.2))},
      "init_scale must be one number, or one for each .* 3 layers",
    ),
    ({"precision": "bfloat8"}, "precision must be one of float32, tensorfloat32, bfloat16, not 'bfloat8'"),
  ],
)
def test_a_task_that_cannot_be_trained_for_is_one_line(task, ticket, changes, message):
  with pytest.raises(nets_jax.UsageError, match=message):
    nets_jax.train_tickets(KEY, ticket, task.replace(**changes))


def test_a_fraction_is_no_count(task):
  with pytest.raises(nets_jax.UsageError, match=r"population_size must be a whole number, not 2\.5"):
    nets_jax.search(KEY, task, SEARCH.change(population_size=2.5))
  with pytest.raises(nets_jax.UsageError, match=r"batch_size must be a whole number, not 12\.5"):
    nets_jax.search(KEY, task.replace(training=nets_jax.Training(batch_size=12.5)), SEARCH)


def test_other_arguments_than_a_search_takes_are_told(task, network, data):
  with pytest.raises(nets_jax.UsageError, match=r"a search takes \(key, task, search\): .*, not MLP"):
    nets_jax.search(KEY, network, data)
  for search in (SEARCH, nets_jax.Imp(), Snip(), Random(), Dense()):
    with pytest.raises(TypeError, match="frontier_sise"):
      nets_jax.search(KEY, task, search, frontier_sise=3)
  with pytest.raises(nets_jax.UsageError, match="2 keys ask for as many tasks and searches"):
    nets_jax.search_all([1, 2], task, [SEARCH])
  with pytest.raises(nets_jax.UsageError, match="runs of Snip side by side must have the same settings"):
    nets_jax.search_all([1, 2], task, [Snip(share, score_batch=20) for share in (0.1, 0.2)])
  with pytest.raises(nets_jax.UsageError, match="runs of Snip side by side must have the same settings"):
    nets_jax.search_all([1, 2], [task, task.replace(initialiser=0.2)], Snip(score_batch=20))


@pytest.mark.parametrize("search", [Snip(0.3, score_batch=20), Random(0.3, density_deviation=0.0), Dense()])
def test_runs_that_differ_in_a_rate_go_side_by_side_where_a_search_does_not_look_at_it(task, search):
  tasks = [task.replace(training=nets_jax.Training(learning_rate=rate)) for rate in (0.01, 0.3)]
  methods = [Method({"rate": i}, search, own) for i, own in enumerate(tasks)]
  assert methods[0].program == methods[1].program
  assert methods[0].hash != methods[1].hash
  assert Method({}, search, task.replace(initialiser=0.2)).program != methods[0].program
  both = nets_jax.search_all([1, 2], tasks, search)
  for i, found in enumerate(both):
    jax.tree.map(np.testing.assert_array_equal, found.ticket, nets_jax.search(i + 1, tasks[i], search).ticket)


def test_a_network_without_precision_trains_in_float32_alone(task):
  own = task.replace(network=Stack((4,)))
  with pytest.raises(
    nets_jax.UsageError, match="Stack has no field `precision`, so it trains in float32, not bf"
  ):
    nets_jax.search(KEY, own, SEARCH.change(precision="bfloat16"))


@pytest.mark.parametrize(
  ("search", "message"),
  [
    (recipes.paper(population_size=5.0), "population_size must be a whole number, not 5.0"),
    (recipes.paper(population_size=None), "population_size must be at least 1, not None"),
    (recipes.paper(noise_rate=None), r"noise_rate must be in \[0, 1\], not None"),
    (recipes.paper(noise_rate=schedules.Geometric(0.0, 0.1)), "geometric schedule begins and ends"),
    (recipes.paper(ranking=selection.Rank()), r"ranking must be of nets_jax\.evolution\.ranking"),
    (nets_jax.Nets(operators=[nets_jax.operators.Noise(rate) for rate in (0.1, 0.2)]), "setting 'noise_"),
    (nets_jax.Imp(cycles=2.0), "cycles must be a whole number, not 2.0"),
  ],
)  # fmt: skip
def test_a_setting_that_makes_no_search_is_one_line(task, search, message):
  with pytest.raises(nets_jax.UsageError, match=message):
    nets_jax.search(KEY, task, search)


def test_parts_may_be_given_by_name_and_one_operator_alone(task):
  search = nets_jax.Nets(selection="truncation", ranking="none", operators=nets_jax.operators.Noise())
  assert search.selection == selection.Truncation()
  assert search.ranking == ranking.Unconstrained()
  assert search.operators == (nets_jax.operators.Noise(),)
  short = task.replace(training="adam", initialiser=0.2)
  assert (short.training, short.initialiser) == (nets_jax.Training("adam"), Normal(0.2))
  assert Normal(np.array([0.1, 0.2])).scale == (0.1, 0.2)


def test_a_class_that_jax_cannot_see_into_is_one_line(task):
  class Plain(nets_jax.operators.Operator):
    on_elites = True

    def __call__(self, key, child, context):
      return child

  class Mine(ranking.Feasible):
    pass

  with pytest.raises(nets_jax.UsageError, match=r"decorate Plain with nets_jax\.dataclass, so that"):
    nets_jax.Nets(operators=(Plain(),))
  with pytest.raises(nets_jax.UsageError, match=r"decorate Mine with nets_jax\.dataclass, so that"):
    nets_jax.search(KEY, task, nets_jax.Nets(ranking=Mine()))


def test_no_learning_rate_is_no_ascent(task, ticket):
  with pytest.raises(nets_jax.UsageError, match="learning_rate must be positive, not None"):
    nets_jax.train_tickets(KEY, ticket, task.replace(training=nets_jax.Training("sgd", None, 12)))
  own = nets_jax.Training(optax.sgd(0.2), None, 12)
  assert nets_jax.train_tickets(KEY, ticket, task.replace(training=own), epochs=1).curves
  with pytest.raises(nets_jax.UsageError, match=r"epochs must be a whole number, not 1\.5"):
    nets_jax.train_tickets(KEY, ticket, task, epochs=1.5)


def test_precision_is_the_searchs_or_the_tasks_and_not_the_networks(task):
  rounded = task.replace(network=task.network.clone(precision="bfloat16"))
  with pytest.raises(nets_jax.UsageError, match=r"give the precision to the task .* or the search"):
    nets_jax.search(KEY, rounded, SEARCH)
  own = task.replace(network=Stack((4,)), precision="bfloat16")
  with pytest.raises(nets_jax.UsageError, match="Stack has no field `precision`"):
    nets_jax.search(KEY, own, Random())
  layout = nets_jax.make_layout(3)
  losses = {}
  for precision in ("float32", "bfloat16"):
    search = SEARCH.change(precision=precision)
    state = init(KEY, task, search, layout)
    losses[precision] = np.asarray(step(state, task, search, layout)[1].valid_loss)
    searched = [row["valid_loss"] for row in nets_jax.search(KEY, task, search, layout=layout).history[:3]]
    np.testing.assert_array_equal(losses[precision], np.float32(searched))
  assert (losses["float32"] != losses["bfloat16"]).any()


def test_one_search_takes_one_key(task):
  with pytest.raises(nets_jax.UsageError, match="search takes one key, not 3; search_all takes several"):
    nets_jax.search([1, 2, 3], task, SEARCH)


@nets_jax.dataclass
class Tickets(nets_jax.Search):
  """A search that gives something else than results."""

  def find(self, keys, task, how):
    return [nets_jax.random_ticket(key, task.network, task.data.input_shape, 0.5) for key in keys]


def test_a_search_of_ones_own_gives_results(task):
  with pytest.raises(nets_jax.UsageError, match=r"Tickets\.find must give a SearchResult, or a SearchFailed"):
    nets_jax.search(KEY, task, Tickets())


def test_names_of_0_1_say_what_took_their_place():
  for name, hint in (
    ("NetsConfig", "recipes.paper"),
    ("guided_config", "recipes.guided"),
    ("offspring", "oper"),
  ):
    with pytest.raises(AttributeError, match=f"no attribute '{name}'; .*{hint}.*Moving from 0.1"):
      getattr(nets_jax, name)
  with pytest.raises(AttributeError, match=r"no attribute 'Snip'; .*nets_jax.baselines.one_shot"):
    nets_jax.Snip  # noqa: B018
  with pytest.raises(AttributeError, match=r"no attribute 'nonsense'$"):
    nets_jax.nonsense  # noqa: B018
