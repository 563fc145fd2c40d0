"""The final training of tickets side by side, as the flags ask for it."""

import pathlib
from collections.abc import Sequence
from typing import Any

import jax
from absl import flags

import nets_jax
from experiments import saving
from experiments.progress import Progress


def settings(values: flags.FlagValues, count: int) -> dict[str, Any]:
  """What `nets_jax.train_tickets` is given by the flags for so many tickets."""
  return {
    "epochs": values.train_epochs,
    "eval_every": values.eval_every,
    "optimizer": values.optimizer,
    "learning_rate": values.learning_rate,
    "batch_size": values.batch_size,
    "layout": nets_jax.make_layout(count, devices=values.devices, chunk=values.chunk),
  }


def train(
  keys: jax.Array,
  tickets: Sequence[nets_jax.Ticket],
  network: nets_jax.MLP,
  data: nets_jax.Dataset,
  values: flags.FlagValues,
  label: str,
  where: pathlib.Path,
) -> list[dict[str, Any]]:
  """The curves of the tickets, an entry for each evaluation of each ticket.

  Args:
    keys: one for each ticket.
    tickets: to train.
    network: theirs.
    data: the problem.
    values: the flags.
    label: of the progress bar.
    where: directory of the training's checkpoints.
  """
  with (
    Progress(f"{label} training", values.train_epochs) as progress,
    saving.checkpoints(values, where, on_restore=progress.take_up) as checkpoints,
  ):
    return nets_jax.train_tickets(
      keys,
      network,
      nets_jax.stack(tickets),
      data,
      on_rows=progress,
      checkpoints=checkpoints,
      **settings(values, len(tickets)),
    ).curves
