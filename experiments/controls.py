"""What is a ticket's worth owed to: its mask, its weights, or the scales of its layers?

  python -m experiments.controls --flagfile=experiments/presets/paper_mnist.flags --tickets='*.safetensors'

Minutes on two cores: controls.md, with the verdicts of Definition 3. All flags: --help.
"""

from nets_jax.cli import controls
from nets_jax.cli.command import start

if __name__ == "__main__":
  start(controls)
