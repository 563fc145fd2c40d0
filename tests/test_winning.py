import math

import jax
import pytest

import nets_jax
from nets_jax.analysis import intervals
from nets_jax.analysis import verdicts as verdicts_module
from nets_jax.networks.initialisation import Normal
from nets_jax.training.measures import Measures


def curve(losses, accuracies):
  return [
    {"iteration": 10 * (i + 1), "valid_loss": loss, "test_accuracy": accuracy}
    for i, (loss, accuracy) in enumerate(zip(losses, accuracies, strict=True))
  ]


DENSE = curve([0.9, 0.5, 0.6], [0.7, 0.9, 0.95])  # j = 20, a = 0.9


@pytest.mark.parametrize(
  ("ticket", "unmasked", "as_fast", "as_accurate", "far_sparser"),
  [
    (curve([0.9, 0.4, 0.5], [0.1, 0.9, 0.1]), 20, True, True, True),
    (curve([0.3, 0.4, 0.5], [0.95, 0.1, 0.1]), 50, True, True, True),
    (curve([0.9, 0.5, 0.4], [0.1, 0.1, 0.92]), 20, False, True, True),
    (curve([0.9, 0.4, 0.5], [0.99, 0.89, 0.99]), 20, True, False, True),
    (curve([0.9, 0.4, 0.5], [0.1, 0.9, 0.1]), 51, True, True, False),
  ],
)
def test_each_condition_can_fail_alone(ticket, unmasked, as_fast, as_accurate, far_sparser):
  verdict = verdicts_module.judge(ticket, DENSE, unmasked, 100)
  assert (verdict.as_fast, verdict.as_good, verdict.far_sparser) == (as_fast, as_accurate, far_sparser)
  assert verdict.wins == (as_fast and as_accurate and far_sparser)
  assert (verdict.dense_iteration, verdict.dense_score, verdict.dense_loss) == (20, 0.9, 0.5)
  text = str(verdict)
  assert text.startswith("a winning ticket: " if verdict.wins else "not a winning ticket: ")
  for name, met in (("as fast", as_fast), ("as accurate", as_accurate), ("far sparser", far_sparser)):
    assert f"{name} {'yes' if met else 'NO'} (" in text


def test_the_first_of_equal_minima_counts_and_nan_is_none():
  ticket = curve([math.nan, 0.4, 0.4], [1.0, 0.9, 0.8])
  verdict = verdicts_module.judge(ticket, DENSE, 1, 100)
  assert (verdict.iteration, verdict.score, verdict.loss) == (20, 0.9, 0.4)


def test_the_interval_is_students():
  mean, half = intervals.mean_and_interval([1.0, 2.0, 3.0])
  assert mean == 2
  assert half == pytest.approx(4.302653 / math.sqrt(3), rel=1e-5)
  assert math.isnan(intervals.mean_and_interval([1.0])[1])


def test_several_seeds_are_summed_up():
  better, worse = curve([0.4, 0.5, 0.6], [0.94, 0.1, 0.1]), curve([0.9, 0.8, 0.4], [0.1, 0.1, 0.92])
  text = verdicts_module.summarise([verdicts_module.judge(c, DENSE, 20, 100) for c in (better, worse)])
  assert text.startswith("1 of 2 win: j' 20 +- ")
  assert "a' 93.00% +- 12.71%" in text
  assert "20 +- 0 of 100 weights" in text
  assert "+-" not in verdicts_module.summarise([verdicts_module.judge(better, DENSE, 20, 100)])


def test_a_ticket_is_judged_against_both_dense_networks_over_seeds(network, data, ticket):
  training = nets_jax.Training(learning_rate=0.3, batch_size=8)
  task = nets_jax.Task(network, data, training, Normal(0.5), epochs=4, eval_every=5)
  keys = jax.random.split(jax.random.key(0), 2)
  verdicts = verdicts_module.judge_ticket(keys, ticket, task)
  assert set(verdicts) == {"unmasked", "dense"}
  dense = nets_jax.stack([ticket.replace(masks=jax.tree.map(lambda m: m | True, ticket.masks)), ticket])
  for i, key in enumerate(keys):
    curves = nets_jax.train_tickets(key, dense, task).curves
    rows = [[row for row in curves if row["ticket"] == t] for t in (0, 1)]
    unmasked = int(sum(mask.sum() for mask in jax.tree.leaves(ticket.masks)))
    assert verdicts["unmasked"][i] == verdicts_module.judge(rows[1], rows[0], unmasked, 103)
    assert verdicts["dense"][i].iteration == verdicts["unmasked"][i].iteration
    assert verdicts["dense"][i].dense_loss != verdicts["unmasked"][i].dense_loss


ERROR = Measures("squared_error", "absolute_error", False)


@pytest.mark.parametrize(("error", "as_good"), [(0.4, True), (0.5, True), (0.6, False), (math.nan, False)])
def test_of_an_error_less_is_as_good(error, as_good):
  def errors(*values):
    return [{"iteration": i, "valid_loss": 1.0 - i, "test_absolute_error": v} for i, v in enumerate(values)]

  verdict = verdicts_module.judge(errors(9.0, error), errors(0.1, 0.5), 20, 100)
  assert verdict.measures == ERROR
  assert (verdict.as_good, verdict.wins) == (as_good, as_good)
  tick = "yes" if as_good else "NO"
  assert f"as good {tick} (absolute error a' = {error:.4f} against 0.5000)" in str(verdict)
  assert verdict.record()["dense_absolute_error"] == 0.5
  assert "accuracy" not in verdict.record()
  text = verdicts_module.summarise([verdict])
  assert f"absolute error a' {error:.4g} against 0.5" in text
  assert "%" not in text


def test_of_a_score_of_ones_own_the_direction_is_asked_for():
  curve = [{"iteration": 1, "valid_loss": 1.0, "test_own": 2.0}]
  with pytest.raises(
    nets_jax.UsageError, match="rows do not say whether more of own is better; give the mea"
  ):
    verdicts_module.judge(curve, curve, 1, 2)
  worse = [{**curve[0], "test_own": 3.0}]
  assert not verdicts_module.judge(worse, curve, 1, 2, Measures("own", "own", False)).as_good


def test_a_record_of_accuracies_has_the_names_it_always_had():
  found = verdicts_module.judge(DENSE, DENSE, 20, 100).record()
  assert list(found) == [
    "iteration", "dense_iteration", "accuracy", "dense_accuracy", "loss", "dense_loss", "unmasked", "total",
    "wins",
  ]  # fmt: skip
