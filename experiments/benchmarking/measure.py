r"""Speed, memory and scaling beside the machine's own matrix product and what a user would run instead.

  pip install -e '.[bench]'
  python -m experiments.benchmark --flagfile=experiments/presets/paper_mnist.flags

Parts (--parts), medians over --repeats; where it is not said, compilation and a first run stand apart:

- `limit`: the rate of a float32 2048 x 2048 x 2048 product on all cores, at the start and at the end; and of
  a bfloat16 one where the machine has such products.
- `population`: one generation of NeTS at several population sizes.
- `breeding`: selection and the genetic operators alone.
- `imp`: a cycle of five runs side by side.
- `peers`: the same training in PyTorch and plain JAX; in bfloat16 too where the machine has such products.
- `scaling`: a generation against devices, network width and size of the data set.
- `networks`: a training step of convolutional networks beside PyTorch's.
- `guided`: a halved search at 5 % from its beginning to its end, beside as many genome-epochs of the paper's.
- `compact`: the final training of its tickets by density, without their dead units and as they are, each with
  what it compiles.

Every repeat is timed between two measurements of the limit, and its share is its rate over their mean,
for machines drift. Peers take turns within a repeat; their ratios are medians of ratios within repeats.

A generation's work is counted as that of its training alone: 6 flops for each maskable weight and sample
(forward, input gradient, weight gradient, 2 each), less the first layer's input gradient. Shuffles,
evaluation and the genetic operators take time here and count as no work.

Files: benchmark.csv, benchmark.md and figure_benchmark.png in --workdir, written anew after each line. Lines
that an earlier run left there are kept, unless they are measured again.
"""

import functools
import pathlib
import statistics
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from absl import flags

import nets_jax
from experiments.benchmarking import memory, table
from experiments.benchmarking.cases import Case, breeding_cases, generation, imp_cycle, make_nets, prepare
from experiments.benchmarking.limits import Limit, multiplies_bfloat16
from experiments.benchmarking.network_cases import SETTINGS, network_cases
from experiments.benchmarking.peer_cases import peer_cases
from experiments.benchmarking.search_cases import TICKETS, compact_cases, guided_cases
from experiments.benchmarking.table import Row
from nets_jax.cli import command, records
from nets_jax.cli import setting_flags as search_flags
from nets_jax.engine.messages import say
from nets_jax.engine.tables import write_json
from nets_jax.studies.run_files import environment

flags.adopt_module_key_flags(search_flags)
PARTS = ("limit", "population", "breeding", "imp", "peers", "scaling", "networks", "guided", "compact")
REPEATS = flags.DEFINE_integer("repeats", 5, "Times that each line is timed.")
flags.DEFINE_list("parts", list(PARTS), f"What to measure, of {', '.join(PARTS)}.")
flags.DEFINE_list("populations", None, "Population sizes; default 2 to 256, on accelerators 4096.")
flags.DEFINE_integer("peer_population", 6, "Genomes of the peers, and of the scaling.")
flags.DEFINE_integer("limit_side", 2048, "Rows and columns of the limit's matrices.")
flags.DEFINE_list(
  "convolutional", list(SETTINGS), f"Networks of the part networks, of {', '.join(SETTINGS)}."
)
flags.DEFINE_integer("imp_epochs", 2, "Epochs of the IMP cycle.")
flags.DEFINE_integer("compact_epochs", 50, "Epochs of the trainings of the part compact.")

WIDTHS = (0.5, 1, 2, 4)
SHARES = (0.25, 0.5, 1.0)


def measure(cases: Sequence[Case], repeats: int, limit: Callable[[], float]) -> list[Row]:
  """A row for each case, which take turns; the first case is what the others' ratios are to.

  Args:
    cases: of one part.
    repeats: times that each is timed.
    limit: measures the machine's rate at a large product, in flop/s.
  """
  times, shares, peaks = ({case.name: [] for case in cases} for _ in range(3))
  for case in (case for case in cases if not case.is_cold):
    case.run()  # compiles what is not compiled, and warms caches
  for repeat in range(repeats):
    before = limit()
    for case in cases:
      memory.reset_peak()
      times[case.name].append(case.run())
      peaks[case.name].append(memory.peak())
      after = limit()
      shares[case.name].append(case.flops / times[case.name][-1] / ((before + after) / 2))
      before = after
      say(f"{case.part}: {case.name}, repeat {repeat + 1}/{repeats}: {times[case.name][-1]:.3f} s")
  first = times[cases[0].name]
  return [
    _row(case, times[case.name], first, shares[case.name]) | {"peak_bytes": max(peaks[case.name])}
    for case in cases
  ]


def _row(case: Case, times: Sequence[float], first: Sequence[float], shares: Sequence[float]) -> Row:
  """A case's line: medians over the repeats, and its times over those of the first case."""
  taken = statistics.median(times)
  return (
    {"part": case.part, "name": case.name, **case.about}
    | {"repeats": len(times), "seconds": taken, "seconds_low": min(times), "seconds_high": max(times)}
    | {"genome_epochs_per_second": case.genome_epochs / taken, "gflops": case.flops / taken / 1e9}
    | {"share_of_limit": statistics.median(shares), "share_low": min(shares), "share_high": max(shares)}
    | {"times_the_first": statistics.median(a / b for a, b in zip(times, first, strict=True))}
  )


def lines(
  values: flags.FlagValues, data: nets_jax.Dataset, populations: Sequence[int]
) -> list[tuple[str, Callable[[], list[Case]]]]:
  """What there is to time, in order: the part of each line, and a function that prepares it."""
  timed = functools.partial(_generation, values, data)
  few = values.peer_population
  counts = doubling(len(jax.local_devices()))
  return [
    *(("population", functools.partial(timed, "population", size)) for size in populations),
    ("breeding", lambda: breeding_cases(values, data)),
    ("imp", lambda: [imp_cycle(values, data)]),
    ("peers", lambda: peer_cases(values, data)),
    *(("scaling", functools.partial(timed, "devices", few, devices=count)) for count in counts),
    *(("scaling", functools.partial(timed, "width", few, width=width)) for width in WIDTHS),
    *(("scaling", functools.partial(timed, "examples", few, share=share)) for share in SHARES),
    *(("networks", functools.partial(network_cases, name, values.devices)) for name in values.convolutional),
    ("guided", lambda: guided_cases(values, data)),
    *(
      ("compact", functools.partial(compact_cases, values, data, density, structured))
      for density, exponents in TICKETS.items()
      for structured in exponents
    ),
  ]


def _generation(
  values: flags.FlagValues,
  data: nets_jax.Dataset,
  part: str,
  population: int,
  *,
  devices: int | None = None,
  width: float = 1.0,
  share: float = 1.0,
) -> list[Case]:
  prepared = prepare(values, data, population, devices=devices, width=width, share=share)
  return [generation(part, prepared, width)]


def run(values: flags.FlagValues) -> None:
  """Measures the parts, writing the files after each line."""
  for name in values.parts:
    if name not in PARTS:
      raise nets_jax.UsageError(f"parts may be {', '.join(PARTS)}, not {name!r}")
  for name in values.convolutional:
    if name not in SETTINGS:
      raise nets_jax.UsageError(f"convolutional may be {', '.join(SETTINGS)}, not {name!r}")
  try:
    on_cpu = jax.devices()[0].platform == "cpu"
    populations = [int(p) for p in values.populations or ([2, 6, 16, 64, 256] + [1024, 4096] * (not on_cpu))]
  except ValueError as error:
    raise nets_jax.UsageError(f"populations must be whole numbers: {error}") from error
  data = search_flags.make_data(values)
  make_nets(values).check(search_flags.make_task(values, data))
  directory = pathlib.Path(values.workdir or pathlib.Path("runs") / "benchmark")
  write_json(directory / "config.json", {"flags": records.explicit(values), **environment()})

  rows = table.earlier_rows(directory)
  limit = Limit(values.limit_side)
  if "limit" in values.parts:
    rows.append(limit.row("limit, at the start", values.repeats))
    if multiplies_bfloat16():
      rows.append(Limit(values.limit_side, jnp.bfloat16).row("limit in bfloat16", values.repeats))
  for part, cases in lines(values, data, populations):
    if part in values.parts:
      rows += measure(cases(), values.repeats, limit)
      table.write(directory, rows)
  if "limit" in values.parts:
    rows.append(limit.row(table.LIMIT_AT_END, values.repeats))
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
