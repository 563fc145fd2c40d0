"""Whole numbers that randomness starts from."""

import operator
from collections.abc import Sequence
from typing import SupportsIndex, TypeGuard

import jax
from jaxtyping import Array, Key

from nets_jax.errors import UsageError
from nets_jax.kinds import Rule

BITS = 64
_LOW = (1 << 32) - 1
# A key of JAX, an old key of `jax.random.PRNGKey`, or a seed; and several of them.
KeyLike = jax.Array | SupportsIndex
KeysLike = KeyLike | Sequence[KeyLike]
SEED = Rule(f"a whole number from 0 to 2^{BITS} - 1", lambda seed: 0 <= seed < 1 << BITS)


def check_seed(name: str, seed: object) -> int:
  """The seed as a Python integer.

  Raises:
    UsageError: it is none from 0 to 2^64 - 1.
  """
  try:
    number = operator.index(seed)  # pyrefly: ignore[bad-argument-type]  # what is no number raises
  except TypeError:
    number = -1
  if not 0 <= number < 1 << BITS:
    raise UsageError(f"{name} must be a whole number from 0 to 2^{BITS} - 1, not {seed}")
  return number


def key_of_seed(seed: SupportsIndex) -> Key[Array, ""]:
  """A JAX key of all 64 bits of a seed, where `jax.random.key` may look at the lower 32 alone.

  Below 2^32 it is `jax.random.key(seed)`; above, the key of the lower half with the upper half folded in.

  Raises:
    UsageError: the seed is none from 0 to 2^64 - 1.
  """
  number = check_seed("seed", seed)
  key = jax.random.key(jax.numpy.uint32(number & _LOW))
  return jax.random.fold_in(key, jax.numpy.uint32(number >> 32)) if number >> 32 else key


def as_key(key: KeyLike) -> Key[Array, "..."]:
  """A key, or the key of a seed; arrays of keys, and old keys of `jax.random.PRNGKey`, as keys.

  Raises:
    UsageError: it is neither.
  """
  if isinstance(key, jax.Array) and jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key):
    return key
  if not _is_array(key):
    return key_of_seed(key)
  if key.shape[-1] == 2 and key.dtype == "uint32":
    return jax.random.wrap_key_data(key)
  raise UsageError(
    f"a key is jax.random.key(seed), or a seed, not an array of {key.dtype.name}{list(key.shape)}"
  )


def as_keys(keys: KeysLike) -> Key[Array, " keys"]:
  """Keys [n] of keys, of several seeds, or of a single one of either."""
  if isinstance(keys, Sequence):
    keys = jax.numpy.stack([as_key(key) for key in keys])
  key = as_key(keys)
  return key if key.ndim else key[None]


def _is_array(key: object) -> TypeGuard[jax.Array]:
  """Whether a key has axes, of JAX or NumPy; a seed has none."""
  return bool(getattr(key, "shape", ()))
