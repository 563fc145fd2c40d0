"""Random tickets: random weights under a random mask (paper, Table 1)."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from nets_jax import structs
from nets_jax.engine.seeds import KeyLike, as_key
from nets_jax.errors import UsageError
from nets_jax.kinds import DENSITY, NUMBER, at_least, choice, one_of
from nets_jax.networks.adapter import Network, Scale
from nets_jax.networks.initialisation import Initialiser, as_initialiser, draw_like
from nets_jax.networks.layers import Layer, find_layers
from nets_jax.protocol import INSTANT_VARIES, How, Outcome, Search
from nets_jax.rows import Rows
from nets_jax.settings import setting
from nets_jax.tickets.allocation import ALLOCATIONS, Allocation, allocate
from nets_jax.tickets.layer_counts import keep_highest
from nets_jax.tickets.patterns import check_counts, has_pattern
from nets_jax.tickets.results import Cost, SearchResult
from nets_jax.tickets.ticket import Ticket, density, full_masks, maskable_count
from nets_jax.training.task import Task

CHOICES = ("none", *ALLOCATIONS)


def random_ticket(
  key: KeyLike,
  network: Network,
  input_shape: Sequence[int],
  density: float | Float[Array, ""],
  *,
  initialiser: Initialiser | Scale = 0.1,
  layers: Sequence[Layer] = (),
  counts: Mapping[str, int] | None = None,
) -> Ticket:
  """Weights by an initialiser, under a mask that is uniform among all of its count, or of each layer's.

  With the same key, tickets of all densities have the same weights, and a denser mask contains a
  sparser one; density 1 is the dense network.

  Args:
    key: consumed.
    network: the module.
    input_shape: shape of one input, without the batch axis.
    density: share of the maskable weights to keep; the count is rounded, and at least 1.
    initialiser: of the weights; or a standard deviation: one number, or one for each layer.
    layers: of the network, as a task has them: single ones may have counts of their own, and the density is
      then as near as these allow. They are found where none are given.
    counts: of each layer by its name, as of `allocate`; None is one mask over all layers.
  """
  weights_key, masks_key = jax.random.split(as_key(key))
  layers = tuple(layers) or find_layers(network, input_shape)
  weights = as_initialiser(initialiser).draw(weights_key, network, input_shape, layers)
  full = Ticket(weights, full_masks(weights, layers), layers=layers)
  scores = draw_like(lambda size: jax.random.uniform(masks_key, (size,)), full.masks)
  count = jnp.maximum(jnp.round(density * maskable_count(full)), 1).astype(jnp.int32)
  return full.replace(masks=keep_highest(scores, count, layers, counts))


def random_ticket_for(
  key: KeyLike, task: Task, density: float, initialiser: Initialiser | Scale | None = None
) -> Ticket:
  """A random ticket for a task: of what its masks cover, and where it is sparse, of its layers' own counts.

  Args:
    key: consumed.
    task: its network, data and layers.
    density: see `random_ticket`; 1 is the dense network, whose layers keep every weight.
    initialiser: of the weights; None is the task's.
  """
  layers = task.layers if density < 1 else task.free_layers
  own = task.initialiser if initialiser is None else initialiser
  return random_ticket(key, task.network, task.data.input_shape, density, initialiser=own, layers=layers)


@structs.dataclass
class Random(Search):
  """Random tickets, at no cost; what nobody sets is the paper's.

  Attributes:
    target_density: mean of the normal distribution that a ticket's density is drawn from.
    density_deviation: its standard deviation; 0 gives exactly the target. Draws are clipped to (0, 1].
    allocation: how many weights each layer keeps: a name in `ALLOCATIONS`, or a function of one's own; none
      is one mask over all layers (static).
  """

  target_density: float = setting(
    0.2, "Density of the ticket to find, in (0, 1].", group="fitness", kind=NUMBER, rule=DENSITY
  )
  density_deviation: float = setting(
    0.05, "random: deviation of the density; 0 is exactly the target.", group="other searches", kind=NUMBER,
    rule=at_least(0),
  )  # fmt: skip

  allocation: str | Allocation = setting(
    "none", "random: how many weights each layer keeps; none is a mask over all.", group="other searches",
    kind=choice(CHOICES), rule=one_of(CHOICES), static=True,
  )  # fmt: skip

  is_instant = True
  varies = INSTANT_VARIES

  def at_density(self, density: float, task: Task) -> Self:
    """Exactly of that density."""
    del task
    return self.replace(target_density=density, density_deviation=0.0)

  def check(self, task: Task) -> None:
    """Raises UsageError for settings that make no ticket; a rule for layers is tried."""
    super().check(task)
    if self.allocation != "none" and self.density_deviation:
      raise UsageError(
        "an allocation is of one density, so density_deviation must be 0; give that, or allocation=none"
      )
    if has_pattern(task.layers) and self.density_deviation:
      raise UsageError(
        "a mask_pattern is of one density, so density_deviation must be 0; give that, or no mask_pattern"
      )
    self._counts(self.target_density, task.layers)

  def find(self, keys: Key[Array, " runs"], task: Task, how: How) -> Sequence[Outcome]:
    """See `Search.find`; nothing here is worth more than one device, and none can fail.

    Returns:
      For each key the ticket; its history is one row, `ticket` 0 and its `density`.
    """
    shape, initialiser = task.data.input_shape, task.initialiser

    @jax.jit
    def draw(key):
      drawn = self.target_density + self.density_deviation * jax.random.normal(key)
      return jnp.clip(drawn, 0, 1)

    @jax.jit
    def ticket_of(key, density, counts):
      return random_ticket(
        key, task.network, shape, density, initialiser=initialiser, layers=task.layers, counts=counts
      )

    results = []
    for key in keys:
      density_key, ticket_key = jax.random.split(key)
      drawn = draw(density_key)
      ticket = jax.device_get(ticket_of(ticket_key, drawn, self._counts(float(drawn), task.layers)))
      rows: Rows = [{"ticket": 0, "density": float(density(ticket)), "seconds": 0.0}]
      how.on_rows(rows)
      results.append(SearchResult(ticket, rows, Cost(0.0, 0.0, 0.0), best=rows[0]))
    return results

  def _counts(self, density: float, layers: Sequence[Layer]) -> dict[str, int] | None:
    """Of each layer, where there is a rule for them."""
    if self.allocation == "none":
      return None
    rule = ALLOCATIONS[self.allocation] if isinstance(self.allocation, str) else self.allocation
    counts = allocate(rule, layers, round(density * sum(layer.size for layer in layers)))
    check_counts(layers, counts)
    return counts


@structs.dataclass
class Dense(Search):
  """The dense network, as a search that prunes nothing but layers that have a density of their own."""

  is_instant = True
  varies = INSTANT_VARIES

  def densities(self, asked: Sequence[float]) -> Sequence[float]:
    """Its own, whatever is asked for."""
    del asked
    return [1.0]

  def find(self, keys: Key[Array, " runs"], task: Task, how: How) -> Sequence[Outcome]:
    """See `Random.find`."""
    return Random(target_density=1.0, density_deviation=0.0).find(keys, task, how)


def _by(allocation: str) -> Callable[..., Random]:
  return functools.partial(Random, allocation=allocation, density_deviation=0.0)


SEARCHES = {"random": Random, "erk": _by("erk"), "smart_ratios": _by("smart_ratios"), "dense": Dense}
