"""Speed, memory and scaling beside the machine's own matrix product and what a user would run instead.

  python -m experiments.benchmark --flagfile=experiments/presets/paper_mnist.flags

Two hours on two cores, less with some of its --parts: benchmark.md and a figure. All flags: --help.
"""

from experiments.benchmarking import measure
from nets_jax.cli.command import start

if __name__ == "__main__":
  start(measure)
