"""What axes count: factors, which while they are found out prove to be others, or to be made of several."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple


class Factor(NamedTuple):
  """A factor of an axis's length, and which units it counts: a place in `Coupling.sizes`; None is whole."""

  size: int
  units: int | None


class Reading(NamedTuple):
  """A product by a kernel: its leaf, the units it sums over, and how often an example has it computed."""

  leaf: int
  summed: tuple[int, ...]
  places: int


class Coupling(NamedTuple):
  """What a network's parameters count.

  Attributes:
    sizes: units in each group that can be left out in part.
    leaves: of each parameter, then of each array of the state, in the tree's order: of each axis its factors.
    readings: where kernels meet the signal, in the order of application; in training, then what evaluation
      alone has.
    whole: why units are whole, by parameter and axis: `Dense_0/kernel, axis 1`.
  """

  sizes: tuple[int, ...]
  leaves: tuple[tuple[tuple[Factor, ...], ...], ...]
  readings: tuple[Reading, ...]
  whole: tuple[tuple[str, str], ...]


@dataclasses.dataclass(eq=False)
class Atom:
  """A factor while it is found out: another that it is, or two that it is made of."""

  size: int
  why_whole: str | None = None
  parts: tuple["Atom", ...] = ()

  def resolved(self) -> Iterator["Atom"]:
    """What it is made of, down to what is made of nothing else."""
    if not self.parts:
      yield self
    for part in self.parts:
      yield from part.resolved()


def fresh(size: int, why: str | None = None) -> tuple[Atom, ...]:
  """The label of an axis so long, of which nothing is known."""
  return () if size == 1 else (Atom(size, why),)


def resolved(label: Sequence[Atom]) -> list[Atom]:
  """The factors of an axis as they have proved to be."""
  return [one for atom in label for one in atom.resolved()]


def _next(atoms: list[Atom]) -> Atom:
  """Takes the next of some atoms, the last, down to what it is made of."""
  atom = atoms.pop()
  while atom.parts:
    atoms += atom.parts[::-1]
    atom = atoms.pop()
  return atom


def _split(atom: Atom, size: int) -> Atom:
  """Makes an atom of two, the slower of that size; the faster one."""
  atom.parts = tuple(Atom(own, atom.why_whole) for own in (size, atom.size // size))
  return atom.parts[1]


def unite(first: Sequence[Atom], second: Sequence[Atom]) -> None:
  """Two axes count the same, factor by factor; a factor is split where the other axis has two."""
  ones, others = list(first)[::-1], list(second)[::-1]  # the next is the last
  while ones and others:
    one, other = _next(ones), _next(others)
    if one is other:
      continue
    if one.size == other.size:
      other.why_whole = one.why_whole or other.why_whole
      one.parts = (other,)
    elif one.size > other.size and one.size % other.size == 0:
      ones += [_split(one, other.size), one.parts[0]]
      others.append(other)
    elif other.size % one.size == 0:
      others += [_split(other, one.size), other.parts[0]]
      ones.append(one)
    else:
      keep_whole((one, other, *ones, *others), "axes of other factors are joined")
      return


def keep_whole(label: Sequence[Atom], why: str) -> None:
  """None of an axis's entries can be left out; the first reason stays."""
  for atom in resolved(label):
    atom.why_whole = atom.why_whole or why


def regroup(labels: Sequence[Sequence[Atom]], after: Sequence[int]) -> tuple[tuple[Atom, ...], ...]:
  """The axes of a reshape's result, which has those lengths; whole where it cuts across factors."""
  atoms = [atom for label in labels for atom in resolved(label)][::-1]
  result = []
  for size in after:
    own: list[Atom] = []
    while size > 1 and atoms:
      atom = _next(atoms)
      if size % atom.size:
        if atom.size % size:
          why = "a reshape cuts across them"
          keep_whole([atom for label in labels for atom in label], why)
          return tuple(fresh(length, why) for length in after)
        atoms.append(_split(atom, size))
        atom = atom.parts[0]
      own.append(atom)
      size //= atom.size
    result.append(tuple(own))
  return tuple(result)
