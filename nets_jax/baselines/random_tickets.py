"""Random tickets: random weights under a random mask (paper, Table 1)."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from nets_jax.data import Dataset
from nets_jax.errors import check, check_scale
from nets_jax.initialisation import draw_like, initial_weights
from nets_jax.layers import find_layers
from nets_jax.networks import Scale, check_outputs
from nets_jax.tickets import (
  Cost,
  SearchResult,
  Ticket,
  density,
  full_masks,
  maskable_count,
  top_masks,
)


@struct.dataclass
class RandomConfig:
  """The settings of random tickets; the defaults are the paper's.

  Attributes:
    target_density: mean of the normal distribution that a ticket's density is drawn from.
    density_deviation: its standard deviation; 0 gives exactly the target. Draws are clipped to (0, 1].
    init_scale: standard deviation of the weights; one number, or one for each layer.
  """

  target_density: float = 0.2
  density_deviation: float = 0.05
  init_scale: Scale = 0.1


def random_ticket(
  key: jax.Array,
  network: nn.Module,
  input_shape: Sequence[int],
  density: float | jax.Array,
  *,
  init_scale: Scale = 0.1,
) -> Ticket:
  """Kernels ~ N(0, init_scale) under a mask that is uniform among all of its count.

  With the same key, tickets of all densities have the same weights, and a denser mask contains a
  sparser one; density 1 is the dense network.

  Args:
    key: consumed.
    network: the module.
    input_shape: shape of one input, without the batch axis.
    density: share of the maskable weights to keep; the count is rounded, and at least 1.
    init_scale: standard deviation of the weights; one number, or one for each layer.
  """
  weights_key, masks_key = jax.random.split(key)
  weights = initial_weights(weights_key, network, input_shape, init_scale)
  full = Ticket(weights, full_masks(weights), layers=find_layers(network, input_shape))
  scores = draw_like(lambda size: jax.random.uniform(masks_key, (size,)), full.masks)
  count = jnp.maximum(jnp.round(density * maskable_count(full)), 1).astype(jnp.int32)
  return full.replace(masks=top_masks(scores, count))


def search_all(
  keys: jax.Array,
  network: nn.Module,
  data: Dataset,
  config: RandomConfig | None = None,
  *,
  on_rows: Callable[[list[dict[str, Any]]], None] = lambda rows: None,
  keep_failures: bool = False,
  **layout: Any,
) -> list[SearchResult]:
  """A random ticket for each key, at no cost; the history is one row, `ticket` 0 and its `density`.

  Args:
    keys: one per ticket.
    network: the module.
    data: gives the shape of an input.
    config: the settings; None is the paper's.
    on_rows: called with the rows.
    keep_failures: taken for that signature; a random ticket cannot fail.
    **layout: taken for the signature of the other searches; nothing here is worth more than one device.

  Raises:
    UsageError: a density outside (0, 1], a negative deviation, or a network that does not go with the data.
  """
  del layout, keep_failures
  config = config or RandomConfig()
  validate(config)
  check_outputs(network, data.input_shape, data.num_classes)

  @jax.jit
  def one(key):
    density_key, ticket_key = jax.random.split(key)
    drawn = config.target_density + config.density_deviation * jax.random.normal(density_key)
    share = jnp.clip(drawn, 0, 1)
    return random_ticket(ticket_key, network, data.input_shape, share, init_scale=config.init_scale)

  results = []
  for key in keys:
    ticket = jax.device_get(one(key))
    rows = [{"ticket": 0, "density": float(density(ticket)), "seconds": 0.0}]
    on_rows(rows)
    results.append(SearchResult(ticket, rows, Cost(0.0, 0.0, 0.0), best=rows[0]))
  return results


def search(key: jax.Array, network: nn.Module, data: Dataset, config: RandomConfig | None = None, **kwargs):
  """One random ticket: `search_all` for one key. Returns its `SearchResult`."""
  return search_all(key[None], network, data, config, **kwargs)[0]


def validate(config: RandomConfig) -> None:
  """Raises UsageError for settings that make no ticket."""
  check(config, ["target_density"], "in (0, 1]", lambda d: 0 < d <= 1)
  check(config, ["density_deviation"], "at least 0", lambda deviation: deviation >= 0)
  check_scale(config)
