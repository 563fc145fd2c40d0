"""Trains tickets side by side, each as it would be alone, with their curves."""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from nets_jax.checkpoints import Checkpoints, Unsaved, describe, fingerprint
from nets_jax.data import Dataset
from nets_jax.networks import Params, check_outputs
from nets_jax.parallel import (
  Layout,
  compile_program,
  fetch_population,
  make_layout,
  map_tickets,
  pad,
  replicate,
  share,
  unpadded,
)
from nets_jax.tickets import Ticket
from nets_jax.training import (
  Evaluation,
  Optimizer,
  TrainingState,
  advance,
  evaluate,
  make_optimizer,
  minibatch_order,
  start,
  steps_per_epoch,
)


@functools.partial(jax.jit, static_argnames=("layout", "optimizer"))
def _start_tickets(rows: tuple[Ticket, jax.Array], *, layout, optimizer) -> TrainingState:
  begin = lambda row, _: start(row[0], make_optimizer(optimizer, row[1]))  # noqa: E731
  return map_tickets(begin, layout, rows, None)


@functools.partial(
  jax.jit, static_argnames=("network", "layout", "optimizer", "batch_size", "steps", "whole_epochs")
)
def _train_some_steps(
  rows, shared, *, network, layout, optimizer, batch_size, steps, whole_epochs
) -> tuple[TrainingState, dict[str, Evaluation]]:
  """Some steps of every ticket, each on the minibatches of its own key, then its score on each split."""

  def one(row, shared):
    key, state, masks, learning_rate = row
    first, train_split, scored = shared
    order_key, dropout_key = jax.random.split(key)
    order = minibatch_order(
      order_key, len(train_split), batch_size, steps, first=first, whole_epochs=whole_epochs
    )
    transformation = make_optimizer(optimizer, learning_rate)
    state = advance(dropout_key, network, state, masks, train_split, order, transformation, first)
    return state, {name: evaluate(network, state.weights, split) for name, split in scored.items()}

  state, evaluations = map_tickets(one, layout, rows, shared)
  return state, share(evaluations, layout)


@dataclasses.dataclass(frozen=True)
class Trained:
  """What came of training tickets side by side.

  Attributes:
    weights: theta_T of each, stacked, as NumPy arrays.
    curves: a dict for each evaluation and ticket with keys `iteration`, `epoch`, `ticket`, for each
      split its `<split>_loss` and `<split>_accuracy`, and `seconds`, the wall-clock time since the start
      without compilation.
    compile_seconds: wall-clock time of tracing and compiling.
  """

  weights: Params
  curves: list[dict[str, Any]]
  compile_seconds: float

  def by_method(self, names: Sequence[str]) -> list[dict[str, Any]]:
    """The curves with `method`, the name of each ticket, and `trial`, which of that name it is.

    Those are the rows that `plots.training_figure` draws.

    Args:
      names: of the tickets, in their order; tickets of one name are trials of it.
    """
    trials = [list(names[:i]).count(name) for i, name in enumerate(names)]
    return [{"method": names[row["ticket"]], "trial": trials[row["ticket"]], **row} for row in self.curves]


def train_tickets(
  keys: jax.Array,
  network: nn.Module,
  tickets: Ticket,
  data: Dataset,
  *,
  epochs: int | None = None,
  steps: int | None = None,
  eval_every: int | None = None,
  splits: Sequence[str] = ("valid", "test"),
  optimizer: Optimizer = "sgd",
  learning_rate: float | Sequence[float] = 1e-3,
  batch_size: int = 72,
  layout: Layout | None = None,
  on_rows: Callable[[list[dict]], None] = lambda rows: None,
  checkpoints: Checkpoints | None = None,
) -> Trained:
  """Trains tickets side by side, each as it would be alone, and scores them as they go.

  Args:
    keys: of the shuffles and dropout: one for each ticket, or a single one, by which all are trained on
      the same minibatches.
    network: the module.
    tickets: a population of them.
    data: trained on `train`.
    epochs: how long, or
    steps: how long, in iterations.
    eval_every: iterations between evaluations; None is an epoch. The last iteration is always scored.
    splits: what to score on.
    optimizer, batch_size: see `training`.
    learning_rate: of all, or of each.
    layout: of the tickets; None is `make_layout(number of tickets)`.
    on_rows: called with the rows of each evaluation as it is made.
    checkpoints: where the training is saved as it goes, and goes on if it was stopped; None saves nothing.

  Raises:
    UsageError: the network does not go with the data, or a checkpoint cannot be written or is of another
      training.
  """
  check_outputs(network, data.input_shape, data.num_classes)
  count = jax.tree.leaves(tickets)[0].shape[0]
  layout = layout or make_layout(count)
  per_epoch = steps_per_epoch(len(data.train), batch_size)
  steps = epochs * per_epoch if steps is None else steps
  eval_every = min(eval_every or per_epoch, steps)
  keys, rates = jnp.broadcast_to(keys, (count,)), jnp.broadcast_to(jnp.float32(learning_rate), (count,))
  static = {"network": network, "layout": layout, "optimizer": optimizer, "batch_size": batch_size}
  checkpoints = checkpoints or Unsaved()
  saved = checkpoints.restore(
    lambda: {
      "network": describe(network),
      "optimizer": describe(optimizer),
      "batch_size": batch_size,
      "steps": steps,
      "eval_every": eval_every,
      "keys": fingerprint(keys),
      "learning_rate": fingerprint(rates),
      "tickets": fingerprint(tickets),
      "data": fingerprint([getattr(data, name) for name in ("train", *splits)]),
    }
  )
  keys, tickets, rates = pad((keys, tickets, rates), layout)
  train_split, scored = replicate((data.train, {name: getattr(data, name) for name in splits}), layout)
  state = _start_tickets((tickets, rates), layout=layout, optimizer=optimizer)
  begun, curves, seconds, compile_seconds, programs = 0, [], 0.0, 0.0, {}
  if saved is not None:
    state = pad(saved.tree("training", unpadded(state, layout)), layout)
    begun, seconds, compile_seconds = (saved.record[n] for n in ("iteration", "seconds", "compile_seconds"))
    curves = list(saved.rows)
  for first in range(begun, steps, eval_every):
    some = min(eval_every, steps - first)
    rows, shared = (keys, state, tickets.masks, rates), (first, train_split, scored)
    if some not in programs:
      whole = eval_every % per_epoch == 0
      programs[some], taken = compile_program(
        _train_some_steps, rows, shared, **static, steps=some, whole_epochs=whole
      )
      compile_seconds += taken
    begin = time.perf_counter()
    state, evaluations = programs[some](rows, shared)
    checkpoints.wait((state, evaluations))
    seconds += time.perf_counter() - begin
    end = first + some
    found = _curve_rows(end, end / per_epoch, count, jax.device_get(evaluations), seconds)
    curves += found
    on_rows(found)
    record = {"iteration": end, "seconds": seconds, "compile_seconds": compile_seconds}
    take = functools.partial(_to_save, state, layout, record)
    checkpoints.note(found, f"iteration {end:,} of {steps:,}", take, end == steps)
  return Trained(fetch_population(state.weights, layout), curves, compile_seconds)


def _to_save(state: TrainingState, layout: Layout, record: dict[str, Any]) -> tuple[dict, dict]:
  return {"training": fetch_population(state, layout)}, record


def _curve_rows(iteration, epoch, count, evaluations, seconds) -> list[dict[str, Any]]:
  return [
    {"iteration": iteration, "epoch": epoch, "ticket": i}
    | {f"{name}_loss": float(found.loss[i]) for name, found in evaluations.items()}
    | {f"{name}_accuracy": float(found.accuracy[i]) for name, found in evaluations.items()}
    | {"seconds": seconds}
    for i in range(count)
  ]
