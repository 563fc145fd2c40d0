"""Gradual magnitude pruning: a network is pruned while it trains (Zhu & Gupta, 2017)."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from nets_jax import structs
from nets_jax.baselines.dynamic import GROUP, Dynamic, Moving
from nets_jax.errors import UsageError
from nets_jax.kinds import NUMBER, SHARE
from nets_jax.networks.adapter import Params
from nets_jax.settings import setting
from nets_jax.tickets.layer_counts import counts_on_the_way, keep_highest
from nets_jax.tickets.ticket import Ticket, kernels, maskable_count
from nets_jax.training.task import Task


@structs.dataclass
class Gradual(Dynamic):
  """Gradual magnitude pruning (Zhu & Gupta, 2017): from the dense network down, by a cubic schedule.

  Every `mask_every` steps t from `mask_from` to `mask_until` the mask keeps the largest weights, of density

      d_t = d + (1 - d) (1 - (t - T_0) / (T - T_0))^3

  of all layers together, with T the last of these steps and T_0 `mask_every` before the first. What was
  masked does not come back.

  Attributes:
    mask_from: share of the training after which pruning begins (static).
    target_density, mask_every, mask_until, precision: see `Dynamic`; d is the first.
  """

  mask_from: float = setting(
    0.1, "gradual: share of the training after which pruning begins.", group=GROUP, kind=NUMBER, rule=SHARE,
    static=True,
  )  # fmt: skip

  def check(self, task: Task) -> None:
    """Raises UsageError for settings that make no search."""
    if not self.mask_from < self.mask_until:
      raise UsageError(f"mask_from ({self.mask_from:g}) must be below mask_until ({self.mask_until:g})")
    super().check(task)

  def changes(self, task: Task) -> range:
    """See `Dynamic.changes`; none before `mask_from`."""
    every = self.mask_every
    first = every * max(1, math.ceil(self.mask_from * self.steps(task) / every))
    return range(first, super().changes(task).stop, every)

  def first_masks(self, key: Key[Array, ""], ticket: Ticket, task: Task) -> Params:
    """Of the dense network."""
    del key, task
    return ticket.masks

  def moved(
    self, key: Key[Array, ""], state: Moving, task: Task, rows: Int[Array, " batch"], at: Array
  ) -> Params:
    """See above; the last change is to the target exactly."""
    del key, rows
    due, total = self.changes(task), maskable_count(state.ticket)
    begun = due[0] - self.mask_every
    way = jnp.clip((at - begun) / (due[-1] - begun), 0, 1)
    target = self.target_density
    density = jnp.where(way < 1, target + (1 - target) * (1 - way) ** 3, target)
    count = jnp.maximum(jnp.round(density * total), 1).astype(jnp.int32)
    weights = kernels(state.training.weights, state.masks)
    scores = jax.tree.map(lambda mask, w: jnp.where(mask, jnp.abs(w), -jnp.inf), state.masks, weights)
    return keep_highest(scores, count, task.layers, counts_on_the_way(task.layers, 1.0, way))


SEARCHES = {"gradual": Gradual}
