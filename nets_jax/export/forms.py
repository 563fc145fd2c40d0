"""The forms that a trained ticket can be kept and run in: how large each is, and how fast here.

| form | what is kept | what runs it |
|---|---|---|
| dense | theta (.) M, zeros too | JAX, compiled |
| compact | live units alone | JAX, compiled |
| scipy csr | unmasked weights | `SparseNetwork` |
| torch; torch csr | theta (.) M; unmasked weights | a module of PyTorch |
| onnx; onnx compact | theta (.) M; live units alone | onnxruntime |
"""

import io
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import safetensors.numpy

from nets_jax.engine.messages import say
from nets_jax.errors import UsageError
from nets_jax.export.compacted import without_dead_units
from nets_jax.export.comparison import apart, examples
from nets_jax.export.sparse_network import SparseNetwork, save_sparse
from nets_jax.networks.adapter import Network, NetworkState, Params, forward, initial_state, name_of
from nets_jax.tickets.storage import flat
from nets_jax.tickets.ticket import Ticket, density, phenotype

CLOSE = 1e-4  # of the largest output: further than in one comparison, for many forms
SECONDS, REPEATS = 0.3, 5  # a measurement takes at least so long, and is repeated so often


class Form(NamedTuple):
  """One of them: its name, the bytes of its file, and what gives outputs for a batch of inputs."""

  name: str
  size: int
  run: Callable[[np.ndarray], np.ndarray]


class Measured(NamedTuple):
  """What a form takes.

  Attributes:
    form: its name.
    density: of the ticket.
    size: bytes of its file.
    ms_one, ms_batch: milliseconds for one example and for a batch.
    apart: how far its outputs are from the dense network's, of the largest.
  """

  form: str
  density: float
  size: int
  ms_one: float
  ms_batch: float
  apart: float


def forms(
  ticket: Ticket,
  network: Network,
  input_shape: Sequence[int],
  network_state: NetworkState | None = None,
) -> Iterator[Form]:
  """The forms of a ticket, one after the other; those whose packages are not installed are left out.

  Args:
    ticket: the weights, after a training as a rule, and the masks.
    network, input_shape: what it is a ticket of.
    network_state: running averages; None are those that a training begins with.
  """
  state = initial_state(network, tuple(input_shape)) if network_state is None else network_state
  weights = phenotype(ticket)
  yield Form("dense", _stored(weights, state), _compiled(network, weights, state))
  small, fewer, kept = without_dead_units(ticket, network, input_shape, state)
  yield Form("compact", _stored(fewer, kept), _compiled(small, fewer, kept))
  sparse = SparseNetwork(ticket, network, input_shape, state)
  with tempfile.TemporaryDirectory() as directory:
    path = Path(directory) / "sparse.npz"
    save_sparse(path, sparse)
    yield Form("scipy csr", path.stat().st_size, sparse)
  yield from _of_torch(ticket, network, input_shape, state)
  yield from _of_onnx(ticket, network, input_shape, state)


def _stored(*trees: Params) -> int:
  """Bytes of a safetensors file of trees."""
  arrays = {
    f"{i}/{name}": np.asarray(leaf) for i, tree in enumerate(trees) for name, leaf in flat(tree).items()
  }
  return len(safetensors.numpy.save(arrays))


def _compiled(network: Network, weights: Params, state: NetworkState) -> Callable[[np.ndarray], np.ndarray]:
  run = jax.jit(lambda inputs: forward(network, weights, inputs, state=state))
  return lambda inputs: np.asarray(run(inputs))


def _of_torch(
  ticket: Ticket, network: Network, input_shape: Sequence[int], state: NetworkState
) -> Iterator[Form]:
  try:
    import torch

    from nets_jax.export.torch_modules import to_torch, unpruned
    from nets_jax.export.torch_networks import MODULES
    from nets_jax.export.torch_sparse import sparse_module
  except ImportError as error:
    say(f"the forms of PyTorch are left out ({error}); pip install 'nets_jax[export]'")
    return
  if type(network) not in MODULES:
    say(f"{name_of(network)} has no ready module of PyTorch, so its forms there are left out")
    return
  module = to_torch(ticket, network, input_shape, network_state=state)
  for name, own in (("torch", unpruned(module)), ("torch csr", sparse_module(module))):

    def run(inputs, own=own):
      with torch.no_grad():
        return own(torch.from_numpy(np.ascontiguousarray(np.moveaxis(inputs, -1, 1)))).numpy()

    file = io.BytesIO()
    torch.save(own.state_dict(), file)
    yield Form(name, len(file.getvalue()), run)


def _of_onnx(
  ticket: Ticket, network: Network, input_shape: Sequence[int], state: NetworkState
) -> Iterator[Form]:
  try:
    import onnxruntime

    from nets_jax.export.onnx_graph import INPUT
    from nets_jax.export.onnx_models import to_onnx
  except ImportError as error:
    say(f"the forms of ONNX are left out ({error}); pip install 'nets_jax[export]'")
    return
  for name, compacted in (("onnx", False), ("onnx compact", True)):
    stored = to_onnx(
      ticket, network, input_shape, network_state=state, compacted=compacted
    ).SerializeToString()
    session = onnxruntime.InferenceSession(stored, providers=["CPUExecutionProvider"])
    yield Form(name, len(stored), lambda inputs, session=session: session.run(None, {INPUT: inputs})[0])


def measured(
  ticket: Ticket,
  network: Network,
  input_shape: Sequence[int],
  network_state: NetworkState | None = None,
  *,
  batch: int = 64,
) -> list[Measured]:
  """A row for each form: its bytes, and milliseconds for one example and for a batch, medians.

  Raises:
    UsageError: a form computes something else than the dense network.
  """
  inputs = examples(network, input_shape, batch)
  rows: list[Measured] = []
  expected = None
  for form in forms(ticket, network, input_shape, network_state):
    outputs = form.run(inputs)
    expected = outputs if expected is None else expected
    difference = apart(expected, outputs)
    if not difference <= CLOSE:
      raise UsageError(
        f"{form.name} computes something else: outputs differ by {difference:.1e} of the largest"
      )
    one, many = (_milliseconds(form.run, given) for given in (inputs[:1], inputs))
    rows.append(Measured(form.name, float(density(ticket)), form.size, one, many, difference))
  return rows


def _milliseconds(run: Callable[[np.ndarray], np.ndarray], inputs: np.ndarray) -> float:
  """Of a call: the median of some repeats, each of as many calls as take a while."""
  run(inputs)
  begun = time.perf_counter()
  run(inputs)
  calls = max(1, round(SECONDS / REPEATS / max(time.perf_counter() - begun, 1e-6)))
  found = []
  for _ in range(REPEATS):
    begun = time.perf_counter()
    for _ in range(calls):
      run(inputs)
    found.append((time.perf_counter() - begun) / calls * 1e3)
  return float(np.median(found))
