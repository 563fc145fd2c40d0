"""`--help`: what a binary does and its flags by group, each with its default."""

import sys
import textwrap
from collections.abc import Sequence

from absl import flags

# The flags that several binaries share, in the order in which they are shown. A binary's own come first.
GROUPS = {
  "what to run": ("method", "dataset", "seed", "workdir", "overwrite", "ticket", "list", "tensorboard"),
  "network": ("network", "hidden_sizes", "activation", "use_bias", "dropout_rate"),
  "search": (
    "generations", "population_size", "elites", "selection", "parents", "patience", "objectives", "frontier",
  ),
  "other searches": (
    "cycles", "prune_fraction", "output_prune_fraction", "prune_scope", "rewind_steps", "rewind_epochs",
    "cycle_epochs", "density_deviation", "score_batch", "rounds",
  ),
  "genetic operators": ("crossover_rate", "noise_rate", "noise_scale", "resample_rate", "dormancy_rate"),
  "guided dormancy": ("dormancy", "saliency", "dormancy_scope", "awakening_rate"),
  "layer scales": ("scale_deviation", "final_scale_deviation"),
  "first population": ("init_scale", "initial_density"),
  "fitness": (
    "fitness_epochs", "halvings", "target_density", "density_rule", "density_schedule", "penalty_weight",
    "retain_weights",
  ),
  "training": ("optimizer", "learning_rate", "batch_size", "train_epochs", "eval_every"),
  "machine": ("devices", "chunk", "precision", "compilation_cache_dir"),
  "if it stops": ("checkpoint_every", "checkpoint_seconds"),
  "several hosts": ("coordinator_address", "num_processes", "process_id", "distributed"),
  "data": ("data_dir", "mnist_manual_dir", "data_seed", "xor_train_size", "xor_test_size"),
}  # fmt: skip
WIDTH, INDENT = 100, 30


def asked_for(arguments: Sequence[str]) -> bool:
  """Whether a command line asks for help."""
  return any(a in ("-h", "-help", "--help", "-helpshort", "--helpshort") for a in arguments)


def text(values: flags.FlagValues) -> str:
  """The running program's documentation, then its flags."""
  known = {flag.name: flag for flag in values.get_key_flags_for_module(sys.argv[0])}
  shared = {name for names in GROUPS.values() for name in names}
  groups = {"this command's own": [name for name in known if name not in shared], **GROUPS}
  lines = [(sys.modules["__main__"].__doc__ or "").strip()]
  for title, names in groups.items():
    own = [name for name in names if name in known]
    if own:
      lines += ["", f"{title}:", *(_entry(known[name]) for name in own)]
  return "\n".join([*lines, "", "--flagfile=FILE reads flags from a file; --helpfull lists absl's own too."])


def _entry(flag: flags.Flag) -> str:
  """A flag with its default, and what it means."""
  if flag.boolean:
    head = f"--[no]{flag.name} ({'on' if flag.default else 'off'})"
  else:
    head = flag.serialize() if flag.value is not None else f"--{flag.name}="
  help_text = flag.help
  if isinstance(flag.parser, flags.EnumParser):
    meaning = help_text.partition(">: ")[2]  # absl puts the values before it
    help_text = f"{meaning} One of {', '.join(flag.parser.enum_values)}."
  wrapped = textwrap.wrap(help_text, WIDTH - INDENT)
  head = "  " + head
  first = head.ljust(INDENT) if len(head) < INDENT else head + "\n" + " " * INDENT
  return first + ("\n" + " " * INDENT).join(wrapped)
