r"""Finds a winning ticket and shows what it is worth: the main job.

  python -m experiments.search

evolves a ticket for the digits that come with scikit-learn, then trains it, a random ticket of the
same density and the dense network alike, and prints how they compare; about a minute on two cores.

  python -m experiments.search --flagfile=experiments/presets/paper_mnist.flags

is the paper's search on MNIST (section 3.4; Figure 1 and the NeTS column of Table 1).

Files in the run's directory: config.json, history.csv, ticket.safetensors, figure_evolution.png,
training.csv and summary.json. The directory holds one run; --overwrite replaces it.
"""

import dataclasses
import sys

import jax
from absl import app, flags
from tqdm import tqdm

import nets_jax
from experiments import flags as search_flags
from experiments.run_directory import RunDirectory, say
from nets_jax import nets, plots, storage
from nets_jax.tickets import check_fits

flags.adopt_module_key_flags(search_flags)  # so that --help lists them

RESULT_COLUMNS = ("density", "valid_loss", "valid_accuracy", "test_loss", "test_accuracy")


@dataclasses.dataclass(frozen=True)
class Job:
  """All that a run needs, checked before anything is written."""

  network: nets_jax.MLP
  data: nets_jax.Dataset
  config: nets_jax.NetsConfig
  directory: RunDirectory
  ticket: nets_jax.Ticket | None
  train_epochs: int
  devices: int | None
  chunk: int | None

  def layout(self, size: int) -> nets_jax.Layout:
    """Where `size` tickets go."""
    return nets_jax.make_layout(size, devices=self.devices, chunk=self.chunk)


def make_job(values: flags.FlagValues) -> Job:
  """Reads the flags, loads the data and the ticket, and checks that they go together."""
  directory = RunDirectory(search_flags.workdir(values), values.overwrite)
  config = search_flags.make_config(values)
  ticket = nets_jax.load_ticket(values.ticket) if values.ticket else None
  data = search_flags.make_data(values)
  network = search_flags.make_network(values, data.num_classes)
  nets.validate(config, len(data.train))
  if values.train_epochs < 0:
    raise nets_jax.UsageError(f"train_epochs must not be negative, but is {values.train_epochs}")
  if ticket is not None:
    check_fits(ticket, network, data.input_shape)
  job = Job(network, data, config, directory, ticket, values.train_epochs, values.devices, values.chunk)
  job.layout(config.population_size)
  return job


def find(key: jax.Array, job: Job) -> nets_jax.SearchResult:
  """Searches for a ticket, with a progress bar, and writes what was found."""
  total = job.config.generations + 1
  with tqdm(total=total, desc="nets", unit="generation", disable=not sys.stderr.isatty()) as bar:

    def show(rows):
      best = min(rows, key=lambda row: row["fitness"])
      shown = {name: f"{best[name]:.3f}" for name in ("fitness", "valid_loss", "density")}
      shown["s/generation"] = f"{best['seconds'] / (best['generation'] + 1):.2f}"
      bar.set_postfix(shown)
      bar.update()
      if bar.disable:
        say(
          f"generation {best['generation']}/{total - 1}: " + ", ".join(f"{k} {v}" for k, v in shown.items())
        )

    layout = job.layout(job.config.population_size)
    say(f"compiling the search on {layout.mesh.size} {jax.devices()[0].device_kind} device(s)")
    result = nets_jax.search(key, job.network, job.data, job.config, layout=layout, on_generation=show)
  storage.write_csv(job.directory / "history.csv", result.history)
  figure = plots.evolution_figure(storage.read_csv(job.directory / "history.csv"), job.config.target_density)
  plots.save_figure(figure, job.directory / "figure_evolution.png")
  return result


def compare(key: jax.Array, name: str, ticket: nets_jax.Ticket, job: Job) -> dict[str, dict[str, float]]:
  """Trains the ticket, a random one of its density and the dense network alike; writes training.csv."""
  if job.train_epochs == 0:
    return {}
  control_key, training_key = jax.random.split(key)
  shape, scale = job.data.input_shape, job.config.init_scale
  random, dense = (
    nets_jax.random_ticket(control_key, job.network, shape, density, init_scale=scale)
    for density in (float(nets_jax.density(ticket)), 1.0)
  )
  tickets = {name: ticket, "random": random, "dense": dense}
  say(f"training {', '.join(tickets)} for {job.train_epochs} epochs")
  with tqdm(total=job.train_epochs, desc="training", unit="epoch", disable=not sys.stderr.isatty()) as bar:
    _, curves = nets_jax.train_tickets(
      training_key,
      job.network,
      nets_jax.stack(list(tickets.values())),
      job.data,
      epochs=job.train_epochs,
      optimizer=job.config.optimizer,
      learning_rate=job.config.learning_rate,
      batch_size=job.config.batch_size,
      layout=job.layout(len(tickets)),
      on_epoch=lambda rows: bar.update(),
    )
  names = list(tickets)
  storage.write_csv(
    job.directory / "training.csv", [{**row, "ticket": names[row["ticket"]]} for row in curves]
  )
  last = curves[-len(tickets) :]
  return {
    name: {"density": float(nets_jax.density(tickets[name]))} | {c: row[c] for c in RESULT_COLUMNS[1:]}
    for name, row in zip(names, last, strict=True)
  }


def run(values: flags.FlagValues) -> None:
  """One run, from flags to files; a run that finds nothing leaves nothing."""
  job = make_job(values)
  job.directory.open(search_flags.as_dict(values))
  try:
    run_job(job, values.seed, values.method)
  except nets_jax.UsageError:
    job.directory.discard_if_empty()
    raise


def run_job(job: Job, seed: int, method: str) -> None:
  """Search, comparison, files, table."""
  search_key, comparison_key = jax.random.split(jax.random.key(seed))
  if job.ticket is None:
    result, name = find(search_key, job), method
  else:
    result, name = nets_jax.SearchResult(job.ticket, [], nets_jax.Cost(0.0, 0.0, 0.0)), "ticket"
  storage.save_ticket(job.directory / "ticket.safetensors", result.ticket, job.network)
  results = compare(comparison_key, name, result.ticket, job)
  summary = {
    "results": results,
    "search_seconds": result.cost.seconds,
    "compile_seconds": result.cost.compile_seconds,
    "search_epochs": result.cost.epochs,
    "best": min(result.history, key=lambda row: row["fitness"], default=None),
    "density": float(nets_jax.density(result.ticket)),
    "layer_densities": {k: float(v) for k, v in nets_jax.layer_densities(result.ticket).items()},
  }
  storage.write_json(job.directory / "summary.json", summary)
  print(table(results, summary))
  print(f"\nfiles in {job.directory.path}")


def table(results: dict[str, dict[str, float]], summary: dict) -> str:
  """The run's outcome as text: a row for each trained network."""
  lines = [
    f"search: {summary['search_seconds']:.1f} s, {summary['search_epochs']:.0f} genome-epochs "
    f"(and {summary['compile_seconds']:.1f} s of compilation); ticket of density {summary['density']:.1%}"
  ]
  if results:
    lines += [
      "",
      f"{'':8}{'density':>9}{'valid loss':>12}{'test loss':>11}{'test accuracy':>15}{'search s':>10}",
    ]
  for i, (name, row) in enumerate(results.items()):
    seconds = summary["search_seconds"] if i == 0 else 0.0
    lines.append(
      f"{name:8}{row['density']:>9.1%}{row['valid_loss']:>12.3f}{row['test_loss']:>11.3f}"
      f"{row['test_accuracy']:>15.1%}{seconds:>10.1f}"
    )
  return "\n".join(lines)


def main(argv: list[str]) -> None:
  """Runs the job."""
  del argv
  search_flags.run_main(run)


if __name__ == "__main__":
  app.run(main, flags_parser=search_flags.parse)
