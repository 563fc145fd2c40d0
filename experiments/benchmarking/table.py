"""The benchmark's lines as CSV, as a table to read, and as a figure."""

import math
import pathlib
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from nets_jax.analysis.style import COLOURS, STYLE, label_axes, save_figure
from nets_jax.engine.files import replace_file
from nets_jax.engine.tables import read_csv, write_csv

Row = dict[str, Any]  # a line: its part and name are words, all else numbers
LIMIT_AT_END = "limit, at the end"
SECONDS = "seconds a step"
SIDE_BY_SIDE = ("peers", "breeding", "networks", "guided", "compact")  # parts whose lines are for one another


def earlier_rows(directory: pathlib.Path) -> list[Row]:
  """What an earlier run left in the directory."""
  if not (directory / "benchmark.csv").exists():
    return []
  table = read_csv(directory / "benchmark.csv")
  return [{name: v for name, v in row.items() if isinstance(v, str) or not math.isnan(v)} for row in table]


def in_order(rows: Sequence[Row]) -> list[Row]:
  """The last of each line's rows, in the order of the parts; the limit first and last."""
  parts = (
    "limit", "population", "breeding", "imp", "peers", "devices", "width", "examples", "networks",
    "guided", "compact",
  )  # fmt: skip
  last = {(row["part"], row["name"]): row for row in rows}.values()

  def place(row):
    return row["name"] == LIMIT_AT_END, parts.index(row["part"]), row.get("population", 0)

  return sorted(last, key=place)


def write(directory: pathlib.Path, rows: Sequence[Row]) -> None:
  """The table as CSV and markdown, and the figure drawn from the CSV."""
  rows = in_order(rows)
  columns = list(dict.fromkeys(name for row in rows for name in row))
  filled = [{name: row.get(name, float("nan")) for name in columns} for row in rows]
  write_csv(directory / "benchmark.csv", filled)
  with replace_file(directory / "benchmark.md") as temporary:
    temporary.write_text(markdown(rows))
  save_figure(figure(read_csv(directory / "benchmark.csv")), directory / "figure_benchmark.png")


def markdown(rows: Sequence[Row]) -> str:
  """The table for a reader."""
  head = (
    "",
    "seconds (range)",
    "genome-epochs/s",
    "GFLOP/s",
    "share of limit (range)",
    "x the first of its part",
    "peak MB",
    "compile s",
  )
  lines = [head, ["---"] * len(head)]
  lines += [_cells(row) for row in rows]
  return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _cells(row: Row) -> list[str]:
  """A line's cells; what it has no number for stays empty."""

  def known(name: str, form: str) -> str:
    return format(row[name], form) if row.get(name) else ""

  share = known("share_of_limit", ".2f")
  if share and "share_low" in row:
    share += f" ({row['share_low']:.2f}-{row['share_high']:.2f})"
  return [
    row["name"],
    "{:{form}} ({:{form}}-{:{form}})".format(
      *(row[name] for name in ("seconds", "seconds_low", "seconds_high")),
      form=".3f" if row["seconds"] > 0.1 else ".4f",
    ),
    known("genome_epochs_per_second", ".2f"),
    known("gflops", ".1f"),
    share,
    known("times_the_first", ".3g") if row["part"] in SIDE_BY_SIDE else "",
    f"{row['peak_bytes'] / 1e6:.0f}" if "peak_bytes" in row else "",
    known("compile_seconds", ".1f"),
  ]


def figure(rows: Sequence[Row]) -> Figure:
  """Speed beside the machine's limit: population sizes, peers, devices, network width, size of the data set.

  Args:
    rows: of `benchmark.csv`; parts that are not there leave their panel out.
  """
  scaling = {
    "population": ("population", "population size"),
    "devices": ("devices", "devices"),
    "width": ("width", "width of the hidden layers (LeNet = 1)"),
    "examples": ("examples", "training examples"),
  }
  bars = {
    "peers": ("genome_epochs_per_second", "genome-epochs per second"),
    "networks": ("seconds", SECONDS),
    "guided": ("seconds", "seconds"),
    "compact": ("seconds", "seconds"),
  }
  by_part = {part: [row for row in rows if row["part"] == part] for part in (*scaling, *bars)}
  curves = [part for part in scaling if by_part[part]]
  lists = [part for part in bars if by_part[part]] or ["peers"] * (not curves)  # bars may be none
  # Names of bars are long: a row for each two lists of them, as high as the longer one.
  pairs = [lists[i : i + 2] for i in range(0, len(lists), 2)]
  heights = [3.8] * bool(curves) + [1.2 + 0.3 * max(len(by_part[part]) for part in pair) for pair in pairs]
  drawn = Figure(figsize=(16, sum(heights)), layout="constrained")
  parts = list(drawn.subfigures(len(heights), 1, height_ratios=heights, squeeze=False).flat)
  if curves:
    for axes, part in zip(parts[0].subplots(1, len(curves), squeeze=False).flat, curves, strict=True):
      _draw_scaling(axes, by_part[part], *scaling[part])
  for row, pair in zip(parts[len(parts) - len(pairs) :], pairs, strict=True):
    for axes, part in zip(row.subplots(1, len(pair), squeeze=False).flat, pair, strict=True):
      _draw_bars(axes, by_part[part], *bars[part])
  return drawn


def _draw_bars(axes: Axes, rows: Sequence[Row], column: str, label: str) -> None:
  """A bar for each line, ours in colour: those that the others' ratios are to."""
  colours = [COLOURS["nets"] if row["times_the_first"] == 1 else "#9aa5b1" for row in rows]
  axes.barh([row["name"] for row in rows], [row[column] for row in rows], color=colours)
  axes.invert_yaxis()
  label_axes(axes, label, "")


def _draw_scaling(axes: Axes, rows: Sequence[Row], column: str, label: str) -> None:
  """Seconds of a generation against a column, and its share of the machine's limit."""
  x = [row[column] for row in rows]
  y = [row["seconds"] for row in rows]
  spread = [
    [row["seconds"] - row["seconds_low"] for row in rows],
    [row["seconds_high"] - row["seconds"] for row in rows],
  ]
  axes.errorbar(x, y, spread, color=COLOURS["nets"], marker="o", capsize=3, label="seconds", **STYLE)
  axes.set_xscale("log", base=2)
  axes.set_yscale("log", base=2)
  if max(y) < 8 * min(y):  # powers of two alone may leave no tick
    axes.yaxis.set_major_locator(LogLocator(base=2, subs=(1.0, 1.5)))
  axes.set_xticks(x, [f"{value:g}" for value in x])
  axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
  label_axes(axes, label, "seconds a generation")
  other = axes.twinx()
  other.plot(x, [row["share_of_limit"] for row in rows], color="#c0392b", marker="s", linestyle="--")
  other.set_ylim(0, 1.05)
  other.set_ylabel("share of the limit (dashed)", color="#c0392b")
  other.spines[["top"]].set_visible(False)
