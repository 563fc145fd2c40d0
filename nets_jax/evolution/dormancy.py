"""Guided dormancy: which genes fall dormant, by what training showed of them, and how many by when.

For ONE ticket. This is this project's addition to the paper, whose own dormancy is `operators.dormancy`.
"""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, Num

from nets_jax import structs
from nets_jax.errors import UsageError
from nets_jax.evolution import saliency as measures
from nets_jax.evolution.context import Context
from nets_jax.evolution.density_schedules import DENSITY_SCHEDULES, GROUP, GeometricDensity
from nets_jax.evolution.operators import Operator
from nets_jax.evolution.saliency import Measure
from nets_jax.evolution.schedules import RATE, Rate
from nets_jax.evolution.units import with_units
from nets_jax.kinds import NUMBER, SHARE, Number, at_least, choice, one_of
from nets_jax.networks.adapter import Params
from nets_jax.networks.initialisation import draw_like
from nets_jax.networks.layer_rules import own_counts
from nets_jax.settings import part, setting
from nets_jax.tickets.layer_counts import counts_on_the_way, free_count, free_unmasked
from nets_jax.tickets.patterns import capacity, eligible, has_pattern, patterned
from nets_jax.tickets.pruning import top_masks_of_each
from nets_jax.tickets.ticket import Ticket, from_layers, maskable_count
from nets_jax.training.task import Task

LAYER_FLOOR = 0.1  # in global scope a layer keeps at least this much of its proportional share
Count = int | Int[Array, ""]
# `(ticket, scores, count, regrow) -> ticket`; see `keep_global`.
Keep = Callable[[Ticket, Params, Count, Count], Ticket]


def keep_global(ticket: Ticket, scores: Params, count: Count, regrow: Count) -> Ticket:
  """The ticket with exactly `count` genes expressed: those of the highest scores, and some that grow back.

  Of the expressed genes the `count - regrow` highest stay, and of the dormant ones the `regrow` highest grow
  back: more of them where too few were expressed, fewer where there are not so many. Ties are broken by
  index. All layers are ranked together, but each keeps at least `LAYER_FLOOR` of its proportional share.

  Args:
    ticket: the genome.
    scores: see `saliency`; not negative.
    count: genes to express, from 1 to all.
    regrow: of these, how many are to be dormant ones.
  """
  total = maskable_count(ticket)
  masks, treedef = jax.tree.flatten(ticket.masks)
  floors = [jnp.maximum(1, _share(LAYER_FLOOR * count, mask, total)) for mask in masks]
  first = jax.tree.unflatten(treedef, _highest(masks, jax.tree.leaves(scores), floors))
  scores = jax.tree.map(lambda s, is_first: jnp.where(is_first, jnp.inf, s), scores, first)
  return ticket.replace(masks=_keep_of(ticket.masks, scores, count, regrow))


def keep_by_layer(ticket: Ticket, scores: Params, count: Count, regrow: Count) -> Ticket:
  """As `keep_global`, but each layer keeps its proportional share, at least 1, ranked for itself."""
  total = maskable_count(ticket)

  def of_layer(mask, s):
    return _keep_of(mask, s, jnp.maximum(1, _share(count, mask, total)), _share(regrow, mask, total))

  return ticket.replace(masks=jax.tree.map(of_layer, ticket.masks, scores))


def keep_apart(
  ticket: Ticket, scores: Params, count: Count, regrow: Count, own: Mapping[str, Count], keep: Keep
) -> Ticket:
  """As a rule of `SCOPES`, but each layer of `own` keeps that count, ranked for itself; others keep the rest.

  Args:
    ticket, scores, count, regrow: see `keep_global`.
    own: counts by the layers' names.
    keep: the rule, for the other layers.
  """
  masks, scores = ticket.by_layer(ticket.masks), ticket.by_layer(scores)

  def part(number: Count) -> Int[Array, ""]:
    """A layer's proportional share of what grows back."""
    return jnp.round(regrow * (number / count)).astype(jnp.int32)

  kept = {name: _keep_of(masks[name], scores[name], n, part(n)) for name, n in own.items()}
  free = {name: mask for name, mask in masks.items() if name not in own}
  if free:
    others, left = Ticket({}, free), free_count(count, ticket.layers, own)
    kept |= keep(others, {name: scores[name] for name in free}, left, part(left)).masks
  return ticket.replace(masks=from_layers(ticket, kept))


SCOPES = {"global": keep_global, "layer": keep_by_layer}


def _share(count: Number, mask: Array, total: int) -> Int[Array, ""]:
  """A layer's proportional part of a count."""
  return jnp.round(count * (mask.size / total)).astype(jnp.int32)


def _highest(among: Sequence[Params], scores: Sequence[Params], counts: Sequence[Count]) -> list[Params]:
  """Of each of several sets of genes the `count` highest, or all of these if they are fewer."""
  ranked = jax.tree.map(lambda m, s: jnp.where(m, s, -jnp.inf), list(among), list(scores))
  return jax.tree.map(jnp.logical_and, top_masks_of_each(ranked, counts), list(among))


def _keep_of(masks: Params, scores: Params, count: Count, regrow: Count) -> Params:
  """The rule of `keep_global` for some layers together."""

  def number(tree):
    return sum(jnp.sum(leaf, dtype=jnp.int32) for leaf in jax.tree.leaves(tree))

  dormant = jax.tree.map(jnp.logical_not, masks)
  staying = jnp.minimum(number(masks), count - jnp.minimum(regrow, number(dormant)))
  stay, regrown = _highest((masks, dormant), (scores, scores), (staying, count - staying))
  return jax.tree.map(jnp.logical_or, stay, regrown)


class _Guided(Operator):
  """What both kinds of guided dormancy share: a saliency, a scope, regrowth."""

  saliency: str | Measure
  scope: str
  regrowth_rate: float
  structured: float

  minibatches = measures.GRADIENT_BATCHES  # of a measure of one's own too: it sees no others

  @property
  def measure(self) -> Measure | None:
    """The saliency's function; None is chance."""
    return measures.SALIENCIES[self.saliency] if isinstance(self.saliency, str) else self.saliency

  def check(self) -> None:
    """Raises UsageError for structure where chance decides."""
    if self.structured and self.measure is None:
      raise UsageError(
        "structured goes by the saliencies of units, of which saliency=random has none; leave one of them out"
      )

  @property
  def observes(self) -> bool:
    """Unless chance decides."""
    return self.measure is not None

  def observe(
    self, genome: Ticket, trained: Params, task: Task, order: Int[Array | np.ndarray, "steps batch"]
  ) -> Ticket:
    """The genome with its saliencies."""
    if self.measure is None:
      return genome
    scores = measures.saliency(self.measure, genome, trained, task, order, self.regrowth_rate > 0)
    return genome.replace(scores=with_units(scores, task, self.structured) if self.structured else scores)

  def keep(
    self,
    key: Key[Array, ""],
    genome: Ticket,
    count: Num[Array, ""],
    context: Context,
    own: Mapping[str, Count],
  ) -> Ticket:
    """The genome with so many genes expressed, of single layers those of `own`; an elite regrows none."""
    count = jnp.clip(count, 1, maskable_count(genome)).astype(jnp.int32)
    regrow = jnp.where(context.is_elite, 0, jnp.round(self.regrowth_rate * count)).astype(jnp.int32)
    scores = genome.scores
    if self.measure is None:
      scores = draw_like(lambda size: jax.random.uniform(key, (size,)), genome.masks)
    if has_pattern(genome.layers):
      # What crossover has put beside the pattern is as if it were dormant, and others grow back for it.
      within, masks = eligible(scores, genome.layers, genome.masks), genome.masks
      fits = count <= sum(map(capacity, genome.layers))
      masks = jax.tree.map(lambda mask, own: mask & (own | ~fits), masks, within)
      scores = patterned(scores, genome.layers, genome.masks)
      genome = genome.replace(masks=masks)
    keep = SCOPES[self.scope]
    if own:
      return keep_apart(genome, scores, count, regrow, own, keep)
    return keep(genome, scores, count, regrow)


def _saliency():
  names = tuple(measures.SALIENCIES)
  return setting(
    "taylor", "What a training tells of a gene; random is nothing.", group=GROUP, kind=choice(names),
    rule=one_of(names), static=True, flag="saliency",
  )  # fmt: skip


def _scope():
  names = tuple(SCOPES)
  return setting(
    "global", "Genes of all layers ranked together, or of each.", group=GROUP, kind=choice(names),
    rule=one_of(names), static=True,
  )  # fmt: skip


def _regrowth_rate():
  return setting(
    0.0, "Share of a child's expressed genes that were dormant and grow back.", group=GROUP, kind=NUMBER,
    rule=SHARE, static=True, flag="regrowth_rate",
  )  # fmt: skip


def _structured():
  return setting(
    0.0, "Exponent of a unit's saliency in that of its genes: above 0, whole units fall dormant.",
    group=GROUP, kind=NUMBER, rule=at_least(0), static=True, flag="structured",
  )  # fmt: skip


@structs.dataclass
class GuidedDormancy(_Guided):
  """A child's genes of the lowest saliency fall dormant: a share `rate` of those expressed.

  A layer with a density of its own keeps to it from the beginning.
  """

  rate: Rate = setting(
    0.2, "Probability, or share, of a child's expressed genes that fall dormant.", group="genetic operators",
    kind=RATE, rule=SHARE,
  )  # fmt: skip
  saliency: str | Measure = _saliency()
  scope: str = _scope()
  regrowth_rate: float = _regrowth_rate()
  structured: float = _structured()
  name: str = structs.field(pytree_node=False, default="dormancy")

  def __call__(self, key: Key[Array, ""], child: Ticket, context: Context) -> Ticket:
    """The child with fewer genes expressed."""
    own, expressed = own_counts(child.layers), free_unmasked(child)
    count = jnp.round(expressed * (1 - context.rate(self.rate)))
    return self.keep(key, child, count + sum(own.values()) if own else count, context, own)


@structs.dataclass
class ScheduledDormancy(_Guided):
  """Every genome of a generation has exactly the number of expressed genes that a schedule asks for.

  From `initial_density` to `target_density`, those of the highest saliency. Elites too: they would be too
  dense otherwise. A layer with a density of its own is as far on its way to that as the whole is.
  """

  saliency: str | Measure = _saliency()
  schedule: Callable[[Context], Number] = part(
    GeometricDensity, "How a schedule's density falls.", group=GROUP, flag="density_schedule",
    options=DENSITY_SCHEDULES,
  )  # fmt: skip
  scope: str = _scope()
  regrowth_rate: float = _regrowth_rate()
  structured: float = _structured()
  name: str = structs.field(pytree_node=False, default="dormancy")

  on_elites = True
  needs_target = True
  brings_layers = True

  def __call__(self, key: Key[Array, ""], child: Ticket, context: Context) -> Ticket:
    """The genome with its generation's count."""
    density = self.schedule(context)
    first, target = context.initial_density, context.target_density
    own = counts_on_the_way(child.layers, first, _way(first, density, target))
    return self.keep(key, child, jnp.round(density * maskable_count(child)), context, own)


def _way(first: Number, density: Number, target: Number | None) -> Float[Array, ""]:
  """How much of the way from a first density to the target a density is, by ratio: from 0 to 1."""
  assert target is not None, "a schedule goes to a target"
  whole = jnp.log(jnp.asarray(target) / first)
  is_long = jnp.abs(whole) > 1e-6
  return jnp.where(is_long, jnp.clip(jnp.log(density / first) / jnp.where(is_long, whole, 1), 0, 1), 1.0)
