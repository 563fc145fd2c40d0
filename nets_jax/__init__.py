"""nets_jax: sparse, trainable network initialisations by Neuroevolution Ticket Search.

NeTS evolves genomes, each the initial weights of a network and a binary mask. A genome's fitness is
the validation loss after a short training, plus a penalty on its density; the trained weights are
thrown away. NeTS in ten lines:

    import jax
    import nets_jax

    nets_jax.use_cpu_cores()  # one JAX device per core; no effect on a GPU
    data = nets_jax.load_data("digits")
    network = nets_jax.MLP(hidden_sizes=(100, 50), num_classes=data.num_classes)
    config = nets_jax.guided_config(learning_rate=0.1, batch_size=16)  # NetsConfig has the paper's settings
    result = nets_jax.search(jax.random.key(0), network, data, config)
    print(nets_jax.density(result.ticket), result.best)
    nets_jax.save_ticket("ticket.safetensors", result.ticket, network)
"""

from nets_jax.baselines.random_tickets import random_ticket
from nets_jax.checkpoints import Checkpoints, Stopped
from nets_jax.config import NetsConfig, guided_config
from nets_jax.data import Dataset, Split, from_arrays
from nets_jax.data import load as load_data
from nets_jax.errors import Diverged, SearchFailed, UsageError
from nets_jax.evolution import search, search_all
from nets_jax.fitness import Candidate, Metrics, density_penalty
from nets_jax.nets import State, init, offspring, step
from nets_jax.networks import MLP, lenet_300_100, make_network
from nets_jax.parallel import Layout, make_layout, use_cpu_cores
from nets_jax.processes import join as join_processes
from nets_jax.seeds import key_of_seed
from nets_jax.statistics import mean_and_interval
from nets_jax.storage import load_network, load_ticket, save_ticket
from nets_jax.tickets import (
  Cost,
  SearchResult,
  Ticket,
  density,
  empty_layers,
  layer_densities,
  layer_scales,
  phenotype,
  stack,
  take,
)
from nets_jax.trainer import train_tickets
from nets_jax.training import class_accuracies, evaluate
from nets_jax.winning import judge_ticket
from nets_jax.winning import summarise as summarise_verdicts

__version__ = "0.1.0"

__all__ = [
  "MLP",
  "Candidate",
  "Checkpoints",
  "Cost",
  "Dataset",
  "Diverged",
  "Layout",
  "Metrics",
  "NetsConfig",
  "SearchFailed",
  "SearchResult",
  "Split",
  "State",
  "Stopped",
  "Ticket",
  "UsageError",
  "class_accuracies",
  "density",
  "density_penalty",
  "empty_layers",
  "evaluate",
  "from_arrays",
  "guided_config",
  "init",
  "join_processes",
  "judge_ticket",
  "key_of_seed",
  "layer_densities",
  "layer_scales",
  "lenet_300_100",
  "load_data",
  "load_network",
  "load_ticket",
  "make_layout",
  "make_network",
  "mean_and_interval",
  "offspring",
  "phenotype",
  "random_ticket",
  "save_ticket",
  "search",
  "search_all",
  "stack",
  "step",
  "summarise_verdicts",
  "take",
  "train_tickets",
  "use_cpu_cores",
]
