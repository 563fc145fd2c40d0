"""GradInit: how large each tensor is to begin with, by gradient (Zhu et al., 2021, arXiv 2102.08098)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key

from nets_jax import structs
from nets_jax.baselines.one_shot import Snip, batch_rows, prune_ticket
from nets_jax.baselines.stepwise import Found, Stepwise
from nets_jax.data.dataset import Split
from nets_jax.errors import UsageError
from nets_jax.kinds import DENSITY, NUMBER, POSITIVE, WHOLE, at_least
from nets_jax.networks.adapter import Params, forward_for_scores
from nets_jax.settings import setting
from nets_jax.tickets.ticket import Ticket, initialise
from nets_jax.training.layer_rates import by_layer
from nets_jax.training.task import Task
from nets_jax.training.train import minibatch_order

GROUP = "other searches"
LEAST = 0.01  # of a factor
CLIP = 1.0  # of a factor's gradient
TINY = 1e-12  # in place of a gradient of 0, where square roots of adaptive optimisers have no derivative


class Factors(NamedTuple):
  """Where a run is: the ticket as drawn, a factor of each tensor, what moves these, SNIP's examples."""

  ticket: Ticket
  factors: Params
  towards_loss: optax.OptState
  towards_bound: optax.OptState
  snip_rows: Array
  loss: Array
  norm: Array


@structs.dataclass
class GradInit(Stepwise):
  """GradInit's factors on theta_0, then SNIP's mask.

  With one factor s of each tensor, a step looks at a minibatch S. If its gradient g at s theta_0 is longer
  than the bound, |g| > gamma, Adam lowers |g| by s. Else it lowers the loss after K steps of training

      L(S'; s theta_0 - A(g)),

  with A the training's optimiser at its learning rate, and S' half of S and half fresh (the paper's
  equation 1, whose step has a size of its own). A factor stays above 0.01; a gradient of one is clipped to 1.
  Tensors that begin at zero, as biases do, stay there. The length is the Euclidean one by any optimiser,
  where the authors sum |g| for Adam; their bound is 1, of a step of its own size. As for a score, images are
  not augmented.

  Attributes:
    target_density: of SNIP's mask; the count is exact.
    scale_steps: minibatches looked at.
    scale_rate: Adam's rate.
    scale_unroll: K (static).
    gradient_bound: gamma.
    score_batch: SNIP's examples (static).
  """

  target_density: float = setting(
    0.2, "Density of the ticket to find, in (0, 1].", group="fitness", kind=NUMBER, rule=DENSITY
  )
  scale_steps: int = setting(
    400, "gradinit: minibatches that factors of the tensors are found by.", group=GROUP, kind=WHOLE,
    rule=at_least(1), static=True,
  )  # fmt: skip
  scale_rate: float = setting(
    0.01, "gradinit: Adam's rate, of these factors.", group=GROUP, kind=NUMBER, rule=POSITIVE
  )
  scale_unroll: int = setting(
    1, "gradinit: steps of training before the loss that factors are to lower.", group=GROUP, kind=WHOLE,
    rule=at_least(1), static=True,
  )  # fmt: skip
  gradient_bound: float = setting(
    10.0, "gradinit: the longest gradient that is not lowered first.", group=GROUP, kind=NUMBER, rule=POSITIVE
  )
  score_batch: int = setting(
    100, "snip, grasp, gradinit, random_scales: examples that the score looks at.", group=GROUP, kind=WHOLE,
    rule=at_least(1), static=True,
  )  # fmt: skip

  def check(self, task: Task) -> None:
    """Raises UsageError for settings that make no search."""
    super().check(task)
    self.snip.check(task)
    if task.training.batch_size < 2:
      raise UsageError("gradinit looks at halves of minibatches; give a batch_size of at least 2")

  @property
  def snip(self) -> Snip:
    """What the mask is by."""
    return Snip(target_density=self.target_density, score_batch=self.score_batch)

  def steps(self, task: Task) -> int:
    """Steps altogether."""
    del task
    return self.scale_steps

  def prepared(self, task: Task) -> Task:
    """With the schedule of the final training, of which K steps are the head."""
    return super().prepared(task.replace(training=task.training_of_search(self.scale_unroll)))

  def genome_epochs(self, task: Task) -> float:
    """A step is a minibatch for the gradient's length and K + 1 for the loss, each backwards twice."""
    return 2 * (self.scale_unroll + 2) * self.scale_steps / task.steps_per_epoch

  def begin(self, key: Key[Array, ""], task: Task) -> Factors:
    """Theta_0, and factors of 1."""
    weights_key, batch_key = jax.random.split(key)
    shape = task.data.input_shape
    ticket = initialise(weights_key, task.network, shape, initialiser=task.initialiser, layers=task.layers)
    factors = jax.tree.map(lambda _: jnp.float32(1), ticket.weights)
    state, nothing = self._adam().init(factors), jnp.float32(0)
    rows = batch_rows(batch_key, task, self.snip)
    return Factors(ticket, factors, state, state, rows, nothing, nothing)

  def _adam(self) -> optax.GradientTransformation:
    return optax.adam(self.scale_rate)

  def advance(self, key: Key[Array, ""], state: Factors, task: Task, first: Array, steps: int) -> Factors:
    """See `Stepwise.advance`."""
    train, size = jax.tree.map(jnp.asarray, task.data.train), task.training.batch_size
    adam, half, many = self._adam(), size // 2, self.scale_unroll + 1
    order = minibatch_order(key, len(train), size, steps * many, first=first * many, whole_epochs=False)

    def step(i, state):
      rows = jax.lax.dynamic_slice_in_dim(order, i * many, many)
      seen, later = rows[:-1], jnp.concatenate([rows[0, :half], rows[-1, half:]])

      def norm(factors):
        gradient = self._gradient(_scaled(state.ticket.weights, factors), task, train.examples(seen[0]))
        return optax.tree.norm(gradient)

      def loss(factors):
        weights = self.trained(_scaled(state.ticket.weights, factors), task, train, seen)
        return self._loss(weights, task, train.examples(later))

      length, slope = jax.value_and_grad(norm)(state.factors)

      def lower_norm(state):
        factors, optimizer = _moved(adam, slope, state.factors, state.towards_bound)
        return state._replace(factors=factors, towards_bound=optimizer)

      def lower_loss(state):
        value, slope = jax.value_and_grad(loss)(state.factors)
        factors, optimizer = _moved(adam, slope, state.factors, state.towards_loss)
        return state._replace(factors=factors, towards_loss=optimizer, loss=value)

      is_long = ~(length <= self.gradient_bound)  # NaN too
      return jax.lax.cond(is_long, lower_norm, lower_loss, state)._replace(norm=length)

    return jax.lax.fori_loop(0, steps, step, state)

  def trained(self, weights: Params, task: Task, train: Split, order: Array) -> Params:
    """The weights after a step on each minibatch of `order`; its derivative is that of the steps too."""
    optimizer = task.training.make_optimizer()
    state = optimizer.init(weights)
    for rows in order:
      gradient = self._gradient(weights, task, train.examples(rows))
      gradient = jax.tree.map(lambda g: jnp.where(jnp.abs(g) < TINY, TINY, g), gradient)
      updates, state = optimizer.update(gradient, state, weights)
      updates = by_layer(updates, task.training.layer_rates, task.free_layers)
      weights = optax.apply_updates(weights, updates)
    return weights

  def _loss(self, weights: Params, task: Task, batch: Split) -> Array:
    outputs = forward_for_scores(task.network, weights, batch.inputs)
    return jnp.mean(task.training_losses(outputs, jnp.asarray(batch.labels)))

  def _gradient(self, weights: Params, task: Task, batch: Split) -> Params:
    return jax.grad(self._loss)(weights, task, batch)

  def measure(self, state: Factors, task: Task) -> dict[str, Array]:
    """The loss after the steps, the gradient's length, and the factor of each layer."""
    del task
    factors = state.ticket.by_layer(state.factors)
    columns = {f"factor_{name}": factor for name, factor in factors.items()}
    density = jnp.float32(self.target_density)
    return {"loss": state.loss, "gradient_norm": state.norm, "density": density, **columns}

  def finish(self, state: Factors, task: Task) -> Found:
    """The scaled weights under SNIP's mask."""
    ticket = state.ticket.replace(weights=_scaled(state.ticket.weights, state.factors))
    ticket, _, tells = prune_ticket(state.snip_rows, ticket, task, self.snip)
    finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(ticket.weights)]).all()
    return Found(ticket, tells.all() & finite & jnp.isfinite(state.loss) & jnp.isfinite(state.norm))


def _scaled(weights: Params, factors: Params) -> Params:
  return jax.tree.map(lambda weight, factor: (weight * factor).astype(weight.dtype), weights, factors)


def _moved(
  adam: optax.GradientTransformation, slope: Params, factors: Params, state: optax.OptState
) -> tuple[Params, optax.OptState]:
  """Factors after a step of Adam, none below the least."""
  clipped = jax.tree.map(lambda g: jnp.clip(jnp.nan_to_num(g), -CLIP, CLIP), slope)
  updates, state = adam.update(clipped, state, factors)
  return jax.tree.map(lambda s, u: jnp.maximum(s + u, LEAST), factors, updates), state


SEARCHES = {"gradinit": GradInit}
