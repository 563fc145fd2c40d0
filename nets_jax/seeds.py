"""Whole numbers that randomness starts from."""

import operator
from typing import Any

import jax

from nets_jax.errors import UsageError

BITS = 64
_LOW = (1 << 32) - 1


def check_seed(name: str, seed: Any) -> int:
  """The seed as a Python integer.

  Raises:
    UsageError: it is none from 0 to 2^64 - 1.
  """
  try:
    number = operator.index(seed)
  except TypeError:
    number = -1
  if not 0 <= number < 1 << BITS:
    raise UsageError(f"{name} must be a whole number from 0 to 2^{BITS} - 1, not {seed}")
  return number


def key_of_seed(seed: int) -> jax.Array:
  """A JAX key of all 64 bits of a seed, where `jax.random.key` may look at the lower 32 alone.

  Below 2^32 it is `jax.random.key(seed)`; above, the key of the lower half with the upper half folded in.

  Raises:
    UsageError: the seed is none from 0 to 2^64 - 1.
  """
  seed = check_seed("seed", seed)
  key = jax.random.key(jax.numpy.uint32(seed & _LOW))
  return jax.random.fold_in(key, jax.numpy.uint32(seed >> 32)) if seed >> 32 else key
