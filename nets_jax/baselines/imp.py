"""Iterative magnitude pruning (paper, 2.3; Frankle & Carbin, 2019; rewinding: Frankle et al., 2020b)."""

import functools
import math
from collections.abc import Hashable, Sequence
from typing import Self

import jax
from jaxtyping import Array, Key

from nets_jax import structs
from nets_jax.baselines.imp_counts import SCOPES, kept_counts, prune
from nets_jax.baselines.imp_runs import Runs
from nets_jax.engine.layouts import replicate
from nets_jax.engine.saved import fingerprint
from nets_jax.kinds import NUMBER, WHOLE, Rule, at_least, choice, one_of
from nets_jax.networks.layers import Layer
from nets_jax.networks.precision import PRECISIONS
from nets_jax.protocol import How, Outcome, Search
from nets_jax.settings import check_value, record, setting
from nets_jax.tickets.patterns import check_counts, check_pattern, has_pattern
from nets_jax.tickets.ticket import initialise, layers_of, take
from nets_jax.training.task import Task

BELOW_1 = Rule("in [0, 1)", lambda share: 0 <= share < 1)
GROUP = "other searches"


@structs.dataclass
class Imp(Search):
  """Iterative magnitude pruning; what nobody sets is the paper's, with Frankle & Carbin's output layer.

  A layer with a density of its own is pruned to exactly that in the first cycle. So the ticket after a cycle
  does not depend on how many are to come. The shares below are of all other layers.

  Attributes:
    cycles: c, how many times to train and prune; 7 leave 21.1 % of LeNet-300-100.
    prune_fraction: p, share of the remaining weights that a cycle prunes.
    output_prune_fraction: that of the output layer in `layer` scope, the one that the network applies last;
      None is `prune_fraction`.
    prune_scope: `layer`, the smallest of each layer; `global`, the smallest of all; or `lamp`, the smallest
      of all by LAMP scores (Lee et al., 2021).
    rewind_steps: k, the iteration whose weights the survivors are rewound to; 0 is the initialisation.
    rewind_epochs: k in epochs, in place of `rewind_steps`.
    cycle_epochs: epochs of training in a cycle.
    precision: of the matrix products in the cycles' trainings.
  """

  cycles: int = setting(7, "imp: times to train and prune.", group=GROUP, kind=WHOLE, rule=at_least(1))
  prune_fraction: float = setting(
    0.2, "imp: share of the remaining weights that a cycle prunes.", group=GROUP, kind=NUMBER, rule=BELOW_1
  )
  output_prune_fraction: float | None = setting(
    0.1, "imp: that of the output layer, in layer scope.", group=GROUP, kind=NUMBER, rule=BELOW_1
  )
  prune_scope: str = setting(
    "layer", "imp: smallest of each layer, of all, or of all by LAMP scores.", group=GROUP,
    kind=choice(tuple(SCOPES)), rule=one_of(tuple(SCOPES)), static=True,
  )  # fmt: skip
  rewind_steps: int = setting(0, "imp: iteration k to rewind to.", group=GROUP, kind=WHOLE, rule=at_least(0))
  rewind_epochs: float | None = setting(
    None, "imp: k in epochs, in place of rewind_steps.", group=GROUP, kind=NUMBER, rule=at_least(0)
  )
  cycle_epochs: int = setting(
    50, "imp: epochs of training in a cycle.", group=GROUP, kind=WHOLE, rule=at_least(1)
  )
  precision: str = setting(
    "float32", "Of the matrix products in a search's training.", group="machine",
    kind=choice(tuple(PRECISIONS)), rule=one_of(tuple(PRECISIONS)), static=True,
  )  # fmt: skip

  passes_densities = True

  def rewinding(self, task: Task) -> int:
    """K in iterations."""
    if self.rewind_epochs is None:
      return self.rewind_steps
    return round(self.rewind_epochs * task.steps_per_epoch)

  def kept_counts(self, layers: Sequence[Layer]) -> list[dict[str, int]]:
    """How many weights of each layer are left after each cycle; see `imp_counts.kept_counts`."""
    return kept_counts(layers, self.cycles, self.prune_fraction, self.output_prune_fraction, self.prune_scope)

  def check(self, task: Task) -> None:
    """Raises UsageError for settings that make no search."""
    super().check(task)
    if has_pattern(task.layers):
      left = self.kept_counts(task.layers)[-1]
      share = sum(left.values()) / sum(layer.size for layer in task.layers)
      check_pattern(task.layers, share, "cycles, prune_fraction, output_prune_fraction that leave ")
      check_counts(task.layers, left)
    task.training_of_search(self.cycle_epochs * task.steps_per_epoch, self.rewinding(task))

  def reports(self, task: Task, runs: int = 1) -> int:
    """A report for each epoch."""
    del runs
    return self.cycles * self.cycle_epochs + -(-self.rewinding(task) // task.steps_per_epoch)

  def program(self) -> Hashable:
    """The same for any number of cycles, of which the longest search has all tickets on its way."""
    return type(self), self.replace(cycles=1)

  def genome_epochs(self, task: Task) -> float:
    """Of all cycles, and of the way to the iteration that is rewound to."""
    return self.cycles * self.cycle_epochs + self.rewinding(task) / task.steps_per_epoch

  def at_density(self, density: float, task: Task) -> Self:
    """With as many cycles as leave nearest to a density, by ratio."""
    check_value("prune_fraction", Rule("in (0, 1) here", lambda p: 0 < p < 1), self.prune_fraction)
    most = 2 + math.ceil(math.log(density) / math.log(1 - self.prune_fraction) * 1.5)
    layers = task.layers
    total = sum(layer.size for layer in layers)
    kept = [sum(counts.values()) for counts in self.replace(cycles=most).kept_counts(layers)]
    distances = [abs(math.log(count / total / density)) if count else math.inf for count in kept]
    return self.replace(cycles=1 + distances.index(min(distances)))

  def find(self, keys: Key[Array, " runs"], task: Task, how: How) -> list[Outcome]:
    """See `Search.find`.

    Every cycle trains all T iterations from M (.) theta_k on shuffles of its own, then prunes. A schedule of
    the learning rate begins anew in each, at its iteration k. The cycles' trained weights decide the masks
    and are thrown away. A checkpoint may lie within a cycle.

    Returns:
      For each run the ticket (theta_k, M) and its history: a dict for each cycle and epoch with keys
      `cycle`, `iteration` (from the run's start), `valid_loss`, `valid_accuracy` (or another score),
      `density` and `seconds`, which is the time of all runs together, without compilation, over their number.
      A run fails whose training diverged, or that pruned every weight.
    """
    steps, rewind_steps = self.cycle_epochs * task.steps_per_epoch, self.rewinding(task)
    task = task.replace(training=task.training_of_search(steps, rewind_steps))
    saved = how.checkpoints.restore(functools.partial(_identity, keys, task, self))
    layout = how.layout_of(len(keys))
    data = replicate(task.data.replace(test=None), layout)
    task = task.replace(data=data, precision=self.precision, eval_every=None)
    weight_keys, training_keys = jax.vmap(lambda k: tuple(jax.random.split(k)))(keys)

    def draw(key):
      own = task.initialiser
      return initialise(key, task.network, data.input_shape, initialiser=own, layers=task.layers)

    tickets = jax.jit(jax.vmap(draw))(weight_keys)
    runs, begun = Runs(training_keys, task, self, layout, how), 0
    if saved is not None:
      tickets, begun = saved.tree("tickets", tickets), saved.record["cycle"]
      runs.go_on_from(saved)
    if rewind_steps and (saved is None or saved.record["rewinding"]):
      tickets = runs.rewind(tickets, rewind_steps)
    counts = self.kept_counts(layers_of(take(tickets, 0)))
    passed = begun
    for cycle in range(begun, self.cycles):
      if all(runs.failures) or (cycle and how.is_over(runs.seconds * len(keys))):
        break
      how.on_tickets(cycle, tickets)
      trained = runs.train(cycle, tickets, steps)
      masks = prune(trained, tickets.masks, counts[cycle], self.prune_scope, tickets.layers)
      tickets, passed = tickets.replace(masks=runs.where_sound(masks, tickets.masks)), cycle + 1
    how.on_tickets(passed, tickets)
    return runs.outcomes(jax.device_get(tickets))


SEARCHES = {"imp": Imp}


def _identity(keys: jax.Array, task: Task, search: Imp) -> dict[str, object]:
  """All that the tickets depend on."""
  parts = {"training": task.training.record(), "initialiser": record(task.initialiser)}
  return {
    "search": "imp",
    "keys": fingerprint(keys),
    **task.record(),
    "data": fingerprint((task.data.train, task.data.valid)),
    "settings": record(search) | parts,
  }
