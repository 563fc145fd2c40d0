"""Which genomes become parents: each scheme draws ONE, and favours low fitness.

A genome of fitness +inf is never drawn while a finite one exists; if there is none, all are equal. In what
follows there are k finite genomes, of ranks 0 (lowest fitness) to k - 1.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, Num

from nets_jax import structs
from nets_jax.errors import UsageError
from nets_jax.kinds import WHOLE, at_least
from nets_jax.settings import setting

TRUNCATION_FRACTION = 0.5
Shares = Num[Array, " population"] | Bool[Array, " population"]


class Selection:
  """Draws one parent: `(key, fitness) -> index`, int32; fitness is minimised, without NaN."""

  def __call__(self, key: Key[Array, ""], fitness: Float[Array, " population"]) -> Int[Array, ""]:
    """By shares: the probability of a genome is its share of all."""
    finite = jnp.isfinite(fitness)
    eligible = finite | ~finite.any()
    rank = jnp.argsort(jnp.argsort(jnp.where(finite, fitness, jnp.inf), stable=True))
    share = jnp.where(finite.any(), self.shares(fitness, finite, rank, eligible), 1)
    return jax.random.categorical(key, jnp.log(jnp.where(eligible, share, 0).astype(jnp.float32)))

  def shares(
    self,
    fitness: Float[Array, " population"],
    finite: Bool[Array, " population"],
    rank: Int[Array, " population"],
    eligible: Bool[Array, " population"],
  ) -> Shares:
    """What each genome's probability is proportional to.

    Args:
      fitness: of each.
      finite: whether it is.
      rank: its place by fitness, from 0.
      eligible: whether the genome may be drawn; what is said of another does not count.
    """
    raise NotImplementedError

  def check(self, population_size: int) -> None:
    """Raises UsageError for a setting that does not go with so many genomes."""


@structs.dataclass
class Tournament(Selection):
  """The best of `size` uniform draws, the first of equals."""

  size: int = setting(
    2, "tournament: genomes drawn.", group="search", kind=WHOLE, rule=at_least(1), static=True,
    flag="tournament_size",
  )  # fmt: skip

  def __call__(self, key: Key[Array, ""], fitness: Float[Array, " population"]) -> Int[Array, ""]:
    """The winner."""
    finite = jnp.isfinite(fitness)
    eligible = finite | ~finite.any()
    contestants = jax.random.categorical(key, jnp.where(eligible, 0.0, -jnp.inf), shape=(self.size,))
    return contestants[jnp.argmin(fitness[contestants])]


@structs.dataclass
class Rank(Selection):
  """Proportional to k - rank (linear ranking; Baker, 1985)."""

  def shares(
    self,
    fitness: Float[Array, " population"],
    finite: Bool[Array, " population"],
    rank: Int[Array, " population"],
    eligible: Bool[Array, " population"],
  ) -> Shares:
    """K - rank."""
    return eligible.sum() - rank


@structs.dataclass
class Truncation(Selection):
  """The same for the best `parents`, or ceil(k * `TRUNCATION_FRACTION`) if that is 0; 0 for the others."""

  parents: int = setting(
    0, "truncation: how many of the best are drawn from; 0 is half of them.", group="search", kind=WHOLE,
    rule=at_least(0), flag="parents",
  )  # fmt: skip

  def shares(
    self,
    fitness: Float[Array, " population"],
    finite: Bool[Array, " population"],
    rank: Int[Array, " population"],
    eligible: Bool[Array, " population"],
  ) -> Shares:
    """1 or 0."""
    half = jnp.ceil(eligible.sum() * TRUNCATION_FRACTION)
    return rank < jnp.where(self.parents > 0, self.parents, half)

  def check(self, population_size: int) -> None:
    """Raises UsageError for more parents than genomes."""
    if self.parents > population_size:
      raise UsageError(f"parents must be from 0 to population_size = {population_size}, not {self.parents}")


@structs.dataclass
class Roulette(Selection):
  """Proportional to f_max - f, the distance to the worst (windowing; Goldberg, 1989); else equal."""

  def shares(
    self,
    fitness: Float[Array, " population"],
    finite: Bool[Array, " population"],
    rank: Int[Array, " population"],
    eligible: Bool[Array, " population"],
  ) -> Shares:
    """f_max - f."""
    share = jnp.max(jnp.where(finite, fitness, -jnp.inf)) - fitness
    return jnp.where(jnp.any(eligible & (share > 0)), share, 1.0)


SELECTIONS: dict[str, Callable[[], Selection]] = {
  "tournament": Tournament,
  "rank": Rank,
  "truncation": Truncation,
  "roulette": Roulette,
}
