"""The layers of a network in the order in which it applies them, and what each parameter does to the signal.

Traced once: a parameter is applied where what is made of parameters alone first meets what the input reached.
"""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, cast

import jax
from jax.extend import core

from nets_jax.errors import UsageError
from nets_jax.networks.adapter import (
  Network,
  Params,
  Path,
  Scale,
  abstract_parameters,
  forward,
  input_type,
  name_of,
  remembered,
)
from nets_jax.networks.maskable import KERNELS, PRODUCTS, MaskRule, is_maskable, layer_name

# The operations by which a parameter meets the signal, where these are not products over inputs.
ADDING = ("add", "add_any", "sub", "concatenate", "select_n")
SCALING = ("mul", "div")


class Layer(NamedTuple):
  """A layer that can be masked: its module's path (`block/query`), and its kernel's shape in one ticket.

  Of what is no kernel, an embedding, say, the name is the parameter's own path (`embed/embedding`). `kept` is
  how many weights a task says that it keeps; None leaves that to the search. `pattern` is that of its mask.
  """

  name: str
  shape: tuple[int, ...]
  kept: int | None = None
  pattern: str | None = None

  @property
  def size(self) -> int:
    """Weights in the kernel."""
    size = 1
    for length in self.shape:
      size *= length
    return size


def find_layers(
  network: Network, input_shape: Sequence[int], maskable: MaskRule = KERNELS
) -> tuple[Layer, ...]:
  """The layers of a network that a mask covers, in the order in which it applies them.

  Layers that are never applied come last. Of those, and of layers that are applied at once, the names decide,
  in natural order.

  Args:
    network: the module.
    input_shape: shape of one input, without the batch axis.
    maskable: which parameters these are; see `maskable`.

  Raises:
    UsageError: there are none; or a gain or a bias is among them, or two of one name.
  """
  everything = _meetings(network, input_shape)
  meetings = [own for own in everything if is_maskable(maskable, own.path, own.shape, own.operation)]
  meetings.sort(key=lambda meeting: (meeting.position, natural(layer_name(meeting.path))))
  names, of_all = ([layer_name(own.path) for own in some] for some in (meetings, everything))
  if not names:
    raise UsageError(f"{name_of(network)} has {maskable.missing}, so nothing can be masked")
  for name, meeting in zip(names, meetings, strict=True):
    if meeting.operation in (*ADDING, *SCALING) and str(meeting.path[-1].key) != "kernel":
      kind = "added to" if meeting.operation in ADDING else "multiplied with"
      raise UsageError(f"{name} is {kind} the signal entry by entry; gains and biases are never masked")
    if of_all.count(name) > 1:
      raise UsageError(f"two parameters are both the layer {name}; give them modules of their own")
  return tuple(Layer(name, meeting.shape) for name, meeting in zip(names, meetings, strict=True))


def find_fans(network: Network, input_shape: Sequence[int]) -> dict[str, tuple[int, int]]:
  """Of each layer by name: how many inputs each of its outputs sees, and how many outputs each input reaches.

  By the operation in which the kernel meets the signal: of a product the axes that are summed over, of a
  convolution the window too. Of a parameter that meets it otherwise, an embedding, say, the last two axes.
  """
  return {layer_name(own.path): own.fans or _usual_fans(own.shape) for own in _meetings(network, input_shape)}


def operations(network: Network, input_shape: Sequence[int]) -> dict[str, str | None]:
  """By what each parameter, by its path, meets the signal, in that order; None if it never does."""
  met = sorted(_meetings(network, input_shape), key=lambda own: own.position)
  return {"/".join(str(key.key) for key in own.path): own.operation for own in met}


def _usual_fans(shape: Sequence[int]) -> tuple[int, int]:
  return (shape[-2] if len(shape) > 1 else 1), (shape[-1] if shape else 1)


def natural(name: str) -> list[tuple[str, int]]:
  """A key that sorts names with numbers as people do: `Dense_9`, then `Dense_10`."""
  return [(word, int(number or -1)) for word, number in re.findall(r"(\D+|^)(\d*)", name)]


def synaptic(
  network: Network, input_shape: Sequence[int], weights: Params, layers: Sequence[Layer]
) -> Params:
  """The weights as SynFlow counts them: no bias, every gain 1, the absolute value of all else.

  A bias is whatever is added to the signal, a gain whatever multiplies it entry by entry, by any name.

  Args:
    network: the module.
    input_shape: shape of one input, without the batch axis.
    weights: its parameters.
    layers: those that are masked; their weights are never taken for gains.
  """
  leaves, treedef = jax.tree.flatten(weights)
  names = {layer.name for layer in layers}

  def counted(meeting: "_Meeting", leaf: jax.Array) -> jax.Array:
    if layer_name(meeting.path) in names or meeting.operation not in (*ADDING, *SCALING, None):
      return jax.numpy.abs(leaf)
    full = jax.numpy.ones_like if meeting.operation in SCALING else jax.numpy.zeros_like
    return full(leaf)

  return jax.tree.unflatten(
    treedef, [counted(*both) for both in zip(_meetings(network, tuple(input_shape)), leaves, strict=True)]
  )


def scale_of_each(
  scale: Scale, layers: Sequence[Layer], what: str = "init_scale"
) -> dict[str, float | jax.Array]:
  """A scale for each layer, by its name: the one for all, or its own, in the order of application.

  Args:
    scale: one number, or one for each layer.
    layers: in that order.
    what: the setting, for the message.

  Raises:
    UsageError: not as many as there are layers.
  """
  scales = list(scale) if isinstance(scale, tuple | list) else [scale] * len(layers)
  if len(scales) != len(layers):
    names = ", ".join(layer.name for layer in layers)
    raise UsageError(
      f"{what} must be one number, or one for each of the network's {len(layers)} layers, not "
      f"{len(scales)}; in the order of application these are {names}"
    )
  return {layer.name: value for layer, value in zip(layers, scales, strict=True)}


class _Met(NamedTuple):
  """Where a parameter first meets the signal, by what operation (None if it never does), and its fans."""

  position: float
  operation: str | None
  fans: tuple[int, int] | None


class _Meeting(NamedTuple):
  """The same, with the parameter's path and shape."""

  path: Path
  shape: tuple[int, ...]
  position: float
  operation: str | None
  fans: tuple[int, int] | None


def _meetings(network: Network, input_shape: Sequence[int]) -> list[_Meeting]:
  """One for each parameter, in the tree's order."""
  return _meetings_of(network, tuple(input_shape))


@remembered
def _meetings_of(network: Network, input_shape: tuple[int, ...]) -> list[_Meeting]:
  weights = abstract_parameters(network, input_shape)
  leaves, treedef = jax.tree.flatten(weights)
  inputs = jax.ShapeDtypeStruct((1, *input_shape), input_type(network, input_shape))

  def apply(leaves, inputs):
    return forward(network, jax.tree.unflatten(treedef, leaves), inputs)

  traced = jax.make_jaxpr(apply)(leaves, inputs)
  walk = _Walk()
  walk.through(traced.jaxpr, [frozenset([i]) for i in range(len(leaves))] + [_SIGNAL])
  paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(weights)[0]]
  never = _Met(float("inf"), None, None)
  return [
    _Meeting(path, leaf.shape, *walk.met.get(i, never))
    for i, (path, leaf) in enumerate(zip(paths, leaves, strict=True))
  ]


_SIGNAL = "signal"  # what the input has reached
_Source = Literal["signal"] | frozenset[int]  # the signal, or the parameters that a value is made of


class _Walk:
  """Follows a traced program from operation to operation."""

  def __init__(self):
    self.met: dict[int, _Met] = {}
    self._operations = 0

  def through(self, jaxpr: core.Jaxpr, given: Iterable[_Source]) -> list[_Source]:
    """What a program's results are made of, given what its arguments are made of."""
    made_of = dict(zip(jaxpr.invars, given, strict=True))

    def look(variable):
      return frozenset() if isinstance(variable, core.Literal) else made_of.get(variable, frozenset())

    for equation in jaxpr.eqns:
      programs = _inner(equation)
      if programs:
        results = [self._repeat(equation, inner, [look(v) for v in outer]) for inner, outer in programs]
        merged = [_merge(sources) for sources in zip(*results, strict=True)]
      else:
        merged = [self._apply(equation, [look(variable) for variable in equation.invars])]
        merged *= len(equation.outvars)
      made_of.update(zip(equation.outvars, merged, strict=True))
    return [look(variable) for variable in jaxpr.outvars]

  def _repeat(self, equation: core.JaxprEqn, inner: core.Jaxpr, given: list[_Source]) -> list[_Source]:
    """Through a program inside; of a loop its body, as it is once the signal has reached what it carries."""
    first, count = _carried(equation)
    if count:
      results = _Walk().through(inner, given)
      given[first : first + count] = map(_merge, zip(given[first : first + count], results, strict=False))
    return self.through(inner, given)

  def _apply(self, equation: core.JaxprEqn, given: Sequence[_Source]) -> _Source:
    """Notes the parameters that meet the signal here; what comes of the operation."""
    self._operations += 1
    together = _merge(given)
    if together == _SIGNAL:
      for parameter in _parameters(given):
        place = next(i for i, source in enumerate(given) if source != _SIGNAL and parameter in source)
        met = _Met(self._operations, equation.primitive.name, _fans(equation, place))
        before = self.met.setdefault(parameter, met)
        # A recurrent kernel meets a state of zeros first, which is added to the signal, then the signal.
        if before.operation in ADDING and met.operation in PRODUCTS:
          self.met[parameter] = met._replace(position=before.position)
    return together


def _carried(equation: core.JaxprEqn) -> tuple[int, int]:
  """Where a loop's body takes what the pass before gave, and how much; nothing if this is no loop."""
  if equation.primitive.name == "scan" and "ft_in" in equation.params:  # as JAX 0.12 has it
    return cast(tuple[int, int], tuple(len(list(own)) for own in equation.params["ft_in"].elts[:2]))
  if equation.primitive.name == "scan":
    return equation.params["num_consts"], equation.params["num_carry"]
  if equation.primitive.name == "while":
    return equation.params["body_nconsts"], len(equation.outvars)
  return 0, 0


def _fans(equation: core.JaxprEqn, place: int) -> tuple[int, int] | None:
  """Of the operand at a place, a kernel: inputs that an output sees, outputs that an input reaches."""
  shape = cast(jax.ShapeDtypeStruct, equation.invars[place].aval).shape
  if equation.primitive.name == "dot_general":
    contracted, batched = equation.params["dimension_numbers"]
    fan_in = math.prod(shape[axis] for axis in contracted[place])
    return fan_in, math.prod(shape) // (fan_in * math.prod(shape[axis] for axis in batched[place]))
  if equation.primitive.name == "conv_general_dilated" and place == 1:
    out_axis, in_axis, *_ = equation.params["dimension_numbers"].rhs_spec
    groups = equation.params["feature_group_count"]
    return math.prod(shape) // shape[out_axis], math.prod(shape) // (shape[in_axis] * groups)
  return None


def _merge(given: Iterable[_Source]) -> _Source:
  given = list(given)
  return _SIGNAL if _SIGNAL in given else _parameters(given)


def _parameters(given: Iterable[_Source]) -> frozenset[int]:
  """The parameters that values besides the signal are made of."""
  return frozenset().union(*(source for source in given if isinstance(source, frozenset)))


def _inner(equation: core.JaxprEqn) -> list[tuple[core.Jaxpr, Sequence[core.Var | core.Literal]]]:
  """The programs inside an operation (a loop's body, a branch), each with the arguments it is called with."""
  settings, arguments = equation.params, equation.invars
  if equation.primitive.name == "while":
    return [(settings["body_jaxpr"].jaxpr, arguments[settings["cond_nconsts"] :])]
  if equation.primitive.name == "cond":
    return [(branch.jaxpr, arguments[1:]) for branch in settings["branches"]]
  for value in settings.values():
    inner = value.jaxpr if isinstance(value, core.ClosedJaxpr) else value
    if isinstance(inner, core.Jaxpr) and len(inner.invars) == len(arguments):
      return [(inner, arguments)]
  return []
