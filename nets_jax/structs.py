"""What the types of other modules are made of: rows of a table, and frozen dataclasses with their `replace`."""

from typing import TYPE_CHECKING, Self

# A row of a search's or a training's record: its numbers by column.
Row = dict[str, float]
Rows = list[Row]


class Struct:
  """Base of classes under `flax.struct.dataclass`: tells a type checker of the method that flax adds."""

  if TYPE_CHECKING:

    def replace(self, **changes: object) -> Self:
      """A copy with other values in some fields."""
      ...
