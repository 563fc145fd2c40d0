"""Training of ONE ticket: masked minibatch SGD by optax, inside one `lax.scan`, and its evaluation.

How long to train is the number of rows of `order`, an array of example indices [steps, batch_size];
a fraction of an epoch and several epochs are the same to the code. `order` is made apart from the
training so that a whole population can share it (common random numbers).
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct

from nets_jax.data import Split
from nets_jax.networks import Params, forward
from nets_jax.tickets import Ticket, mask_weights, phenotype

# Optimisers by name: each takes the learning rate, which may be traced.
OPTIMIZERS: dict[str, Callable[[Any], optax.GradientTransformation]] = {
  "sgd": optax.sgd,
  "momentum": lambda learning_rate: optax.sgd(learning_rate, momentum=0.9),
  "adam": optax.adam,
}

# A name in `OPTIMIZERS`, or a function from the learning rate to an optax transformation.
Optimizer = str | Callable[[Any], optax.GradientTransformation]

EVALUATION_BATCH = 1000  # bounds the activations held at once, whatever the split's size


@struct.dataclass
class TrainingState:
  """A network in training: its weights, masked ones exactly zero, and the optimiser's state."""

  weights: Params
  optimizer_state: optax.OptState


@struct.dataclass
class Evaluation:
  """Mean cross-entropy in nats, and accuracy in [0, 1], over a split."""

  loss: jax.Array
  accuracy: jax.Array


def make_optimizer(optimizer: Optimizer, learning_rate: Any) -> optax.GradientTransformation:
  """The optax transformation of that name, or that function's, with this learning rate."""
  return (OPTIMIZERS[optimizer] if isinstance(optimizer, str) else optimizer)(learning_rate)


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
  """Whole minibatches in an epoch; a last smaller one is left out, and differs from epoch to epoch."""
  return num_examples // batch_size


def minibatch_order(
  key: jax.Array,
  num_examples: int,
  batch_size: int,
  steps: int,
  *,
  first: int | jax.Array = 0,
  whole_epochs: bool = True,
) -> jax.Array:
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


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """-log softmax(logits)[label] of each example: [batch]."""
  return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def start(ticket: Ticket, optimizer: optax.GradientTransformation) -> TrainingState:
  """The state at iteration 0: the phenotype theta_0 (.) M."""
  weights = phenotype(ticket)
  return TrainingState(weights, optimizer.init(weights))


def advance(
  key: jax.Array,
  network: nn.Module,
  state: TrainingState,
  masks: Params,
  split: Split,
  order: jax.Array,
  optimizer: optax.GradientTransformation,
  first: int | jax.Array = 0,
) -> TrainingState:
  """Trains on the minibatches of `order`, one step each.

  The gradient is that of f(x; theta (.) M): masked entries are zero before the optimiser sees them.
  Its update is masked as well, so that masked weights stay exactly zero whatever the optimiser adds
  (weight decay, noise), without masking the weights in every forward pass.

  Args:
    key: of dropout; step t uses `fold_in(key, t)`.
    network: the module.
    state: from `start` or an earlier `advance`.
    masks: M.
    split: the training examples.
    order: example indices [steps, batch_size].
    optimizer: any optax transformation.
    first: iteration of the first step, so that dropout goes on where an earlier `advance` left it.
  """
  split = jax.tree.map(jnp.asarray, split)  # NumPy arrays take no traced index

  def loss(weights, inputs, labels, dropout_key):
    return jnp.mean(cross_entropy(forward(network, weights, inputs, dropout_key), labels))

  def step(state, batch):
    index, examples = batch
    dropout_key = jax.random.fold_in(key, index)
    gradient = jax.grad(loss)(state.weights, split.inputs[examples], split.labels[examples], dropout_key)
    updates, optimizer_state = optimizer.update(
      mask_weights(gradient, masks), state.optimizer_state, state.weights
    )
    weights = optax.apply_updates(state.weights, mask_weights(updates, masks))
    return TrainingState(weights, optimizer_state), None

  steps = first + jnp.arange(order.shape[0])
  return jax.lax.scan(step, state, (steps, order))[0]


def train(
  key: jax.Array,
  network: nn.Module,
  ticket: Ticket,
  split: Split,
  order: jax.Array,
  optimizer: optax.GradientTransformation,
) -> Params:
  """theta_T: the ticket's weights after the steps of `order`; see `advance` for the arguments."""
  state = start(ticket, optimizer)
  return advance(key, network, state, ticket.masks, split, order, optimizer).weights


def evaluate(network: nn.Module, weights: Params, split: Split) -> Evaluation:
  """Loss and accuracy of a network over a whole split, without dropout."""

  def one(example):
    logits = forward(network, weights, example.inputs[None])[0]
    return cross_entropy(logits, example.labels), jnp.argmax(logits) == example.labels

  losses, correct = jax.lax.map(one, split, batch_size=min(EVALUATION_BATCH, len(split)))
  return Evaluation(jnp.mean(losses), jnp.mean(correct, dtype=jnp.float32))


def class_accuracies(network: nn.Module, weights: Params, split: Split, num_classes: int) -> jax.Array:
  """The share of each class's examples that a network gets right [num_classes]; NaN without examples."""

  def one(example):
    return jnp.argmax(forward(network, weights, example.inputs[None])[0]) == example.labels

  correct = jax.lax.map(one, split, batch_size=min(EVALUATION_BATCH, len(split)))
  is_class = jnp.asarray(split.labels)[None] == jnp.arange(num_classes)[:, None]
  return jnp.sum(is_class & correct[None], axis=1) / jnp.sum(is_class, axis=1)
