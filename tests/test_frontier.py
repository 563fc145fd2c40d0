"""The tickets of a run that no other dominates."""

import jax
import numpy as np
import pytest
from conftest import assert_same_bits, assert_same_results
from hypothesis import given, settings
from hypothesis import strategies as st
from test_checkpoints import in_pieces
from test_pareto import dominates

import nets_jax
from nets_jax.evolution.frontier import Frontier
from nets_jax.evolution.generation import init, step

SEARCH = nets_jax.recipes.paper(population_size=5, generations=3)
KEY = jax.random.key(1)
NUMBERS = st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, float("nan"), float("inf")])
GENERATIONS = st.lists(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=3, max_size=3), max_size=10)


@pytest.fixture(scope="module")
def task(network, data):
  return nets_jax.Task(network, data, nets_jax.Training(learning_rate=0.1, batch_size=8))


def place(row):
  return row["density"], row["valid_loss"]


def rows_of(generations):
  return [
    [{"genome": i, "generation": g, "density": d, "valid_loss": v} for i, (d, v) in enumerate(points)]
    for g, points in enumerate(generations)
  ]


def offered(generations, size):
  """The frontier of some generations; a ticket is the place it was taken from."""
  frontier = Frontier(size)
  for rows in rows_of(generations):
    frontier.offer(rows, lambda genome, rows=rows: (rows[genome]["generation"], genome))
  return frontier


def test_what_keeps_no_weight_is_no_ticket():
  assert [place(met.row) for met in offered([[(0.0, 0.1), (0.2, 0.5), (0.1, 0.9)]], 100)] == [
    (0.1, 0.9), (0.2, 0.5),
  ]  # fmt: skip


@settings(deadline=None)
@given(GENERATIONS)
def test_it_is_what_no_other_dominates(generations):
  frontier = offered(generations, 100)
  rows = [row for own in rows_of(generations) for row in own if np.isfinite(place(row)).all()]
  best = {place(row) for row in rows if not any(dominates(place(other), place(row)) for other in rows)}
  assert [place(met.row) for met in frontier] == sorted(best)
  for met in frontier:
    first = next(row for row in rows if place(row) == place(met.row))
    assert met.row["generation"] == first["generation"]
    assert met.ticket == (met.row["generation"], met.row["genome"])


def by_hand(generations, size):
  """The frontier, point by point: what is dominated goes, and of too many the most crowded."""
  kept = []
  for points in generations:
    for point in sorted(p for p in points if np.isfinite(p).all()):
      if point in kept or any(dominates(other, point) for other in kept):
        continue
      kept = sorted([other for other in kept if not dominates(point, other)] + [point])
      if len(kept) > size:
        widths = [max(p[i] for p in kept) - min(p[i] for p in kept) or 1 for i in (0, 1)]
        gaps = {
          j: sum(abs(kept[j + 1][i] - kept[j - 1][i]) / widths[i] for i in (0, 1))
          for j in range(1, len(kept) - 1)
        }
        del kept[min(gaps, key=gaps.__getitem__) if gaps else 0]
  return kept


@settings(deadline=None)
@given(GENERATIONS, st.integers(1, 4))
def test_a_full_one_gives_up_what_is_most_crowded(generations, size):
  """What was given up does not come back where what crowded it out is dominated later."""
  frontier, whole = offered(generations, size), offered(generations, 100)
  found = [place(met.row) for met in frontier]
  assert found == by_hand(generations, size)
  assert min(1, len(whole)) <= len(found) <= min(size, len(whole))
  assert not any(dominates(a, b) for a in found for b in found)
  if size > 1 and len(whole):
    ends = [place(whole[0].row), place(whole[-1].row)]
    assert [found[0], found[-1]] == ends


def test_the_most_crowded_one():
  points = [(0.1, 0.9), (0.2, 0.8), (0.25, 0.75), (0.3, 0.7), (0.9, 0.1)]
  assert [place(met.row) for met in offered([points], 4)] == [p for p in points if p != (0.25, 0.75)]


@pytest.mark.devices
def test_a_search_keeps_the_genomes_themselves(task):
  result = nets_jax.search(KEY, task, SEARCH, frontier_size=50, devices=4)
  rows = result.history
  assert [met.row for met in result.frontier] == sorted(
    (a for a in rows if not any(dominates(place(b), place(a)) for b in rows)), key=place
  )
  assert len(result.frontier) > 1
  layout = nets_jax.make_layout(5, devices=1)
  state = init(KEY, task, SEARCH, layout)
  taken = {(met.row["generation"], met.row["genome"]): met.ticket for met in result.frontier}
  for generation in range(4):
    for genome in range(5):
      if (generation, genome) in taken:
        own = nets_jax.take(jax.device_get(state.population), genome)
        assert_same_bits(taken.pop((generation, genome)), own)
    state, _ = step(state, task, SEARCH, layout)
  assert not taken
  # It changes nothing else, and is not kept unless it is asked for.
  plain = nets_jax.search(KEY, task, SEARCH, devices=4)
  assert list(plain.frontier) == []
  assert_same_bits(plain.ticket, result.ticket)


@pytest.mark.devices
def test_runs_side_by_side_have_their_own_and_go_on_with_them(tmp_path, task):
  keys, searches = jax.random.split(KEY, 2), [SEARCH, SEARCH.change(generations=2, noise_rate=0.3)]

  def search(saved):
    return nets_jax.search_all(keys, task, searches, frontier_size=3, checkpoints=saved)

  whole = search(None)
  alone = [nets_jax.search(k, task, s, frontier_size=3) for k, s in zip(keys, searches, strict=True)]
  assert_same_results(whole, alone)
  pieces, stops = in_pieces(search, tmp_path, 2)
  assert stops >= 2
  assert_same_results(pieces, whole)


def test_an_impossible_size(task):
  with pytest.raises(nets_jax.UsageError, match="frontier_size must be at least 0, not -1"):
    nets_jax.search(KEY, task, SEARCH, frontier_size=-1)
