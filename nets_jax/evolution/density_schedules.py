"""How the density of a population falls in the course of a search: functions of the search's progress."""

from collections.abc import Callable

import jax.numpy as jnp
from flax import struct

from nets_jax.evolution import schedules
from nets_jax.evolution.operators import Context
from nets_jax.kinds import NUMBER, SHARE, Number
from nets_jax.settings import setting

GROUP = "guided dormancy"


@struct.dataclass
class GeometricDensity:
  """d_0 * (tau / d_0)^x, with x the share of the generations that is over."""

  def __call__(self, context: Context) -> Number:
    """The density of the context's generation."""
    return schedules.Geometric(context.initial_density, _target(context))(context.progress)


@struct.dataclass
class CubicDensity:
  """tau + (d_0 - tau) * (1 - x)^3 (Zhu & Gupta, 2018)."""

  def __call__(self, context: Context) -> Number:
    """The density of the context's generation."""
    return schedules.Cubic(context.initial_density, _target(context))(context.progress)


@struct.dataclass
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
