"""Pruning at initialisation: a score, then the exact count of the highest, in one round or several."""

import functools
import time
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from nets_jax import parallel
from nets_jax.baselines.scores import SCORES
from nets_jax.data import Dataset, Split
from nets_jax.errors import SearchFailed, check, check_fits_data, check_scale, raise_first
from nets_jax.networks import Params, Scale, check_outputs
from nets_jax.tickets import (
  Cost,
  SearchResult,
  Ticket,
  initialise,
  layers_of,
  map_kernels,
  maskable_count,
  phenotype,
  take,
  top_masks,
)


@struct.dataclass
class OneShotConfig:
  """The settings of pruning at initialisation.

  Attributes:
    score: a name in `scores.SCORES`: `magnitude`, `snip`, `grasp` or `synflow`.
    target_density: d, share of the weights kept in the end; the count is exact.
    rounds: R; round i keeps d^(i/R). None is the method's own: 100 for `synflow`, 1 for the others.
    score_batch: training examples that a score looks at (`snip`, `grasp`).
    init_scale: standard deviation of the weights; one number, or one for each layer.
  """

  score: str = struct.field(pytree_node=False, default="snip")
  target_density: float = 0.2
  rounds: int | None = struct.field(pytree_node=False, default=None)
  score_batch: int = struct.field(pytree_node=False, default=100)
  init_scale: Scale = 0.1


def search(key: jax.Array, network: nn.Module, data: Dataset, config: OneShotConfig | None = None, **kwargs):
  """One ticket pruned at its initialisation: `search_all` for one key. Returns its `SearchResult`."""
  return search_all(key[None], network, data, config, **kwargs)[0]


def search_all(
  keys: jax.Array,
  network: nn.Module,
  data: Dataset,
  config: OneShotConfig | None = None,
  *,
  devices: int | None = None,
  chunk: int | None = None,
  on_rows: Callable[[list[dict[str, Any]]], None] = lambda rows: None,
  keep_failures: bool = False,
) -> list[SearchResult | SearchFailed]:
  """Prunes a ticket for each key, side by side; each is as it would be alone.

  Args:
    keys: one per ticket.
    network: the module.
    data: scores look at a batch of its `train` part.
    config: the settings.
    devices, chunk: see `parallel.make_layout`.
    on_rows: called with the last history row of each ticket.
    keep_failures: a ticket whose scores tell nothing of a layer is its error in place of a result.

  Returns:
    For each key the ticket and its history: a dict for each round with keys `round`, `density`, and
    `seconds`, the time of all together over their number, which only the last round shows.

  Raises:
    UsageError: an impossible setting, or a network that does not go with the data.
    SearchFailed: the scores of a layer are all zero or not finite, unless `keep_failures`.
  """
  config = config or OneShotConfig()
  validate(config, len(data.train))
  check_outputs(network, data.input_shape, data.num_classes)
  rounds = config.rounds or (100 if config.score == "synflow" else 1)
  layout = parallel.make_layout(len(keys), devices=devices, chunk=chunk)
  rows, shared = parallel.pad(keys, layout), parallel.replicate((data.train, config), layout)
  arguments = {"network": network, "layout": layout, "rounds": rounds}
  run, compile_seconds = parallel.compile_program(_prune_all, rows, shared, **arguments)
  begin = time.perf_counter()
  tickets, counts, tells = parallel.fetch(run(rows, shared))
  seconds = (time.perf_counter() - begin) / len(keys)
  looks = config.score in ("snip", "grasp")
  cost = Cost(
    rounds * config.score_batch / len(data.train) if looks else 0.0, seconds, compile_seconds / len(keys)
  )
  total, results = maskable_count(take(tickets, 0)), []
  for i in range(len(keys)):
    history = [
      {"round": r + 1, "density": int(counts[i, r]) / total, "seconds": seconds if r + 1 == rounds else 0.0}
      for r in range(rounds)
    ]
    on_rows(history[-1:])
    result = SearchResult(take(tickets, i), history, cost, best=history[-1])
    results.append(_silence(config.score, tells[i], result) or result)
  if not keep_failures:
    raise_first(results)
  return results


def _silence(score: str, tells: jax.Array, result: SearchResult) -> SearchFailed | None:
  """Why a ticket is not one, if in a round [rounds, layers] the scores tell nothing of a layer."""
  if tells.all():
    return None
  round_, layer = divmod(int(tells.argmin()), tells.shape[1])
  return SearchFailed(
    f"{score} says nothing of the layer {layers_of(result.ticket)[layer].name} in round {round_ + 1}: its "
    "scores are all zero, or not finite; try another init_scale, an activation that does not saturate, or "
    "another score"
  )


@functools.partial(jax.jit, static_argnames=("network", "layout", "rounds"))
def _prune_all(keys, shared, *, network, layout, rounds) -> tuple[Ticket, jax.Array, jax.Array]:
  def one(key, shared):
    train, config = shared
    return prune_at_initialisation(key, network, train, config, rounds)

  return parallel.map_tickets(one, layout, keys, shared)


def prune_at_initialisation(
  key: jax.Array, network: nn.Module, train: Split, config: OneShotConfig, rounds: int
) -> tuple[Ticket, jax.Array, jax.Array]:
  """ONE ticket: draw the weights, then in each round score what is left and keep the exact count.

  Returns:
    The ticket; how many weights each round kept, int32 [rounds]; and whether its scores told anything of
    each layer, bool [rounds, layers].
  """
  weights_key, batch_key = jax.random.split(key)
  ticket = initialise(weights_key, network, train.inputs.shape[1:], init_scale=config.init_scale)
  rows = jax.random.choice(batch_key, len(train), (config.score_batch,), replace=False)
  batch = jax.tree.map(lambda x: x[rows], train)
  score = SCORES[config.score]

  def prune(ticket, count):
    scores = score(network, phenotype(ticket), ticket.masks, batch)
    tells = tells_of_layers(ticket, scores)
    scores = map_kernels(lambda mask, s: jnp.where(mask, s, -jnp.inf), ticket.masks, scores)
    return ticket.replace(masks=top_masks(scores, count)), (count, tells)

  shares = config.target_density ** (jnp.arange(1, rounds + 1) / rounds)
  counts = jnp.maximum(jnp.round(shares * maskable_count(ticket)), 1).astype(jnp.int32)
  ticket, (counts, tells) = jax.lax.scan(prune, ticket, counts)
  return ticket, counts, tells


def tells_of_layers(ticket: Ticket, scores: Params) -> jax.Array:
  """Whether scores rank a layer's weights at all: finite, and not all of those left zero; bool [layers].

  Of a network that is already cut, by a layer without weights, no score can tell more, so none is asked for.
  """
  masks, scores = ticket.by_layer(ticket.masks), ticket.by_layer(scores)
  is_cut = ~jnp.stack([mask.any() for mask in masks.values()]).all()
  finite = jnp.stack([jnp.isfinite(own).all() for own in scores.values()])
  ranks = jnp.stack([(jnp.where(masks[name], own, 0) != 0).any() for name, own in scores.items()])
  return finite & (ranks | is_cut)


def validate(config: OneShotConfig, num_examples: int) -> None:
  """Raises UsageError for settings that make no search."""
  check(config, ["score"], f"one of {', '.join(SCORES)}", lambda name: name in SCORES)
  check(config, ["target_density"], "in (0, 1]", lambda d: 0 < d <= 1)
  check_scale(config)
  check(config, ["rounds"], "at least 1", lambda rounds: rounds >= 1)
  check_fits_data(config, "score_batch", num_examples)
