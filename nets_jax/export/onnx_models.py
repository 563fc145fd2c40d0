"""Tickets and trained networks as models of ONNX, without their dead units."""

from collections.abc import Sequence

import jax
import numpy as np

from nets_jax.export.extras import missing

try:
  import onnx
  import onnxruntime
except ImportError as error:
  raise missing("onnx and onnxruntime", error) from error

from nets_jax.errors import UsageError
from nets_jax.export.compacted import without_dead_units
from nets_jax.export.comparison import CLOSE, apart, examples
from nets_jax.export.onnx_graph import INPUT, as_onnx
from nets_jax.networks.adapter import Network, NetworkState, forward, initial_state, input_type, name_of
from nets_jax.tickets.ticket import Ticket, check_weights, phenotype

BATCHES = (1, 3)  # that a model is tried with


def to_onnx(
  ticket: Ticket,
  network: Network,
  input_shape: Sequence[int],
  *,
  network_state: NetworkState | None = None,
  compacted: bool = True,
) -> onnx.ModelProto:
  """The network of a ticket as a model of ONNX, from `inputs` [batch, *input_shape] to `outputs`.

  Its weights are dense: those of theta (.) M, and of live units alone where that is fewer. Inputs are as
  here, images with their channels last. Its outputs have been compared with those here by onnxruntime.

  Args:
    ticket: the weights, after a training as a rule, and the masks.
    network: what it is a ticket of.
    input_shape: of one input.
    network_state: running averages; None are those that a training begins with.
    compacted: whether dead units are left out.

  Raises:
    UsageError: the network has an operation that cannot be written.
  """
  check_weights(ticket, network, input_shape)
  state = initial_state(network, tuple(input_shape)) if network_state is None else network_state
  whole = network, phenotype(ticket), state
  used, weights, own = without_dead_units(ticket, network, input_shape, state) if compacted else whole
  weights, own = jax.device_get((weights, own))
  model = as_onnx(
    lambda inputs: forward(used, weights, inputs, state=own),
    tuple(input_shape),
    input_type(network, input_shape),
    name_of(network),
  )
  _compare(model, whole, input_shape)
  return model


def _compare(
  model: onnx.ModelProto, whole: tuple[Network, object, NetworkState], input_shape: Sequence[int]
) -> None:
  """Raises UsageError unless a model computes what the network does, for inputs of chance."""
  network, weights, state = whole
  session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
  for batch in BATCHES:
    inputs = examples(network, input_shape, batch)
    here = np.asarray(forward(network, weights, inputs, state=state))
    (there,) = session.run(None, {INPUT: inputs})
    if not (difference := apart(here, np.asarray(there))) <= CLOSE:
      raise UsageError(
        f"{name_of(network)} as ONNX computes something else (its outputs differ by {difference:.1e} of the "
        "largest), and is not written; please report this network"
      )
