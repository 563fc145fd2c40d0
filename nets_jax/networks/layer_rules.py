"""Layers that stay dense, or that have a density of their own, by name, by pattern or by a function.

Such a layer's count is exact: round(density * size), at least 1. It is noted in `Layer.kept`, which travels
with every ticket, so that each method can keep to it.
"""

import fnmatch
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from nets_jax.errors import UsageError, suggest
from nets_jax.kinds import Kind, Rule, describe
from nets_jax.networks.layers import Layer

# A layer's name and its kernel's shape, to the density that it is to have; None leaves it to the search.
LayerRule = Callable[[str, tuple[int, ...]], float | None]
# Densities by name or pattern, of which the first that fits a layer counts; or a function.
LayerDensities = tuple[tuple[str, float], ...] | LayerRule


def with_rule(
  layers: Sequence[Layer], dense: Sequence[str] = (), densities: LayerDensities = ()
) -> tuple[Layer, ...]:
  """The layers, each with the count that a rule gives it; `kept` is None of those left to the search.

  Args:
    layers: of a network.
    dense: names of those that keep every weight, or patterns as of a shell (`hidden_*`); they come first.
    densities: of others.

  Raises:
    UsageError: a name or pattern fits no layer, or a density is not in (0, 1].
  """
  known = [layer.name for layer in layers]
  pairs = () if callable(densities) else tuple(densities)
  for name in (*dense, *(name for name, _ in pairs)):
    if not fnmatch.filter(known, name):
      raise UsageError(f"no layer is called {name!r}{suggest(name, known)} (there are {', '.join(known)})")

  def density(layer: Layer) -> float | None:
    if any(fnmatch.fnmatchcase(layer.name, name) for name in dense):
      return 1.0
    if callable(densities):
      return densities(layer.name, layer.shape)
    return next((own for name, own in pairs if fnmatch.fnmatchcase(layer.name, name)), None)

  return tuple(layer._replace(kept=_count(layer, density(layer))) for layer in layers)


def own_counts(layers: Sequence[Layer]) -> dict[str, int]:
  """The count of each layer that has one of its own, by its name."""
  return {layer.name: layer.kept for layer in layers if layer.kept is not None}


def _count(layer: Layer, density: float | None) -> int | None:
  if density is None:
    return None
  if not _is_density(density):
    raise UsageError(f"the density of the layer {layer.name} must be in (0, 1], not {density!r}")
  return max(1, round(density * layer.size))


def _is_density(value: object) -> bool:
  return isinstance(value, int | float | np.number) and bool(0 < value <= 1)


def as_names(given: str | Sequence[str] | None) -> tuple[str, ...] | None:
  """Names as a setting holds them."""
  return (given,) if isinstance(given, str) else given if given is None else tuple(given)


def as_densities(given: LayerDensities | Mapping[str, float] | None) -> LayerDensities | None:
  """Densities as a setting holds them.

  Raises:
    UsageError: they are neither by names, nor a function.
  """
  if given is None or callable(given):
    return given
  try:
    return tuple((name, density) for name, density in dict(given).items())
  except (TypeError, ValueError) as error:
    raise UsageError(
      f"layer_densities must be densities by the layers' names, or a function (name, shape), not {given!r}"
    ) from error


def _parse(text: str) -> LayerDensities:
  parts = [part.rpartition("=") for part in text.split(",") if part.strip()]
  if not all(name.strip() for name, _, _ in parts):
    raise ValueError(text)
  return tuple((name.strip(), float(density)) for name, _, density in parts)


def _write(value: LayerDensities) -> str:
  return str(describe(value)) if callable(value) else ",".join(f"{name}={density}" for name, density in value)


DENSITIES = Kind("layer=density, with commas between", _parse, _write)
IS_DENSITY = Rule(
  "densities in (0, 1] by the names of layers",
  lambda value: isinstance(value, str) or callable(value) or 0 < value <= 1,
)
