"""How the density of a population falls in the course of a search: functions of the search's progress."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array

from nets_jax import structs
from nets_jax.evolution import schedules
from nets_jax.evolution.context import Context
from nets_jax.kinds import NUMBER, SHARE, WHOLE, Number, at_least
from nets_jax.settings import setting

GROUP = "guided dormancy"


def passed(context: Context, most: Number) -> Array:
  """x, the share of a search that is over: of its generations, or of the iterations of its trainings.

  By iterations generation g has x = sum_{j < g} min(T_j, most) / sum_{j < n} min(T_j, most): what a short
  training shows is little, and after some number of iterations more of them show no more.

  Args:
    context: of a child of generation g.
    most: iterations T_j of a training that count; with 0 generations do, all alike.
  """
  if context.iterations is None:
    return context.progress
  counted = jnp.minimum(context.iterations[:-1], jnp.asarray(most, jnp.int32))
  before = jnp.sum(jnp.where(jnp.arange(len(counted)) < context.generation, counted, 0))
  return jnp.where(jnp.asarray(most) > 0, before / jnp.maximum(jnp.sum(counted), 1), context.progress)


def _counted_iterations() -> int:
  return setting(
    0, "Iterations of a training that count in the schedule, at most; 0: each generation counts alike.",
    group=GROUP, kind=WHOLE, rule=at_least(0), flag="counted_iterations",
  )  # fmt: skip


@structs.dataclass
class GeometricDensity:
  """d_0 * (tau / d_0)^x, with x the share of the search that is over; see `passed`."""

  counted_iterations: int = _counted_iterations()

  def __call__(self, context: Context) -> Number:
    """The density of the context's generation."""
    x = passed(context, self.counted_iterations)
    return schedules.Geometric(context.initial_density, _target(context))(x)


@structs.dataclass
class CubicDensity:
  """tau + (d_0 - tau) * (1 - x)^3 (Zhu & Gupta, 2018), with x the share of the search that is over."""

  counted_iterations: int = _counted_iterations()

  def __call__(self, context: Context) -> Number:
    """The density of the context's generation."""
    x = passed(context, self.counted_iterations)
    return schedules.Cubic(context.initial_density, _target(context))(x)


@structs.dataclass
class ConstantShare:
  """max(tau, d_0 * (1 - rate)^g): the same share each generation g, until the target is reached."""

  rate: float = setting(
    0.2, "constant: share of the expressed genes that fall dormant in a generation.", group=GROUP,
    kind=NUMBER,
    rule=SHARE, flag="dormancy_rate",
  )  # fmt: skip

  def __call__(self, context: Context) -> Number:
    """The density of the context's generation."""
    first, target = context.initial_density, _target(context)
    passed = context.progress * context.generations
    return jnp.maximum(jnp.minimum(first, target), first * (1 - self.rate) ** passed)


def _target(context: Context) -> Number:
  """The target density; that there is one has been checked, for an operator that `needs_target`."""
  assert context.target_density is not None
  return context.target_density


DENSITY_SCHEDULES: dict[str, Callable[[], Callable[[Context], Number]]] = {
  "geometric": GeometricDensity,
  "cubic": CubicDensity,
  "constant": ConstantShare,
}
