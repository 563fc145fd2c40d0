"""The settings of a sweep, from text."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nets_jax
from nets_jax.studies import space

WHOLE = {"elites", "population_size"}.__contains__


def test_a_grid_is_every_combination_in_order():
  assert space.product("noise_rate=0.05,0.1;elites=0, 1") == [
    {"noise_rate": "0.05", "elites": "0"},
    {"noise_rate": "0.05", "elites": "1"},
    {"noise_rate": "0.1", "elites": "0"},
    {"noise_rate": "0.1", "elites": "1"},
  ]
  assert space.product("") == [{}]
  assert space.product("hidden_sizes=6,8+4;") == [{"hidden_sizes": "6"}, {"hidden_sizes": "8,4"}]
  both = [
    {"optimizer": ("sgd",), "learning_rate": (0.1, 0.3)},
    {"optimizer": ("adam",), "learning_rate": (0.01,)},
  ]
  assert space.as_text(both) == "optimizer=sgd;learning_rate=0.1,0.3|optimizer=adam;learning_rate=0.01"
  assert space.product("elites=1,2|elites=2,3") == [{"elites": "1"}, {"elites": "2"}, {"elites": "3"}]
  assert space.product(space.as_text(both)) == [
    {"optimizer": "sgd", "learning_rate": "0.1"},
    {"optimizer": "sgd", "learning_rate": "0.3"},
    {"optimizer": "adam", "learning_rate": "0.01"},
  ]


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("noise_rate", "in --grid, 'noise_rate' is not name=values; write"),
    ("=1", "in --grid, '=1' is not name=values"),
    ("elites=", "in --grid, 'elites=' is not name=values"),
    ("elites=1;elites=2", "in --grid, elites is there twice"),
    ("elites=1,,2", "the values of elites must differ and none be empty: '1,,2'"),
    ("elites=1,1", "the values of elites must differ and none be empty: '1,1'"),
    ("elites=1|noise_rate=1", r"in --grid, what stands between \| must name the same settings"),
  ],
)
def test_a_wrong_grid(text, message):
  with pytest.raises(nets_jax.UsageError, match=message):
    space.product(text)


def draw(text, count, sampler="random", seed=0):
  return space.draw(space.read_ranges(text, WHOLE), count, sampler, seed)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**64 - 1), st.integers(1, 10), st.sampled_from(["random", "qmc"]))
def test_draws_stay_in_their_range(seed, count, sampler):
  text = (
    "noise_rate=0.01:0.3:log;dormancy_rate=0:0.4;elites=0:3;population_size=2:64:log;selection=rank,roulette"
  )
  drawn = draw(text, count, sampler, seed)
  assert len(drawn) == count
  for setting in drawn:
    assert 0.01 <= float(setting["noise_rate"]) <= 0.3
    assert 0 <= float(setting["dormancy_rate"]) <= 0.4
    assert int(setting["elites"]) in range(4)
    assert int(setting["population_size"]) in range(2, 65)
    assert setting["selection"] in ("rank", "roulette")
  assert draw(text, count + 1, sampler, seed)[:count] == drawn  # more draws leave the first as they were


def test_draws_are_uniform_or_log_uniform():
  drawn = draw("noise_rate=0.01:1:log;dormancy_rate=0:1;elites=0:3", 1000)
  logs = [math.log10(float(setting["noise_rate"])) for setting in drawn]
  assert sum(logs) / 1000 == pytest.approx(-1, abs=0.07)
  assert sum(float(setting["dormancy_rate"]) for setting in drawn) / 1000 == pytest.approx(0.5, abs=0.05)
  counts = [sum(setting["elites"] == str(i) for setting in drawn) for i in range(4)]
  assert all(count == pytest.approx(250, abs=70) for count in counts)


def test_a_sobol_sequence_covers_a_range_evenly():
  drawn = draw("dormancy_rate=0:1", 65, "qmc")[1:]  # Optuna's first point is drawn before it knows the range
  counts = [
    sum(i / 8 <= float(setting["dormancy_rate"]) < (i + 1) / 8 for setting in drawn) for i in range(8)
  ]
  assert all(count in (7, 8, 9) for count in counts)


def test_a_range_may_hold_under_a_condition():
  text = (
    "optimizer=sgd,adam;learning_rate[optimizer=sgd]=0.1:1;learning_rate[optimizer=adam]=1e-4:1e-2:log;"
    "noise_rate[optimizer=adam]=0.1:0.2"
  )
  drawn = draw(text, 40)
  assert {setting["optimizer"] for setting in drawn} == {"sgd", "adam"}
  for setting in drawn:
    low, high = (0.1, 1) if setting["optimizer"] == "sgd" else (1e-4, 1e-2)
    assert low <= float(setting["learning_rate"]) <= high
    assert ("noise_rate" in setting) == (setting["optimizer"] == "adam")


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("", "--sampler=random asks for --samples of at least 1 and for --ranges to draw from"),
    ("noise_rate=low:high", "the range of noise_rate must be two numbers, low:high or low:high:log"),
    ("elites=0:1.5", "the range of elites must be two whole numbers"),
    ("noise_rate=0.1:0.2:exp", "the range of noise_rate ends in 'exp'; only :log may follow"),
    ("noise_rate=0.1:0.2:log:log", "only :log may follow"),
    ("noise_rate=0.2:0.1", "the range of noise_rate must go up, not"),
    ("noise_rate=0:0.1:log", "the range of noise_rate must go up, from above 0 for log, not"),
    ("noise_rate=0:inf", "the range of noise_rate must go up"),
    (
      "noise_rate[elites=1]=0:1",
      "'noise_rate.elites=1.' is no name.other=value. whose other stands before it",
    ),
    ("a=b,c;noise_rate[a=d]=0:1", "a is never 'd', so 'noise_rate.a=d.' would never be drawn"),
    ("a=b,c;noise_rate=0:1;noise_rate[a=b]=0:1", "noise_rate is there with a condition and without"),
  ],
)
def test_wrong_ranges(text, message):
  with pytest.raises(nets_jax.UsageError, match=message):
    draw(text, 3)
