"""What the types of other modules are made of: rows of a table, and dataclasses with their `replace`."""

from typing import TYPE_CHECKING, Self

# A row of a search's or a training's record: its numbers by column.
Row = dict[str, float]
Rows = list[Row]

# The `fitness` column of a genome that is too dense, where that counts first, begins here: in nats, of which
# a network that has learnt anything loses fewer than ten.
INFEASIBLE = 1e3


class Struct:
  """Base of classes under `flax.struct.dataclass`: tells a type checker of the method that flax adds."""

  if TYPE_CHECKING:

    def replace(self, **changes: object) -> Self:
      """A copy with other values in some fields."""
      ...
