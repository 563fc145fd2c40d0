"""Every ticket search under one signature, with its settings taken from the flags."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from absl import flags

import nets_jax
from nets_jax import config as nets_config
from nets_jax import evolution, halving
from nets_jax.baselines import imp, one_shot, random_tickets
from nets_jax.training import steps_per_epoch

flags.DEFINE_integer("cycles", 7, "imp: times to train and prune.")
flags.DEFINE_float("prune_fraction", 0.2, "imp: share of the remaining weights that a cycle prunes.")
flags.DEFINE_float("output_prune_fraction", 0.1, "imp: that of the output layer, in layer scope.")
flags.DEFINE_enum("prune_scope", "layer", ("layer", "global"), "imp: smallest of each layer, or of all.")
flags.DEFINE_integer("rewind_steps", 0, "imp: iteration k to rewind to.")
flags.DEFINE_float("rewind_epochs", None, "imp: k in epochs, in place of rewind_steps.")
flags.DEFINE_integer("cycle_epochs", 50, "imp: epochs of training in a cycle.")
flags.DEFINE_float("density_deviation", 0.05, "random: deviation of the density; 0 is exactly the target.")
flags.DEFINE_integer("score_batch", 100, "snip, grasp: examples that the score looks at.")
flags.DEFINE_integer(
  "rounds", None, "magnitude, snip, grasp, synflow: pruning rounds; default 1, synflow 100."
)

METHODS = ("nets", "random", "imp", "magnitude", "snip", "grasp", "synflow")

# Flags of nets that only some settings heed: whether these do, and what it takes.
HEEDED = {
  "penalty_weight": (lambda v: v.density_rule == "penalty", "--density_rule=penalty"),
  "density_schedule": (lambda v: v.density_rule == "schedule", "--density_rule=schedule"),
  "dormancy_rate": (
    lambda v: v.density_rule != "schedule" or v.density_schedule == "constant",
    "--density_rule=penalty or feasible, or --density_schedule=constant",
  ),
  "saliency": (lambda v: v.dormancy == "guided", "--dormancy=guided"),
  "awakening_rate": (lambda v: v.dormancy == "guided", "--dormancy=guided"),
  "parents": (lambda v: v.selection == "truncation" or not v.parents, "--selection=truncation"),
  "noise_scale": (lambda v: v.noise_rate > 0, "a --noise_rate above 0"),
  "target_density": (lambda v: v.density_rule != "none", "a --density_rule other than none"),
}


def make_config(method: str, values: flags.FlagValues, num_examples: int) -> Any:
  """The settings of a method, checked: each flag that is a field of its configuration.

  Raises:
    UsageError: an impossible setting.
  """
  kinds = {"nets": nets_jax.NetsConfig, "random": random_tickets.RandomConfig, "imp": imp.ImpConfig}
  kind = kinds.get(method, one_shot.OneShotConfig)
  given = {name: values[name].value for name in kind.__dataclass_fields__ if name in values}
  if method == "imp":
    given["train_epochs"] = values.cycle_epochs
    if values.rewind_epochs is not None:
      given["rewind_steps"] = round(values.rewind_epochs * steps_per_epoch(num_examples, values.batch_size))
  if kind is one_shot.OneShotConfig:
    given["score"] = method
  config = kind(**given)
  if method == "nets":
    nets_config.validate(config, num_examples)
  elif method == "imp":
    imp.validate(config, num_examples)
  elif method == "random":
    random_tickets.validate(config)
  else:
    one_shot.validate(config, num_examples)
  return config


def unheeded(values: flags.FlagValues) -> list[str]:
  """A line for each flag that is not at its default and changes nothing beside the others."""
  if values.method != "nets":
    return []
  return [
    f"--{name}={values[name].value} changes nothing here: it takes {needs}"
    for name, (is_heeded, needs) in HEEDED.items()
    if values[name].value != values[name].default and not is_heeded(values)
  ]


# What comes of a run among others: its result, or why it has none.
Outcome = nets_jax.SearchResult | nets_jax.SearchFailed


def search_all(
  method: str,
  keys: jax.Array,
  network: Any,
  data: nets_jax.Dataset,
  configs: Sequence[Any],
  *,
  devices: int | None = None,
  chunk: int | None = None,
  on_rows: Callable[[list[dict[str, Any]]], None] = lambda rows: None,
  keep_failures: bool = False,
  frontier_size: int = 0,
  on_cycle: Callable[[int, nets_jax.Ticket], None] = lambda cycle, tickets: None,
  checkpoints: nets_jax.Checkpoints | None = None,
) -> list[Outcome]:
  """One ticket for each key, the runs side by side.

  Args:
    method: one of `METHODS`.
    keys, network, data: see `nets_jax.search_all`.
    configs: the settings of each run, from `make_config`; those of all methods but nets must be the same.
    devices, chunk, on_rows, keep_failures, frontier_size: see `nets_jax.search_all`.
    on_cycle: see `imp.search_all`.
    checkpoints: see `nets_jax.search_all`; for nets and imp, all others being done in seconds.
  """
  where = {"devices": devices, "chunk": chunk, "on_rows": on_rows, "keep_failures": keep_failures}
  if method == "nets":
    own = {"frontier_size": frontier_size, "checkpoints": checkpoints}
    return evolution.search_all(keys, network, data, configs, **own, **where)
  if method == "imp":
    own = {"on_cycle": on_cycle, "checkpoints": checkpoints}
    return imp.search_all(keys, network, data, configs[0], **own, **where)
  run = random_tickets.search_all if method == "random" else one_shot.search_all
  return run(keys, network, data, configs[0], **where)


def run_keys(seed: int) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The keys of a run of `experiments.search`: of its search, its controls and its final training."""
  search_key, comparison_key = jax.random.split(nets_jax.key_of_seed(seed))
  return search_key, *jax.random.split(comparison_key)


def search_epochs(method: str, config: Any, num_examples: int) -> float:
  """Genome-epochs of training that a search takes; those few of pruning at initialisation count as none."""
  if method == "nets":
    return halving.genome_epochs(config, num_examples, config.generations + 1)
  if method == "imp":
    per_epoch = steps_per_epoch(num_examples, config.batch_size)
    return config.cycles * config.train_epochs + config.rewind_steps / per_epoch
  return 0.0


def reports(method: str, config: Any, num_examples: int, runs: int = 1) -> int:
  """How many times `on_rows` is called, for a progress bar."""
  if method == "nets":
    return config.generations + 1
  if method == "imp":
    per_epoch = steps_per_epoch(num_examples, config.batch_size)
    return config.cycles * config.train_epochs + -(-config.rewind_steps // per_epoch)
  return runs
