"""Optimisers: any of optax's by name, a function of the learning rate, or an optax object."""

import functools
import inspect
import zlib
from collections.abc import Callable, Mapping
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nets_jax import plugins
from nets_jax.errors import UsageError, suggest
from nets_jax.kinds import Number, in_words

# A name in `optimizer_names`, or `package.module:function`; a function from the learning rate to an optax
# transformation; or one made already.
Optimizer = str | Callable[..., optax.GradientTransformation] | optax.GradientTransformation
Rate = float | jax.Array | Callable[..., float | jax.Array]  # a number, or one for each iteration

# One wants a key as well, one is deprecated, and one searches along a line, for which it wants the loss.
LEFT_OUT = ("noisy_sgd", "optimistic_adam", "lbfgs")
# What an optimiser calls a decay of its own.
DECAYS = ("weight_decay", "weight_decay_rate")


@functools.cache
def _by_name() -> dict[str, Callable[..., optax.GradientTransformation]]:
  optimizers = {}
  for name, value in vars(optax).items():  # not getattr, which warns of deprecated names
    is_maker = inspect.isfunction(value) or isinstance(value, functools.partial)  # nadam is adam's partial
    if name in LEFT_OUT or name.startswith(("_", "scale_by_")) or not is_maker:
      continue
    parameters = list(inspect.signature(value).parameters.values())
    takes_a_rate = bool(parameters) and parameters[0].name == "learning_rate"
    others = [
      p for p in parameters[1:] if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    ]
    if takes_a_rate and not others:
      optimizers[name] = value
  return optimizers | {"momentum": functools.partial(optax.sgd, momentum=0.9)}


def optimizer_names() -> tuple[str, ...]:
  """Optax's optimisers that take nothing but a learning rate, and `momentum`: SGD with 0.9 of it."""
  return tuple(sorted(_by_name()))


class Extras(NamedTuple):
  """What a training adds to an optimiser; see `Training`."""

  momentum: Number | None = None
  nesterov: bool = False
  weight_decay: Number | None = None
  clip_norm: Number | None = None


NO_EXTRAS = Extras()


def is_optaxs(optimizer: Optimizer) -> bool:
  """Whether an optimiser is one of optax's by its name."""
  return isinstance(optimizer, str) and optimizer in _by_name()


def is_complete(optimizer: Optimizer) -> bool:
  """Whether an optimiser is an optax transformation already, with a rate of its own."""
  return isinstance(_found(optimizer), optax.GradientTransformation)


def make_optimizer(
  optimizer: Optimizer, learning_rate: Rate | None, extras: Extras = NO_EXTRAS
) -> optax.GradientTransformation:
  """The optax transformation of that name, or that function's, with this learning rate.

  The gradient g of the masked network is clipped first: g <- g min(1, c / |g|), with |g| the norm of all of
  it and c `clip_norm`. Weight decay is the optimiser's own where it has one, as optax writes it: of `adamw`,
  w <- w - eta (u + lambda w), decoupled (Loshchilov & Hutter, 2019); of `adafactor`, w <- w - (u + lambda w),
  whatever eta. Of any other it is coupled:
  g <- g + lambda w, before the optimiser sees it, which for plain `sgd` comes to the same.

  Raises:
    UsageError: no such optimiser, one that does not take what is asked of it, or a function that gives
      something else.
  """
  maker = _found(optimizer)
  if isinstance(maker, optax.GradientTransformation):
    if extras != NO_EXTRAS:
      raise UsageError(
        "an optax transformation is taken as it is; make momentum, weight decay or clipping a part of it by "
        "optax.chain, or give an optimiser by its name"
      )
    return maker
  own, before = _own_arguments(optimizer, maker, extras), []
  if extras.clip_norm is not None:
    before.append(optax.clip_by_global_norm(cast(float, extras.clip_norm)))
  if extras.weight_decay is not None and not set(DECAYS) & set(own):
    before.append(optax.add_decayed_weights(cast(float, extras.weight_decay)))
  made = _called(optimizer, maker, learning_rate, own)
  return optax.chain(*before, made) if before else made


def _found(optimizer: Optimizer) -> Callable[..., object] | optax.GradientTransformation:
  """An optimiser that is named, as the function or the transformation that the name stands for."""
  if isinstance(optimizer, optax.GradientTransformation) or not isinstance(optimizer, str):
    return optimizer
  if optimizer in _by_name():
    return _by_name()[optimizer]
  if not plugins.is_reference(optimizer):
    raise UsageError(
      f"optimizer must be one of {', '.join(optimizer_names())}, or package.module:function of your own, not "
      f"{optimizer!r}{suggest(optimizer, optimizer_names())}"
    )
  reference = plugins.parse(optimizer)
  found = plugins.find(reference)
  if isinstance(found, optax.GradientTransformation) or not callable(found):
    if reference.arguments is not None or not isinstance(found, optax.GradientTransformation):
      raise UsageError(f"{optimizer} is no function from the learning rate to an optax transformation")
    return found
  return functools.partial(found, **(reference.arguments or {}))


def _own_arguments(optimizer: Optimizer, maker: Callable[..., object], extras: Extras) -> dict[str, object]:
  """Those of the extras that an optimiser takes itself, by name."""
  given: dict[str, object] = {}
  if extras.momentum is not None:
    given["momentum"] = extras.momentum
  if extras.nesterov:
    given["nesterov"] = True
  for name in given:
    if not plugins.takes(maker, name):
      having = [known for known in optimizer_names() if plugins.takes(_by_name()[known], name)]
      raise UsageError(
        f"{_name(optimizer)} takes no {name}; leave it out, or choose one that does: {', '.join(having)}"
      )
  if extras.nesterov and "momentum" not in given and _default(maker, "momentum", 0.0) is None:
    raise UsageError(
      f"nesterov looks ahead by the momentum, of which {_name(optimizer)} has none; give momentum"
    )
  decay = next((name for name in DECAYS if plugins.takes(maker, name)), None)
  if extras.weight_decay is not None and decay is not None:
    given[decay] = extras.weight_decay
  return given


def _default(maker: Callable[..., object], name: str, otherwise: object) -> object:
  parameter = inspect.signature(maker).parameters.get(name)
  return otherwise if parameter is None else parameter.default


def _name(optimizer: Optimizer) -> str:
  return optimizer if isinstance(optimizer, str) else in_words(getattr(optimizer, "func", optimizer))


def _called(
  optimizer: Optimizer, maker: Callable[..., object], rate: Rate | None, own: Mapping[str, object]
) -> optax.GradientTransformation:
  """What an optimiser's function gives for a rate."""
  try:
    made = maker(rate, **own)
  except Exception as error:
    if not plugins.is_reference(optimizer):
      raise
    raise UsageError(f"{optimizer} failed: {plugins.last_line(error)}; mend it or its arguments") from error
  if not isinstance(made, optax.GradientTransformation):
    raise UsageError(
      f"optimizer must be a function from the learning rate to an optax transformation, but gave a "
      f"{type(made).__name__}"
    )
  return made


def check_optimizer(optimizer: Optimizer, learning_rate: Rate | None, extras: Extras) -> None:
  """Raises UsageError for what `make_optimizer` refuses, or a rate that depends on the iteration of one that
  takes a number alone.
  """
  if not (callable(learning_rate) and isinstance(optimizer, str)):
    make_optimizer(optimizer, learning_rate, extras)
    return
  make_optimizer(optimizer, 0.1, extras)
  weights = {"kernel": jnp.zeros((2, 2))}

  def update() -> object:
    made = make_optimizer(optimizer, learning_rate, extras)
    return made.update(weights, made.init(weights), weights)

  try:
    jax.eval_shape(update)
  except TypeError as error:
    raise UsageError(
      f"{optimizer} takes a number as its learning rate, no schedule; leave schedule and warmup out, or "
      "choose another optimiser"
    ) from error


def describe_optimizer(optimizer: Optimizer) -> str:
  """An optimiser for a record: optax's name; else a function's name, and a fingerprint of what it does.

  That is a CRC-32 of three updates of a few numbers, and of what its functions hold, so that two rates in two
  objects are told apart, also rates of later iterations.
  """
  if isinstance(optimizer, str) and not plugins.is_reference(optimizer):
    return optimizer
  is_object = isinstance(optimizer, optax.GradientTransformation)
  name = "an optax transformation" if is_object else _name(optimizer)
  try:
    made, weights = make_optimizer(optimizer, 0.1), {"kernel": jnp.array([[0.5, -1.0], [2.0, 0.1]])}
    state, total = made.init(weights), zlib.crc32(in_words(tuple(made)).encode())
    for i in range(3):
      updates, state = made.update(jax.tree.map(lambda w, i=i: jnp.cos(w + i), weights), state, weights)
      total = zlib.crc32(np.asarray(cast(dict, updates)["kernel"]).tobytes(), total)
  except Exception:  # one that wants other weights than these has its name alone
    return name
  return f"{name} {total:08x}"


class DeadWeights(NamedTuple):
  """What an optimiser does about weights whose gradient is always zero.

  Attributes:
    move: whether it moves them, as weight decay does.
    matter: whether others move otherwise because of them, as with a rate for each layer by its norm.
  """

  move: bool
  matter: bool


def dead_weights(made: optax.GradientTransformation) -> DeadWeights:
  """What an optimiser does about dead weights: it is tried on a few, with as many beside that are alive.

  Of one that cannot be tried so, or does not move weights at first, the worst is taken.
  """
  rng = np.random.default_rng(0)  # draws of JAX's would have to be compiled
  # adafactor treats matrices of fewer rows than 128 otherwise
  begun, *gradients = rng.normal(size=(4, 130, 260)).astype(np.float32)
  live = slice(0, 130)
  for gradient in gradients:
    gradient[:, 130:] = 0

  def moved(columns):
    weights = {"kernel": jnp.asarray(begun[:, columns])}
    state = made.init(weights)
    for gradient in gradients:
      updates, state = made.update({"kernel": jnp.asarray(gradient[:, columns])}, state, weights)
      weights = optax.apply_updates(weights, updates)
    return np.asarray(cast(dict, weights)["kernel"])

  try:
    beside, alone = moved(slice(None)), moved(live)
  except Exception:  # one that wants other weights than these, or more than gradients
    return DeadWeights(move=True, matter=True)
  if np.array_equal(alone, begun[:, live]):
    return DeadWeights(move=True, matter=True)
  moves = not np.array_equal(beside[:, 130:], begun[:, 130:])
  return DeadWeights(moves, not np.allclose(beside[:, live], alone, rtol=1e-5, atol=1e-7))
