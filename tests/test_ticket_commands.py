"""What `nets-jax` does with a ticket's file: info, overlap, verify, train; and files that lie."""

import importlib
import json
import pathlib
import re
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy
from conftest import assert_same_bits, made_once, table, without_seconds

import nets_jax
from nets_jax import __main__
from nets_jax.analysis.inspection import describe, overlap
from nets_jax.cli import densities, export, forms, info, search, train, verify
from nets_jax.cli import overlap as overlap_command
from nets_jax.export.trained_tickets import load_whole
from nets_jax.networks.adapter import initial_state
from nets_jax.tickets.provenance import Provenance
from nets_jax.tickets.storage import load_provenance, save_ticket
from nets_jax.tickets.tensor_files import checksum, read, write
from nets_jax.tickets.ticket import phenotype
from nets_jax.tickets.trained import save_trained

TINY = (
  "--dataset=xor", "--xor_train_size=100", "--xor_test_size=40", "--hidden_sizes=6,5", "--train_epochs=2",
  "--batch_size=10", "--generations=2", "--halvings=0", "--population_size=3", "--target_density=0.3",
  "--seed=7",
)  # fmt: skip


@pytest.fixture
def found(run_binary, finished, tmp_path):
  """The directory of a run that keeps its trained network."""
  run = lambda: run_binary(search, *TINY, "--keep_trained", "--workdir=run", "--devices=1")  # noqa: E731
  return made_once(finished, tmp_path / "run", run)


def pair(tmp_path, network, shapes, **provenance):
  """Files of two tickets of a network."""
  paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
  tickets = [nets_jax.random_ticket(i, network, shapes, density) for i, density in enumerate((0.3, 0.6))]
  for path, ticket in zip(paths, tickets, strict=True):
    save_ticket(path, ticket, network, provenance=Provenance(input_shape=shapes, **provenance))
  return paths, tickets


def test_a_description_counts_what_is_there(tmp_path):
  network = nets_jax.networks.zoo.make_network("lenet5", 10)
  (path, _), (ticket, _) = pair(tmp_path, network, (28, 28, 1), search="mine", seed=3)
  record = describe(path)
  masks, weights = (
    {name: np.asarray(leaf) for name, leaf in ticket.by_layer(tree).items()}
    for tree in (ticket.masks, ticket.weights)
  )
  for layer in record["layers"]:
    mask, kernel = masks[layer["name"]], weights[layer["name"]]
    assert layer["unmasked"] == np.count_nonzero(mask)
    assert layer["shape"] == list(mask.shape)
    assert layer["density"] == pytest.approx(np.count_nonzero(mask) / mask.size)
    assert layer["scale"] == pytest.approx(np.sqrt(np.mean(kernel.astype(np.float64) ** 2)))
  assert [layer["name"] for layer in record["layers"]] == list(masks)
  assert record["unmasked"] == sum(layer["unmasked"] for layer in record["layers"])
  assert record["bytes"]["dense"] == sum(leaf.nbytes for leaf in jax.tree.leaves(ticket.weights))
  small = nets_jax.compact(ticket, network, (28, 28, 1), round_up=False)
  assert record["multiplications"] == small.multiplications < record["whole_multiplications"]
  assert record["units_alive"] == sum(int(live.sum()) for live in small.live.values()) < record["units"]
  assert record["bytes"]["compact"] == sum(leaf.nbytes for leaf in jax.tree.leaves(small.ticket.weights))
  assert record["provenance"] == {"input_shape": [28, 28, 1], "search": "mine", "seed": 3}
  assert (record["network"], record["unknown"]) == ("lenet5", None)


def test_overlap_is_jaccards_beside_chance(tmp_path):
  (a, b), tickets = pair(tmp_path, nets_jax.MLP((60, 50), 3), (40,))
  record = overlap(a, b)
  sets = [
    {(name, *where) for name, mask in ticket.by_layer(ticket.masks).items() for where in np.argwhere(mask)}
    for ticket in jax.tree.map(np.asarray, tickets, is_leaf=lambda x: isinstance(x, jax.Array))
  ]
  sets = [{tuple(map(str, each)) for each in own} for own in sets]
  assert record["all"]["jaccard"] == pytest.approx(len(sets[0] & sets[1]) / len(sets[0] | sets[1]))
  assert record["all"]["counts"] == [len(own) for own in sets]
  assert record["all"]["jaccard"] == pytest.approx(record["all"]["jaccard_by_chance"], rel=0.1)
  assert [layer["name"] for layer in record["layers"]] == ["hidden_0", "hidden_1", "output"]
  assert record["units"]["of"] == 40 + 60 + 50  # outputs are no choice of a ticket's
  by_layer = [
    [np.asarray(mask).mean() for mask in ticket.by_layer(ticket.masks).values()] for ticket in tickets
  ]
  sizes = [np.asarray(mask).size for mask in tickets[0].by_layer(tickets[0].masks).values()]
  common = sum(p * q * size for p, q, size in zip(*by_layer, sizes, strict=True))
  chance = common / (sum(map(len, sets)) - common)
  assert record["all"]["jaccard_by_chance"] == pytest.approx(chance)
  same = overlap(a, a)
  assert same["all"]["jaccard"] == same["units"]["jaccard"] == 1.0


def test_a_file_says_where_its_ticket_comes_from(found):
  known = load_provenance(found / "ticket.safetensors")
  assert (known.search, known.seed, known.input_shape) == ("guided", 7, (2,))
  assert (known.settings["population_size"], known.settings["target_density"]) == (3, 0.3)
  assert (known.task["dataset"], known.task["train_epochs"], known.task["hidden_sizes"]) == ("xor", 2, "6,5")
  assert known.versions["jax"] == jax.__version__
  assert not {"workdir", "devices", "chunk", "data_dir"} & {*known.task, *known.settings}
  data = nets_jax.load_data("xor", xor_train_size=100, xor_test_size=40)
  assert (known.mean, known.deviation) == (tuple(data.mean.tolist()), tuple(data.deviation.tolist()))


def test_a_file_of_ones_own_data_names_no_directory(job, tmp_path):
  rng = np.random.default_rng(0)
  (tmp_path / "far").mkdir()
  np.savez(tmp_path / "far" / "mine.npz", inputs=rng.normal(size=(60, 4)), labels=rng.integers(0, 2, 60))
  status, _, error = job(
    "--dataset=far/mine.npz", *TINY[3:], "--train_epochs=0", "--workdir=run", "--devices=1"
  )
  assert status == 0, error
  known = load_provenance("run/ticket.safetensors")
  assert known.task["dataset"] == "mine.npz"
  assert len(known.task["dataset_sha256"]) == 16


def test_info(run_binary, found):
  path = f"{found}/ticket.safetensors"
  status, text, error = run_binary(info, path)
  assert status == 0, error
  for part in (
    "a ticket of mlp(hidden_sizes=[6, 5]",
    "hidden_1",
    "found by guided, seed 7",
    "units alive",
    "SHA-256",
  ):
    assert part in text
  _, text, _ = run_binary(info, path, "--json")
  assert json.loads(text) == describe(path)


def test_overlap(run_binary, found):
  path = f"{found}/ticket.safetensors"
  status, text, error = run_binary(overlap_command, path, path)
  assert status == 0, error
  assert text.count("100.0%") == 5  # three layers, all, and the units
  _, text, _ = run_binary(overlap_command, path, path, "--json")
  assert json.loads(text)["all"]["jaccard"] == 1.0


def test_a_ticket_is_verified_from_its_file_alone(run_binary, found):
  """The same training by the same keys: the run's own figures, to the bit."""
  status, text, error = run_binary(verify, f"{found}/ticket.safetensors", "--workdir=again", "--devices=1")
  assert status == 0, error
  before, after = (
    json.loads((found.parent / name / "summary.json").read_text()) for name in ("run", "again")
  )
  assert after["verdicts"] == before["verdicts"]
  assert after["results"]["ticket"] == before["results"]["guided"]
  assert "against a fresh dense network:" in text
  assert "search:" not in text  # there was none
  assert (found.parent / "again/ticket.safetensors").read_bytes() == (
    found / "ticket.safetensors"
  ).read_bytes()
  _, text, _ = run_binary(verify, f"{found}/ticket.safetensors", "--workdir=json", "--devices=1", "--json")
  assert json.loads(text)["verdicts"] == before["verdicts"]


@pytest.mark.devices
def test_a_ticket_is_trained_as_its_run_trained_it(run_binary, found):
  status, _, error = run_binary(train, f"{found}/ticket.safetensors", "--workdir=again", "--devices=1")
  assert status == 0, error
  assert "python -m nets_jax train" in error
  ours = [{**row, "ticket": "ticket"} for row in table(found / "training.csv") if row["ticket"] == "guided"]
  assert without_seconds(table("again/training.csv")) == without_seconds(ours)
  again, before = (nets_jax.load_trained(f"{where}/trained.safetensors") for where in ("again", found))
  assert_same_bits(again.weights, before.weights)


def test_a_flag_takes_the_place_of_what_the_file_says(run_binary, found):
  status, _, error = run_binary(
    train, f"{found}/ticket.safetensors", "--workdir=again", "--devices=1", "--train_epochs=3",
    "--learning_rate=0.01",
  )  # fmt: skip
  assert status == 0, error
  flags = json.loads((found.parent / "again/config.json").read_text())["flags"]
  assert (flags["train_epochs"], flags["learning_rate"], flags["dataset"], flags["seed"]) == (
    3,
    0.01,
    "xor",
    7,
  )


def test_files_of_the_version_before_are_read(tmp_path):
  network = nets_jax.MLP((6,), 2)
  (path, _), (ticket, _) = pair(tmp_path, network, (2,))
  tensors, metadata = read(path)
  metadata = {**metadata, "format_version": 2}
  del metadata["provenance"]
  metadata["sha256"] = checksum(tensors, metadata)
  path.write_bytes(safetensors.numpy.save(tensors, {"nets_jax": json.dumps(metadata)}))
  assert_same_bits(nets_jax.load_ticket(path), jax.tree.map(jax.numpy.asarray, ticket))
  assert load_provenance(path) == Provenance()
  record = describe(path)
  assert (record["units"], record["provenance"]) == (2 + 6, {})


@pytest.mark.parametrize(
  "arguments",
  [
    {"hidden_sizes": [6.0]},
    {"hidden_sizes": [[6]]},
    {"hidden_sizes": [None]},
    {"hidden_sizes": [2] * 10_000},
  ],
  ids=lambda arguments: str(arguments)[:25],
)
def test_arguments_of_a_network_that_make_none(run_binary, tmp_path, arguments):
  (path, _), _ = pair(tmp_path, nets_jax.MLP((6,), 2), (2,))
  lying(path, network_arguments={**read(path)[1]["network_arguments"], **arguments})
  status, text, error = run_binary(info, str(path))
  assert status == 0, error
  assert "units alive are not known" in text
  status, _, error = run_binary(export, str(path), "--to=csr")
  assert (status, error.count("\n")) == (2, 1)


def test_what_is_no_number_is_null_in_json(run_binary, tmp_path):
  network = nets_jax.MLP((6,), 2)
  (path, _), (ticket, _) = pair(tmp_path, network, (2,))
  large = ticket.replace(weights=jax.tree.map(lambda leaf: leaf * 0 + 1e30, ticket.weights))
  save_ticket(path, large, network)
  lying(path, provenance={"input_shape": [2], "settings": {"a": float("nan")}})
  _, text, error = run_binary(info, str(path), "--json")
  record = json.loads(text, parse_constant=pytest.fail)
  assert record["layers"][0]["scale"] == pytest.approx(1e30), error
  assert record["provenance"]["settings"] == {"a": None}


def test_the_reader_of_the_documents_reads_the_same(tmp_path):
  """NumPy alone."""
  (path, _), (ticket, _) = pair(tmp_path, nets_jax.MLP((6,), 2), (2,), seed=5)
  page = (pathlib.Path(__file__).parent.parent / "docs" / "tickets.md").read_text()
  (code,) = [own for own in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "def read(" in own]
  space = {}
  exec(code, space)
  about, arrays = space["read"](path)
  assert (about["network"], about["provenance"]["seed"]) == ("mlp", 5)
  flat = {
    f"{part}/{layer}/{name}": leaf
    for part, tree in (("weights", ticket.weights), ("masks", ticket.masks))
    for layer, own in tree.items()
    for name, leaf in own.items()
    if leaf is not None
  }
  assert set(arrays) == set(flat)
  for name, array in arrays.items():
    np.testing.assert_array_equal(array, flat[name])
  assert len(code.strip().splitlines()) <= 14  # two imports, an empty line, a name, and ten


COMMANDS = {
  "info": (info, ("{}",)), "overlap": (overlap_command, ("{}", "{}")), "verify": (verify, ("{}",)),
  "train": (train, ("{}",)), "export": (export, ("{}", "--to=csr")), "hub": (export, ("{}", "--to=hub")),
}  # fmt: skip


def lying(path, **changes):
  """A whole file whose metadata say something else."""
  tensors, metadata = read(path)
  write(path, tensors, {**metadata, **changes}, sync=False)


def cut_short(path):
  path.write_bytes(path.read_bytes()[:-9])


def flipped(path):
  content = bytearray(path.read_bytes())
  content[-5] ^= 1
  path.write_bytes(content)


def no_tensors(path):
  path.write_text("this is a letter")


def sized_beyond_reason(path):
  lying(path, provenance={"input_shape": [10**6, 10**6]})


def no_record(path):
  lying(path, provenance=[1, 2])


def unknown_field(path):
  lying(path, provenance={"on_load": "import os"})


def scaled_beyond_reason(path):
  lying(path, provenance={"input_shape": [2], "mean": [10**400], "deviation": [1.0]})


def scaled_by_nothing(path):
  lying(path, provenance={"input_shape": [2], "mean": [0.5], "deviation": [0.0]})


HOSTILE = (
  cut_short, flipped, no_tensors, sized_beyond_reason, no_record, unknown_field, scaled_beyond_reason,
  scaled_by_nothing,
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("spoil", HOSTILE)
def test_spoilt_files_are_an_error_in_one_line(run_binary, tmp_path, command, spoil):
  (path, _), _ = pair(tmp_path, nets_jax.MLP((6,), 2), (2,))
  spoil(path)
  before = sorted(tmp_path.rglob("*"))
  job, arguments = COMMANDS[command]
  status, text, error = run_binary(job, *(word.format(path) for word in arguments))
  assert (status, text) == (2, "")
  assert error.startswith("error: ")
  assert error.count("\n") == 1, error
  assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_what_a_file_names_is_never_imported(run_binary, tmp_path, monkeypatch, command):
  """Not its network, nor its data set, loss or search."""
  (tmp_path / "evil.py").write_text("raise SystemExit('imported')\n")
  monkeypatch.syspath_prepend(tmp_path)
  (path, _), _ = pair(tmp_path, nets_jax.MLP((6,), 2), (2,))
  own = {"dataset": "evil:data", "loss": "evil:loss", "optimizer": "evil:make"}
  lying(path, network="evil:Class", provenance={"input_shape": [2], "search": "evil:Search", "task": own})
  job, arguments = COMMANDS[command]
  status, text, error = run_binary(job, *(word.format(path) for word in arguments))
  assert "evil" not in sys.modules
  assert "imported" not in f"{text}{error}{status}"
  if command in ("info", "overlap", "hub"):  # which can say something without the network
    assert status == 0, error
  else:
    assert (status, error.count("\n")) == (2, 1)
    assert "evil" in error
    assert "trust" in error


@pytest.mark.parametrize(
  ("task", "message"),
  [
    ({"dataset": "xor", "workdir": "/"}, "a task with --workdir=/, which is no setting"),
    ({"dataset": "xor", "flagfile": "x"}, "a task with --flagfile=x, which is no setting"),
    ({"dataset": "xor", "learning_rate": "much"}, "learning_rate=much, which that setting cannot be"),
    ({"dataset": "digits", "data_dir": "far"}, "a task with --data_dir=far, which is no setting"),
    ({"learning_rate": 0.1}, "does not say what data it is for; give --dataset"),
    ({"dataset": "xor", "train_epochs": 0}, "train_epochs must be at least 1, not 0"),
    ({"dataset": "xor", "loss": "\x1b[2J" * 99}, "--loss='\\x1b[2J"),
    ({"dataset": "xor", "init_weights": "weights.safetensors"}, "give that flag yourself if you trust it"),
    ({"dataset": "xor", "batch_size": -1}, "batch_size must be at least 1"),
  ],
  ids=lambda value: str(value)[:20],
)
def test_settings_that_a_file_may_not_say(run_binary, tmp_path, task, message):
  (path, _), _ = pair(tmp_path, nets_jax.MLP((6,), 2), (2,), task=task)
  status, text, error = run_binary(verify, str(path))
  assert (status, text, error.count("\n")) == (2, "", 1)
  assert message in error
  assert not (tmp_path / "runs").exists()


def test_control_characters_of_a_file_are_not_printed(run_binary, tmp_path):
  (path, _), _ = pair(
    tmp_path, nets_jax.MLP((6,), 2), (2,), search="\x1b[2Jgone", task={"a\nb": "c\rd" * 100}
  )
  _, text, _ = run_binary(info, str(path))
  assert "\x1b" not in text
  assert "\r" not in text
  assert "\\x1b[2Jgone" in text


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ((), "give TICKET,"),
    (("a", "b"), "give TICKET,"),
    (("a.safetensors", "--input_shape=3,x"), "input_shape must be sizes such as 28,28,1, not 3,x"),
    (("a.safetensors", "--input_shape=5"), "is for inputs of shape (2,), not (5,)"),
    (("a.safetensors", "--network=mlp"), "--network is for one of your own here"),
    (("a.safetensors", "--network=stranger.networks:Skip"), "is for mlp, which is not a network of your own"),
    (("a.safetensors", "--seed=3"), "--seed decides nothing here"),
    (("a.safetensors", "--hidden_sizes=3"), "--hidden_sizes decides nothing here"),
    (("a.safetensors", "--jsn"), "Unknown command line flag 'jsn'"),
  ],
)
def test_wrong_arguments(run_binary, tmp_path, arguments, message):
  pair(tmp_path, nets_jax.MLP((6,), 2), (2,))
  status, _, error = run_binary(info, *arguments)
  assert (status, error.count("\n")) == (2, 1)
  assert message in error


def test_tickets_of_different_networks_have_nothing_in_common(run_binary, tmp_path):
  (path, _), _ = pair(tmp_path, nets_jax.MLP((6,), 2), (2,))
  pair(tmp_path / "other", nets_jax.MLP((7,), 2), (2,))
  status, _, error = run_binary(overlap_command, str(path), f"{tmp_path}/other/a.safetensors")
  assert status == 2
  assert "are of different networks" in error


def test_a_network_of_ones_own_is_described_where_it_is_given(run_binary, tmp_path, stranger):
  network = nets_jax.networks.zoo.make_network("stranger.networks:Skip(width=5)", 3)
  ticket = nets_jax.random_ticket(0, network, (4,), 0.5)
  save_ticket(tmp_path / "own.safetensors", ticket, network)
  _, text, _ = run_binary(info, "own.safetensors")
  assert "units alive are not known: own.safetensors is for the network 'stranger.networks:Skip'" in text
  _, text, error = run_binary(info, "own.safetensors", "--network=stranger.networks:Skip(width=5)", "--json")
  assert json.loads(text)["units"] is not None, error


def test_a_directory_for_a_hub(run_binary, found):
  ticket, trained = (f"{found}/{name}.safetensors" for name in ("ticket", "trained"))
  status, _, error = run_binary(export, ticket, "--to=hub", f"--trained={trained}", "--output=hub/mine")
  assert status == 0, error
  where = found.parent / "hub/mine"
  assert sorted(path.name for path in where.iterdir()) == [
    "README.md", "config.json", "model.safetensors", "ticket.safetensors",
  ]  # fmt: skip
  assert_same_bits(
    nets_jax.load_trained(where / "model.safetensors").weights, nets_jax.load_trained(trained).weights
  )
  assert_same_bits(nets_jax.load_ticket(where / "ticket.safetensors"), nets_jax.load_ticket(ticket))
  config = json.loads((where / "config.json").read_text())
  assert (config["network"], config["provenance"]["seed"]) == ("mlp", 7)
  card = (where / "README.md").read_text()
  assert card.startswith("---\nlibrary_name: nets_jax\n")
  assert 'datasets:\n- "xor"\n' in card
  assert "found by" in card
  assert "inputs are standardised by their mean" in card
  assert len(config["provenance"]["deviation"]) == 2
  status, _, error = run_binary(export, ticket, "--to=hub", "--output=hub/mine")
  assert status == 2
  assert "is there already" in error
  status, _, error = run_binary(export, ticket, "--to=hub", f"--trained={ticket}", "--output=hub/other")
  assert status == 2
  assert "holds no trained network" in error
  assert sorted(path.name for path in where.parent.iterdir()) == ["mine"]


def spoilt_training(found, tmp_path, change):
  """The file of a trained network that is changed."""
  trained = nets_jax.load_trained(found / "trained.safetensors")
  weights, network = (
    jax.tree.map(np.array, trained.weights),
    nets_jax.load_network(found / "ticket.safetensors"),
  )
  network = change(weights) or network
  save_trained(tmp_path / "spoilt.safetensors", weights, {}, network)
  return tmp_path / "spoilt.safetensors"


def not_finite(weights):
  weights["output"]["bias"][0] = np.nan


def unmasked_all(weights):
  weights["hidden_1"]["kernel"] += 1


def another_activation(weights):
  del weights
  return nets_jax.MLP((6, 5), 2, activation="tanh")


def whole_numbers(weights):
  weights["output"]["kernel"] = weights["output"]["kernel"].astype(np.int32)


TRAININGS = {
  not_finite: "weights that are NaN or infinite", unmasked_all: "weights where the ticket has none",
  another_activation: "it is of another network", whole_numbers: "not floating point numbers",
}  # fmt: skip


@pytest.mark.parametrize("to", ["csr", "hub"])
@pytest.mark.parametrize("change", TRAININGS)
def test_a_training_of_something_else_is_no_training_of_a_ticket(run_binary, found, tmp_path, change, to):
  spoilt = spoilt_training(found, tmp_path, change)
  before = sorted(tmp_path.rglob("*"))
  status, _, error = run_binary(
    export, f"{found}/ticket.safetensors", f"--to={to}", f"--trained={spoilt}", "--output=made"
  )
  assert (status, error.count("\n")) == (2, 1)
  assert TRAININGS[change] in error
  assert sorted(tmp_path.rglob("*")) == before


def test_a_training_in_bfloat16_is_one_too(tmp_path):
  """And of a network that keeps averages: without them it is another's."""
  network, shape = nets_jax.networks.zoo.make_network("resnet8", 10, width=2), (8, 8, 3)
  ticket = nets_jax.random_ticket(0, network, shape, 0.5)
  save_ticket(tmp_path / "ticket.safetensors", ticket, network, provenance=Provenance(input_shape=shape))
  state = initial_state(network, shape)
  weights = jax.tree.map(lambda leaf: leaf.astype(jax.numpy.bfloat16), phenotype(ticket))
  save_trained(tmp_path / "trained.safetensors", weights, state, network)
  whole = load_whole(tmp_path / "ticket.safetensors", tmp_path / "trained.safetensors")
  assert_same_bits(whole.ticket.weights, jax.device_get(weights))
  assert whole.input_shape == shape
  save_trained(tmp_path / "trained.safetensors", weights, {}, network)
  with pytest.raises(nets_jax.UsageError, match="the state that it is evaluated with is another's"):
    load_whole(tmp_path / "ticket.safetensors", tmp_path / "trained.safetensors")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_network_whose_name_is_none(run_binary, tmp_path, stranger, command):
  (path, _), _ = pair(tmp_path, nets_jax.MLP((6,), 2), (2,), task={"dataset": "xor"})
  lying(path, network=["mlp"])
  job, arguments = COMMANDS[command]
  status, _, error = run_binary(job, *(word.format(path) for word in arguments))
  assert (status, error.count("\n")) in ((0, 0), (2, 1)), error
  status, _, error = run_binary(export, str(path), "--to=csr", "--network=stranger.networks:Skip")
  assert (status, error.count("\n")) == (2, 1), error


def test_an_export_spares_what_is_exported(run_binary, found):
  path = f"{found}/ticket.safetensors"
  content = (found / "ticket.safetensors").read_bytes()
  status, _, error = run_binary(export, path, "--to=csr", f"--output={path}")
  assert status == 2
  assert "is what is to be exported; name another file" in error
  status, _, error = run_binary(export, path, "--to=csr", f"--output={found}")
  assert status == 2
  assert "is a directory; name a file" in error
  status, _, error = run_binary(train, path, f"--workdir={found}", "--overwrite")
  assert status == 2
  assert "where the files of this go; name another directory" in error
  assert (found / "ticket.safetensors").read_bytes() == content


@pytest.mark.parametrize(
  ("job", "flag"),
  [
    (train, "--nokeep_trained"), (train, "--generations=3"), (verify, "--ticket=x"), (verify, "--list=."),
    (verify, "--target_density=0.9"), (export, "--seed=1"), (forms, "--to=hub"),
  ],
)  # fmt: skip
def test_flags_that_a_command_does_not_heed(run_binary, found, job, flag):
  status, _, error = run_binary(job, f"{found}/ticket.safetensors", flag)
  assert (status, error.count("\n")) == (2, 1)
  assert f"{flag.partition('=')[0].replace('--no', '--')} decides nothing here" in error


@pytest.mark.devices
def test_a_ticket_of_a_study_is_trained_by_its_trials_keys(run_binary, tmp_path):
  """And its file says at which density it was found."""
  status, _, error = run_binary(
    densities, *TINY[:6], "--methods=random,imp", "--densities=0.5", "--trials=1", "--seed=3", "--sanity=",
    "--cycle_epochs=1", "--workdir=study", "--devices=1",
  )  # fmt: skip
  assert status == 0, error
  paths = sorted((tmp_path / "study/runs").glob("*/ticket.safetensors"))
  assert {load_provenance(path).search for path in paths} == {"random", "imp"}
  for path in paths:
    known = load_provenance(path)
    assert (known.seed, known.trial) == (3, 0)
    if known.search == "random":
      assert known.settings["target_density"] == 0.5
    status, _, error = run_binary(train, str(path), f"--workdir={known.search}", "--devices=1")
    assert status == 0, error
    theirs, ours = (table(f"{where}/training.csv")[-1] for where in (path.parent, known.search))
    assert theirs["test_loss"] == ours["test_loss"]


def test_a_trained_network_of_another_ticket(run_binary, found, tmp_path):
  (path, _), _ = pair(tmp_path, nets_jax.MLP((6,), 2), (2,))
  status, _, error = run_binary(export, str(path), "--to=csr", f"--trained={found}/trained.safetensors")
  assert (status, error.count("\n")) == (2, 1)
  assert "is not a trained network of" in error


def test_a_trained_network_says_of_which_ticket_it_is(found, tmp_path):
  """Also where another's masks would let all its weights through."""
  path = found / "ticket.safetensors"
  ticket, network = nets_jax.load_ticket(path), nets_jax.load_network(path)
  assert load_whole(path, found / "trained.safetensors").network == network
  other = ticket.replace(weights=jax.tree.map(lambda leaf: -leaf, ticket.weights))
  save_ticket(tmp_path / "other", other, network)
  with pytest.raises(nets_jax.UsageError, match="it says that it is of another ticket"):
    load_whole(tmp_path / "other", found / "trained.safetensors")


@pytest.mark.parametrize(("to", "package"), [("torch", "torch"), ("onnx", "onnx"), ("onnx", "onnxruntime")])
def test_a_missing_package_is_said_in_one_line(run_binary, found, monkeypatch, to, package):
  if package == "onnxruntime":
    monkeypatch.setitem(sys.modules, "onnx", sys)  # whether it is here or not
  monkeypatch.setitem(sys.modules, package, None)
  status, _, error = run_binary(export, f"{found}/ticket.safetensors", f"--to={to}")
  assert (status, error.count("\n")) == (2, 1)
  assert f"this needs {package}" in error
  assert "pip install 'nets_jax[export]'" in error


@pytest.mark.parametrize("module", ["torch_modules", "torch_sparse", "onnx_models"])
def test_a_missing_package_is_said_in_python_too(monkeypatch, module):
  for name in [name for name in sys.modules if name.startswith("nets_jax.export.")]:
    monkeypatch.delitem(sys.modules, name)
  package = module.partition("_")[0]
  monkeypatch.setitem(sys.modules, package, None)
  with pytest.raises(nets_jax.UsageError, match=rf"this needs {package}.*pip install 'nets_jax\[export\]'"):
    importlib.import_module(f"nets_jax.export.{module}")


def test_forms_of_packages_that_are_not_installed_are_left_out(run_binary, found, monkeypatch):
  for package in ("torch", "onnx", "onnxruntime"):
    monkeypatch.setitem(sys.modules, package, None)
  monkeypatch.setattr("nets_jax.export.forms.SECONDS", 0.01)
  status, text, error = run_binary(forms, f"{found}/trained.safetensors", "--batch=4", "--json")
  assert status == 0, error
  assert [row["form"] for row in json.loads(text)] == ["dense", "compact", "scipy csr"]
  assert "the forms of PyTorch are left out" in error
  assert "the forms of ONNX are left out" in error
  status, _, error = run_binary(forms, f"{found}/nothing/trained.safetensors")
  assert status == 2
  assert "there is no ticket.safetensors beside" in error


def test_the_console_script_lists_the_commands(capsys):
  __main__.main([])
  listed = capsys.readouterr().out
  for name in ("search", "compare", "sweep", "info", "overlap", "export", "train", "verify", "forms"):
    assert f"\n  {name}" in listed
  __main__.main(["help"])
  assert capsys.readouterr().out == listed
  __main__.main(["--version"])
  assert capsys.readouterr().out == f"nets_jax {nets_jax.__version__}\n"
