"""Slow, plain NumPy versions of what the library computes, written independently of it."""

import numpy as np


def layers(ticket):
  """[(kernel, bias, mask), ...] in forward order, as float64."""
  names = sorted(ticket.weights, key=lambda name: (name == "output", name))
  return [
    tuple(
      np.asarray(x, np.float64 if i < 2 else bool)
      for i, x in enumerate(
        (ticket.weights[n]["kernel"], ticket.weights[n]["bias"], ticket.masks[n]["kernel"])
      )
    )
    for n in names
  ]


def forward(parameters, inputs):
  """Activations of every layer: relu, the last one linear."""
  activations = [np.asarray(inputs, np.float64).reshape(len(inputs), -1)]
  for i, (kernel, bias, mask) in enumerate(parameters):
    x = activations[-1] @ (kernel * mask) + bias
    activations.append(x if i == len(parameters) - 1 else np.maximum(x, 0))
  return activations


def softmax(logits):
  shifted = np.exp(logits - logits.max(1, keepdims=True))
  return shifted / shifted.sum(1, keepdims=True)


def loss_and_accuracy(parameters, inputs, labels):
  logits = forward(parameters, inputs)[-1]
  chosen = softmax(logits)[np.arange(len(labels)), labels]
  return -np.log(chosen).mean(), (logits.argmax(1) == labels).mean()


def sgd(parameters, inputs, labels, order, learning_rate):
  """Backpropagation by hand: one masked step of SGD for each row of `order`."""
  for rows in order:
    activations = forward(parameters, inputs[rows])
    delta = softmax(activations[-1])
    delta[np.arange(len(rows)), labels[rows]] -= 1
    delta /= len(rows)
    updated = []
    for i in reversed(range(len(parameters))):
      kernel, bias, mask = parameters[i]
      gradient = activations[i].T @ delta * mask
      updated.insert(
        0, ((kernel * mask) - learning_rate * gradient, bias - learning_rate * delta.sum(0), mask)
      )
      if i:
        delta = delta @ (kernel * mask).T * (activations[i] > 0)
    parameters = updated
  return parameters
