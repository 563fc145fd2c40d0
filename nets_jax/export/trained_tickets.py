"""A ticket with the weights that a training has left, checked to be of that ticket."""

import os
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from nets_jax.errors import UsageError
from nets_jax.networks.adapter import Network, NetworkState, initial_state
from nets_jax.tickets.storage import fingerprint, load_network, load_provenance, load_ticket
from nets_jax.tickets.tensor_files import read
from nets_jax.tickets.ticket import Ticket, check_fits, layers_of
from nets_jax.tickets.trained import FINGERPRINT, load_trained

ABOUT = ("network", "network_arguments")


class Whole(NamedTuple):
  """What other libraries need of a ticket.

  Attributes:
    ticket: its weights, after a training as a rule, and masks.
    network: that it is of.
    input_shape: of one example.
    network_state: what a trained network is evaluated with; None is that which a training begins with.
  """

  ticket: Ticket
  network: Network
  input_shape: tuple[int, ...]
  network_state: NetworkState | None = None


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


def load_whole(
  path: str | os.PathLike,
  trained: str | os.PathLike | None = None,
  network: Network | None = None,
  input_shape: Sequence[int] = (),
) -> Whole:
  """A ticket as its file has it, or with the weights and the state that a training has left.

  Args:
    path: of the ticket.
    trained: of the trained network.
    network, input_shape: what both are of; by default those that the ticket's file says.

  Raises:
    UsageError: a file is damaged, the ticket is of another network, or the trained network is not of this
      ticket: it says so, its layers or its state are others, it has numbers that are not finite, or weights
      where the ticket has none.
  """
  ticket = load_ticket(path)
  network = network or load_network(path)
  shape = shape_of_inputs(path, ticket, input_shape)
  check_fits(ticket, network, shape)
  if trained is None:
    return Whole(ticket, network, shape)
  found, about = load_trained(trained), read(path)[1]
  wrong = f"{trained} is not a trained network of {path}"
  if any(found.metadata.get(name) != about.get(name) for name in ABOUT):
    raise UsageError(f"{wrong}: it is of another network")
  if _shapes(found.weights) != _shapes(ticket.weights):
    raise UsageError(f"{wrong}: its layers are others")
  leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(found.weights)]
  if not all(jax.numpy.issubdtype(leaf.dtype, jax.numpy.floating) for leaf in leaves):
    raise UsageError(f"{wrong}: its weights are not floating point numbers")
  if not all(np.isfinite(leaf.astype(np.float64)).all() for leaf in leaves):
    raise UsageError(f"{wrong}: it has weights that are NaN or infinite")
  if found.metadata.get(FINGERPRINT, of_this := fingerprint(ticket)) != of_this:  # 0.1 did not say it
    raise UsageError(f"{wrong}: it says that it is of another ticket")
  made = ticket.replace(weights=found.weights)
  weights = made.by_layer(made.weights)
  if any(
    np.asarray(weights[name])[~np.asarray(mask)].any() for name, mask in made.by_layer(made.masks).items()
  ):
    raise UsageError(f"{wrong}: it has weights where the ticket has none")
  if _shapes(found.network_state) != _shapes(initial_state(network, shape)):
    raise UsageError(f"{wrong}: the state that it is evaluated with is another's")
  return Whole(made, network, shape, found.network_state)


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
  """The shapes of a tree's leaves by their paths, whichever kind of nested dict it is."""
  leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {jax.tree_util.keystr(path, simple=True, separator="/"): np.shape(leaf) for path, leaf in leaves}
