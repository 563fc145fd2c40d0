"""Every method on every kind of network keeps exactly its count, and no layer empty without a word."""

import functools

import jax
import numpy as np
import pytest

import nets_jax
from nets_jax import searches
from nets_jax.changes import fitting
from nets_jax.networks.zoo import make_network
from nets_jax.studies import run_files
from nets_jax.tickets.ticket import layers_of, unmasked_count

pytestmark = [pytest.mark.zoo, pytest.mark.usefixtures("stranger")]
IMAGES = {"width": 0.125}
# Each with what it is made with, and what it reads.
NETWORKS = {
  "lenet5": (IMAGES, "images"),
  "resnet8": (IMAGES, "images"),
  "vit": (IMAGES, "images"),
  "stranger.modules:Nnx(width=5)": (None, "points"),
  "stranger.modules:haiku(width=5)": (None, "points"),
  "stranger.modules:equinox(width=5)": (None, "points"),
  "stranger.modules:equinox_tokens(width=4)": (None, "tokens"),
  "stranger.modules:Attention(width=8)": (None, "tokens"),
}
# For an input of ones all of its tokens are alike, so no query and no key can tell: SynFlow says so.
ATTENTION = ("vit", "stranger.modules:Attention(width=8)")
SETTINGS = {
  "target_density": 0.3, "population_size": 2, "generations": 1, "fitness_epochs": 0.5, "rounds": 2,
  "score_batch": 10, "cycles": 2, "cycle_epochs": 1, "prune_scope": "global", "prune_fraction": 0.5,
  "density_deviation": 0.0,
}  # fmt: skip


@functools.cache
def dataset(kind):
  rng = np.random.default_rng(0)
  labels = np.arange(60) % 3
  if kind == "tokens":
    return nets_jax.from_arrays(rng.integers(0, 6, (60, 6)), labels, standardise=False)
  return nets_jax.from_arrays(rng.normal(size=(60, 16, 16, 3) if kind == "images" else (60, 2)), labels)


# Of the searches that breed one will do, on convolutions: test_modules.py has it on the others.
METHODS = ("random", "magnitude", "snip", "grasp", "synflow", "imp", "guided")


@pytest.mark.parametrize(
  ("name", "method"), [(n, m) for n in NETWORKS for m in METHODS if m != "guided" or n == "lenet5"]
)
def test_the_count_is_exact(name, method, capsys):
  own, kind = NETWORKS[name]
  network = make_network(name, 3, **(own or {}))
  task = nets_jax.Task(
    network, dataset(kind), nets_jax.Training(learning_rate=0.01, batch_size=10), initialiser="he"
  )
  search = searches.default(method)
  search = search.change(**fitting(search, SETTINGS, ()))
  if method == "synflow" and name in ATTENTION:
    with pytest.raises(nets_jax.SearchFailed, match="synflow says nothing of the layer"):
      nets_jax.search(jax.random.key(0), task, search, devices=1)
    return
  ticket = nets_jax.search(jax.random.key(0), task, search, devices=1).ticket
  total = sum(layer.size for layer in task.layers)
  assert layers_of(ticket) == tuple(layer._replace(kept=None) for layer in task.layers)
  assert sum(mask.size for mask in jax.tree.leaves(ticket.masks)) == total
  after_one = total - round(0.5 * total)
  kept = {"imp": after_one - round(0.5 * after_one)}
  assert unmasked_count(ticket) == kept.get(method, round(0.3 * total))
  run_files.warn_of_empty_layers(method, [ticket])
  said = capsys.readouterr().err
  for layer, mask in ticket.by_layer(ticket.masks).items():
    assert (layer in said) == (not np.asarray(mask).any())
