"""Tickets as pruned modules of PyTorch, and back: the same outputs, the same training, the same bits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn
from torch.nn.utils import prune

import nets_jax
from nets_jax.export.torch_modules import from_torch, to_torch
from nets_jax.export.torch_sparse import sparse_module
from nets_jax.networks.adapter import forward, forward_in_training, initial_state
from nets_jax.networks.zoo import NETWORKS, make_network
from nets_jax.tickets.ticket import initialise, mask_weights, phenotype

pytestmark = pytest.mark.export

SMALL = {"conv2": 0.1, "conv4": 0.1, "conv6": 0.1, "vgg11": 0.1, "vgg16": 0.1, "vgg19": 0.1, "resnet18": 0.1}
SHAPES = {"mlp": (3, 2), "lenet_300_100": (28, 28, 1), "lenet5": (28, 28, 1)}


def make(name, **settings):
  settings = ({"width": SMALL[name]} if name in SMALL else {}) | settings
  return make_network(name, 10, (7, 6) if name == "mlp" else (), **settings), SHAPES.get(name, (16, 16, 3))


def random_genome(network, shape, density=0.4, seed=0):
  return initialise(jax.random.key(seed), network, shape, initialiser="he", initial_density=density)


def channels_first(inputs):
  return torch.from_numpy(np.ascontiguousarray(np.moveaxis(inputs, -1, 1)))


def examples(shape, count=5, seed=1):
  return np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)


def outputs_of(module, inputs):
  with torch.no_grad():
    return module(channels_first(inputs)).numpy()


def assert_same(tree, other):
  assert jax.tree.structure(tree) == jax.tree.structure(other)
  jax.tree.map(np.testing.assert_array_equal, tree, other)


VARIANTS = [
  *((name, {}) for name in NETWORKS),
  ("mlp", {"use_bias": False, "activation": "tanh"}),
  ("lenet_300_100", {"activation": "sigmoid", "dropout_rate": 0.5}),
  ("resnet8", {"norm": "group"}),
  ("resnet18", {"norm": "none"}),
  ("vgg11", {"norm": "group", "width": 0.2}),
]


@pytest.mark.parametrize(("name", "settings"), VARIANTS, ids=str)
def test_a_module_computes_what_the_network_does_and_gives_its_ticket_back(name, settings):
  network, shape = make(name, **settings)
  ticket = random_genome(network, shape)
  module = to_torch(ticket, network, shape)
  inputs = examples(shape)
  here = np.asarray(forward(network, phenotype(ticket), inputs))
  np.testing.assert_allclose(outputs_of(module, inputs), here, rtol=0, atol=1e-5 * np.abs(here).max())
  pruned = {name for name, _ in module.named_buffers() if name.endswith("weight_mask")}
  assert len(pruned) == len(jax.tree.leaves(ticket.masks))
  for given in (module, module.state_dict()):
    back, state = from_torch(given, network, shape)
    assert_same((back.weights, back.masks), (ticket.weights, ticket.masks))
    assert back.layers == ticket.layers
    assert_same(state, {k: v for k, v in initial_state(network, shape).items() if k == "batch_stats"})


def test_running_averages_travel_too():
  network, shape = make("resnet8")
  ticket, state = random_genome(network, shape), initial_state(network, shape)
  rng = np.random.default_rng(0)
  state = jax.tree.map(lambda leaf: jnp.asarray(rng.uniform(0.5, 2, leaf.shape), jnp.float32), state)
  module = to_torch(ticket, network, shape, network_state=state)
  here = np.asarray(forward(network, phenotype(ticket), examples(shape), state=state))
  there = outputs_of(module, examples(shape))
  np.testing.assert_allclose(there, here, rtol=0, atol=1e-5 * np.abs(here).max())
  assert_same(from_torch(module, network, shape)[1], state)


@pytest.mark.parametrize("name", ["mlp", "lenet5", "resnet8", "vgg11", "vit"])
def test_an_epoch_there_loses_what_it_does_here(name):
  network, shape = make(name)
  ticket = random_genome(network, shape, seed=2)
  inputs, labels = examples(shape, 60, seed=3), np.random.default_rng(4).integers(0, 10, 60)
  module, rate = to_torch(ticket, network, shape).train(), 0.02
  weights, state = phenotype(ticket), initial_state(network, shape)

  def loss(weights, state, batch, answers):
    outputs, state = forward_in_training(network, weights, state, batch, jax.random.key(0))
    chosen = jnp.take_along_axis(jax.nn.log_softmax(outputs), answers[:, None], axis=1)
    return -jnp.mean(chosen), state

  step = jax.jit(jax.value_and_grad(loss, has_aux=True))
  optimizer = torch.optim.SGD(module.parameters(), rate)
  for first in range(0, 60, 12):
    batch, answers = inputs[first : first + 12], labels[first : first + 12]
    (here, state), gradients = step(weights, state, batch, answers)
    weights = jax.tree.map(lambda w, g: w - rate * g, weights, mask_weights(gradients, ticket.masks))
    optimizer.zero_grad()
    there = nn.functional.cross_entropy(module(channels_first(batch)), torch.from_numpy(answers))
    there.backward()
    optimizer.step()
    assert float(there.detach()) == pytest.approx(float(here), abs=1e-3)
  trained, _ = from_torch(module, network, shape)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3), phenotype(trained), weights
  )  # what is masked has not moved either


def test_a_module_trained_further_keeps_its_zeros():
  network, shape = make("lenet5")
  ticket = random_genome(network, shape, density=0.1)
  module = to_torch(ticket, network, shape).train()
  optimizer = torch.optim.AdamW(module.parameters(), 0.01, weight_decay=0.1)
  for seed in range(3):
    optimizer.zero_grad()
    module(channels_first(examples(shape, seed=seed))).square().mean().backward()
    optimizer.step()
  module.load_state_dict(module.state_dict())  # pruning is in it
  module.eval()
  outputs_of(module, examples(shape))  # a module multiplies its masks in when it is called
  trained, _ = from_torch(module, network, shape)
  assert_same(trained.masks, ticket.masks)
  moved = [
    bool((a != b).any())
    for a, b in zip(jax.tree.leaves(trained.weights), jax.tree.leaves(ticket.weights), strict=True)
  ]
  assert all(moved)
  mask = np.asarray(ticket.masks["dense_0"]["kernel"]).T
  assert (module.dense_0.weight.detach().numpy()[~mask] == 0).all()


def own_lenet5():
  """LeNet-5 as a stranger writes it, by other names."""
  return nn.Sequential(
    nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), ChannelsLast(),
    nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
  )  # fmt: skip


class ChannelsLast(nn.Module):
  def forward(self, x):
    return x.permute(0, 2, 3, 1).flatten(1)


def test_a_module_of_ones_own_is_filled_in_order():
  network, shape = make("lenet5")
  ticket, own = random_genome(network, shape), own_lenet5()
  before = [parameter.clone() for parameter in own.parameters()]
  filled = to_torch(ticket, network, shape, module=own)
  assert all(map(torch.equal, own.parameters(), before))  # a copy is filled
  other = random_genome(network, shape, seed=5)
  again = to_torch(other, network, shape, module=filled)  # whose masks are let go
  assert_same(from_torch(again, network, shape)[0].masks, other.masks)
  here = np.asarray(forward(network, phenotype(ticket), examples(shape)))
  there = outputs_of(filled, examples(shape))
  np.testing.assert_allclose(there, here, atol=1e-5 * np.abs(here).max())
  assert_same(from_torch(filled, network, shape)[0].masks, ticket.masks)


def test_a_module_pruned_there_becomes_a_ticket():
  network, shape = make("lenet5")
  module = own_lenet5()
  prune.l1_unstructured(module[7], "weight", 0.9)
  prune.random_unstructured(module[0], "weight", 0.5)
  prune.remove(module[0], "weight")  # zeros are left, and no mask
  ticket, _ = from_torch(module, network, shape)
  densities = {name: float(value) for name, value in nets_jax.layer_densities(ticket).items()}
  assert densities == pytest.approx({"conv_0": 0.5, "conv_1": 1, "dense_0": 0.1, "dense_1": 1, "output": 1})
  assert outputs_of(to_torch(ticket, network, shape), examples(shape)) == pytest.approx(
    outputs_of(module, examples(shape)), abs=1e-5
  )


def wrong(module, change):
  change(module)
  return module


@pytest.mark.parametrize(
  ("module", "message"),
  [
    (lambda: own_lenet5()[:-1], "the module has 4 layers with parameters, the network 5"),
    (
      lambda: wrong(own_lenet5(), lambda m: m.__setitem__(6, nn.Flatten())),
      "computes something else.*channels last",
    ),
    (
      lambda: wrong(own_lenet5(), lambda m: m.__setitem__(1, nn.Tanh())),
      "the module computes something else",
    ),
    (
      lambda: wrong(own_lenet5(), lambda m: m.__setitem__(9, nn.Linear(120, 85))),
      r"9\.weight has the shape \(85, 120\), where dense_1/kernel",
    ),
    (
      lambda: wrong(own_lenet5(), lambda m: m.__setitem__(9, nn.Linear(120, 84, bias=False))),
      "9 has weight where",
    ),
  ],
)
def test_modules_of_other_layers_are_refused(module, message):
  network, shape = make("lenet5")
  with pytest.raises(nets_jax.UsageError, match=message) as error:
    to_torch(random_genome(network, shape), network, shape, module=module())
  assert "\n" not in str(error.value)


def test_state_dicts_of_other_networks_are_refused():
  network, shape = make("lenet5")
  state = to_torch(random_genome(network, shape), network, shape).state_dict()
  with pytest.raises(nets_jax.UsageError, match=r"conv_0\.\w+ has the shape .* give the network"):
    from_torch(state, make("lenet5", width=2.0)[0], shape)
  with pytest.raises(nets_jax.UsageError, match=r"no block_1_0\.conv_0\.weight|shape"):
    from_torch(state, make("resnet8")[0], (16, 16, 3))
  without = {name: value for name, value in state.items() if name != "conv_0.weight_mask"}
  with pytest.raises(nets_jax.UsageError, match=r"has no conv_0\.weight_mask beside it"):
    from_torch(without, network, shape)


def test_a_network_of_ones_own_needs_a_module():
  network = nets_jax.Functional(
    lambda key, inputs: ({"layer": {"kernel": jax.random.normal(key, (3, 2)) + inputs.sum() * 0}}, {}),
    lambda parameters, state, inputs, *, key, train: (inputs @ parameters["layer"]["kernel"], state),
  )
  ticket = random_genome(network, (3,))
  with pytest.raises(nets_jax.UsageError, match="has no ready module of PyTorch; give yours"):
    to_torch(ticket, network, (3,))
  module = to_torch(ticket, network, (3,), module=nn.Linear(3, 2, bias=False))
  assert_same(from_torch(module, network, (3,))[0].masks, ticket.masks)


@pytest.mark.parametrize("name", ["mlp", "lenet5", "conv2", "resnet8", "resnet18", "vit"])
def test_a_sparse_module_computes_the_same(name):
  network, shape = make(name)
  module = to_torch(random_genome(network, shape, density=0.2), network, shape)
  small = sparse_module(module)
  for count in (1, 5):
    there = outputs_of(module, examples(shape, count))
    np.testing.assert_allclose(
      outputs_of(small, examples(shape, count)), there, rtol=0, atol=1e-5 * np.abs(there).max()
    )
  stored = sum(len(leaf.values()) for leaf in small.buffers() if leaf.layout == torch.sparse_csr)
  kept = sum(int(mask.sum()) for name, mask in module.named_buffers() if name.endswith("weight_mask"))
  assert stored == kept
  assert list(small.parameters()) == [] or name in ("resnet8", "resnet18", "vit")  # gains of normalisations


def test_what_has_no_sparse_form_is_said():
  with pytest.raises(nets_jax.UsageError, match="nothing in this module is pruned"):
    sparse_module(own_lenet5())
  grouped = nn.Sequential(nn.Conv2d(4, 4, 3, groups=2))
  prune.random_unstructured(grouped[0], "weight", 0.5)
  with pytest.raises(nets_jax.UsageError, match="in groups"):
    sparse_module(grouped)
  embedding = nn.Sequential(nn.Embedding(4, 4))
  prune.random_unstructured(embedding[0], "weight", 0.5)
  with pytest.raises(nets_jax.UsageError, match="0 is of Embedding, which has no sparse form here"):
    sparse_module(embedding)


def test_the_order_is_that_of_application_and_not_the_alphabets():
  def apply(parameters, state, inputs, *, key, train):
    hidden = jax.nn.relu(inputs @ parameters["trunk"]["kernel"])
    return hidden @ parameters["head"]["kernel"], state

  kernels = {name: {"kernel": jnp.zeros((4, 4))} for name in ("head", "trunk")}
  network = nets_jax.Functional(lambda key, inputs: (kernels, {}), apply)
  ticket = random_genome(network, (4,))
  own = nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 4, bias=False))
  filled = to_torch(ticket, network, (4,), module=own)
  trunk = np.asarray(ticket.weights["trunk"]["kernel"])
  np.testing.assert_array_equal(filled[0].weight_orig.detach().numpy().T, trunk)
  assert_same(from_torch(filled, network, (4,))[0].weights, ticket.weights)
  other = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
  with pytest.raises(nets_jax.UsageError, match="the module computes something else"):
    from_torch(other, network, (4,))


def test_embeddings_are_pruned_where_a_task_masks_them():
  def apply(parameters, state, inputs, *, key, train):
    embedded = parameters["embed"]["embedding"][inputs.astype(int)].mean(1)
    return embedded @ parameters["output"]["kernel"], state

  network = nets_jax.Functional(
    lambda key, inputs: (
      {"embed": {"embedding": jax.random.normal(key, (7, 4))}, "output": {"kernel": jnp.ones((4, 2))}}, {},
    ),
    apply,
  )  # fmt: skip
  module = nn.Sequential()
  module.add_module("embed", nn.Embedding(7, 4))
  module.add_module("output", nn.Linear(4, 2, bias=False))
  prune.random_unstructured(module.embed, "weight", 0.5)
  ticket, _ = from_torch(module.state_dict(), network, (3,), maskable="kernels+embeddings")
  assert int(ticket.masks["embed"]["embedding"].sum()) == 14
  with pytest.raises(
    nets_jax.UsageError, match=r"embed\.weight is pruned, but no mask covers embed/embedding"
  ):
    from_torch(module.state_dict(), network, (3,))


def test_layers_of_haiku_are_filled():
  haiku = pytest.importorskip("haiku")
  made = haiku.transform_with_state(lambda x, train: haiku.nets.MLP((5, 3))(x))
  network = nets_jax.Functional(
    lambda key, inputs: made.init(key, inputs, False),
    lambda parameters, state, inputs, *, key, train: made.apply(parameters, state, key, inputs, train),
  )
  ticket = random_genome(network, (4,))
  own = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
  back, _ = from_torch(to_torch(ticket, network, (4,), module=own), network, (4,))
  assert_same((back.weights, back.masks), (ticket.weights, ticket.masks))
