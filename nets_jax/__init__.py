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

from typing import NoReturn

from nets_jax.analysis.verdicts import Verdict, judge_ticket
from nets_jax.baselines.imp import Imp
from nets_jax.baselines.random_tickets import random_ticket
from nets_jax.data.dataset import Dataset, from_arrays
from nets_jax.data.sources import load as load_data
from nets_jax.engine.checkpoints import Checkpoints
from nets_jax.engine.layouts import Layout, make_layout, use_cpu_cores
from nets_jax.engine.seeds import key_of_seed
from nets_jax.errors import SearchFailed, UsageError
from nets_jax.evolution import operators, recipes
from nets_jax.evolution.search import Nets
from nets_jax.networks.functional import Functional, from_nnx
from nets_jax.networks.zoo import MLP
from nets_jax.protocol import Search
from nets_jax.searches import search, search_all
from nets_jax.structs import dataclass
from nets_jax.tickets.compaction import Compact, compact
from nets_jax.tickets.results import Cost, SearchResult
from nets_jax.tickets.storage import load_network, load_ticket, save_ticket
from nets_jax.tickets.ticket import Ticket, density, layer_densities, layer_scales, stack, take
from nets_jax.tickets.trained import load_trained
from nets_jax.training.task import Task
from nets_jax.training.trainer import Trained, train_tickets
from nets_jax.training.training import Training

__version__ = "0.2.0"

_GONE = {
  "NetsConfig": "Nets, recipes.paper() and Task",
  "guided_config": "recipes.guided()",
  "offspring": "the operators of operators.py",
}
# What fewer need, by the module that has it.
_ELSEWHERE = {
  "analysis.intervals": ("mean_and_interval",),
  "analysis.verdicts": ("summarise",),
  "baselines.one_shot": ("Grasp", "Magnitude", "OneShot", "Snip", "Synflow"),
  "baselines.random_tickets": ("Dense", "Random"),
  "data.dataset": ("Split",),
  "engine.checkpoints": ("Stopped",),
  "engine.hosts": ("join",),
  "errors": ("Diverged",),
  "evolution": ("dormancy", "ranking", "scales", "schedules", "selection"),
  "evolution.fitness": ("Candidate", "Metrics", "density_penalty"),
  "evolution.generation": ("State", "init", "step"),
  "networks.initialisation": ("Given", "Glorot", "He", "Normal", "Own"),
  "networks.zoo": ("lenet_300_100", "make_network"),
  "tickets.ticket": ("empty_layers", "phenotype"),
  "training.evaluation": ("class_accuracies", "evaluate"),
}


def __getattr__(name: str) -> NoReturn:
  """Says where a name is now, or what has taken the place of one of 0.1."""
  home = next((f"nets_jax.{module}" for module, names in _ELSEWHERE.items() if name in names), None)
  hint = f"; it is in {home}" if home else ""
  if name in _GONE:
    hint = f"; {_GONE[name]} took its place (CHANGELOG.md, Moving from 0.1)"
  raise AttributeError(f"module 'nets_jax' has no attribute {name!r}{hint}")


__all__ = [
  "MLP",
  "Checkpoints",
  "Compact",
  "Cost",
  "Dataset",
  "Functional",
  "Imp",
  "Layout",
  "Nets",
  "Search",
  "SearchFailed",
  "SearchResult",
  "Task",
  "Ticket",
  "Trained",
  "Training",
  "UsageError",
  "Verdict",
  "compact",
  "dataclass",
  "density",
  "from_arrays",
  "from_nnx",
  "judge_ticket",
  "key_of_seed",
  "layer_densities",
  "layer_scales",
  "load_data",
  "load_network",
  "load_ticket",
  "load_trained",
  "make_layout",
  "operators",
  "random_ticket",
  "recipes",
  "save_ticket",
  "search",
  "search_all",
  "stack",
  "take",
  "train_tickets",
  "use_cpu_cores",
]
