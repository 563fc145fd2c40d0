"""Convolutional networks of the zoo in eager PyTorch, with a ticket's weights: what ours are timed beside.

Functions of parameters by name, and not modules, so that both libraries train the same initial weights.
"""

import functools
from collections.abc import Callable

import jax
import numpy as np

from nets_jax.networks.adapter import Params


def train(
  name: str, weights: Params, images: np.ndarray, labels: np.ndarray, rate: float
) -> Callable[[], float]:
  """A call that trains by plain SGD, from the weights on; the loss on the first minibatch afterwards.

  Args:
    name: of a network in `NETWORKS`.
    weights: of our network of that name.
    images: standardised [steps, batch, height, width, channels].
    labels: [steps, batch].
    rate: the learning rate.
  """
  import torch

  forward, x = NETWORKS[name], torch.as_tensor(np.ascontiguousarray(np.moveaxis(images, -1, 2)))
  y = torch.as_tensor(labels).long()

  def run() -> float:
    p = _parameters(name, weights)
    optimizer = torch.optim.SGD(list(p.values()), lr=rate)

    def loss(i):
      return torch.nn.functional.cross_entropy(forward(p, x[i]), y[i])

    for i in range(len(x)):
      optimizer.zero_grad()
      loss(i).backward()
      optimizer.step()
    with torch.no_grad():
      return float(loss(0))

  return run


def _parameters(name: str, weights: Params) -> dict:
  """By path, in torch's order of axes; the first dense layer's inputs channel by channel."""
  import torch

  found = {}
  for path, leaf in jax.tree_util.tree_flatten_with_path(weights)[0]:
    array, called = np.asarray(leaf), "/".join(key.key for key in path)
    if array.ndim == 4:
      array = array.transpose(3, 2, 0, 1)
    elif called == "dense_0/kernel":
      side = SIDES[name]
      array = array.reshape(side, side, -1, array.shape[-1]).transpose(3, 2, 0, 1)
      array = array.reshape(len(array), -1)
    elif array.ndim == 2:
      array = array.T
    found[called] = torch.tensor(np.ascontiguousarray(array), requires_grad=True)
  return found


def _conv(p, name, x, stride=1, padding=1):
  from torch.nn import functional

  return functional.conv2d(x, p[f"{name}/kernel"], p.get(f"{name}/bias"), stride, padding)


def _dense(p, name, x):
  from torch.nn import functional

  return functional.linear(x, p[f"{name}/kernel"], p[f"{name}/bias"])


def _normed(p, block, i, x, stride=1):
  from torch.nn import functional

  x = _conv(p, f"{block}conv_{i}", x, stride)
  gain, bias = p[f"{block}norm_{i}/scale"], p[f"{block}norm_{i}/bias"]
  return functional.batch_norm(x, None, None, gain, bias, training=True)


def _chain(paddings, pooled, dense, p, x):
  """Convolutions with rectifiers, those in `pooled` with pooling after them; then dense layers."""
  from torch.nn import functional

  for i, padding in enumerate(paddings):
    x = functional.relu(_conv(p, f"conv_{i}", x, padding=padding))
    x = functional.max_pool2d(x, 2) if i in pooled else x
  x = x.flatten(1)
  for i in range(dense):
    x = functional.relu(_dense(p, f"dense_{i}", x))
  return _dense(p, "output", x)


def _residual(blocks, p, x):
  from torch.nn import functional

  x = functional.relu(_normed(p, "", 0, x))
  for stage in (1, 2, 3):
    for i in range(blocks):
      block, stride = f"block_{stage}_{i}/", 2 if stage > 1 and i == 0 else 1
      y = _normed(p, block, 1, functional.relu(_normed(p, block, 0, x, stride)))
      more = y.shape[1] - x.shape[1]
      x = functional.relu(y + functional.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, 0, more)))
  return _dense(p, "output", x.mean((2, 3)))


NETWORKS = {
  "lenet5": functools.partial(_chain, (2, 0), (0, 1), 2),
  "conv2": functools.partial(_chain, (1, 1), (1,), 2),
  "resnet8": functools.partial(_residual, 1),
  "resnet20": functools.partial(_residual, 3),
}
SIDES = {"lenet5": 5, "conv2": 16}  # of the image that the first dense layer takes
