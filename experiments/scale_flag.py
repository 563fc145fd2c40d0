"""A flag that is one number, or one for each layer."""

from absl import flags


class ScaleParser(flags.ArgumentParser):
  """A number, or a tuple of some."""

  def parse(self, argument):
    """Reads `0.1`, `0.1,0.2` or `0.1/0.2` (within a list); a tuple has two or more."""
    if isinstance(argument, str):
      argument = [float(word) for word in argument.replace("/", ",").split(",")]
    elif not isinstance(argument, tuple | list):
      return float(argument)
    return argument[0] if len(argument) == 1 else tuple(argument)

  def flag_type(self):
    """As `--help` names it."""
    return "number(s)"


class ScaleSerializer(flags.ArgumentSerializer):
  """As `ScaleParser` reads it."""

  def serialize(self, value):
    """`0.1`, or `0.1/0.2`."""
    return "/".join(map(str, value)) if isinstance(value, tuple) else str(value)
