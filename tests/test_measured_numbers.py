"""What README and docs/ tell of measurements is what the results' files hold."""

import pathlib
import re

import numpy as np
import pandas as pd
import pytest

from nets_jax.analysis.intervals import mean_and_interval

ROOT = pathlib.Path(__file__).parent.parent
RESULTS = ROOT / "experiments/results"
PAGES = {path.name: path.read_text() for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
DENSITIES = {"10 %": 0.1, "5 %": 0.05, "2 %": 0.02, "1 %": 0.01, "0.5 %": 0.005}
# How a row of a page begins, and what the studies' tables call that method.
METHODS = {
  "guided NeTS": "guided",
  "IMP, cycles of five": "imp_5_global",
  "IMP, cycles of ten": "imp_10",
  "gradual pruning": "gradual",
  "SNIP": "snip",
  "SynFlow": "synflow",
  "random, by ERK": "erk",
  "`halved`": "guided_halved",
  "dense, 100 %": "dense",
}


def rows_of(study):
  """The rows of a study's table, one for each ticket."""
  rows = pd.read_csv(RESULTS / study / "densities.csv")
  return rows.set_index(["method", "target_density", "trial"]).sort_index()


def percent(values, sign=""):
  """Mean and 95 % interval in percent or points, as the pages write them; no -0.0."""
  mean, half = (round(100 * float(value), 1) for value in mean_and_interval(list(values)))
  return f"{mean + 0.0:{sign if mean else ''}.1f} ± {half:.1f}"


def tables_of(text):
  """The tables of a page: for each the cells of its head, and those of its rows, without emphasis."""
  for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
    lines = [[cell.strip(" *") for cell in line.strip().strip("|").split("|")] for line in block.splitlines()]
    if len(lines) > 2 and set("".join(lines[1])) <= set("-: "):
      yield lines[0], lines[2:]


def by_density(head, rows, of):
  """The cells of a table of methods by density, each beside what `of` makes of method and density."""
  for name, *cells in rows:
    method = next(method for begin, method in METHODS.items() if name.startswith(begin))
    for title, cell in zip(head[1:], cells, strict=True):
      if title in DENSITIES and cell:
        yield f"{name}, {title}", cell, of(method, DENSITIES[title])


def accuracies(study):
  """Of method and density: test accuracy, mean and interval."""
  rows = rows_of(study).test_accuracy

  def of(method, density):
    return f"{percent(rows[method, 1.0 if method == 'dense' else density])} %"

  return of


def differences(study, to="guided"):
  """Of method and density: the paired difference from another method's test accuracy."""
  rows = rows_of(study).test_accuracy

  def of(method, density):
    first = rows[method, 1.0 if method == "dense" else density]
    second = rows[to, density]
    common = first.index.intersection(second.index)
    return percent(first[common] - second[common], "+")

  return of


def epochs(study, method):
  """The genome-epochs of a method's searches: one number, or from the least to the most."""
  own = rows_of(study).search_epochs[method].groupby("target_density").mean().round().astype(int)
  return str(own.min()) if own.nunique() == 1 else f"{own.min()} to {own.max()}"


def table_with(page, *words):
  """The one table of a page whose head has these words."""
  found = [table for table in tables_of(PAGES[page]) if all(word in " | ".join(table[0]) for word in words)]
  assert len(found) == 1, [table[0] for table in found]
  return found[0]


def test_the_table_of_readme():
  head, rows = table_with("README.md", "10 %", "0.5 %", "genome-epochs")
  cells = list(by_density(head, rows, accuracies("recipe")))
  assert len(cells) >= 5 * (len(rows) - 1) + 1
  assert [(where, told) for where, told, known in cells if told != known] == []
  for name, *own in rows:
    method = next(method for begin, method in METHODS.items() if name.startswith(begin))
    assert own[-1] == epochs("recipe", method), name


def test_the_table_of_differences():
  head, rows = table_with("results_guided.md", "10 %", "0.5 %", "genome-epochs (guided")
  cells = list(by_density(head, rows, differences("recipe")))
  assert len(cells) == 5 * len(rows)
  assert [(where, told, known) for where, told, known in cells if told != known] == []


def test_the_tables_of_fashion_mnist_and_the_digits():
  for page, word, study, densities in (
    ("results_limits.md", "Fashion-MNIST", "recipe/fashion", ("5 %", "2 %", "1 %")),
    ("results.md", "digits", "digits", ("20 %", "10 %")),
  ):
    head, rows = table_with(page, word, *densities, "genome-epochs")
    names = METHODS | {"IMP, cycles of fifty": "imp_50_global", "random": "random"}
    of = accuracies(study)
    for name, *cells in rows:
      method = next(method for begin, method in names.items() if name.startswith(begin))
      for title, cell in zip(head[1:-1], cells, strict=False):
        known = of(method, float(title.removesuffix(" %")) / 100)
        assert cell in ("", known), (page, name, title)
      assert cells[-1] == epochs(study, method), (page, name)


def test_the_dense_networks_rates():
  head, (row,) = table_with("results_guided.md", "learning rate", "0.001", "0.3")
  rows = pd.concat([rows_of("dense_rates"), rows_of("densities").rename({"dense": "dense at 0.001"})])
  told = dict(zip(head[1:], row[1:], strict=True))
  assert told == {rate: f"{percent(rows.test_accuracy[f'dense at {rate}'])} %" for rate in told}


def test_the_papers_table():
  """Mean and standard deviation of the trials."""
  head, rows = table_with("results_paper.md", "random, ours", "NeTS, ours")
  found = pd.read_csv(RESULTS / "mnist/table1.csv").set_index("method")
  columns = {"density": 1, "loss": 3, "accuracy": 1}
  methods = {
    "random": "random",
    "IMP": "imp",
    "NeTS": "paper",
    "dense": "dense",
    "SNIP": "snip",
    "SynFlow": "synflow",
  }
  seen = 0
  for name, *cells in rows:
    if not name.startswith("Mean"):
      continue
    column = name.removeprefix("Mean ").replace("validation", "valid").replace(" ", "_")
    digits, is_share = columns[column.split("_")[-1]], "loss" not in column
    for title, cell in zip(head[1:], cells, strict=True):
      if not title.endswith(", ours") or "±" not in cell:
        continue
      method = methods[title.removesuffix(", ours")]
      values = found.loc[method if method in found.index else "nets", column] * (100 if is_share else 1)
      known = f"{values.mean():.{digits}f} ± {np.std(values, ddof=1):.{digits}f}"
      assert cell.removesuffix(" %") == known, (name, title)
      seen += 1
  assert seen > 20


def test_the_table_in_frankle_and_carbins_setting():
  """Where a cell is of two methods, `line_5` stands for `line_10` at the density that it has."""
  head, rows = table_with("results_guided.md", "20 %", "5 %", "2 %", "share of IMP")
  found = rows_of("densities_lottery")
  methods = {"guided NeTS, halved": "guided", "one line": "line_10", "IMP": "imp"}
  for name, *cells in rows:
    method = next(method for begin, method in methods.items() if name.startswith(begin))
    for title, cell in zip(head[1:4], cells, strict=False):
      density = float(title.removesuffix(" %")) / 100
      own = "line_5" if (method, density) not in found.index.droplevel("trial") else method
      assert cell == f"{100 * found.test_accuracy[own, density].mean():.1f} %", (name, title)


def test_the_table_of_ablations():
  _, rows = table_with("results_limits.md", "without", "points")
  found, methods = differences("ablations_paper"), ("unscaled", "blind", "unhalved", "uncrossed")
  assert [row[1] for row in rows] == [found(method, 0.05) for method in methods]


def benchmark_of(name):
  """Seconds and ratios of a benchmark's parts."""
  return pd.read_csv(RESULTS / name / "benchmark.csv").set_index("name")


def test_the_tables_of_speed():
  _, (seconds, share, plain, fastest) = table_with("speed.md", "a generation of 6", "bfloat16")
  found = benchmark_of("benchmark_peers")
  columns = {"": "nets_jax, a whole generation", ", bfloat16": "nets_jax, bfloat16"}
  for place, (kind, own) in enumerate(columns.items(), 1):
    assert float(seconds[place]) == pytest.approx(found.seconds[own], abs=0.005)
    assert float(share[place]) == pytest.approx(found.share_of_limit[own], abs=0.006)
    peers = (f"PyTorch, eager loop{kind}", plain), (f"JAX, Python loop of jitted epochs{kind}", fastest)
    for peer, row in peers:
      told = float(row[place].removesuffix(" times as fast"))
      assert told == pytest.approx(found.seconds[peer] / found.seconds[own], abs=0.06)
  _, rows = table_with("speed.md", "seconds", "times the first")
  found = benchmark_of("benchmark_guided")
  named = {"the paper's search": "the paper's search, 52 genome-epochs, compiled"}
  for name, told, times in rows:
    own = found.loc[next((full for begin, full in named.items() if name.startswith(begin)), name)]
    assert (told, float(times)) == (f"{own.seconds:.1f}", round(own.times_the_first, 2))
  _, rows = table_with("speed.md", "a training step", "times as fast")
  found = benchmark_of("benchmark_networks").times_the_first
  for name, told in rows:
    network = name.partition(",")[0].strip("`")
    assert told == f"{found[f'{network}, eager PyTorch on one network']:.1f}"


def test_the_table_of_structured_tickets():
  _, rows = table_with("speed.md", "multiplications left", "test accuracy")
  found = pd.read_csv(RESULTS / "structured/table1.csv").groupby("method")
  methods = {"guided NeTS": "guided_halved", "`--structured": "structured", "IMP": "imp_10", "SNIP": "snip"}
  for name, left, accuracy in rows:
    own = found.get_group(next(method for begin, method in methods.items() if name.startswith(begin)))
    known = (100 * own[column] for column in ("multiplication_share", "test_accuracy"))
    assert [left, accuracy] == [f"{values.mean():.1f} ± {values.std(ddof=1):.1f} %" for values in known]


def test_what_the_first_screen_says_of_the_figure():
  """A point ahead at 0.5 %, level at 1 and 2 %, behind IMP above; no ticket beats the dense network."""
  said = " ".join(PAGES["README.md"].split())
  assert (
    "At 0.5 % of the weights it is a point ahead of all others, and at 1 and 2 % level with the best." in said
  )
  assert (
    "At 5 and 10 % IMP, which prunes a trained network again and again (50 to 120 epochs), is ahead." in said
  )
  assert epochs("recipe", "imp_5_global") == "50 to 120"
  assert "it takes 104 epochs of training in all" in said
  assert epochs("recipe", "guided") == "104"
  rows = rows_of("recipe").test_accuracy.groupby(["method", "target_density"]).mean() * 100
  others = ["imp_5_global", "imp_10", "gradual", "rigl", "snip", "synflow", "erk", "guided_halved"]
  assert set(others) <= set(rows.index.get_level_values("method"))
  rivals = {density: max(rows[m, density] for m in others[:-1]) for density in DENSITIES.values()}
  ahead = {density: rows["guided", density] - best for density, best in rivals.items()}
  assert ahead[0.005] > 0.9
  assert all(abs(ahead[density]) < 0.2 for density in (0.01, 0.02))
  assert all(rows["imp_5_global", density] - rows["guided", density] > 0.1 for density in (0.05, 0.1))
  assert max(rows.drop("dense")) <= rows["dense", 1.0] + 0.05


# What a page's sentences say, with what the results' files make of it.
def of_the_digits():
  rows = rows_of("digits").test_accuracy
  ticket, random, dense = (rows[m, d] for m, d in (("guided", 0.1), ("random", 0.1), ("dense", 1.0)))
  return percent(ticket - random), f"{100 * (dense - ticket).mean():.1f}"


def at_the_lowest_loss():
  rows = rows_of("recipe").minimum_test_accuracy
  differences = [100 * (rows["imp_10", d] - rows["guided", d]).mean() for d in DENSITIES.values()]
  return [f"{abs(difference):.1f}" for difference in differences]


CLAIMS = [
  (
    "results_guided.md",
    "IMP in cycles of ten is {} and {} points ahead at 10 and 5 %, and {} at 2 %. "
    "At 1 and 0.5 % it is {} and {} points behind",
    at_the_lowest_loss,
  ),
  (
    "README.md",
    "the ticket is {} points better than a random one, and {} below the dense network",
    of_the_digits,
  ),
]


@pytest.mark.parametrize(("page", "sentence", "of"), CLAIMS, ids=[claim[1][:40] for claim in CLAIMS])
def test_a_sentence_says_what_was_measured(page, sentence, of):
  assert sentence.format(*of()) in " ".join(PAGES[page].split())
