"""The paper's comparison: Table 1 and Figures 1 to 3, with our figures beside the paper's.

  python -m experiments.compare --dataset=mnist --trials=5

40 minutes on two cores, or a minute with --trials=2 --quick: table1.md and three figures. All flags: --help.
"""

from nets_jax.cli import compare
from nets_jax.cli.command import start

if __name__ == "__main__":
  start(compare)
