"""What a user brings, by its name: `package.module:name(argument=value)`.

The package need not know of this library's tables, nor they of it. What stands in the parentheses are Python
literals, read by `ast.literal_eval` and never run. Importing a module runs it, so only a name that the user
gives is imported, never one that a file holds.
"""

import ast
import functools
import importlib
import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from nets_jax.errors import UsageError, suggest
from nets_jax.kinds import Kind, Rule, describe

_NAME = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"
_FORM = re.compile(rf"\s*({_NAME}):({_NAME})\s*(\(.*\))?\s*", re.DOTALL)
HOW = "write package.module:name, or package.module:name(argument=value)"


class Reference(NamedTuple):
  """The name of something in a module, and the arguments to call it with, as they were given.

  Attributes:
    module: its dotted name.
    attribute: of the module; dots lead into classes.
    arguments: literals by name; None where no parentheses were written.
  """

  module: str
  attribute: str
  arguments: Mapping[str, object] | None

  @property
  def name(self) -> str:
    """`package.module:name`, without arguments."""
    return f"{self.module}:{self.attribute}"

  def __str__(self) -> str:
    """As it is written, always alike."""
    return self.name if self.arguments is None else write(self.name, self.arguments)


def write(name: str, arguments: Mapping[str, object]) -> str:
  """A name with its arguments, as `parse` reads it."""
  return f"{name}({','.join(f'{key}={value!r}' for key, value in arguments.items())})"


def is_reference(text: object) -> bool:
  """Whether a text has the form `package.module:name`, with or without arguments."""
  return isinstance(text, str) and _FORM.fullmatch(text) is not None


def parse(text: str) -> Reference:
  """Reads `package.module:name(argument=value)`; nothing is imported.

  Raises:
    UsageError: it has another form, or an argument is no literal with a name.
  """
  found = _FORM.fullmatch(text)
  if not found:
    raise UsageError(f"{text!r} names nothing of a module; {HOW}")
  module, attribute, call = found.groups()
  if call is None:
    return Reference(module, attribute, None)
  try:
    tree = ast.parse(f"f{call}", mode="eval").body
  except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
    raise UsageError(f"cannot read the arguments of {text!r}; {HOW}") from error
  if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Name):
    raise UsageError(f"cannot read the arguments of {text!r}; {HOW}")
  if tree.args or any(own.arg is None for own in tree.keywords):
    raise UsageError(f"in {text!r} every argument needs its name; {HOW}")
  named = [own.arg for own in tree.keywords]
  if twice := next((name for name in named if named.count(name) > 1), None):
    raise UsageError(f"in {text!r}, {twice} is there twice")
  arguments = {}
  for own in tree.keywords:
    try:
      arguments[str(own.arg)] = ast.literal_eval(own.value)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
      raise UsageError(
        f"in {text!r}, {own.arg} must be a literal: a number, a quoted text, True, None, or a list of these"
      ) from error
  return Reference(module, attribute, arguments)


def find(reference: Reference) -> object:
  """What a reference names, not called. Imports its module.

  Raises:
    UsageError: there is no such module or attribute, or importing failed; with the reason on one line.
  """
  try:
    found = importlib.import_module(reference.module)
  except Exception as error:  # whatever a stranger's module raises
    missing = isinstance(error, ModuleNotFoundError) and error.name
    if missing and (reference.module + ".").startswith(missing + "."):
      raise UsageError(
        f"there is no module {missing!r} (of {reference}); start in the directory that holds it, or add that "
        "to PYTHONPATH"
      ) from error
    raise UsageError(f"importing {reference.module} failed: {last_line(error)}; mend the module") from error
  for name in reference.attribute.split("."):
    if not hasattr(found, name):
      hint = suggest(name, dir(found)) or "; check its spelling"
      raise UsageError(f"{reference.module} has no {reference.attribute!r}{hint}")
    found = getattr(found, name)
  return found


def load(reference: str | Reference, **offered: object) -> object:
  """What a reference gives: a class or function called with its arguments, anything else as it is.

  Args:
    reference: `package.module:name(argument=value)`.
    **offered: further arguments, for those that its signature has and that are not given.

  Raises:
    UsageError: see `parse` and `find`; or arguments that it does not take, or whatever it raised.
  """
  reference = parse(reference) if isinstance(reference, str) else reference
  found = find(reference)
  if not callable(found) or not _is_called(found):
    if reference.arguments is not None:
      raise UsageError(f"{reference.name} takes no arguments, for it is made already; leave them out")
    return found
  try:
    return found(**_fitting(found, reference, offered))
  except UsageError as error:
    raise UsageError(f"{reference}: {error}") from error
  except Exception as error:  # whatever a stranger's code raises
    raise UsageError(f"{reference} failed: {last_line(error)}; mend it or its arguments") from error


def completed(reference: Reference, **offered: object) -> Reference:
  """The reference with all the arguments that `load` calls it with.

  Raises:
    UsageError: see `load`.
  """
  found = find(reference)
  if not _is_called(found):
    return reference
  return reference._replace(arguments=_fitting(found, reference, offered))


def _is_called(found: Any) -> bool:
  return inspect.isclass(found) or inspect.isroutine(found) or isinstance(found, functools.partial)


def _maker(found: Any) -> Any:
  """What has the signature that something is called by: of a class whose metaclass hides it, `__init__`."""
  is_hidden = inspect.isclass(found) and type(found).__call__ is not type.__call__
  return functools.partial(found.__init__, None) if is_hidden else found


def takes(found: object, name: str) -> bool:
  """Whether something that is called has an argument of a name."""
  try:
    return callable(found) and name in inspect.signature(_maker(found)).parameters
  except (TypeError, ValueError):  # some of C
    return False


def _fitting(found: Any, reference: Reference, offered: Mapping[str, object]) -> dict[str, object]:
  """The arguments to call it with.

  Raises:
    UsageError: it does not take one that is given, or needs one that is not.
  """
  arguments = dict(reference.arguments or {})
  try:
    parameters = inspect.signature(_maker(found)).parameters
  except (TypeError, ValueError):  # some of C
    return arguments
  kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
  named = [name for name, own in parameters.items() if own.kind in kinds]
  takes_all = any(own.kind is own.VAR_KEYWORD for own in parameters.values())
  arguments |= {name: value for name, value in offered.items() if name in named and name not in arguments}
  for name in arguments:
    if name not in named and not takes_all:
      takes = ", ".join(own for own in named if own not in ("parent", "name")) or "none"
      raise UsageError(f"it takes no argument {name!r}, but {takes}{suggest(name, named)}")
  for name in named:
    if parameters[name].default is inspect.Parameter.empty and name not in arguments:
      raise UsageError(f"it needs {name}; write {reference.name}({name}=...)")
  return arguments


def last_line(error: BaseException) -> str:
  """An exception as the last line of its traceback would say it."""
  lines = str(error).strip().splitlines()
  return f"{type(error).__name__}: {lines[-1].strip()}" if lines else type(error).__name__


def choice(names: Sequence[str]) -> Kind:
  """One of some words, or `package.module:name` of one's own."""
  return Kind(one_of(names).text, str, lambda value: str(describe(value)), tuple(names), True)


def one_of(names: Sequence[str]) -> Rule:
  """The rule of `choice`."""
  return Rule(
    f"one of {', '.join(names)}, or package.module:name of your own",
    lambda value: value in names or is_reference(value),
  )


def split(text: str, separator: str) -> list[str]:
  """The parts of a text between separators, but for those within brackets or quotes."""
  parts, depth, quote, escaped = [""], 0, "", False
  for letter in text:
    if quote:
      quote = "" if letter == quote and not escaped else quote
      escaped = letter == "\\" and not escaped
    elif letter in "\"'" and depth:
      quote = letter
    elif letter in "([{":
      depth += 1
    elif letter in ")]}":
      depth = max(0, depth - 1)
    if letter == separator and not depth and not quote:
      parts.append("")
    else:
      parts[-1] += letter
  return parts
