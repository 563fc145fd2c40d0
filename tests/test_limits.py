"""A search that is given too little time ends in good order, with what it has."""

import jax
import pytest
from conftest import assert_same_bits, table

import nets_jax
from nets_jax.cli import search

AT_ONCE = 1e-9


@pytest.mark.devices
@pytest.mark.parametrize(
  ("long", "short"),
  [
    (
      nets_jax.recipes.paper(generations=50, population_size=4),
      nets_jax.recipes.paper(generations=0, population_size=4),
    ),
    (nets_jax.Imp(cycles=5, cycle_epochs=1), nets_jax.Imp(cycles=1, cycle_epochs=1)),
  ],
  ids=["nets", "imp"],
)
def test_the_ticket_is_that_of_a_shorter_search(task, long, short):
  found, expected = nets_jax.search(0, task, long, max_seconds=AT_ONCE), nets_jax.search(0, task, short)
  assert_same_bits(jax.device_get(found.ticket), jax.device_get(expected.ticket))
  assert len(found.history) == len(expected.history)
  assert found.cost.epochs == expected.cost.epochs


def test_time_enough_changes_nothing(task):
  recipe = nets_jax.recipes.paper(generations=2, population_size=3)
  found, expected = nets_jax.search(0, task, recipe, max_seconds=1e9), nets_jax.search(0, task, recipe)
  assert_same_bits(jax.device_get(found.ticket), jax.device_get(expected.ticket))
  with pytest.raises(nets_jax.UsageError, match="max_seconds must be positive, not 0"):
    nets_jax.search(0, task, recipe, max_seconds=0)


def test_a_run_that_is_pruned_has_failed_and_the_others_go_on(task):
  recipe = nets_jax.recipes.paper(generations=3, population_size=3)
  asked = []

  def prune(run, rows):
    asked.append((run, rows[0]["generation"]))
    return run == 1 and rows[0]["generation"] == 1

  first, second = nets_jax.search_all([0, 1], task, recipe, prune=prune, keep_failures=True)
  assert isinstance(second, nets_jax.SearchFailed)
  assert str(second) == "pruned after generation 1"
  assert {row["generation"] for row in second.result.history} == {0, 1}
  assert_same_bits(jax.device_get(first.ticket), jax.device_get(nets_jax.search(0, task, recipe).ticket))
  assert asked == [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2)]  # not after the last generation


def test_the_command_ends_and_says_how_dense_its_ticket_is(run_binary, tmp_path):
  arguments = (
    "--dataset=xor", "--xor_train_size=100", "--xor_test_size=40", "--hidden_sizes=6", "--batch_size=10",
    "--train_epochs=1", "--devices=1", "--generations=500", "--target_density=0.1", "--workdir=out",
    f"--max_seconds={AT_ONCE}",
  )  # fmt: skip
  status, _, error = run_binary(search, *arguments)
  assert status == 0, error
  assert {row["generation"] for row in table(tmp_path / "out" / "history.csv")} == {"0"}
  assert "more than the target density 10.0%" in error
  assert run_binary(search, "--max_seconds=-1")[2] == "error: max_seconds must be positive, not -1.0\n"
  status, _, error = run_binary(search, "--search=snip", "--max_seconds=9")
  assert (status, error) == (
    2, "error: Snip has no generations or cycles that max_seconds could end; leave it out\n"
  )  # fmt: skip
