"""The precision of matrix products: what operands are rounded to, gradients included."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax


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

  Weights, results and sums are float32 in all of them. An accelerator multiplies in the format itself; a
  CPU, which knows float32 alone, rounds the operands to it first: the same numbers up to the order of
  sums, and no faster.

  Args:
    precision: a name in `PRECISIONS`.
  """
  of_accelerator = functools.partial(_product, PRECISIONS[precision].accelerator)
  if precision == "float32":
    return of_accelerator
  rounded = functools.partial(_rounded_product, PRECISIONS[precision].mantissa_bits)

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


def _rounded_product(mantissa_bits, lhs, rhs, dimension_numbers, precision=None, preferred_element_type=None):
  """A float32 product of rounded operands, whose gradients are such products too."""
  del precision, preferred_element_type

  def rounded(x):
    return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=mantissa_bits)

  def product(a, b):
    return jax.lax.dot_general(a, b, dimension_numbers)

  def forwards(a, b):
    a, b = rounded(a), rounded(b)
    return product(a, b), (a, b)

  differentiable = jax.custom_vjp(lambda a, b: forwards(a, b)[0])
  differentiable.defvjp(forwards, lambda operands, g: jax.vjp(product, *operands)[1](rounded(g)))
  return differentiable(lhs, rhs)
