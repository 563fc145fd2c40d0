"""theta_0: the weights of a network before any training, each leaf cut from one draw."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, Shaped

from nets_jax import structs
from nets_jax.errors import UsageError, suggest
from nets_jax.kinds import NUMBERS, POSITIVE, describe
from nets_jax.networks.adapter import Network, Params, Scale, abstract_parameters, draw_variables
from nets_jax.networks.layers import Layer, find_fans, find_layers, scale_of_each
from nets_jax.networks.maskable import layer_name
from nets_jax.settings import setting
from nets_jax.structs import Struct


class Initialiser(Struct):
  """Base of all: draws theta_0, the weights of a network before any training."""

  def draw(
    self, key: Key[Array, ""], network: Network, input_shape: Sequence[int], layers: Sequence[Layer] = ()
  ) -> Params:
    """theta_0.

    Args:
      key: consumed.
      network: the module.
      input_shape: shape of one input, without the batch axis.
      layers: that can be masked, as a task has them; they are found where none are given.
    """
    raise NotImplementedError

  def fitted(self, network: Network, input_shape: Sequence[int], layers: Sequence[Layer]) -> "Initialiser":
    """This distribution of that network alone, so that single weights can be drawn anew of it: `anew`.

    Raises:
      UsageError: it does not fit the network.
    """
    del network, input_shape, layers
    return self

  @property
  def remedy(self) -> str:
    """What else than a lower learning rate may help where trainings diverge, after `lower learning_rate`."""
    return ", or choose another init"

  def anew(self, key: Key[Array, ""], weights: Params) -> Params:
    """Other weights of the same distribution, of one that is `fitted`; see `operators.resample`.

    Args:
      key: consumed.
      weights: of the network.
    """
    raise NotImplementedError


@structs.dataclass
class Normal(Initialiser):
  """Kernels ~ N(0, scale) (paper, 3.1); other leaves by the module's own initialiser.

  The ready-made networks start their biases at zero.

  Attributes:
    scale: standard deviation: one number, or one for each layer, in the order in which the network applies
      them (traced).
  """

  scale: Scale = setting(
    0.1,
    "normal: standard deviation of initial weights; one number, or one for each layer with commas or slashes "
    "between.",
    group="first population",
    kind=NUMBERS,
    rule=POSITIVE,
    flag="init_scale",
  )

  def __post_init__(self):
    """Takes an array of scales, one for each layer."""
    if isinstance(self.scale, np.ndarray) and self.scale.ndim == 1:
      object.__setattr__(self, "scale", tuple(float(value) for value in self.scale))

  def draw(
    self, key: Key[Array, ""], network: Network, input_shape: Sequence[int], layers: Sequence[Layer] = ()
  ) -> Params:
    """See `Initialiser.draw`.

    Raises:
      UsageError: not as many numbers as layers; or the module has no kernel.
    """
    module_key, kernels_key = jax.random.split(key)
    parameters = draw_variables(module_key, network, input_shape).weights
    leaves, treedef = jax.tree_util.tree_flatten_with_path(parameters)
    scales = scale_of_each(self.scale, tuple(layers) or find_layers(network, input_shape))
    kernels = {i: leaf for i, (path, leaf) in enumerate(leaves) if layer_name(path) in scales}
    drawn = draw_like(lambda size: jax.random.normal(kernels_key, (size,), jnp.float32), kernels)
    drawn = {i: leaf * scales[layer_name(leaves[i][0])] for i, leaf in drawn.items()}
    initial = [drawn[i].astype(leaf.dtype) if i in drawn else leaf for i, (_, leaf) in enumerate(leaves)]
    return jax.tree_util.tree_unflatten(treedef, initial)

  @property
  def remedy(self) -> str:
    """A smaller scale."""
    return f" or init_scale ({describe(self.scale)})"

  def fitted(self, network: Network, input_shape: Sequence[int], layers: Sequence[Layer]) -> "Normal":
    """Itself, if it has a scale for each layer."""
    del network, input_shape
    scale_of_each(self.scale, layers)
    return self


class _ByFans(Initialiser):
  """Kernels ~ N(0, v), v of how many units a layer joins."""

  def variance(self, fan_in: int, fan_out: int) -> float:
    """V of a layer whose outputs each see `fan_in` inputs, and whose inputs `fan_out` outputs."""
    raise NotImplementedError

  def draw(
    self, key: Key[Array, ""], network: Network, input_shape: Sequence[int], layers: Sequence[Layer] = ()
  ) -> Params:
    """See `Initialiser.draw`; other leaves are as with `Normal`."""
    layers = tuple(layers) or find_layers(network, input_shape)
    return self.fitted(network, input_shape, layers).draw(key, network, input_shape, layers)

  def fitted(self, network: Network, input_shape: Sequence[int], layers: Sequence[Layer]) -> Normal:
    """`Normal` with a scale for each layer."""
    fans = find_fans(network, input_shape)
    return Normal(tuple(math.sqrt(self.variance(*fans[layer.name])) for layer in layers))


@structs.dataclass
class He(_ByFans):
  """Kernels ~ N(0, 2 / fan_in) (He et al., 2015, equation 10)."""

  def variance(self, fan_in: int, fan_out: int) -> float:
    """2 / fan_in."""
    del fan_out
    return 2 / fan_in


@structs.dataclass
class Glorot(_ByFans):
  """Kernels ~ N(0, 2 / (fan_in + fan_out)): the variance of Glorot & Bengio (2010, equation 12)."""

  def variance(self, fan_in: int, fan_out: int) -> float:
    """2 / (fan_in + fan_out)."""
    return 2 / (fan_in + fan_out)


@structs.dataclass
class Own(Initialiser):
  """The module's own initialisers, for kernels too.

  Attributes:
    network, input_shape: what it is `fitted` to; None before.
  """

  network: Network | None = structs.field(pytree_node=False, default=None)
  input_shape: tuple[int, ...] | None = structs.field(pytree_node=False, default=None)

  def draw(
    self, key: Key[Array, ""], network: Network, input_shape: Sequence[int], layers: Sequence[Layer] = ()
  ) -> Params:
    """See `Initialiser.draw`."""
    del layers
    return draw_variables(key, network, input_shape).weights

  def fitted(self, network: Network, input_shape: Sequence[int], layers: Sequence[Layer]) -> "Own":
    """Knows its network."""
    del layers
    return Own(network, tuple(input_shape))

  def anew(self, key: Key[Array, ""], weights: Params) -> Params:
    """Another draw of all."""
    del weights
    assert self.network is not None
    assert self.input_shape is not None
    return self.draw(key, self.network, self.input_shape)


@structs.dataclass
class Given(Initialiser):
  """Weights that are there already: of a ticket, or of a network that was trained. Masks evolve over them.

  Attributes:
    weights: the same for every genome, a nested dict as the network has it (traced).
  """

  weights: Params

  def draw(
    self, key: Key[Array, ""], network: Network, input_shape: Sequence[int], layers: Sequence[Layer] = ()
  ) -> Params:
    """The weights, in their network's types."""
    del key, layers
    like = abstract_parameters(network, input_shape)
    return jax.tree.map(lambda weight, leaf: jnp.asarray(weight, leaf.dtype), self.weights, like)

  def fitted(self, network: Network, input_shape: Sequence[int], layers: Sequence[Layer]) -> "Given":
    """Itself, if it has each parameter of the network in its shape."""
    del layers
    wanted, found = (
      {jax.tree_util.keystr(path, simple=True, separator="/"): np.shape(leaf) for path, leaf in leaves}
      for leaves, _ in (
        jax.tree_util.tree_flatten_with_path(tree)
        for tree in (abstract_parameters(network, input_shape), self.weights)
      )
    )
    for name in sorted({*wanted, *found}):
      if wanted.get(name) != found.get(name):
        there, here = (shapes.get(name, "nothing") for shapes in (wanted, found))
        raise UsageError(
          f"the given weights do not fit the network: {name} is {there} there and {here} here; give the "
          "network that they are of"
        )
    return self

  def anew(self, key: Key[Array, ""], weights: Params) -> Params:
    """The given weights."""
    del key
    return jax.tree.map(lambda given, weight: jnp.asarray(given, weight.dtype), self.weights, weights)


INITIALISERS: dict[str, Callable[[], Initialiser]] = {
  "normal": Normal,
  "he": He,
  "glorot": Glorot,
  "module": Own,
}


def as_initialiser(given: Initialiser | Scale | str | Params) -> Initialiser:
  """An initialiser itself, by name, of a scale, or of weights.

  Raises:
    UsageError: there is none of that name.
  """
  if isinstance(given, Initialiser):
    return given
  if isinstance(given, str):
    if given not in INITIALISERS:
      known = ", ".join(INITIALISERS)
      raise UsageError(f"init must be one of {known}, not {given!r}{suggest(given, INITIALISERS)}")
    return INITIALISERS[given]()
  if isinstance(given, Mapping):
    return Given(given)
  return Normal(cast(Scale, given))


def draw_like(draw: Callable[[int], Shaped[Array, "... size"]], tree: Params) -> Params:
  """Random numbers for every leaf of a tree, cut from one draw, which compiles far faster than one each.

  Args:
    draw: gives an array whose last axis has that size, its entries independent of each other.
    tree: the shapes.

  Returns:
    A tree of arrays: each leaf's shape, behind the draw's axes before the last.
  """
  leaves, treedef = jax.tree.flatten(tree)
  ends = np.cumsum([leaf.size for leaf in leaves])
  parts = jnp.split(draw(int(ends[-1])), ends[:-1], axis=-1)
  return jax.tree.unflatten(
    treedef, [part.reshape(part.shape[:-1] + leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
  )
