"""The final training of tickets side by side, as the flags ask for it."""

import pathlib
from collections.abc import Sequence
from typing import Any

import jax
from absl import flags

import nets_jax
from nets_jax.cli import saving
from nets_jax.engine.progress import Progress


def layout(values: flags.FlagValues, count: int) -> nets_jax.Layout:
  """Where so many tickets are trained."""
  return nets_jax.make_layout(count, devices=values.devices, chunk=values.chunk)


def train(
  keys: jax.Array,
  tickets: Sequence[nets_jax.Ticket],
  task: nets_jax.Task | Sequence[nets_jax.Task],
  values: flags.FlagValues,
  label: str,
  where: pathlib.Path,
) -> list[dict[str, Any]]:
  """The curves of the tickets, an entry for each evaluation of each ticket.

  Args:
    keys: one for each ticket.
    tickets: to train.
    task: what for, or one for each.
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
      nets_jax.stack(tickets),
      task,
      layout=layout(values, len(tickets)),
      on_rows=progress,
      checkpoints=checkpoints,
    ).curves
