"""Where a device's memory does not suffice for its tickets, fewer of them train at once."""

import dataclasses
from collections.abc import Callable
from typing import TypeVar

import jax

from nets_jax.engine.layouts import Layout
from nets_jax.engine.messages import say
from nets_jax.errors import UsageError

Result = TypeVar("Result")
# What to do where not even one network can be trained.
LESS_TO_TRAIN = "lower batch_size, or give --accumulate to work off a minibatch in parts"


def within_memory(run: Callable[[Layout], Result], layout: Layout, advice: str) -> tuple[Result, Layout]:
  """`run(layout)`, with half as many tickets at once for as long as memory is not enough; and the layout.

  How many are trained at once changes no result. Several processes would have to agree, so none of them goes
  on by itself.

  Args:
    run: compiles and runs a program, and waits for it. It must leave what it was given as it is.
    layout: of the population.
    advice: what to do where not even one network fits.

  Raises:
    UsageError: memory is not enough for one ticket at a time, or for several processes.
  """
  while True:
    try:
      return run(layout), layout
    except jax.errors.JaxRuntimeError as error:
      if "RESOURCE_EXHAUSTED" not in str(error):
        raise
      layout = _halved(layout, str(error).splitlines()[0], error, advice)


def _halved(layout: Layout, why: str, error: Exception, advice: str) -> Layout:
  """The layout with half as many tickets at once, and a line that says so."""
  share = layout.rows // layout.mesh.size
  chunk = min(layout.chunk or share, share)
  if chunk == 1:
    raise UsageError(f"not enough memory on a device for one network at a time ({why}); {advice}") from error
  if jax.process_count() > 1:
    raise UsageError(
      f"not enough memory on a device for {chunk} networks at once ({why}); give all processes "
      f"--chunk={chunk // 2}"
    ) from error
  say(f"not enough memory on a device for {chunk} networks at once; goes on with {chunk // 2} (--chunk)")
  return dataclasses.replace(layout, chunk=chunk // 2)
