"""Saliency scores that prune a network at its initialisation; each for ONE ticket.

A score is a number for each maskable weight, None elsewhere; the highest are kept. All take the
task, the phenotype's weights, the masks and a batch of training examples, prepared, not augmented. Gradients
are those of training: a network that normalises does so by the batch.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from nets_jax.data.dataset import Split
from nets_jax.networks.adapter import Params, forward, forward_for_scores
from nets_jax.networks.layers import synaptic
from nets_jax.tickets.ticket import kernels
from nets_jax.training.task import Task

ROUNDING = 1e-6  # of the flow; a float32 sum of what cancels out comes to some 1e-7 of it
NORMALISATIONS = (nn.BatchNorm, nn.GroupNorm, nn.InstanceNorm, nn.LayerNorm, nn.RMSNorm)


def magnitude(task: Task, weights: Params, masks: Params, batch: Split) -> Params:
  """|w|, without any data or training."""
  del task, batch
  return kernels(jax.tree.map(jnp.abs, weights), masks)


def snip(task: Task, weights: Params, masks: Params, batch: Split) -> Params:
  """|g * w|, the connection sensitivity (Lee et al., 2019, equation 5; its normalisation ranks alike)."""
  gradient = jax.grad(_loss(task, batch))(weights)
  return kernels(jax.tree.map(lambda g, w: jnp.abs(g * w), gradient, weights), masks)


def grasp(task: Task, weights: Params, masks: Params, batch: Split) -> Params:
  """Gradient flow, w * Hg: how much the gradient's norm falls without the weight (Wang et al., 2020, eq. 8).

  The paper's score is S = -w * Hg, of which it removes the highest; this is its negative.
  """
  gradient_of = jax.grad(_loss(task, batch))
  gradient = gradient_of(weights)
  _, curvature = jax.jvp(gradient_of, (weights,), (gradient,))
  return kernels(jax.tree.map(jnp.multiply, weights, curvature), masks)


def synflow(task: Task, weights: Params, masks: Params, batch: Split) -> Params:
  """|dR/dw * w| with R = the sum of outputs of |w| for an input of ones (Tanaka et al., 2020, equation 2).

  Of the batch nothing but the shape of an input is used. The network is made linear as in the paper: what is
  added to the signal (biases) takes no part, what multiplies it entry by entry (gains) counts as 1, and a
  normalisation layer of flax.linen scales by a constant, here 1. Of another library, averages of batches are
  those that a training begins with, so such a layer scales by a constant too; any other is taken as it is.
  It says nothing of attention: for an input of ones all tokens are alike, whatever the queries and keys.
  """
  ones = jnp.ones_like(batch.inputs[:1])

  def flow(weights):
    counted = synaptic(task.network, ones.shape[1:], weights, task.layers)
    with nn.intercept_methods(_unnormalised):
      return jnp.sum(forward(task.network, counted, ones))

  gradient = jax.grad(flow)(weights)
  scores = kernels(jax.tree.map(lambda g, w: jnp.abs(g * w), gradient, weights), masks)
  # Flow is conserved: the scores of a layer sum to R, or to its share of it beside others. What is so far
  # below is the rounding of a sum that is zero.
  sums = jax.tree.map(jnp.sum, scores)
  least = ROUNDING * jnp.max(jnp.stack(jax.tree.leaves(sums)))
  return jax.tree.map(lambda score, total: jnp.where(total > least, score, 0), scores, sums)


def _unnormalised(call, arguments, keywords, context):
  """What flax calls in place of a module's method: a normalisation gives its input back."""
  is_norm = isinstance(context.module, NORMALISATIONS) and context.method_name == "__call__"
  return (*arguments, *keywords.values())[0] if is_norm else call(*arguments, **keywords)


def _loss(task: Task, batch: Split) -> Callable[[Params], jax.Array]:
  labels = jnp.asarray(batch.labels)

  def loss(weights: Params) -> jax.Array:
    return jnp.mean(task.training_losses(forward_for_scores(task.network, weights, batch.inputs), labels))

  return loss
