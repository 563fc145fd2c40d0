"""Running averages of batches, as batch normalisation keeps them, estimated anew for an evaluation.

After a short training a plain average at momentum m is still m^steps its start, and the rest is of weights
that are gone. So an evaluation uses the mean over some batches at the weights as they are ("precise batch
normalisation", Wu & Johnson, 2021). What a training carries is not touched by it.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from nets_jax.networks.adapter import STATISTICS, NetworkState, Params, forward_in_training
from nets_jax.training.task import Task

_NO_STEP = np.uint32(2**32 - 1)  # whose keys are those of the steps of training
BATCHES = 10  # minibatches, the last of a training, that the averages are taken over


def settled(
  key: Key[Array, ""],
  task: Task,
  weights: Params,
  network_state: NetworkState,
  order: Int[Array | np.ndarray, "steps batch"],
) -> NetworkState:
  """The state to evaluate with: each running average replaced by the mean over the last batches.

  A network makes s' = m s + (1 - m) b of an average s and its value b on a batch, and b does not depend on s.
  So of s = 0 and s = 1 on one batch follow m and b, and b alone of s = 0 on the others. An average that is
  made otherwise (m not in [0, 1)), and whatever is no `batch_stats`, stays as the training left it.

  Args:
    key: of dropout, for a network that drops units before it normalises.
    task: its network, and its training data.
    weights: of the network, as they are evaluated.
    network_state: as the training left it.
    order: the training's minibatches, of which the last are looked at.
  """
  if not jax.tree.leaves(network_state.get(STATISTICS, {})):
    return network_state
  inputs, key = jnp.asarray(task.data.train.inputs), jax.random.fold_in(key, _NO_STEP)
  rows = jnp.asarray(order)[-BATCHES:]

  def after(value, examples):
    filled = jax.tree.map(lambda leaf: jnp.full_like(leaf, value), network_state[STATISTICS])
    given = {**network_state, STATISTICS: filled}
    return forward_in_training(task.network, weights, given, inputs[examples], key)[1][STATISTICS]

  momenta = jax.tree.map(jnp.subtract, after(1, rows[0]), after(0, rows[0]))

  def add(total, examples):
    return jax.tree.map(jnp.add, total, after(0, examples)), None

  total, _ = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, momenta), rows)

  def mean(momentum, total, carried):
    is_average = (momentum >= 0) & (momentum < 1)
    return jnp.where(is_average, total / len(rows) / jnp.where(is_average, 1 - momentum, 1), carried)

  return {**network_state, STATISTICS: jax.tree.map(mean, momenta, total, network_state[STATISTICS])}
