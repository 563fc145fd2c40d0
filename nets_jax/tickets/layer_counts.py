"""Layers that have a count of their own, and what is left for all others; see `networks.layer_rules`.

A density is that of all maskable weights together. So the other layers keep its count less those counts.
Where no layer has one, all here is as if it were not.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from nets_jax.errors import UsageError
from nets_jax.kinds import Number
from nets_jax.networks.adapter import Params
from nets_jax.networks.layer_rules import own_counts
from nets_jax.networks.layers import Layer
from nets_jax.networks.maskable import layer_name
from nets_jax.tickets.patterns import check_pattern, patterned
from nets_jax.tickets.pruning import top_masks
from nets_jax.tickets.ticket import Ticket, from_layers, unmasked_count

Count = int | jax.Array


def free_size(layers: Sequence[Layer]) -> int:
  """The weights of all layers that have no count of their own."""
  return sum(layer.size for layer in layers if layer.kept is None)


def free_count(count: Count, layers: Sequence[Layer], own: Mapping[str, Count]) -> Count:
  """What a count of all weights leaves for the layers without one of their own: at least 1, at most all."""
  return jnp.clip(count - sum(own.values()), 1, free_size(layers)).astype(jnp.int32)


def free_unmasked(ticket: Ticket) -> jax.Array:
  """The unmasked weights in the layers that have no count of their own: int32 scalar."""
  own, masks = own_counts(ticket.layers), ticket.by_layer(ticket.masks)
  if not own:
    return unmasked_count(ticket)
  counts = [jnp.sum(mask, dtype=jnp.int32) for name, mask in masks.items() if name not in own]
  return jnp.stack(counts).sum(dtype=jnp.int32) if counts else jnp.int32(0)


def counts_on_the_way(layers: Sequence[Layer], first: Number, x: Number) -> dict[str, jax.Array]:
  """The count of each layer that has one of its own, on its way there: from `first` * size to exactly that.

  The density goes geometrically; a layer that stays dense is so from the beginning.

  Args:
    layers: of a network.
    first: the density at x = 0.
    x: how much of the way is over, from 0 to 1.
  """

  def count(layer):
    if layer.kept == layer.size:
      return jnp.int32(layer.kept)
    now = jnp.round(layer.size * first * (layer.kept / (layer.size * first)) ** x)
    return jnp.where(x >= 1 - 1e-6, layer.kept, jnp.clip(now, 1, layer.size)).astype(jnp.int32)

  return {layer.name: count(layer) for layer in layers if layer.kept is not None}


def keep_highest(
  scores: Params, count: Count, layers: Sequence[Layer], own: Mapping[str, Count] | None = None
) -> Params:
  """Masks of exactly the `count` highest scores; of a layer with a count of its own that many of its highest.

  Args:
    scores: a score for each maskable weight; None elsewhere.
    count: weights to keep of all layers together.
    layers: of the network.
    own: the counts of layers that have one; None is what they are in the end.
  """
  own = own_counts(layers) if own is None else own
  scores = patterned(scores, layers)
  return keep_apart(scores, free_count(count, layers, own) if own else count, own)


def keep_apart(scores: Params, count: Count, own: Mapping[str, Count]) -> Params:
  """Masks of the highest scores: of each layer in `own` that many, of all others together `count`."""
  if not own:
    return top_masks(scores, count)
  leaves, treedef = jax.tree_util.tree_flatten_with_path(scores)
  named = {layer_name(path): leaf for path, leaf in leaves}
  free = {name: leaf for name, leaf in named.items() if name not in own}
  kept = {name: top_masks(named[name], of_layer) for name, of_layer in own.items()}
  if free:
    kept |= top_masks(free, count)
  return jax.tree.unflatten(treedef, [kept[layer_name(path)] for path, _ in leaves])


def hold(key: jax.Array, ticket: Ticket, dense_only: bool = False) -> Ticket:
  """The ticket with exactly the count of each layer that has one; where too many or too few, chance decides.

  Args:
    key: consumed.
    ticket: as operators leave it.
    dense_only: leaves the counts below all of a layer's weights to an operator.
  """
  masks = ticket.by_layer(ticket.masks)
  held = {}
  for i, layer in enumerate(ticket.layers):
    mask = masks[layer.name]
    if layer.kept == layer.size:
      held[layer.name] = jnp.ones_like(mask)
    elif layer.kept is not None and not dense_only:
      chance = jax.random.uniform(jax.random.fold_in(key, i), mask.shape)
      held[layer.name] = top_masks(mask + chance, layer.kept)
  return ticket.replace(masks=from_layers(ticket, masks | held)) if held else ticket


def check_density(layers: Sequence[Layer], density: float) -> None:
  """Raises UsageError for a density that counts of single layers, or a pattern, leave no way to meet."""
  check_pattern(layers, density)
  own = own_counts(layers)
  if not own:
    return
  total, fixed, free = sum(layer.size for layer in layers), sum(own.values()), free_size(layers)
  count = max(1, round(density * total))
  least, most = fixed + (free > 0), fixed + free
  if not least <= count <= most:
    names = ", ".join(own)
    raise UsageError(
      f"target_density {density} is {count} of {total} weights, but what the task says of {names} leaves "
      f"{least} to {most}; give a density from {least / total:.6g} to {most / total:.6g}"
    )
