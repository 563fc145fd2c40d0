"""Loss and score of ONE network on a split, or on some of its examples."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from nets_jax import structs
from nets_jax.data.dataset import Split
from nets_jax.data.targets import CLASSES, IN_WORDS
from nets_jax.errors import UsageError
from nets_jax.networks.adapter import NetworkState, Params, forward, initial_state, keeps_statistics, name_of
from nets_jax.training.task import Task

EVALUATION_BATCH = 1000  # bounds the activations held at once, whatever the split's size
_SOME = 0  # seed of the examples that come first where some are scored


@structs.dataclass
class Evaluation:
  """The means over a split of the task's loss and score: of classes cross-entropy in nats, and accuracy."""

  loss: Float[Array, "..."]
  score: Float[Array, "..."]


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
  judge = _judge(task, weights, split, network_state)
  stored = split.inputs, split.labels
  losses, scores = jax.lax.map(judge, stored, batch_size=min(EVALUATION_BATCH, len(split)))
  return Evaluation(jnp.mean(losses), jnp.mean(scores, dtype=jnp.float32))


def evaluate_some(
  task: Task,
  weights: Params,
  split: Split,
  network_state: NetworkState | None,
  examples: int | Int[Array, ""],
  fewest: int,
) -> Evaluation:
  """As `evaluate`, over the first so many examples of a split, in one order of chance for all calls.

  Args:
    task, weights, split, network_state: see `evaluate`.
    examples: how many, from 1 to all; may be known only when the program runs.
    fewest: the least that this may be, of which the size of the pieces is made that it works in.
  """
  judge, size = _judge(task, weights, split, network_state), min(EVALUATION_BATCH, fewest)
  order = np.random.default_rng(_SOME).permutation(len(split)).astype(np.int32)
  order = jnp.asarray(np.resize(order, -(-len(order) // size) * size))  # its end is not looked at
  inputs, labels = jnp.asarray(split.inputs), jnp.asarray(split.labels)

  def add(piece, sums):
    rows = jax.lax.dynamic_slice_in_dim(order, piece * size, size)
    counts = piece * size + jnp.arange(size) < examples
    found = jax.vmap(judge)((inputs[rows], labels[rows]))
    return jax.tree.map(lambda total, of: total + jnp.sum(jnp.where(counts, of, 0)), sums, found)

  shapes = jax.eval_shape(judge, (inputs[0], labels[0]))
  nothing = tuple(jnp.zeros((), jnp.promote_types(each.dtype, jnp.float32)) for each in shapes)
  loss, score = jax.lax.fori_loop(0, -(-examples // size), add, nothing)
  return Evaluation(loss / examples, score.astype(jnp.float32) / examples)


def _judge(
  task: Task, weights: Params, split: Split, network_state: NetworkState | None
) -> Callable[[tuple[jax.Array, jax.Array]], tuple[jax.Array, jax.Array]]:
  """The loss and the score of one stored example."""
  _check_state(task, network_state)
  if network_state is not None and jax.tree.leaves(network_state):
    weights, network_state = jax.lax.optimization_barrier((weights, network_state))

  def judge(example):
    inputs, label = example
    logits = forward(task.network, weights, split.standardised(inputs)[None], state=network_state)
    labels = label[None]
    return task.losses(logits, labels)[0], task.scores(logits, labels)[0]

  return judge


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
