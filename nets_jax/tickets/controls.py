"""Controls of a ticket: what is left of it without its weights, its mask, or the place of its mask."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, PyTree

from nets_jax.networks.adapter import Network, Scale
from nets_jax.networks.initialisation import Initialiser, as_initialiser
from nets_jax.tickets.ticket import Ticket


def split_like(key: Key[Array, ""], tree: PyTree) -> PyTree:
  """One key for each leaf of `tree`, in its structure."""
  leaves, treedef = jax.tree.flatten(tree)
  return jax.tree.unflatten(treedef, list(jax.random.split(key, len(leaves))))


def reinitialise(
  key: Key[Array, ""],
  ticket: Ticket,
  network: Network,
  input_shape: Sequence[int],
  initialiser: Initialiser | Scale = 0.1,
) -> Ticket:
  """A control: the ticket's mask on new weights (Frankle & Carbin, 2019, section 3)."""
  weights = as_initialiser(initialiser).draw(key, network, input_shape, ticket.layers)
  return ticket.replace(weights=weights)


def shuffle_mask(key: Key[Array, ""], ticket: Ticket) -> Ticket:
  """A control: the ticket's weights under its mask permuted within each layer, so of the same counts."""
  masks = jax.tree.map(
    lambda k, mask: jax.random.permutation(k, mask.reshape(-1)).reshape(mask.shape),
    split_like(key, ticket.masks),
    ticket.masks,
  )
  return ticket.replace(masks=masks)


def unmask(ticket: Ticket) -> Ticket:
  """The dense network of a ticket: its own weights, none masked."""
  return ticket.replace(masks=jax.tree.map(jnp.ones_like, ticket.masks))
