"""The settings of a sweep, from text."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nets_jax
from nets_jax.studies import grid

WHOLE = {"elites", "population_size"}.__contains__


def test_a_grid_is_every_combination_in_order():
  assert grid.product("noise_rate=0.05,0.1;elites=0, 1") == [
    {"noise_rate": "0.05", "elites": "0"},
    {"noise_rate": "0.05", "elites": "1"},
    {"noise_rate": "0.1", "elites": "0"},
    {"noise_rate": "0.1", "elites": "1"},
  ]
  assert grid.product("") == [{}]
  assert grid.product("hidden_sizes=6,8+4;") == [{"hidden_sizes": "6"}, {"hidden_sizes": "8,4"}]


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("noise_rate", "in --grid, 'noise_rate' is not name=values; write"),
    ("=1", "in --grid, '=1' is not name=values"),
    ("elites=", "in --grid, 'elites=' is not name=values"),
    ("elites=1;elites=2", "in --grid, elites is there twice"),
    ("elites=1,,2", "the values of elites must differ and none be empty: '1,,2'"),
    ("elites=1,1", "the values of elites must differ and none be empty: '1,1'"),
  ],
)
def test_a_wrong_grid(text, message):
  with pytest.raises(nets_jax.UsageError, match=message):
    grid.product(text)


@given(st.integers(0, 2**31), st.integers(1, 20))
def test_draws_stay_in_their_range(seed, count):
  text = (
    "noise_rate=0.01:0.3:log;dormancy_rate=0:0.4;elites=0:3;population_size=2:64:log;selection=rank,roulette"
  )
  drawn = grid.draw(text, count, seed, WHOLE)
  assert len(drawn) == count
  for setting in drawn:
    assert 0.01 <= float(setting["noise_rate"]) <= 0.3
    assert 0 <= float(setting["dormancy_rate"]) <= 0.4
    assert int(setting["elites"]) in range(4)
    assert int(setting["population_size"]) in range(2, 65)
    assert setting["selection"] in ("rank", "roulette")
  assert grid.draw(text, count + 1, seed, WHOLE)[:count] == drawn  # more draws leave the first as they were


def test_draws_are_uniform_or_log_uniform():
  drawn = grid.draw("noise_rate=0.01:1:log;dormancy_rate=0:1;elites=0:3", 2000, 0, WHOLE)
  logs = [math.log10(float(setting["noise_rate"])) for setting in drawn]
  assert sum(logs) / 2000 == pytest.approx(-1, abs=0.05)
  assert sum(float(setting["dormancy_rate"]) for setting in drawn) / 2000 == pytest.approx(0.5, abs=0.03)
  counts = [sum(setting["elites"] == str(i) for setting in drawn) for i in range(4)]
  assert all(count == pytest.approx(500, abs=100) for count in counts)


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("", "random asks for at least 1 setting and for --ranges"),
    ("noise_rate=low:high", "the range of noise_rate must be two numbers, low:high or low:high:log"),
    ("elites=0:1.5", "the range of elites must be two whole numbers"),
    ("noise_rate=0.1:0.2:exp", "the range of noise_rate ends in 'exp'; only :log may follow"),
    ("noise_rate=0.1:0.2:log:log", "only :log may follow"),
    ("noise_rate=0.2:0.1", "the range of noise_rate must go up, not"),
    ("noise_rate=0:0.1:log", "the range of noise_rate must go up, from above 0 for log, not"),
    ("noise_rate=0:inf", "the range of noise_rate must go up"),
  ],
)
def test_wrong_ranges(text, message):
  with pytest.raises(nets_jax.UsageError, match=message):
    grid.draw(text, 3, 0, WHOLE)
