"""The same training by what a user would run instead, each peer's losses held against ours."""

import dataclasses
import functools

import numpy as np
from absl import flags

import nets_jax
from experiments.benchmarking import peers
from experiments.benchmarking.cases import Case, Prepared, generation, prepare
from experiments.benchmarking.limits import multiplies_bfloat16, seconds
from nets_jax.engine.messages import say
from nets_jax.evolution.configuration import fitness_steps
from nets_jax.evolution.generation import generation_keys
from nets_jax.evolution.places import gathered
from nets_jax.training.train import minibatch_order

MOST_APART = 0.01  # nats between our validation losses and a peer's, from rounding alone
MOST_APART_IN_BFLOAT16 = 0.1


def peer_cases(values: flags.FlagValues, data: nets_jax.Dataset) -> list[Case]:
  """Ours, then what a user would run instead; each peer's losses are held against ours.

  Raises:
    UsageError: the flags name a training that the peers do not know.
    RuntimeError: a peer's losses are not ours.
  """
  p = prepare(values, data, values.peer_population)
  work = _work(p)
  ours = dataclasses.replace(generation("peers", p), name="nets_jax, a whole generation")
  expected = np.asarray(p.step(p.state, p.task, p.search)[1].valid_loss)
  cases, chosen = [ours], dict(peers.PEERS)
  if multiplies_bfloat16():
    chosen |= peers.IN_BFLOAT16
    half = prepare(values, data, values.peer_population, precision="bfloat16")
    cases.append(dataclasses.replace(generation("peers", half), name="nets_jax, bfloat16"))
  for name, peer in chosen.items():
    try:
      run = peer(work)
      losses = run()
    except ImportError as error:
      say(f"peers: {name} skipped: {error.name} is not installed; pip install -e '.[bench]'")
      continue
    except RuntimeError as error:
      say(f"peers: {name} skipped, for it failed: {str(error).splitlines()[0]}")
      continue
    apart = float(np.max(np.abs(losses - expected)))
    say(f"peers: {name}: validation losses differ from ours by at most {apart:.1e}")
    if not apart < (MOST_APART_IN_BFLOAT16 if name in peers.IN_BFLOAT16 else MOST_APART):
      raise RuntimeError(f"{name} does other work than ours: its losses are {losses}, ours {expected}")
    about = {"population": p.layout.size, "loss_difference": apart}
    cases.append(Case("peers", name, functools.partial(seconds, run), ours.flops, ours.genome_epochs, about))
  return cases


def _work(p: Prepared) -> peers.Work:
  """The training of a generation, as the peers take it."""
  network, training = p.task.network, p.task.training
  is_mlp = isinstance(network, nets_jax.MLP) and network.activation == "relu" and network.use_bias
  is_plain = training == nets_jax.Training("sgd", training.learning_rate, training.batch_size)
  is_usual = p.task.loss == "cross_entropy" and not p.task.label_smoothing
  if not (is_plain and is_usual and is_mlp) or getattr(network, "dropout_rate", 0):
    raise nets_jax.UsageError(
      "the peers know sgd of a rate and batch_size alone, cross_entropy without label_smoothing, relu, "
      "biases and no dropout; name the other --parts"
    )
  shuffle_key, _, _ = generation_keys(p.state.key, p.state.generation)
  examples, batch_size = len(p.task.data.train), p.task.training.batch_size
  order = np.asarray(minibatch_order(shuffle_key, examples, batch_size, fitness_steps(p.search, p.task)))
  population = gathered(p.state.population, 1, p.layout.size, p.layout)
  return peers.Work(p.task, population, order)
