"""What a genetic operator sees besides the child it acts on."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Key

from nets_jax import structs
from nets_jax.evolution.schedules import Rate, rate_at
from nets_jax.kinds import Number
from nets_jax.networks.initialisation import Initialiser
from nets_jax.tickets.ticket import Ticket


@structs.dataclass
class Context:
  """What an operator sees besides the child; scalars, of ONE child.

  Attributes:
    parents: both; None in generation 0.
    index: the child's, among those of its run.
    generation: that the child is of, from 0.
    generations: n, the last one.
    is_elite: whether it goes on as an elite.
    key: of the breeding of the run's whole generation; an operator's own key is its first argument.
    initialiser: of the task, `fitted` to its network: what initial weights are drawn by.
    initial_density, target_density: of the search; the latter is None where its ranking aims at none.
    is_line: whether it is of a line that an operator keeps; see `Operator.keeps_line`.
    iterations: [n + 1] of the fitness evaluations of each generation; None where all are alike.
  """

  parents: tuple[Ticket, Ticket] | None
  index: int | Int[Array, ""]
  generation: int | Int[Array, ""]
  generations: int | Int[Array, ""]
  is_elite: bool | Bool[Array, ""]
  key: Key[Array, ""]
  initialiser: Initialiser
  initial_density: Number
  target_density: Number | None
  is_line: bool | Bool[Array, ""] = False
  iterations: Int[Array | np.ndarray, " generations"] | None = None

  @property
  def progress(self) -> Array:
    """The share of the search that is over when this generation is evaluated: 0 in generation 0, 1 in n."""
    return jnp.minimum(self.generation / jnp.maximum(self.generations, 1), 1.0)

  @property
  def step(self) -> Array:
    """Where schedules of rates are: 0 in the first breeding and before, 1 in the last that counts."""
    return jnp.clip((self.generation - 1) / jnp.maximum(self.generations - 1, 1), 0.0, 1.0)

  def rate(self, rate: Rate) -> Array:
    """A rate as it is now: the number, or its schedule's."""
    return rate_at(rate, self.step)
