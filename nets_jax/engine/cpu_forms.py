"""Which operations have another form on a CPU: what XLA's CPU backend has no fast program for."""

from collections.abc import Callable
from typing import TypeVar

from nets_jax.engine import convolutions, pooling
from nets_jax.engine.rewriting import rewritten

Result = TypeVar("Result")

# By the name of JAX's primitive. Each has a form for a CPU, and is what it was on all else.
FORMS = {
  "conv_general_dilated": convolutions.convolution,
  "reduce_window_max": pooling.largest,
  "reduce_window_min": pooling.smallest,
  "reduce_window_sum": pooling.total,
  "select_and_scatter_add": pooling.gradient_of_chosen,
  "select_and_gather_add": pooling.tangent_of_chosen,
}


def with_cpu_forms(function: Callable[..., Result]) -> Callable[..., Result]:
  """The function with convolutions and pooling that are fast on a CPU, in its gradients too.

  They are found in the traced program, so whatever library wrote the network has them without its doing. An
  interception of each library's layers would miss whoever calls `lax` and, worse, the gradients, which are
  convolutions of other shapes. Which form it is, the platform decides that the program is lowered for.
  """
  return rewritten(function, FORMS)
