"""The page of one run, made of its files: verdict, table, cost, figures, masks, lineage, settings."""

import json
import math
import pathlib
from collections.abc import Mapping, Sequence

from nets_jax.analysis import interactive_runs, interactive_tickets
from nets_jax.analysis.page import Page, Paragraph, Part, Section, Table
from nets_jax.analysis.ticket_figures import kernels
from nets_jax.analysis.verdicts import Verdict
from nets_jax.engine.tables import Row, standard_json
from nets_jax.studies import outcome
from nets_jax.studies.frontier_files import DIRECTORY as FRONTIER
from nets_jax.studies.report_parts import made_of, read_json, read_rows, read_text
from nets_jax.studies.report_settings import defaults, repeating, settings_table
from nets_jax.studies.run_files import CONFIG, HISTORY, SUMMARY, TICKET, TRAINING
from nets_jax.tickets.storage import load_provenance, load_ticket
from nets_jax.tickets.ticket import Ticket
from nets_jax.training.measures import Measures

FLAGFILE = "run.flags"
AXES = ("generation", "iteration", "round", "ticket")
AGAINST = {"unmasked": "its own weights unmasked", "dense": "a fresh dense network"}


def run_page(where: pathlib.Path, summary: Row | None = None) -> Page:
  """The page of a run's directory; what it lacks is left out.

  Args:
    where: the directory.
    summary: what its `summary.json` is going to hold; None reads it.

  Raises:
    UsageError: a file is damaged.
  """
  summary = read_json(where / SUMMARY) if summary is None else json.loads(json.dumps(standard_json(summary)))
  config = read_json(where / CONFIG)
  flags = config.get("flags")
  flags = flags if isinstance(flags, Mapping) else {}
  search = str(flags.get("search") or flags.get("method") or "")
  path = where / SUMMARY
  measures = made_of(path, lambda: Measures.of_record(summary))
  parts: dict[str, Sequence[Part]] = {
    "Outcome": made_of(path, lambda: _outcome(summary, measures)),
    "Cost": made_of(path, lambda: _cost(summary)),
    "Training": made_of(where / TRAINING, lambda: _training(where, measures)),
    "Search": made_of(where / HISTORY, lambda: _search(where, flags, measures)),
    "Frontier": made_of(where / FRONTIER, lambda: _frontier(where, measures)),
    "Masks": made_of(where / TICKET, lambda: _masks(where, summary)),
    "Lineage": made_of(where / HISTORY, lambda: _lineage(where, summary, measures)),
    "Settings": settings_table(flags, defaults(search)) if flags else [],
  }
  again = repeating("search", FLAGFILE, read_text(where / FLAGFILE), config)
  return Page(
    _title(flags, search),
    made_of(path, lambda: _lead(summary)),
    [*(Section(heading, own) for heading, own in parts.items()), again],
    "Made by nets_jax of the files in this directory; nets-jax report makes it again.",
  )


def _title(flags: Mapping[str, object], search: str) -> str:
  """What the run is, in a line."""
  if not search:
    return "A run of nets_jax"
  ticket, network = flags.get("ticket"), flags.get("network")
  what = f"A ticket trained again ({ticket})" if ticket else f"A ticket found by {search}"
  told = [f"for {flags['dataset']}"] if "dataset" in flags else []
  told += [f"on {network}"] if network else []
  told += [f"seed {flags['seed']}"] if "seed" in flags else []
  return f"{what} {', '.join(told)}".strip()


def _lead(summary: Row) -> list[str]:
  """Whether the ticket wins, and what it is, a line each."""
  if not summary:
    return ["This run has not ended: there is no summary yet."]
  if "failed" in summary:
    return [f"The search found no ticket: {summary['failed']}"]
  lines, verdicts = [], summary.get("verdicts") or {}
  won = [AGAINST.get(to, to) for to, verdict in verdicts.items() if verdict["wins"]]
  if verdicts:
    lost = [AGAINST.get(to, to) for to, verdict in verdicts.items() if not verdict["wins"]]
    told = [
      f"wins against {' and '.join(won)}" if won else "",
      f"does not win against {' or '.join(lost)}" if lost else "",
    ]
    lines.append(f"The ticket {', but '.join(part for part in told if part)}, by Definition 3 of the paper.")
  elif summary.get("results"):
    lines.append("The ticket was trained without the networks that a verdict needs.")
  else:
    lines.append("The ticket was not trained, so nothing is said of what it is worth.")
  return [*lines, outcome.headline(summary)]


def _outcome(summary: Row, measures: Measures) -> Sequence[Part]:
  """The table that the run has printed, and the verdicts in words."""
  if not summary.get("results"):
    return []
  sound = {
    name: {key: math.nan if value is None else value for key, value in row.items()}
    for name, row in summary["results"].items()
  }
  columns, rows = outcome.cells(sound, summary)
  parts: list[Part] = [
    Table(columns, rows, "After the final training, of the ticket and of what it is held against", marked=[0])
  ]
  verdicts = summary.get("verdicts") or {}
  if verdicts:
    parts.append(
      Paragraph(
        "A ticket wins if its validation loss is lowest no later (j' against j), its test "
        f"{measures.words} there is as good (a' against a), and it has at most half of the weights."
      )
    )
    parts.append(_verdicts(verdicts, measures))
  return parts


def _verdicts(verdicts: Mapping[str, Row], measures: Measures) -> Table:
  """Definition 3's three conditions against each dense network."""
  rows = []
  for to, found in verdicts.items():
    verdict, yes = Verdict.of_record(found, measures), {True: "yes", False: "no"}
    own, other = (measures.shown(score, 2) for score in (verdict.score, verdict.dense_score))
    rows.append(
      (
        AGAINST.get(to, to),
        yes[verdict.wins],
        f"{yes[verdict.as_fast]}: {verdict.iteration:,} against {verdict.dense_iteration:,}",
        f"{yes[verdict.as_good]}: {own} against {other}",
        f"{yes[verdict.far_sparser]}: {verdict.unmasked:,} of {verdict.total:,}",
      )
    )
  columns = (
    "against",
    "wins",
    "as fast (iterations)",
    f"as good (test {measures.words})",
    "far sparser (weights)",
  )
  return Table(columns, rows, "Definition 3")


def _cost(summary: Row) -> Sequence[Part]:
  """What finding the ticket took, and what it saves."""
  if "search_seconds" not in summary:
    return []
  rows = [
    (title, f"{summary[name]:{form}}")
    for title, name, form in (
      ("genome-epochs of search", "search_epochs", ".0f"),
      ("seconds of search", "search_seconds", ".1f"),
      ("seconds of compilation", "compile_seconds", ".1f"),
    )
    if name in summary
  ]
  if summary.get("weights") and "unmasked" in summary:
    share = summary["unmasked"] / summary["weights"]
    rows.append(("weights left", f"{summary['unmasked']:,} of {summary['weights']:,} ({share:.1%})"))
  if summary.get("whole_multiplications") and "multiplications" in summary:
    fewer, whole = summary["multiplications"], summary["whole_multiplications"]
    rows.append(("multiplications for an example", f"{fewer:,} of {whole:,} ({fewer / whole:.1%})"))
  note = (
    "A genome-epoch is one pass of one genome over the training examples. Multiplications are counted "
    "without dead units, not without single weights."
  )
  return [Table(("what", "cost"), rows), Paragraph(note)]


def _training(where: pathlib.Path, measures: Measures) -> Sequence[Part]:
  rows = read_rows(where / TRAINING, ("epoch", "iteration", "valid_loss"))
  return [interactive_runs.training(rows, measures)] if rows else []


def _search(where: pathlib.Path, flags: Mapping[str, object], measures: Measures) -> Sequence[Part]:
  rows = read_rows(where / HISTORY, ("density",))
  if not rows or not any(name in rows[0] for name in AXES):
    return []
  target = flags.get("target_density")
  aimed = float(target) if isinstance(target, int | float) else None
  return [interactive_runs.evolution(rows, aimed, measures)]


def _frontier(where: pathlib.Path, measures: Measures) -> Sequence[Part]:
  needed = ("generation", "density", "valid_loss")
  kept, rows = (
    read_rows(where / FRONTIER / "frontier.csv", ("file", *needed)),
    read_rows(where / HISTORY, needed),
  )
  return [interactive_runs.frontier(rows, kept, measures)] if kept and rows else []


def _lineage(where: pathlib.Path, summary: Row, measures: Measures) -> Sequence[Part]:
  """The ancestors of the best genome, where the history has parents and more than one genome a generation."""
  needed = ("generation", "genome", "parent_1", "parent_2", "valid_loss", "density")
  rows, best = read_rows(where / HISTORY, needed), summary.get("best") or {}
  if not rows or "genome" not in best or best["generation"] < 1:
    return []
  place = int(best["generation"]), int(best["genome"])
  return [interactive_runs.lineage(rows, place, measures)]


def _masks(where: pathlib.Path, summary: Row) -> Sequence[Part]:
  """What is left of each layer, as a table and as pictures."""
  path = where / TICKET
  if not path.exists():
    return []
  ticket = load_ticket(path)
  found = [
    interactive_tickets.pixels(ticket, load_provenance(path).input_shape or ()),
    interactive_tickets.masks(ticket),
  ]
  return [_layers(ticket, summary), *(drawing for drawing in found if drawing is not None)]


def _layers(ticket: Ticket, summary: Row) -> Table:
  """Each layer's shape, count, density and scale."""
  densities, scales = (summary.get(name) or {} for name in ("layer_densities", "layer_scales"))
  rows = []
  for name, mask in kernels(ticket, ticket.masks):
    density = float(densities.get(name, mask.mean()))
    scale = f"{scales[name]:.4f}" if name in scales else "-"
    counts = f"{int(mask.sum()):,} of {mask.size:,}"
    rows.append((name, " x ".join(map(str, mask.shape)), counts, f"{density:.1%}", scale))
  caption = "The ticket's layers; the scale is the root mean square of a layer's first weights"
  return Table(("layer", "shape", "weights left", "density", "scale"), rows, caption)
