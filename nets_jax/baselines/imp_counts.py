"""How many weights IMP keeps of each layer, cycle by cycle, and which: the largest."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from nets_jax.networks.adapter import Params
from nets_jax.networks.layer_rules import own_counts
from nets_jax.networks.layers import Layer
from nets_jax.networks.maskable import layer_name
from nets_jax.tickets.layer_counts import keep_apart
from nets_jax.tickets.patterns import patterned
from nets_jax.tickets.pruning import layer_adaptive, top_masks
from nets_jax.tickets.ticket import kernels

EVERY_LAYER = "every layer"  # whose weights are ranked together


def kept_counts(
  layers: Sequence[Layer], cycles: int, fraction: float, output_fraction: float | None, scope: str
) -> list[dict[str, int]]:
  """How many weights of each layer are left after each cycle: a cycle prunes round(p x remaining).

  Args:
    layers: in the order of application, the output layer last. One with a count of its own keeps that from
      the first cycle on.
    cycles: how many.
    fraction: p.
    output_fraction: that of the output layer, in `layer` scope; None is `fraction`.
    scope: a name in `SCOPES`.

  Returns:
    For each cycle the count of each layer, by its name; in other scopes that of `EVERY_LAYER`, all that have
    none of their own.
  """
  free, own = [layer for layer in layers if layer.kept is None], own_counts(layers)
  remaining, fractions = SCOPES[scope].start(free, fraction, output_fraction, layers[-1].name)
  counts = []
  for _ in range(cycles):
    remaining = {name: left - round(fractions[name] * left) for name, left in remaining.items()}
    counts.append(remaining | own)
  return counts


def prune(
  weights: Params, masks: Params, counts: Mapping[str, int], scope: str, layers: Sequence[Layer] = ()
) -> Params:
  """Keeps the `counts` largest unmasked weights of each layer (or of all), in each run.

  Args:
    weights: after training [runs, ...].
    masks: before pruning [runs, ...]; the new ones are subsets.
    counts: from `kept_counts`.
    scope: a name in `SCOPES`.
    layers: of the network, whose masks may have a pattern.
  """
  return _prune_all(kernels(weights, masks), masks, dict(counts), scope, tuple(layers))


@functools.partial(jax.jit, static_argnames=("scope", "layers"))
def _prune_all(weights, masks, counts, scope, layers):
  """`prune`, one program for all cycles: the counts are traced."""

  def of_run(weights, masks):
    sizes = SCOPES[scope].sizes(jax.tree.map(lambda mask, w: jnp.where(mask, w, 0), masks, weights))
    scores = jax.tree.map(lambda mask, size: jnp.where(mask, size, -jnp.inf), masks, sizes)
    return SCOPES[scope].keep(patterned(scores, layers), counts)

  return jax.vmap(of_run)(weights, masks)


class Scope(NamedTuple):
  """Which weights are ranked together, and by what.

  Attributes:
    start: `(layers, fraction, output_fraction, output)`, the last the output layer's name, to how many
      weights each rank begins with, and the share of each that a cycle prunes.
    keep: `(scores, counts)` to the masks of the highest of each rank.
    sizes: weights, zero where masked, to what they are ranked by.
  """

  start: Callable[[Sequence[Layer], float, float | None, str], tuple[dict[str, int], dict[str, float]]]
  keep: Callable[[Params, Mapping[str, int]], Params]
  sizes: Callable[[Params], Params] = functools.partial(jax.tree.map, jnp.abs)


def _start_layers(layers, fraction, output_fraction, output):
  fractions = {layer.name: fraction for layer in layers}
  if output_fraction is not None:
    fractions[output] = output_fraction
  return {layer.name: layer.size for layer in layers}, fractions


def _keep_of_layers(scores, counts):
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: top_masks(leaf, counts[layer_name(path)]), scores
  )


def _start_all(layers, fraction, output_fraction, output):
  del output_fraction, output
  return {EVERY_LAYER: sum(layer.size for layer in layers)}, {EVERY_LAYER: fraction}


def _keep_of_all(scores, counts):
  own = {name: count for name, count in counts.items() if name != EVERY_LAYER}
  return keep_apart(scores, counts[EVERY_LAYER], own)


SCOPES = {
  "layer": Scope(_start_layers, _keep_of_layers),
  "global": Scope(_start_all, _keep_of_all),
  "lamp": Scope(_start_all, _keep_of_all, layer_adaptive),
}
