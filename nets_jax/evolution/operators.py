"""The genetic operators of the paper (3.3), each for ONE child, and what every operator is.

An operator is called as `(key, child, context) -> child`: a function, or an `Operator` with settings, whose
rates are numbers or schedules, traced. A search applies its operators in their order to a child that begins
as a copy of parent 1. Below, each is a pure function and a class that holds its rates.

A gene is a weight and its mask bit. Leaves without a mask (biases) are not genes: crossover keeps those of
each parent by the same rule, mutations leave them alone.
"""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Key, PyTree

from nets_jax import structs
from nets_jax.errors import UsageError
from nets_jax.evolution.context import Context
from nets_jax.evolution.schedules import RATE, Rate
from nets_jax.kinds import SHARE, Number, at_least
from nets_jax.networks.adapter import Params, Scale
from nets_jax.networks.initialisation import Initialiser, Normal, as_initialiser, draw_like
from nets_jax.networks.layer_rules import own_counts
from nets_jax.networks.layers import scale_of_each
from nets_jax.settings import Value, setting
from nets_jax.tickets.ticket import Ticket, from_layers, kernels, layers_of, map_kernels
from nets_jax.training.task import Task


class Operator:
  """Base of the operators with settings. What it says of itself is static; a plain function has the defaults.

  A subclass is a `nets_jax.dataclass`; `context.rate(self.rate)` is a rate as it is now, a schedule's too.

  Attributes:
    on_first: whether it also acts on the genomes of generation 0.
    on_elites: whether it also acts on elites, which else go on unchanged.
    paired: whether two children side by side (an even index and the next) have one key, for mirrored draws.
    observes: whether `observe` is to be called after a genome's training.
    minibatches: how many of a training's minibatches `observe` looks at, the last; None is all of them.
    needs_target: whether it goes by the ranking's target density, so that there must be one.
    brings_layers: whether it brings layers that have a density of their own to it; where no operator does,
      each child is given their counts once all have acted. What stays dense always is.
  """

  on_first = on_elites = paired = needs_target = brings_layers = False
  minibatches: ClassVar[int | None] = None

  @property
  def observes(self) -> bool:
    """Not, unless a subclass says so; a plain attribute will do."""
    return False

  @property
  def keeps_line(self) -> bool:
    """Whether the genome after the elites is to have one parent, that at the same index before.

    So from generation 0 on these are a line. Operators act on it as on others, but for `ScaleLayers`; one
    that is to leave it alone looks at `context.is_line`. By default it is not; a plain attribute will do.
    """
    return False

  def check(self) -> None:
    """Raises UsageError for settings that do not go together; if not overridden, all do."""

  def __call__(self, key: Key[Array, ""], child: Ticket, context: Context) -> Ticket:
    """The child as the operator leaves it."""
    raise NotImplementedError

  def observe(
    self, genome: Ticket, trained: Params, task: Task, order: Int[Array | np.ndarray, "steps batch"]
  ) -> Ticket:
    """The genome with what it keeps of its training, in `scores`; its weights and masks stay as they are."""
    return genome


@structs.dataclass
class Function(Operator):
  """A function of one's own as an operator."""

  function: Callable[[Key[Array, ""], Ticket, Context], Ticket] = structs.field(pytree_node=False)

  def __call__(self, key: Key[Array, ""], child: Ticket, context: Context) -> Ticket:
    """What the function gives."""
    return self.function(key, child, context)


def as_operator(operator: object) -> object:
  """The operator, a plain function wrapped; what is neither stays, for `NetsSettings.check` to refuse.

  Raises:
    UsageError: a class of operators that is not a dataclass, whose settings nothing would see.
  """
  is_plain = callable(operator) and not dataclasses.is_dataclass(operator)
  if is_plain and isinstance(operator, Operator):
    advice = structs.advice(operator, needs_fields=True)
    assert advice is not None
    raise UsageError(advice)
  return Function(operator) if is_plain else operator


def apply(operator: Operator, key: Key[Array, ""], child: Ticket, context: Context) -> Ticket:
  """The child as an operator leaves it.

  Raises:
    UsageError: it gives something else than a ticket of the child's network.
  """
  new = operator(key, child, context)
  who = getattr(operator, "function", type(operator))
  who = getattr(who, "__name__", type(who).__name__)
  if not isinstance(new, Ticket):
    raise UsageError(
      f"the operator {who} gave a {type(new).__name__}; it must give a ticket: child.replace(weights=..., "
      f"masks=...)"
    )
  new = new.replace(layers=child.layers, scores=child.scores if new.scores is None else new.scores)
  if jax.tree.structure(new) != jax.tree.structure(child) or _shapes(new) != _shapes(child):
    raise UsageError(
      f"the operator {who} gave a ticket of another network: weights and masks must keep the child's "
      "structure, shapes and types"
    )
  return new


def _shapes(ticket: Ticket) -> list[tuple[tuple[int, ...], np.dtype]]:
  return [(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in jax.tree.leaves(ticket)]


def crossover(key: Key[Array, ""], parent_1: Ticket, parent_2: Ticket, rate: Number) -> Ticket:
  """Uniform crossover: each gene is parent 1's with probability `rate`: weight, mask and score together."""
  from_1 = _choose(key, rate, parent_1.weights)
  weights = jax.tree.map(jnp.where, from_1, parent_1.weights, parent_2.weights)
  choice = kernels(from_1, parent_1.masks)
  masks = jax.tree.map(jnp.where, choice, parent_1.masks, parent_2.masks)
  child = parent_1.replace(weights=weights, masks=masks)
  if parent_1.scores is None:
    return child
  return child.replace(scores=jax.tree.map(jnp.where, choice, parent_1.scores, parent_2.scores))


def noise(key: Key[Array, ""], ticket: Ticket, rate: Number, scale: Scale) -> Ticket:
  """Random noise mutation: w + N(0, scale) with probability `rate`, per gene, dormant ones too."""

  def add(chosen, weight, normal):
    return weight + jnp.where(chosen, normal, 0).astype(weight.dtype)

  return _mutate_weights(key, ticket, rate, scale, add)


def resample(key: Key[Array, ""], ticket: Ticket, rate: Number, initialiser: Initialiser | Scale) -> Ticket:
  """Random weight mutation: w anew of theta_0's distribution with probability `rate`, per gene, dormant too.

  An initialiser must be `fitted` to the network; a scale is the paper's N(0, scale).
  """
  initialiser = as_initialiser(initialiser)
  if not isinstance(initialiser, Normal):
    choice_key, draw_key = jax.random.split(key)
    fresh = kernels(initialiser.anew(draw_key, ticket.weights), ticket.masks)
    old, chosen = kernels(ticket.weights, ticket.masks), _choose(choice_key, rate, ticket.masks)
    new = jax.tree.map(jnp.where, chosen, fresh, old)
    return ticket.replace(weights=map_kernels(lambda _, old, new: new, ticket.masks, ticket.weights, new))

  def draw_anew(chosen, weight, normal):
    return jnp.where(chosen, normal.astype(weight.dtype), weight)

  return _mutate_weights(key, ticket, rate, initialiser.scale, draw_anew)


def _mutate_weights(
  key: Key[Array, ""],
  ticket: Ticket,
  rate: Number,
  scale: Scale,
  mutate: Callable[[Array, Array, Array], Array],
) -> Ticket:
  """`mutate(chosen, weight, normal)` for each kernel: chosen with probability `rate`, normal ~ N(0, scale).

  Both come of one draw of uniform numbers in (-1, 1), because each place that draws takes long to compile.
  """
  above_minus_one = np.nextafter(np.float32(-1), np.float32(0))
  uniform = draw_like(
    lambda size: jax.random.uniform(key, (2, size), jnp.float32, above_minus_one, 1.0), ticket.masks
  )
  scales = from_layers(ticket, scale_of_each(scale, layers_of(ticket)))

  def mutated(_, weight, uniform, scale):
    normal = scale * np.float32(np.sqrt(2)) * jax.lax.erf_inv(uniform[1])
    return mutate(uniform[0] < 2 * rate - 1, weight, normal)

  return ticket.replace(weights=map_kernels(mutated, ticket.masks, ticket.weights, uniform, scales))


def dormancy(key: Key[Array, ""], ticket: Ticket, rate: Number) -> Ticket:
  """Dormancy mutation: the mask bit becomes 0 with probability `rate`; the weight stays in the genome.

  Layers that have a count of their own are left alone.
  """
  chosen = _choose(key, rate, ticket.masks)
  masks = jax.tree.map(lambda mask, chosen: mask & ~chosen, ticket.masks, chosen)
  if own := own_counts(ticket.layers):
    new, old = ticket.by_layer(masks), ticket.by_layer(ticket.masks)
    masks = from_layers(ticket, {name: old[name] if name in own else new[name] for name in new})
  return ticket.replace(masks=masks)


def _choose(key: Key[Array, ""], rate: Number, tree: Params) -> PyTree[Bool[Array, "..."]]:
  """True with probability `rate`, for each entry of a tree."""
  return draw_like(lambda size: jax.random.bernoulli(key, rate, (size,)), tree)


def rate_setting(default: Value, help: str) -> Value:
  """A probability, a number or a schedule."""
  return setting(default, help, group="genetic operators", kind=RATE, rule=SHARE)


@structs.dataclass
class Crossover(Operator):
  """`crossover` of the child so far with parent 2."""

  rate: Rate = rate_setting(0.5, "Probability that a gene comes from parent 1.")
  name: str = structs.field(pytree_node=False, default="crossover")

  def __call__(self, key: Key[Array, ""], child: Ticket, context: Context) -> Ticket:
    """A child of both parents."""
    assert context.parents is not None  # generation 0 has none; this operator does not act there
    return crossover(key, child, context.parents[1], context.rate(self.rate))


@structs.dataclass
class Noise(Operator):
  """`noise`."""

  rate: Rate = rate_setting(0.1, "Probability that a weight gets noise.")
  scale: Rate = setting(
    0.1, "Standard deviation of the noise.", group="genetic operators", kind=RATE, rule=at_least(0)
  )
  name: str = structs.field(pytree_node=False, default="noise")

  def __call__(self, key: Key[Array, ""], child: Ticket, context: Context) -> Ticket:
    """The child, some weights moved."""
    return noise(key, child, context.rate(self.rate), context.rate(self.scale))


@structs.dataclass
class Resample(Operator):
  """`resample`, by the distribution of the task's initial weights."""

  rate: Rate = rate_setting(0.1, "Probability that a weight is drawn anew.")
  name: str = structs.field(pytree_node=False, default="resample")

  def __call__(self, key: Key[Array, ""], child: Ticket, context: Context) -> Ticket:
    """The child, some weights drawn anew."""
    return resample(key, child, context.rate(self.rate), context.initialiser)


@structs.dataclass
class Dormancy(Operator):
  """`dormancy`, blind to what a training showed."""

  rate: Rate = rate_setting(0.2, "Probability, or share, of a child's expressed genes that fall dormant.")
  name: str = structs.field(pytree_node=False, default="dormancy")

  def __call__(self, key: Key[Array, ""], child: Ticket, context: Context) -> Ticket:
    """The child, some genes dormant."""
    return dormancy(key, child, context.rate(self.rate))
