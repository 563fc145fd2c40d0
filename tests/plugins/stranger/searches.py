"""A search of one's own, and a recipe with an operator of one's own."""

from typing import Any

import jax

import nets_jax
from nets_jax.evolution.operators import Operator, rate_setting
from nets_jax.kinds import NUMBER, SHARE
from nets_jax.settings import setting
from nets_jax.structs import field


@nets_jax.dataclass
class Halves(nets_jax.Search):
  """Random tickets that keep a share of the weights."""

  share: float = setting(0.5, "Share of the weights that are kept.", group="halves", kind=NUMBER, rule=SHARE)

  def find(self, keys, task, how):
    """One ticket for each key."""
    shape, nothing = task.data.input_shape, nets_jax.Cost(0.0, 0.0, 0.0)
    made = [nets_jax.random_ticket(key, task.network, shape, self.share, layers=task.layers) for key in keys]
    rows = [[{"ticket": 0, "density": float(nets_jax.density(ticket))}] for ticket in made]
    return [nets_jax.SearchResult(ticket, row, nothing) for ticket, row in zip(made, rows, strict=True)]


@nets_jax.dataclass
class Flip(Operator):
  """The sign of a weight changes."""

  rate: Any = rate_setting(0.05, "Probability that a weight changes its sign.")
  name: str = field(pytree_node=False, default="flip")

  def __call__(self, key, child, context):
    """The child, some signs changed."""
    rate, leaves = context.rate(self.rate), jax.tree.leaves(child.weights)
    keys = jax.tree.unflatten(jax.tree.structure(child.weights), list(jax.random.split(key, len(leaves))))

    def flip(key, weight):
      return jax.numpy.where(jax.random.bernoulli(key, rate, weight.shape), -weight, weight)

    return child.replace(weights=jax.tree.map(flip, keys, child.weights))


def flipping(**settings: Any) -> nets_jax.Nets:
  """The paper's search, with signs that change in place of noise."""
  paper = nets_jax.recipes.paper()
  operators = (nets_jax.operators.Crossover(), Flip(), nets_jax.operators.Dormancy())
  return paper.replace(operators=operators).change(**settings)
