"""Whose masks carry information: tickets beside themselves, shuffled and drawn anew."""

import numpy as np
import pytest
from conftest import table

import nets_jax
from nets_jax.baselines.one_shot import Snip
from nets_jax.baselines.random_tickets import Dense, Random
from nets_jax.studies.frontiers import densities
from nets_jax.studies.run_files import result_row
from nets_jax.studies.sanity_checks import CHECKS, sanity
from nets_jax.studies.ticket_controls import CONTROLS
from nets_jax.tickets.storage import load_ticket

METHODS = {"random": Random(density_deviation=0.0), "snip": Snip(score_batch=50), "dense": Dense()}


@pytest.fixture(scope="module")
def found(task, tmp_path_factory):
  where = tmp_path_factory.mktemp("sanity")
  study = densities(METHODS, task.replace(epochs=2), [0.5, 0.3], trials=2, directory=where / "study")
  return study, sanity(study.runs, directory=where), where


def test_every_sparse_ticket_has_its_checks(found):
  _, checks, _ = found
  rows = checks.results
  assert len(rows) == 2 * 2 * 2 * (1 + len(CHECKS))  # methods, densities, trials
  assert set(rows["method"]) == {"random", "snip"}
  counts = rows.groupby(["method", "target_density", "trial"])["density"].nunique()
  assert (counts == 1).all()  # no check changes a count


def test_a_check_is_trained_as_its_ticket_was(found, task):
  """By hand: made by the run's search key, trained by the key of the ticket's own training."""
  study, checks, _ = found
  run = next(run for run in study.runs if run.columns["method"] == "snip")
  own = next(c for c in checks.checks if c.columns["check"] == "both" and c.columns["method"] == "snip")
  search_key, training_key = run.keys()
  ticket = load_ticket(run.path / "ticket.safetensors")
  made = CONTROLS["random_layers"](search_key, ticket, task, METHODS["snip"])
  last = nets_jax.train_tickets(training_key, made, task, epochs=2).curves[-1]
  assert result_row(own)["test_loss"] == pytest.approx(last["test_loss"], rel=1e-5)


def test_the_table_has_the_paired_differences(found):
  _, checks, where = found
  text = checks.write(where)
  rows = table(where / "sanity.csv")
  picked = [r for r in rows if (r["method"], float(r["target_density"])) == ("random", 0.5)]
  scores = {(r["check"], r["trial"]): 100 * float(r["test_accuracy"]) for r in picked}
  mean = np.mean([scores["mask shuffled", t] - scores["ticket", t] for t in ("0", "1")])
  line = next(line for line in text.splitlines() if line.startswith("| random") and " 50 % " in line)
  assert f" {mean:+.1f} ± " in line
  assert "in points, paired: mean and 95 % interval" in text.splitlines()[0]
  assert [cell.strip() for cell in line.split("|")[1:4]] == ["random", "50 %", "2"]
  of_checks = {row["run"] for row in rows if row["check"] != "ticket"}
  of_tickets = {row["run"] for row in rows if row["check"] == "ticket"}
  names = {name.split("-")[0] for name in of_checks}
  assert names == {"mask_shuffled", "weights_drawn_anew", "both"}  # no pattern takes them for the table's
  assert not of_checks & of_tickets


def test_without_a_sparse_ticket_there_is_nothing_to_check(task):
  study = densities({"dense": Dense()}, task.replace(epochs=1), [0.5], trials=1)
  with pytest.raises(nets_jax.UsageError, match="there is no sparse ticket whose sanity could be checked"):
    sanity(study.runs)
