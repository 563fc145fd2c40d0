"""Structured dormancy, and what a candidate knows of its units."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_same_bits

import nets_jax
from nets_jax.evolution.dormancy import ScheduledDormancy
from nets_jax.evolution.units import with_units
from nets_jax.tickets.compaction import compact


def slowly_weighted(scores, exponent):
  """Of a chain of dense layers in NumPy, gene by gene."""
  sums = [score.sum(1) for score in scores]
  found = []
  for i, score in enumerate(scores):
    new = np.zeros_like(score)
    for u in range(score.shape[0]):
      for v in range(score.shape[1]):
        factor = sums[i][u] / sums[i].mean()
        if i + 1 < len(scores):
          factor *= sums[i + 1][v] / sums[i + 1].mean()
        new[u, v] = score[u, v] * factor**exponent
    found.append(new)
  return found


@pytest.mark.parametrize("exponent", [0.5, 2.0])
def test_saliencies_of_units_are_those_of_a_numpy_reference(task, ticket, exponent):
  rng = np.random.default_rng(0)
  scores = jax.tree.map(lambda mask: jnp.asarray(rng.random(mask.shape), jnp.float32), ticket.masks)
  found = with_units(scores, task, exponent)
  names = ("hidden_0", "hidden_1", "output")
  want = slowly_weighted([np.asarray(scores[name]["kernel"], np.float64) for name in names], exponent)
  for name, one in zip(names, want, strict=True):
    np.testing.assert_allclose(found[name]["kernel"], one, rtol=1e-4)
  assert jax.tree.structure(found) == jax.tree.structure(scores)


def test_units_without_saliency_take_their_genes_with_them(task, ticket):
  scores = jax.tree.map(lambda mask: jnp.ones(mask.shape), ticket.masks)
  scores["hidden_1"]["kernel"] = scores["hidden_1"]["kernel"].at[3].set(0)
  found = with_units(scores, task, 1.0)
  assert not found["hidden_0"]["kernel"][:, 3].any()
  assert found["hidden_0"]["kernel"][:, [0, 1, 2, 4, 5, 6, 7]].all()
  nothing = jax.tree.map(jnp.zeros_like, scores)
  assert_same_bits(with_units(nothing, task, 1.0), nothing)


def test_structured_dormancy_leaves_fewer_units_alive(data):
  network = nets_jax.MLP((40, 30), 3)
  task = nets_jax.Task(network, data, nets_jax.Training(learning_rate=0.2, batch_size=12))
  counts = []
  for exponent in (0.0, 2.0):
    search = nets_jax.recipes.guided(
      target_density=0.1, structured=exponent, population_size=4, generations=4, fitness_epochs=1.0
    )
    (operator,) = (one for one in search.operators if isinstance(one, ScheduledDormancy))
    assert operator.structured == exponent
    tickets = [
      found.ticket for found in nets_jax.search_all(jax.random.split(jax.random.key(0), 3), task, search)
    ]
    assert [float(nets_jax.density(ticket)) for ticket in tickets] == pytest.approx([0.1] * 3, abs=1e-3)
    small = [compact(ticket, network, data.input_shape, round_up=False) for ticket in tickets]
    counts.append(sum(one.multiplications for one in small))
  assert counts[1] < 0.7 * counts[0]


def test_a_candidate_knows_its_multiplications(task):
  seen = []

  def objective(candidate):
    jax.debug.callback(
      lambda *all: seen.append(jax.tree.map(np.asarray, all)), candidate.ticket, candidate.multiplications
    )
    assert candidate.whole_multiplications == 6 * 8 + 8 * 5 + 5 * 3
    return candidate.valid_loss + candidate.multiplications / candidate.whole_multiplications

  search = nets_jax.recipes.paper(population_size=3, generations=1, initial_density=0.1)
  search = search.change(objective=objective)
  nets_jax.search(0, task, search)
  jax.effects_barrier()
  assert len(seen) == 6
  for ticket, found in seen:
    small = compact(ticket, task.network, task.data.input_shape, round_up=False)
    counts = [int(of.sum()) for of in small.live.values()]
    if min(counts):
      assert found == small.multiplications
    else:
      assert found < small.multiplications


def test_structure_where_chance_decides_is_refused(task):
  search = nets_jax.recipes.guided(structured=1.0, saliency="random")
  with pytest.raises(nets_jax.UsageError, match="structured goes by the saliencies of units, of"):
    nets_jax.search(0, task, search)
