"""What the benchmark times: generations of NeTS, what of them is no training, cycles of IMP."""

import dataclasses
from collections.abc import Callable

import jax
from absl import flags

import nets_jax
from experiments.benchmarking.limits import seconds
from experiments.benchmarking.table import Row
from nets_jax.cli import setting_flags as search_flags
from nets_jax.engine.layouts import compile_program, replicate
from nets_jax.evolution import breeding
from nets_jax.evolution.configuration import fitness_steps, stack_settings
from nets_jax.evolution.generation import State, init, step
from nets_jax.tickets.ticket import layers_of

IMP_RUNS = 5


@dataclasses.dataclass(frozen=True)
class Case:
  """Something to time.

  Attributes:
    part, name: where it belongs, and what it is.
    run: does it once, results computed, and says how many seconds that took.
    flops, genome_epochs: the work in it.
    about: further columns of its row.
    is_cold: whether compiling counts, so that nothing is gained by a first run.
  """

  part: str
  name: str
  run: Callable[[], float]
  flops: float = 0.0
  genome_epochs: float = 0.0
  about: Row = dataclasses.field(default_factory=dict)
  is_cold: bool = False


def training_flops(ticket: nets_jax.Ticket, samples: int) -> int:
  """Flops of training an MLP ticket's network on this many samples, masks not made use of."""
  sizes = [layer.size for layer in layers_of(ticket)]
  return samples * (6 * sum(sizes) - 2 * sizes[0])


@dataclasses.dataclass(frozen=True)
class Prepared:
  """A search about to begin, its step compiled."""

  search: nets_jax.Nets
  task: nets_jax.Task
  layout: nets_jax.Layout
  state: State
  step: jax.stages.Compiled
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
  precision: str | None = None,
) -> Prepared:
  """A search whose hidden layers are `width` times as wide as the flags say, on part of the data.

  At a precision, or the flags'. Every generation is of the whole population, scored on all examples.
  """
  kept = int(share * len(data.train))
  data = data.replace(train=data.train.take(slice(kept)))
  search = make_nets(values)
  search = search.replace(
    population_size=population,
    elites=min(search.elites, population - 1),
    halvings=0,
    valid_examples=0,
    precision=precision or search.precision,
  )
  network = search_flags.make_network(values, data.num_classes)
  if not isinstance(network, nets_jax.MLP):
    raise nets_jax.UsageError(f"the benchmark is of fully connected networks, not --network={values.network}")
  sizes = tuple(max(1, round(width * size)) for size in network.hidden_sizes)
  task = search_flags.make_task(values, data, network.clone(hidden_sizes=sizes))
  search.check(task)
  layout = nets_jax.make_layout(population, devices=devices or values.devices, chunk=values.chunk)
  task = task.for_search(search.precision)
  state = init(nets_jax.key_of_seed(values.seed), task, search, layout)
  task = replicate(task, layout)
  program = jax.jit(step, static_argnames=("layout",))
  compiled = compile_program(program, state, task, search, layout)
  return Prepared(search, task, layout, state, *compiled)


def generation(part: str, p: Prepared, width: float = 1.0) -> Case:
  """One generation of NeTS."""
  population, examples = p.search.population_size, len(p.task.data.train)
  steps, batch_size = fitness_steps(p.search, p.task), p.task.training.batch_size
  used = p.step.memory_analysis()
  memory = (
    {}
    if used is None
    else {"program_bytes": used.argument_size_in_bytes + used.output_size_in_bytes + used.temp_size_in_bytes}
  )
  devices = p.layout.mesh.size
  return Case(
    part,
    f"NeTS, population {population}, {devices} device(s), width {width:g}, {examples} examples",
    lambda: seconds(lambda: jax.block_until_ready(p.step(p.state, p.task, p.search))),
    training_flops(nets_jax.take(p.state.population, 0), population * steps * batch_size),
    population * steps / p.task.steps_per_epoch,
    {"population": population, "devices": devices, "width": width, "examples": examples}
    | {"compile_seconds": p.compile_seconds}
    | memory,
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

  def breed_and_fetch():
    jax.block_until_ready(program(*arguments))
    jax.device_get(metrics)

  return [
    whole,
    Case("breeding", "of it selection, operators and host transfers", lambda: seconds(breed_and_fetch)),
  ]


def imp_cycle(values: flags.FlagValues, data: nets_jax.Dataset) -> Case:
  """One cycle of IMP, five runs side by side."""
  search = nets_jax.Imp(cycles=1, cycle_epochs=values.imp_epochs)
  task = search_flags.make_task(values, data)
  keys = jax.random.split(nets_jax.key_of_seed(values.seed), IMP_RUNS)

  def run():
    results = search.run(keys, task, devices=values.devices, chunk=values.chunk)
    return IMP_RUNS * results[0].cost.seconds

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
