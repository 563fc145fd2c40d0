"""Random search over layer scales: what guided NeTS finds by selection, by chance alone."""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from nets_jax import structs
from nets_jax.baselines.one_shot import Snip, batch_rows, prune_ticket
from nets_jax.engine.batching import map_tickets
from nets_jax.engine.layouts import Layout, compile_program, fetch_population, pad, replicate
from nets_jax.errors import SearchFailed
from nets_jax.evolution.scales import scale_layers
from nets_jax.kinds import DENSITY, NUMBER, WHOLE, at_least
from nets_jax.protocol import How, Outcome, Search
from nets_jax.rows import Rows
from nets_jax.settings import setting
from nets_jax.tickets.results import Cost, SearchResult
from nets_jax.tickets.ticket import Ticket, initialise, take
from nets_jax.training.task import Task
from nets_jax.training.trainer import train_tickets

GROUP = "other searches"


@structs.dataclass
class RandomScales(Search):
  """Random search over layer scales, under SNIP's masks; the best after a short training is kept.

  Candidate i has theta_0 of its own, its layers' kernels times exp(N(0, deviation)). All are trained on the
  same minibatches, and the lowest validation loss wins: guided NeTS without inheritance, for as many
  genome-epochs where `candidates` is that many.

  Attributes:
    target_density: of SNIP's masks; the count is exact.
    candidates: tickets tried.
    candidate_epochs: epochs that each is trained for.
    candidate_deviation: of the logarithm of a layer's factor.
    score_batch: SNIP's examples (static).
  """

  target_density: float = setting(
    0.2, "Density of the ticket to find, in (0, 1].", group="fitness", kind=NUMBER, rule=DENSITY
  )
  candidates: int = setting(
    52, "random_scales: tickets of random layer scales that are tried.", group=GROUP, kind=WHOLE,
    rule=at_least(1), static=True,
  )  # fmt: skip
  candidate_epochs: int = setting(
    1, "random_scales: epochs that each of these is trained for.", group=GROUP, kind=WHOLE, rule=at_least(1),
    static=True,
  )  # fmt: skip
  candidate_deviation: float = setting(
    2.0, "random_scales: deviation of a log-normal factor of each layer.", group=GROUP, kind=NUMBER,
    rule=at_least(0),
  )  # fmt: skip
  score_batch: int = setting(
    100, "snip, grasp, gradinit, random_scales: examples that the score looks at.", group=GROUP, kind=WHOLE,
    rule=at_least(1), static=True,
  )  # fmt: skip

  is_instant = True

  @property
  def snip(self) -> Snip:
    """What the masks are by."""
    return Snip(target_density=self.target_density, score_batch=self.score_batch)

  def check(self, task: Task) -> None:
    """Raises UsageError for settings that make no search."""
    super().check(task)
    self.snip.check(task)
    task.training_of_search(self.candidate_epochs * task.steps_per_epoch)

  def genome_epochs(self, task: Task) -> float:
    """Of all candidates."""
    del task
    return self.candidates * self.candidate_epochs

  @property
  def genomes(self) -> int:
    """Networks that a run trains side by side."""
    return self.candidates

  def reports(self, task: Task, runs: int = 1) -> int:
    """A report for each epoch."""
    del task, runs
    return self.candidate_epochs

  def find(self, keys: Key[Array, " runs"], task: Task, how: How) -> list[Outcome]:
    """See `Search.find`. A training that was stopped goes on.

    Returns:
      For each key the ticket and its history: a row for each candidate with keys `ticket`, its number,
      `valid_loss`, its score, `density` and `seconds`. A run fails of which every candidate diverged, or in
      which SNIP says nothing of a layer.
    """
    steps = self.candidate_epochs * task.steps_per_epoch
    short = task.for_search().replace(
      training=task.training_of_search(steps), epochs=self.candidate_epochs, eval_every=None, compact=False
    )
    count = len(keys) * self.candidates
    layout = how.layout_of(count)
    draw_keys, train_keys = jax.vmap(lambda key: tuple(jax.random.split(key)))(keys)
    rows = jax.vmap(lambda key: jax.random.split(key, self.candidates))(draw_keys).reshape(count)
    padded, shared = pad(rows, layout), replicate((short, self), layout)
    program, compiling = compile_program(_draw_all, padded, shared, layout=layout)
    begin = time.perf_counter()
    tickets, tells = fetch_population(program(padded, shared), layout)
    drawing = time.perf_counter() - begin
    trained = train_tickets(
      jnp.repeat(train_keys, self.candidates),
      tickets,
      short,
      steps=steps,
      splits=("valid",),
      layout=layout,
      on_rows=how.on_rows,
      checkpoints=how.checkpoints,
    )
    last = trained.curves[-count:]
    column = task.measures.column("valid")
    outcomes: list[Outcome] = []
    for run in range(len(keys)):
      places = range(run * self.candidates, (run + 1) * self.candidates)
      seconds = (last[0]["seconds"] + drawing) / len(keys)
      history: Rows = [
        {"ticket": i, "valid_loss": last[place]["valid_loss"], column: last[place][column]}
        | {"density": self.target_density, "seconds": seconds}
        for i, place in enumerate(places)
      ]
      losses = np.array([row["valid_loss"] for row in history])
      losses = np.where(tells[places.start : places.stop] & np.isfinite(losses), losses, np.inf)
      best = int(losses.argmin())
      cost = Cost(self.genome_epochs(task), seconds, (trained.compile_seconds + compiling) / len(keys))
      result = SearchResult(take(tickets, places[best]), history, cost, best=history[best])
      outcomes.append(
        result
        if np.isfinite(losses[best])
        else SearchFailed(
          "no candidate came through its training; lower learning_rate, or candidate_deviation", result
        )
      )
    return outcomes


@functools.partial(jax.jit, static_argnames=("layout",))
def _draw_all(
  keys: jax.Array, shared: tuple[Task, RandomScales], *, layout: Layout
) -> tuple[Ticket, jax.Array]:
  return map_tickets(lambda key, shared: draw_candidate(key, *shared), layout, keys, shared)


def draw_candidate(key: Key[Array, ""], task: Task, search: RandomScales) -> tuple[Ticket, Array]:
  """ONE candidate, and whether SNIP's scores say something of each of its layers."""
  weights_key, scale_key, batch_key = jax.random.split(key, 3)
  shape = task.data.input_shape
  ticket = initialise(weights_key, task.network, shape, initialiser=task.initialiser, layers=task.layers)
  ticket = scale_layers(scale_key, ticket, search.candidate_deviation)
  rows = batch_rows(batch_key, task, search.snip)
  ticket, _, tells = prune_ticket(rows, ticket, task, search.snip)
  return ticket, tells.all()


SEARCHES = {"random_scales": RandomScales}
