"""The flags that describe a search, and the library's objects made from their values.

The defaults are guided NeTS (`presets/guided_digits.flags`) with a training that suits the digits; `presets/`
has the paper's search and settings too.
"""

import copy
import hashlib
import math
import os
import pathlib
import re
from collections.abc import Iterable, Mapping

from absl import flags

import nets_jax
from experiments import methods
from experiments.scale_flag import ScaleParser, ScaleSerializer
from nets_jax import config, guidance, layers, networks, operators, training
from nets_jax.errors import suggest
from nets_jax.files import replace_file
from nets_jax.seeds import check_seed

flags.DEFINE_enum("method", "nets", methods.METHODS, "The ticket search.")
flags.DEFINE_string(
  "dataset", "digits", "xor, digits, or the name of a TFDS image classification set (mnist, ...)."
)
flags.DEFINE_integer("seed", 0, "Seed of everything but the data split, from 0 to 2^64 - 1.")
flags.DEFINE_string(
  "workdir",
  None,
  "Directory of the run's files; default runs/<dataset>-<method>-seed<seed>, of --ticket "
  "runs/<dataset>-ticket-<hash>-seed<seed>.",
)
flags.DEFINE_bool(
  "overwrite", False, "Remove the run that workdir holds first, unless it is this one, unfinished."
)
flags.DEFINE_string("ticket", None, "A ticket file to train again, in place of a search.")
flags.DEFINE_bool("tensorboard", False, "Write TensorBoard event files beside a run's other files.")

flags.DEFINE_integer(
  "checkpoint_every", 1, "Generations, or epochs of a training, between checkpoints; 0 makes none."
)
flags.DEFINE_float("checkpoint_seconds", 30.0, "Least seconds between two checkpoints.")

flags.DEFINE_enum("network", "mlp", ("mlp", "lenet_300_100"), "The network.")
flags.DEFINE_list("hidden_sizes", ["100", "50"], "Units of each hidden layer of an mlp.")
flags.DEFINE_enum("activation", "relu", ("relu", "sigmoid", "tanh"), "Activation of the hidden layers.")
flags.DEFINE_bool("use_bias", True, "Whether layers have bias vectors (trained, never masked).")
flags.DEFINE_float("dropout_rate", 0.0, "Probability that training silences a hidden unit.")

flags.DEFINE_integer("generations", 12, "Generations after the first population.")
flags.DEFINE_integer("population_size", 16, "Genomes in the population.")
flags.DEFINE_integer("elites", 1, "Best genomes that go on unchanged.")
flags.DEFINE_enum("selection", "truncation", operators.SELECTIONS, "How parents are drawn.")
flags.DEFINE_integer("parents", 2, "truncation: how many of the best are drawn from; 0 is half of them.")
flags.DEFINE_float("crossover_rate", 0.5, "Probability that a gene comes from parent 1.")
flags.DEFINE_float("noise_rate", 0.0, "Probability that a weight gets noise.")
flags.DEFINE_float("noise_scale", 0.1, "Standard deviation of the noise.")
flags.DEFINE_float("resample_rate", 0.0, "Probability that a weight is drawn anew.")
flags.DEFINE_float(
  "dormancy_rate", 0.02, "Probability that a gene falls dormant, where no schedule says how many do."
)
flags.DEFINE_enum("dormancy", "guided", config.DORMANCIES, "Which genes fall dormant: guided is by saliency.")
flags.DEFINE_enum("saliency", "taylor", guidance.SALIENCIES, "What a training tells of a gene.")
flags.DEFINE_enum(
  "dormancy_scope", "global", guidance.SCOPES, "Genes of all layers ranked together, or of each."
)
flags.DEFINE_float("awakening_rate", 0.0, "Share of a child's genes that are dormant ones awakened; guided.")
flags.DEFINE_float("scale_deviation", 2.0, "Deviation of a log-normal factor of each layer, at first.")
flags.DEFINE_float("final_scale_deviation", 0.2, "That in the last generation, with a straight line between.")
flags.DEFINE(
  ScaleParser(),
  "init_scale",
  0.1,
  "Standard deviation of initial weights; one number, or one for each layer with commas or slashes between.",
  serializer=ScaleSerializer(),
)
flags.DEFINE_float("initial_density", 1.0, "Probability that a gene is expressed at first.")
flags.DEFINE_float("target_density", 0.2, "Density that the penalty aims at, in (0, 1].")
flags.DEFINE_float("penalty_weight", 1.0, "penalty: factor of the density penalty.")
flags.DEFINE_enum(
  "density_rule",
  "schedule",
  config.DENSITY_RULES,
  "penalty; feasible, by which what is too dense loses; schedule, which sets the density too; or none.",
)
flags.DEFINE_enum("density_schedule", "geometric", guidance.SCHEDULES, "How a schedule's density falls.")
flags.DEFINE_enum(
  "objectives",
  "fitness",
  config.OBJECTIVES,
  "What orders the genomes: fitness, or pareto: non-dominated rank and crowding in density and loss.",
)
flags.DEFINE_integer(
  "frontier", 32, "nets: most tickets to keep of those that no other dominates in density and loss; 0 none."
)
flags.DEFINE_integer("patience", None, "Stop after more than this many generations without a better fitness.")
flags.DEFINE_float("fitness_epochs", 0.25, "Epochs of training in a fitness evaluation; fractions too.")
flags.DEFINE_integer("halvings", 0, "How often the population is halved and fitness_epochs doubled.")
flags.DEFINE_bool("retain_weights", False, "Put trained weights back into the genome (Lamarckian).")

flags.DEFINE_enum("optimizer", "sgd", tuple(training.OPTIMIZERS), "Optimiser of every training.")
flags.DEFINE_enum(
  "precision", "float32", tuple(networks.PRECISIONS), "Of the matrix products in a search's training."
)
flags.DEFINE_float("learning_rate", 0.1, "Learning rate of every training.")
flags.DEFINE_integer("batch_size", 16, "Examples in a minibatch.")
flags.DEFINE_integer("train_epochs", 50, "Epochs of the final training; 0 searches only.")
flags.DEFINE_integer("eval_every", None, "Iterations between its evaluations; default an epoch.")

flags.DEFINE_integer("devices", None, "Devices to use; default all: one per core on a CPU.")
flags.DEFINE_integer(
  "chunk", None, "Genomes an accelerator trains at once; default all. A CPU core takes one."
)
flags.DEFINE_string(
  "compilation_cache_dir",
  None,
  "Where compiled programs are kept for the next run; default the user's cache directory, '' nowhere.",
)
flags.DEFINE_string("data_dir", None, "Where TFDS keeps its sets; default ~/tensorflow_datasets.")
flags.DEFINE_string(
  "mnist_manual_dir", None, "Original files of the set; default NETS_JAX_MNIST_DIR, for mnist."
)
flags.DEFINE_integer("data_seed", 0, "Seed of the data split, and of the points of xor.")
flags.DEFINE_integer("xor_train_size", 1000, "Points of xor to train and validate on.")
flags.DEFINE_integer("xor_test_size", 1000, "Points of xor to test on.")


def explain(error: flags.Error) -> str:
  """What is wrong with a flag on one line, with the nearest value it could have."""
  text = " ".join(str(error).split())
  wrong = re.match(r"flag --(\w+)=(.*?): ", text)
  if not wrong or wrong[1] not in flags.FLAGS:
    return text
  parser = flags.FLAGS[wrong[1]].parser
  if isinstance(parser, flags.EnumParser):
    return text + suggest(wrong[2], parser.enum_values)
  kinds = {
    flags.IntegerParser: "a whole number",
    flags.FloatParser: "a number",
    flags.BooleanParser: "true or false",
    ScaleParser: "a number, or one for each layer",
  }
  return f"{wrong[0]}it must be {kinds[type(parser)]}" if type(parser) in kinds else text


SEEDS = ("seed", "data_seed", "random_seed")


def check_common(values: flags.FlagValues) -> None:
  """Raises UsageError for impossible seeds or checkpoints."""
  for name in SEEDS:
    if name in values:
      check_seed(name, values[name].value)
  for name in ("checkpoint_every", "checkpoint_seconds"):
    if not 0 <= values[name].value < math.inf:
      raise nets_jax.UsageError(f"{name} must be at least 0, not {values[name].value}")


def as_dict(values: flags.FlagValues) -> dict:
  """Every flag of a search with its value."""
  modules = values.flags_by_module_dict()
  return {flag.name: flag.value for name in (__name__, methods.__name__) for flag in modules[name]}


# What says where and how to run, but not what.
PLACES = (
  "method",
  "seed",
  "workdir",
  "overwrite",
  "tensorboard",
  "frontier",
  "checkpoint_every",
  "checkpoint_seconds",
  "ticket",
  "devices",
  "chunk",
  "compilation_cache_dir",
  "data_dir",
  "mnist_manual_dir",
)


def settings(values: flags.FlagValues) -> dict:
  """The flags that, with the method and the seed, decide a run's results."""
  return {name: value for name, value in as_dict(values).items() if name not in PLACES}


def relevant_settings(values: flags.FlagValues) -> dict:
  """The flags that, with the method, decide results: `settings` and the seed."""
  return {"seed": values.seed, **settings(values)}


def deciding(values: flags.FlagValues) -> dict:
  """The flags that decide a run's results."""
  return settings(values) | {name: values[name].value for name in ("method", "seed", "ticket")}


def changed(values: flags.FlagValues, changes: Mapping[str, str]) -> flags.FlagValues:
  """A copy of the flags with other values for some, as they would be written on the command line.

  Raises:
    UsageError: no such setting, or a value it cannot have.
  """
  copied = copy.deepcopy(values)
  for name, value in changes.items():
    if name not in settings(values):
      raise nets_jax.UsageError(f"there is no setting {name!r}{suggest(name, settings(values))}")
    try:
      copied[name].parse(value)
    except flags.Error as error:
      raise nets_jax.UsageError(explain(error)) from error
  return copied


def flagfile(values: flags.FlagValues, names: Iterable[str]) -> str:
  """The text of a flagfile that gives these flags the values they have; those not set are left out."""
  lines = [values[name].serialize() for name in names if values[name].value is not None]
  return "\n".join(lines) + "\n"


def leave_flagfile(path: os.PathLike, values: flags.FlagValues, names: Iterable[str]) -> str:
  """Writes the flagfile that repeats a run, but for where its files go; returns the flag that reads it."""
  with replace_file(path) as temporary:
    temporary.write_text(flagfile(values, [name for name in names if name not in ("workdir", "overwrite")]))
  return f"--flagfile={path}"


def make_data(values: flags.FlagValues) -> nets_jax.Dataset:
  """The data set that the flags name."""
  return nets_jax.load_data(
    values.dataset,
    seed=values.data_seed,
    data_dir=values.data_dir,
    manual_dir=values.mnist_manual_dir,
    xor_train_size=values.xor_train_size,
    xor_test_size=values.xor_test_size,
  )


def make_network(values: flags.FlagValues, num_classes: int) -> nets_jax.MLP:
  """The network that the flags name."""
  try:
    hidden_sizes = tuple(int(size) for size in values.hidden_sizes)
  except ValueError as error:
    raise nets_jax.UsageError(
      f"hidden_sizes must be whole numbers with commas between, not {','.join(values.hidden_sizes)}"
    ) from error
  return nets_jax.make_network(
    values.network,
    num_classes,
    hidden_sizes,
    use_bias=values.use_bias,
    activation=values.activation,
    dropout_rate=values.dropout_rate,
  )


def checked_network(values: flags.FlagValues, data: nets_jax.Dataset) -> nets_jax.MLP:
  """The network that the flags name, with as many numbers in `init_scale` as it has layers.

  Raises:
    UsageError: an impossible network, another number, or too few outputs for the data.
  """
  network = make_network(values, data.num_classes)
  networks.check_outputs(network, data.input_shape, data.num_classes)
  layers.scale_of_each(values.init_scale, layers.find_layers(network, data.input_shape))
  return network


def network_of_ticket(values: flags.FlagValues, path: str) -> nets_jax.MLP:
  """The network that a ticket's file says it is for.

  Raises:
    UsageError: a flag that is given says otherwise.
  """
  network = nets_jax.load_network(path)
  wanted = make_network(values, network.num_classes)
  is_mlp = values.network == "mlp"
  fields = {name: name for name in ("activation", "use_bias", "dropout_rate")}
  fields |= {"hidden_sizes": "hidden_sizes"} if is_mlp else {"network": "hidden_sizes"}
  for flag, field in fields.items():
    there, here = getattr(network, field), getattr(wanted, field)
    if values[flag].present and there != here:
      raise nets_jax.UsageError(
        f"{path} is for a network of {field} {there}, not {here}; leave --{flag} out, or give another ticket"
      )
  return network


def check_training(values: flags.FlagValues) -> None:
  """Raises UsageError for an impossible final training, or too few tickets to keep."""
  for name, least in (("train_epochs", 0), ("eval_every", 1), ("frontier", 0)):
    if values[name].value is not None and values[name].value < least:
      raise nets_jax.UsageError(f"{name} must be at least {least}, not {values[name].value}")


def workdir(values: flags.FlagValues) -> str:
  """The directory of the run's files; by default named by what is run, a ticket by a hash of its file."""
  if values.workdir:
    return values.workdir
  what = values.method
  if values.ticket:
    path = pathlib.Path(values.ticket)
    content = path.read_bytes() if path.is_file() else str(path).encode()
    what = f"ticket-{hashlib.sha256(content).hexdigest()[:8]}"
  return os.path.join("runs", f"{values.dataset}-{what}-seed{values.seed}")
