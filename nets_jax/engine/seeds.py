"""Whole numbers that randomness starts from."""

import operator
from typing import Any

import jax

from nets_jax.errors import UsageError
from nets_jax.kinds import Rule

BITS = 64
_LOW = (1 << 32) - 1
SEED = Rule(f"a whole number from 0 to 2^{BITS} - 1", lambda seed: 0 <= seed < 1 << BITS)


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


def as_key(key: Any) -> jax.Array:
  """A key, or the key of a seed; arrays of keys, and old keys of `jax.random.PRNGKey`, as keys.

  Raises:
    UsageError: it is neither.
  """
  if isinstance(key, jax.Array) and jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key):
    return key
  shape = getattr(key, "shape", ())
  if not shape:
    return key_of_seed(key)
  if shape[-1] == 2 and key.dtype == "uint32":
    return jax.random.wrap_key_data(key)
  raise UsageError(f"a key is jax.random.key(seed), or a seed, not an array of {key.dtype.name}{list(shape)}")


def as_keys(keys: Any) -> jax.Array:
  """Keys [n] of keys, of several seeds, or of a single one of either."""
  if isinstance(keys, list | tuple | range):
    keys = jax.numpy.stack([as_key(key) for key in keys])
  keys = as_key(keys)
  return keys if keys.ndim else keys[None]
