"""Convolutional networks of the zoo in eager PyTorch, with a ticket's weights: what ours are timed beside.

Functions of parameters by name, and not modules, so that both libraries train the same initial weights.
"""

import functools

import jax
import numpy as np

from nets_jax.networks.adapter import Params


class Peer:
  """Plain SGD of one network from our weights on; what is no training stands apart, to be left untimed."""

  def __init__(self, name: str, weights: Params, images: np.ndarray, labels: np.ndarray, rate: float):
    """Takes a network in `NETWORKS`, ours of that name, and standardised images [steps, batch, ...]."""
    import torch

    self._forward, self._rate = NETWORKS[name], rate
    self._fresh = functools.partial(_parameters, name, weights)
    self._images = torch.as_tensor(np.ascontiguousarray(np.moveaxis(images, -1, 2)))
    self._labels = torch.as_tensor(labels).long()
    self.begin()

  def begin(self) -> None:
    """Back to the first weights."""
    self._parameters = self._fresh()

  def train(self, steps: int | None = None) -> None:
    """A step on each minibatch, or on the first so many."""
    import torch

    optimizer = torch.optim.SGD(list(self._parameters.values()), lr=self._rate)
    for i in range(len(self._images) if steps is None else steps):
      optimizer.zero_grad()
      self._loss(i).backward()
      optimizer.step()

  def loss(self) -> float:
    """On the first minibatch, as it is now."""
    import torch

    with torch.no_grad():
      return float(self._loss(0))

  def _loss(self, i):
    from torch.nn import functional

    return functional.cross_entropy(self._forward(self._parameters, self._images[i]), self._labels[i])


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
