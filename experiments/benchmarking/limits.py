"""The machine's own rates, beside which all is measured: a large product, and a copy."""

import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from experiments.benchmarking.table import Row
from nets_jax.networks import precision

PRODUCTS = 4
COPIED = 2**28  # numbers of four bytes


def seconds(run: Callable[[], object]) -> float:
  """Wall-clock time of one call."""
  begin = time.perf_counter()
  run()
  return time.perf_counter() - begin


def multiplies_bfloat16() -> bool:
  """Whether the machine has such products, and does not make them of float32's."""
  return jax.devices()[0].platform != "cpu" or precision.multiplies_bfloat16()


class Limit:
  """A product of square matrices on all cores, its sums in float32; a call gives its rate in flop/s."""

  def __init__(self, side: int, dtype: jnp.dtype = jnp.float32):
    """Compiles the product and warms it up."""
    self.flops = PRODUCTS * 2 * side**3

    @jax.jit
    def product(a):
      return [jnp.matmul(a, a + i, preferred_element_type=jnp.float32) for i in range(PRODUCTS)]

    self._square = jax.random.normal(jax.random.key(0), (side, side), dtype)
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
