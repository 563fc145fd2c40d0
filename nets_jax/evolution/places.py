"""Which row of a stored population is which genome's: genomes are dealt to the devices like cards.

Of R runs side by side genome i of run r has the number n = i R + r, and is row n // D of device n mod D of D.
So the first genomes of every run, those that a halving keeps, come first on each device, shared out evenly;
and nothing has to move when there are fewer of them.
"""

from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from nets_jax.engine.layouts import Layout, fetch, shard

Tree = TypeVar("Tree")
Numbers = TypeVar("Numbers", int, Int[Array, "..."], Int[np.ndarray, "..."])
Places = tuple[Int[Array, " rows"], Int[Array, " rows"]]


def row_places(runs: int, layout: Layout) -> Places:
  """The run of each row, and its index among the run's genomes; padding counts on."""
  share = layout.rows // layout.mesh.size
  row = jnp.arange(layout.rows)
  number = row % share * layout.mesh.size + row // share
  return number % runs, number // runs


def rows_of(run: Numbers, index: Numbers, runs: int, layout: Layout) -> Numbers:
  """The rows of genomes by run and index; the inverse of `row_places`."""
  number, devices = index * runs + run, layout.mesh.size
  return number % devices * (layout.rows // devices) + number // devices


def by_run(rows: Array, runs: int, size: int, layout: Layout) -> Array:
  """Of arrays by row, which every device has, the first `size` genomes of each run [runs, size]."""
  return rows[rows_of(jnp.arange(runs)[:, None], jnp.arange(size)[None], runs, layout)]


def gathered(population: Tree, runs: int, size: int, layout: Layout) -> Tree:
  """The first `size` genomes of run 0, then those of run 1 and so on, as NumPy arrays in every process."""
  rows = rows_of(np.arange(runs)[:, None], np.arange(size)[None], runs, layout)
  return jax.tree.map(lambda leaf: leaf[np.asarray(rows).reshape(-1)], fetch(population))


def spread(genomes: Tree, runs: int, layout: Layout) -> Tree:
  """What `gathered` gave, on the devices of a layout; copies of the first genome are the padding."""
  run, index = jax.device_get(row_places(runs, layout))

  def place(leaf):
    size = len(leaf) // runs
    return np.asarray(leaf)[np.where(index < size, run * size + index, 0)]

  return shard(jax.tree.map(place, genomes), layout)
