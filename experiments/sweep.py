"""Seeds x settings of a ticket search, side by side in as few compiled programs as they allow.

  python -m experiments.sweep --search=paper --seeds=0:10 --grid='noise_rate=0.05,0.1;elites=1,2'

--dry_run says how long: settings.md, best.flags and a figure of effects. All flags: --help.
"""

from nets_jax.cli import sweep
from nets_jax.cli.command import start

if __name__ == "__main__":
  start(sweep)
