"""Dynamic sparse training: a mask that moves while the network trains.

What it leaves is a trained network. Its last mask on theta_0 is a ticket as any other.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, Key

from nets_jax import structs
from nets_jax.baselines.stepwise import Found, Stepwise
from nets_jax.errors import UsageError
from nets_jax.kinds import DENSITY, NUMBER, WHOLE, Rule, at_least, choice, describe, one_of
from nets_jax.networks.adapter import NetworkState, Params, draw_variables
from nets_jax.networks.precision import PRECISIONS
from nets_jax.settings import setting
from nets_jax.tickets.ticket import (
  Ticket,
  full_masks,
  initialise,
  map_kernels,
  mask_weights,
  maskable_count,
  unmasked_count,
)
from nets_jax.training.evaluation import evaluate
from nets_jax.training.statistics import BATCHES, settled
from nets_jax.training.task import Task
from nets_jax.training.train import TrainingState, advance, minibatch_order, start

GROUP = "other searches"
PART = Rule("in (0, 1]", lambda share: 0 < share <= 1)


class Moving(NamedTuple):
  """Where a run is: theta_0, the network in training under its mask, and what it is scored with."""

  ticket: Ticket
  masks: Params
  training: TrainingState
  settled: NetworkState


@structs.dataclass
class Dynamic(Stepwise):
  """Base: a training as long as the final one, whose mask may change every `mask_every` steps.

  A subclass has `first_masks` and `moved`; `moves_alone` says whether a step that moves the mask moves no
  weight.

  Attributes:
    target_density: of the last mask; the count is exact.
    mask_every: steps between changes (static).
    mask_until: share of the training after which the mask stays (static).
    precision: of the training's matrix products (static).
  """

  target_density: float = setting(
    0.2, "Density of the ticket to find, in (0, 1].", group="fitness", kind=NUMBER, rule=DENSITY
  )
  mask_every: int = setting(
    100, "rigl, set, gradual: steps of training between changes of the mask.", group=GROUP, kind=WHOLE,
    rule=at_least(1), static=True,
  )  # fmt: skip
  mask_until: float = setting(
    0.75, "rigl, set, gradual: share of the training after which the mask stays.", group=GROUP, kind=NUMBER,
    rule=PART, static=True,
  )  # fmt: skip
  precision: str = setting(
    "float32", "Of the matrix products in a search's training.", group="machine",
    kind=choice(tuple(PRECISIONS)), rule=one_of(tuple(PRECISIONS)), static=True,
  )  # fmt: skip

  is_instant = True  # of a training that is cut short the mask would be denser, or not found
  moves_alone = False

  def check(self, task: Task) -> None:
    """Raises UsageError for settings that make no search."""
    super().check(task)
    if not self.changes(task):
      raise UsageError(
        f"the mask would never change: no multiple of mask_every ({self.mask_every}) lies within "
        f"{self.mask_until:g} of the training's {self.steps(task):,} steps; lower mask_every, or raise "
        "the epochs of training (train_epochs, tune_epochs)"
      )
    check_state(task)

  def changes(self, task: Task) -> range:
    """The steps before which the mask changes."""
    return range(self.mask_every, math.ceil(self.mask_until * self.steps(task)), self.mask_every)

  def steps(self, task: Task) -> int:
    """Those of the final training."""
    return task.epochs * task.steps_per_epoch

  def prepared(self, task: Task) -> Task:
    """With the whole schedule of the final training."""
    whole = task.replace(training=task.training.over(self.steps(task)))
    return super().prepared(whole).replace(training=whole.training, epochs=task.epochs)

  def genome_epochs(self, task: Task) -> float:
    """Of the one training; a gradient of all weights now and then is not counted."""
    return float(task.epochs)

  def begin(self, key: Key[Array, ""], task: Task) -> Moving:
    """Theta_0 under the first mask."""
    weights_key, masks_key = jax.random.split(key)
    shape = task.data.input_shape
    ticket = initialise(weights_key, task.network, shape, initialiser=task.initialiser, layers=task.layers)
    ticket = ticket.replace(masks=self.first_masks(masks_key, ticket, task))
    state = start(ticket, task)
    return Moving(ticket, ticket.masks, state, state.network_state)

  def first_masks(self, key: Key[Array, ""], ticket: Ticket, task: Task) -> Params:
    """The mask that the training begins with."""
    raise NotImplementedError

  def moved(
    self, key: Key[Array, ""], state: Moving, task: Task, rows: Int[Array, " batch"], at: Array
  ) -> Params:
    """The mask from step `at` on, of the network as it is before it and the step's minibatch."""
    raise NotImplementedError

  def advance(self, key: Key[Array, ""], state: Moving, task: Task, first: Array, steps: int) -> Moving:
    """See `Stepwise.advance`."""
    order_key, dropout_key = jax.random.split(key)  # as of any training
    masks_key = jax.random.fold_in(key, 2)
    train, batch = task.data.train, task.training.batch_size
    order = minibatch_order(order_key, len(train), batch, steps, first=first, whole_epochs=True)
    due, optimizer = self.changes(task), task.training.make_optimizer()

    def train_one(i, state):
      training = advance(dropout_key, state.training, state.masks, task, order[i][None], first + i, order_key)
      return state._replace(training=training)

    def move(i, state):
      masks = self.moved(jax.random.fold_in(masks_key, first + i), state, task, order[i], first + i)
      training = state.training
      training = training.replace(
        weights=mask_weights(training.weights, masks),
        optimizer_state=forgotten(optimizer, training.optimizer_state, training.weights, state.masks, masks),
      )
      state = state._replace(masks=masks, training=training)
      return state if self.moves_alone else train_one(i, state)

    def step(i, state):
      at = first + i
      is_due = (at >= due.start) & (at % due.step == 0) & (at < due.stop)
      return jax.lax.cond(is_due, move, train_one, i, state)

    state = jax.lax.fori_loop(0, steps, step, state)
    end = first + steps
    seen = minibatch_order(
      order_key, len(train), batch, BATCHES, first=jnp.maximum(end - BATCHES, 0), whole_epochs=False
    )
    training = state.training
    by = settled(dropout_key, task, training.weights, training.network_state, seen)
    return state._replace(settled=by)

  def measure(self, state: Moving, task: Task) -> dict[str, Array]:
    """Loss and score of the network on validation examples, and its density."""
    found = evaluate(task, state.training.weights, task.data.valid, state.settled)
    share = unmasked_count(state.ticket.replace(masks=state.masks)) / maskable_count(state.ticket)
    return {"valid_loss": found.loss, task.measures.column("valid"): found.score, "density": share}

  def finish(self, state: Moving, task: Task) -> Found:
    """The last mask on theta_0, and the network as it was trained."""
    del task
    ticket = state.ticket.replace(masks=state.masks)
    return Found(ticket, jnp.bool_(True), (state.training.weights, state.settled))


def check_state(task: Task) -> None:
  """Raises UsageError for an optimiser whose state cannot be told weight by weight."""
  optimizer = task.training.over(1000).make_optimizer()

  def masked():
    weights = draw_variables(jax.random.key(0), task.network, task.data.input_shape).weights
    masks = full_masks(weights, task.layers)
    return forgotten(optimizer, optimizer.init(weights), weights, masks, masks)

  try:
    jax.eval_shape(masked)
  except (TypeError, ValueError, KeyError, AttributeError) as error:
    raise UsageError(
      f"the state of {describe(task.training.optimizer)} cannot be told weight by weight, so it cannot "
      "follow a mask that moves; choose another optimiser"
    ) from error


def forgotten(
  optimizer: optax.GradientTransformation,
  state: optax.OptState,
  weights: Params,
  before: Params,
  after: Params,
) -> optax.OptState:
  """An optimiser's state under a new mask: zero of weights that are masked before or after."""
  stays = map_kernels(jnp.logical_and, before, after)
  whole = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), weights)
  keep = jax.tree.map(
    lambda mask, full: full if mask is None else mask, stays, whole, is_leaf=lambda leaf: leaf is None
  )

  def forget(leaf, mask):  # of what is not of each weight, as of a layer's norm, nothing is known to be stale
    return jnp.where(mask, leaf, 0) if jnp.shape(leaf) == mask.shape else leaf

  return optax.tree.map_params(optimizer.init, forget, state, keep)
