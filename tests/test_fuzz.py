"""Files from other people: thousands of mutated ones, each a clean error or a valid object."""

import json
import random
import time

import jax
import numpy as np
import pytest
import safetensors.numpy
from conftest import assert_same_bits, reset_flags
from hypothesis import given, settings
from hypothesis import strategies as st

import nets_jax
from nets_jax.cli import command, records
from nets_jax.cli import setting_flags as search_flags
from nets_jax.studies import outcome, run_directory
from nets_jax.tickets.tensor_files import FORMAT_VERSION, checksum
from nets_jax.tickets.ticket import check_fits

FILES = 4000
SLOWEST = 5.0  # seconds that one file may take; a hang is not an answer


def mutated(content, rng):
  """Some of its bytes changed, cut out, doubled, inserted, or replaced by what parsers stumble over."""
  content = bytearray(content)
  for _ in range(rng.choice((1, 1, 1, 2, 5))):
    at = rng.randrange(len(content) + 1)
    length = rng.choice((1, 2, 8, 100))
    how = rng.randrange(7)
    if how == 0 and at < len(content):
      content[at] ^= 1 << rng.randrange(8)
    elif how == 1:
      del content[at : at + length]
    elif how == 2:
      content[at:at] = content[at : at + length]
    elif how == 3:
      content[at:at] = rng.randbytes(length)
    elif how == 4:
      del content[at:]
    elif how == 5:
      content[:8] = rng.choice((0, 1, 2**31, 2**63 - 1, 2**64 - 1, len(content))).to_bytes(8, "little")
    else:
      word = rng.choice(
        (b"[", b"{", b'"', b"\\u0000", b"-1", b"1e999", b"null", b"NaN", b"9" * 30, b"../../x", b"\xff\xfe")
      )
      content[at : at + len(word)] = word
  return bytes(content)


def answers(load, path):
  """What a loader makes of a file: an object, or None for a clean error; anything else fails the test."""
  begin = time.monotonic()
  try:
    return load(path)
  except nets_jax.UsageError as error:
    lines = str(error).count("\n") + 1
    return None if lines == 1 else pytest.fail(f"{lines} lines: {error}")
  finally:
    assert time.monotonic() - begin < SLOWEST


@pytest.fixture(scope="module")
def whole(tmp_path_factory, network, ticket):
  path = tmp_path_factory.mktemp("fuzz") / "ticket.safetensors"
  nets_jax.save_ticket(path, ticket, network)
  return path.read_bytes()


@pytest.mark.parametrize("part", range(4))
def test_a_mutated_ticket_is_an_error_or_the_ticket(tmp_path, whole, network, ticket, part):
  rng, loaded = random.Random(part), 0
  header = 8 + int.from_bytes(whole[:8], "little")
  for _ in range(FILES // 4):
    # Half of the mutations in the header, which is short beside the tensors and says what they are.
    content = mutated(whole, rng) if rng.random() < 0.5 else mutated(whole[:header], rng) + whole[header:]
    path = tmp_path / "ticket"
    path.write_bytes(content)
    found, made_for = answers(nets_jax.load_ticket, path), answers(nets_jax.load_network, path)
    if found is not None:
      loaded += 1
      assert_same_bits(found, ticket)
    assert made_for in (None, network)
  assert loaded < FILES // 100  # only what JSON does not mind, such as a space for a space


names = st.lists(
  st.sampled_from(["weights", "masks", "a", "b", "kernel", "bias", "", "..", "0", "\n"]),
  min_size=1,
  max_size=5,
)
arrays = st.builds(
  lambda shape, dtype, fill: np.full(
    shape, fill if np.isfinite(fill) or dtype().dtype.kind == "f" else 1, dtype
  ),
  st.lists(st.integers(0, 3), max_size=3),
  st.sampled_from([np.float32, np.bool_, np.float64, np.int32, np.float16]),
  st.sampled_from([0, 1, np.nan, np.inf]),
)


@settings(max_examples=300, deadline=None)
@given(
  st.dictionaries(names.map("/".join), arrays, max_size=6),
  st.dictionaries(
    st.sampled_from(["network", "network_arguments", "format_version"]),
    st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3)),
  ),
)
def test_a_forged_ticket_is_an_error_or_a_ticket(tmp_path_factory, tensors, metadata):
  """With a checksum that is right, as a forger would write it."""
  metadata = {"format_version": FORMAT_VERSION, **metadata}
  metadata["sha256"] = checksum(tensors, metadata)
  path = tmp_path_factory.mktemp("forged") / "ticket"
  safetensors.numpy.save_file(tensors, path, {"nets_jax": json.dumps(metadata)})
  found = answers(nets_jax.load_ticket, path)
  answers(nets_jax.load_network, path)
  if found is not None:
    assert 0 <= float(nets_jax.density(found)) <= 1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found.weights))
    with pytest.raises(nets_jax.UsageError, match="does not fit"):
      check_fits(found, nets_jax.MLP((3,), 2), (4,))


def test_a_version_that_is_no_number_is_told_on_one_line(tmp_path):
  """hypothesis found a line break there, after many runs."""
  metadata = {"format_version": "\n" * 99}
  metadata["sha256"] = checksum({}, metadata)
  safetensors.numpy.save_file({}, tmp_path / "ticket", {"nets_jax": json.dumps(metadata)})
  assert answers(nets_jax.load_ticket, tmp_path / "ticket") is None


def test_a_mutated_config_is_an_error_or_a_config(tmp_path):
  rng = random.Random(0)
  run = tmp_path / "run"
  run.mkdir()
  reset_flags()
  command.parse(["search", "--dataset=xor"], "nets_jax.cli.search")
  deciding = records.deciding(search_flags.flags.FLAGS)
  config = {"format_version": run_directory.FORMAT_VERSION, "versions": {}}
  whole = json.dumps({"flags": records.explicit(search_flags.flags.FLAGS), **config}).encode()
  begun = 0
  for _ in range(FILES // 2):
    (run / "config.json").write_bytes(mutated(whole, rng))
    found = answers(lambda path: run_directory.read_config(path, "flags"), run / "config.json")
    assert found is None or isinstance(found, dict)
    directory = answers(lambda path: run_directory.RunDirectory(str(path), False, deciding), run)
    if directory is not None:
      begun += 1
      assert directory.is_begun
      assert all(found.get(name) == value for name, value in json.loads(json.dumps(deciding)).items())
    answers(outcome.list_runs, str(tmp_path))
  assert 0 < begun < FILES // 2
