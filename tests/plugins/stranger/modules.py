"""Networks of other libraries, as a stranger would bring them: flax.nnx, haiku, equinox, and attention."""

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
from flax import nnx

import nets_jax


class Nnx(nnx.Module):
  """Batch normalisation and dropout in flax.nnx."""

  def __init__(self, width: int, num_classes: int, rngs: nnx.Rngs):
    self.first = nnx.Linear(2, width, rngs=rngs)
    self.norm = nnx.BatchNorm(width, rngs=rngs)
    self.dropout = nnx.Dropout(0.1, rngs=rngs)
    self.last = nnx.Linear(width, num_classes, rngs=rngs)

  def __call__(self, x):
    return self.last(self.dropout(nnx.relu(self.norm(self.first(x)))))


def haiku(width: int, num_classes: int) -> nets_jax.Functional:
  """A haiku network with batch normalisation."""

  def compute(x, is_training):
    x = hk.Linear(width, name="first")(x)
    x = hk.BatchNorm(create_scale=True, create_offset=True, decay_rate=0.9)(x, is_training)
    return hk.Linear(num_classes, name="last")(jax.nn.relu(x))

  network = hk.transform_with_state(compute)
  return nets_jax.Functional(
    lambda key, inputs: network.init(key, inputs, True),
    lambda weights, state, inputs, *, key, train: network.apply(weights, state, key, inputs, train),
    name="haiku",
  )


def equinox(width: int, num_classes: int) -> nets_jax.Functional:
  """An equinox network, which is one of a single input."""

  def make(key):
    return eqx.nn.MLP(2, num_classes, width, depth=1, key=key)

  _, static = eqx.partition(make(jax.random.key(0)), eqx.is_inexact_array)

  def apply(weights, state, inputs, *, key, train):
    del key, train
    return jax.vmap(eqx.combine(weights, static))(inputs), state

  return nets_jax.Functional(
    lambda key, inputs: (eqx.filter(make(key), eqx.is_inexact_array), {}), apply, name="equinox"
  )


def of_attention(path: str, shape: tuple[int, ...]) -> bool:
  """What is masked: the kernels of attention alone."""
  return path.startswith("attention/") and path.endswith("kernel")


class Attention(nn.Module):
  """Embedded tokens, attention with DenseGeneral, and a head."""

  width: int = 8
  num_classes: int = 2

  @nn.compact
  def __call__(self, tokens, *, deterministic: bool = True):
    x = nn.Embed(6, self.width, name="embed")(tokens)
    x = x + self.param("positions", nn.initializers.normal(0.1), (1, tokens.shape[1], self.width))
    x = nn.LayerNorm()(x)
    attention = nn.MultiHeadDotProductAttention(num_heads=2, dropout_rate=0.1, name="attention")
    x = x + attention(x, deterministic=deterministic)
    return nn.Dense(self.num_classes, name="head")(jnp.mean(x, axis=1))


class NnxTokens(nnx.Module):
  """Looked up in flax.nnx, whose constructor sees no inputs."""

  def __init__(self, width: int, num_classes: int, rngs: nnx.Rngs):
    self.embed = nnx.Embed(6, width, rngs=rngs)
    self.head = nnx.Linear(width, num_classes, rngs=rngs)

  def __call__(self, tokens):
    return self.head(jnp.mean(self.embed(tokens), axis=1))


def equinox_tokens(width: int, num_classes: int) -> nets_jax.Functional:
  """Looked up in equinox, and read by a recurrent cell, neither of whose matrices is called a kernel."""

  def make(key):
    keys = jax.random.split(key, 3)
    cell = eqx.nn.GRUCell(width, width, key=keys[1])
    return eqx.nn.Embedding(6, width, key=keys[0]), cell, eqx.nn.Linear(width, num_classes, key=keys[2])

  _, static = eqx.partition(make(jax.random.key(0)), eqx.is_inexact_array)

  def read(weights, tokens):
    embed, cell, head = eqx.combine(weights, static)
    state = jnp.zeros(width)
    for token in tokens:
      state = cell(embed(token), state)
    return head(state)

  def apply(weights, state, inputs, *, key, train):
    del key, train
    return jax.vmap(lambda tokens: read(weights, tokens))(inputs), state

  return nets_jax.Functional(
    lambda key, inputs: (eqx.filter(make(key), eqx.is_inexact_array), {}), apply, name="equinox_tokens"
  )
