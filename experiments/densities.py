"""How good are a method's tickets, the sparser they are, and what did finding them cost?

  python -m experiments.densities --flagfile=experiments/presets/paper_mnist.flags --trials=5

Hours on two cores: densities.md and its figures, written anew as each method is done. All flags: --help.
"""

from nets_jax.cli import densities
from nets_jax.cli.command import start

if __name__ == "__main__":
  start(densities)
