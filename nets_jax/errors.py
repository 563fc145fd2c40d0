"""The one exception that means: the request cannot be met, and here is what to do."""


class UsageError(ValueError):
  """A value, file or setting that cannot be used.

  The message is one line: what is wrong, and what to do about it. The experiment binaries print it
  and exit with status 2; every other exception is a fault of the program and keeps its traceback.
  """
