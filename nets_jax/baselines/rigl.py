"""RigL and SET: of a sparse network in training, weights are dropped and others grow."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from nets_jax import structs
from nets_jax.baselines.dynamic import GROUP, Dynamic, Moving
from nets_jax.errors import UsageError
from nets_jax.kinds import DENSITY, NUMBER, SHARE, choice, one_of
from nets_jax.networks.adapter import Params, forward_for_scores
from nets_jax.networks.initialisation import draw_like
from nets_jax.networks.layers import Layer
from nets_jax.settings import setting
from nets_jax.tickets.allocation import ALLOCATIONS, allocate
from nets_jax.tickets.layer_counts import keep_highest
from nets_jax.tickets.patterns import check_counts, pattern_of, patterned
from nets_jax.tickets.pruning import top_masks
from nets_jax.tickets.ticket import Ticket, from_layers, kernels
from nets_jax.training.task import Task


@structs.dataclass
class Rigl(Dynamic):
  """RigL (Evci et al., 2020): the smallest weights are dropped, and those of the largest gradient grow.

  Every `mask_every` steps t up to `mask_until` of the training, of a layer's n weights

      k = round(f n),   f = (a / 2) (1 + cos(t pi / T)),

  the k of smallest |w| are dropped. Of all that are dormant then, the k of largest |dL/dw| grow, from zero
  where they were not dropped just now: the gradient of the dense network at the step's minibatch. No other
  weight moves in such a step. Layers keep their counts, which are those of `mask_allocation`. SET (Mocanu et
  al., 2018) grows at random.

  Attributes:
    target_density: of the network all the time; the count is exact (static).
    mask_allocation: how many weights each layer keeps; a name in `ALLOCATIONS` (static).
    mask_growth: `gradient`, or `random` (static).
    drop_fraction: a, the share of a layer's weights that moves at first.
    mask_every, mask_until, precision: see `Dynamic`; T is that share of the training.
  """

  target_density: float = setting(
    0.2, "Density of the ticket to find, in (0, 1].", group="fitness", kind=NUMBER, rule=DENSITY, static=True
  )
  mask_allocation: str = setting(
    "erk", "rigl, set: how many weights each layer keeps.", group=GROUP, kind=choice(tuple(ALLOCATIONS)),
    rule=one_of(tuple(ALLOCATIONS)), static=True,
  )  # fmt: skip
  mask_growth: str = setting(
    "gradient", "rigl, set: what grows: the largest gradients, or chance.", group=GROUP,
    kind=choice(("gradient", "random")), rule=one_of(("gradient", "random")), static=True,
  )  # fmt: skip
  drop_fraction: float = setting(
    0.3, "rigl, set: share of a layer's weights that moves at first.", group=GROUP, kind=NUMBER, rule=SHARE
  )
  moves_alone = True

  def check(self, task: Task) -> None:
    """Raises UsageError for settings that make no search; the rule for layers is tried."""
    super().check(task)
    check_counts(task.layers, self._counts(task))
    if any((pattern := pattern_of(layer)) is not None and not pattern.of for layer in task.layers):
      raise UsageError(
        f"rigl and set move weights one by one, so mask_pattern={task.mask_pattern} would not last; take "
        "another pattern, or another search"
      )

  def _counts(self, task: Task) -> dict[str, int]:
    total = sum(layer.size for layer in task.layers)
    return allocate(
      ALLOCATIONS[self.mask_allocation], task.layers, max(1, round(self.target_density * total))
    )

  def first_masks(self, key: Key[Array, ""], ticket: Ticket, task: Task) -> Params:
    """Random, of each layer's count."""
    scores = draw_like(lambda size: jax.random.uniform(key, (size,)), ticket.masks)
    counts = self._counts(task)
    return keep_highest(scores, sum(counts.values()), task.layers, counts)

  def moved(
    self, key: Key[Array, ""], state: Moving, task: Task, rows: Int[Array, " batch"], at: Array
  ) -> Params:
    """See above."""
    end = self.mask_until * self.steps(task)
    share = self.drop_fraction / 2 * (1 + jnp.cos(at * jnp.pi / end))
    counts = self._counts(task)
    ticket = state.ticket.replace(masks=state.masks)
    masks = ticket.by_layer(state.masks)
    weights = ticket.by_layer(state.training.weights)
    growth = ticket.by_layer(self._growth(key, state, task, rows))
    moved = {}
    for layer in task.layers:
      name = layer.name
      moved[name] = swap(masks[name], weights[name], growth[name], counts[name], share, layer)
    return from_layers(ticket, moved)

  def _growth(self, key: Key[Array, ""], state: Moving, task: Task, rows: Int[Array, " batch"]) -> Params:
    """A score of each dormant weight; the highest grow."""
    if self.mask_growth == "random":
      return draw_like(lambda size: jax.random.uniform(key, (size,)), state.masks)
    batch = jax.tree.map(jnp.asarray, task.data.train).examples(rows)

    def loss(weights):
      outputs = forward_for_scores(task.network, weights, batch.inputs)
      return jnp.mean(task.training_losses(outputs, batch.labels))

    return kernels(jax.tree.map(jnp.abs, jax.grad(loss)(state.training.weights)), state.masks)


def swap(
  mask: Array, weights: Array, growth: Array, count: int, share: Array, layer: Layer | None = None
) -> Array:
  """ONE layer's mask after k = round(share * count) of its weights moved; its count stays.

  Args:
    mask: of `count` weights.
    weights: as they are; the k of smallest |w| under the mask are dropped.
    growth: not negative; of those dormant then, dropped ones too, the k highest grow.
    count: the mask's (static).
    share: of it that moves.
    layer: whose mask may have a pattern, which it keeps to.
  """
  number = jnp.round(share * count).astype(jnp.int32)
  number = jnp.minimum(number, mask.size - count)  # no more than were dormant
  kept = top_masks(jnp.where(mask, jnp.abs(weights), -jnp.inf), count - number)
  if layer is not None:  # where a row of its pattern has room beside what was kept
    growth = patterned({layer.name: growth}, [layer], {layer.name: kept})[layer.name]
  return kept | (top_masks(jnp.where(kept, -jnp.inf, growth), number) & ~kept)


SEARCHES = {"rigl": Rigl, "set": functools.partial(Rigl, mask_growth="random")}
