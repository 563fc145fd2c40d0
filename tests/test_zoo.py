"""The ready-made networks: as large as their papers say, named in order, told apart, rebuilt from a file."""

import functools
import inspect
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
from absl import flags
from conftest import assert_same_bits

import nets_jax
from nets_jax.cli import setting_flags
from nets_jax.networks import images, zoo
from nets_jax.networks.architectures.conv_nets import ConvNet, conv2
from nets_jax.networks.architectures.lenet5 import lenet5
from nets_jax.networks.architectures.mlp import MLP
from nets_jax.networks.architectures.resnets import ResidualBlock, ResNet, resnet8, resnet18, resnet20
from nets_jax.networks.architectures.transformers import ViT, vit
from nets_jax.networks.architectures.vgg import VGG, vgg11
from nets_jax.networks.layers import find_layers
from nets_jax.networks.zoo import NETWORKS, NetworkSettings, make_network

MNIST, CIFAR = (28, 28, 1), (32, 32, 3)
KEY = jax.random.key(0)


@functools.cache
def variables(network, shape=CIFAR):
  """The shapes of a network's parameters and state; nothing is computed."""
  return jax.eval_shape(network.init, KEY, jnp.zeros((1, *shape)))


def leaves(tree):
  """The shape of each leaf, by its path."""
  found = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in found}


def parameters(network, shape=CIFAR):
  return sum(math.prod(own) for own in leaves(variables(network, shape)["params"]).values())


def weights(network, shape=CIFAR):
  found = leaves(variables(network, shape)["params"])
  return sum(math.prod(own) for name, own in found.items() if name.endswith("kernel"))


def names(network, shape=CIFAR):
  return [layer.name for layer in find_layers(network, shape)]


def made(name, **kwargs):
  return make_network(name, 10, (100, 50) if name == "mlp" else (), **kwargs)


# Each with the number of its parameters, written out.


def residual(n, stages=(16, 32, 64), projected=False, width=1):
  """6n + 2 layers (He et al., section 4.2), or ImageNet's with projections: no biases but the output's."""
  channels = [width * own for own in stages]
  count = 27 * channels[0] + 2 * channels[0]
  before = channels[0]
  for own in channels:
    count += 9 * before * own + (2 * n - 1) * 9 * own * own + 2 * n * 2 * own
    if projected and own != before:
      count += before * own + 2 * own
    before = own
  return count + 10 * channels[-1] + 10


def vgg(configuration):
  """Simonyan & Zisserman's Table 1, with batch normalisation in place of biases and one dense layer."""
  count, before = 10 * 512 + 10, 3
  for own in configuration:
    count, before = count + 9 * before * own + 2 * own, own
  return count


def transformer(depth=6, channels=96, patch=4, tokens=65):
  block = 4 * channels * (channels + 1) + 2 * 2 * channels + 8 * channels * channels + 5 * channels
  ends = (3 * patch * patch + 1) * channels + (tokens + 1) * channels + 2 * channels + 10 * channels + 10
  return depth * block + ends


COUNTS = {
  "mlp": (MNIST, 784 * 100 + 100 + 100 * 50 + 50 + 50 * 10 + 10),
  "lenet_300_100": (MNIST, 266_200 + 300 + 100 + 10),
  "lenet5": (MNIST, 61_706),
  "conv2": (CIFAR, 4_300_992 + 64 + 64 + 256 + 256 + 10),
  "conv4": (CIFAR, 2_425_024 + 2 * (64 + 128) + 256 + 256 + 10),
  "conv6": (CIFAR, 2_261_184 + 2 * (64 + 128 + 256) + 256 + 256 + 10),
  "resnet8": (CIFAR, residual(1)),
  "resnet20": (CIFAR, residual(3)),
  "resnet32": (CIFAR, residual(5)),
  "resnet56": (CIFAR, residual(9)),
  "resnet18": (CIFAR, residual(2, (64, 128, 256, 512), projected=True)),
  "vgg11": (CIFAR, vgg([64, 128, 256, 256, 512, 512, 512, 512])),
  "vgg16": (CIFAR, vgg([64] * 2 + [128] * 2 + [256] * 3 + [512] * 6)),
  "vgg19": (CIFAR, vgg([64] * 2 + [128] * 2 + [256] * 4 + [512] * 8)),
  "vit": (CIFAR, transformer()),
}  # fmt: skip


def test_every_network_is_counted():
  assert set(COUNTS) == set(NETWORKS)


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_are_as_many_as_written_out(name):
  shape, count = COUNTS[name]
  assert parameters(made(name), shape) == count


@pytest.mark.parametrize(
  ("name", "millions"),
  # He et al., Table 6; and what is usually said of ResNet-18 and VGG on CIFAR.
  [
    ("resnet20", 0.27), ("resnet32", 0.46), ("resnet56", 0.85), ("resnet18", 11.17), ("vgg11", 9.23),
    ("vgg16", 14.72), ("vgg19", 20.04),
  ],
)  # fmt: skip
def test_parameters_are_as_many_as_the_papers_say(name, millions):
  assert round(parameters(made(name)) / 1e6, 2) == millions


@pytest.mark.parametrize(
  ("name", "every", "of_convolutions"), [("conv2", 4.3, 0.04), ("conv4", 2.4, 0.26), ("conv6", 2.3, 1.14)]
)
def test_weights_are_as_many_as_frankle_and_carbin_say(name, every, of_convolutions):
  """Their Figure 2 (38 K, 260 K and 1.1 M of convolutions), but for Conv-6's 1.7 M of all; see `conv6`."""
  found = leaves(variables(made(name))["params"])
  convs = sum(math.prod(own) for own in found.values() if len(own) == 4)
  assert round(weights(made(name)) / 1e6, 1) == every
  assert round(convs / 1e6, 2) == of_convolutions


@pytest.mark.parametrize("name", NETWORKS)
def test_a_batch_of_inputs_becomes_a_row_of_logits_each(name):
  network, shape = made(name), COUNTS[name][0]
  for train in (False, True):
    apply = functools.partial(network.apply, train=train, mutable=["batch_stats"])
    given = jax.ShapeDtypeStruct((5, *shape), jnp.float32)
    outputs, state = jax.eval_shape(apply, variables(network, shape), given)
    assert (outputs.shape, outputs.dtype) == ((5, 10), jnp.float32)
    assert leaves(state) == leaves({k: v for k, v in variables(network, shape).items() if k != "params"})


def test_layers_are_named_in_the_order_of_application():
  assert names(lenet5(), MNIST) == ["conv_0", "conv_1", "dense_0", "dense_1", "output"]
  assert names(made("conv4")) == [*(f"conv_{i}" for i in range(4)), "dense_0", "dense_1", "output"]
  assert names(resnet20(norm="group")) == [
    "conv_0",
    *(f"block_{stage}_{i}/conv_{j}" for stage in (1, 2, 3) for i in range(3) for j in (0, 1)),
    "output",
  ]
  assert names(resnet18(norm="none"))[5:9] == [
    "block_2_0/conv_0", "block_2_0/conv_1", "block_2_0/shortcut", "block_2_1/conv_0",
  ]  # fmt: skip
  assert names(vgg11(norm="none")) == [*(f"conv_{i}" for i in range(8)), "output"]
  assert names(vit(depth=2)) == [
    "patches",
    *(
      f"block_{i}/{name}"
      for i in range(2)
      for name in (*(f"attention/{own}" for own in ("query", "key", "value", "out")), "dense_0", "dense_1")
    ),
    "output",
  ]


def test_width_multiplies_channels_and_hidden_units():
  assert parameters(resnet20(width=2)) == residual(3, width=2)
  found = leaves(variables(lenet5(width=0.5), MNIST)["params"])
  assert [own for name, own in found.items() if name.endswith("kernel")] == [
    (5, 5, 1, 3), (5, 5, 3, 8), (5 * 5 * 8, 60), (60, 42), (42, 10),
  ]  # fmt: skip
  assert leaves(variables(conv2(width=1 / 32))["params"])["dense_1/kernel"] == (8, 8)
  assert leaves(variables(vgg11(width=0.25))["params"])["conv_7/kernel"] == (3, 3, 128, 128)
  assert parameters(vit(width=0.5, pool="mean")) == transformer(channels=48, tokens=64) - 48
  assert leaves(variables(vit(width=0.4, heads=5))["params"])["patches/bias"] == (40,)  # of 38, for 5 heads
  assert parameters(resnet8(width=1e-9)) > 0  # a channel each


@pytest.mark.parametrize("name", ["resnet8", "resnet18", "vgg11"])
def test_norms_are_of_batches_of_groups_or_none(name):
  batch, group, none = (variables(made(name, norm=norm)) for norm in images.NORMS)
  assert set(batch) == {"params", "batch_stats"}
  assert set(group) == set(none) == {"params"}
  assert leaves(batch["params"]) == leaves(group["params"])
  convs = [own.removesuffix("/kernel") for own, shape in leaves(none["params"]).items() if len(shape) == 4]
  assert all(f"{own}/bias" not in leaves(batch["params"]) for own in convs)
  assert all(f"{own}/bias" in leaves(none["params"]) for own in convs)
  assert not any("norm" in own for own in leaves(none["params"]))
  assert made(name) == made(name, norm="batch")


@pytest.mark.parametrize(("channels", "size"), [(16, 16), (64, 16), (24, 12), (5, 5), (40, 10), (37, 1)])
def test_groups_divide_the_channels(channels, size):
  assert images.group_size(channels) == size


def test_a_shortcut_keeps_every_second_pixel_and_adds_zeros():
  x = jnp.arange(2 * 5 * 4 * 3, dtype=jnp.float32).reshape(2, 5, 4, 3)
  block = ResidualBlock(7, 2, "identity", "none")
  nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), jax.eval_shape(block.init, KEY, x))
  found = np.asarray(block.apply(nothing, x))
  np.testing.assert_array_equal(found[..., :3], x[:, ::2, ::2])
  np.testing.assert_array_equal(found[..., 3:], 0)
  assert found.shape == (2, 3, 2, 7)


@pytest.mark.parametrize(
  ("name", "shape", "message"),
  [
    ("lenet5", (8, 8, 1), "lenet5 takes images [height, width, channels], at least 12 by 12; the data have "
     "shape (8, 8, 1)"),
    ("conv2", (64,), "conv2 takes images [height, width, channels], at least 2 by 2; the data have shape"),
    ("conv6", (32, 7, 3), "conv6 takes images [height, width, channels], at least 8 by 8; the data "),
    ("resnet20", (784,), "resnet20 takes images [height, width, channels], at least 4 by 4; "),
    ("resnet18", (4, 4, 3), "resnet18 takes images [height, width, channels], at least 8 by 8; "),
    ("vgg16", (15, 28, 1), "vgg16 takes images [height, width, channels], at least 16 by 16; "),
    ("vit", (30, 32, 3), "vit takes images [height, width, channels], with sides that are multiples of 4; "),
    ("vit", (0, 32, 3), "vit takes images [height, width, channels], with sides that are multiples of 4; "),
  ],
)  # fmt: skip
def test_inputs_that_are_no_images_or_too_small_are_one_line(name, shape, message):
  with pytest.raises(nets_jax.UsageError) as error:
    variables(made(name), shape)
  assert str(error.value).startswith(message)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  ("network", "message"),
  [
    (resnet8(norm="layer"), "norm must be one of batch, group, none, not 'layer'"),
    (ResNet(shortcut="none"), "shortcut must be identity or projection, not 'none'"),
    (vgg11(width=0), "width must be positive, not 0"),
    (vit(depth=0), "depth must be at least 1, not 0"),
    (vit(pool="max"), "pool must be one of token, mean, not 'max'"),
  ],
)
def test_impossible_fields_are_one_line(network, message):
  with pytest.raises(nets_jax.UsageError, match=message):
    variables(network)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_compared_by_what_they_are(name):
  network = made(name)
  assert network == made(name)
  assert hash(network) == hash(made(name))
  assert network != make_network(name, 3, (100, 50) if name == "mlp" else ())
  others = [made(other) for other in NETWORKS if other != name]
  assert network not in others
  assert len({network, made(name), *others}) == len(NETWORKS)


def test_each_name_makes_its_network():
  kinds = {"lenet": MLP, "mlp": MLP, "conv": ConvNet, "resnet": ResNet, "vgg": VGG, "vit": ViT}
  for name in NETWORKS:
    kind = next((kind for start, kind in kinds.items() if name.startswith(start)), None)
    assert isinstance(made(name), kind) or name == "lenet5"
    assert made(name).num_classes == 10
  assert made("resnet20", width=2.0, norm="group") == resnet20(width=2.0, norm="group")
  assert make_network("nets_jax.networks.architectures.transformers:vit(depth=2)", 7) == ViT(7, depth=2)


# Settings and flags.


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"network": "resnet20", "hidden_sizes": (5,)}, "resnet20 has no hidden_sizes; it takes width, norm"),
    ({"network": "vgg11", "activation": "tanh"}, "vgg11 has no activation; it takes width, norm"),
    ({"network": "lenet5", "norm": "batch"}, "lenet5 has no norm; it takes width"),
    ({"width": 2.0}, "mlp has no width; it takes hidden_sizes, use_bias, activation, dropout_rate"),
    ({"network": "lenet_300_100", "width": 2.0}, "lenet_300_100 has no width; it takes use_bias, activation"),
    ({"network": "resnet20", "width": 0.0}, "width must be positive, not 0.0"),
    ({"network": "resnet20", "norm": "layer"}, "norm must be one of batch, group, none, not 'layer'"),
    (
      {"network": "flax.linen:Dense(features=3)", "width": 2.0},
      r"width is for the ready-made networks; write flax.linen:Dense\(...\) with",
    ),
  ],
)
def test_a_setting_that_a_network_does_not_have_is_refused(settings, message):
  with pytest.raises(nets_jax.UsageError, match=message):
    NetworkSettings(**settings).make(10)


def test_lenet_300_100_still_leaves_the_sizes_of_a_preset_unheeded():
  assert NetworkSettings("lenet_300_100", hidden_sizes=(6,)).make(10) == zoo.lenet_300_100()


def test_precision_is_of_those_that_have_it():
  assert make_network("mlp", 3, (4,), precision="bfloat16") == MLP((4,), 3, precision="bfloat16")
  with pytest.raises(nets_jax.UsageError, match="resnet20 has no precision, so it trains in float32, not"):
    make_network("resnet20", 3, precision="bfloat16")
  with pytest.raises(nets_jax.UsageError, match="precision must be one of float32"):
    make_network("resnet20", 3, precision="float64")


def test_flags_make_the_network():
  values = setting_flags.changed(flags.FLAGS, {"network": "resnet20", "width": "2", "norm": "group"})
  assert setting_flags.make_network(values, 10) == resnet20(width=2.0, norm="group")
  values = setting_flags.changed(flags.FLAGS, {"network": "vit", "width": "0.5"})
  assert setting_flags.make_network(values, 10) == vit(width=0.5)


def test_settings_are_those_of_the_signatures():
  """So that a network's line in the table is all that the settings need to know of it."""
  for make in NETWORKS.values():
    found = inspect.signature(make).parameters.values()
    assert next(iter(found)).name == "num_classes"
    assert all(
      own.kind is own.KEYWORD_ONLY for own in found if own.name not in ("num_classes", "hidden_sizes")
    )


# Ticket files.

OWN = [
  MLP((8, 5), 3, dropout_rate=0.1), lenet5(width=0.5), resnet20(7, width=2, norm="group"), resnet18(),
  ViT(3, patch=8, depth=2, heads=2, pool="mean"),
]  # fmt: skip


@pytest.mark.parametrize("network", [*OWN, *map(made, NETWORKS)])
def test_a_record_says_the_network_and_rebuilds_it(network):
  name, arguments = zoo.named(network)
  assert "precision" not in arguments
  assert zoo.rebuilt(name, json.loads(json.dumps(arguments))) == network


def test_no_record_is_made_of_what_no_name_makes():
  assert zoo.named(ResNet(blocks=(2, 2, 2))) is None
  assert zoo.named(ResidualBlock(8, 1, "identity", "none")) is None
  assert zoo.named(MLP([8, 5], 3, precision="bfloat16")) == zoo.named(MLP((8, 5), 3))


@pytest.mark.parametrize(
  ("name", "arguments"),
  [
    ("resnet20", {"num_classes": 10, "blocks": [9, 9, 9]}), ("resnet20", {"num_classes": 0}),
    ("resnet20", {"num_classes": 10, "width": [1, 2]}), ("resnet20", {"num_classes": 10, "width": -1.0}),
    ("resnet20", {"num_classes": 10, "norm": "layer"}), ("resnet20", {"num_classes": 10, "norm": None}),
    ("vit", {"num_classes": 10, "depth": 0}), ("vit", {"num_classes": 10, "depth": "2"}),
    ("vit", {"num_classes": True}), ("vit", {"num_classes": 10, "name": "x"}),
    ("mlp", {"num_classes": 3, "hidden_sizes": [4], "use_bias": 1}),
    ("mlp", {"num_classes": 3, "hidden_sizes": [4], "precision": "bfloat16"}),
  ],
)  # fmt: skip
def test_a_damaged_record_is_refused(name, arguments):
  with pytest.raises(nets_jax.UsageError):
    zoo.rebuilt(name, arguments)


@pytest.fixture(scope="module")
def small():
  """A small LeNet-5 and a ticket of it."""
  network = lenet5(width=0.5)
  shapes = variables(network, MNIST)["params"]
  filled = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.1, leaf.dtype), shapes)
  kept = {name: {"kernel": np.ones(own["kernel"].shape, bool), "bias": None} for name, own in filled.items()}
  return network, nets_jax.Ticket(filled, kept, layers=find_layers(network, MNIST))


def stored(path):
  with safetensors.safe_open(path, framework="numpy") as file:
    return json.loads(file.metadata()["nets_jax"])


def test_a_ticket_file_rebuilds_its_network(tmp_path, small):
  network, ticket = small
  nets_jax.save_ticket(tmp_path / "t", ticket, network)
  assert nets_jax.load_network(tmp_path / "t") == network
  assert_same_bits(nets_jax.load_ticket(tmp_path / "t"), ticket)
  assert stored(tmp_path / "t")["network_arguments"] == {"num_classes": 10, "width": 0.5}


def test_the_file_of_an_mlp_says_what_it_always_has(tmp_path, ticket):
  nets_jax.save_ticket(tmp_path / "t", ticket, MLP((8, 5), 3, precision="bfloat16"))
  found = stored(tmp_path / "t")
  arguments = {"hidden_sizes": [8, 5], "num_classes": 3, "use_bias": True, "activation": "relu"}
  assert list(found) == ["format_version", "network", "network_arguments", "layers", "sha256"]
  assert list(found["network_arguments"].items()) == [*arguments.items(), ("dropout_rate", 0.0)]


@pytest.mark.parametrize("arguments", [{"width": 1e9}, {"num_classes": 11}, {"width": "0.5"}, {"blocks": 3}])
def test_a_file_asks_for_no_more_than_it_has(tmp_path, monkeypatch, small, arguments):
  own = {"num_classes": 10, "width": 0.5, **arguments}
  monkeypatch.setattr("nets_jax.tickets.storage.named", lambda network: ("lenet5", own))
  nets_jax.save_ticket(tmp_path / "t", small[1], small[0])
  with pytest.raises(nets_jax.UsageError, match="its metadata are damaged"):
    nets_jax.load_network(tmp_path / "t")


@pytest.mark.parametrize(
  ("changes", "network", "said"),
  [
    ({"width": 2.0}, resnet20(), ("width", "a network of width 1.0, not 2.0")),
    ({"network": "resnet20"}, resnet20(width=2.0), None),
    ({"network": "vgg11"}, resnet20(), ("network", "the network resnet20, not vgg11")),
    ({"network": "resnet18", "norm": "batch"}, resnet20(), ("network", "a network of blocks (3, 3, 3), not")),
    ({"hidden_sizes": (7,)}, MLP((6,), 2), ("hidden_sizes", "a network of hidden_sizes (6,), not (7,)")),
    ({}, resnet20(7), None),
  ],
)  # fmt: skip
def test_flags_may_not_contradict_a_tickets_network(changes, network, said):
  found = NetworkSettings(**changes).contradiction(network, list(changes))
  assert (found and found[0]) == (said and said[0])
  assert (found is None) or found[1].startswith(said[1])
  with pytest.raises(nets_jax.UsageError, match="resnet20 has no dropout_rate; it takes width, norm"):
    NetworkSettings(dropout_rate=0.5).contradiction(resnet20(), ["dropout_rate"])
