"""A ticket with the weights that a training has left, checked to be of that ticket."""

import os
from collections.abc import Sequence

import jax
import numpy as np

from nets_jax.errors import UsageError
from nets_jax.networks.adapter import Network, NetworkState, initial_state
from nets_jax.tickets.storage import load_provenance, load_ticket
from nets_jax.tickets.tensor_files import read
from nets_jax.tickets.ticket import Ticket, check_fits, layers_of
from nets_jax.tickets.trained import load_trained

ABOUT = ("network", "network_arguments")


def shape_of_inputs(path: str | os.PathLike, ticket: Ticket, given: Sequence[int] = ()) -> tuple[int, ...]:
  """The shape of one example: as the file says, as given, or as an MLP's first layer has it.

  Raises:
    UsageError: it is not known, or is given and the file says another.
  """
  told = load_provenance(path).input_shape
  if told and given and told != tuple(given):
    raise UsageError(f"{path} is for inputs of shape {told}, not {tuple(given)}; leave --input_shape out")
  first = layers_of(ticket)[0].shape
  if shape := told or tuple(given) or ((first[0],) if len(first) == 2 else ()):
    return shape
  raise UsageError(f"{path} does not say what shape its inputs have; give --input_shape")


def load_trained_ticket(
  path: str | os.PathLike, trained: str | os.PathLike, network: Network, input_shape: Sequence[int]
) -> tuple[Ticket, NetworkState]:
  """The ticket whose weights are those of a trained network, and the state of that.

  Args:
    path: of the ticket.
    trained: of the trained network.
    network, input_shape: what both are of.

  Raises:
    UsageError: the trained network is another, has numbers that are not finite, or weights that the ticket
      masks.
  """
  ticket, found = load_ticket(path), load_trained(trained)
  about = read(path)[1]
  wrong = UsageError(f"{trained} is not a trained network of {path}")
  if any(found.metadata.get(name) != about.get(name) for name in ABOUT):
    raise UsageError(f"{wrong}: it is of another network")
  made = ticket.replace(weights=found.weights)
  try:
    check_fits(made, network, input_shape)
    masks, weights = made.by_layer(made.masks), made.by_layer(made.weights)
  except (UsageError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise UsageError(f"{wrong}: its layers are others") from error
  if not all(np.issubdtype(np.asarray(leaf).dtype, np.floating) for leaf in jax.tree.leaves(found.weights)):
    raise UsageError(f"{wrong}: its weights are not floating point numbers")
  if not all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(found.weights)):
    raise UsageError(f"{wrong}: it has weights that are NaN or infinite")
  if any(np.asarray(weights[name])[~np.asarray(mask)].any() for name, mask in masks.items()):
    raise UsageError(f"{wrong}: it has weights where the ticket has none")
  expected = jax.tree.map(np.shape, dict(initial_state(network, tuple(input_shape))))
  if jax.tree.map(np.shape, dict(found.network_state)) != expected:
    raise UsageError(f"{wrong}: the state that it is evaluated with is another's")
  return made, found.network_state
