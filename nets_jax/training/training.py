"""How a network is trained: optimiser, learning rate, batch, augmentation."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Self, cast

import jax
import jax.numpy as jnp
import optax

from nets_jax import settings, structs
from nets_jax.data import augmentation
from nets_jax.data.augmentation import Augmentation
from nets_jax.errors import UsageError
from nets_jax.kinds import (
  ANY,
  NUMBER,
  NUMBERS,
  POSITIVE,
  SWITCH,
  WHOLE,
  Kind,
  Rule,
  at_least,
  check_hashable,
  describe,
  in_words,
)
from nets_jax.networks.adapter import Scale
from nets_jax.networks.layers import Layer, scale_of_each
from nets_jax.settings import part, setting
from nets_jax.structs import Struct
from nets_jax.training import layer_rates, rate_schedules
from nets_jax.training.optimizers import (
  DeadWeights,
  Extras,
  Optimizer,
  Rate,
  check_optimizer,
  dead_weights,
  describe_optimizer,
  is_complete,
  is_optaxs,
  make_optimizer,
)
from nets_jax.training.rate_schedules import BELOW_1, Constant, Schedule

OPTIMIZER = Kind("the name of an optimiser of optax", str, in_words)


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
  """Whole minibatches in an epoch; a last smaller one is left out, and differs from epoch to epoch."""
  return num_examples // batch_size


@structs.dataclass
class RateSchedule:
  """A learning rate that depends on the iteration, as optax has them: `step -> rate`."""

  function: Callable[..., float | jax.Array] = structs.field(pytree_node=False)


@structs.dataclass
class Training(Struct):
  """How a network is trained: optimiser, learning rate, batch, augmentation.

  Attributes:
    optimizer: any of optax, by name (`sgd`, `momentum`, `adam`, `adamw`, ...); or a function from the
      learning rate to an optax transformation, also as `package.module:function`; or such a transformation,
      whose rate is its own (static).
    learning_rate: eta, a number (traced), or a function of the iteration (static).
    batch_size: examples in a minibatch (static).
    schedule: what multiplies eta in the course of a training; also by its name, or a function of the number
      of iterations that gives one of the iteration. See `rate_schedules`.
    layer_rates: what multiplies the learning rate of each layer, in the order of application; None is 1 for
      all. A layer's bias goes with its kernel, and what belongs to no layer has 1 (traced).
    momentum: of an optimiser that takes it; None is the optimiser's own (traced).
    nesterov: whether the optimiser looks ahead, as of one that can (static).
    weight_decay: lambda, of all weights and biases; None is the optimiser's own (traced). See
      `optimizers.make_optimizer`.
    clip_norm: the most that the norm of all gradients together may be, of the masked network (traced).
    accumulate: equal parts that a minibatch is worked off in, whose gradients are averaged (static).
    augment: what is done to a minibatch's images in training, in this order, and in no evaluation: `crop`,
      `flip`, `cutout`, or functions `(key, images) -> images` of one's own; see `data.augmentation` (static).
    crop_padding, cutout_size: their sizes in pixels; None is 4, and 8 (static).
    augment_apart: whether each genome of a generation draws its augmentations for itself, by its own key;
      else all see the same images, as they do the same minibatches (static).
  """

  optimizer: Optimizer = setting(
    "sgd", "Optimiser of every training, any of optax by name, or package.module:function of your own.",
    group="training", kind=OPTIMIZER,
    rule=Rule("the name of an optimiser of optax", lambda o: callable(o) or isinstance(o, str)), static=True,
    flag="optimizer",
  )  # fmt: skip
  learning_rate: Rate | RateSchedule | None = setting(
    0.1,
    "Learning rate of every training.",
    group="training",
    kind=NUMBER,
    rule=POSITIVE,
    flag="learning_rate",
  )
  batch_size: int = setting(
    16, "Examples in a minibatch.", group="training", kind=WHOLE, rule=at_least(1), static=True,
    flag="batch_size",
  )  # fmt: skip
  schedule: Schedule = part(
    Constant, "What multiplies the learning rate over a training; or package.module:function of your own.",
    group="training", flag="schedule", options=rate_schedules.SCHEDULES, base=Schedule,
    load=rate_schedules.named,
  )  # fmt: skip
  layer_rates: Scale | None = setting(
    None,
    "What multiplies the learning rate of each layer, with commas or slashes between; default 1 for all.",
    group="training",
    kind=NUMBERS,
    rule=POSITIVE,
    flag="layer_rates",
  )
  momentum: float | None = setting(
    None, "Momentum, of an optimiser that takes it; default its own.", group="training", kind=NUMBER,
    rule=BELOW_1, flag="momentum",
  )  # fmt: skip
  nesterov: bool = setting(
    False, "Nesterov's momentum, of an optimiser that has it.", group="training", kind=SWITCH, static=True,
    flag="nesterov",
  )  # fmt: skip
  weight_decay: float | None = setting(
    None, "Weight decay: the optimiser's own (adamw, lamb, ...), else added to the gradient.",
    group="training", kind=NUMBER, rule=at_least(0), flag="weight_decay",
  )  # fmt: skip
  clip_norm: float | None = setting(
    None, "Most that the norm of all gradients together may be; default any.", group="training", kind=NUMBER,
    rule=POSITIVE, flag="clip_norm",
  )  # fmt: skip
  accumulate: int = setting(
    1, "Equal parts that a minibatch is worked off in, one after the other, for less memory.",
    group="training", kind=WHOLE, rule=at_least(1), static=True, flag="accumulate",
  )  # fmt: skip
  augment: tuple[str | Augmentation, ...] | None = setting(
    None, "Augmentations of every training: crop, flip, cutout, or package.module:function of your own, with "
    "commas between.", group="training", kind=augmentation.NAMES, rule=ANY, static=True, flag="augment",
  )  # fmt: skip
  crop_padding: int | None = setting(
    None, "Pixels that crop moves an image by, at most; default 4.", group="training", kind=WHOLE,
    rule=at_least(1), static=True, flag="crop_padding",
  )  # fmt: skip
  cutout_size: int | None = setting(
    None, "Pixels of the side of cutout's square; default 8.", group="training", kind=WHOLE,
    rule=at_least(1), static=True, flag="cutout_size",
  )  # fmt: skip
  augment_apart: bool = setting(
    False, "Each genome draws its augmentations for itself; else all of a generation see the same images.",
    group="training", kind=SWITCH, static=True, flag="augment_apart",
  )  # fmt: skip

  def __post_init__(self):
    """Sets a function of the iteration apart from the traced numbers; takes parts by their names."""
    object.__setattr__(self, "augment", augmentation.as_names(self.augment))
    if callable(self.learning_rate) and not isinstance(self.learning_rate, RateSchedule):
      object.__setattr__(self, "learning_rate", RateSchedule(self.learning_rate))
    object.__setattr__(self, "schedule", rate_schedules.as_schedule(self.schedule))

  def over(self, steps: int) -> Self:
    """With the schedule bound to a training of so many iterations; one that is bound stays as it is."""
    return self.replace(schedule=self.schedule.over(steps))

  def begun_at(self, first: int) -> Self:
    """As it goes on from an iteration, to whose weights a training was rewound."""
    return self.replace(schedule=self.schedule.replace(first=first))

  def make_optimizer(self) -> optax.GradientTransformation:
    """The optax transformation.

    Raises:
      UsageError: a setting that this optimiser does not take, or a schedule without a length.
    """
    return make_optimizer(self.optimizer, self._rate(), self._extras())

  def dead_weights(self) -> DeadWeights:
    """What the optimiser does about weights whose gradient is zero; of one's own the worst is taken."""
    return _dead_weights(self.optimizer, self._extras())

  def _rate(self) -> Rate | None:
    """The learning rate: a number, or a function of the iterations of this training."""
    rate, schedule = self.learning_rate, self.schedule
    if isinstance(rate, RateSchedule):
      function, first = rate.function, schedule.first
      at = (lambda count: function(count + first)) if first else function
      if schedule.is_flat:
        return at
    elif schedule.is_flat:
      return rate
    else:
      at = optax.constant_schedule(cast(float, rate))
    factor = schedule.factor()
    return lambda count: jnp.multiply(at(count), factor(count))

  def _extras(self) -> Extras:
    return Extras(self.momentum, self.nesterov, self.weight_decay, self.clip_norm)

  @property
  def augmentation(self) -> Augmentation | None:
    """What is done to the images of a minibatch; None is nothing.

    Raises:
      UsageError: there is none of a name, or a setting of one that is not chosen.
    """
    if self.augment_apart and not self.augment:
      raise UsageError("augment_apart says how augmentations are drawn; give augment, or leave it out")
    made = augmentation.chain(self.augment or (), self._sizes)
    return made if self.augment else None

  @property
  def _sizes(self) -> dict[str, int | None]:
    return {"crop_padding": self.crop_padding, "cutout_size": self.cutout_size}

  def check_images(self, inputs: jax.ShapeDtypeStruct) -> None:
    """Raises UsageError for augmentations that do not go with a minibatch of inputs [batch, ...]."""
    if self.augmentation is not None:
      augmentation.check(self.augment or (), self._sizes, inputs)

  def check_layers(self, layers: Sequence[Layer]) -> None:
    """Raises UsageError for another number of rates than of layers."""
    if self.layer_rates is not None:
      scale_of_each(self.layer_rates, layers, layer_rates.NAME)

  def check(self, num_examples: int) -> None:
    """Raises UsageError for an impossible setting."""
    has_own_rate = is_complete(self.optimizer)
    default = type(self).__dataclass_fields__["learning_rate"].default
    if has_own_rate and self.learning_rate not in (None, default):
      raise UsageError("an optax transformation has a learning rate of its own; leave learning_rate out")
    settings.check(self.replace(learning_rate=default) if has_own_rate else self)
    self.schedule.check()
    check_hashable("optimizer", self.optimizer)
    if isinstance(self.learning_rate, RateSchedule):
      check_hashable("learning_rate", self.learning_rate.function)
    if has_own_rate and not self.schedule.is_flat:
      raise UsageError(
        "an optax transformation has a learning rate of its own; leave schedule and warmup out"
      )
    check_optimizer(self.optimizer, self.over(1000)._rate(), self._extras())
    if self.batch_size > num_examples:
      raise UsageError(
        f"batch_size must be from 1 to the {num_examples} training examples, not {self.batch_size}"
      )
    if self.batch_size % self.accumulate:
      raise UsageError(
        f"accumulate must divide batch_size, for its parts are equal, but {self.batch_size} is no multiple "
        f"of {self.accumulate}"
      )

  def record(self) -> dict[str, object]:
    """All that a training's result depends on; functions by their names and by what they give."""
    record = settings.record(self) | {"optimizer": describe_optimizer(self.optimizer)}
    if isinstance(self.learning_rate, RateSchedule):
      rates = [float(self.learning_rate.function(step)) for step in (0, 1, 10, 100, 1000, 10000)]
      record["learning_rate"] = [describe(self.learning_rate.function), *rates]
    return record


def _dead_weights(optimizer: Optimizer, extras: Extras) -> DeadWeights:
  if not is_optaxs(optimizer):  # it may do anything, to a layer by its name, at any time
    return DeadWeights(move=True, matter=True)
  return dead_weights(make_optimizer(optimizer, 0.1, extras))


def numbers(training: Training) -> dict[str, object]:
  """Those of its settings that are traced, by field; what is not set is left out."""
  traced = [field.name for field in dataclasses.fields(training) if field.metadata.get("pytree_node", True)]
  found = {name: getattr(training, name) for name in traced}
  return {name: value for name, value in found.items() if jax.tree.leaves(value)}
