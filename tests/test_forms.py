"""The forms that a ticket is kept and run in: the same outputs, and what each takes."""

import jax
import numpy as np
import pytest

import nets_jax
from nets_jax.export import forms
from nets_jax.networks.zoo import make_network
from nets_jax.tickets.ticket import initialise

pytestmark = pytest.mark.export

ALL = ["dense", "compact", "scipy csr", "torch", "torch csr", "onnx", "onnx compact"]


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
  monkeypatch.setattr(forms, "SECONDS", 0.0)


@pytest.mark.parametrize(("name", "shape"), [("lenet_300_100", (28, 28, 1)), ("resnet8", (16, 16, 3))])
def test_all_forms_compute_the_same(name, shape):
  network = make_network(name, 10)
  ticket = initialise(jax.random.key(0), network, shape, initialiser="he", initial_density=0.01)
  rows = forms.measured(ticket, network, shape, batch=3)
  assert [row.form for row in rows] == ALL
  size = {row.form: row.size for row in rows}
  assert all(row.ms_one > 0 and row.ms_batch > 0 and row.apart < 1e-5 for row in rows)
  assert size["onnx"] == pytest.approx(size["dense"], rel=0.1)
  assert size["scipy csr"] < size["dense"] / 2
  if name == "lenet_300_100":
    assert size["onnx compact"] < size["onnx"] / 4
    assert size["compact"] < size["dense"] / 4


def test_a_network_of_ones_own_has_all_but_torch():
  network = nets_jax.Functional(
    lambda key, inputs: ({"layer": {"kernel": jax.random.normal(key, (3, 2))}}, {}),
    lambda parameters, state, inputs, *, key, train: (inputs @ parameters["layer"]["kernel"], state),
  )
  ticket = initialise(jax.random.key(0), network, (3,), initialiser="he", initial_density=0.5)
  assert [each.name for each in forms.forms(ticket, network, (3,))] == [n for n in ALL if "torch" not in n]


def test_a_form_that_computes_something_else_is_said(monkeypatch):
  network = nets_jax.MLP((4,), 2)
  ticket = initialise(jax.random.key(0), network, (3,), initialiser="he", initial_density=0.5)
  monkeypatch.setattr(
    forms.SparseNetwork, "__call__", lambda self, inputs: np.ones((len(inputs), 2), np.float32)
  )
  with pytest.raises(nets_jax.UsageError, match="scipy csr computes something else"):
    forms.measured(ticket, network, (3,))
