"""What a genome's fitness is made of, and what orders the genomes for selection and elites.

A ranking turns the objective (the validation loss, where nobody gives another) and the density into one
number to minimise, and a population's metrics into an order. With P the density penalty (paper, equation 1).
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from nets_jax import structs
from nets_jax.evolution import pareto
from nets_jax.evolution.fitness import Metrics, density_penalty
from nets_jax.evolution.schedules import Number
from nets_jax.kinds import DENSITY, NUMBER, at_least
from nets_jax.rows import INFEASIBLE
from nets_jax.settings import setting

TOLERANCE = 1e-4  # of a density
MOST_DECADES = 37  # that a float32 number may be above a quarter of `INFEASIBLE`


def _target_density():
  return setting(
    0.2, "Density of the ticket to find, in (0, 1].", group="fitness", kind=NUMBER, rule=DENSITY,
    flag="target_density",
  )  # fmt: skip


class Ranking:
  """Base of all. `fitness` is one genome's, `order` a population's.

  Attributes:
    uses_objective: whether an objective of one's own has a say in who becomes a parent.
  """

  uses_objective = True

  @property
  def target_density(self) -> Number | None:
    """Tau, of those that aim at one: a field of theirs."""
    return None

  def fitness(
    self, objective: Float[Array, ""], density: Float[Array, ""], is_loss: bool
  ) -> Float[Array, ""]:
    """What is minimised, of ONE genome.

    Args:
      objective: its value, a float32 scalar.
      density: of the genome.
      is_loss: whether the objective is the validation loss in nats, of which a size is known.
    """
    raise NotImplementedError

  def counted(self, density: Float[Array, ""], size: int) -> Float[Array, ""]:
    """A density as this ranking takes it, of a network of so many maskable weights; itself, usually."""
    del size
    return density

  def order(self, metrics: Metrics) -> Float[Array, " population"]:
    """Numbers that order a population, the lowest first; the fitness, if not overridden."""
    return jnp.asarray(metrics.fitness)


@structs.dataclass
class Penalised(Ranking):
  """The paper's l + penalty_weight * P, l the objective, with `penalty_weight` 1 there."""

  target_density: Number = _target_density()
  weight: Number = setting(
    1.0, "penalty: factor of the density penalty.", group="fitness", kind=NUMBER, rule=at_least(0),
    flag="penalty_weight",
  )  # fmt: skip

  def fitness(
    self, objective: Float[Array, ""], density: Float[Array, ""], is_loss: bool
  ) -> Float[Array, ""]:
    """L + weight * P."""
    return objective + self.weight * density_penalty(density, self.target_density)


@structs.dataclass
class Feasible(Ranking):
  """Feasible first: the objective; for a genome denser than the target far more, the denser the more.

  A density of up to `TOLERANCE` above the target counts as feasible, and so does the count of weights that is
  nearest to it, so that rounding decides nothing. A loss of more than `INFEASIBLE` counts as that. Another
  objective may have any sign and size: see `_bounded`.
  """

  target_density: Number = _target_density()

  def fitness(
    self, objective: Float[Array, ""], density: Float[Array, ""], is_loss: bool
  ) -> Float[Array, ""]:
    """The objective, and more where the density is too high."""
    bounded: Callable = (lambda loss: jnp.minimum(loss, INFEASIBLE)) if is_loss else _bounded
    base = INFEASIBLE if is_loss else 1.5 * INFEASIBLE
    excess = jnp.maximum(density - self.target_density - TOLERANCE, 0)
    return bounded(objective) + jnp.where(excess > 0, base * (1 + excess), 0)

  def counted(self, density: Float[Array, ""], size: int) -> Float[Array, ""]:
    """The target itself, where no other number of weights is nearer to it."""
    is_nearest = jnp.abs(density - self.target_density) * size <= 0.5 * (1 + TOLERANCE)
    return jnp.where(is_nearest, self.target_density, density)


@structs.dataclass
class Pareto(Feasible):
  """The best ticket as by `Feasible`; parents and elites by non-dominated rank and crowding (NSGA-II).

  In density and validation loss; see `pareto`. Then a search breeds for the whole of that frontier.
  """

  target_density: Number = _target_density()
  uses_objective = False

  def order(self, metrics: Metrics) -> Float[Array, " population"]:
    """Each genome's place, +inf where a value is not finite."""
    return pareto.pareto_order(jnp.stack([getattr(metrics, name) for name in pareto.OBJECTIVES], axis=-1))


@structs.dataclass
class Unconstrained(Ranking):
  """The objective alone, whatever the density."""

  def fitness(
    self, objective: Float[Array, ""], density: Float[Array, ""], is_loss: bool
  ) -> Float[Array, ""]:
    """The objective."""
    del density, is_loss
    return objective


def _bounded(value: Float[Array, ""]) -> Float[Array, ""]:
  """An objective within half of `INFEASIBLE` of 0, in the same order, so that density can always outweigh it.

  Itself up to a quarter of `INFEASIBLE`; beyond, that and another quarter by the logarithm, so that two large
  values are told apart by a hundred thousandth of their size. Not finite stays so.
  """
  quarter = INFEASIBLE / 4
  decades = jnp.log10(jnp.maximum(jnp.abs(value), quarter) / quarter)
  beyond = jnp.sign(value) * quarter * (1 + decades / MOST_DECADES)
  return jnp.where(jnp.isfinite(value) & (jnp.abs(value) > quarter), beyond, value)


RANKINGS: dict[str, Callable[[], Ranking]] = {
  "penalty": Penalised,
  "feasible": Feasible,
  "pareto": Pareto,
  "none": Unconstrained,
}
