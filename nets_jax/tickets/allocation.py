"""How many weights each layer keeps of a count for all of them: rules of the literature.

Random tickets by such a rule are the strongest that need no data (Su et al., 2020; Evci et al., 2020).
"""

from collections.abc import Callable, Sequence

import numpy as np

from nets_jax.errors import UsageError
from nets_jax.networks.layer_rules import own_counts
from nets_jax.networks.layers import Layer
from nets_jax.tickets.layer_counts import free_size

LAST_SHARE = 0.3  # of a last linear layer, by smart ratios

# Layers that are free to choose, in the order of application, and how many weights they keep together, to the
# densities that they are to have. Exactly as many are kept as are asked for, whatever is rounded.
Allocation = Callable[[Sequence[Layer], int], Sequence[float]]


def uniform(layers: Sequence[Layer], count: int) -> list[float]:
  """The same density in each layer."""
  return [count / sum(layer.size for layer in layers)] * len(layers)


def erk(layers: Sequence[Layer], count: int) -> list[float]:
  """Erdos-Renyi-Kernel: density min(1, e * sum(shape) / prod(shape)), e such that the count is kept.

  Layers that would be more than dense are dense, and e is that of the others (Evci et al., 2020, section 3,
  after Mocanu et al., 2018).
  """
  sizes = np.array([layer.size for layer in layers], float)
  wanted = np.array([sum(layer.shape) for layer in layers], float) / sizes
  dense = np.zeros(len(layers), bool)
  while True:
    free = ~dense
    scale = (count - sizes[dense].sum()) / (wanted[free] * sizes[free]).sum() if free.any() else 0.0
    found = np.where(dense, 1.0, scale * wanted)
    if found.max() <= 1:
      return found.tolist()
    dense |= free & (wanted == wanted[free].max())


def smart_ratios(layers: Sequence[Layer], count: int) -> list[float]:
  """Densities in proportion to k^2 + k, with k = 1 for the last layer; a last linear layer keeps 0.3.

  What a layer cannot keep goes to the layers after it (Su et al., 2020, section 4.1 and their code for
  residual networks).

  Raises:
    UsageError: the last layer alone keeps more than there is to keep.
  """
  sizes = np.array([layer.size for layer in layers], float)
  k = np.arange(len(layers), 0, -1, dtype=float)
  found, last = k**2 + k, np.zeros(len(layers), bool)
  last[-1] = len(layers) > 1 and len(layers[-1].shape) == 2
  left = count - LAST_SHARE * sizes[last].sum()
  if left <= 0:
    name = layers[-1].name
    raise UsageError(
      f"smart ratios keep {LAST_SHARE:.0%} of the last layer {name}, which is more than the {count} weights "
      "to keep; give a higher density, or another allocation"
    )
  found = np.where(last, LAST_SHARE, found * left / (found * sizes)[~last].sum())
  extra = 0.0
  for i in np.flatnonzero(~last):
    kept = found[i] * sizes[i] + extra
    found[i] = min(1.0, kept / sizes[i])
    extra = kept - found[i] * sizes[i]
  found[-1] = min(1.0, found[-1] + extra / sizes[-1])  # nearly dense: all others are full
  return found.tolist()


ALLOCATIONS: dict[str, Allocation] = {"uniform": uniform, "erk": erk, "smart_ratios": smart_ratios}


def allocate(rule: Allocation, layers: Sequence[Layer], count: int) -> dict[str, int]:
  """The count of each layer by a rule: together exactly `count`, and of each at least 1, at most all.

  Densities are rounded down; what is left goes to the largest remainders, ties to the layer applied first.
  Layers that have a count of their own keep to it.

  Args:
    rule: of `ALLOCATIONS`, or one's own.
    layers: of a network, in the order of application.
    count: weights to keep, from the number of layers to all.

  Raises:
    UsageError: the count cannot be met, or a rule of one's own gives no densities.
  """
  own, free = own_counts(layers), [layer for layer in layers if layer.kept is None]
  left, most = count - sum(own.values()), free_size(layers)
  if not len(free) <= left <= most:
    raise UsageError(
      f"{count} weights to keep leave {left} for {len(free)} layers, which need 1 each and have {most} "
      "together; give another density"
    )
  if not free:
    return own
  found = np.asarray(rule(free, left), float)
  if found.shape != (len(free),) or not np.isfinite(found).all() or (found < 0).any():
    raise UsageError(
      f"an allocation must give a density for each of {len(free)} layers, not {found.tolist()}"
    )
  sizes = np.array([layer.size for layer in free])
  exact = np.clip(found * sizes, 1, sizes)
  kept = np.floor(exact + 1e-9).astype(int)
  while (missing := left - kept.sum()) != 0:
    room = kept < sizes if missing > 0 else kept > 1
    order = np.argsort(-np.where(room, (exact - kept) * np.sign(missing), -np.inf), kind="stable")
    some = order[: min(abs(missing), room.sum())]
    kept[some] += np.sign(missing)
  return own | {layer.name: int(n) for layer, n in zip(free, kept, strict=True)}
