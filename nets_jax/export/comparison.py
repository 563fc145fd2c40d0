"""Whether another form of a network computes what the network does, for inputs of chance."""

from collections.abc import Sequence

import numpy as np

from nets_jax.networks.adapter import Network, input_type

CLOSE = 1e-5  # of the largest output: what two libraries may differ by


def examples(network: Network, input_shape: Sequence[int], count: int) -> np.ndarray:
  """Inputs [count, ...] of the type that a network takes: normal, or the tokens 0 and 1."""
  rng, shape = np.random.default_rng(0), (count, *input_shape)
  if input_type(network, input_shape) == "int32":
    return rng.integers(0, 2, shape).astype(np.int32)
  return rng.normal(size=shape).astype(np.float32)


def apart(here: np.ndarray, there: np.ndarray) -> float:
  """How far outputs differ at most, of the largest; infinite where their shapes do, or one is no number."""
  if here.shape != there.shape or not (np.isfinite(here).all() and np.isfinite(there).all()):
    return float("inf")
  return float(np.abs(here - there).max() / max(np.abs(here).max(), np.finfo(np.float32).tiny))
