"""Concrete Ticket Search: probabilities of a mask, by gradient (Arora & Teuscher, 2025, arXiv 2512.07142)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key

from nets_jax import structs
from nets_jax.baselines.stepwise import Found, Stepwise
from nets_jax.data.dataset import Split
from nets_jax.data.targets import CLASSES
from nets_jax.errors import UsageError
from nets_jax.kinds import DENSITY, NUMBER, POSITIVE, WHOLE, at_least, choice, one_of
from nets_jax.networks.adapter import Params, forward_for_scores
from nets_jax.networks.initialisation import draw_like
from nets_jax.networks.layer_rules import own_counts
from nets_jax.settings import setting
from nets_jax.tickets.layer_counts import free_size, keep_highest
from nets_jax.tickets.ticket import Ticket, from_layers, initialise, kernels, map_kernels, maskable_count
from nets_jax.training.task import Task
from nets_jax.training.train import minibatch_order

GROUP = "other searches"
OBJECTIVES = ("kl", "loss")
TEMPERATURE = 2 / 3
SCALE = 100.0  # of the objective and of the density's error, which keeps gradients far above Adam's epsilon
MARGIN = 1.1  # times the target density: what the expected density is pushed to
SMOOTHING = 0.01  # how much of the balance is that of this step
FALL = (0.88, 0.1)  # after that share of the steps the rate falls to a tenth


class ConcreteState(NamedTuple):
  """Where a run is: its ticket's weights, the logits a of the mask's probabilities, and what moves them."""

  ticket: Ticket
  logits: Params
  balance: Array
  optimizer: optax.OptState
  objective: Array


@structs.dataclass
class Concrete(Stepwise):
  """Concrete Ticket Search: the mask of theta_0 is optimised, and theta_0 is not.

  Each weight is kept with probability p = sigmoid(a). A step draws Binary-Concrete gates

      m = sigmoid(a + (log u - log(1 - u)) / T),   u ~ U(0, 1),   T = 2/3

  and Adam follows g + b h, with g the gradient of the objective at theta_0 (.) m and h that of the density's
  error e = sum(p) / (1.1 d n) - 1. The balance b is a moving average of |g| / |h|, and of 0 where e < 0
  (GradBalance). All logits begin at the target's. The ticket keeps the exact count of the highest.

  The objective `kl` is the reverse divergence KL(sparse || dense) of the class probabilities, by which the
  sparse network computes as the dense one does; `loss` is the training's own. A pattern of masks is kept to
  in the end, not while the probabilities are found. As for a score, images are not augmented.

  Attributes:
    target_density: d, share of the weights kept; the count is exact.
    concrete_epochs: epochs of steps, on the training's minibatches.
    concrete_rate: Adam's rate; it falls to a tenth after 88 % of the steps.
    concrete_objective: `kl` or `loss` (static).
  """

  target_density: float = setting(
    0.2, "Density of the ticket to find, in (0, 1].", group="fitness", kind=NUMBER, rule=DENSITY
  )
  concrete_epochs: int = setting(
    20, "concrete: epochs of steps that the mask's probabilities take.", group=GROUP, kind=WHOLE,
    rule=at_least(1), static=True,
  )  # fmt: skip
  concrete_rate: float = setting(
    0.1, "concrete: Adam's rate, of the logits of these probabilities.", group=GROUP, kind=NUMBER,
    rule=POSITIVE,
  )  # fmt: skip
  concrete_objective: str = setting(
    "kl", "concrete: divergence from the dense network's outputs, or the loss.", group=GROUP,
    kind=choice(OBJECTIVES), rule=one_of(OBJECTIVES), static=True,
  )  # fmt: skip

  def check(self, task: Task) -> None:
    """Raises UsageError for settings that make no search."""
    super().check(task)
    if self.concrete_objective == "kl" and task.data.targets != CLASSES:
      raise UsageError(
        "concrete_objective=kl is of class probabilities, which these data have not; give "
        "concrete_objective=loss"
      )

  def steps(self, task: Task) -> int:
    """Steps altogether."""
    return self.concrete_epochs * task.steps_per_epoch

  def genome_epochs(self, task: Task) -> float:
    """An epoch of steps is one; `kl` adds a third for the dense network's outputs."""
    del task
    return self.concrete_epochs * (4 / 3 if self.concrete_objective == "kl" else 1)

  def begin(self, key: Key[Array, ""], task: Task) -> ConcreteState:
    """Theta_0, and the logit of the target density everywhere, but in layers that have one of their own."""
    shape = task.data.input_shape
    ticket = initialise(key, task.network, shape, initialiser=task.initialiser, layers=task.layers)
    own, layers = own_counts(task.layers), task.layers
    left = self.target_density * sum(layer.size for layer in layers) - sum(own.values())
    free = left / max(1, free_size(layers))

    def logits_of(layer):
      share = jnp.clip(own.get(layer.name, free * layer.size) / layer.size, 1e-6, 1 - 1e-6)
      return jnp.full(layer.shape, jnp.log(share / (1 - share)), jnp.float32)

    logits = from_layers(ticket, {layer.name: logits_of(layer) for layer in layers})
    return ConcreteState(ticket, logits, jnp.float32(-1), self._adam(task).init(logits), jnp.float32(0))

  def _adam(self, task: Task) -> optax.GradientTransformation:
    falls = {round(FALL[0] * self.steps(task)): FALL[1]}
    schedule = optax.piecewise_constant_schedule(1.0, falls)
    return optax.adam(lambda count: self.concrete_rate * schedule(count))

  def advance(
    self, key: Key[Array, ""], state: ConcreteState, task: Task, first: Array, steps: int
  ) -> ConcreteState:
    """See `Stepwise.advance`."""
    order_key, noise_key = jax.random.split(key)
    train = jax.tree.map(jnp.asarray, task.data.train)
    size = task.training.batch_size
    order = minibatch_order(order_key, len(train), size, steps, first=first, whole_epochs=True)
    adam, aim = self._adam(task), MARGIN * self.target_density * maskable_count(state.ticket)

    def step(i, state):
      batch = train.examples(order[i])
      noise = jax.random.fold_in(noise_key, first + i)
      value, gradient = jax.value_and_grad(self.objective)(state.logits, noise, state.ticket, task, batch)
      gradient = jax.tree.map(lambda g: SCALE * g, gradient)
      kept = jax.tree.map(jax.nn.sigmoid, state.logits)
      error = total(kept) / aim - 1
      slope = jax.tree.map(lambda p: SCALE / aim * p * (1 - p), kept)
      now = balance(gradient, slope, error)
      smoothed = (1 - SMOOTHING) * state.balance + SMOOTHING * now
      lever = jnp.where(state.balance < 0, now, smoothed)
      whole = jax.tree.map(lambda g, h: g + lever * h, gradient, slope)
      updates, optimizer = adam.update(whole, state.optimizer, state.logits)
      logits = optax.apply_updates(state.logits, updates)
      return ConcreteState(state.ticket, logits, lever, optimizer, state.objective + value / steps)

    return jax.lax.fori_loop(0, steps, step, state._replace(objective=jnp.float32(0)))

  def objective(self, logits: Params, key: Key[Array, ""], ticket: Ticket, task: Task, batch: Split) -> Array:
    """What the gates drawn by a key come to on a batch of examples: a number."""
    noise = draw_like(lambda size: jax.random.logistic(key, (size,)), logits)
    gates = jax.tree.map(lambda a, x: jax.nn.sigmoid(a + x / TEMPERATURE), logits, noise)
    gated = map_kernels(lambda gate, weight: (gate * weight).astype(weight.dtype), gates, ticket.weights)
    outputs = forward_for_scores(task.network, gated, batch.inputs)
    if self.concrete_objective == "loss":
      return jnp.mean(task.training_losses(outputs, jnp.asarray(batch.labels)))
    dense = forward_for_scores(task.network, ticket.weights, batch.inputs)
    return jnp.mean(reverse_divergence(outputs, dense))

  def measure(self, state: ConcreteState, task: Task) -> dict[str, Array]:
    """The objective's mean over the turn, the expected density, and the balance."""
    del task
    expected = total(jax.tree.map(jax.nn.sigmoid, state.logits))
    return {
      "objective": state.objective,
      "expected_density": expected / maskable_count(state.ticket),
      "balance": state.balance,
      "density": jnp.float32(self.target_density),
    }

  def finish(self, state: ConcreteState, task: Task) -> Found:
    """The exact count of the highest logits."""
    count = jnp.maximum(jnp.round(self.target_density * maskable_count(state.ticket)), 1).astype(jnp.int32)
    masks = keep_highest(kernels(state.logits, state.ticket.masks), count, task.layers)
    # Of a layer without a rank the first weights would be kept.
    tells = [jnp.isfinite(a).all() & (a.max() > a.min()) for a in jax.tree.leaves(state.logits)]
    return Found(state.ticket.replace(masks=masks), jnp.stack(tells).all())


def total(tree: Params) -> Array:
  """The sum of all entries of a tree."""
  return jnp.stack([jnp.sum(leaf) for leaf in jax.tree.leaves(tree)]).sum()


def balance(gradient: Params, slope: Params, error: Array) -> Array:
  """GradBalance: by how much the density's gradient is multiplied to be as long as the objective's.

  It is 0 where the expected density is below what it is pushed to.
  """
  length, other = optax.tree.norm(gradient), optax.tree.norm(slope)
  return jnp.where(error < 0, 0.0, length / (other + 1e-12))


def reverse_divergence(sparse: Array, dense: Array) -> Array:
  """KL(sparse || dense) of the class probabilities that two sets of logits give: [batch]."""
  ours, theirs = (jax.nn.log_softmax(logits) for logits in (sparse, dense))
  return jnp.sum(jnp.exp(ours) * (ours - theirs), axis=-1)


SEARCHES = {"concrete": Concrete}
