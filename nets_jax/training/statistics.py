"""Running averages of batches, as batch normalisation keeps them, estimated anew for an evaluation.

After a short training a plain average at momentum m is still m^steps its start, and the rest is of weights
that are gone. So an evaluation uses the mean of the batches' own statistics, over some batches, at the
weights as they are. Wu & Johnson (2021, "precise batch normalisation") add the variance between batches,
which an average cannot know. What a training carries is not touched by it. A training that augments is no
exception: its evaluations see plain images, so the means are of plain images too.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from nets_jax.errors import UsageError
from nets_jax.networks.adapter import (
  STATISTICS,
  Network,
  NetworkState,
  Params,
  draw_variables,
  forward_in_training,
  input_type,
  name_of,
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
  momenta = _momenta(task.network, task.data.input_shape)
  split, key = jax.tree.map(jnp.asarray, task.data.train), jax.random.fold_in(key, _NO_STEP)
  # Of a minibatch in parts each part is a batch that is normalised.
  rows = jnp.asarray(order)[-BATCHES:].reshape(-1, order.shape[1] // task.training.accumulate)
  carried = network_state[STATISTICS]

  def where_average(average, other):
    return jax.tree.map(
      lambda m, new, old: old if m is None else new, momenta, average, other, is_leaf=_is_none
    )

  empty = where_average(jax.tree.map(jnp.zeros_like, carried), carried)

  def add(total, examples):
    given = {**network_state, STATISTICS: empty}
    inputs = split.standardised(split.inputs[examples])
    new = forward_in_training(task.network, weights, given, inputs, key)[1][STATISTICS]
    return where_average(jax.tree.map(jnp.add, total, new), carried), None

  total, _ = jax.lax.scan(add, empty, rows)

  def mean(momentum, total):
    return total if momentum is None else total / len(rows) / (1 - momentum)

  return {**network_state, STATISTICS: jax.tree.map(mean, momenta, total, is_leaf=_is_none)}


def _is_none(leaf: object) -> bool:
  return leaf is None


@remembered
def _momenta(network: Network, input_shape: tuple[int, ...]) -> NetworkState:
  """M of each running average, a NumPy float32; None of what is none.

  A leaf is an average if s = 0, 1 and 2 lead to three values that differ by one m in (0, 1), the same
  everywhere in the leaf. That is found once, apart from the program that is traced: 1 / (1 - m) would make
  much of a last bit that another program rounds otherwise.

  Raises:
    UsageError: the network gives averages that are not finite.
  """
  with jax.ensure_compile_time_eval():
    weights, state = draw_variables(jax.random.key(0), network, input_shape)
    inputs = jax.random.normal(jax.random.key(1), (4, *input_shape))
    inputs = inputs.astype(input_type(network, input_shape))  # of tokens mostly 0, which every vocabulary has

    leaves, treedef = jax.tree.flatten(state[STATISTICS])

    @jax.jit
    def after(leaves):
      given = {**state, STATISTICS: jax.tree.unflatten(treedef, leaves)}
      return jax.tree.leaves(
        forward_in_training(network, weights, given, inputs, jax.random.key(0))[1][STATISTICS]
      )

    def of_leaf(i):
      """What comes of one leaf filled with 0, 1 and 2, the others as they begin: they may decide its b."""
      filled = ([*leaves[:i], jnp.full_like(leaves[i], value), *leaves[i + 1 :]] for value in (0, 1, 2))
      return [after(some)[i] for some in filled]

    return jax.tree.unflatten(treedef, [_momentum(network, *of_leaf(i)) for i in range(len(leaves))])


def _momentum(network: Network, *after: jax.Array) -> np.float32 | None:
  """M of one leaf, by what comes of s = 0, 1 and 2."""
  if not jnp.issubdtype(after[0].dtype, jnp.floating):
    return None
  of_0, of_1, of_2 = (np.asarray(leaf, np.float64) for leaf in after)
  if not np.isfinite(of_0).all():
    raise UsageError(f"the averages of {name_of(network)} are not finite numbers for normal inputs")
  steps = np.stack([of_1 - of_0, of_2 - of_1])
  momentum = np.median(steps)
  is_one = np.allclose(steps, momentum, rtol=0, atol=1e-5 * max(1.0, np.abs(of_0).max(initial=0)))
  # To six digits, which a difference of float32 numbers has.
  return np.float32(round(momentum, 6)) if is_one and 1e-6 < momentum < 1 - 1e-6 else None
