"""Pruning at initialisation: a score, then the exact count of the highest, in one round or several."""

import functools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key

from nets_jax import structs
from nets_jax.baselines import scores
from nets_jax.engine.batching import map_tickets
from nets_jax.engine.exhaustion import within_memory
from nets_jax.engine.layouts import Layout, compile_program, fetch, pad, replicate
from nets_jax.errors import SearchFailed, UsageError
from nets_jax.kinds import DENSITY, NUMBER, WHOLE, at_least
from nets_jax.networks.adapter import Params
from nets_jax.protocol import INSTANT_VARIES, How, Outcome, Search
from nets_jax.rows import Rows
from nets_jax.settings import setting
from nets_jax.tickets.layer_counts import counts_on_the_way, keep_highest
from nets_jax.tickets.results import Cost, SearchResult
from nets_jax.tickets.ticket import (
  Ticket,
  initialise,
  layers_of,
  map_kernels,
  maskable_count,
  phenotype,
  take,
  unmasked_count,
)
from nets_jax.training.task import Task

GROUP = "other searches"


def _score(function: Callable[..., Params]) -> Callable[..., Params]:
  return structs.field(pytree_node=False, default=function)


@structs.dataclass
class OneShot(Search):
  """Pruning at initialisation by a score; a subclass names one.

  Attributes:
    target_density: d, share of the weights kept in the end; the count is exact.
    rounds: R; round i keeps d^(i/R), and so of a layer with a density of its own (static).
    score_batch: training examples that a score looks at, of those that look at any (static).
    score: a function as in `scores`, of one's own too (static).
  """

  target_density: float = setting(
    0.2, "Density of the ticket to find, in (0, 1].", group="fitness", kind=NUMBER, rule=DENSITY
  )
  rounds: int = setting(
    1,
    "magnitude, snip, grasp, synflow: pruning rounds.",
    group=GROUP,
    kind=WHOLE,
    rule=at_least(1),
    static=True,
  )
  score_batch: int = setting(
    100,
    "snip, grasp, gradinit, random_scales: examples that the score looks at.",
    group=GROUP,
    kind=WHOLE,
    rule=at_least(1),
    static=True,
  )
  score: Callable[..., Params] = _score(scores.magnitude)

  is_instant = True

  @property
  def looks(self) -> bool:
    """Whether the score looks at what is in the batch."""
    return self.score not in (scores.magnitude, scores.synflow)

  def check(self, task: Task) -> None:
    """Raises UsageError for settings that make no search."""
    super().check(task)
    examples = len(task.data.train)
    if self.looks and self.score_batch > examples:
      raise UsageError(
        f"score_batch must be from 1 to the {examples} training examples, not {self.score_batch}"
      )

  def find(self, keys: Key[Array, " runs"], task: Task, how: How) -> list[Outcome]:
    """See `Search.find`; done in seconds, it makes no checkpoints.

    `on_rows` is called with the last history row of each ticket.

    Returns:
      For each key the ticket and its history: a dict for each round with keys `round`, `density`, and
      `seconds`, the time of all together over their number, which only the last round shows. A run fails
      where the scores of a layer are all zero or not finite.
    """
    layout = how.layout_of(len(keys))
    shared = replicate((task.for_search(), self), layout)
    rows = pad(keys, layout)

    def run(layout: Layout) -> tuple[tuple[Ticket, jax.Array, jax.Array], float, float]:
      program, taken = compile_program(_prune_all, rows, shared, layout=layout)
      begin = time.perf_counter()
      return fetch(program(rows, shared)), taken, (time.perf_counter() - begin) / len(keys)

    advice = "lower score_batch, or take a smaller network" if self.looks else "take a smaller network"
    ((tickets, counts, tells), compile_seconds, seconds), _ = within_memory(run, layout, advice)
    epochs = self.rounds * self.score_batch / len(task.data.train) if self.looks else 0.0
    cost = Cost(epochs, seconds, compile_seconds / len(keys))
    total, outcomes = maskable_count(take(tickets, 0)), []
    for i in range(len(keys)):
      history: Rows = [
        {"round": r + 1, "density": int(counts[i, r]) / total, "seconds": 0.0} for r in range(self.rounds)
      ]
      history[-1]["seconds"] = seconds
      how.on_rows(history[-1:])
      result = SearchResult(take(tickets, i), history, cost, best=history[-1])
      name = getattr(self.score, "__name__", type(self.score).__name__)
      outcomes.append(_silence(name, tells[i], result) or result)
    return outcomes


@structs.dataclass
class Magnitude(OneShot):
  """The largest weights."""

  varies = INSTANT_VARIES


@structs.dataclass
class Snip(OneShot):
  """SNIP (Lee et al., 2019)."""

  score: Callable[..., Params] = _score(scores.snip)

  varies = INSTANT_VARIES


@structs.dataclass
class Grasp(OneShot):
  """GraSP (Wang et al., 2020)."""

  score: Callable[..., Params] = _score(scores.grasp)

  varies = INSTANT_VARIES


@structs.dataclass
class Synflow(OneShot):
  """SynFlow (Tanaka et al., 2020)."""

  rounds: int = setting(
    100, "magnitude, snip, grasp, synflow: pruning rounds.", group=GROUP, kind=WHOLE, rule=at_least(1),
    static=True,
  )  # fmt: skip
  score: Callable[..., Params] = _score(scores.synflow)

  varies = INSTANT_VARIES


SEARCHES = {"magnitude": Magnitude, "snip": Snip, "grasp": Grasp, "synflow": Synflow}


def _silence(score: str, tells: jax.Array, result: SearchResult) -> SearchFailed | None:
  """Why a ticket is not one, if in a round [rounds, layers] the scores tell nothing of a layer."""
  if tells.all():
    return None
  round_, layer = divmod(int(tells.argmin()), tells.shape[1])
  return SearchFailed(
    f"{score} says nothing of the layer {layers_of(result.ticket)[layer].name} in round {round_ + 1}: its "
    "scores are all zero, or not finite; try another init or init_scale, an activation that does not "
    "saturate, or another score"
  )


@functools.partial(jax.jit, static_argnames=("layout",))
def _prune_all(
  keys: jax.Array, shared: tuple[Task, OneShot], *, layout: Layout
) -> tuple[Ticket, jax.Array, jax.Array]:
  return map_tickets(lambda key, shared: prune_at_initialisation(key, *shared), layout, keys, shared)


def prune_at_initialisation(
  key: Key[Array, ""], task: Task, search: OneShot
) -> tuple[Ticket, Int[Array, " rounds"], Bool[Array, "rounds layers"]]:
  """ONE ticket: draw the weights, then in each round score what is left and keep the exact count.

  Returns:
    The ticket; how many weights each round kept, int32 [rounds]; and whether its scores told anything of
    each layer, bool [rounds, layers].
  """
  weights_key, batch_key = jax.random.split(key)
  shape, layers = task.data.input_shape, task.layers
  ticket = initialise(weights_key, task.network, shape, initialiser=task.initialiser, layers=layers)
  return prune_ticket(batch_rows(batch_key, task, search), ticket, task, search)


def batch_rows(key: Key[Array, ""], task: Task, search: OneShot) -> Int[Array, " batch"]:
  """Which training examples a score looks at; one that looks at none may be given more than there are."""
  examples = len(task.data.train)
  return jax.random.choice(key, examples, (min(search.score_batch, examples),), replace=False)


def prune_ticket(
  rows: Int[Array, " batch"], ticket: Ticket, task: Task, search: OneShot
) -> tuple[Ticket, Int[Array, " rounds"], Bool[Array, "rounds layers"]]:
  """Scores and prunes ONE ticket's weights as they are, on those training examples; see above."""
  rounds, layers = search.rounds, task.layers
  batch = task.data.train.examples(rows)

  def prune(ticket, aim):
    count, own = aim
    scores = search.score(task, phenotype(ticket), ticket.masks, batch)
    tells = tells_of_layers(ticket, scores)
    left = map_kernels(lambda mask, score: jnp.where(mask, score, -jnp.inf), ticket.masks, scores)
    ticket = ticket.replace(masks=keep_highest(left, count, layers, own))
    return ticket, (unmasked_count(ticket) if own else count, tells)

  over = jnp.arange(1, rounds + 1) / rounds
  shares = search.target_density**over
  own = jax.vmap(lambda x: counts_on_the_way(layers, 1.0, x))(over)
  counts = jnp.maximum(jnp.round(shares * maskable_count(ticket)), 1).astype(jnp.int32)
  ticket, (counts, tells) = jax.lax.scan(prune, ticket, (counts, own))
  return ticket, counts, tells


def tells_of_layers(ticket: Ticket, scores: Params) -> Bool[Array, " layers"]:
  """Whether scores rank a layer's weights at all: finite, and not all of those left zero; bool [layers].

  Of a network that is already cut, by a layer without weights, no score can tell more, so none is asked for.
  """
  masks, scores = ticket.by_layer(ticket.masks), ticket.by_layer(scores)
  is_cut = ~jnp.stack([mask.any() for mask in masks.values()]).all()
  finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in scores.values()])
  ranks = jnp.stack([(jnp.where(masks[name], leaf, 0) != 0).any() for name, leaf in scores.items()])
  return finite & (ranks | is_cut)
