"""Ready-made networks by name: their table, their settings, and what a ticket's file says of one."""

import dataclasses
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypedDict, Unpack, cast

import flax.linen as nn

from nets_jax import plugins, structs
from nets_jax.errors import UsageError
from nets_jax.kinds import ANY, NUMBER, POSITIVE, SWITCH, WHOLES, Rule, at_least, check_value, choice, one_of
from nets_jax.networks.adapter import Network, with_tuples
from nets_jax.networks.architectures import conv_nets, resnets, transformers, vgg
from nets_jax.networks.architectures.lenet5 import lenet5
from nets_jax.networks.architectures.mlp import ACTIVATIONS, MLP, lenet_300_100, mlp
from nets_jax.networks.images import NORMS
from nets_jax.networks.own import own_network
from nets_jax.networks.precision import PRECISIONS
from nets_jax.settings import check, places, setting
from nets_jax.structs import Struct

__all__ = ["ACTIVATIONS", "MLP", "NETWORKS", "NetworkSettings", "lenet_300_100", "make_network"]

# Ready-made networks by name: each takes the number of classes, and keywords that are fields of its module.
NETWORKS: dict[str, Callable[..., nn.Module]] = {
  "mlp": mlp,
  "lenet_300_100": lenet_300_100,
  "lenet5": lenet5,
  "conv2": conv_nets.conv2,
  "conv4": conv_nets.conv4,
  "conv6": conv_nets.conv6,
  "resnet8": resnets.resnet8,
  "resnet20": resnets.resnet20,
  "resnet32": resnets.resnet32,
  "resnet56": resnets.resnet56,
  "resnet18": resnets.resnet18,
  "vgg11": vgg.vgg11,
  "vgg16": vgg.vgg16,
  "vgg19": vgg.vgg19,
  "vit": transformers.vit,
}
# Settings that a network leaves unheeded rather than refuses: a flagfile for an mlp serves lenet_300_100 too.
UNHEEDED = {"lenet_300_100": ("hidden_sizes",)}
# Fields that are not of the network itself: flax's own two, and how it is trained.
APART = ("parent", "name", "precision")


class NetworkOptions(TypedDict, total=False):
  """What a ready-made network may have otherwise; see `NetworkSettings`."""

  use_bias: bool
  activation: str
  dropout_rate: float
  width: float | None
  norm: str | None


@structs.dataclass
class NetworkSettings(Struct):
  """A network by name, and what a ready-made one is made with.

  Attributes:
    network: a name in `NETWORKS`, or `package.module:Class(width=32)` of one's own; see `own_network`.
    hidden_sizes: units of each hidden layer of an `mlp`; `lenet_300_100` has its own.
    activation, use_bias, dropout_rate: see `MLP`.
    width: multiplies the channels of a network of images; None is the network's own.
    norm: a name in `NORMS`; None is the network's own.
  """

  network: str = setting(
    "mlp", "The network: one of these, or package.module:Class(width=32) of your own.", group="network",
    kind=plugins.choice(tuple(NETWORKS)), rule=plugins.one_of(tuple(NETWORKS)), static=True,
  )  # fmt: skip
  hidden_sizes: tuple[int, ...] = setting(
    (100, 50), "Units of each hidden layer of an mlp.", group="network", kind=WHOLES,
    rule=Rule("positive whole numbers", lambda size: size >= 1), static=True,
  )  # fmt: skip
  activation: str = setting(
    "relu", "Activation of the hidden layers of an mlp or lenet_300_100.", group="network",
    kind=choice(tuple(ACTIVATIONS)), rule=one_of(tuple(ACTIVATIONS)), static=True,
  )  # fmt: skip
  use_bias: bool = setting(
    True, "Whether the layers of an mlp or lenet_300_100 have bias vectors (trained, never masked).",
    group="network", kind=SWITCH, static=True,
  )  # fmt: skip
  dropout_rate: float = setting(
    0.0, "Probability that training silences a hidden unit of an mlp or lenet_300_100.", group="network",
    kind=NUMBER, rule=Rule("in [0, 1)", lambda rate: 0 <= rate < 1), static=True,
  )  # fmt: skip
  width: float | None = setting(
    None, "Multiplies the channels and hidden units of a network of images; default 1, its paper's.",
    group="network", kind=NUMBER, rule=POSITIVE, static=True,
  )  # fmt: skip
  norm: str | None = setting(
    None, "Normalisation in a resnet or vgg; default batch.", group="network", kind=choice(NORMS),
    rule=one_of(NORMS), static=True,
  )  # fmt: skip

  def make(self, num_classes: int) -> Network:
    """The network.

    Raises:
      UsageError: an unknown name or an impossible setting; or a setting that this network does not have.
    """
    if plugins.is_reference(self.network):
      network = own_network(self.network, num_classes)
      if changed := self._changed():
        own = plugins.parse(self.network).name
        raise UsageError(
          f"{changed[0]} is for the ready-made networks; write {own}(...) with the arguments it takes"
        )
      return network
    check(self.replace(hidden_sizes=tuple(self.hidden_sizes) or (1,)))
    takes = settings_of(self.network)
    heard = (*takes, *UNHEEDED.get(self.network, ()))
    if strange := [name for name in self._changed() if name not in heard]:
      raise UsageError(f"{self.network} has no {strange[0]}; it takes {', '.join(takes)}")
    values = {name: getattr(self, name) for name in takes}
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    own = {name: value for name, value in values.items() if value is not None}
    return NETWORKS[self.network](num_classes, **own)

  def _changed(self) -> list[str]:
    """The settings of the network that are not as by default; of no hidden layers nothing is asked."""
    own = [field for field in dataclasses.fields(self) if field.name != "network"]
    return [field.name for field in own if getattr(self, field.name) not in (field.default, ())]

  def contradiction(self, network: Network, given: Collection[str]) -> tuple[str, str] | None:
    """What of the given settings would make another network than a ready-made one that is there.

    Args:
      network: what is there.
      given: names of settings; others are not looked at.

    Returns:
      The first such setting's name, and what is there and here in words; None if there is none.

    Raises:
      UsageError: see `make`.
    """
    own, arguments = named(network) or (type(network).__name__, {})
    name = self.network if "network" in given or own not in NETWORKS else own
    wanted = self.replace(network=name).make(cast(int, arguments.get("num_classes", 1)))
    if type(wanted) is not type(network):
      return "network", f"the network {own}, not {name}"
    for field in _fields(network):
      there, here = getattr(network, field), getattr(wanted, field)
      flag = field if field in settings_of(name) else "network"
      if flag in given and there != here:
        return flag, f"a network of {field} {there}, not {here}"
    return None


def settings_of(name: str) -> tuple[str, ...]:
  """The settings that a ready-made network takes, in the order in which it names them."""
  known = {field.name for field in dataclasses.fields(NetworkSettings)}
  return tuple(own for own in inspect.signature(NETWORKS[name]).parameters if own in known)


def make_network(
  name: str,
  num_classes: int,
  hidden_sizes: Sequence[int] = (),
  *,
  precision: str = "float32",
  **kwargs: Unpack[NetworkOptions],
) -> Network:
  """A network by name.

  Args:
    name: in `NETWORKS`; or `package.module:Class(width=32)` of one's own, which takes all else there.
    num_classes: number of classes.
    hidden_sizes: units of each hidden layer of an `mlp`.
    precision: of an `MLP`'s matrix products.
    **kwargs: other settings of `NetworkSettings`.

  Raises:
    UsageError: an unknown name, an impossible setting, or one that this network does not have.
  """
  if plugins.is_reference(name):
    given = {"hidden_sizes": hidden_sizes, **kwargs} if hidden_sizes else kwargs
    if given:
      raise UsageError(f"write {', '.join(given)} in the parentheses of {plugins.parse(name).name}(...)")
    return own_network(name, num_classes)
  check_value("precision", one_of(tuple(PRECISIONS)), precision)
  network = NetworkSettings(name, tuple(hidden_sizes), **kwargs).make(num_classes)
  if precision == "float32":
    return network
  assert isinstance(network, nn.Module)
  if "precision" not in inspect.signature(NETWORKS[name]).parameters:
    raise UsageError(f"{name} has no precision, so it trains in float32, not {precision}")
  return network.clone(precision=precision)


def named(network: Network) -> tuple[str, dict[str, object]] | None:
  """A ready-made network as a record: its name in `NETWORKS` and the arguments that make it; else None."""
  network = with_tuples(network)
  if not isinstance(network, nn.Module):
    return None
  fields = _fields(network)
  for name, make in NETWORKS.items():
    parameters = inspect.signature(make).parameters
    arguments = {field: getattr(network, field) for field in fields if field in parameters}
    if any(own.default is own.empty and own.name not in arguments for own in parameters.values()):
      continue
    made = make(**arguments)  # which takes any value, for only a call of the module looks at it
    if type(made) is type(network) and _values(made, fields) == _values(network, fields):
      return name, arguments
  return None


def rebuilt(name: str, arguments: Mapping[str, object]) -> nn.Module:
  """The ready-made network of a record, as JSON gives it back; see `named`.

  Args:
    name: in `NETWORKS`.
    arguments: those that its record has.

  Raises:
    UsageError: it has no such argument, or the argument no such value.
    TypeError: one is missing.
  """
  parameters = inspect.signature(NETWORKS[name]).parameters
  rules = {own: place.about.rule for own, place in places(NetworkSettings()) if hasattr(place.about, "rule")}
  given = {own: tuple(value) if isinstance(value, list) else value for own, value in arguments.items()}
  for own, value in given.items():
    if own not in parameters or own in APART:
      raise UsageError(f"{name} has no {own}")
    kind = parameters[own].annotation
    kinds = {bool: (bool,), int: (int,), float: (int, float), str: (str,)}.get(kind, (tuple,))
    if type(value) not in kinds or (
      isinstance(value, tuple) and any(type(each) is not int for each in value)
    ):
      raise UsageError(f"{own} must be of type {kind}, not {value!r:.200}")
    check_value(own, rules.get(own, at_least(1) if kind is int else ANY), value)
  return NETWORKS[name](**given)


def _fields(network: Network) -> list[str]:
  """The fields that make a network what it is, in their order."""
  return [field.name for field in dataclasses.fields(network) if field.name not in APART]


def _values(network: Network, fields: Sequence[str]) -> list[object]:
  return [getattr(network, field) for field in fields]
