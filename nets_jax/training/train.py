"""Training of ONE ticket: masked minibatch SGD by optax, inside one `lax.scan`, and its evaluation.

How long to train is the number of rows of `order`, an array of example indices [steps, batch_size];
a fraction of an epoch and several epochs are the same to the code. `order` is made apart from the
training so that a whole population can share it (common random numbers).
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jaxtyping import Array, Float, Int, Key

from nets_jax.data.dataset import Split
from nets_jax.data.targets import CLASSES, IN_WORDS
from nets_jax.errors import UsageError
from nets_jax.networks.adapter import (
  NetworkState,
  Params,
  forward,
  forward_in_training,
  initial_state,
  keeps_statistics,
  name_of,
)
from nets_jax.tickets.ticket import Ticket, mask_weights, phenotype
from nets_jax.training.task import Task
from nets_jax.training.training import Training, steps_per_epoch

_AUGMENTATION = np.uint32(2**32 - 2)  # whose keys are those of epochs, and of steps
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
  order_key: Key[Array, ""] | None = None,
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
    order_key: that `order` was made by, and augmentations are drawn by, at step t by t alone. So all that are
      trained on the same minibatches see the same images. `augment_apart` draws by `key` in its place.

  Raises:
    UsageError: the training augments, and no key is given for it.
  """
  split = jax.tree.map(jnp.asarray, task.data.train)  # NumPy arrays take no traced index
  optimizer, parts = task.training.make_optimizer(), task.training.accumulate
  augment = _augmentation(task.training, key if task.training.augment_apart else order_key)

  def loss(weights, network_state, inputs, labels, dropout_key):
    outputs, network_state = forward_in_training(task.network, weights, network_state, inputs, dropout_key)
    return jnp.mean(task.training_losses(outputs, labels)), network_state

  def step(state, batch):
    index, examples = batch
    dropout_key = jax.random.fold_in(key, index)
    inputs, labels = augment(index, split.standardised(split.inputs[examples])), split.labels[examples]
    # Statistics of a batch are small differences, whose last bits hang on what XLA fuses them with. Kept
    # apart, a step has the same bits in every program. A network without state needs none of it.
    if jax.tree.leaves(state.network_state):
      state, inputs, labels = jax.lax.optimization_barrier((state, inputs, labels))
    differentiate = jax.grad(loss, has_aux=True)
    if parts > 1:
      differentiate = functools.partial(_accumulated, differentiate, parts)
    gradient, network_state = differentiate(state.weights, state.network_state, inputs, labels, dropout_key)
    if jax.tree.leaves(state.network_state):
      gradient, network_state = jax.lax.optimization_barrier((gradient, network_state))
    updates, optimizer_state = optimizer.update(
      mask_weights(gradient, masks), state.optimizer_state, state.weights
    )
    weights = optax.apply_updates(state.weights, mask_weights(updates, masks))
    return TrainingState(weights, optimizer_state, network_state), None

  steps = first + jnp.arange(order.shape[0])
  return jax.lax.scan(step, state, (steps, order))[0]


def _accumulated(
  differentiate: Callable[..., tuple[Params, NetworkState]],
  parts: int,
  weights: Params,
  network_state: NetworkState,
  inputs: jax.Array,
  labels: jax.Array,
  dropout_key: jax.Array,
) -> tuple[Params, NetworkState]:
  """The mean of the gradients of a minibatch's equal parts, in float32, and the state after all of them.

  A scan, and not `optax.MultiSteps`: a minibatch stays one iteration to schedules, checkpoints and the order
  of examples, and the sum lives within a step. The state passes through the parts, so batch normalisation
  sees each as a batch of its own ("ghost batches", Hoffer et al., 2017). Part i draws its dropout by
  `fold_in(key, i)`.
  """

  def add(carry, part):
    total, network_state = carry
    index, part_inputs, part_labels = part
    key = jax.random.fold_in(dropout_key, index)
    gradient, network_state = differentiate(weights, network_state, part_inputs, part_labels, key)
    return (jax.tree.map(lambda t, g: t + g.astype(jnp.float32), total, gradient), network_state), None

  nothing = jax.tree.map(lambda weight: jnp.zeros(weight.shape, jnp.float32), weights)
  split = (jnp.arange(parts), *(x.reshape(parts, -1, *x.shape[1:]) for x in (inputs, labels)))
  (total, network_state), _ = jax.lax.scan(add, (nothing, network_state), split)
  return jax.tree.map(lambda t, w: (t / parts).astype(w.dtype), total, weights), network_state


def _augmentation(
  training: Training, key: Key[Array, ""] | None
) -> Callable[[Int[Array, ""], jax.Array], jax.Array]:
  """What is done to the inputs of a step by its number."""
  augment = training.augmentation
  if augment is None:
    return lambda index, inputs: inputs
  if key is None:
    raise UsageError("this training augments its images; give the key of its minibatches: order_key=...")
  drawn_by = jax.random.fold_in(key, _AUGMENTATION)
  return lambda index, inputs: augment(jax.random.fold_in(drawn_by, index), inputs)


def train(
  key: Key[Array, ""],
  ticket: Ticket,
  task: Task,
  order: Int[Array | np.ndarray, "steps batch"],
  order_key: Key[Array, ""] | None = None,
) -> TrainingState:
  """The ticket after the steps of `order`: theta_T and its state; see `advance` for the arguments.

  A schedule that is not bound to a length is of these steps.
  """
  task = task.replace(training=task.training.over(order.shape[0]))
  return advance(key, start(ticket, task), ticket.masks, task, order, order_key=order_key)


def evaluate(
  task: Task, weights: Params, split: Split, network_state: NetworkState | None = None
) -> Evaluation:
  """Loss and score of a network over a whole split, without dropout.

  Args:
    task: says what these are.
    weights: of the network.
    split: the examples.
    network_state: what it computes with besides, as of `Trained` or a `Candidate`; None is its initial one.

  Raises:
    UsageError: none is given, and the network keeps averages of batches, which a training settles.
  """
  _check_state(task, network_state)
  if network_state is not None and jax.tree.leaves(network_state):
    weights, network_state = jax.lax.optimization_barrier((weights, network_state))

  def loss_and_score(example):
    inputs, label = example
    logits = forward(task.network, weights, split.standardised(inputs)[None], state=network_state)
    labels = label[None]
    return task.losses(logits, labels)[0], task.scores(logits, labels)[0]

  stored = split.inputs, split.labels
  losses, scores = jax.lax.map(loss_and_score, stored, batch_size=min(EVALUATION_BATCH, len(split)))
  return Evaluation(jnp.mean(losses), jnp.mean(scores, dtype=jnp.float32))


def _check_state(task: Task, network_state: NetworkState | None) -> None:
  """Raises UsageError for no state where averages say nothing before a training, or for that of several."""
  if network_state is not None:
    own = jax.eval_shape(lambda: initial_state(task.network, task.data.input_shape))  # its shapes alone
    if [*map(jnp.shape, jax.tree.leaves(network_state))] != [*map(jnp.shape, jax.tree.leaves(own))]:
      raise UsageError(
        f"network_state is not of one {name_of(task.network)}; of those of a `Trained`, take one ticket's by "
        "nets_jax.take(trained.network_states, i), and its weights likewise"
      )
  elif keeps_statistics(task.network, task.data.input_shape):
    raise UsageError(
      f"{name_of(task.network)} keeps averages of batches, which a training settles; give them as "
      "network_state: a candidate's `network_state`, or one of `Trained.network_states` by nets_jax.take"
    )


def class_accuracies(
  task: Task, weights: Params, split: Split, network_state: NetworkState | None = None
) -> Float[Array, " classes"]:
  """The share of each class's examples that a network gets right [num_classes]; NaN without examples.

  Raises:
    UsageError: the targets are no classes; or see `evaluate`, of which the arguments are.
  """
  if task.data.targets != CLASSES:
    raise UsageError(
      f"class_accuracies is of classes, but the data's labels are {IN_WORDS[task.data.targets]}"
    )
  _check_state(task, network_state)

  def is_correct(example):
    inputs, label = example
    logits = forward(task.network, weights, split.standardised(inputs)[None], state=network_state)
    return jnp.argmax(logits[0]) == label

  stored = split.inputs, split.labels
  correct = jax.lax.map(is_correct, stored, batch_size=min(EVALUATION_BATCH, len(split)))
  is_class = jnp.asarray(split.labels)[None] == jnp.arange(task.data.num_classes)[:, None]
  return jnp.sum(is_class & correct[None], axis=1) / jnp.sum(is_class, axis=1)
