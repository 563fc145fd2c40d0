"""While the tests run, arrays are checked by the shapes and types that the signatures of nets_jax give them.

Every other annotation is left out: that a wrong call ends in one clear line, the tests themselves say.
"""

import typing

import beartype
import jaxtyping


def check_shapes(function):
  """The function under beartype, with those annotations alone that speak of arrays' shapes."""
  annotations = {name: kind for name, kind in function.__annotations__.items() if _has_shape(kind)}
  if not annotations or function.__name__ == "__init__":  # JAX makes dataclasses of other things than arrays
    return function
  function.__annotations__ = annotations
  return beartype.beartype(function)


def _has_shape(kind):
  if isinstance(kind, type) and issubclass(kind, jaxtyping.AbstractArray):
    return True
  return any(_has_shape(inner) for inner in typing.get_args(kind))
