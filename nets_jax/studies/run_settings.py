"""What to run, where its files go, and on what."""

from nets_jax import plugins, searches, structs
from nets_jax.engine.seeds import SEED
from nets_jax.kinds import NUMBER, SWITCH, TEXT, WHOLE, at_least
from nets_jax.settings import setting

NAMES = tuple(searches.SEARCHES)


@structs.dataclass
class RunSettings:
  """What to run, where its files go, and on what."""

  search: str = setting(
    "guided",
    "The ticket search, or package.module:Class of your own, whose settings become flags; --method is the "
    "same flag.",
    group="what to run", kind=plugins.choice(NAMES), rule=plugins.one_of(NAMES), static=True,
  )  # fmt: skip
  seed: int = setting(
    0, "Seed of everything but the data split, from 0 to 2^64 - 1.", group="what to run", kind=WHOLE,
    rule=SEED,
    static=True,
  )  # fmt: skip
  init_weights: str | None = setting(
    None,
    "Weights to begin with in place of drawn ones: a ticket's file, or a safetensors file of parameters.",
    group="first population", kind=TEXT, static=True,
  )  # fmt: skip
  workdir: str | None = setting(
    None, "Directory of the run's files; default in runs/, named by what is run.", group="what to run",
    kind=TEXT,
    static=True, decides=False,
  )  # fmt: skip
  overwrite: bool = setting(
    False, "Remove the run that workdir holds first, unless it is this one, unfinished.", group="what to run",
    kind=SWITCH, static=True, decides=False,
  )  # fmt: skip
  tensorboard: bool = setting(
    False, "Write TensorBoard event files beside a run's other files.", group="what to run", kind=SWITCH,
    static=True, decides=False,
  )  # fmt: skip
  keep_trained: bool = setting(
    False, "Keep the ticket's weights and state after the final training, in trained.safetensors.",
    group="training", kind=SWITCH, static=True, decides=False,
  )  # fmt: skip
  devices: int | None = setting(
    None, "Devices to use; default all: one per core on a CPU.", group="machine", kind=WHOLE, static=True,
    decides=False,
  )  # fmt: skip
  chunk: int | None = setting(
    None, "Genomes an accelerator trains at once; default all. A CPU core takes one.", group="machine",
    kind=WHOLE, static=True, decides=False,
  )  # fmt: skip
  compilation_cache_dir: str | None = setting(
    None, "Where compiled programs are kept; default the user's cache directory, '' nowhere.",
    group="machine", kind=TEXT, static=True, decides=False,
  )  # fmt: skip
  checkpoint_every: int = setting(
    1, "Generations, or epochs of a training, between checkpoints; 0 makes none.", group="if it stops",
    kind=WHOLE, rule=at_least(0), static=True, decides=False,
  )  # fmt: skip
  checkpoint_seconds: float = setting(
    30.0, "Least seconds between two checkpoints.", group="if it stops", kind=NUMBER, rule=at_least(0),
    static=True, decides=False,
  )  # fmt: skip


@structs.dataclass
class HostSettings:
  """Which processes a run is of. Their flags are defined by the command that heeds them, and by no other."""

  coordinator_address: str | None = setting(
    None, "host:port of process 0, of a run over several processes.", group="several hosts", kind=TEXT,
    static=True, decides=False,
  )  # fmt: skip
  num_processes: int | None = setting(
    None, "Processes of the run, each started with the same flags.", group="several hosts", kind=WHOLE,
    static=True, decides=False,
  )  # fmt: skip
  process_id: int | None = setting(
    None, "Which of them this is, from 0; process 0 alone writes files.", group="several hosts", kind=WHOLE,
    static=True, decides=False,
  )  # fmt: skip
  distributed: bool = setting(
    False, "Take the three from the cluster (Slurm, Open MPI, Cloud TPU, ...).", group="several hosts",
    kind=SWITCH, static=True, decides=False,
  )  # fmt: skip
