"""Training of ONE ticket: masked minibatch SGD by optax, inside one loop.

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
from jaxtyping import Array, Int, Key

from nets_jax import structs
from nets_jax.errors import UsageError
from nets_jax.networks.adapter import NetworkState, Params, forward_in_training, initial_state
from nets_jax.tickets.ticket import Ticket, mask_weights, phenotype
from nets_jax.training.layer_rates import by_layer
from nets_jax.training.task import Task
from nets_jax.training.training import Training, steps_per_epoch

_AUGMENTATION = np.uint32(2**32 - 2)  # whose keys are those of epochs, and of steps


@structs.dataclass
class TrainingState:
  """A network in training: its weights, masked ones exactly zero, the optimiser's state and its own."""

  weights: Params
  optimizer_state: optax.OptState
  network_state: NetworkState


def minibatch_order(
  key: Key[Array, ""],
  num_examples: int,
  batch_size: int,
  steps: int,
  *,
  first: int | Int[Array, ""] = 0,
  whole_epochs: bool = True,
  needed: int | Int[Array, ""] | None = None,
) -> Int[Array, "{steps} {batch_size}"]:
  """The examples of each minibatch: one shuffle per epoch, epochs concatenated.

  Args:
    key: epoch e is shuffled by `fold_in(key, e)`, so any two slices of the order agree where they meet.
    num_examples: size of the training set.
    batch_size: examples in a minibatch.
    steps: minibatches altogether.
    first: iteration of the first minibatch; may be traced.
    whole_epochs: says that `first` begins an epoch, which saves a shuffle.
    needed: how many of the minibatches will be used, where that is known when the program runs; what is of
      later epochs is zeros.

  Returns:
    Example indices, int32 [steps, batch_size].
  """
  per_epoch = steps_per_epoch(num_examples, batch_size)
  epochs = -(-steps // per_epoch) + (not whole_epochs)
  numbers = first // per_epoch + jnp.arange(epochs)
  keys = jax.vmap(lambda epoch: jax.random.fold_in(key, epoch))(numbers)
  if needed is None:
    shuffled = jax.vmap(lambda k: jax.random.permutation(k, num_examples))(keys)
  else:
    shuffled = jax.lax.fori_loop(
      0,
      -(-needed // per_epoch),
      lambda epoch, rows: rows.at[epoch].set(jax.random.permutation(keys[epoch], num_examples)),
      jnp.zeros((epochs, num_examples), int),
    )
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
  steps: Int[Array, ""] | None = None,
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
    steps: how many of the minibatches, from the first on, where that is known when the program runs; None is
      all.

  Raises:
    UsageError: the training augments, and no key is given for it.
  """
  split = jax.tree.map(jnp.asarray, task.data.train)  # NumPy arrays take no traced index
  optimizer, parts = task.training.make_optimizer(), task.training.accumulate
  layers = () if task.training.layer_rates is None else task.free_layers
  augment = _augmentation(task.training, key if task.training.augment_apart else order_key)

  def loss(weights, network_state, inputs, labels, dropout_key):
    outputs, network_state = forward_in_training(task.network, weights, network_state, inputs, dropout_key)
    return jnp.mean(task.training_losses(outputs, labels)), network_state

  def step(i, state):
    index, examples = first + i, rows[i]
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
    updates = by_layer(mask_weights(updates, masks), task.training.layer_rates, layers)
    weights = optax.apply_updates(state.weights, updates)
    return TrainingState(weights, optimizer_state, network_state)

  rows = jnp.asarray(order)
  return jax.lax.fori_loop(0, len(rows) if steps is None else steps, step, state)


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
  steps: Int[Array, ""] | None = None,
) -> TrainingState:
  """The ticket after the steps of `order`: theta_T and its state; see `advance` for the arguments.

  A schedule that is not bound to a length is of these steps.
  """
  task = task.replace(training=task.training.over(order.shape[0]))
  return advance(key, start(ticket, task), ticket.masks, task, order, order_key=order_key, steps=steps)
