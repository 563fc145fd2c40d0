"""A training step of convolutional networks: two genomes side by side, and eager PyTorch on one of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import nets_jax
from experiments.benchmarking import torch_networks
from experiments.benchmarking.cases import Case
from experiments.benchmarking.limits import seconds
from nets_jax.engine.batching import map_tickets
from nets_jax.engine.layouts import Layout, compile_program, make_layout, replicate
from nets_jax.engine.messages import say
from nets_jax.networks.adapter import Params, forward_in_training, initial_state
from nets_jax.networks.initialisation import He
from nets_jax.networks.zoo import make_network
from nets_jax.training.train import advance, start

GENOMES, RATE, CLASSES = 2, 0.01, 10
# By network: the shape of an image; the steps at a time; the minibatch, Frankle & Carbin's and He et al.'s.
SETTINGS = {
  "lenet5": ((28, 28, 1), 60, 60),
  "conv2": ((32, 32, 3), 4, 60),
  "resnet8": ((32, 32, 3), 4, 128),
  "resnet20": ((32, 32, 3), 2, 128),
}
# Rounding alone puts a loss of ours and the peer's so many nats apart after so few steps; after many more.
MOST_APART, CHECKED = 1e-4, 2


def network_cases(name: str, devices: int | None) -> list[Case]:
  """Seconds of a genome's step: ours, then the peer's, whose loss after the same steps is held against ours.

  The images are noise, for a step's cost does not depend on them. Ours is two genomes at once, a core each,
  and so half of what a step of both takes; PyTorch has all cores for one network.

  Raises:
    RuntimeError: the peer's loss is not ours.
  """
  shape, steps, batch = SETTINGS[name]
  network, rng = make_network(name, CLASSES), np.random.default_rng(0)
  images = rng.normal(size=(2 * steps * batch, *shape)).astype(np.float32)
  data = nets_jax.from_arrays(images, rng.integers(0, CLASSES, len(images)))
  task = nets_jax.Task(network, data, nets_jax.Training("sgd", RATE, batch), initialiser=He())
  order = np.arange(steps * batch).reshape(steps, batch)
  layout = make_layout(GENOMES, devices=devices)
  tickets = nets_jax.stack(
    [nets_jax.random_ticket(jax.random.key(i), network, shape, 1.0, initialiser=He()) for i in range(GENOMES)]
  )
  train, seconds_to_compile = compile_program(_train, replicate((task, order), layout), tickets, layout)
  shared = replicate((task, order), layout)
  per_step = GENOMES * steps

  def ours() -> float:
    return seconds(lambda: jax.block_until_ready(train(shared, tickets))) / per_step

  about = {"batch": batch, "compile_seconds": seconds_to_compile}
  cases = [Case("networks", f"{name}, {GENOMES} genomes side by side", ours, about=about)]
  split = jax.device_get(data.train)
  inputs, labels = np.asarray(split.standardised(split.inputs[order])), split.labels[order]
  try:
    peer = torch_networks.Peer(name, nets_jax.take(tickets, 0).weights, inputs, labels, RATE)
  except ImportError as error:
    say(f"networks: PyTorch skipped: {error.name} is not installed; pip install -e '.[bench]'")
    return cases
  after = nets_jax.take(_train(replicate((task, order[:CHECKED]), layout), tickets, layout), 0)
  outputs, _ = forward_in_training(
    network, after, initial_state(network, shape), inputs[0], jax.random.key(0)
  )
  peer.train(CHECKED)
  apart = abs(peer.loss() - float(jnp.mean(task.training_losses(outputs, labels[0]))))
  say(f"networks: {name}: PyTorch's loss after {CHECKED} steps differs from ours by {apart:.1e}")
  if not apart < MOST_APART:
    raise RuntimeError(f"PyTorch does other work than ours: their losses are {apart} apart")

  def theirs() -> float:
    peer.begin()
    return seconds(peer.train) / steps

  about = {"batch": batch, "loss_difference": apart}
  return [*cases, Case("networks", f"{name}, eager PyTorch on one network", theirs, about=about)]


@functools.partial(jax.jit, static_argnames="layout")
def _train(shared: tuple[nets_jax.Task, jax.Array], tickets: nets_jax.Ticket, layout: Layout) -> Params:
  """The weights of every ticket after the steps."""

  def train(ticket, shared):
    task, order = shared
    return advance(jax.random.key(0), start(ticket, task), ticket.masks, task, order).weights

  return map_tickets(train, layout, tickets, shared)
