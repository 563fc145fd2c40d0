"""Iterative magnitude pruning (paper, 2.3; Frankle & Carbin, 2019; rewinding: Frankle et al., 2020b)."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from nets_jax import parallel, settings
from nets_jax.checkpoints import Saved, fingerprint
from nets_jax.errors import Diverged, SearchFailed
from nets_jax.layers import Layer, find_layers, layer_name
from nets_jax.networks import PRECISIONS, Params
from nets_jax.protocol import Outcome, Search
from nets_jax.settings import NUMBER, WHOLE, Rule, at_least, choice, one_of, setting
from nets_jax.tickets import (
  Cost,
  SearchResult,
  Ticket,
  density,
  initialise,
  kernels,
  layers_of,
  take,
  top_masks,
  unmasked_count,
)
from nets_jax.training import trainer
from nets_jax.training.task import Task

EVERY_LAYER = "every layer"  # whose weights are ranked together
BELOW_1 = Rule("in [0, 1)", lambda share: 0 <= share < 1)
GROUP = "other searches"


@struct.dataclass
class Imp(Search):
  """Iterative magnitude pruning; what nobody sets is the paper's, with Frankle & Carbin's output layer.

  Attributes:
    cycles: c, how many times to train and prune; 7 leave 21.1 % of LeNet-300-100.
    prune_fraction: p, share of the remaining weights that a cycle prunes.
    output_prune_fraction: that of the output layer in `layer` scope, the one that the network applies last;
      None is `prune_fraction`.
    prune_scope: `layer`, the smallest of each layer, or `global`, the smallest of all.
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
    "layer", "imp: smallest of each layer, or of all.", group=GROUP, kind=choice(("layer", "global")),
    rule=one_of(("layer", "global")), static=True,
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

  def reports(self, task: Task, runs: int = 1) -> int:
    """A report for each epoch."""
    del runs
    return self.cycles * self.cycle_epochs + -(-self.rewinding(task) // task.steps_per_epoch)

  def genome_epochs(self, task: Task) -> float:
    """Of all cycles, and of the way to the iteration that is rewound to."""
    return self.cycles * self.cycle_epochs + self.rewinding(task) / task.steps_per_epoch

  def at_density(self, density: float, task: Task) -> "Imp":
    """With as many cycles as leave nearest to a density, by ratio."""
    settings.check_value("prune_fraction", Rule("in (0, 1) here", lambda p: 0 < p < 1), self.prune_fraction)
    most = 2 + math.ceil(math.log(density) / math.log(1 - self.prune_fraction) * 1.5)
    layers = find_layers(task.network, task.data.input_shape)
    total = sum(layer.size for layer in layers)
    kept = [sum(counts.values()) for counts in kept_counts(layers, self.replace(cycles=most))]
    distances = [abs(math.log(count / total / density)) if count else math.inf for count in kept]
    return self.replace(cycles=1 + distances.index(min(distances)))

  def find(self, keys, task, how) -> list[Outcome]:
    """See `Search.find`.

    Every cycle trains all T iterations from M (.) theta_k on shuffles of its own, then prunes. The cycles'
    trained weights decide the masks and are thrown away. A checkpoint may lie within a cycle.

    Returns:
      For each run the ticket (theta_k, M) and its history: a dict for each cycle and epoch with keys
      `cycle`, `iteration` (from the run's start), `valid_loss`, `valid_accuracy`, `density` and `seconds`,
      which is the time of all runs together, without compilation, over their number. A run fails whose
      training diverged, or that pruned every weight.
    """
    saved = how.checkpoints.restore(
      lambda: {
        "search": "imp",
        "keys": fingerprint(keys),
        **task.record(),
        "data": fingerprint((task.data.train, task.data.valid)),
        "settings": settings.record(self)
        | {"training": task.training.record(), "initialiser": settings.record(task.initialiser)},
      }
    )
    layout = how.layout_of(len(keys))
    data = parallel.replicate(task.data.replace(test=None), layout)
    task = task.replace(data=data, precision=self.precision, eval_every=None)
    weight_keys, training_keys = jax.vmap(lambda k: tuple(jax.random.split(k)))(keys)

    def draw(key):
      return initialise(key, task.network, data.input_shape, init_scale=task.initialiser.scale)

    tickets = jax.jit(jax.vmap(draw))(weight_keys)
    runs, begun = _Runs(training_keys, task, self, layout, how), 0
    if saved is not None:
      tickets, begun = saved.tree("tickets", tickets), saved.record["cycle"]
      runs.go_on_from(saved)
    rewind_steps = self.rewinding(task)
    if rewind_steps and (saved is None or saved.record["rewinding"]):
      weights = runs.train(0, tickets, rewind_steps, rewinding=True)
      tickets = tickets.replace(weights=runs.where_sound(weights, tickets.weights))
    counts = kept_counts(layers_of(take(tickets, 0)), self)
    for cycle in range(begun, self.cycles):
      if all(runs.failures):
        break
      how.on_tickets(cycle, tickets)
      trained = runs.train(cycle, tickets, self.cycle_epochs * task.steps_per_epoch)
      masks = prune(trained, tickets.masks, counts[cycle], self.prune_scope)
      tickets = tickets.replace(masks=runs.where_sound(masks, tickets.masks))
    how.on_tickets(self.cycles, tickets)
    return runs.outcomes(jax.device_get(tickets))


SEARCHES = {"imp": Imp}


class _Runs:
  """Trains the tickets of runs side by side, and keeps their histories on one scale of time and steps."""

  def __init__(self, keys, task, search, layout, how):
    self.histories = [[] for _ in keys]
    self.failures: list[str | None] = [None for _ in keys]
    self.steps, self.seconds, self.compile_seconds = 0, 0.0, 0.0
    self._keys, self._on_rows, self._checkpoints, self._saved = keys, how.on_rows, how.checkpoints, None
    self._search, self._task = search, task
    self._train = functools.partial(trainer.train_tickets, task=task, splits=("valid",), layout=layout)

  def go_on_from(self, saved: Saved) -> None:
    """Takes up the histories, and has the next `train` go on in the midst of its steps."""
    self._saved = saved
    self.steps, self.seconds, self.compile_seconds, self.failures = (
      saved.record[name] for name in ("steps", "seconds", "compile_seconds", "failures")
    )
    for row in saved.rows:
      self.histories[row.pop("run", 0)].append(row)

  def train(self, cycle: int, tickets: Ticket, steps: int, rewinding: bool = False) -> Params:
    """The weights of every ticket after so many steps on the cycle's own shuffles."""
    first_step, first_second = self.steps, self.seconds
    share = float(density(take(tickets, 0)))

    def record(rows):
      self.seconds = first_second + rows[0]["seconds"] / len(rows)
      found = [
        {
          "cycle": cycle,
          "iteration": first_step + row["iteration"],
          "valid_loss": row["valid_loss"],
          "valid_accuracy": row["valid_accuracy"],
          "density": share,
          "seconds": self.seconds,
        }
        for row in rows
      ]
      for history, row in zip(self.histories, found, strict=True):
        history.append(row)
      self._on_rows(found)

    outer = {
      "cycle": cycle,
      "rewinding": rewinding,
      "steps": first_step,
      "seconds": first_second,
      "compile_seconds": self.compile_seconds,
      "failures": list(self.failures),
    }
    part = _Part(self._checkpoints, self._saved, self.histories, tickets, outer)
    part.ends_it = cycle + 1 == self._search.cycles and not rewinding
    self._saved = None
    keys = jax.vmap(lambda k: jax.random.fold_in(k, cycle))(self._keys)
    trained = self._train(keys, tickets=tickets, steps=steps, on_rows=record, checkpoints=part)
    self.steps += steps
    self.seconds = self.histories[0][-1]["seconds"]
    self.compile_seconds += trained.compile_seconds
    self._note_failures(cycle, trained.weights)
    return trained.weights

  def _note_failures(self, cycle: int, weights: Params) -> None:
    """Finds the runs whose training has diverged, in which magnitudes would say nothing."""
    for i, history in enumerate(self.histories):
      is_finite = all(np.isfinite(leaf[i]).all() for leaf in jax.tree.leaves(weights))
      if self.failures[i] is None and not (is_finite and math.isfinite(history[-1]["valid_loss"])):
        self.failures[i] = (
          f"the training of cycle {cycle} diverged; lower learning_rate "
          f"({settings.describe(self._task.training.learning_rate)}) or init_scale "
          f"({settings.describe(self._task.initialiser.scale)})"
        )

  def where_sound(self, new: Params, old: Params) -> Params:
    """The new masks or weights, but of runs that have diverged the old ones."""
    sound = np.array([failure is None for failure in self.failures])
    if sound.all():
      return new

    def choose(a, b):
      return jnp.where(sound.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return jax.tree.map(choose, new, old)

  def outcomes(self, tickets: Ticket) -> list[Outcome]:
    """Each run's result, or why it has none."""
    cost = Cost(
      self.steps / self._task.steps_per_epoch, self.seconds, self.compile_seconds / len(self.histories)
    )
    found = []
    for i, (history, failure) in enumerate(zip(self.histories, self.failures, strict=True)):
      result = SearchResult(take(tickets, i), history, cost)
      if failure is not None:
        result = Diverged(failure, result)
      elif not unmasked_count(result.ticket):
        result = SearchFailed(
          f"{self._search.cycles} cycles of IMP prune every weight; lower cycles or prune_fraction", result
        )
      found.append(result)
    return found


class _Part:
  """What a cycle's training saves and finds saved: its own state within that of the runs."""

  def __init__(self, checkpoints, saved, histories, tickets, outer):
    self._checkpoints, self._saved, self._histories = checkpoints, saved, histories
    self._tickets, self._outer, self.ends_it = tickets, outer, False

  def restore(self, identity: Callable[[], Any]) -> Saved | None:
    """The training's part of what the runs go on from, in the first cycle after that."""
    del identity
    return self._saved and dataclasses.replace(self._saved, record=self._saved.record["training"], rows=[])

  def note(self, rows: Sequence[Any], at: str, take: Callable[[], Any], last: bool = False) -> None:
    """Notes the newest rows of the histories in place of the training's."""
    several = len(self._histories) > 1
    rows = [({"run": i} if several else {}) | history[-1] for i, history in enumerate(self._histories)]
    at = f"cycle {self._outer['cycle']}, {at}"
    self._checkpoints.note(rows, at, functools.partial(self._to_save, take), last and self.ends_it)

  def wait(self, arrays: Any) -> None:
    """As the runs' own."""
    self._checkpoints.wait(arrays)

  def _to_save(self, take: Callable[[], Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    trees, record = take()
    return {**trees, "tickets": self._tickets}, {**self._outer, "training": record}


def kept_counts(layers: Sequence[Layer], search: Imp) -> list[dict[str, int]]:
  """How many weights of each layer are left after each cycle: a cycle prunes round(p x remaining).

  Args:
    layers: in the order of application, the output layer last.
    search: its settings.

  Returns:
    For each cycle the count of each layer, by its name; in `global` scope that of `EVERY_LAYER`.
  """
  remaining, fractions = SCOPES[search.prune_scope].start(layers, search)
  counts = []
  for _ in range(search.cycles):
    remaining = {name: left - round(fractions[name] * left) for name, left in remaining.items()}
    counts.append(remaining)
  return counts


def prune(weights: Params, masks: Params, counts: Mapping[str, int], scope: str) -> Params:
  """Keeps the `counts` largest unmasked weights of each layer (or of all), in each run.

  Args:
    weights: after training [runs, ...].
    masks: before pruning [runs, ...]; the new ones are subsets.
    counts: from `kept_counts`.
    scope: `layer` or `global`.
  """

  @jax.jit
  def one(weights, masks, counts):
    scores = jax.tree.map(lambda mask, weight: jnp.where(mask, jnp.abs(weight), -1.0), masks, weights)
    return SCOPES[scope].keep(scores, counts)

  return jax.vmap(one, in_axes=(0, 0, None))(kernels(weights, masks), masks, counts)


class Scope(NamedTuple):
  """Which weights are ranked together.

  Attributes:
    start: `(layers, search)` to how many weights each rank begins with, and the share that a cycle prunes.
    keep: `(scores, counts)` to the masks of the highest of each rank.
  """

  start: Callable[[Sequence[Layer], Imp], tuple[dict[str, int], dict[str, float]]]
  keep: Callable[[Params, Mapping[str, int]], Params]


def _start_layers(layers, search):
  fractions = {layer.name: search.prune_fraction for layer in layers}
  if search.output_prune_fraction is not None:
    fractions[layers[-1].name] = search.output_prune_fraction
  return {layer.name: layer.size for layer in layers}, fractions


def _keep_of_layers(scores, counts):
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: top_masks(leaf, counts[layer_name(path)]), scores
  )


def _start_all(layers, search):
  return {EVERY_LAYER: sum(layer.size for layer in layers)}, {EVERY_LAYER: search.prune_fraction}


def _keep_of_all(scores, counts):
  return top_masks(scores, counts[EVERY_LAYER])


SCOPES = {"layer": Scope(_start_layers, _keep_of_layers), "global": Scope(_start_all, _keep_of_all)}
