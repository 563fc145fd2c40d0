r"""Speed, memory and scaling beside the machine's own matrix product and what a user would run instead.

  pip install -e '.[bench]'
  python -m experiments.benchmark --flagfile=experiments/presets/paper_mnist.flags

Parts (--parts): `limit`, the rate of a float32 2048 x 2048 x 2048 product on all cores, at the start and at
the end; `population`, one generation of NeTS at several population sizes; `breeding`, selection and the
genetic operators alone; `imp`, a cycle of five runs side by side; `peers`, the same training in PyTorch and
plain JAX; `scaling`, a generation against devices, network width and size of the data set. Medians over
--repeats; compilation and a first run stand apart.

Every repeat is timed between two measurements of the limit, and its share is its rate over their mean,
for machines drift. Peers take turns within a repeat; their ratios are medians of ratios within repeats.

A generation's work is counted as that of its training alone: 6 flops for each maskable weight and sample
(forward, input gradient, weight gradient, 2 each), less the first layer's input gradient. Shuffles,
evaluation and the genetic operators take time here and count as no work.

Files: benchmark.csv, benchmark.md and figure_benchmark.png in --workdir, written anew after each line. Lines
that an earlier run left there are kept, unless they are measured again.
"""

import dataclasses
import functools
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

import nets_jax
from experiments.benchmarking import memory, peers, table
from nets_jax.cli import command, records
from nets_jax.cli import setting_flags as search_flags
from nets_jax.engine.layouts import compile_program, fetch, replicate
from nets_jax.engine.messages import say
from nets_jax.engine.tables import write_json
from nets_jax.evolution import breeding
from nets_jax.evolution.configuration import fitness_steps, stack_settings
from nets_jax.evolution.generation import generation_keys
from nets_jax.studies.run_directory import environment
from nets_jax.tickets.ticket import layers_of
from nets_jax.training.train import minibatch_order

flags.adopt_module_key_flags(search_flags)
PARTS = ("limit", "population", "breeding", "imp", "peers", "scaling")
REPEATS = flags.DEFINE_integer("repeats", 5, "Times that each line is timed.")
flags.DEFINE_list("parts", list(PARTS), f"What to measure, of {', '.join(PARTS)}.")
flags.DEFINE_list("populations", None, "Population sizes; default 2 to 256, on accelerators 4096.")
flags.DEFINE_integer("peer_population", 6, "Genomes of the peers, and of the scaling.")
flags.DEFINE_integer("limit_side", 2048, "Rows and columns of the limit's matrices.")
flags.DEFINE_integer("imp_epochs", 2, "Epochs of the IMP cycle.")

PRODUCTS = 4
WIDTHS = (0.5, 1, 2, 4)
SHARES = (0.25, 0.5, 1.0)
IMP_RUNS = 5
MOST_APART = 0.01  # nats between our validation losses and a peer's, from rounding alone


@dataclasses.dataclass(frozen=True)
class Case:
  """Something to time.

  Attributes:
    part, name: where it belongs, and what it is.
    run: does it once, results computed, and says how many seconds that took.
    flops, genome_epochs: the work in it.
    about: further columns of its row.
  """

  part: str
  name: str
  run: Callable[[], float]
  flops: float = 0.0
  genome_epochs: float = 0.0
  about: dict[str, Any] = dataclasses.field(default_factory=dict)


def training_flops(ticket: nets_jax.Ticket, samples: int) -> int:
  """Flops of training an MLP ticket's network on this many samples, masks not made use of."""
  sizes = [layer.size for layer in layers_of(ticket)]
  return samples * (6 * sum(sizes) - 2 * sizes[0])


def seconds(run: Callable[[], Any]) -> float:
  """Wall-clock time of one call."""
  begin = time.perf_counter()
  run()
  return time.perf_counter() - begin


@functools.cache
def limit() -> Callable[[], float]:
  """A function that measures the machine's rate at a large product, in flop/s."""
  side = flags.FLAGS.limit_side
  product = jax.jit(lambda a: [a @ (a + i) for i in range(PRODUCTS)])
  square = jax.random.normal(jax.random.key(0), (side, side), jnp.float32)
  with jax.default_matmul_precision("float32"):
    run = product.lower(square).compile()
  once = lambda: PRODUCTS * 2 * side**3 / seconds(lambda: jax.block_until_ready(run(square)))  # noqa: E731
  once()
  return once


def copy_rate() -> float:
  """Bytes per second that a copy of 1 GiB reads and writes on one device."""
  x = jnp.zeros(2**28, jnp.float32)
  copy = jax.jit(lambda x: x + 1)
  jax.block_until_ready(copy(x))
  return 2 * x.nbytes / statistics.median(seconds(lambda: jax.block_until_ready(copy(x))) for _ in range(5))


def measure(cases: Sequence[Case], repeats: int) -> list[dict[str, Any]]:
  """A row for each case, which take turns; the first case is what the others' ratios are to."""
  times, shares, peaks = ({case.name: [] for case in cases} for _ in range(3))
  for case in cases:
    case.run()  # compiles what is not compiled, and warms caches
  for repeat in range(repeats):
    before = limit()()
    for case in cases:
      memory.reset_peak()
      times[case.name].append(case.run())
      peaks[case.name].append(memory.peak())
      after = limit()()
      shares[case.name].append(case.flops / times[case.name][-1] / ((before + after) / 2))
      before = after
      say(f"{case.part}: {case.name}, repeat {repeat + 1}/{repeats}: {times[case.name][-1]:.3f} s")
  rows = []
  for case in cases:
    own, first = times[case.name], times[cases[0].name]
    taken = statistics.median(own)
    rows.append(
      {"part": case.part, "name": case.name, **case.about}
      | {"repeats": repeats, "seconds": taken, "seconds_low": min(own), "seconds_high": max(own)}
      | {"genome_epochs_per_second": case.genome_epochs / taken, "gflops": case.flops / taken / 1e9}
      | {"share_of_limit": statistics.median(shares[case.name])}
      | {"share_low": min(shares[case.name]), "share_high": max(shares[case.name])}
      | {"times_the_first": statistics.median(a / b for a, b in zip(own, first, strict=True))}
      | {"peak_bytes": max(peaks[case.name])}
    )
  return rows


@dataclasses.dataclass(frozen=True)
class Prepared:
  """A search about to begin, its step compiled."""

  search: nets_jax.Nets
  task: nets_jax.Task
  layout: nets_jax.Layout
  state: nets_jax.State
  step: Callable
  compile_seconds: float


def make_nets(values: flags.FlagValues) -> nets_jax.Nets:
  """The search that the flags name.

  Raises:
    UsageError: it has no generations that could be timed.
  """
  search = search_flags.make_search(values)
  if not isinstance(search, nets_jax.Nets):
    raise nets_jax.UsageError(f"the benchmark times generations of NeTS, not --search={values.search}")
  return search


def prepare(
  values: flags.FlagValues,
  data: nets_jax.Dataset,
  population: int,
  *,
  devices: int | None = None,
  width: float = 1.0,
  share: float = 1.0,
) -> Prepared:
  """A search whose hidden layers are `width` times as wide as the flags say, on part of the data."""
  kept = int(share * len(data.train))
  data = data.replace(train=jax.tree.map(lambda x: x[:kept], data.train))
  search = make_nets(values)
  search = search.replace(population_size=population, elites=min(search.elites, population - 1))
  network = search_flags.make_network(values, data.num_classes)
  sizes = tuple(max(1, round(width * size)) for size in network.hidden_sizes)
  task = search_flags.make_task(values, data, network.clone(hidden_sizes=sizes))
  search.check(task)
  layout = nets_jax.make_layout(population, devices=devices or values.devices, chunk=values.chunk)
  task = task.for_search(search.precision)
  state = nets_jax.init(nets_jax.key_of_seed(values.seed), task, search, layout)
  task = replicate(task, layout)
  compiled = compile_program(nets_jax.step, state, task, search, layout)
  return Prepared(search, task, layout, state, *compiled)


def generation(part: str, p: Prepared, width: float = 1.0) -> Case:
  """One generation of NeTS."""
  population, examples = p.search.population_size, len(p.task.data.train)
  steps, batch_size = fitness_steps(p.search, p.task), p.task.training.batch_size
  used = p.step.memory_analysis()
  devices = p.layout.mesh.size
  return Case(
    part,
    f"NeTS, population {population}, {devices} device(s), width {width:g}, {examples} examples",
    lambda: seconds(lambda: jax.block_until_ready(p.step(p.state, p.task, p.search))),
    training_flops(nets_jax.take(p.state.population, 0), population * steps * batch_size),
    population * steps / p.task.steps_per_epoch,
    {"population": population, "devices": devices, "width": width, "examples": examples}
    | {"compile_seconds": p.compile_seconds}
    | {"program_bytes": used.argument_size_in_bytes + used.output_size_in_bytes + used.temp_size_in_bytes},
  )


def breeding_cases(values: flags.FlagValues, data: nets_jax.Dataset) -> list[Case]:
  """A generation, and of it what is no training: choosing parents, the operators, fetching the metrics."""
  p = prepare(values, data, values.peer_population)
  whole = generation("breeding", p)
  _, metrics = p.step(p.state, p.task, p.search)
  breed = jax.jit(breeding.breed, static_argnames="layout")
  arguments = (
    p.state.key[None],
    p.state.population,
    metrics.fitness[None],
    stack_settings([p.task], [p.search]),
    p.state.generation + 1,
  )
  program, _ = compile_program(breed, *arguments, p.layout)

  def alone():
    jax.block_until_ready(program(*arguments))
    jax.device_get(metrics)

  return [whole, Case("breeding", "of it selection, operators and host transfers", lambda: seconds(alone))]


def imp_cycle(values: flags.FlagValues, data: nets_jax.Dataset) -> Case:
  """One cycle of IMP, five runs side by side."""
  search = nets_jax.Imp(cycles=1, cycle_epochs=values.imp_epochs)
  task = search_flags.make_task(values, data)
  keys = jax.random.split(nets_jax.key_of_seed(values.seed), IMP_RUNS)

  def run():
    found = search.run(keys, task, devices=values.devices, chunk=values.chunk)
    return IMP_RUNS * found[0].cost.seconds

  ticket = nets_jax.random_ticket(keys[0], task.network, data.input_shape, 1.0)
  samples = IMP_RUNS * search.cycle_epochs * task.steps_per_epoch * task.training.batch_size
  return Case(
    "imp",
    f"IMP, a cycle of {search.cycle_epochs} epochs, {IMP_RUNS} runs",
    run,
    training_flops(ticket, samples),
    IMP_RUNS * search.cycle_epochs,
    {"population": IMP_RUNS, "devices": nets_jax.make_layout(IMP_RUNS, devices=values.devices).mesh.size},
  )


def peer_cases(values: flags.FlagValues, data: nets_jax.Dataset) -> list[Case]:
  """Ours, then what a user would run instead; each peer's losses are held against ours."""
  p = prepare(values, data, values.peer_population)
  network = p.task.network
  if (
    values.optimizer != "sgd" or network.activation != "relu" or not network.use_bias or network.dropout_rate
  ):
    raise nets_jax.UsageError("the peers know sgd, relu, biases and no dropout; name the other --parts")
  shuffle_key, _, _ = generation_keys(p.state.key, p.state.generation)
  batch_size = p.task.training.batch_size
  steps = fitness_steps(p.search, p.task)
  order = np.asarray(minibatch_order(shuffle_key, len(data.train), batch_size, steps))
  population = jax.tree.map(lambda leaf: leaf[: p.layout.size], fetch(p.state.population))
  work = peers.Work(p.task, population, order)
  ours = dataclasses.replace(generation("peers", p), name="nets_jax, a whole generation")
  expected = np.asarray(p.step(p.state, p.task, p.search)[1].valid_loss)
  cases = [ours]
  for name, peer in peers.PEERS.items():
    try:
      run = peer(work)
      found = run()
    except ImportError as error:
      say(f"peers: {name} skipped: {error.name} is not installed; pip install -e '.[bench]'")
      continue
    except RuntimeError as error:
      say(f"peers: {name} skipped, for it failed: {str(error).splitlines()[0]}")
      continue
    apart = float(np.max(np.abs(found - expected)))
    say(f"peers: {name}: validation losses differ from ours by at most {apart:.1e}")
    if not apart < MOST_APART:
      raise RuntimeError(f"{name} does other work than ours: its losses are {found}, ours {expected}")
    about = {"population": p.layout.size, "loss_difference": apart}
    cases.append(Case("peers", name, functools.partial(seconds, run), ours.flops, ours.genome_epochs, about))
  return cases


def limit_row(name: str, repeats: int) -> dict[str, Any]:
  """The machine's own product."""
  rates = [limit()() for _ in range(repeats)]
  times = [PRODUCTS * 2 * flags.FLAGS.limit_side**3 / rate for rate in rates]
  row = {
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


def run(values: flags.FlagValues) -> None:
  """Measures the parts, writing the files after each line."""
  for name in values.parts:
    if name not in PARTS:
      raise nets_jax.UsageError(f"parts may be {', '.join(PARTS)}, not {name!r}")
  try:
    on_cpu = jax.devices()[0].platform == "cpu"
    populations = [int(p) for p in values.populations or ([2, 6, 16, 64, 256] + [1024, 4096] * (not on_cpu))]
  except ValueError as error:
    raise nets_jax.UsageError(f"populations must be whole numbers: {error}") from error
  data = search_flags.make_data(values)
  make_nets(values).check(search_flags.make_task(values, data))
  directory = pathlib.Path(values.workdir or pathlib.Path("runs") / "benchmark")
  write_json(directory / "config.json", {"flags": records.explicit(values), **environment()})

  def one(part, population, width=1.0, **kwargs):
    return [generation(part, prepare(values, data, population, width=width, **kwargs), width)]

  six = values.peer_population
  devices = len(jax.local_devices())
  lines: list[tuple[str, Callable[[], list[Case]]]] = [
    *(("population", lambda p=p: one("population", p)) for p in populations),
    ("breeding", lambda: breeding_cases(values, data)),
    ("imp", lambda: [imp_cycle(values, data)]),
    ("peers", lambda: peer_cases(values, data)),
    *(("scaling", lambda d=d: one("devices", six, devices=d)) for d in doubling(devices)),
    *(("scaling", lambda w=w: one("width", six, width=w)) for w in WIDTHS),
    *(("scaling", lambda s=s: one("examples", six, share=s)) for s in SHARES),
  ]
  rows = table.earlier_rows(directory)
  if "limit" in values.parts:
    rows.append(limit_row("limit, at the start", values.repeats))
  for part, cases in lines:
    if part in values.parts:
      rows += measure(cases(), values.repeats)
      table.write(directory, rows)
  if "limit" in values.parts:
    rows.append(limit_row(table.LIMIT_AT_END, values.repeats))
  table.write(directory, rows)
  print((directory / "benchmark.md").read_text())
  print(f"files in {directory}")


def doubling(most: int) -> list[int]:
  """1, 2, 4, ... and the most."""
  return sorted({2**i for i in range(most.bit_length())} | {most})


def main(argv: list[str]) -> None:
  """Runs the benchmark."""
  del argv
  command.run_main(run)


def parse(argv: list[str]) -> list[str]:
  """Reads the command line."""
  return command.parse(argv, __name__)
