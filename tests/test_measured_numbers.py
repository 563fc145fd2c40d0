"""The tables of README and docs/ are what the results' files hold."""

import re

import numpy as np
import pandas as pd
import pytest
from measurements import (
  HALF_A_PERCENT,
  METHODS,
  NOT_MEASURED,
  PAGES,
  RESULTS,
  accuracies,
  benchmark_of,
  by_density,
  differences,
  epochs,
  percent,
  rows_of,
  table_with,
  tables_of,
)

# The tables that tell of measurements: page, and words of the head that no other table there has.
TABLES = {
  "methods": ("README.md", "10 %", "0.5 %", "genome-epochs"),
  "differences": ("results_guided.md", "10 %", "0.5 %", "genome-epochs (guided"),
  "fashion": ("results_limits.md", "Fashion-MNIST", "5 %", "2 %", "1 %", "genome-epochs"),
  "lenet5": ("results_limits.md", "`lenet5`", "5 %", "1 %", "genome-epochs"),
  "digits": ("results.md", "digits", "20 %", "10 %", "genome-epochs"),
  "winning": ("results_guided.md", "winning, of five"),
  "rates": ("results_guided.md", "learning rate", "0.001", "0.3"),
  "paper": ("results_paper.md", "random, ours", "NeTS, ours"),
  "lottery": ("results_guided.md", "20 %", "5 %", "2 %", "share of IMP"),
  "ablations": ("results_limits.md", "without", "everything tuned"),
  "sweeps": ("results_limits.md", "setting", "came to"),
  "generation": ("speed.md", "a generation of 6", "bfloat16"),
  "search": ("speed.md", "seconds", "times the first"),
  "steps": ("speed.md", "a training step", "times as fast"),
  "gpu": ("speed.md", "on a GPU", "seconds"),
  "compact": ("speed.md", "multiplications left", "compact", "times as fast"),
  "structured": ("speed.md", "multiplications left", "test accuracy"),
  "forms": ("export.md", "form", "kB", "one example, ms"),
}
FORMS = {
  "dense, JAX": "dense",
  "compact, JAX": "compact",
  "CSR, SciPy": "scipy csr",
  "dense, PyTorch": "torch",
  "CSR, PyTorch": "torch csr",
  "dense, ONNX": "onnx",
  "compact, ONNX": "onnx compact",
}


def table(name):
  return table_with(*TABLES[name])


def test_every_table_of_measurements_is_held():
  for page in PAGES.keys() - NOT_MEASURED:
    for head, rows in tables_of(PAGES[page]):
      cells = " ".join(cell for row in rows for cell in row[1:])
      if re.search(r"±|\d\.\d", HALF_A_PERCENT.sub("", cells)):
        title = " | ".join(head)
        held = [
          name for name, (own, *words) in TABLES.items() if own == page and all(w in title for w in words)
        ]
        assert len(held) == 1, (page, title)


def test_the_table_of_readme():
  head, rows = table("methods")
  cells = list(by_density(head, rows, accuracies("recipe")))
  assert len(cells) >= 5 * (len(rows) - 1) + 1
  assert [(where, told) for where, told, known in cells if told != known] == []
  for name, *own in rows:
    method = next(method for begin, method in METHODS.items() if name.startswith(begin))
    assert own[-1] == epochs("recipe", method), name


def test_the_table_of_differences():
  head, rows = table("differences")
  cells = list(by_density(head, rows, differences("recipe")))
  assert len(cells) == 5 * len(rows)
  assert [(where, told, known) for where, told, known in cells if told != known] == []
  for name, *own in rows:
    method = next(method for begin, method in METHODS.items() if name.startswith(begin))
    assert own[-1] == epochs("recipe", method), name


def test_the_densities_that_rows_of_imp_have():
  """In brackets, in the order of the table's columns."""
  seen = 0
  for name, study in {"methods": "recipe", "differences": "recipe", "fashion": "recipe/fashion",
                      "lenet5": "recipe/lenet5"}.items():  # fmt: skip
    head, rows = table(name)
    columns = [float(title.removesuffix(" %")) / 100 for title in head[1:-1]]
    for title, *_ in rows:
      if told := re.search(r"\((?:at )?([\d., ]+) %\)$", title):
        method = next(method for begin, method in METHODS.items() if title.startswith(begin))
        known = [f"{100 * rows_of(study).density[method, density].mean():.1f}" for density in columns]
        assert told[1].split(", ") == known, (name, title)
        seen += 1
  assert seen == 7


def test_the_table_of_winning_tickets():
  """Against those that the study itself has written, from its runs' files."""
  head, rows = table("winning")
  known_head, known = next(
    found for found in tables_of((RESULTS / "recipe/densities.md").read_text()) if " of 5 (" in found[1][0][1]
  )
  of = {name: [cell.partition(" ")[0] for cell in cells] for name, *cells in known}
  assert head[1:] == known_head[1:]
  for name, *cells in rows:
    assert cells == of[next(method for begin, method in METHODS.items() if name.startswith(begin))], name


def test_the_table_of_claims():
  """Its two numbers: how many tickets of guided NeTS win, and where the paper's search stalls."""
  (claims,) = (rows for head, rows in tables_of(PAGES["results_limits.md"]) if head[0] == "claim")
  told = {name: " ".join(cells) for name, *cells in claims}
  wins = next(row for row in table("winning")[1] if row[0] == "guided NeTS")[1:]
  assert f"{sum(map(int, wins))} of {5 * len(wins)} " in told["a ticket wins by Definition 3"]
  density = pd.read_csv(RESULTS / "mnist/table1.csv").groupby("method").density.mean()["nets"]
  assert f"it stalls at {100 * density:.0f} %" in told["the paper's search reaches its target"]


def test_the_tables_of_fashion_mnist_and_the_digits():
  studies = {"fashion": "recipe/fashion", "lenet5": "recipe/lenet5", "digits": "digits"}
  for page, study in studies.items():
    head, rows = table(page)
    names = METHODS | {"IMP, cycles of fifty": "imp_50_global", "random": "random"}
    of = accuracies(study)
    for name, *cells in rows:
      method = next(method for begin, method in names.items() if name.startswith(begin))
      for title, cell in zip(head[1:-1], cells, strict=False):
        known = of(method, float(title.removesuffix(" %")) / 100)
        assert cell in ("", known), (page, name, title)
      assert cells[-1] == epochs(study, method), (page, name)


def test_the_dense_networks_rates():
  head, (row,) = table("rates")
  rows = pd.concat([rows_of("dense_rates"), rows_of("densities").rename({"dense": "dense at 0.001"})])
  told = dict(zip(head[1:], row[1:], strict=True))
  assert told == {rate: f"{percent(rows.test_accuracy[f'dense at {rate}'])} %" for rate in told}


def test_the_papers_table():
  """Mean and standard deviation of the trials."""
  head, rows = table("paper")
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
  head, rows = table("lottery")
  found = rows_of("densities_lottery")
  methods = {"`halved`": "guided", "one line": "line_10", "IMP": "imp"}
  shares = {method: [] for method in methods.values()}
  for name, *cells in rows:
    method = next(method for begin, method in methods.items() if name.startswith(begin))
    for title, cell in zip(head[1:4], cells, strict=False):
      density = float(title.removesuffix(" %")) / 100
      own = "line_5" if (method, density) not in found.index.droplevel("trial") else method
      assert cell == f"{100 * found.test_accuracy[own, density].mean():.1f} %", (name, title)
      shares[method].append(found.search_epochs[own, density].mean())
  for (_, *_, told), own in zip(rows, shares.values(), strict=True):
    known = [f"{100 * ours / imp:.0f}" for ours, imp in zip(own, shares["imp"], strict=True)]
    assert told in (f"{', '.join(known)} %", f"{known[0]} %"), told


def test_the_table_of_ablations():
  _, rows = table("ablations")
  paper, tuned = differences("ablations_paper"), differences("recipe/ablations")
  methods = ("unscaled", "blind", "unhalved", "uncrossed")
  known = [(paper(method, 0.05), tuned(method, 0.01)) for method in methods]
  known += [("", tuned("no_regrowth", 0.01)), (differences("densities")("line_4", 0.05), tuned("line", 0.01))]
  assert [tuple(row[1:]) for row in rows] == known


def test_the_tables_of_speed():
  _, (seconds, share, plain, fastest) = table("generation")
  found = benchmark_of("benchmark_peers")
  columns = {"": "nets_jax, a whole generation", ", bfloat16": "nets_jax, bfloat16"}
  for place, (kind, own) in enumerate(columns.items(), 1):
    assert float(seconds[place]) == pytest.approx(found.seconds[own], abs=0.005)
    assert float(share[place]) == pytest.approx(found.share_of_limit[own], abs=0.006)
    peers = (f"PyTorch, eager loop{kind}", plain), (f"JAX, Python loop of jitted epochs{kind}", fastest)
    for peer, row in peers:
      told = float(row[place].removesuffix(" times as fast"))
      assert told == pytest.approx(found.seconds[peer] / found.seconds[own], abs=0.06)
  _, rows = table("search")
  found = benchmark_of("benchmark_guided")
  named = {"the paper's search": "the paper's search, 52 genome-epochs, compiled"}
  for name, told, times in rows:
    own = found.loc[next((full for begin, full in named.items() if name.startswith(begin)), name)]
    assert (told, float(times)) == (f"{own.seconds:.1f}", round(own.times_the_first, 2))
  _, rows = table("steps")
  found = benchmark_of("benchmark_networks").times_the_first
  for name, told in rows:
    network = name.partition(",")[0].strip("`")
    assert told == f"{found[f'{network}, eager PyTorch on one network']:.1f}"


def test_the_table_of_structured_tickets():
  _, rows = table("structured")
  found = pd.read_csv(RESULTS / "structured/table1.csv").groupby("method")
  methods = {"guided NeTS": "guided_halved", "`--structured": "structured", "IMP": "imp_10", "SNIP": "snip"}
  for name, left, accuracy in rows:
    own = found.get_group(next(method for begin, method in methods.items() if name.startswith(begin)))
    known = (100 * own[column] for column in ("multiplication_share", "test_accuracy"))
    assert [left, accuracy] == [f"{values.mean():.1f} ± {values.std(ddof=1):.1f} %" for values in known]


def test_the_table_of_a_gpu():
  _, (search, first, kept) = table("gpu")
  found = pd.read_csv(RESULTS / "gpu/gpu.csv").mean()
  assert search[1] == f"{found.search_seconds:.1f}"
  assert [float(first[1]), float(kept[1])] == [
    found.compile_seconds,
    found.compile_seconds_from_kept_programs,
  ]


def test_the_table_of_compact_trainings():
  """Where a row is of several densities, the least and the most of them."""
  _, rows = table("compact")
  found = benchmark_of("benchmark")
  for name, left, whole, compact, times in rows:
    begins = [name.replace(" %, `--structured=0.5`", "%, structured 0.5"), name.replace(" %", "%")]
    begins = ["50%", "20%", "5%"] if name.startswith("50") else [begins["structured" not in name]]
    parts = [f"{begin}, 50 epochs: {{}}".format for begin in begins]
    known = {}
    for kind in ("whole", f"compact, {left.replace(' ', '')} of the multiplications"):
      seconds = sorted(found.seconds[part(kind)] for part in parts)
      ends = dict.fromkeys(f"{value:.1f}" for value in (seconds[0], seconds[-1]))
      known[kind.partition(",")[0]] = f"{' to '.join(ends)} s"
    assert (whole, compact) == (known["whole"], known["compact"]), name
    ratios = {f"{found.times_the_first[part('whole')]:.1f}" for part in parts}
    assert ratios == {times}, name


def test_the_table_of_sweeps():
  _, rows = table("sweeps")
  told = dict(rows)
  found = {
    name: 100 * pd.read_csv(RESULTS / f"sweeps/digits_{name}/results.csv").groupby(name).density.mean()
    for name in ("population_size", "elites")
  }
  sizes = found["population_size"]
  ends = f"{sizes.min():.0f} to {sizes.max():.0f} % for up to {sizes.index.max() // sizes.index.min()} times"
  assert ends in told["a larger population, 2 to 256 genomes"]
  assert f"denser, {found['elites'][0]:.0f} %" in told["no elites"]


def test_the_table_of_forms():
  """Bytes, and medians of three runs, whose accuracies are those of the sentence below."""
  _, rows = table("forms")
  runs = pd.concat(pd.read_json(path) for path in sorted((RESULTS / "forms").glob("forms_*.json")))
  assert len(runs) == 3 * 3 * len(FORMS) == 9 * len(rows)
  found = runs.groupby(["form", "density"])[["bytes", "ms_one", "ms_64"]].median()
  for name, *told in rows:
    of_form = found.loc[FORMS[name]].sort_index(ascending=False)
    known = [f"{size / 1000:,.0f}" for size in of_form["bytes"]]
    known += [f"{ms:.3f}" for ms in of_form["ms_one"]] + [f"{ms:.2f}" for ms in of_form["ms_64"]]
    assert told == known, name
