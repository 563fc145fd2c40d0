"""What a ticket's controls share with it, and what they do not."""

import csv
import functools

import jax
import numpy as np
import pytest
from conftest import assert_same_bits

import nets_jax
from nets_jax.baselines.one_shot import Snip
from nets_jax.cli import controls
from nets_jax.studies.ticket_controls import CONTROLS
from nets_jax.tickets.ticket import initialise, maskable_count, unmasked_count

TINY = (
  "--dataset=xor", "--activation=sigmoid", "--xor_train_size=100", "--xor_test_size=40", "--hidden_sizes=6",
  "--train_epochs=2", "--batch_size=10", "--workdir=out", "--devices=1", "--score_batch=20",
)  # fmt: skip


@pytest.fixture
def job(run_binary):
  return functools.partial(run_binary, controls)


@pytest.fixture
def found(tmp_path):
  """Two tickets whose layers have scales far apart."""
  network = nets_jax.MLP((6,), 2, activation="sigmoid")
  made = []
  for i in range(2):
    ticket = initialise(
      jax.random.key(i), network, (2,), initialiser=(0.01 * (i + 1), 3.0), initial_density=0.6
    )
    nets_jax.save_ticket(tmp_path / f"ticket-{i}.safetensors", ticket, network)
    made.append(ticket)
  return made


def test_the_controls(network, data, ticket):
  ticket = initialise(
    jax.random.key(5), network, data.input_shape, initialiser=(0.02, 0.3, 4.0), initial_density=0.4
  )
  task = nets_jax.Task(network, data)
  snip = Snip(score_batch=20)
  made = {name: make(jax.random.key(9), ticket, task, snip) for name, make in CONTROLS.items()}
  count = lambda t: int(unmasked_count(t))  # noqa: E731
  scales = lambda t: np.array([float(s) for s in nets_jax.layer_scales(t).values()])  # noqa: E731
  by_layer = lambda t: [int(m.sum()) for m in jax.tree.leaves(t.masks)]  # noqa: E731
  whole = maskable_count(ticket)
  assert_same_bits(made["ticket"], ticket)
  for name, own in made.items():
    assert count(own) == (whole if name in ("unmasked", "dense_scaled", "dense") else count(ticket)), name
    ratio = scales(own) / (0.1 if name in ("reinitialise_plain", "dense") else scales(ticket))
    assert (np.abs(np.log(ratio)) < 0.7).all(), name  # of a dozen weights in the smallest layer
  for name in ("unmasked", "shuffle_mask"):
    assert_same_bits(made[name].weights, ticket.weights)
  for name in ("reinitialise", "reinitialise_plain"):
    assert_same_bits(made[name].masks, ticket.masks)
  for name in ("shuffle_mask", "random_layers"):
    assert by_layer(made[name]) == by_layer(ticket)
    assert not np.array_equal(*(jax.tree.leaves(t.masks)[0] for t in (made[name], ticket)))
  for name in ("reinitialise", "random_layers", "random_scaled", "snip_scaled", "dense_scaled"):
    assert not np.array_equal(*(jax.tree.leaves(t.weights)[1] for t in (made[name], ticket)))


def test_it_trains_them_and_judges(job, found, tmp_path):
  names = "ticket,dense,snip_scaled"
  status, out, error = job(*TINY, "--tickets=ticket-*.safetensors", f"--controls={names}")
  assert status == 0, error
  with open(tmp_path / "out" / "controls.csv", newline="") as file:
    rows = list(csv.DictReader(file))
  order = [name for name in CONTROLS if name in names.split(",")]
  assert [(row["control"], row["ticket"]) for row in rows] == [(n, t) for n in order for t in ("0", "1")]
  own = [float(row["density"]) for row in rows if row["control"] == "ticket"]
  assert own == [pytest.approx(float(nets_jax.density(ticket))) for ticket in found]
  assert out.count("Definition 3 against ") == 1
  assert (tmp_path / "out" / "controls.md").read_text() in out
  page = (tmp_path / "out" / "report.html").read_text()
  assert "snip_scaled" in page
  assert "Winning tickets by Definition 3 of the paper: dense (" in page
  assert "nets_jax controls --flagfile=controls.flags" in page

  # What is done is not trained again; other tickets are refused.
  _, _, error = job(*TINY, "--tickets=ticket-*.safetensors", f"--controls={names}")
  assert "6 runs, 6 of them done; 0 to go in 0 program(s)" in error
  status, _, error = job(*TINY, "--tickets=ticket-0.safetensors")
  assert status == 2
  assert "out is of another configuration (tickets" in error
  status, _, error = job(*TINY, "--tickets=ticket-*.safetensors", "--score_batch=30")
  assert status == 2
  assert "out is of another configuration (score_batch 20 there and 30 here)" in error
  status, _, error = job(*TINY, "--tickets=ticket-*.safetensors", "--noise_rate=0.1")
  assert (status, error.count("\n")) == (2, 1)
  assert "snip has no setting 'noise_rate'; those that have it are paper" in error


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--tickets=none-*"], "--tickets=none-* names no file; give a pattern of ticket files"),
    (["--tickets=ticket-0.safetensors", "--controls=luck"], "controls may be ticket, unmasked,"),
    (
      ["--tickets=ticket-0.safetensors", "--hidden_sizes=7"],
      "is for a network of hidden_sizes (6,), not (7,)",
    ),
    (
      ["--tickets=ticket-0.safetensors", "--activation=tanh"],
      "is for a network of activation sigmoid, not tanh",
    ),
    (["--tickets=ticket-0.safetensors", "--train_epochs=0"], "train_epochs must be at least 1, not 0"),
    (
      ["--tickets=ticket-0.safetensors", "--score_batch=91"],
      "score_batch must be from 1 to the 90 training examples, not 91",
    ),
    (["--tickets=ticket-0.safetensors", "--dataset=digits"], "the ticket does not fit the network: "),
  ],
)
def test_wrong_requests(job, found, tmp_path, arguments, message):
  status, _, error = job(*TINY, *arguments)
  assert status == 2
  assert error.count("\n") == 1
  assert message in error
  assert not (tmp_path / "out").exists()
