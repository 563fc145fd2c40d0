"""What a network takes and gives, and whether that goes with its data; nothing is computed."""

import functools
from collections.abc import Sequence

import jax
from jaxtyping import PyTree

from nets_jax.data.targets import CLASSES, LABELS
from nets_jax.errors import UsageError
from nets_jax.networks.adapter import Network, abstract_parameters, forward, input_type, name_of, remembered


def check_inputs(network: Network, input_shape: Sequence[int], given: str) -> None:
  """Raises UsageError unless a network takes inputs of the type that it is given, `float32` or `int32`."""
  takes = input_type(network, input_shape)
  if (takes, given) == ("int32", "float32"):
    raise UsageError(
      f"{name_of(network)} looks up whole numbers, but the inputs are floating point numbers; leave tokens "
      "as they are: standardise=False, or --nostandardise"
    )
  if takes != given:
    raise UsageError(
      f"{name_of(network)} takes floating point numbers, but the inputs are whole ones that are not "
      "standardised; leave standardise at true, or give them as floats"
    )


def check_outputs(
  network: Network, input_shape: Sequence[int], num_classes: int, targets: str = CLASSES
) -> None:
  """Raises UsageError unless a network gives each input a row of outputs that the targets ask for.

  Of classes at least one for each; of labels and numbers one for each of an example's.
  """
  shape = getattr(outputs_of(network, input_shape), "shape", None)
  what = "logits [batch, classes]" if targets == CLASSES else f"outputs [batch, {targets}]"
  if shape is None or len(shape) != 2 or shape[0] != 2:
    given = "something else than one array" if shape is None else f"an array of shape {shape}"
    raise UsageError(f"{name_of(network)} must give {what}, but for 2 inputs it gives {given}")
  if shape[1] < num_classes or (targets != CLASSES and shape[1] != num_classes):
    counted = {CLASSES: "classes", LABELS: "label(s) of each example"}.get(targets, "number(s) to predict")
    raise UsageError(
      f"{name_of(network)} has {shape[1]} outputs, but the data have {num_classes} {counted}; give the "
      "network an output for each"
    )


def outputs_of(network: Network, input_shape: Sequence[int]) -> PyTree:
  """Shape and type of what a network gives for two inputs, without computing it."""
  return _outputs_of(network, tuple(input_shape))


@remembered
def _outputs_of(network: Network, input_shape: tuple[int, ...]) -> PyTree:
  parameters = abstract_parameters(network, input_shape)
  inputs = jax.ShapeDtypeStruct((2, *input_shape), input_type(network, input_shape))
  return jax.eval_shape(functools.partial(forward, network), parameters, inputs)
