"""A network with fewer units: the same program, computed with those units alone that are kept.

Which units these are is an array of their places, in the network's state; only how many shapes the program.
So tickets with as many units share one.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from nets_jax.networks.adapter import (
  Network,
  NetworkState,
  Params,
  abstract_parameters,
  draw_variables,
  forward,
  forward_in_training,
  initial_state,
  name_of,
)
from nets_jax.networks.coupling import find_coupling
from nets_jax.networks.functional import Functional
from nets_jax.networks.narrow_programs import Kept, Narrow, Value, entire, narrowed

KEPT_UNITS = "kept_units"  # in a state: of each group that is not whole, the places of the kept ones


@dataclasses.dataclass(frozen=True)
class _Made:
  """The init of a network with fewer units: that of the whole one, of which these places are kept."""

  network: Network
  places: tuple[tuple[int, tuple[int, ...]], ...]

  def __call__(self, key: jax.Array, inputs: jax.Array) -> tuple[Params, NetworkState]:
    shape = inputs.shape[1:]
    kept = {group: jnp.array(places, jnp.int32) for group, places in self.places}
    coupling, drawn = find_coupling(self.network, shape), draw_variables(key, self.network, shape)
    weights, state = narrowed(tuple(drawn), coupling.leaves, kept)
    return weights, with_kept(state, kept)


@dataclasses.dataclass(frozen=True)
class _Applied:
  """The apply of a network with fewer units, whose places are in its state."""

  network: Network

  def __call__(
    self, weights: Params, state: NetworkState, inputs: jax.Array, *, key: jax.Array | None, train: bool
  ) -> tuple[jax.Array, NetworkState]:
    network, shape = self.network, inputs.shape[1:]
    kept, state = kept_of(state)
    whole = abstract_parameters(network, shape), jax.eval_shape(lambda: initial_state(network, shape))
    own, treedef = jax.tree.leaves((weights, state)), jax.tree.structure(whole)
    like = treedef.unflatten(
      jax.ShapeDtypeStruct(leaf.shape, mine.dtype)
      for leaf, mine in zip(jax.tree.leaves(whole), own, strict=True)
    )
    narrow = Narrow(kept)
    run = functools.partial(forward_in_training if train else _evaluated, network)
    traced, made = jax.make_jaxpr(run, return_shape=True)(*like, inputs, key)
    labels = [tuple(map(narrow.label_of, axes)) for axes in find_coupling(network, shape).leaves]
    parameters = map(Value, own, labels)
    found = narrow.run(traced, [*parameters, *map(entire, jax.tree.leaves((inputs, key)))])
    outputs, changed = jax.tree.unflatten(jax.tree.structure(made), found)
    assert all(label is None for value in _values(outputs) for label in value.labels)
    wanted = labels[len(jax.tree.leaves(weights)) :]
    after = [narrow.taken(*both) for both in zip(_values(changed), wanted, strict=True)]
    result = jax.tree.map(lambda value: value.array, outputs, is_leaf=_is_value)
    return result, with_kept(jax.tree.unflatten(jax.tree.structure(state), after), kept)


def _is_value(leaf: object) -> bool:
  return isinstance(leaf, Value)


def _values(tree: PyTree) -> list[Value]:
  return jax.tree.leaves(tree, is_leaf=_is_value)


def _evaluated(
  network: Network, weights: Params, state: NetworkState, inputs: jax.Array, key: jax.Array | None
) -> tuple[jax.Array, NetworkState]:
  del key
  return forward(network, weights, inputs, state=state), state


def with_kept(state: NetworkState, kept: Kept) -> NetworkState:
  """A state with the places of the kept units beside, if any are left out."""
  if not kept:
    return dict(state)
  return {**state, KEPT_UNITS: {f"{group:04d}": places for group, places in kept.items()}}


def kept_of(state: NetworkState) -> tuple[Kept, NetworkState]:
  """The same backwards."""
  kept = {int(group): places for group, places in state.get(KEPT_UNITS, {}).items()}
  return kept, {name: tree for name, tree in state.items() if name != KEPT_UNITS}


def narrow_network(network: Network, kept: Kept) -> Functional:
  """The network with fewer units. Their places are in the state that it begins with.

  Given another state, with as many places, it is the network of those.

  Args:
    network: the whole one.
    kept: the places of the kept units, of each group of its `Coupling` of which some are left out.
  """
  places = tuple((group, tuple(np.asarray(kept[group]).tolist())) for group in sorted(kept))
  return Functional(_Made(network, places), _Applied(network), name_of(network))
