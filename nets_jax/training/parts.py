"""Which tickets one program trains, and on which devices.

A ticket with dead units is trained in its compact form, if that pays. Tickets of as many live units share a
program. Which one it is depends on a ticket alone, so it has the same bits beside any others.
"""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from nets_jax.engine.layouts import Layout, fetch, on_device, resized
from nets_jax.engine.messages import say
from nets_jax.networks.adapter import NetworkState, Params, forward, forward_in_training, name_of
from nets_jax.networks.narrowing import kept_of, narrow_network, with_kept
from nets_jax.plugins import last_line
from nets_jax.tickets.compaction import Compact, compact, first_state, narrow_state, widened
from nets_jax.tickets.ticket import Ticket, phenotype, take
from nets_jax.training.task import Task

# Of the time that group after group takes, each on all devices: from which on every device has tickets of its
# own, although each device then compiles its programs.
WORTH_APART = 0.95


@dataclasses.dataclass(frozen=True)
class Group:
  """Tickets that one program trains.

  Attributes:
    places: which of all tickets these are, ascending.
    tickets: a population of them, compact if they are.
    task: with their network.
    states: what their networks begin with, stacked; None is the network's own.
    compacts: the compact form of each; none where they are trained as they are.
  """

  places: tuple[int, ...]
  tickets: Ticket
  task: Task
  states: NetworkState | None
  compacts: tuple[Compact, ...] = ()

  @property
  def cost(self) -> float:
    """Of a step of one of them, beside a whole network's."""
    return self.compacts[0].multiplications / self.compacts[0].whole_multiplications if self.compacts else 1.0


def groups_of(tickets: Ticket, task: Task, states: NetworkState | None) -> list[Group]:
  """The tickets by the program that trains them.

  Args:
    tickets: a population.
    task: of all.
    states: what their networks begin with, stacked; None is the network's own.
  """
  count = len(jax.tree.leaves(tickets)[0])
  whole = [Group(tuple(range(count)), tickets, task, states)]
  if not task.compact:
    return whole
  own, here = task.at_precision(task.precision), fetch(tickets)
  if all(mask.all() for mask in jax.tree.leaves(here.masks)):
    return whole
  try:
    forms = [compact(take(here, i), own.network, task.data.input_shape) for i in range(count)]
  except Exception as error:  # of a network that is traced or made in a way that is not foreseen
    _say_not_understood(task, error)
    return whole
  by_sizes: dict[tuple[tuple[int, int], ...], list[int]] = {}
  refused = set()
  for i, form in enumerate(forms):
    sizes = form.sizes if form.pays else ()
    if sizes and sizes not in by_sizes and sizes not in refused and not _can_train(form, task):
      refused.add(sizes)
    by_sizes.setdefault(() if sizes in refused else sizes, []).append(i)
  if not any(by_sizes):
    return whole
  if task.training.dead_weights().matter:
    say("tickets are trained with their dead weights, on which this optimiser's updates may depend")
    return whole
  return [
    _compact_group(places, [forms[i] for i in places], own, states)
    if sizes
    else Group(tuple(places), take(here, np.array(places)), task, take(fetch(states), np.array(places)))
    for sizes, places in by_sizes.items()
  ]


def _say_not_understood(task: Task, error: Exception) -> None:
  name = name_of(task.network)
  say(f"tickets are trained with their dead units, which are not understood in {name} ({last_line(error)})")


def _can_train(form: Compact, task: Task) -> bool:
  """Whether a compact network can be traced as in a step of training and an evaluation; says if it cannot."""
  batch = task.training.batch_size // task.training.accumulate
  inputs, labels = task.data.train.inputs, task.data.train.labels
  examples = [jax.ShapeDtypeStruct((batch, *leaf.shape[1:]), leaf.dtype) for leaf in (inputs, labels)]

  def step(weights, inputs, labels):
    inputs, state = task.data.train.standardised(inputs), form.network_state

    def loss(weights):
      outputs, _ = forward_in_training(form.network, weights, state, inputs, jax.random.key(0))
      return jnp.mean(task.training_losses(outputs, labels))

    return jax.grad(loss)(weights), forward(form.network, weights, inputs, state=state)

  try:
    jax.eval_shape(step, form.ticket.weights, *examples)
  except Exception as error:
    _say_not_understood(task, error)
    return False
  return True


def _compact_group(
  places: Sequence[int], forms: Sequence[Compact], task: Task, states: NetworkState | None
) -> Group:
  """Tickets of as many live units, each of which has its places of them in its network's state."""

  def state_of(place, form):
    if states is None:
      return form.network_state
    return with_kept(narrow_state(fetch(take(states, place)), form.coupling, form.kept), form.kept)

  own = [state_of(place, form) for place, form in zip(places, forms, strict=True)]
  stacked, tickets = (
    jax.tree.map(lambda *leaves: np.stack(leaves), *some) for some in (own, [form.ticket for form in forms])
  )
  # One network for all of that many units: the first one's own places are nobody's once there are states.
  first = {group: np.arange(size) for group, size in forms[0].sizes}
  return Group(
    tuple(places), tickets,
    task.replace(network=narrow_network(task.network, first), precision="float32"), stacked, tuple(forms),
  )  # fmt: skip


def widen(
  group: Group,
  weights: Params,
  states: Sequence[NetworkState],
  tickets: Ticket,
  task: Task,
  begun_states: NetworkState | None,
) -> tuple[Params, list[NetworkState]]:
  """What came of a group, as weights and states of the whole network. Dead units keep what they began with.

  Args:
    group: that was trained.
    weights: of each of its tickets, stacked.
    states: trees of states, each likewise.
    tickets: of the whole network, the population that the group's are out of.
    task: of the whole network.
    begun_states: of the whole networks, stacked, as they were given to the training.
  """
  if not group.compacts:
    return weights, list(states)
  own_begun = first_state(task.network, tuple(task.data.input_shape))
  thetas, given = fetch((phenotype(tickets), begun_states))

  def of_ticket(i, form):
    theta = take(thetas, group.places[i])
    begun = own_begun if given is None else take(given, group.places[i])
    own = [kept_of(take(tree, i))[1] for tree in states]
    return (
      widened(form, take(weights, i), theta, state=False),
      [widened(form, state, begun, state=True) for state in own],
    )

  found = [of_ticket(i, form) for i, form in enumerate(group.compacts)]
  return jax.tree.map(lambda *leaves: np.stack(leaves), *found)


@dataclasses.dataclass(frozen=True)
class Part:
  """Tickets of one group that are trained together: which of all, which of the group's, and where."""

  group: Group
  rows: tuple[int, ...]
  layout: Layout

  @property
  def places(self) -> tuple[int, ...]:
    """Which of all tickets these are."""
    return tuple(self.group.places[row] for row in self.rows)


def placed(groups: Sequence[Group], layout: Layout) -> list[list[Part]]:
  """Lists of parts: the lists are worked off side by side, the parts of one after the other.

  Several groups go each on all devices, one after the other; or every device has tickets of its own, where
  that is faster. Several processes would have to agree, so theirs go the first way.

  Args:
    groups: of all tickets.
    layout: of all tickets.
  """
  if len(groups) == 1:
    return [[Part(groups[0], tuple(range(layout.size)), layout)]]
  everywhere = [[Part(g, tuple(range(len(g.places))), resized(layout, len(g.places))) for g in groups]]
  devices = layout.mesh.devices.reshape(-1)
  if jax.process_count() > 1 or len(devices) == 1:
    return everywhere
  rows = [(group.cost, i, row) for i, group in enumerate(groups) for row in range(len(group.places))]
  loads, shares = [0.0] * len(devices), [{} for _ in devices]
  for cost, i, row in sorted(rows, key=lambda one: (-one[0], *one[1:])):
    least = loads.index(min(loads))
    loads[least] += cost
    shares[least].setdefault(i, []).append(row)
  one_by_one = sum(group.cost * math.ceil(len(group.places) / len(devices)) for group in groups)
  if max(loads) > WORTH_APART * one_by_one:
    return everywhere
  return [
    [Part(groups[i], tuple(sorted(own)), on_device(layout, device, len(own))) for i, own in share.items()]
    for device, share in zip(devices, shares, strict=True)
    if share
  ]
