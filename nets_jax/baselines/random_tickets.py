"""Random tickets: random weights under a random mask."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from nets_jax.networks import initial_weights
from nets_jax.tickets import Ticket, full_masks, maskable_count, split_like, top_masks


def random_ticket(
  key: jax.Array,
  network: nn.Module,
  input_shape: Sequence[int],
  density: float,
  *,
  init_scale: float = 0.1,
) -> Ticket:
  """Kernels ~ N(0, init_scale) under a mask that is uniform among all of its count (paper, Table 1).

  With the same key, tickets of all densities have the same weights, and a denser mask contains a
  sparser one; density 1 is the dense network.

  Args:
    key: consumed.
    network: the module.
    input_shape: shape of one input, without the batch axis.
    density: share of the maskable weights to keep; the count is rounded, and exact.
    init_scale: standard deviation of the weights.
  """
  weights_key, masks_key = jax.random.split(key)
  weights = initial_weights(weights_key, network, input_shape, init_scale)
  full = Ticket(weights, full_masks(weights))
  scores = jax.tree.map(
    lambda k, mask: jax.random.uniform(k, mask.shape), split_like(masks_key, full.masks), full.masks
  )
  count = jnp.round(density * maskable_count(full)).astype(jnp.int32)
  return full.replace(masks=top_masks(scores, count))
