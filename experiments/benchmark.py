r"""Times one generation of NeTS against the machine's own matrix product, in one run.

  python -m experiments.benchmark --flagfile=experiments/presets/paper_mnist.flags --population_size=6

The limit is the rate of a float32 2048 x 2048 x 2048 product on all cores, measured before and after
each generation; the share is the generation's rate over the mean of the two. Medians over --repeats.

A generation's work is counted as that of its training alone: 6 flops for each maskable weight and
sample (forward, input gradient, weight gradient, 2 each), less the first layer's input gradient.
Shuffles, evaluation and the genetic operators take time here and count as no work.
"""

import statistics
import time

import jax
import jax.numpy as jnp
from absl import app, flags

import nets_jax
from experiments import flags as search_flags
from experiments import methods
from nets_jax import nets, parallel

flags.adopt_module_key_flags(search_flags)
flags.adopt_module_key_flags(methods)
REPEATS = flags.DEFINE_integer("repeats", 7, "Generations timed.")

SIDE = 2048
PRODUCTS = 10


def training_flops(ticket: nets_jax.Ticket, samples: int) -> int:
  """Flops of training an MLP ticket's network on this many samples, masks not made use of."""
  sizes = [leaf.size for leaf in jax.tree.leaves(ticket.masks)]
  return samples * (6 * sum(sizes) - 2 * sizes[0])


def seconds(function, *args) -> float:
  """Wall-clock time of one call, its results computed."""
  begin = time.perf_counter()
  jax.block_until_ready(function(*args))
  return time.perf_counter() - begin


def measure(values: flags.FlagValues) -> None:
  """Prints a line for each repeat, and the medians."""
  data = search_flags.make_data(values)
  config = methods.make_config("nets", values, len(data.train))
  network = search_flags.make_network(values, data.num_classes)
  layout = nets_jax.make_layout(config.population_size, devices=values.devices, chunk=values.chunk)
  state = nets_jax.init(jax.random.key(values.seed), network, data.input_shape, config, layout)
  data = parallel.replicate(data.replace(test=None), layout)
  step, compile_seconds = parallel.compile_program(nets_jax.step, state, network, data, config, layout)
  samples = config.population_size * nets.fitness_steps(config, len(data.train)) * config.batch_size
  flops = training_flops(nets_jax.take(state.population, 0), samples)
  product = jax.jit(lambda a: [a @ (a + i) for i in range(PRODUCTS)])
  square = jax.random.normal(jax.random.key(0), (SIDE, SIDE), jnp.float32)
  limit = lambda: PRODUCTS * 2 * SIDE**3 / seconds(product, square)  # noqa: E731
  limit()
  jax.block_until_ready(step(state, data, config))
  print(f"{layout.mesh.size} {jax.devices()[0].device_kind} device(s); compile {compile_seconds:.1f} s")
  rows = []
  for repeat in range(values.repeats):
    before = limit()
    taken = seconds(step, state, data, config)
    bound = (before + limit()) / 2
    rows.append((taken, flops / taken / 1e9, bound / 1e9, flops / taken / bound))
    print("repeat {}: {:.3f} s, {:.1f} GFLOP/s, limit {:.1f} GFLOP/s, share {:.3f}".format(repeat, *rows[-1]))
  medians = [statistics.median(column) for column in zip(*rows, strict=True)]
  print("median: {:.3f} s, {:.1f} GFLOP/s, limit {:.1f} GFLOP/s, share {:.3f}".format(*medians))


def main(argv: list[str]) -> None:
  """Runs the benchmark."""
  del argv
  search_flags.run_main(measure)


if __name__ == "__main__":
  app.run(main, flags_parser=search_flags.parse)
