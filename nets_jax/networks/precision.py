"""The precision of matrix products: what operands are rounded to, gradients included."""

import functools
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


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
  rounded = functools.partial(_rounded_product, PRECISIONS[precision].mantissa_bits, is_native)

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


def _rounded_product(
  mantissa_bits, is_native, lhs, rhs, dimension_numbers, precision=None, preferred_element_type=None
):
  """A float32 product of rounded operands, whose gradients are such products too."""
  del precision, preferred_element_type
  of_layer = rhs.ndim == 2 and dimension_numbers == (((lhs.ndim - 1,), (0,)), ((), ()))
  if is_native and of_layer and lhs.dtype == rhs.dtype == jnp.float32:
    product = _bfloat16_product(lhs.reshape(-1, lhs.shape[-1]), rhs)
    return product.reshape(*lhs.shape[:-1], rhs.shape[1])

  def rounded(x):
    return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=mantissa_bits)

  def product(a, b):
    return jax.lax.dot_general(a, b, dimension_numbers)

  def forwards(a, b):
    a, b = rounded(a), rounded(b)
    return product(a, b), (a, b)

  def backwards(operands, g):
    return jax.vjp(product, *operands)[1](rounded(g))

  differentiable = jax.custom_vjp(lambda a, b: forwards(a, b)[0])
  differentiable.defvjp(forwards, backwards)
  return differentiable(lhs, rhs)


@jax.custom_vjp
def _bfloat16_product(
  inputs: Float[Array, "batch inputs"], kernel: Float[Array, "inputs units"]
) -> Float[Array, "batch units"]:
  """A layer's product in bfloat16, summed in float32, and its gradients."""
  return _forwards(inputs, kernel)[0]


def _forwards(inputs, kernel):
  inputs, kernel = inputs.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
  return _sum_of_products(inputs, kernel, 0), (inputs, kernel)


def _backwards(operands, g):
  (inputs, kernel), g = operands, g.astype(jnp.bfloat16)
  return _sum_of_products(g, kernel, 1), _sum_of_products(_transposed(inputs), g, 0)


_bfloat16_product.defvjp(_forwards, _backwards)


def _sum_of_products(lhs, rhs, axis):
  """Along the last axis of the first operand, and one of the second."""
  return jax.lax.dot_general(lhs, rhs, (((1,), (axis,)), ((), ())), preferred_element_type=jnp.float32)


def _transposed(matrix):
  """A transposed copy that XLA does not fold into a product.

  On a CPU XLA multiplies in bfloat16 where the last axis of the first operand is summed over, and converts
  other products back to float32: a kernel's gradient would be one. A branch, always taken, hides the axes.
  """
  always = jax.lax.optimization_barrier(jnp.bool_(True))
  return jax.lax.cond(always, jnp.transpose, lambda x: jnp.zeros(x.shape[::-1], x.dtype), matrix)


def has_precision(network: object) -> bool:
  """Whether a network's field `precision` is one of ours; flax's own modules have another of that name."""
  return getattr(network, "precision", None) in tuple(PRECISIONS)


def precision_of(network: object) -> str:
  """That of its training products; float32 of one without such a field."""
  return str(getattr(network, "precision", "")) if has_precision(network) else "float32"
