"""What the files of a run say of where they come from: versions, device, revision, settings."""

import functools
import pathlib
import platform
import subprocess
from collections.abc import Mapping
from typing import cast

import jax
import numpy as np

from nets_jax import searches, settings
from nets_jax.data.dataset import Dataset
from nets_jax.data.files import is_file_name
from nets_jax.data.sources import DataSettings
from nets_jax.engine.startup import installed_version
from nets_jax.networks.zoo import NETWORKS, NetworkSettings, settings_of
from nets_jax.studies.run_settings import RunSettings
from nets_jax.tickets.provenance import SCALES, Provenance, are_scales
from nets_jax.training.task import BARE_TASK

FORMAT_VERSION = 3  # of config.json; 2 had comparisons in stages, before there was none
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "nets_jax")


@functools.cache
def environment() -> dict[str, object]:
  """Versions, device and git revision, which with the settings make a run repeatable."""
  devices = jax.devices()
  return {
    "format_version": FORMAT_VERSION,
    "versions": {"python": platform.python_version()}
    | {package: installed_version(package) for package in PACKAGES},
    "device": {"platform": devices[0].platform, "kind": devices[0].device_kind, "count": len(devices)},
    "git_revision": _git_revision(),
  }


def provenance(
  record: Mapping[str, object], data: Dataset, seed: int, trial: int | None = None
) -> Provenance:
  """What the file of a run's ticket is to say of where it comes from.

  Of the machine nothing: the same ticket has the same file wherever, and in as many pieces, it was found.

  Args:
    record: the run's settings by the names of their flags, as `config.json` has them.
    data: which the ticket is for.
    seed, trial: of the run.
  """
  of_task = {
    name: place.about.decides
    for own in (DataSettings(), NetworkSettings(), BARE_TASK)
    for name, place in searches.all_places(own)
  } | {"init_weights": True}
  known = {name: value for name, value in record.items() if value is not None}
  if (network := known.get("network")) in NETWORKS:  # what it does not take is no part of the task
    others = set(settings.names(NetworkSettings())) - {"network", *settings_of(cast(str, network))}
    known = {name: value for name, value in known.items() if name not in others}
  of_run = settings.names(RunSettings())
  made = environment()
  (mean, deviation), (target_mean, target_deviation) = (_scale(data, *names) for names in SCALES)
  return Provenance(
    input_shape=tuple(data.input_shape),
    task={name: _without_folders(name, value) for name, value in known.items() if of_task.get(name)},
    search=str(known["search"]),
    settings={name: value for name, value in known.items() if name not in {*of_task, *of_run}},
    seed=seed,
    trial=trial,
    versions=cast(dict[str, object], made["versions"]),
    git_revision=cast(str | None, made["git_revision"]),
    mean=mean,
    deviation=deviation,
    target_mean=target_mean,
    target_deviation=target_deviation,
  )


def _scale(data: Dataset, mean: str, deviation: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """By what inputs or numbers to predict are standardised; empty where that is no number of each channel."""
  try:
    found = [np.ravel(np.asarray(getattr(data, name), float)).tolist() for name in (mean, deviation)]
  except (TypeError, ValueError):
    return (), ()
  if are_scales(*found) and (any(found[0]) or any(each != 1 for each in found[1])):
    return tuple(found[0]), tuple(found[1])
  return (), ()


def _without_folders(name: str, value: object) -> object:
  """The name of a file without where it lies on this machine; anything else as it is."""
  is_path = isinstance(value, str) and (is_file_name(value) or name == "init_weights")
  return pathlib.Path(cast(str, value)).name if is_path else value


def _git_revision() -> str | None:
  """The revision the code was run at, `-dirty` if it was changed since; None outside a checkout."""
  try:
    result = subprocess.run(
      ["git", "describe", "--always", "--dirty", "--abbrev=40", "--match="],
      cwd=pathlib.Path(__file__).parent,
      capture_output=True,
      text=True,
      timeout=10,
    )
  except (OSError, subprocess.TimeoutExpired):
    return None
  return result.stdout.strip() or None
