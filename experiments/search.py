"""Finds a winning ticket and shows what it is worth: the main job.

  python -m experiments.search

Half a minute on two cores: a ticket beside a random one and the dense networks. All flags: --help.
"""

from nets_jax.cli import search
from nets_jax.cli.command import start

if __name__ == "__main__":
  start(search)
