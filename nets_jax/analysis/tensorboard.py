"""TensorBoard: a run's scalars, its masks as images and its settings, as event files."""

import contextlib
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

import nets_jax
from nets_jax.analysis.history_figures import axis_of, leaders
from nets_jax.analysis.style import TableRow
from nets_jax.analysis.ticket_figures import kernels

if TYPE_CHECKING:  # it need not be installed
  import tensorboardX

DIRECTORY = "tensorboard"


class Board:
  """Writes one run's event files."""

  def __init__(self, writer: "tensorboardX.SummaryWriter"):
    """Takes the writer."""
    self._writer = writer

  def search(self, rows: Sequence[TableRow]) -> None:
    """The best genome of some rows of a history, under `search/`."""
    axis = axis_of(rows)
    for row in leaders(rows):
      for name, value in row.items():
        if name in ("fitness", "density") or name.startswith("valid_"):
          self._writer.add_scalar(f"search/{name}", value, int(row[axis]))

  def training(self, rows: Sequence[TableRow]) -> None:
    """Rows of training curves, under `training/`; `ticket` names the network."""
    for row in rows:
      for name, value in row.items():
        if name.startswith(("train_", "valid_", "test_")):  # the splits
          self._writer.add_scalar(f"training/{name}/{row['ticket']}", value, int(row["iteration"]))

  def ticket(self, ticket: nets_jax.Ticket) -> None:
    """The mask of each layer: a row of the image for each input, white where expressed."""
    for name, mask in kernels(ticket, ticket.masks):
      image = np.where(mask.reshape(-1, mask.shape[-1]), 255, 0).astype(np.uint8)
      self._writer.add_image(f"masks/{name}", image, dataformats="HW")

  def settings(self, flags: Mapping[str, object], results: Mapping[str, float | list[str]]) -> None:
    """The run's settings beside what came of them, for the HPARAMS page."""
    plain = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in flags.items()}
    metrics = {f"result/{name}": float(v) for name, v in results.items() if not isinstance(v, list)}
    self._writer.add_hparams(plain, metrics, name="settings", global_step=0)


class Silent(Board):
  """A board that was not asked for."""

  def __init__(self) -> None:
    """Needs no writer."""
    super().__init__(cast("tensorboardX.SummaryWriter", _Nothing()))


class _Nothing:
  """Takes every call, and does nothing."""

  def __getattr__(self, name: str):
    return lambda *arguments, **keywords: None


@contextlib.contextmanager
def open_board(directory: pathlib.Path, wanted: bool) -> Iterator[Board]:
  """A board whose files go to `tensorboard/` in a run's directory.

  Raises:
    UsageError: the writer is not installed.
  """
  if not wanted:
    yield Silent()
    return
  check_installed()
  import tensorboardX

  with tensorboardX.SummaryWriter(str(directory / DIRECTORY)) as writer:
    yield Board(writer)


def check_installed() -> None:
  """Raises UsageError where the writer is missing."""
  try:
    import tensorboardX  # noqa: F401
  except ImportError as error:
    raise nets_jax.UsageError("--tensorboard needs its writer: pip install -e '.[tensorboard]'") from error
