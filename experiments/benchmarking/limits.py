"""The machine's own rates, beside which all is measured: a large product, and a copy."""

import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from experiments.benchmarking.table import Row

PRODUCTS = 4
COPIED = 2**28  # numbers of four bytes


def seconds(run: Callable[[], object]) -> float:
  """Wall-clock time of one call."""
  begin = time.perf_counter()
  run()
  return time.perf_counter() - begin


class Limit:
  """A float32 product of square matrices on all cores; a call gives its rate in flop/s."""

  def __init__(self, side: int):
    """Compiles the product and warms it up."""
    self.flops = PRODUCTS * 2 * side**3
    product = jax.jit(lambda a: [a @ (a + i) for i in range(PRODUCTS)])
    self._square = jax.random.normal(jax.random.key(0), (side, side), jnp.float32)
    with jax.default_matmul_precision("float32"):
      self._run = product.lower(self._square).compile()
    self()

  def __call__(self) -> float:
    """Multiplies once."""
    return self.flops / seconds(lambda: jax.block_until_ready(self._run(self._square)))

  def row(self, name: str, repeats: int) -> Row:
    """A line of the table."""
    rates = [self() for _ in range(repeats)]
    times = [self.flops / rate for rate in rates]
    row: Row = {
      "part": "limit",
      "name": name,
      "repeats": repeats,
      "gflops": statistics.median(rates) / 1e9,
      "share_of_limit": 1.0,
    }
    row |= {"seconds": statistics.median(times), "seconds_low": min(times), "seconds_high": max(times)}
    if jax.devices()[0].platform != "cpu":
      row["copy_bytes_per_second"] = copy_rate()
    return row


def copy_rate() -> float:
  """Bytes per second that a copy of a GiB reads and writes on one device."""
  x = jnp.zeros(COPIED, jnp.float32)
  copy = jax.jit(lambda x: x + 1)
  jax.block_until_ready(copy(x))
  return 2 * x.nbytes / statistics.median(seconds(lambda: jax.block_until_ready(copy(x))) for _ in range(5))
