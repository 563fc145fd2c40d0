"""The same bits however a search is run, with the optimised programs that users get."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import sys
import jax
import numpy as np
import nets_jax
from nets_jax import evolution
from nets_jax.baselines import imp

jax.config.update("jax_num_cpu_devices", 4)
data = nets_jax.load_data("digits")
network = nets_jax.MLP((100, 50), 10)
training = {"learning_rate": 0.1, "batch_size": 16}
config = nets_jax.NetsConfig(population_size=5, generations=2, fitness_epochs=0.3, **training)
keys = jax.random.split(jax.random.key(0), 3)


def bits(tree):
  return b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(jax.device_get(tree)))


def of_result(result):
  rows = [[value for name, value in row.items() if name != "seconds"] for row in result.history]
  return bits(result.ticket) + np.asarray(rows).tobytes()


def of_steps(key, config):
  layout = nets_jax.make_layout(config.population_size)
  state = nets_jax.init(key, network, data.input_shape, config, layout)
  for _ in range(config.generations + 1):
    state, _ = nets_jax.step(state, network, data, config, layout)
  return bits(state.best)


def trained(tickets, keys, devices):
  layout = nets_jax.make_layout(len(keys), devices=devices)
  found = nets_jax.train_tickets(keys, network, tickets, data, epochs=1, layout=layout, **training)
  return [bits(nets_jax.take(found.weights, i)) for i in range(len(keys))]


what = sys.argv[1]
if what == "devices":
  found = [of_result(nets_jax.search(keys[0], network, data, config, devices=n)) for n in (1, 2, 4)]
elif what == "runs":
  alone = [of_result(nets_jax.search(key, network, data, config)) for key in keys[:2]]
  together = evolution.search_all(keys[:2], network, data, config)
  found = [b"".join(alone), b"".join(map(of_result, together))]
elif what == "steps":
  found = [of_steps(keys[0], config), bits(nets_jax.search(keys[0], network, data, config).ticket)]
elif what == "training":
  tickets = [nets_jax.random_ticket(key, network, data.input_shape, 0.3) for key in keys]
  alone = [trained(nets_jax.stack([ticket]), keys[i : i + 1], 1)[0] for i, ticket in enumerate(tickets)]
  found = [b"".join(alone), *(b"".join(trained(nets_jax.stack(tickets), keys, n)) for n in (1, 2, 3))]
elif what == "imp":
  config = imp.ImpConfig(cycles=2, train_epochs=1, **training)
  alone = [of_result(imp.search(key, network, data, config)) for key in keys]
  found = [b"".join(alone), b"".join(map(of_result, imp.search_all(keys, network, data, config)))]
assert all(len(one) > 10_000 for one in found)
print(len(found), "runs,", len(set(found)), "of them different")
"""


@pytest.mark.parametrize(
  ("what", "runs"), [("devices", 3), ("runs", 2), ("steps", 2), ("training", 4), ("imp", 2)]
)
def test_the_same_bits(what, runs):
  environment = os.environ | {"XLA_FLAGS": ""}  # conftest's tests do without optimisation
  done = subprocess.run(
    [sys.executable, "-c", PROGRAM, what], capture_output=True, text=True, env=environment
  )
  assert done.stdout == f"{runs} runs, 1 of them different\n", done.stderr
