"""Training of ONE ticket: masked minibatch SGD by optax, inside one `lax.scan`, and its evaluation.

How long to train is the number of rows of `order`, an array of example indices [steps, batch_size];
a fraction of an epoch and several epochs are the same to the code. `order` is made apart from the
training so that a whole population can share it (common random numbers).
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jaxtyping import Array, Float, Int, Key

from nets_jax.data.dataset import Split
from nets_jax.data.targets import CLASSES, IN_WORDS
from nets_jax.errors import UsageError
from nets_jax.networks.adapter import NetworkState, Params, forward, forward_in_training, initial_state
from nets_jax.tickets.ticket import Ticket, mask_weights, phenotype
from nets_jax.training.task import Task
from nets_jax.training.training import steps_per_epoch

EVALUATION_BATCH = 1000  # bounds the activations held at once, whatever the split's size


@struct.dataclass
class TrainingState:
  """A network in training: its weights, masked ones exactly zero, the optimiser's state and its own."""

  weights: Params
  optimizer_state: optax.OptState
  network_state: NetworkState


@struct.dataclass
class Evaluation:
  """The means over a split of the task's loss and score: of classes cross-entropy in nats, and accuracy."""

  loss: Float[Array, "..."]
  score: Float[Array, "..."]


def minibatch_order(
  key: Key[Array, ""],
  num_examples: int,
  batch_size: int,
  steps: int,
  *,
  first: int | Int[Array, ""] = 0,
  whole_epochs: bool = True,
) -> Int[Array, "{steps} {batch_size}"]:
  """The examples of each minibatch: one shuffle per epoch, epochs concatenated.

  Args:
    key: epoch e is shuffled by `fold_in(key, e)`, so any two slices of the order agree where they meet.
    num_examples: size of the training set.
    batch_size: examples in a minibatch.
    steps: minibatches altogether.
    first: iteration of the first minibatch; may be traced.
    whole_epochs: says that `first` begins an epoch, which saves a shuffle.

  Returns:
    Example indices, int32 [steps, batch_size].
  """
  per_epoch = steps_per_epoch(num_examples, batch_size)
  epochs = -(-steps // per_epoch) + (not whole_epochs)
  numbers = first // per_epoch + jnp.arange(epochs)
  keys = jax.vmap(lambda epoch: jax.random.fold_in(key, epoch))(numbers)
  shuffled = jax.vmap(lambda k: jax.random.permutation(k, num_examples))(keys)
  order = shuffled[:, : per_epoch * batch_size].reshape(epochs * per_epoch, batch_size).astype(jnp.int32)
  if whole_epochs:
    return order[:steps]
  return jax.lax.dynamic_slice_in_dim(order, first % per_epoch, steps)


def start(ticket: Ticket, task: Task, network_state: NetworkState | None = None) -> TrainingState:
  """The state at iteration 0: the phenotype theta_0 (.) M.

  Args:
    ticket: what is trained.
    task: how, with its data's shape.
    network_state: None is the network's own, as every training of a ticket begins with.
  """
  weights = phenotype(ticket)
  if network_state is None:
    network_state = initial_state(task.network, task.data.input_shape)
  return TrainingState(weights, task.training.make_optimizer().init(weights), network_state)


def advance(
  key: Key[Array, ""],
  state: TrainingState,
  masks: Params,
  task: Task,
  order: Int[Array | np.ndarray, "steps batch"],
  first: int | Int[Array, ""] = 0,
) -> TrainingState:
  """Trains on the minibatches of `order`, one step each.

  The gradient is that of f(x; theta (.) M): masked entries are zero before the optimiser sees them.
  Its update is masked as well, so that masked weights stay exactly zero whatever the optimiser adds
  (weight decay, noise), without masking the weights in every forward pass.

  Args:
    key: of dropout; step t uses `fold_in(key, t)`.
    state: from `start` or an earlier `advance`.
    masks: M.
    task: trained on `train`.
    order: example indices [steps, batch_size].
    first: iteration of the first step, so that dropout goes on where an earlier `advance` left it.
  """
  split = jax.tree.map(jnp.asarray, task.data.train)  # NumPy arrays take no traced index
  optimizer = task.training.make_optimizer()

  def loss(weights, network_state, inputs, labels, dropout_key):
    outputs, network_state = forward_in_training(task.network, weights, network_state, inputs, dropout_key)
    return jnp.mean(task.training_losses(outputs, labels)), network_state

  def step(state, batch):
    index, examples = batch
    dropout_key = jax.random.fold_in(key, index)
    inputs, labels = split.inputs[examples], split.labels[examples]
    # Statistics of a batch are small differences, whose last bits hang on what XLA fuses them with. Kept
    # apart, a step has the same bits in every program. A network without state needs none of it.
    if jax.tree.leaves(state.network_state):
      state, inputs, labels = jax.lax.optimization_barrier((state, inputs, labels))
    gradient, network_state = jax.grad(loss, has_aux=True)(
      state.weights, state.network_state, inputs, labels, dropout_key
    )
    if jax.tree.leaves(state.network_state):
      gradient, network_state = jax.lax.optimization_barrier((gradient, network_state))
    updates, optimizer_state = optimizer.update(
      mask_weights(gradient, masks), state.optimizer_state, state.weights
    )
    weights = optax.apply_updates(state.weights, mask_weights(updates, masks))
    return TrainingState(weights, optimizer_state, network_state), None

  steps = first + jnp.arange(order.shape[0])
  return jax.lax.scan(step, state, (steps, order))[0]


def train(
  key: Key[Array, ""], ticket: Ticket, task: Task, order: Int[Array | np.ndarray, "steps batch"]
) -> TrainingState:
  """The ticket after the steps of `order`: theta_T and its state; see `advance` for the arguments."""
  return advance(key, start(ticket, task), ticket.masks, task, order)


def evaluate(
  task: Task, weights: Params, split: Split, network_state: NetworkState | None = None
) -> Evaluation:
  """Loss and score of a network over a whole split, without dropout.

  Args:
    task: says what these are.
    weights: of the network.
    split: the examples.
    network_state: what it computes with besides; see `statistics.settled`. None is its initial one.
  """
  if network_state is not None and jax.tree.leaves(network_state):
    weights, network_state = jax.lax.optimization_barrier((weights, network_state))

  def loss_and_score(example):
    logits = forward(task.network, weights, example.inputs[None], state=network_state)
    labels = example.labels[None]
    return task.losses(logits, labels)[0], task.scores(logits, labels)[0]

  losses, scores = jax.lax.map(loss_and_score, split, batch_size=min(EVALUATION_BATCH, len(split)))
  return Evaluation(jnp.mean(losses), jnp.mean(scores, dtype=jnp.float32))


def class_accuracies(
  task: Task, weights: Params, split: Split, network_state: NetworkState | None = None
) -> Float[Array, " classes"]:
  """The share of each class's examples that a network gets right [num_classes]; NaN without examples.

  Raises:
    UsageError: the targets are no classes.
  """
  if task.data.targets != CLASSES:
    raise UsageError(
      f"class_accuracies is of classes, but the data's labels are {IN_WORDS[task.data.targets]}"
    )

  def is_correct(example):
    return (
      jnp.argmax(forward(task.network, weights, example.inputs[None], state=network_state)[0])
      == example.labels
    )

  correct = jax.lax.map(is_correct, split, batch_size=min(EVALUATION_BATCH, len(split)))
  is_class = jnp.asarray(split.labels)[None] == jnp.arange(task.data.num_classes)[:, None]
  return jnp.sum(is_class & correct[None], axis=1) / jnp.sum(is_class, axis=1)
