"""Networks that are no `flax.linen` module: pairs of functions, as of haiku and equinox, and flax.nnx."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import PyTree

from nets_jax.errors import UsageError

# What a pair's functions take and give, of any library; hence trees of any kind.
Init = Callable[..., Any]
Apply = Callable[..., Any]


# How modules call the argument that tells training from evaluation, and what it is in training.
MODES = {
  "train": True,
  "training": True,
  "is_training": True,
  "deterministic": False,
  "use_running_average": False,
  "inference": False,
}


def mode_arguments(call: Callable[..., object], train: bool) -> dict[str, bool]:
  """The arguments by which something that is called tells training from evaluation."""
  taken = inspect.signature(call).parameters
  return {
    name: in_training if train else not in_training for name, in_training in MODES.items() if name in taken
  }


@dataclasses.dataclass(frozen=True)
class Functional:
  """A network as a pair of functions.

      init(key, inputs) -> (parameters, state)
      apply(parameters, state, inputs, *, key, train) -> (outputs, state)

  `inputs` are [batch, ...]; `key` is None in evaluation. Parameters and state are trees of arrays of any
  kind, a state of nothing is `{}`. Here parameters travel as nested dicts, named by their places in the tree.
  What stands in a state under `batch_stats` are running averages of batches by a constant momentum, which an
  evaluation estimates anew; see `training.statistics`. All else is carried as it is.

  Attributes:
    make: init.
    call: apply.
    name: what messages call it.
    made_by: `package.module:name(width=32)`, with all arguments, which is then its record; None is one made
      by hand, whose record is its functions' names and code.
  """

  make: Init
  call: Apply
  name: str = "Functional"
  made_by: str | None = None

  def init(self, key: jax.Array, inputs: jax.Array) -> tuple[PyTree, PyTree]:
    """Parameters as a nested dict, and the state.

    Raises:
      UsageError: `make` gives something else than a pair.
    """
    weights, state = self._made(key, inputs)
    return as_dict(weights), state

  def apply(
    self,
    weights: PyTree,
    state: PyTree,
    inputs: jax.Array | np.ndarray,
    *,
    key: jax.Array | None,
    train: bool,
  ) -> tuple[jax.Array, PyTree]:
    """Outputs and state; the parameters as `init` gives them."""
    like, _ = jax.eval_shape(self._made, jax.random.key(0), inputs[:1])
    return self.call(as_tree(weights, like), state, inputs, key=key, train=train)

  def _made(self, key: jax.Array, inputs: jax.Array | np.ndarray) -> tuple[PyTree, PyTree]:
    made = self.make(key, inputs)
    if not isinstance(made, tuple) or len(made) != 2:
      raise UsageError(
        f"init of {self.name} must give (parameters, state), the latter {{}} where there is none"
      )
    return made


def as_dict(tree: PyTree) -> PyTree:
  """A tree's leaves in a nested dict of names; names with a slash are several levels, as haiku has them."""
  found: dict[str, Any] = {}
  for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
    *outer, last = _names(path)
    place = found
    for name in outer:
      place = place.setdefault(name, {})
      if not isinstance(place, dict):
        raise UsageError(f"{'/'.join(_names(path))} is in a parameter; give one of them another name")
    if last in place:
      raise UsageError(f"two parameters are called {'/'.join(_names(path))}; give one of them another name")
    place[last] = leaf
  return found


def as_tree(nested: PyTree, like: PyTree) -> PyTree:
  """A nested dict of `as_dict` as the tree it was made of.

  Args:
    nested: names to names to leaves.
    like: a tree of the kind wanted, its leaves anything.
  """

  def leaf_at(path):
    return functools.reduce(lambda place, name: place[name], _names(path), nested)

  return jax.tree_util.tree_map_with_path(lambda path, _: leaf_at(path), like)


def _names(path: tuple[Any, ...]) -> list[str]:
  names = [jax.tree_util.keystr((key,), simple=True) for key in path]
  return [part for name in names for part in name.split("/")]


def from_nnx(make: Callable[[nnx.Rngs], nnx.Module], name: str | None = None) -> Functional:
  """The network of a `flax.nnx` module.

  Its `nnx.Param` are the parameters, its other variables the state, but for the streams of keys: dropout
  draws from each step's key. `module.train()` and `module.eval()` tell training from evaluation.

  Args:
    make: gives the module, `lambda rngs: Net(8, rngs=rngs)`.
    name: what messages and records call it; None is the module's class.
  """
  made = nnx.eval_shape(lambda: make(nnx.Rngs(0)))
  if not isinstance(made, nnx.Module):
    raise UsageError(
      f"from_nnx takes a function from nnx.Rngs to a module, but it gave a {type(made).__name__}"
    )
  return Functional(
    functools.partial(_nnx_init, make), functools.partial(_nnx_apply, make), name or type(made).__name__
  )


def _nnx_init(make: Callable[[nnx.Rngs], nnx.Module], key: jax.Array, inputs: jax.Array) -> tuple:
  del inputs  # an nnx module knows its sizes
  return _nnx_parts(make(nnx.Rngs(key)))


def _nnx_parts(module: nnx.Module) -> tuple[PyTree, dict[str, PyTree]]:
  """A module's parameters, and its state as collections."""
  _, weights, statistics, keys, sown, others = nnx.split(
    module, nnx.Param, nnx.BatchStat, nnx.RngState, nnx.Intermediate, ...
  )
  del keys, sown
  collections = {"batch_stats": nnx.to_pure_dict(statistics), "others": nnx.to_pure_dict(others)}
  state = {name: tree for name, tree in collections.items() if jax.tree.leaves(tree)}
  return nnx.to_pure_dict(weights), state


def _is_other(path: tuple[Any, ...], value: Any) -> bool:
  """Whether a variable is none that has a place of its own."""
  del path
  return not isinstance(value, nnx.Param | nnx.BatchStat | nnx.RngState | nnx.Intermediate)


def _nnx_apply(
  make: Callable[[nnx.Rngs], nnx.Module],
  weights: PyTree,
  state: PyTree,
  inputs: jax.Array,
  *,
  key: jax.Array | None,
  train: bool,
) -> tuple[jax.Array, PyTree]:
  module = make(nnx.Rngs(jax.random.key(0) if key is None else key))
  _fill(module, weights, nnx.Param)
  _fill(module, state.get("batch_stats", {}), nnx.BatchStat)
  _fill(module, state.get("others", {}), _is_other)
  if train:
    module.train()
  else:
    module.eval()
  outputs = module(inputs, **mode_arguments(module.__call__, train))
  return outputs, _nnx_parts(module)[1]


def _fill(module: nnx.Module, values: PyTree, kind: Any) -> None:
  """Puts values in the place of a module's variables of one kind."""
  variables = nnx.state(module, kind)
  nnx.replace_by_pure_dict(variables, values)
  nnx.update(module, variables)
