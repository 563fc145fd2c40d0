"""The same bits however a search is run, with the optimised programs that users get."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.devices

PROGRAM = """
import sys
import jax
import numpy as np
import nets_jax
from nets_jax.evolution.generation import init, step

jax.config.update("jax_num_cpu_devices", 4)
data = nets_jax.load_data("digits")
network = nets_jax.MLP((100, 50), 10)
task = nets_jax.Task(network, data, nets_jax.Training(learning_rate=0.1, batch_size=16))
search = nets_jax.recipes.paper(population_size=5, generations=2, fitness_epochs=0.3)
keys = jax.random.split(jax.random.key(0), 3)


def bits(tree):
  return b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(jax.device_get(tree)))


def of_result(result):
  rows = [[value for name, value in row.items() if name != "seconds"] for row in result.history]
  return bits(result.ticket) + np.asarray(rows).tobytes()


def of_steps(key, search):
  layout = nets_jax.make_layout(search.population_size)
  state = init(key, task, search, layout)
  for _ in range(search.generations + 1):
    state, _ = step(state, task, search, layout)
  return bits(state.best)


def trained(tickets, keys, devices):
  layout = nets_jax.make_layout(len(keys), devices=devices)
  found = nets_jax.train_tickets(keys, tickets, task, epochs=1, layout=layout)
  return [bits(nets_jax.take(found.weights, i)) for i in range(len(keys))]


what = sys.argv[1]
if what == "devices":
  found = [of_result(nets_jax.search(keys[0], task, search, devices=n)) for n in (1, 2, 4)]
elif what == "runs":
  alone = [of_result(nets_jax.search(key, task, search)) for key in keys[:2]]
  together = nets_jax.search_all(keys[:2], task, search)
  found = [b"".join(alone), b"".join(map(of_result, together))]
elif what == "halved":  # whose program is told when it runs how much there is to do
  search = nets_jax.recipes.guided(population_size=5, generations=3, halvings=1)
  alone = [of_result(nets_jax.search(keys[0], task, search, devices=n)) for n in (1, 4)]
  found = [*alone, of_result(nets_jax.search_all(keys[:2], task, search)[0])]
elif what == "steps":
  found = [of_steps(keys[0], search), bits(nets_jax.search(keys[0], task, search).ticket)]
elif what == "training":
  tickets = [nets_jax.random_ticket(key, network, data.input_shape, 0.3) for key in keys]
  alone = [trained(nets_jax.stack([ticket]), keys[i : i + 1], 1)[0] for i, ticket in enumerate(tickets)]
  found = [b"".join(alone), *(b"".join(trained(nets_jax.stack(tickets), keys, n)) for n in (1, 2, 3))]
elif what == "imp":
  search = nets_jax.Imp(cycles=2, cycle_epochs=1)
  alone = [of_result(nets_jax.search(key, task, search)) for key in keys]
  found = [b"".join(alone), b"".join(map(of_result, nets_jax.search_all(keys, task, search)))]
assert all(len(one) > 10_000 for one in found)
print(len(found), "runs,", len(set(found)), "of them different")
"""


@pytest.mark.parametrize(
  ("what", "runs"), [("devices", 3), ("runs", 2), ("halved", 3), ("steps", 2), ("training", 4), ("imp", 2)]
)
def test_the_same_bits(what, runs):
  environment = os.environ | {"XLA_FLAGS": ""}  # conftest's tests do without optimisation
  done = subprocess.run(
    [sys.executable, "-c", PROGRAM, what], capture_output=True, text=True, env=environment
  )
  assert done.stdout == f"{runs} runs, 1 of them different\n", done.stderr
