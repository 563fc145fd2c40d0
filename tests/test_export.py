"""The programs are lowered for accelerators that are not there: nothing in them is for this machine alone."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from jax import export

import nets_jax
from nets_jax.baselines.one_shot import SEARCHES as SCORES
from nets_jax.baselines.one_shot import _prune_all
from nets_jax.engine.layouts import make_layout, pad, replicate
from nets_jax.evolution.configuration import stack_settings
from nets_jax.evolution.generation import init_all, step_all
from nets_jax.networks import precision
from nets_jax.networks.zoo import make_network
from nets_jax.tickets.ticket import stack
from nets_jax.training.loop import _start_tickets, _train_some_steps

pytestmark = pytest.mark.zoo
KEYS = jax.random.split(jax.random.key(0), 2)
TRAINING = nets_jax.Training(learning_rate=0.1, batch_size=10)
ACCELERATORS = ("cuda", "tpu")


@pytest.fixture(scope="module")
def task():
  """A convolutional network with batch normalisation."""
  images = np.random.default_rng(0).normal(size=(60, 8, 8, 1))
  return nets_jax.Task(
    make_network("resnet8", 3, width=0.125), nets_jax.from_arrays(images, np.arange(60) % 3), TRAINING
  )


def on_accelerator(size, chunk):
  """Where a population would live there: `make_layout` gives a CPU one ticket at a time."""
  return dataclasses.replace(make_layout(size, devices=1), chunk=chunk)


def lowered(platform, program, *arguments, **static):
  return export.export(program, platforms=[platform])(*arguments, **static).mlir_module()


def generation(task, search, layout):
  """The program of a generation, and what it takes."""
  task = task.at_precision(search.precision)
  settings = stack_settings([task], [search])
  task = task.for_search(search.precision)
  state = jax.eval_shape(functools.partial(init_all, layout=layout), KEYS[:1], task, settings)
  return step_all, state, task, settings, layout


@pytest.mark.parametrize(("platform", "chunk"), [("cuda", None), ("tpu", 2)])
def test_a_generation(task, platform, chunk):
  search = nets_jax.recipes.guided(population_size=4, generations=2)
  layout = on_accelerator(4, chunk)
  init = functools.partial(init_all, layout=layout)
  settings = stack_settings([task], [search])
  assert "stablehlo" in lowered(platform, jax.jit(init), KEYS[:1], task.for_search(), settings)
  assert "convolution" in lowered(platform, *generation(task, search, layout))


@pytest.mark.parametrize("platform", ACCELERATORS)
def test_the_final_training(task, platform):
  layout = on_accelerator(2, None)
  tickets = stack([nets_jax.random_ticket(key, task.network, (8, 8, 1), 0.5) for key in KEYS])
  training = jax.tree.map(lambda leaf: jax.numpy.stack([jax.numpy.float32(leaf)] * 2), task.training)
  keys, tickets, training = pad((KEYS, tickets, training), layout)
  bare = replicate(task.replace(training=None, initialiser=None), layout)
  state = _start_tickets((tickets, training, None), bare, layout=layout)
  arguments = (keys, state, tickets.masks, training), (0, bare, {"valid": bare.data.valid})
  found = lowered(platform, _train_some_steps, *arguments, layout=layout, steps=3, whole_epochs=False)
  assert "convolution" in found


@pytest.mark.parametrize("platform", ACCELERATORS)
@pytest.mark.parametrize("name", SCORES)
def test_scores_at_initialisation(task, platform, name):
  layout = on_accelerator(2, None)
  search = SCORES[name](rounds=1, score_batch=20)
  rows, shared = pad(KEYS, layout), replicate((task.for_search(), search), layout)
  assert "stablehlo" in lowered(platform, _prune_all, rows, shared, layout=layout)


@pytest.mark.parametrize("native", [False, True])
def test_the_form_of_a_product_is_that_of_the_machine_it_is_for(data, native, monkeypatch):
  """An accelerator multiplies in the format itself, and so does a CPU that can; others round the operands."""
  monkeypatch.setattr(precision, "multiplies_bfloat16", lambda: native)
  jax.clear_caches()
  task = nets_jax.Task(nets_jax.MLP(hidden_sizes=(4,), num_classes=3), data, TRAINING)
  search = nets_jax.recipes.guided(population_size=2, generations=1, precision="bfloat16")
  program = generation(task, search, on_accelerator(2, None))
  on_cpu, elsewhere = (lowered(platform, *program) for platform in ("cpu", "cuda"))
  assert ("reduce_precision" in on_cpu) != native
  assert ("bf16" in on_cpu) == native
  assert "reduce_precision" not in elsewhere
  assert "bf16" in elsewhere
