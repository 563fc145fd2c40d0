r"""Every ready-made network once on real data: is it searched and trained, at what cost?

  python -m experiments.benchmarking.zoo --cifar10=cifar10.npz --workdir=experiments/results/zoo

Networks of digits see MNIST, all others CIFAR-10, a file of the arrays `inputs`, `labels`, `test_inputs`,
`test_labels`. Of each set the first --examples images are used, and as many to test. Each network is searched
by guided NeTS with two genomes and two generations, to a fifth of its weights. The ticket, and a random one
beside it, are trained for an epoch. Each network has a process of its own, and so its own peak of memory.

Files: zoo.csv and zoo.md in --workdir, written anew after each network. What is there is not run again.
"""

import os
import pathlib
import subprocess
import sys
import time

import jax
import numpy as np
import pandas as pd
from absl import app, flags

import nets_jax
from experiments.benchmarking import memory
from nets_jax.data.files import NEEDED, OTHERS, npz_arrays
from nets_jax.data.tfds import tfds_arrays
from nets_jax.engine.files import replace_file
from nets_jax.engine.layouts import use_cpu_cores
from nets_jax.engine.messages import say
from nets_jax.networks.initialisation import He
from nets_jax.networks.zoo import NETWORKS, NetworkSettings
from nets_jax.tickets.ticket import empty_layers, maskable_count, unmasked_count

CIFAR10 = flags.DEFINE_string("cifar10", None, "A file of CIFAR-10's arrays.", required=True)
WORKDIR = flags.DEFINE_string("workdir", "zoo", "Where the table goes.")
EXAMPLES = flags.DEFINE_integer("examples", 500, "Images to train and validate on.")
ONLY = flags.DEFINE_list("networks", list(NETWORKS), "Which networks.")
ALONE = flags.DEFINE_bool("alone", False, "Run the one network that is named here, not in its own process.")
OF_DIGITS = ("mlp", "lenet_300_100", "lenet5")


def images(network: str, count: int) -> nets_jax.Dataset:
  """The first examples of the set that a network sees."""
  if network in OF_DIGITS:
    arrays = tfds_arrays("mnist", None, os.environ.get("NETS_JAX_MNIST_DIR"))
  else:
    arrays = npz_arrays(CIFAR10.value)
  inputs, labels, test_inputs, test_labels = (np.asarray(arrays[name][:count]) for name in (*NEEDED, *OTHERS))
  return nets_jax.from_arrays(inputs, labels, test_inputs, test_labels)


def measure(network: str) -> dict[str, object]:
  """The row of one network."""
  data = images(network, EXAMPLES.value)
  module = NetworkSettings(network=network).make(data.num_classes)
  training = nets_jax.Training(learning_rate=0.05, batch_size=16)
  task = nets_jax.Task(module, data, training, initialiser=He(), epochs=1)
  search = nets_jax.recipes.guided(population_size=2, generations=2, target_density=0.2)
  begin = time.perf_counter()
  found = nets_jax.search(0, task, search)
  random = nets_jax.random_ticket(jax.random.key(1), module, data.input_shape, 0.2, initialiser=He())
  trained = nets_jax.train_tickets(0, [found.ticket, random], task)
  losses = [row["test_loss"] for row in trained.curves]
  return {
    "network": network,
    "data": "mnist" if network in OF_DIGITS else "cifar10",
    "images": EXAMPLES.value,
    "weights": maskable_count(found.ticket),
    "kept": int(unmasked_count(found.ticket)),
    "empty_layers": len(empty_layers(found.ticket)),
    "search_seconds": round(found.cost.seconds, 1),
    "training_seconds": round(trained.curves[-1]["seconds"], 1),
    "compile_seconds": round(found.cost.compile_seconds + trained.compile_seconds, 1),
    "all_seconds": round(time.perf_counter() - begin, 1),
    "peak_mb": round(memory.peak() / 1e6),
    "test_loss": round(losses[0], 3),
    "random_test_loss": round(losses[1], 3),
  }


def add(row: dict[str, object], directory: pathlib.Path) -> None:
  """Writes the table anew with one row more."""
  before = pd.read_csv(directory / "zoo.csv") if (directory / "zoo.csv").exists() else pd.DataFrame()
  table = pd.concat([before, pd.DataFrame([row])])
  lines = [list(table.columns), ["---"] * len(table.columns), *table.astype(str).to_numpy().tolist()]
  with replace_file(directory / "zoo.csv") as temporary:
    table.to_csv(temporary, index=False)
  with replace_file(directory / "zoo.md") as temporary:
    temporary.write_text("".join(f"| {' | '.join(line)} |\n" for line in lines))


def main(argv: list[str]) -> None:
  """Runs each network that the table has not."""
  directory = pathlib.Path(WORKDIR.value)
  directory.mkdir(parents=True, exist_ok=True)
  if ALONE.value:
    use_cpu_cores()
    add(measure(ONLY.value[0]), directory)
    return
  there = pd.read_csv(directory / "zoo.csv")["network"].tolist() if (directory / "zoo.csv").exists() else []
  for network in [name for name in ONLY.value if name not in there]:
    words = [*sys.argv[1:], f"--networks={network}", "--alone"]
    if subprocess.run([sys.executable, "-m", "experiments.benchmarking.zoo", *words]).returncode:
      say(f"{network} failed, and has no row")


if __name__ == "__main__":
  app.run(main)
