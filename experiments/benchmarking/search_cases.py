"""Guided NeTS from its first generation to its ticket, and what its tickets save in a final training."""

import contextlib
import functools
from collections.abc import Iterator

import jax
from absl import flags
from jax.experimental.compilation_cache import compilation_cache

import nets_jax
from experiments.benchmarking.cases import Case
from experiments.benchmarking.limits import seconds
from nets_jax.cli import setting_flags as search_flags
from nets_jax.engine.layouts import make_layout

GUIDED_DENSITY, GENOMES, GENERATIONS = 0.05, 4, 12  # the latter two of the search that it is held against
# Densities of the tickets, and exponents of structured dormancy at each.
TICKETS = {0.5: (0.0,), 0.2: (0.0,), 0.05: (0.0, 0.5), 0.01: (0.0, 0.5)}
COPIES = 2  # of a ticket, a core each


@contextlib.contextmanager
def cold() -> Iterator[None]:
  """Without any program that was compiled before."""
  kept = getattr(jax.config, "jax_compilation_cache_dir", None)
  jax.config.update("jax_compilation_cache_dir", None)
  compilation_cache.reset_cache()
  jax.clear_caches()
  try:
    yield
  finally:
    jax.config.update("jax_compilation_cache_dir", kept)
    compilation_cache.reset_cache()


def guided_cases(values: flags.FlagValues, data: nets_jax.Dataset) -> list[Case]:
  """As many genome-epochs of the paper's search, then guided NeTS with warm caches, then with cold ones."""
  task = search_flags.make_task(values, data)
  guided = nets_jax.recipes.halved(target_density=GUIDED_DENSITY)
  epochs = guided.genome_epochs(task)
  each = epochs / GENOMES / (GENERATIONS + 1)
  paper = nets_jax.recipes.paper(population_size=GENOMES, generations=GENERATIONS, fitness_epochs=each)

  def search(which: nets_jax.Nets) -> nets_jax.Cost:
    return nets_jax.search(values.seed, task, which, devices=values.devices, chunk=values.chunk).cost

  def from_cold() -> float:
    with cold():
      return seconds(functools.partial(search, guided))

  def case(name, run, is_cold=False):
    about = {"devices": make_layout(GENOMES, devices=values.devices).mesh.size}
    return Case("guided", name, run, genome_epochs=epochs, about=about, is_cold=is_cold)

  return [
    case(f"the paper's search, {epochs:.0f} genome-epochs, compiled", lambda: search(paper).seconds),
    case("guided NeTS, compiled", lambda: search(guided).seconds),
    case("guided NeTS from cold caches, all that it takes", from_cold, is_cold=True),
  ]


def compact_cases(
  values: flags.FlagValues, data: nets_jax.Dataset, density: float, structured: float
) -> list[Case]:
  """The final training of two copies of a guided ticket as it is, and without its dead units.

  Both with what they compile, from cold caches.
  """
  task = search_flags.make_task(values, data).replace(epochs=values.compact_epochs)
  guided = nets_jax.recipes.halved(target_density=density, structured=structured)
  ticket = nets_jax.search(values.seed, task, guided, devices=values.devices, chunk=values.chunk).ticket
  form = nets_jax.compact(ticket, task.network, data.input_shape)
  left = form.multiplications / form.whole_multiplications if form.pays else 1.0
  tickets = [ticket] * COPIES
  layout = make_layout(COPIES, devices=values.devices, chunk=values.chunk)

  def train(compact: bool) -> float:
    with cold():
      own = task.replace(compact=compact)
      return seconds(lambda: nets_jax.train_tickets(values.seed, tickets, own, layout=layout))

  words = f", structured {structured:g}" if structured else ""
  name = f"{density:.0%}{words}, {values.compact_epochs} epochs"
  about = {"density": density, "structured": structured}

  def case(words, compact, left):
    epochs = COPIES * values.compact_epochs
    return Case(
      "compact", f"{name}: {words}", lambda: train(compact), genome_epochs=epochs,
      about=about | {"multiplications": left}, is_cold=True,
    )  # fmt: skip

  return [case(f"compact, {left:.0%} of the multiplications", True, left), case("whole", False, 1.0)]
