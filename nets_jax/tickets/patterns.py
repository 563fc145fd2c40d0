"""Mask patterns: which weights of a kernel may be kept together, as N of every M, blocks, or whole units.

A pattern is a matter of ranks: scores are made such that the highest are of the pattern. So every method that
keeps the highest scores can have one, and its count stays exact.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from nets_jax.errors import UsageError
from nets_jax.networks.adapter import Params
from nets_jax.networks.layers import Layer
from nets_jax.networks.maskable import layer_name

HOW = "2:4, at_most_2:4, block_4x4 or unit"


class Pattern(NamedTuple):
  """A pattern as it is read.

  Attributes:
    most, of: at most so many of every `of` weights in a row along the input axis, the last but one; of a
      shorter last row their share, rounded up.
    exact: whether it must be just as many.
    block: rows and columns, of inputs and outputs, that are kept or left together; 0 rows are all of them.
  """

  most: int = 0
  of: int = 0
  exact: bool = False
  block: tuple[int, int] = (0, 0)


def read_pattern(text: str) -> Pattern:
  """`2:4` is exactly two of every four, `at_most_2:4` no more than these; `block_4x1` blocks; `unit` outputs.

  Raises:
    UsageError: it is none of these.
  """
  if text == "unit":
    return Pattern(block=(0, 1))
  if found := re.fullmatch(r"block_(\d+)x(\d+)", text):
    rows, columns = map(int, found.groups())
    if rows and columns:
      return Pattern(block=(rows, columns))
  elif found := re.fullmatch(r"(at_most_)?(\d+):(\d+)", text):
    most, of = int(found[2]), int(found[3])
    if 0 < most < of:
      return Pattern(most, of, not found[1])
  raise UsageError(f"mask_pattern must be such as {HOW}, not {text!r}")


def pattern_of(layer: Layer) -> Pattern | None:
  """A layer's pattern; none where it keeps every weight."""
  return None if layer.pattern is None or layer.kept == layer.size else read_pattern(layer.pattern)


def has_pattern(layers: Sequence[Layer]) -> bool:
  """Whether any of these has one."""
  return any(layer.pattern is not None for layer in layers)


def capacity(layer: Layer) -> int:
  """The most weights that a layer's pattern lets it keep."""
  pattern = pattern_of(layer)
  if pattern is None or not pattern.of:
    return layer.size
  inputs = layer.shape[-2] if len(layer.shape) > 1 else layer.shape[0]
  return layer.size // inputs * int(_limits(inputs, pattern).sum())


def check_pattern(layers: Sequence[Layer], density: float, remedy: str = "a density of ") -> None:
  """Raises UsageError for a density that the layers' pattern cannot have.

  Args:
    layers: of a task.
    density: of all maskable weights together.
    remedy: what to give, before the density that can be had.
  """
  if not has_pattern(layers):
    return
  check_counts(layers, {layer.name: layer.kept for layer in layers if layer.kept is not None})
  patterns = [pattern for layer in layers if (pattern := pattern_of(layer)) is not None]
  for layer in layers:
    pattern, most = pattern_of(layer), capacity(layer)
    if pattern is not None and pattern.exact and layer.kept not in (None, most):
      raise UsageError(
        f"the layer {layer.name} is to keep {layer.kept:,} weights, but mask_pattern={layer.pattern} keeps "
        f"exactly {most:,} of it; leave its own density out, or give mask_pattern=at_most_{layer.pattern}"
      )
  total = sum(layer.size for layer in layers)
  most = sum(capacity(layer) if layer.kept is None else layer.kept for layer in layers)
  count = max(1, int(np.round(np.float32(density) * np.float32(total))))  # as the searches have it
  is_exact = any(pattern.exact for pattern in patterns)
  name = next(layer.pattern for layer in layers if layer.pattern)
  if count > most or (is_exact and count < most):
    which = "" if is_exact else "at most "
    other = f", or mask_pattern=at_most_{name} for fewer" if is_exact else ""
    raise UsageError(
      f"mask_pattern={name} keeps {which}{most:,} of the {total:,} weights here, and a density of "
      f"{density:g} is {count:,}; give {remedy}{most / total!r}{other}"
    )


def check_counts(layers: Sequence[Layer], counts: Mapping[str, int]) -> None:
  """Raises UsageError for counts of single layers that are more than their pattern can keep."""
  for layer in layers:
    most = capacity(layer)
    if counts.get(layer.name, 0) > most:
      raise UsageError(
        f"the layer {layer.name} is to keep {counts[layer.name]:,} weights, but by "
        f"mask_pattern={layer.pattern} it can keep {most:,}; give it fewer (allocation or "
        "mask_allocation=uniform), or leave the pattern out"
      )


def patterned(scores: Params, layers: Sequence[Layer], alive: Params | None = None) -> Params:
  """Scores of which the highest are of the layers' patterns; as they are where there is none.

  Of N of M weights, the N highest of each row of M come before all others, in their order; the others after
  them, in theirs. So a count above what the pattern can keep, as on the way to it, takes the best of these.
  Of blocks, each weight has its block's mean score.

  Args:
    scores: of each maskable weight, None elsewhere; -inf of what is not to be kept.
    layers: of the network, with their patterns.
    alive: weights that stay where they can, so that others come after them in a row; None is all.
  """
  if not has_pattern(layers):
    return scores
  patterns = {layer.name: pattern_of(layer) for layer in layers}

  def of_layer(path, s, first):
    pattern = patterns.get(layer_name(path))
    if pattern is None:
      return s
    return _in_two_classes(s, first) if pattern.of else _by_block(s, pattern.block)

  return jax.tree_util.tree_map_with_path(of_layer, scores, eligible(scores, layers, alive))


def eligible(scores: Params, layers: Sequence[Layer], alive: Params | None = None) -> Params:
  """Which weights the layers' patterns let be kept together; all of a layer without, or with blocks."""
  patterns = {layer.name: pattern_of(layer) for layer in layers}
  living = jax.tree.map(lambda s: jnp.ones(s.shape, bool), scores) if alive is None else alive

  def of_layer(path, s, living):
    pattern = patterns.get(layer_name(path))
    if pattern is None or not pattern.of:
      return s > -jnp.inf
    return _is_eligible(s, living, pattern)

  return jax.tree_util.tree_map_with_path(of_layer, scores, living)


def _limits(inputs: int, pattern: Pattern) -> np.ndarray:
  """How many weights each row of an axis may keep: of a last one that is shorter its share, rounded up."""
  sizes = _pieces(inputs, pattern.of)
  return -(-sizes * pattern.most // pattern.of)


def _rows(leaf: Array) -> Array:
  """A kernel as [positions, inputs, outputs]; of one axis as inputs alone."""
  return leaf.reshape(1, -1, 1) if leaf.ndim == 1 else leaf.reshape(-1, *leaf.shape[-2:])


def _is_eligible(s: Float[Array, "..."], living: Bool[Array, "..."], pattern: Pattern) -> Bool[Array, "..."]:
  """Whether a weight is among the highest of its row, those alive first, ties by index."""
  padding = [(0, 0), (0, -_rows(s).shape[1] % pattern.of), (0, 0)]
  values = jnp.pad(_rows(s.astype(jnp.float32)), padding, constant_values=-jnp.inf)
  first = jnp.pad(_rows(living), padding)
  groups = (values.shape[0], -1, pattern.of, values.shape[2])
  values, first = values.reshape(groups), first.reshape(groups)
  rank = jnp.argsort(jnp.lexsort((-values, ~first), axis=2), axis=2)
  limits = _limits(_rows(s).shape[1], pattern).reshape(1, -1, 1, 1)
  chosen = (rank < limits).reshape(values.shape[0], -1, values.shape[3])
  return chosen[:, : _rows(s).shape[1]].reshape(s.shape) & (s > -jnp.inf)


def _in_two_classes(s: Float[Array, "..."], first: Bool[Array, "..."]) -> Float[Array, "..."]:
  """Numbers in the order of `s` within each of two classes, those of the first above all others.

  The bits of a float32 number, in its order, lose the last of them and gain the class as the first.
  """
  bits = (jnp.clip(s.astype(jnp.float32), -1e38, 1e38) + 0.0).view(jnp.uint32)
  top = jnp.uint32(1 << 31)
  ordered = jnp.where(bits >> 31, ~bits, bits | top) >> 1
  ordered = jnp.where(first, ordered | top, ordered)
  number = jnp.where(ordered >> 31, ordered ^ top, ~ordered).view(jnp.float32)
  return jnp.where(s > -jnp.inf, number, -jnp.inf)


def _by_block(s: Float[Array, "..."], block: tuple[int, int]) -> Float[Array, "..."]:
  """Each weight's mean over its block, of what is to be kept of it."""
  grid = _rows(s.astype(jnp.float32))
  _, inputs, outputs = grid.shape
  rows, columns = block[0] or inputs, block[1]
  padding = [(0, 0), (0, -inputs % rows), (0, -outputs % columns)]
  padded = jnp.pad(jnp.where(grid > -jnp.inf, grid, 0), padding)
  sums = padded.reshape(grid.shape[0], -1, rows, padded.shape[2] // columns, columns).sum((2, 4))
  sizes = _pieces(inputs, rows)[None, :, None] * _pieces(outputs, columns)[None, None]
  means = jnp.repeat(jnp.repeat(sums / sizes, rows, 1), columns, 2)[:, :inputs, :outputs]
  return jnp.where(s > -jnp.inf, means.reshape(s.shape), -jnp.inf)


def _pieces(length: int, size: int) -> np.ndarray:
  """The lengths of an axis's pieces, of which the last may be shorter."""
  return np.minimum(size, length - size * np.arange(math.ceil(length / size)))
