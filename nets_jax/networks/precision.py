"""The precision of matrix products: what operands are rounded to, gradients included."""

import functools
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from nets_jax.engine.rewriting import rewritten


class Precision(NamedTuple):
  """How to multiply: what to ask an accelerator for, and the mantissa bits that operands have."""

  accelerator: jax.lax.Precision | jax.lax.DotAlgorithmPreset
  mantissa_bits: int


PRECISIONS = {
  "float32": Precision(jax.lax.Precision.HIGHEST, 23),
  "tensorfloat32": Precision(jax.lax.DotAlgorithmPreset.TF32_TF32_F32, 10),
  "bfloat16": Precision(jax.lax.DotAlgorithmPreset.BF16_BF16_F32, 7),
}


def matrix_product(precision: str) -> Callable[..., jax.Array]:
  """A `jax.lax.dot_general` for `flax.linen.Dense` whose operands have a precision, gradients included.

  Weights, results and sums are float32 in all of them. An accelerator multiplies in the format itself, and a
  CPU in bfloat16 if it has such products. Else it rounds the operands first: the same numbers up to the order
  of sums, and no faster.

  Args:
    precision: a name in `PRECISIONS`.
  """
  of_accelerator = functools.partial(_product, PRECISIONS[precision].accelerator)
  if precision == "float32":
    return of_accelerator
  is_native = precision == "bfloat16" and multiplies_bfloat16()
  rounded = functools.partial(
    _rounded_product, PRECISIONS[precision].mantissa_bits, _in_bfloat16 if is_native else jax.lax.dot_general
  )

  def product(lhs, rhs, dimension_numbers, precision=None, preferred_element_type=None):
    forms = (
      functools.partial(
        form, dimension_numbers=dimension_numbers, preferred_element_type=preferred_element_type
      )
      for form in (rounded, of_accelerator)
    )
    del precision
    on_cpu, elsewhere = forms
    return jax.lax.platform_dependent(lhs, rhs, cpu=on_cpu, default=elsewhere)  # of the machine it is for

  return product


def _product(setting, lhs, rhs, dimension_numbers, precision=None, preferred_element_type=None):
  del precision
  return jax.lax.dot_general(
    lhs, rhs, dimension_numbers, precision=setting, preferred_element_type=preferred_element_type
  )


@functools.cache
def multiplies_bfloat16() -> bool:
  """Whether this machine's CPU has products of bfloat16 numbers."""
  try:
    words = pathlib.Path("/proc/cpuinfo").read_text().split()
  except OSError:
    return False
  return not {"avx512_bf16", "amx_bf16"}.isdisjoint(words)


def _in_bfloat16(lhs, rhs, dimension_numbers, **settings):
  """A product of float32 numbers that bfloat16 holds, in float32; of others as they are."""
  del settings
  if not lhs.dtype == rhs.dtype == jnp.float32:
    return jax.lax.dot_general(lhs, rhs, dimension_numbers)
  lhs, rhs = lhs.astype(jnp.bfloat16), rhs.astype(jnp.bfloat16)
  return jax.lax.dot_general(lhs, rhs, dimension_numbers, preferred_element_type=jnp.float32)


def _rounded_product(
  mantissa_bits, multiply, lhs, rhs, dimension_numbers, precision=None, preferred_element_type=None
):
  """A float32 product of rounded operands, whose gradients are such products too."""
  del precision, preferred_element_type

  def rounded(x):
    return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=mantissa_bits)

  def product(a, b):
    return jax.lax.dot_general(a, b, dimension_numbers)

  def forwards(a, b):
    a, b = rounded(a), rounded(b)
    return multiply(a, b, dimension_numbers), (a, b)

  def backwards(operands, g):
    pull = rewritten(lambda g: jax.vjp(product, *operands)[1](g), {"dot_general": multiply})
    return pull(rounded(g))

  differentiable = jax.custom_vjp(lambda a, b: forwards(a, b)[0])
  differentiable.defvjp(forwards, backwards)
  return differentiable(lhs, rhs)
