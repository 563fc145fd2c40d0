"""Pooling as slices, for CPUs, where XLA has no fast `reduce_window`, nor a fast gradient of one."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core

# Each entry of a window is an operation of the program, and so is compiled; beyond, it is left to XLA.
MOST_SLICES = 64


class _Windows(NamedTuple):
  """The windows of a pooling, by axis; `pads` are below, above and between."""

  entries: tuple[int, ...]
  strides: tuple[int, ...]
  dilation: tuple[int, ...]
  pads: tuple[tuple[int, int, int], ...]


def largest(x: jax.Array, **settings: object) -> jax.Array:
  """`reduce_window_max` as it was traced; maxima of slices where it is lowered for a CPU."""
  return _reduced(lax.reduce_window_max_p, lax.max, -jnp.inf, x, **settings)


def smallest(x: jax.Array, **settings: object) -> jax.Array:
  """`reduce_window_min` as it was traced; minima of slices where it is lowered for a CPU."""
  return _reduced(lax.reduce_window_min_p, lax.min, jnp.inf, x, **settings)


def total(x: jax.Array, **settings: object) -> jax.Array:
  """`reduce_window_sum` as it was traced, of averages too; sums of slices where it is lowered for a CPU."""
  return _reduced(lax.reduce_window_sum_p, lax.add, 0, x, **settings)


def gradient_of_chosen(cotangent: jax.Array, x: jax.Array, **settings: object) -> jax.Array:
  """`select_and_scatter_add` as it was traced: to the entry that a window chose goes the window's gradient.

  In slices where it is lowered for a CPU. The first of equal entries is chosen, as XLA has it.
  """
  return _by_choice(lax.select_and_scatter_add_p, _scattered, cotangent, x, **settings)


def tangent_of_chosen(tangent: jax.Array, x: jax.Array, **settings: object) -> jax.Array:
  """`select_and_gather_add` as it was traced: of each window the tangent of the entry that it chose."""
  return _by_choice(lax.select_and_gather_add_p, _gathered, tangent, x, **settings)


def _reduced(
  primitive: core.Primitive, reduce: Callable, nothing: float, x: jax.Array, **settings
) -> jax.Array:
  as_xla_has_it = functools.partial(primitive.bind, **settings)
  if not _has_windows(x, windows := _windows(**settings)):
    return as_xla_has_it(x)

  def reduced(x):
    return functools.reduce(reduce, (part for _, part in _slices(x, nothing, windows)))

  return lax.platform_dependent(x, cpu=reduced, default=as_xla_has_it)


def _by_choice(
  primitive: core.Primitive, form: Callable, given: jax.Array, x: jax.Array, **settings
) -> jax.Array:
  as_xla_has_it = functools.partial(primitive.bind, **settings)
  if not _has_windows(x, windows := _windows(**settings)):
    return as_xla_has_it(given, x)
  select = settings["select_prim"]
  form = functools.partial(form, select.bind, -jnp.inf if select.name == "ge" else jnp.inf, windows)
  return lax.platform_dependent(given, x, cpu=form, default=as_xla_has_it)


def _windows(
  *, window_dimensions: Sequence[int], window_strides: Sequence[int], padding: Sequence[tuple[int, int]],
  base_dilation: Sequence[int] | None = None, window_dilation: Sequence[int] | None = None, **_: object,
) -> _Windows:  # fmt: skip
  ones = (1,) * len(window_dimensions)
  between = base_dilation or ones
  pads = tuple((low, high, d - 1) for (low, high), d in zip(padding, between, strict=True))
  return _Windows(tuple(window_dimensions), tuple(window_strides), tuple(window_dilation or ones), pads)


def _has_windows(x: jax.Array, windows: _Windows) -> bool:
  """Whether there is anything to pool, in numbers that have an infinity, in windows not too large."""
  padded = jax.eval_shape(lambda x: lax.pad(x, jnp.zeros((), x.dtype), windows.pads), x).shape
  fits = all(n > (k - 1) * d for n, k, d in zip(padded, windows.entries, windows.dilation, strict=True))
  is_small = math.prod(windows.entries) <= MOST_SLICES
  return jnp.issubdtype(x.dtype, jnp.floating) and bool(x.size) and fits and is_small


def _slices(x: jax.Array, nothing: float, windows: _Windows) -> list[tuple[tuple[int, ...], jax.Array]]:
  """For each entry of a window: where its first is in the padded array, and all windows' entries there."""
  padded = lax.pad(x, jnp.asarray(nothing, x.dtype), windows.pads)
  return [
    (first, lax.slice(padded, first, _ends(padded.shape, first, windows), windows.strides))
    for entry in np.ndindex(*windows.entries)
    for first in [tuple(i * d for i, d in zip(entry, windows.dilation, strict=True))]
  ]


def _ends(shape: Sequence[int], first: Sequence[int], windows: _Windows) -> tuple[int, ...]:
  """Where the slice of an entry ends: the last window's is so far from the padded array's end."""
  sizes = zip(shape, first, windows.entries, windows.dilation, windows.strides, strict=True)
  return tuple(f + (n - (k - 1) * d - 1) // s * s + 1 for n, f, k, d, s in sizes)


def _choice(select: Callable, slices: Sequence[jax.Array]) -> jax.Array:
  """Of each window the number of the entry that it chose, by XLA's rule: kept while `select` says so."""
  chosen, best = jnp.zeros(slices[0].shape, jnp.int32), slices[0]
  for number, entry in enumerate(slices[1:], 1):
    keep = select(best, entry)
    best, chosen = lax.select(keep, best, entry), lax.select(keep, chosen, jnp.full_like(chosen, number))
  return chosen


def _scattered(
  select: Callable, nothing: float, windows: _Windows, cotangent: jax.Array, x: jax.Array
) -> jax.Array:
  slices = _slices(x, nothing, windows)
  chosen = _choice(select, [entries for _, entries in slices])
  zero, none = jnp.zeros((), x.dtype), jnp.zeros_like(cotangent)
  total = jnp.zeros(x.shape, x.dtype)
  for number, (first, _) in enumerate(slices):
    part = lax.select(chosen == number, cotangent, none)
    places = zip(x.shape, windows.pads, first, windows.strides, part.shape, strict=True)
    # Back to where the entry is in the array itself, without its padding.
    spread = [(f - low, n - (f - low + (p - 1) * s + 1), s - 1) for n, (low, *_), f, s, p in places]
    total = total + lax.pad(part, zero, spread)
  return total


def _gathered(
  select: Callable, nothing: float, windows: _Windows, tangent: jax.Array, x: jax.Array
) -> jax.Array:
  chosen = _choice(select, [entries for _, entries in _slices(x, nothing, windows)])
  parts = _slices(tangent, 0, windows)
  none = jnp.zeros_like(parts[0][1])
  return sum((lax.select(chosen == number, part, none) for number, (_, part) in enumerate(parts)), none)
