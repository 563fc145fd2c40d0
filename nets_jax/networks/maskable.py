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
PRODUCTS = ("dot_general", "conv_general_dilated", "ragged_dot_general")


class MaskRule(NamedTuple):
  """A rule: the function that chooses, and what a network lacks of which it chooses nothing.

  `chooses` sees a parameter's path, its shape, and the operation in which it meets the signal, None if never.
  """

  name: str
  chooses: Callable[[str, tuple[int, ...], str | None], bool]
  missing: str


def _is_kernel(path: str, shape: tuple[int, ...], operation: str | None) -> bool:
  """What is called a kernel, or what the signal is multiplied with as a matrix, by any name."""
  return path.rpartition("/")[-1] == "kernel" or (operation in PRODUCTS and len(shape) > 1)


def _is_embedding(path: str, shape: tuple[int, ...], operation: str | None) -> bool:
  """A table in which the signal is looked up."""
  del path
  return operation == "gather" and len(shape) > 1


KERNELS = MaskRule("kernels", _is_kernel, "no kernel")
EMBEDDINGS = MaskRule(
  "kernels+embeddings",
  lambda path, shape, met: _is_kernel(path, shape, met) or _is_embedding(path, shape, met),
  "no kernel and no embedding",
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
    chooser = given
    return MaskRule(name, lambda path, shape, _: chooser(path, shape), f"no parameter that {name} chooses")
  if given not in RULES:
    raise UsageError(f"maskable must be one of {', '.join(RULES)}, not {given!r}{suggest(given, RULES)}")
  return RULES[given]


def is_maskable(rule: MaskRule, path: Path, shape: tuple[int, ...], operation: str | None) -> bool:
  """Whether a mask covers the leaf at a tree path, which meets the signal in that operation."""
  return bool(rule.chooses("/".join(str(key.key) for key in path), tuple(shape), operation))


def layer_name(path: Path) -> str:
  """What the layer of a leaf is called: of a kernel its module's path; of any other leaf its own."""
  *outer, last = (str(key.key) for key in path)
  return "/".join(outer) if outer and last in KERNEL_NAMES else "/".join((*outer, last))
