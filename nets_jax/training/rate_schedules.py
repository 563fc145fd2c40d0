"""Schedules of the learning rate over a training, built of optax's.

    eta_t = eta w(t) s(t),   w(t) = min(1, (t + 1) / W),   W = round(warmup T)

with eta the learning rate, T the iterations of the schedule, and s what it names. The length T is not known
where a training is described, so a schedule is bound to one: by `train_tickets` to the length that it is
given, by a search to that of the final training, of which it sees the head. Past its end it stays as it is.
"""

from collections.abc import Callable
from typing import Self, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nets_jax import plugins, structs
from nets_jax.errors import UsageError, suggest
from nets_jax.kinds import NUMBER, SHARE, Kind, Rule, check_hashable, choice, describe, one_of
from nets_jax.settings import setting
from nets_jax.structs import Struct

# An iteration to what multiplies the learning rate there, as optax has them.
Factor = optax.Schedule
# What a user brings: of a schedule's length, its factor.
Make = Callable[[int], Factor]

SHARES = Kind(
  "shares of the training with commas between",
  lambda text: tuple(float(word) for word in text.replace("/", ",").split(",") if word.strip()),
  lambda values: ",".join(map(str, values)),
)
BELOW_1 = Rule("in [0, 1)", lambda share: 0 <= share < 1)
WITHIN = Rule("in (0, 1)", lambda share: 0 < share < 1)
WHICH = ("head", "whole")


@structs.dataclass
class Schedule(Struct):
  """Base of all.

  Attributes:
    warmup: share of the schedule in which the rate rises in equal steps (static).
    search_schedule: what the trainings within a search follow: the `head` of the final training's schedule,
      or the `whole` of it, shrunk to their own length (static).
    steps: T, the iterations it is bound to; None is not bound yet (static).
    first: the iteration of the schedule at which a training begins, as after late rewinding (static).
  """

  warmup: float = setting(
    0.0, "Share of the training in which the learning rate rises to its full, in equal steps.",
    group="training", kind=NUMBER, rule=BELOW_1, static=True, flag="warmup",
  )  # fmt: skip
  search_schedule: str = setting(
    "head",
    "What a search's trainings follow: the head of the final training's schedule, or the whole, shrunk.",
    group="training", kind=choice(WHICH), rule=one_of(WHICH), static=True, flag="search_schedule",
  )  # fmt: skip
  steps: int | None = structs.field(pytree_node=False, default=None)
  first: int = structs.field(pytree_node=False, default=0)

  ends = True  # whether a training beyond T would go on at the schedule's end

  @property
  def is_flat(self) -> bool:
    """Whether the rate stays the same all the time."""
    return not self.ends and self.warmup == 0

  def check(self) -> None:
    """Raises UsageError for a schedule that cannot be followed, or whose settings would decide nothing."""
    if self.is_flat and self.search_schedule != WHICH[0]:
      raise UsageError(
        "search_schedule decides nothing where the rate is constant; leave it out, or give schedule or warmup"
      )
    if not self.is_flat:
      self.over(1000).factor()

  def over(self, steps: int) -> Self:
    """Bound to a training of so many iterations; one that is bound, or flat, stays as it is."""
    return self if self.is_flat or self.steps is not None else self.replace(steps=steps)

  def shape(self, steps: int) -> Factor:
    """S of a schedule of so many iterations."""
    raise NotImplementedError

  def factor(self) -> Factor:
    """W(t) s(t), of an iteration counted from where the training begins.

    Raises:
      UsageError: it is not bound to a length.
    """
    if self.steps is None:
      raise UsageError("this schedule knows no length yet; give task.replace(training=training.over(steps))")
    shape, rise, first = self.shape(self.steps), round(self.warmup * self.steps), self.first
    if rise < 1:
      return lambda count: shape(count + first)
    warm = optax.linear_schedule(1 / rise, 1.0, rise - 1)
    return lambda count: jnp.multiply(warm(count + first), shape(count + first))


@structs.dataclass
class Constant(Schedule):
  """s(t) = 1."""

  ends = False

  def shape(self, steps: int) -> Factor:
    """S of a schedule of so many iterations."""
    del steps
    return optax.constant_schedule(1.0)


@structs.dataclass
class Cosine(Schedule):
  """s(t) = a + (1 - a) (1 + cos(pi min(t, T) / T)) / 2 (Loshchilov & Hutter, 2017).

  Attributes:
    end: a, the share of the rate that is left at the end (traced).
  """

  end: float = setting(
    0.0, "cosine: share of the learning rate that is left at the end.", group="training", kind=NUMBER,
    rule=SHARE, flag="rate_end",
  )  # fmt: skip

  def shape(self, steps: int) -> Factor:
    """S of a schedule of so many iterations."""
    return optax.cosine_decay_schedule(1.0, steps, self.end)


@structs.dataclass
class Steps(Schedule):
  """s(t) = f^n, with n the number of b in `at` for which t >= round(b T).

  Attributes:
    at: shares of the schedule after each of which the rate falls (static).
    fall: f, what multiplies it there (static).
  """

  at: tuple[float, ...] = setting(
    (0.5, 0.75), "steps: shares of the training after which the learning rate falls.", group="training",
    kind=SHARES, rule=WITHIN, static=True, flag="rate_steps",
  )  # fmt: skip
  fall: float = setting(
    0.1, "steps: what multiplies the learning rate there.", group="training", kind=NUMBER,
    rule=Rule("in (0, 1]", lambda fall: 0 < fall <= 1), static=True, flag="rate_fall",
  )  # fmt: skip

  def __post_init__(self):
    """Takes one share, or a list."""
    if isinstance(self.at, int | float | list | np.ndarray):
      object.__setattr__(self, "at", tuple(float(share) for share in np.atleast_1d(self.at)))

  def check(self) -> None:
    """Raises UsageError where the rate never falls."""
    if not self.at:
      raise UsageError("rate_steps must name a share of the training, as in 0.5,0.75; or leave schedule out")
    Schedule.check(self)

  def shape(self, steps: int) -> Factor:
    """S of a schedule of so many iterations."""
    falls: dict[int, float] = {}
    for share in self.at:  # two may come to one iteration
      falls[round(share * steps)] = falls.get(round(share * steps), 1.0) * self.fall
    return optax.piecewise_constant_schedule(1.0, falls)


@structs.dataclass
class Own(Schedule):
  """A schedule of one's own: a function of T that gives s, as optax's schedules are made.

  Attributes:
    made_by: `package.module:function(argument=value)`, which is given T as `steps` (static); or
    make: the function itself (static).
  """

  made_by: str | None = structs.field(pytree_node=False, default=None)
  make: Make | None = structs.field(pytree_node=False, default=None)

  def check(self) -> None:
    """Raises UsageError for a function that cannot be called or hashed, or gives no schedule."""
    check_hashable("schedule", self.make)
    Schedule.check(self)

  def shape(self, steps: int) -> Factor:
    """S of a schedule of so many iterations.

    Raises:
      UsageError: the function cannot be called, or gives no schedule.
    """
    name = self.made_by or str(describe(self.make))
    try:
      made = plugins.load(self.made_by, steps=steps) if self.made_by else cast(Make, self.make)(steps)
      given = jax.eval_shape(cast(Factor, made), jnp.int32(0))
    except UsageError:
      raise
    except Exception as error:  # whatever a stranger's code raises
      raise UsageError(
        f"schedule={name} must give a function of the iteration, but failed: {plugins.last_line(error)}"
      ) from error
    if getattr(given, "shape", None) != () or not jnp.issubdtype(given.dtype, jnp.number):
      raise UsageError(f"schedule={name} must give one number for an iteration; it multiplies learning_rate")
    return cast(Factor, made)


SCHEDULES: dict[str, Callable[[], Schedule]] = {"constant": Constant, "cosine": Cosine, "steps": Steps}


def named(name: str) -> Schedule:
  """The schedule of a name, or of a function named as `package.module:function`.

  Raises:
    UsageError: there is none.
  """
  if name in SCHEDULES:
    return SCHEDULES[name]()
  if plugins.is_reference(name):
    return Own(made_by=str(plugins.parse(name)))
  known = ", ".join(SCHEDULES)
  raise UsageError(
    f"schedule must be one of {known}, or package.module:function of your own, not {name!r}"
    f"{suggest(name, SCHEDULES)}"
  )


def as_schedule(given: Schedule | str | Make) -> Schedule:
  """A schedule itself, by its name, or by a function of one's own; anything else as it is."""
  if isinstance(given, str):
    return named(given)
  return (
    Own(make=given) if callable(given) and not isinstance(given, Schedule | type) else cast(Schedule, given)
  )
