"""nets_jax: sparse, trainable network initialisations by Neuroevolution Ticket Search.

NeTS evolves genomes, each the initial weights of a network and a binary mask. A genome's fitness is
the validation loss after a short training, plus a penalty on its density; the trained weights are
thrown away. NeTS in ten lines:

    import nets_jax

    nets_jax.use_cpu_cores()  # one JAX device per core; no effect on a GPU
    data = nets_jax.load_data("digits")
    network = nets_jax.MLP(hidden_sizes=(100, 50), num_classes=data.num_classes)
    task = nets_jax.Task(network, data, nets_jax.Training(learning_rate=0.1, batch_size=16))
    search = nets_jax.recipes.guided(target_density=0.1)  # recipes.paper() is the paper's
    result = nets_jax.search(0, task, search)
    print(nets_jax.density(result.ticket), result.best)
    nets_jax.save_ticket("ticket.safetensors", result.ticket, network)
"""

from nets_jax.analysis.intervals import mean_and_interval
from nets_jax.analysis.verdicts import judge_ticket
from nets_jax.analysis.verdicts import summarise as summarise_verdicts
from nets_jax.baselines.imp import Imp
from nets_jax.baselines.one_shot import Grasp, Magnitude, OneShot, Snip, Synflow
from nets_jax.baselines.random_tickets import Dense, Random, random_ticket
from nets_jax.data.dataset import Dataset, Split, from_arrays
from nets_jax.data.sources import load as load_data
from nets_jax.engine.checkpoints import Checkpoints, Stopped
from nets_jax.engine.hosts import join as join_processes
from nets_jax.engine.layouts import Layout, make_layout, use_cpu_cores
from nets_jax.engine.seeds import key_of_seed
from nets_jax.errors import Diverged, SearchFailed, UsageError
from nets_jax.evolution import dormancy, operators, ranking, recipes, scales, schedules, selection
from nets_jax.evolution.fitness import Candidate, Metrics, density_penalty
from nets_jax.evolution.generation import State, init, step
from nets_jax.evolution.search import Nets
from nets_jax.networks.initialisation import Normal
from nets_jax.networks.zoo import MLP, lenet_300_100, make_network
from nets_jax.protocol import Search
from nets_jax.searches import search, search_all
from nets_jax.tickets.results import Cost, SearchResult
from nets_jax.tickets.storage import load_network, load_ticket, save_ticket
from nets_jax.tickets.ticket import (
  Ticket,
  density,
  empty_layers,
  layer_densities,
  layer_scales,
  phenotype,
  stack,
  take,
)
from nets_jax.training.task import Task, Training
from nets_jax.training.train import class_accuracies, evaluate
from nets_jax.training.trainer import train_tickets

__version__ = "0.1.0"

_GONE = {
  "NetsConfig": "Nets, recipes.paper() and Task",
  "guided_config": "recipes.guided()",
  "offspring": "the operators of operators.py",
}


def __getattr__(name: str):
  """Says what has taken the place of a name of 0.1."""
  hint = f"; {_GONE[name]} took its place (CHANGELOG.md, Moving from 0.1)" if name in _GONE else ""
  raise AttributeError(f"module 'nets_jax' has no attribute {name!r}{hint}")


__all__ = [
  "MLP",
  "Candidate",
  "Checkpoints",
  "Cost",
  "Dataset",
  "Dense",
  "Diverged",
  "Grasp",
  "Imp",
  "Layout",
  "Magnitude",
  "Metrics",
  "Nets",
  "Normal",
  "OneShot",
  "Random",
  "Search",
  "SearchFailed",
  "SearchResult",
  "Snip",
  "Split",
  "State",
  "Stopped",
  "Synflow",
  "Task",
  "Ticket",
  "Training",
  "UsageError",
  "class_accuracies",
  "density",
  "density_penalty",
  "dormancy",
  "empty_layers",
  "evaluate",
  "from_arrays",
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
  "operators",
  "phenotype",
  "random_ticket",
  "ranking",
  "recipes",
  "save_ticket",
  "scales",
  "schedules",
  "search",
  "search_all",
  "selection",
  "stack",
  "step",
  "summarise_verdicts",
  "take",
  "train_tickets",
  "use_cpu_cores",
]
