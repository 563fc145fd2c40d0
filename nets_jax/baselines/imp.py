"""Iterative magnitude pruning (paper, 2.3; Frankle & Carbin, 2019; rewinding: Frankle et al., 2020b)."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from nets_jax import parallel
from nets_jax.data import Dataset
from nets_jax.errors import UsageError
from nets_jax.networks import Params
from nets_jax.tickets import Cost, SearchResult, Ticket, density, initialise, kernels, take, top_masks
from nets_jax.training import Optimizer, steps_per_epoch


@struct.dataclass
class ImpConfig:
  """The settings of IMP; the defaults are the paper's, with Frankle & Carbin's output layer.

  Attributes:
    cycles: c, how many times to train and prune; 7 leave 21.1 % of LeNet-300-100.
    prune_fraction: p, share of the remaining weights that a cycle prunes.
    output_prune_fraction: that of the output layer in `layer` scope; None is `prune_fraction`.
    prune_scope: `layer`, the smallest of each layer, or `global`, the smallest of all.
    rewind_steps: k, the iteration whose weights the survivors are rewound to; 0 is the initialisation.
    train_epochs: epochs of training in a cycle.
    init_scale: standard deviation of the initial weights.
    optimizer, learning_rate, batch_size: see `training`.
  """

  cycles: int = 7
  prune_fraction: float = 0.2
  output_prune_fraction: float | None = 0.1
  prune_scope: str = "layer"
  rewind_steps: int = 0
  train_epochs: int = 50
  init_scale: float = 0.1
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
) -> list[SearchResult]:
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

  Returns:
    For each run the ticket (theta_k, M) and its history: a dict for each cycle and epoch with keys
    `cycle`, `iteration` (from the run's start), `valid_loss`, `valid_accuracy`, `density` and `seconds`,
    which is the time of all runs together, without compilation, over their number.

  Raises:
    UsageError: an impossible setting.
  """
  config = config or ImpConfig()
  validate(config, len(data.train))
  runs, per_epoch = len(keys), steps_per_epoch(len(data.train), config.batch_size)
  steps = config.train_epochs * per_epoch
  layout = parallel.make_layout(runs, devices=devices, chunk=chunk)
  data = parallel.replicate(data.replace(test=None), layout)
  weight_keys, training_keys = jax.vmap(lambda k: tuple(jax.random.split(k)))(keys)
  draw = lambda k: initialise(k, network, data.input_shape, init_scale=config.init_scale)  # noqa: E731
  tickets = jax.jit(jax.vmap(draw))(weight_keys)
  record = _Record(runs, on_rows)

  def train(cycle: int, tickets: Ticket, steps: int) -> Params:
    record.begin(cycle, steps, float(density(take(tickets, 0))))
    trained = parallel.train_tickets(
      jax.vmap(lambda k: jax.random.fold_in(k, cycle))(training_keys),
      network,
      tickets,
      data,
      steps=steps,
      splits=("valid",),
      optimizer=config.optimizer,
      learning_rate=config.learning_rate,
      batch_size=config.batch_size,
      layout=layout,
      on_rows=record.add,
    )
    record.compile_seconds += trained.compile_seconds
    return trained.weights

  if config.rewind_steps:
    tickets = tickets.replace(weights=train(0, tickets, config.rewind_steps))
  counts = kept_counts([leaf[0] for leaf in jax.tree.leaves(tickets.masks)], config)
  for cycle in range(config.cycles):
    on_cycle(cycle, tickets)
    trained = train(cycle, tickets, steps)
    tickets = tickets.replace(masks=prune(trained, tickets.masks, counts[cycle], config.prune_scope))
  on_cycle(config.cycles, tickets)
  tickets = jax.device_get(tickets)
  cost = Cost(record.steps / per_epoch, record.seconds, record.compile_seconds / runs)
  return [SearchResult(take(tickets, i), record.histories[i], cost) for i in range(runs)]


class _Record:
  """The histories of runs side by side, and where their cycles begin on the scales of time and steps."""

  def __init__(self, runs: int, on_rows: Callable[[list[dict[str, Any]]], None]):
    self.histories = [[] for _ in range(runs)]
    self.steps, self.seconds, self.compile_seconds = 0, 0.0, 0.0
    self._on_rows = on_rows

  def begin(self, cycle: int, steps: int, density: float) -> None:
    """A training of so many steps starts."""
    self._cycle, self._density = cycle, density
    self._first_step, self._first_second = self.steps, self.seconds
    self.steps += steps

  def add(self, rows: list[dict[str, Any]]) -> None:
    """An evaluation of every run, as `parallel.train_tickets` reports it."""
    self.seconds = self._first_second + rows[0]["seconds"] / len(rows)
    found = [
      {
        "cycle": self._cycle,
        "iteration": self._first_step + row["iteration"],
        "valid_loss": row["valid_loss"],
        "valid_accuracy": row["valid_accuracy"],
        "density": self._density,
        "seconds": self.seconds,
      }
      for row in rows
    ]
    for history, row in zip(self.histories, found, strict=True):
      history.append(row)
    self._on_rows(found)


def kept_counts(layers: Sequence[jax.Array], config: ImpConfig) -> list[list[int]]:
  """How many weights of each layer are left after each cycle: a cycle prunes round(p x remaining).

  Args:
    layers: a leaf of each layer's shape, the output layer last, as in the tree's order.
    config: the settings.

  Returns:
    For each cycle a count for each layer; in `global` scope one count for all.
  """
  output = config.prune_fraction if config.output_prune_fraction is None else config.output_prune_fraction
  remaining, fractions = [leaf.size for leaf in layers], [config.prune_fraction] * len(layers)
  fractions[-1] = output
  if config.prune_scope == "global":
    remaining, fractions = [sum(remaining)], [config.prune_fraction]
  counts = []
  for _ in range(config.cycles):
    remaining = [left - round(p * left) for left, p in zip(remaining, fractions, strict=True)]
    counts.append(remaining)
  return counts


def prune(weights: Params, masks: Params, counts: Sequence[int], scope: str) -> Params:
  """Keeps the `counts` largest unmasked weights of each layer (or of all), in each run.

  Args:
    weights: after training [runs, ...].
    masks: before pruning [runs, ...]; the new ones are subsets.
    counts: per layer, or one for all in `global` scope.
    scope: `layer` or `global`.
  """

  @jax.jit
  def one(weights, masks, counts):
    scores = jax.tree.map(lambda mask, weight: jnp.where(mask, jnp.abs(weight), -1.0), masks, weights)
    if scope == "global":
      return top_masks(scores, counts[0])
    leaves, treedef = jax.tree.flatten(scores)
    return jax.tree.unflatten(
      treedef, [top_masks(leaf, count) for leaf, count in zip(leaves, counts, strict=True)]
    )

  return jax.vmap(one, in_axes=(0, 0, None))(kernels(weights, masks), masks, list(counts))


def validate(config: ImpConfig, num_examples: int) -> None:
  """Raises UsageError for settings that make no search."""
  if not 1 <= config.batch_size <= num_examples:
    raise UsageError(
      f"batch_size must be from 1 to the {num_examples} training examples, not {config.batch_size}"
    )
  if config.cycles < 1:
    raise UsageError(f"cycles must be at least 1, not {config.cycles}")
  for name in ("prune_fraction", "output_prune_fraction"):
    value = getattr(config, name)
    if value is not None and not 0 <= value < 1:
      raise UsageError(f"{name} must be in [0, 1), not {value}")
  if config.prune_scope not in ("layer", "global"):
    raise UsageError(f"prune_scope must be layer or global, not {config.prune_scope!r}")
  if config.rewind_steps < 0:
    raise UsageError(f"rewind_steps must not be negative, but is {config.rewind_steps}")
  if config.train_epochs < 1:
    raise UsageError(f"train_epochs of IMP's cycles must be at least 1, not {config.train_epochs}")
