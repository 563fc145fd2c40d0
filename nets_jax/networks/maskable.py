"""Which parameters of a network a mask covers: its kernels, its embeddings too, or what a function chooses.

All others are trained, but never masked or evolved. Gains and biases never are maskable; `layers` sees to
that, which knows what a parameter does to the signal.
"""

from collections.abc import Callable
from typing import NamedTuple, cast

from nets_jax import plugins
from nets_jax.errors import UsageError, suggest
from nets_jax.networks.adapter import Path

# A parameter's path (`block/query/kernel`) and shape, to whether a mask covers it.
Chooser = Callable[[str, tuple[int, ...]], bool]

# How flax, haiku and equinox call the matrix of a layer; the last two have gains of that name too.
KERNEL_NAMES = ("kernel", "w", "weight")
EMBEDDING_NAMES = ("embedding", "embeddings")


class MaskRule(NamedTuple):
  """A rule: the function that chooses, and what a network lacks of which it chooses nothing."""

  name: str
  chooses: Chooser
  missing: str


def _is_kernel(path: str, shape: tuple[int, ...]) -> bool:
  last = path.rpartition("/")[-1]
  return last == "kernel" or (last in KERNEL_NAMES and len(shape) > 1)


def _is_embedding(path: str, shape: tuple[int, ...]) -> bool:
  del shape
  return path.rpartition("/")[-1] in EMBEDDING_NAMES


KERNELS = MaskRule("kernels", _is_kernel, "no parameter named 'kernel'")
EMBEDDINGS = MaskRule(
  "kernels+embeddings",
  lambda path, shape: _is_kernel(path, shape) or _is_embedding(path, shape),
  "no parameter named 'kernel' or 'embedding'",
)
RULES = {rule.name: rule for rule in (KERNELS, EMBEDDINGS)}


def as_rule(given: str | Chooser) -> MaskRule:
  """A rule by its name, or of a function, which may be named as `package.module:function`.

  Raises:
    UsageError: there is none of that name.
  """
  if plugins.is_reference(given):
    given = cast(Chooser, plugins.find(plugins.parse(cast(str, given))))
  if callable(given):
    name = getattr(given, "__qualname__", type(given).__name__)
    return MaskRule(name, given, f"no parameter that {name} chooses")
  if given not in RULES:
    raise UsageError(f"maskable must be one of {', '.join(RULES)}, not {given!r}{suggest(given, RULES)}")
  return RULES[given]


def is_maskable(rule: MaskRule, path: Path, shape: tuple[int, ...]) -> bool:
  """Whether a mask covers the leaf at a tree path."""
  return bool(rule.chooses("/".join(str(key.key) for key in path), tuple(shape)))


def layer_name(path: Path) -> str:
  """What the layer of a leaf is called: of a kernel its module's path; of any other leaf its own."""
  *outer, last = (str(key.key) for key in path)
  return "/".join(outer) if outer and last in KERNEL_NAMES else "/".join((*outer, last))
