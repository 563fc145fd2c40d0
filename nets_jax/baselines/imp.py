"""Iterative magnitude pruning (paper, 2.3; Frankle & Carbin, 2019; rewinding: Frankle et al., 2020b)."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from nets_jax import parallel, trainer
from nets_jax.checkpoints import Checkpoints, Saved, Unsaved, describe, describe_fields, fingerprint
from nets_jax.data import Dataset
from nets_jax.errors import Diverged, SearchFailed, check, check_fits_data, check_scale, raise_first
from nets_jax.layers import Layer, layer_name
from nets_jax.networks import Params, Scale, check_outputs
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
from nets_jax.training import Optimizer, steps_per_epoch

EVERY_LAYER = "every layer"  # whose weights are ranked together


@struct.dataclass
class ImpConfig:
  """The settings of IMP; the defaults are the paper's, with Frankle & Carbin's output layer.

  Attributes:
    cycles: c, how many times to train and prune; 7 leave 21.1 % of LeNet-300-100.
    prune_fraction: p, share of the remaining weights that a cycle prunes.
    output_prune_fraction: that of the output layer in `layer` scope, the one that the network applies last;
      None is `prune_fraction`.
    prune_scope: `layer`, the smallest of each layer, or `global`, the smallest of all.
    rewind_steps: k, the iteration whose weights the survivors are rewound to; 0 is the initialisation.
    train_epochs: epochs of training in a cycle.
    init_scale: standard deviation of the initial weights; one number, or one for each layer.
    optimizer, learning_rate, batch_size: see `training`.
  """

  cycles: int = 7
  prune_fraction: float = 0.2
  output_prune_fraction: float | None = 0.1
  prune_scope: str = "layer"
  rewind_steps: int = 0
  train_epochs: int = 50
  init_scale: Scale = 0.1
  optimizer: Optimizer = struct.field(pytree_node=False, default="sgd")
  learning_rate: float = 1e-3
  batch_size: int = 72


def search(key: jax.Array, network: nn.Module, data: Dataset, config: ImpConfig | None = None, **kwargs):
  """One run of IMP: `search_all` for one key. Returns its `SearchResult`."""
  return search_all(key[None], network, data, config, **kwargs)[0]


def search_all(
  keys: jax.Array,
  network: nn.Module,
  data: Dataset,
  config: ImpConfig | None = None,
  *,
  devices: int | None = None,
  chunk: int | None = None,
  on_rows: Callable[[list[dict[str, Any]]], None] = lambda rows: None,
  on_cycle: Callable[[int, Ticket], None] = lambda cycle, tickets: None,
  keep_failures: bool = False,
  checkpoints: Checkpoints | None = None,
) -> list[SearchResult | SearchFailed]:
  """Runs IMP once for each key, side by side; each run is as it would be alone.

  Every cycle trains all T iterations from M (.) theta_k on shuffles of its own, then prunes. The cycles'
  trained weights decide the masks and are thrown away.

  Args:
    keys: one per run [runs].
    network: the module.
    data: trained on `train`, scored on `valid`; the test part is not looked at.
    config: the settings; None is the paper's.
    devices, chunk: see `parallel.make_layout`.
    on_rows: called with the history rows of each epoch as it ends.
    on_cycle: called at the start of each training with the cycle (from 0) and the tickets about to be
      trained, and once more at the end with the tickets found.
    keep_failures: a run whose training diverges, or that prunes every weight, ends with its error in place of
      a result, and the others go on.
    checkpoints: where the runs are saved as they go, within a cycle too, and go on if they were stopped. The
      journal has the history's rows, with `run` before the other columns if there are several. None saves
      nothing.

  Returns:
    For each run the ticket (theta_k, M) and its history: a dict for each cycle and epoch with keys
    `cycle`, `iteration` (from the run's start), `valid_loss`, `valid_accuracy`, `density` and `seconds`,
    which is the time of all runs together, without compilation, over their number.

  Raises:
    UsageError: an impossible setting, a network that does not go with the data, or a checkpoint that cannot
      be written or is of another run.
    Diverged: a training diverged, unless `keep_failures`.
    SearchFailed: every weight was pruned, unless `keep_failures`.
  """
  config = config or ImpConfig()
  validate(config, len(data.train))
  check_outputs(network, data.input_shape, data.num_classes)
  checkpoints = checkpoints or Unsaved()
  saved = checkpoints.restore(
    lambda: {
      "search": "imp",
      "keys": fingerprint(keys),
      "network": describe(network),
      "data": fingerprint((data.train, data.valid)),
      "config": describe_fields(config),
    }
  )
  per_epoch = steps_per_epoch(len(data.train), config.batch_size)
  layout = parallel.make_layout(len(keys), devices=devices, chunk=chunk)
  data = parallel.replicate(data.replace(test=None), layout)
  weight_keys, training_keys = jax.vmap(lambda k: tuple(jax.random.split(k)))(keys)
  draw = lambda k: initialise(k, network, data.input_shape, init_scale=config.init_scale)  # noqa: E731
  tickets = jax.jit(jax.vmap(draw))(weight_keys)
  runs, begun = _Runs(training_keys, network, data, config, layout, on_rows, checkpoints), 0
  if saved is not None:
    tickets, begun = saved.tree("tickets", tickets), saved.record["cycle"]
    runs.go_on_from(saved)
  if config.rewind_steps and (saved is None or saved.record["rewinding"]):
    weights = runs.train(0, tickets, config.rewind_steps, rewinding=True)
    tickets = tickets.replace(weights=runs.where_sound(weights, tickets.weights))
  counts = kept_counts(layers_of(take(tickets, 0)), config)
  for cycle in range(begun, config.cycles):
    if all(runs.failures):
      break
    on_cycle(cycle, tickets)
    trained = runs.train(cycle, tickets, config.train_epochs * per_epoch)
    masks = prune(trained, tickets.masks, counts[cycle], config.prune_scope)
    tickets = tickets.replace(masks=runs.where_sound(masks, tickets.masks))
  on_cycle(config.cycles, tickets)
  outcomes = runs.outcomes(jax.device_get(tickets), per_epoch)
  if not keep_failures:
    raise_first(outcomes)
  return outcomes


class _Runs:
  """Trains the tickets of runs side by side, and keeps their histories on one scale of time and steps."""

  def __init__(self, keys, network, data, config, layout, on_rows, checkpoints):
    self.histories = [[] for _ in keys]
    self.failures: list[str | None] = [None for _ in keys]
    self.steps, self.seconds, self.compile_seconds = 0, 0.0, 0.0
    self._keys, self._on_rows, self._checkpoints, self._saved = keys, on_rows, checkpoints, None
    self._config = config
    self._train = functools.partial(
      trainer.train_tickets,
      network=network,
      data=data,
      splits=("valid",),
      optimizer=config.optimizer,
      learning_rate=config.learning_rate,
      batch_size=config.batch_size,
      layout=layout,
    )

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
    part.ends_it = cycle + 1 == self._config.cycles and not rewinding
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
          f"the training of cycle {cycle} diverged; lower learning_rate ({self._config.learning_rate}) or "
          f"init_scale ({self._config.init_scale})"
        )

  def where_sound(self, new: Params, old: Params) -> Params:
    """The new masks or weights, but of runs that have diverged the old ones."""
    sound = np.array([failure is None for failure in self.failures])
    if sound.all():
      return new
    choose = lambda a, b: jnp.where(sound.reshape(-1, *[1] * (a.ndim - 1)), a, b)  # noqa: E731
    return jax.tree.map(choose, new, old)

  def outcomes(self, tickets: Ticket, per_epoch: int) -> list[SearchResult | SearchFailed]:
    """Each run's result, or why it has none."""
    cost = Cost(self.steps / per_epoch, self.seconds, self.compile_seconds / len(self.histories))
    found = []
    for i, (history, failure) in enumerate(zip(self.histories, self.failures, strict=True)):
      result = SearchResult(take(tickets, i), history, cost)
      if failure is not None:
        result = Diverged(failure, result)
      elif not unmasked_count(result.ticket):
        result = SearchFailed(
          f"{self._config.cycles} cycles of IMP prune every weight; lower cycles or prune_fraction", result
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


def kept_counts(layers: Sequence[Layer], config: ImpConfig) -> list[dict[str, int]]:
  """How many weights of each layer are left after each cycle: a cycle prunes round(p x remaining).

  Args:
    layers: in the order of application, the output layer last.
    config: the settings.

  Returns:
    For each cycle the count of each layer, by its name; in `global` scope that of `EVERY_LAYER`.
  """
  remaining = {layer.name: layer.size for layer in layers}
  fractions = dict.fromkeys(remaining, config.prune_fraction)
  if config.output_prune_fraction is not None:
    fractions[layers[-1].name] = config.output_prune_fraction
  if config.prune_scope == "global":
    remaining, fractions = {EVERY_LAYER: sum(remaining.values())}, {EVERY_LAYER: config.prune_fraction}
  counts = []
  for _ in range(config.cycles):
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
    if scope == "global":
      return top_masks(scores, counts[EVERY_LAYER])
    return jax.tree_util.tree_map_with_path(
      lambda path, leaf: top_masks(leaf, counts[layer_name(path)]), scores
    )

  return jax.vmap(one, in_axes=(0, 0, None))(kernels(weights, masks), masks, counts)


def validate(config: ImpConfig, num_examples: int) -> None:
  """Raises UsageError for settings that make no search."""
  check(config, ["cycles"], "at least 1", lambda cycles: cycles >= 1)
  check(config, ("prune_fraction", "output_prune_fraction"), "in [0, 1)", lambda p: 0 <= p < 1)
  check(config, ["prune_scope"], "layer or global", lambda scope: scope in ("layer", "global"))
  check(config, ["rewind_steps"], "at least 0", lambda k: k >= 0)
  check(config, ["train_epochs"], "at least 1 in IMP's cycles", lambda epochs: epochs >= 1)
  check_scale(config)
  check(config, ["learning_rate"], "positive", lambda value: value > 0)
  check_fits_data(config, "batch_size", num_examples)
