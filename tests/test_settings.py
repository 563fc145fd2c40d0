"""A setting is defined once: what follows from its field, and what a hash of settings covers."""

import dataclasses
import functools
import json
import pathlib

import jax
import numpy as np
import optax
import pytest
from absl import flags
from hypothesis import given
from hypothesis import strategies as st

import nets_jax
from nets_jax import searches
from nets_jax.baselines.random_tickets import Random
from nets_jax.cli import records
from nets_jax.cli import setting_flags as cli_flags
from nets_jax.evolution import ranking, selection
from nets_jax.evolution.schedules import SHAPES, Linear, parse_rate, rate_at, write_rate
from nets_jax.kinds import NUMBER, SHARE, in_words
from nets_jax.settings import DEFAULTS_VERSION, check, record, setting, values
from nets_jax.training.optimizers import describe_optimizer

RECORDED = pathlib.Path(__file__).with_name("defaults.json")
HOW = (
  "a default has changed: results on disk under a hash of settings would be taken for those of the new "
  "one. Raise "
  "settings.DEFAULTS_VERSION, then write the record anew: python tests/test_settings.py"
)


def defaults():
  """Every search's settings, and those of tasks, networks and data, as they are where nobody gives others."""
  found = {name: record(make()) for name, make in searches.SEARCHES.items()}
  names = (*cli_flags.RUN, *cli_flags.DATA, *cli_flags.NETWORK, *cli_flags.TASK)
  found["task"] = {name: records.plain(name, flags.FLAGS[name].default) for name in names}
  del found["task"]["search"]  # which of them is the default is said in every hash
  return json.loads(json.dumps(found))


def test_no_default_changes_without_a_new_version():
  recorded, now = json.loads(RECORDED.read_text()), defaults()
  assert recorded["version"] <= DEFAULTS_VERSION
  if recorded["version"] == DEFAULTS_VERSION:
    for name, own in recorded["defaults"].items():
      for flag, value in own.items():
        assert now.get(name, {}).get(flag) == value, f"{name}, {flag}: {HOW}"


def test_every_default_is_on_record():
  """So that a later change of one that was added is seen; adding one needs no new version."""
  recorded = json.loads(RECORDED.read_text())
  assert recorded["defaults"] == defaults(), "write the record anew: python tests/test_settings.py"


@nets_jax.dataclass
class Wider(Random):
  """A search that has got one more setting."""

  tilt: float = setting(0.5, "A new one.", group="other searches", kind=NUMBER, rule=SHARE)


def test_a_setting_that_is_added_moves_no_hash(monkeypatch):
  monkeypatch.setattr(Wider, "__module__", Random.__module__)  # as if it were the library's
  before = Random(0.3).identity() | {"search": "Wider"}
  assert Wider(0.3).identity() == before
  assert Wider(0.3, tilt=0.7).identity() != before


def test_of_a_search_of_ones_own_every_setting_is_told():
  """For its defaults have no version here."""
  assert {"tilt", "density_deviation"} <= set(Wider(0.3).identity())


def test_a_hash_tells_versions_of_the_defaults_apart(monkeypatch):
  before = searches.make("guided").identity()
  monkeypatch.setattr("nets_jax.settings.DEFAULTS_VERSION", DEFAULTS_VERSION + 1)
  assert searches.make("guided").identity() != before


def test_a_hash_covers_the_chosen_search_alone_and_what_differs():
  plain = searches.make("guided").identity()
  assert (plain["search"], plain["defaults"]) == ("Nets", DEFAULTS_VERSION)
  assert "precision" not in plain  # as by default
  changed = searches.make("guided", {"target_density": 0.05}).identity()
  assert changed == plain | {"target_density": 0.05}
  bred = nets_jax.recipes.guided().replace(operators=(nets_jax.operators.Crossover(),))
  assert "ScheduledDormancy" in record(nets_jax.recipes.guided())["parts"]
  assert "ScheduledDormancy" not in bred.identity()["parts"]


@pytest.mark.parametrize("name", searches.SEARCHES)
def test_every_setting_can_be_given_as_a_flag_and_by_its_name(name):
  """Written and read back, each value is what it was; so a flagfile repeats a run."""
  search = searches.make(name)
  written = {}
  for flag, value in values(search).items():
    assert flag in cli_flags.SEARCH
    if value is not None:
      text = records.flagfile({flag: records.plain(flag, value)}).partition("=")[2].strip()
      written[flag] = flags.FLAGS[flag].parser.parse(text)
  assert searches.make(name, written) == search
  with pytest.raises(nets_jax.UsageError, match=f"{name} has no setting 'noise_rat'"):
    searches.make(name, {"noise_rat": 0.1})


def test_naming_a_setting_that_the_search_lacks_says_which_have_it():
  with pytest.raises(
    nets_jax.UsageError, match=r"guided has no setting 'noise_rate'; those that have it are paper$"
  ):
    searches.make("guided", {"noise_rate": 0.2})
  with pytest.raises(nets_jax.UsageError, match=r"'penalty_weight'; it comes with ranking=penalty$"):
    searches.make("paper", {"ranking": "pareto", "penalty_weight": 2.0})
  search = nets_jax.recipes.guided(objective=abs, operators=(nets_jax.operators.Crossover(),))
  assert (search.objective, len(search.operators)) == (abs, 1)  # fields that are no settings
  with pytest.raises(nets_jax.UsageError, match=r"imp has no setting 'target_density'; those .* guided, "):
    searches.make("imp", {"target_density": 0.2})


def test_a_part_chosen_by_name_brings_its_settings_and_keeps_those_it_shares():
  search = nets_jax.recipes.paper(target_density=0.1, ranking="feasible", selection="truncation", parents=3)
  assert search.ranking == ranking.Feasible(0.1)
  assert search.selection == selection.Truncation(3)
  with pytest.raises(nets_jax.UsageError, match=r"no setting 'penalty_weight'"):
    nets_jax.recipes.paper(ranking="feasible", penalty_weight=2.0)
  with pytest.raises(
    nets_jax.UsageError, match=r"ranking must be one of penalty, .*not 'pareta'; did you mean"
  ):
    nets_jax.recipes.paper(ranking="pareta")


def test_copies_of_an_operator_are_told_apart_by_their_names():
  noise = nets_jax.operators.Noise
  search = nets_jax.Nets(operators=(noise(0.1), noise(0.2, name="late_noise")))
  found = values(search)
  assert (found["noise_rate"], found["late_noise_rate"]) == (0.1, 0.2)
  changed = search.change(late_noise_rate=0.3)
  assert [operator.rate for operator in changed.operators] == [0.1, 0.3]


def test_what_a_sweep_may_vary_in_one_program_is_what_is_traced():
  search = nets_jax.recipes.paper()
  same = [
    {"noise_rate": 0.3},
    {"target_density": 0.5},
    {"elites": 2},
    {"generations": 3},
    {"penalty_weight": 2.0},
  ]
  for changes in same:
    assert search.change(**changes).program() == search.program()
  for changes in [
    {"population_size": 6},
    {"fitness_epochs": 2.0},
    {"ranking": "none"},
    {"noise_rate": Linear(1.0, 0.1)},
  ]:
    assert search.change(**changes).program() != search.program()
  halved = nets_jax.recipes.halved()
  assert halved.change(generations=3).program() != halved.program()


@given(st.sampled_from(sorted(SHAPES)), st.floats(1e-6, 1e3), st.floats(1e-6, 1e3))
def test_schedules_are_read_as_they_are_written(shape, first, last):
  schedule = SHAPES[shape](first, last)
  assert parse_rate(write_rate(schedule)) == schedule
  assert float(rate_at(schedule, 0.0)) == pytest.approx(first)
  assert float(rate_at(schedule, 1.0)) == pytest.approx(last)


@pytest.mark.parametrize("text", ["much", "1to", "to1", "steep(1to2)", "linear(1to2", "1to2)", "2to1to0"])
def test_what_is_no_rate_is_not_read(text):
  with pytest.raises(ValueError, match=r"."):
    parse_rate(text)


def test_a_rate_is_a_number_or_a_schedule_and_both_are_checked():
  check(nets_jax.recipes.paper(noise_rate=Linear(0.5, 0.0)))
  with pytest.raises(
    nets_jax.UsageError, match=r"noise_rate must be in \[0, 1\], not Linear\(first=0.5, last=2"
  ):
    check(nets_jax.recipes.paper(noise_rate=Linear(0.5, 2.0)))


def test_no_configuration_is_larger_than_a_screen():
  """And each names its settings in the fields themselves, with a sentence and a group that `--help` shows."""
  from nets_jax.cli.usage import GROUPS

  for make in searches.SEARCHES.values():
    search = make()
    assert len(dataclasses.fields(search)) <= 15
    for name, place in searches.all_places(search):
      assert place.about.help.endswith("."), name
      assert place.about.group in GROUPS, name


def test_components_are_pytrees_of_what_is_traced():
  leaves = jax.tree.leaves(nets_jax.recipes.paper(patience=None))
  assert all(isinstance(leaf, int | float) for leaf in leaves)
  assert len(leaves) == 3 + 5 + 2  # generations, elites, initial density; rates and a scale; the ranking


def strike(key, child, context):
  return child


def spare(key, child, context):
  return child


@nets_jax.dataclass
class Turn(nets_jax.operators.Operator):
  """An operator whose field is no setting."""

  rate: float = 0.1

  def __call__(self, key, child, context):
    return child


def test_a_record_tells_all_operators_and_their_order_apart():
  crossover, noise = nets_jax.operators.Crossover(), nets_jax.operators.Noise()
  lists = [(crossover,), (crossover, noise), (noise, crossover), (crossover, strike), (crossover, spare)]
  lists += [(crossover, Turn(0.1)), (crossover, Turn(0.9)), (crossover, noise.replace(rate=0.5))]
  records = [json.dumps(record(nets_jax.Nets(operators=operators))) for operators in lists]
  assert len(set(records)) == len(lists)


def test_a_record_tells_trainings_apart():
  made = [nets_jax.Training(optax.sgd(0.1)), nets_jax.Training(optax.sgd(0.9)), nets_jax.Training(optax.sgd)]
  made += [nets_jax.Training("sgd"), nets_jax.Training(functools.partial(optax.sgd, momentum=0.5))]
  made += [
    nets_jax.Training(functools.partial(optax.sgd, momentum=0.9)),
    nets_jax.Training(learning_rate=0.2),
  ]
  made += [nets_jax.Training("sgd", optax.constant_schedule(rate)) for rate in (0.1, 0.2)]
  records = [json.dumps(training.record(), default=str) for training in made]
  assert len(set(records)) == len(made)
  assert "0x" not in "".join(records)
  assert json.dumps(nets_jax.Training(optax.sgd(0.1)).record()) == records[0]


if __name__ == "__main__":
  RECORDED.write_text(
    json.dumps({"version": DEFAULTS_VERSION, "defaults": defaults()}, indent=1, sort_keys=True) + "\n"
  )


def test_what_functions_hold_is_told_apart():
  """Arrays, dicts and objects that they close over, and objects that can be called."""

  class Weighted:
    def __init__(self, weight):
      self.weight = weight

    def __call__(self, outputs, targets):
      return self.weight * outputs

    def method(self, outputs, targets):
      return self(outputs, targets)

  def closed(held):
    return lambda outputs, targets: held

  def rate(at):
    return optax.piecewise_constant_schedule(0.1, {at: 0.1})

  for make, one, other in (
    (closed, np.array([1.0, 2.0]), np.array([1.0, 3.0])),
    (closed, {5: 0.1}, {50: 0.1}),
    (closed, [Weighted(1.0)], [Weighted(2.0)]),
    (Weighted, 1.0, 5.0),
    (lambda weight: Weighted(weight).method, 1.0, 5.0),
    (lambda weight: functools.partial(Weighted(weight).method, targets=None), 1.0, 5.0),
    (rate, 1500, 3000),
  ):
    first, again, second = (in_words(make(held)) for held in (one, one, other))
    assert first == again != second
    assert "0x" not in first
  descriptions = [describe_optimizer(optax.sgd(rate(at))) for at in (1500, 1500, 3000)]
  assert descriptions[0] == descriptions[1] != descriptions[2]
