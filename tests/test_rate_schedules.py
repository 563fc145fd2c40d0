"""Schedules of the learning rate: what they give, and which part of them a training follows."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference
from conftest import assert_same_bits, assert_same_results, counted_compilations
from hypothesis import given, settings
from hypothesis import strategies as st
from test_checkpoints import in_pieces

import nets_jax
from nets_jax.baselines import imp_runs
from nets_jax.changes import change
from nets_jax.evolution.configuration import fitness_steps, stack_settings
from nets_jax.evolution.fitness import fitness
from nets_jax.training.rate_schedules import Constant, Cosine, Own, Steps
from nets_jax.training.train import minibatch_order, train
from nets_jax.training.trainer import train_tickets

SHARES = st.floats(0.01, 0.99)


def warm(t, steps, share):
  rise = int(np.rint(share * steps))
  return np.minimum(1, (t + 1) / rise) if rise else np.ones(len(t))


def cosine(t, steps, end=0.0):
  return end + (1 - end) * (1 + np.cos(np.pi * np.minimum(t, steps) / steps)) / 2


def falling(t, steps, at, fall):
  return fall ** np.sum([t >= int(np.rint(share * steps)) for share in at], axis=0)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 60), SHARES, SHARES, st.lists(SHARES, min_size=2, max_size=2), st.integers(0, 9))
def test_each_schedule_is_its_equation(steps, share, end, at, first):
  """Past its end too, and from the middle of it on."""
  t = np.arange(70)
  wanted = {
    Constant(warmup=share): np.ones(len(t)),
    Cosine(warmup=share, end=end): cosine(t, steps, end),
    Cosine(end=end): cosine(t, steps, end),
    Steps(warmup=share, at=tuple(at), fall=0.3): falling(t, steps, at, 0.3),
  }
  for schedule, want in wanted.items():
    want = want * warm(t, steps, schedule.warmup)
    got = schedule.over(steps).replace(first=first).factor()(jnp.asarray(t))
    got = np.broadcast_to(got, len(t))
    np.testing.assert_allclose(got[: len(t) - first], want[first:], rtol=1e-4, atol=1e-6)


def by_rates(ticket, data, order, rates):
  """NumPy's SGD, each step at a rate of its own."""
  parameters = reference.layers(ticket)
  for rows, rate in zip(np.asarray(order), rates, strict=True):
    parameters = reference.sgd(
      parameters, np.asarray(data.train.inputs), np.asarray(data.train.labels), rows[None], rate
    )
  return parameters


def assert_near(weights, parameters):
  for name, (kernel, bias, _) in zip(("hidden_0", "hidden_1", "output"), parameters, strict=True):
    np.testing.assert_allclose(weights[name]["kernel"], kernel, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(weights[name]["bias"], bias, rtol=1e-3, atol=1e-5)


SCHEDULED = nets_jax.Training(learning_rate=0.4, batch_size=12, schedule=Cosine(warmup=0.25))


def rates_of(steps):
  t = np.arange(steps)
  return 0.4 * cosine(t, steps) * warm(t, steps, 0.25)


def test_a_training_follows_its_schedule(task, data, ticket):
  order = minibatch_order(jax.random.key(1), len(data.train), 12, 16)
  scheduled = task.replace(training=SCHEDULED)
  found = jax.jit(lambda: train(jax.random.key(0), ticket, scheduled, order).weights)()
  assert_near(found, by_rates(ticket, data, order, rates_of(16)))


def moves(training, count):
  """How far each step of SGD goes by a gradient of 1."""
  optimizer, weight = training.make_optimizer(), jnp.float32(0)
  state, found = optimizer.init(weight), []
  for _ in range(count):
    update, state = optimizer.update(jnp.float32(1), state, weight)
    found.append(-float(update))
  return found


def test_a_function_of_the_iteration_is_multiplied_too():
  """And goes on at the iteration that was rewound to, with a schedule or without."""
  linear = SCHEDULED.replace(learning_rate=optax.linear_schedule(1.0, 0.0, 10))
  training = nets_jax.Training(learning_rate=linear.learning_rate.function, schedule=Cosine())
  t = np.arange(3, 6)
  np.testing.assert_allclose(moves(training.over(8).begun_at(3), 3), (1 - t / 10) * cosine(t, 8), rtol=1e-5)
  alone = nets_jax.Training(learning_rate=linear.learning_rate.function)
  np.testing.assert_allclose(moves(alone.begun_at(3), 3), 1 - t / 10, rtol=1e-5)
  np.testing.assert_allclose(moves(alone, 3), [1, 0.9, 0.8], rtol=1e-5)


SEARCH = nets_jax.recipes.paper(population_size=2, generations=0, fitness_epochs=0.5)


@pytest.mark.parametrize("which", ["head", "whole"])
def test_a_fitness_sees_the_head_of_the_final_training(task, data, ticket, which):
  """Or the whole, shrunk: trained by the settings that a generation has, against NumPy."""
  task = task.replace(training=change(SCHEDULED, {"search_schedule": which}), epochs=4)
  training = jax.tree.map(lambda leaf: leaf[0], stack_settings([task], [SEARCH]).training)
  steps, per_epoch = fitness_steps(SEARCH, task), task.steps_per_epoch
  order = minibatch_order(jax.random.key(1), len(data.train), 12, steps)
  trained = task.replace(training=training)
  found = jax.jit(lambda: fitness(jax.random.key(0), ticket, trained, order, SEARCH.ranking)[1])()
  rates = rates_of({"head": 4 * per_epoch, "whole": steps}[which])
  assert_near(found, by_rates(ticket, data, order, rates[:steps]))


def test_a_search_knows_the_length_without_the_final_training(task):
  task = task.replace(training=SCHEDULED, epochs=4)
  bare = task.for_search()
  assert bare.epochs == 0
  for each in (task, bare, bare.for_search()):
    assert stack_settings([each], [SEARCH]).training.schedule.steps == 4 * task.steps_per_epoch
  whole = task.replace(training=change(SCHEDULED, {"search_schedule": "whole"})).for_search()
  for epochs in (0.5, 1.0):
    steps = stack_settings([whole], [SEARCH.replace(fitness_epochs=epochs)]).training.schedule.steps
    assert steps == round(epochs * task.steps_per_epoch)


def test_each_cycle_of_imp_begins_the_schedule_anew_where_it_rewinds_to(task, monkeypatch):
  seen, original = [], imp_runs.trainer.train_tickets

  def spy(*arguments, **named):
    schedule = named["task"].training.schedule
    seen.append((schedule.first, schedule.steps, named["steps"]))
    return original(*arguments, **named)

  monkeypatch.setattr(imp_runs.trainer, "train_tickets", spy)
  task = task.replace(training=SCHEDULED, epochs=3)
  per_epoch = task.steps_per_epoch
  nets_jax.search(0, task, nets_jax.Imp(cycles=2, cycle_epochs=1, rewind_steps=3))
  length = 3 * per_epoch
  assert seen == [(0, length, 3), (3, length, per_epoch), (3, length, per_epoch)]
  whole = task.replace(training=change(SCHEDULED, {"search_schedule": "whole"}))
  assert whole.training_of_search(per_epoch, 3).schedule.steps == 3 + per_epoch


def test_a_training_that_was_rewound_goes_on_at_its_iteration(task, data, ticket):
  order = minibatch_order(jax.random.key(1), len(data.train), 12, 6)
  rewound = task.replace(training=SCHEDULED.over(10).begun_at(4))
  found = jax.jit(lambda: train(jax.random.key(0), ticket, rewound, order).weights)()
  assert_near(found, by_rates(ticket, data, order, rates_of(10)[4:]))


def test_other_numbers_compile_nothing_new(task, ticket):
  """Of tickets side by side, each with its own."""
  full = SCHEDULED.replace(momentum=0.5, weight_decay=0.01, clip_norm=1.0)

  def run(*rates):
    several = [task.replace(training=full.replace(learning_rate=r, momentum=r / 2)) for r in rates]
    return train_tickets(0, [ticket] * 2, several, steps=3).weights["output"]["kernel"]

  first = run(0.1, 0.2)
  with counted_compilations() as count:
    second = run(0.2, 0.3)
  assert not count
  assert (first[0] != first[1]).any()
  np.testing.assert_allclose(first[1], second[0], rtol=1e-6)


@pytest.mark.parametrize("name", ["momentum", "batch_size", "schedule", "label_smoothing", "learning_rate"])
def test_tickets_side_by_side_share_the_shape_of_their_training(task, ticket, name):
  of_training = {"momentum": 0.5, "batch_size": 10, "schedule": Cosine(), "learning_rate": lambda step: 0.1}
  training = task.training.replace(**{name: of_training[name]}) if name in of_training else task.training
  other = task.replace(training=training) if name in of_training else task.replace(**{name: 0.1})
  with pytest.raises(nets_jax.UsageError, match=f"such as learning_rate, but {name} differs otherwise; give"):
    train_tickets(0, [ticket] * 2, [task, other])


@pytest.mark.devices
@pytest.mark.parametrize("kind", ["training", "search", "imp"])
def test_what_is_stopped_goes_on_with_its_schedule(task, ticket, tmp_path, kind):
  training = SCHEDULED.replace(momentum=0.9, weight_decay=0.01, clip_norm=0.5, accumulate=2)
  task = task.replace(training=training, eval_every=3, epochs=3)
  bred = nets_jax.recipes.guided(population_size=4, generations=3, target_density=0.4)
  imp = nets_jax.Imp(cycles=2, cycle_epochs=2, rewind_steps=3)
  run, turns = {
    "training": (lambda saving: train_tickets(0, ticket, task, checkpoints=saving), 2),
    "search": (lambda saving: nets_jax.search(0, task, bred, checkpoints=saving), 2),
    "imp": (lambda saving: nets_jax.search(0, task, imp, checkpoints=saving), 3),
  }[kind]
  whole = run(None)
  found, stops = in_pieces(run, tmp_path, turns)
  assert stops
  if kind == "training":
    assert_same_bits(found.weights, whole.weights)
  else:
    assert_same_results([found], [whole])


def test_a_schedule_by_name_by_function_and_in_python(task, stranger):
  named = nets_jax.Training(schedule="steps").schedule
  assert named == Steps()
  own = nets_jax.Training(schedule="stranger.training:halved(share=0.25)")
  assert own.schedule == Own(made_by="stranger.training:halved(share=0.25)")
  task.replace(training=own).check()
  np.testing.assert_allclose(own.over(8).schedule.factor()(jnp.arange(4)), [1, 1, 0.5, 0.5])

  def mine(steps):
    return optax.linear_schedule(1.0, 0.0, steps)

  given = nets_jax.Training(schedule=mine)
  np.testing.assert_allclose(given.over(4).schedule.factor()(jnp.arange(5)), [1, 0.75, 0.5, 0.25, 0])
  records = [str(each.record()) for each in (own, given, nets_jax.Training(schedule=Cosine()))]
  assert len({*records, str(nets_jax.Training().record())}) == 4
  assert "0x" not in "".join(records)


def broken(steps):
  raise ValueError(f"no schedule of {steps}")


@pytest.mark.parametrize(
  ("given", "message"),
  [
    (
      {"schedule": "cosin"},
      "schedule must be one of constant, .*steps, or pack.*did you mean cos",
    ),
    ({"schedule": broken}, r"broken must give a function of the iteration, but failed: ValueError: no sched"),
    ({"schedule": lambda steps: lambda t: jnp.ones(2)}, "must give one number for an iteration; it multipl"),
    ({"schedule": lambda steps: 3}, "must give a function of the iteration, but failed: TypeError"),
    ({"schedule": Steps(at=())}, "rate_steps must name a share of the training, as in 0.5,0.75"),
    ({"schedule": Steps(at=1.5)}, r"rate_steps must be in \(0, 1\), not \[1.5\]"),
    ({"schedule": Cosine(warmup=1.0)}, r"warmup must be in \[0, 1\), not 1.0"),
    (
      {"schedule": Constant(search_schedule="whole")},
      "search_schedule decides nothing where the rate is",
    ),
    ({"schedule": 3}, r"schedule must be of nets_jax.training.rate_schedules.Schedule, not 3"),
    ({"schedule": "cosine", "optimizer": "rprop"}, "rprop takes a number as its learning rate, no schedule"),
    ({"schedule": "cosine", "optimizer": optax.adam(0.1)}, "of its own; leave schedule and warmup out"),
  ],
)
def test_what_is_no_schedule_is_refused(task, given, message):
  with pytest.raises(nets_jax.UsageError, match=message):
    task.replace(training=nets_jax.Training(**given)).check()


def test_a_rewound_cycle_must_end_with_the_schedule(task):
  """Of 3 epochs of 7 iterations: from iteration 8 on, 14 are one too many."""
  task = task.replace(training=SCHEDULED, epochs=3)
  nets_jax.Imp(cycle_epochs=2, rewind_epochs=1).check(task)
  message = r"takes 14 iterations from iteration 8 on, .* ends with the final training, after 21; raise train"
  with pytest.raises(nets_jax.UsageError, match=message):
    nets_jax.Imp(cycle_epochs=2, rewind_steps=8).check(task)
  whole = task.replace(training=change(SCHEDULED, {"search_schedule": "whole"}))
  nets_jax.Imp(cycle_epochs=2, rewind_steps=8).check(whole)


@pytest.mark.parametrize("name", ["loss", "score", "maskable", "schedule", "augment", "learning_rate"])
def test_what_cannot_be_hashed_is_one_line(task, name):
  @dataclasses.dataclass
  class Own:
    size: int = 1

    def __call__(self, *given):
      return given

  training = (
    {"training": nets_jax.Training(**{name: Own()})} if hasattr(task.training, name) else {name: Own()}
  )
  with pytest.raises(nets_jax.UsageError, match=rf"{name}=.*Own\(size=1\) cannot be hashed, .*frozen=True"):
    task.replace(**training).check()


def test_a_schedule_without_a_length_is_refused(task, ticket):
  with pytest.raises(nets_jax.UsageError, match=r"knows no length yet; give .*training.over\(steps\)"):
    SCHEDULED.make_optimizer()
  searched = task.replace(training=SCHEDULED, epochs=0)
  with pytest.raises(nets_jax.UsageError, match="train_epochs is 0; give train_epochs, or search_sched"):
    nets_jax.search(0, searched, SEARCH)
  short = task.replace(training=SCHEDULED, epochs=1)
  halving = SEARCH.replace(fitness_epochs=0.6, halvings=1, generations=1)
  for search in (halving, nets_jax.Imp(cycle_epochs=2)):
    with pytest.raises(nets_jax.UsageError, match="with the final training, after 7;"):
      nets_jax.search(0, short, search)


PROBLEM = (
  "--dataset=xor", "--xor_train_size=100", "--xor_test_size=40", "--hidden_sizes=4", "--train_epochs=4",
  "--batch_size=10", "--workdir=out", "--devices=1", "--search=random",
)  # fmt: skip


@pytest.mark.parametrize(
  "flags",
  [
    ["--schedule=cosine", "--warmup=0.1", "--rate_end=0.05", "--momentum=0.9", "--nesterov"],
    ["--schedule=steps", "--rate_steps=0.25,0.5", "--rate_fall=0.5", "--clip_norm=1", "--accumulate=2"],
    ["--schedule=stranger.training:halved(share=0.25)", "--optimizer=stranger.training:clipped(most=0.1)"],
  ],
)
def test_a_command_with_each_schedule(job, stranger, tmp_path, flags):
  status, out, error = job(*PROBLEM, *flags)
  assert status == 0, error
  assert "random" in out
  repeated = (tmp_path / "out" / "run.flags").read_text().splitlines()
  for flag in flags:
    assert (
      f"{flag}=true" if flag == "--nesterov" else flag.replace("=1", "=1.0") if "clip" in flag else flag
    ) in (repeated)


def test_a_setting_of_another_schedule_is_refused(job):
  status, _, error = job(*PROBLEM, "--rate_end=0.1")
  assert (status, error) == (
    2, "error: rate_end comes with schedule=cosine; choose that, or leave rate_end out\n"
  )  # fmt: skip


def test_a_method_of_a_comparison_has_its_own_schedule():
  from nets_jax.cli import setting_flags

  own = (
    "schedule",
    "warmup",
    "rate_end",
    "rate_steps",
    "momentum",
    "weight_decay",
    "clip_norm",
    "accumulate",
  )
  assert set(own) < set(setting_flags.OF_A_METHOD)
