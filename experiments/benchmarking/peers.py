"""What a user would run instead of the population engine: the same genomes, minibatches and arithmetic.

Each peer trains every genome for the same steps on the same minibatches and scores it on the same
validation split; `benchmark.py` checks that its losses are those of the engine. A peer is a function from
the work to a call that does it once and returns the validation losses [population].
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np

import nets_jax
from nets_jax.engine.layouts import fetch
from nets_jax.evolution.fitness import fitness
from nets_jax.evolution.ranking import Penalised
from nets_jax.tickets.ticket import phenotype


@dataclasses.dataclass(frozen=True)
class Work:
  """A generation's training: masked SGD of an MLP with rectifiers, the same minibatches for every genome.

  Attributes:
    task: of an MLP; MNIST or the like, without the test part.
    population: the genomes, stacked.
    order: examples of each minibatch [steps, batch_size].
  """

  task: nets_jax.Task
  population: nets_jax.Ticket
  order: np.ndarray

  @property
  def data(self) -> nets_jax.Dataset:
    """The task's."""
    return self.task.data

  @property
  def network(self) -> nets_jax.MLP:
    """The task's."""
    return cast(nets_jax.MLP, self.task.network)

  @property
  def learning_rate(self) -> float:
    """Of SGD."""
    return float(cast(float, self.task.training.learning_rate))

  @property
  def size(self) -> int:
    """Genomes."""
    return len(jax.tree.leaves(self.population)[0])


def _loss_of_a_genome(work: Work) -> Callable[..., jax.Array]:
  def loss(genome, data, order):
    task = work.task.replace(data=data, training=nets_jax.Training("sgd", work.learning_rate))
    metrics, _ = fitness(jax.random.key(0), genome, task, order, Penalised())
    return jnp.asarray(metrics.valid_loss)

  return loss


def jax_vmap(work: Work) -> Callable[[], np.ndarray]:
  """`jax.vmap` over the genomes, jitted, on one device."""
  data, population = _on_first_device(work)
  run = jax.jit(jax.vmap(_loss_of_a_genome(work), in_axes=(0, None, None)))
  return lambda: np.asarray(run(population, data, work.order))


def jax_loop(work: Work) -> Callable[[], np.ndarray]:
  """A Python loop over the genomes, each a call of a jitted epoch, on one device."""
  data, population = _on_first_device(work)
  genomes = [nets_jax.take(population, i) for i in range(work.size)]
  run = jax.jit(_loss_of_a_genome(work))
  return lambda: np.array([float(run(genome, data, work.order)) for genome in genomes])


def jax_loop_bfloat16(work: Work) -> Callable[[], np.ndarray]:
  """The same loop with the network's products in bfloat16."""
  return jax_loop(dataclasses.replace(work, task=work.task.at_precision("bfloat16")))


def _on_first_device(work: Work) -> tuple[nets_jax.Dataset, nets_jax.Ticket]:
  host = jax.device_get((work.data, fetch(work.population)))
  return jax.device_put(host, jax.devices()[0])


def torch_loop(work: Work, compiled: bool = False, bfloat16: bool = False) -> Callable[[], np.ndarray]:
  """PyTorch as in its tutorials: a model, an optimiser, a loop over minibatches; genome by genome.

  In bfloat16 the passes forward and backward of the training are, by `torch.autocast`.
  """
  import torch

  data, order, layers = _for_torch(work)

  def run_genome(genome):
    modules = []
    for weights, bias, _ in genome:
      linear = torch.nn.Linear(weights.shape[1], weights.shape[0], device=weights.device)
      linear.weight.data, linear.bias.data = weights.clone(), bias.clone()
      modules += [linear, torch.nn.ReLU()]
    model = torch.nn.Sequential(*modules[:-1])
    step = functools.partial(_torch_loss, model)
    step = torch.compile(step) if compiled else step
    optimizer = torch.optim.SGD(model.parameters(), lr=work.learning_rate)
    for examples in order:
      optimizer.zero_grad()
      with torch.autocast(data["inputs"].device.type, torch.bfloat16, enabled=bfloat16):
        loss = step(data["inputs"][examples], data["labels"][examples])
      loss.backward()
      for linear, (_, _, mask) in zip(modules[::2], genome, strict=True):
        linear.weight.grad.mul_(mask)
      optimizer.step()
    with torch.no_grad():
      return float(_torch_loss(model, data["valid_inputs"], data["valid_labels"]))

  return lambda: np.array(
    [run_genome([tuple(leaf[i] for leaf in layer) for layer in layers]) for i in range(work.size)]
  )


def torch_compile(work: Work) -> Callable[[], np.ndarray]:
  """The same loop, its forward and backward passes under `torch.compile`."""
  return torch_loop(work, compiled=True)


def torch_loop_bfloat16(work: Work) -> Callable[[], np.ndarray]:
  """The loop in bfloat16."""
  return torch_loop(work, bfloat16=True)


def torch_compile_bfloat16(work: Work) -> Callable[[], np.ndarray]:
  """The loop under `torch.compile` in bfloat16."""
  return torch_loop(work, compiled=True, bfloat16=True)


def torch_vmap(work: Work) -> Callable[[], np.ndarray]:
  """`torch.func.vmap` of `torch.func.grad` over the genomes, a step of all at once."""
  import torch

  data, order, layers = _for_torch(work)

  def loss(parameters, inputs, labels):
    return _torch_loss(functools.partial(_torch_forward, parameters), inputs, labels)

  gradient = torch.func.vmap(torch.func.grad(loss), in_dims=(0, None, None))
  score = torch.func.vmap(loss, in_dims=(0, None, None))

  def run():
    parameters = [(weights.clone(), bias.clone()) for weights, bias, _ in layers]
    for examples in order:
      gradients = gradient(parameters, data["inputs"][examples], data["labels"][examples])
      for (weights, bias), (by_weights, by_bias), (_, _, mask) in zip(
        parameters, gradients, layers, strict=True
      ):
        weights.sub_(by_weights.mul_(mask), alpha=work.learning_rate)
        bias.sub_(by_bias, alpha=work.learning_rate)
    with torch.no_grad():
      return score(parameters, data["valid_inputs"], data["valid_labels"]).cpu().numpy()

  return run


def _torch_forward(parameters, x):
  import torch

  for weights, bias in parameters[:-1]:
    x = torch.relu(torch.nn.functional.linear(x, weights, bias))
  return torch.nn.functional.linear(x, *parameters[-1])


def _torch_loss(model, inputs, labels):
  import torch

  return torch.nn.functional.cross_entropy(model(inputs), labels)


def _for_torch(work: Work):
  """Data, minibatches and, by layer, phenotype, bias and mask [population, out, in], as tensors."""
  import torch

  device = "cuda" if torch.cuda.is_available() else "cpu"

  def tensor(x):
    return torch.as_tensor(np.array(x), device=device)

  def flat(split):
    return tensor(split.prepared().inputs).reshape(len(split), -1)

  def turned(kernel):
    return tensor(jnp.swapaxes(kernel, 1, 2)).contiguous()

  data = jax.device_get(work.data)
  tensors = {
    "inputs": flat(data.train),
    "labels": tensor(data.train.labels).long(),
    "valid_inputs": flat(data.valid),
    "valid_labels": tensor(data.valid.labels).long(),
  }
  genomes = fetch(work.population)
  weights, masks = phenotype(genomes), genomes.masks
  names = [f"hidden_{i}" for i in range(len(work.network.hidden_sizes))] + ["output"]
  layers = [
    (turned(weights[n]["kernel"]), tensor(weights[n]["bias"]), turned(masks[n]["kernel"])) for n in names
  ]
  return tensors, tensor(work.order).long(), layers


PEERS = {
  "JAX, Python loop of jitted epochs": jax_loop,
  "JAX, vmap on one device": jax_vmap,
  "PyTorch, eager loop": torch_loop,
  "PyTorch, torch.compile": torch_compile,
  "PyTorch, torch.func.vmap": torch_vmap,
}
# Their rounding is coarser, so their losses are further from ours.
IN_BFLOAT16: dict[str, Callable[[Work], Callable[[], np.ndarray]]] = {
  "JAX, Python loop of jitted epochs, bfloat16": jax_loop_bfloat16,
  "PyTorch, eager loop, bfloat16": torch_loop_bfloat16,
  "PyTorch, torch.compile, bfloat16": torch_compile_bfloat16,
}
