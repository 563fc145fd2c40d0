"""Tickets: initial weights with a binary mask, one or a whole population (paper, Definitions 1, 2, 4).

Functions here are written for one ticket. A population is a `Ticket` whose leaves have one more,
leading, axis; `jax.vmap` of these functions serves it.
"""

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, Shaped

from nets_jax import structs
from nets_jax.errors import UsageError
from nets_jax.networks.adapter import Network, Params, Scale, abstract_parameters
from nets_jax.networks.initialisation import Initialiser, as_initialiser, draw_like
from nets_jax.networks.layers import Layer, find_layers, natural
from nets_jax.networks.maskable import layer_name
from nets_jax.structs import Struct

Tree = TypeVar("Tree")


@structs.dataclass
class Ticket(Struct):
  """The pair (theta_0, M) of Definition 2; also the genome of Definition 4.

  Attributes:
    weights: theta_0, the network's parameters before any training.
    masks: M, a bool array for each kernel and None for each leaf that is never masked.
    scores: in a search by guided dormancy, what its parents' training showed of each gene; see `guidance`.
      None elsewhere, and in every ticket that a search returns.
    layers: the network's layers in the order in which it applies them (static). `initialise` and
      `random_ticket` find them, and a task adds what single ones keep. Of a ticket made by hand without them
      the names decide, in natural order.
  """

  weights: Params
  masks: Params
  scores: Params = None
  layers: tuple[Layer, ...] = structs.field(pytree_node=False, default=())

  def by_layer(self, tree: Params) -> dict[str, jax.Array]:
    """Each layer's own leaf of a tree like the masks or the weights, by name, in the order of application."""
    leaves = _named(kernels(tree, self.masks))
    return {layer.name: leaves[layer.name] for layer in layers_of(self)}


def map_kernels(function: Callable[..., jax.Array], masks: Params, *trees: Params) -> Params:
  """Applies `function(mask, *leaves)` to each kernel; other leaves are the first tree's own."""
  return jax.tree.map(
    lambda mask, *leaves: leaves[0] if mask is None else function(mask, *leaves),
    masks,
    *trees,
    is_leaf=lambda leaf: leaf is None,
  )


def mask_weights(weights: Params, masks: Params) -> Params:
  """Theta (.) M: weights with masked entries exactly zero, whatever they held (NaN and inf too)."""
  return map_kernels(lambda mask, weight: jnp.where(mask, weight, 0), masks, weights)


def phenotype(ticket: Ticket) -> Params:
  """The network a genome expresses: theta_0 (.) M (paper, 3.1)."""
  return mask_weights(ticket.weights, ticket.masks)


def full_masks(weights: Params, layers: Sequence[Layer]) -> Params:
  """Masks of these layers that keep every weight."""
  names = {layer.name for layer in layers}
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: jnp.ones(leaf.shape, bool) if layer_name(path) in names else None, weights
  )


def initialise(
  key: Key[Array, ""],
  network: Network,
  input_shape: Sequence[int],
  *,
  initialiser: Initialiser | Scale = 0.1,
  initial_density: float | Float[Array, ""] = 1.0,
  layers: Sequence[Layer] = (),
) -> Ticket:
  """A first genome: weights by an initialiser, masks ~ Bernoulli(initial_density) (paper, 3.1).

  Args:
    key: consumed.
    network: the module.
    input_shape: shape of one input, without the batch axis.
    initialiser: of the weights; or a standard deviation: one number, or one for each layer.
    initial_density: probability that a gene is expressed.
    layers: of the network, as a task has them; they are found where none are given.
  """
  weights_key, masks_key = jax.random.split(key)
  layers = tuple(layers) or find_layers(network, input_shape)
  weights = as_initialiser(initialiser).draw(weights_key, network, input_shape, layers)
  full = full_masks(weights, layers)
  masks = draw_like(lambda size: jax.random.bernoulli(masks_key, initial_density, (size,)), full)
  return Ticket(weights, masks, layers=layers)


def unmasked_count(ticket: Ticket) -> Int[Array, ""]:
  """|M|_1, the number of unmasked weights: int32 scalar."""
  counts = [jnp.sum(mask, dtype=jnp.int32) for mask in jax.tree.leaves(ticket.masks)]
  return functools.reduce(operator.add, counts)


def maskable_count(ticket: Ticket) -> int:
  """|M|, the number of weights that a mask covers."""
  return sum(mask.size for mask in jax.tree.leaves(ticket.masks))


def density(ticket: Ticket) -> Float[Array, ""]:
  """D = |M|_1 / |M| (paper, Definition 1): float32 scalar."""
  return unmasked_count(ticket).astype(jnp.float32) / np.float32(maskable_count(ticket))


def layers_of(ticket: Ticket) -> tuple[Layer, ...]:
  """The ticket's layers in the order of application; by their names where it does not know that."""
  named = _named(ticket.masks)
  return ticket.layers or tuple(Layer(name, named[name].shape) for name in sorted(named, key=natural))


def _named(tree: Params) -> dict[str, jax.Array]:
  return {layer_name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def from_layers(ticket: Ticket, values: Mapping[str, object]) -> Params:
  """A tree like the ticket's masks with each layer's own value, by its name: `by_layer` backwards."""
  return jax.tree_util.tree_map_with_path(lambda path, _: values[layer_name(path)], ticket.masks)


def layer_densities(ticket: Ticket) -> dict[str, Float[Array, ""]]:
  """The density of each layer, by its name, in the order in which the network applies them."""
  return {name: jnp.mean(mask, dtype=jnp.float32) for name, mask in ticket.by_layer(ticket.masks).items()}


def layer_scales(ticket: Ticket) -> dict[str, Float[Array, ""]]:
  """The root mean square of each layer's weights, masked ones too, by its name, in that order too."""
  squares = ticket.by_layer(jax.tree.map(jnp.square, ticket.weights))
  return {name: jnp.sqrt(jnp.mean(leaf)) for name, leaf in squares.items()}


def empty_layers(ticket: Ticket) -> tuple[str, ...]:
  """The names of the layers in which a ticket keeps no weight, in the order of application."""
  return tuple(name for name, mask in ticket.by_layer(ticket.masks).items() if not np.asarray(mask).any())


def stack(tickets: Sequence[Ticket]) -> Ticket:
  """One population of several tickets, in their order.

  Raises:
    UsageError: they are of different networks.
  """
  known = {ticket.layers for ticket in tickets if ticket.layers}
  if len(known) > 1:  # some may be for a task with counts of single layers, and others not
    known = {tuple(layer._replace(kept=None, pattern=None) for layer in layers) for layers in known}
  if len(known) > 1:
    raise UsageError("tickets of different networks, or of one on different inputs, make no population")
  layers = known.pop() if known else ()
  return jax.tree.map(
    lambda *leaves: jnp.stack(leaves), *(ticket.replace(layers=layers) for ticket in tickets)
  )


def take(population: Tree, index: int | np.integer | slice | Shaped[Array | np.ndarray, "..."]) -> Tree:
  """Ticket `index` of a population (or a part of it), or the population of several indices."""
  return jax.tree.map(lambda leaf: leaf[index], population)


def best(population: Ticket, fitness: Float[Array, " population"]) -> Ticket:
  """The ticket with the lowest fitness; of equals the first."""
  return take(population, jnp.argmin(fitness))


def kernels(tree: Params, masks: Params) -> Params:
  """The leaves of `tree` that are maskable, None elsewhere."""
  return jax.tree.map(
    lambda mask, leaf: None if mask is None else leaf, masks, tree, is_leaf=lambda leaf: leaf is None
  )


def check_tree(ticket: Ticket) -> None:
  """Raises UsageError unless a ticket's weights and masks are trees of arrays."""
  strange = [leaf for leaf in jax.tree.leaves((ticket.weights, ticket.masks)) if not hasattr(leaf, "shape")]
  if strange:
    raise UsageError(
      f"a ticket's weights and masks are trees of arrays, with no {type(strange[0]).__name__} in them; of "
      "what train_tickets gives take the weights of one ticket, nets_jax.take(trained.weights, 0)"
    )


def check_weights(ticket: Ticket, network: Network, input_shape: Sequence[int]) -> None:
  """Raises UsageError unless a ticket's weights are those of one such network on such inputs."""
  check_tree(ticket)
  want, got = (_shapes(tree) for tree in (abstract_parameters(network, input_shape), ticket.weights))
  if got and {name: shape[1:] for name, shape in got.items()} == want:
    raise UsageError(
      "the ticket's weights have an axis more than the network's; of a population take one ticket, "
      "nets_jax.take(tickets, 0), of what train_tickets gives the weights of one, "
      "nets_jax.take(trained.weights, 0)"
    )
  _compare("weights", want, got)


def check_fits(ticket: Ticket, network: Network, input_shape: Sequence[int]) -> None:
  """Raises UsageError unless the ticket's leaves are those of this network on such inputs."""
  check_weights(ticket, network, input_shape)
  layers = ticket.layers or find_layers(network, input_shape)
  weights = abstract_parameters(network, input_shape)
  masks = jax.eval_shape(lambda tree: full_masks(tree, layers), weights)
  _compare("masks", _shapes(masks), _shapes(ticket.masks))


def _shapes(tree: Params) -> dict[str, tuple[int, ...]]:
  """The shape of each leaf of a tree, by its path."""
  leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in leaves}


def _compare(what: str, want: Mapping[str, tuple[int, ...]], got: Mapping[str, tuple[int, ...]]) -> None:
  for name in sorted(want.keys() | got.keys()):
    if want.get(name) != got.get(name):
      raise UsageError(
        f"the ticket does not fit the network: {what}/{name} is {got.get(name, 'missing')} in the ticket and "
        f"{want.get(name, 'missing')} in the network; give the network and data set it was made for"
      )
