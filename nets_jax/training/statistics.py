"""Running averages of batches, as batch normalisation keeps them, estimated anew for an evaluation.

After a short training a plain average at momentum m is still m^steps its start, and the rest is of weights
that are gone. So an evaluation uses the mean over some batches at the weights as they are ("precise batch
normalisation", Wu & Johnson, 2021). What a training carries is not touched by it.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from nets_jax.networks.adapter import (
  STATISTICS,
  Network,
  NetworkState,
  Params,
  draw_variables,
  forward_in_training,
  input_type,
  remembered,
)
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
  So b = s' / (1 - m) of s = 0. What is no such average, and whatever is no `batch_stats`, stays as the
  training left it.

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
  zeros = jax.tree.map(jnp.zeros_like, network_state[STATISTICS])

  def add(total, examples):
    given = {**network_state, STATISTICS: zeros}
    new = forward_in_training(task.network, weights, given, inputs[examples], key)[1][STATISTICS]
    return jax.tree.map(jnp.add, total, new), None

  total, _ = jax.lax.scan(add, zeros, rows)

  def mean(momentum, total, carried):
    is_average = (momentum >= 0) & (momentum < 1)
    return jnp.where(is_average, total / len(rows) / np.where(is_average, 1 - momentum, 1), carried)

  momenta = _momenta(task.network, task.data.input_shape)
  return {**network_state, STATISTICS: jax.tree.map(mean, momenta, total, network_state[STATISTICS])}


@remembered
def _momenta(network: Network, input_shape: tuple[int, ...]) -> NetworkState:
  """M of each average: the difference of s' where s differs by 1.

  Found once, apart from the program that is traced: 1 / (1 - m) would make much of a last bit that another
  program rounds otherwise.
  """
  with jax.ensure_compile_time_eval():
    weights, state = draw_variables(jax.random.key(0), network, input_shape)
    inputs = jnp.zeros((2, *input_shape), input_type(network, input_shape))

    @jax.jit
    def after(value):
      filled = jax.tree.map(lambda leaf: jnp.full_like(leaf, value), state[STATISTICS])
      given = {**state, STATISTICS: filled}
      return forward_in_training(network, weights, given, inputs, jax.random.key(0))[1][STATISTICS]

    return jax.tree.map(lambda high, low: np.asarray(high) - np.asarray(low), after(1.0), after(0.0))
