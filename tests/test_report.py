"""The page of a run and of each study: what it says, that it needs nothing else, and what it does without."""

import html.parser
import json
import pathlib
import re
import shutil

import numpy as np
import pytest
from conftest import made_once

import nets_jax
from nets_jax.analysis import interactive, interactive_runs, interactive_studies, interactive_tickets, page
from nets_jax.cli import compare, densities, report, search, sweep
from nets_jax.engine.tables import read_csv, write_csv
from nets_jax.studies import outcome, report_parts, report_run, report_settings
from nets_jax.studies import report as pages
from nets_jax.training.measures import Measures

ROOT = pathlib.Path(nets_jax.__file__).parents[1]
RESULTS = ROOT / "experiments" / "results"
XOR = (
  "--dataset=xor", "--xor_train_size=100", "--xor_test_size=40", "--hidden_sizes=6", "--batch_size=10",
  "--train_epochs=3", "--devices=1",
)  # fmt: skip
NETS = ("--population_size=4", "--generations=2", "--fitness_epochs=1", "--halvings=0")
MOST_BYTES = 5_000_000


class Reader(html.parser.HTMLParser):
  """The cells, headings, tags and texts of a page."""

  def __init__(self, text):
    super().__init__()
    self.tags, self.cells, self.texts, self.loads, self._open = [], [], [], [], []
    self.feed(text)

  def handle_starttag(self, tag, attributes):
    found = dict(attributes)
    self.tags.append(tag)
    self._open.append(tag)
    self.loads += [found[name] for name in ("src", "srcset", "data", "action") if name in found]
    self.loads += [found["href"]] if tag == "link" else []
    assert not any(name.startswith("on") for name in found), attributes
    if tag == "td":
      self.cells.append("")

  def handle_endtag(self, tag):
    while self._open and self._open.pop() != tag:
      pass

  def handle_data(self, text):
    if self._open and self._open[-1] in ("script", "style"):
      return
    self.texts.append(text.strip())
    if "td" in self._open:
      self.cells[-1] += text


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
  return tmp_path_factory.mktemp("kept")


@pytest.fixture
def run(run_binary, kept, tmp_path):
  """The directory of a small run."""
  make = lambda: run_binary(search, *XOR, *NETS, "--workdir=run")  # noqa: E731
  return made_once(kept / "run", tmp_path / "run", make)


@pytest.fixture
def again(run_binary, tmp_path):
  """`nets-jax report`: exit status, and what it says."""

  def make(where):
    status, out, error = run_binary(report, str(where))
    assert out == (f"{where}/report.html\n" if status == 0 else "")
    return status, error

  return make


def read(where):
  """The page of a directory."""
  return Reader((where / "report.html").read_text())


def check_whole(where):
  """A page needs nothing else, and is not large."""
  path = where / "report.html"
  found = read(where)
  assert path.stat().st_size < MOST_BYTES
  assert set(found.loads) == {"data:,"}  # the icon, which a browser would ask for
  assert found.tags.count("script") in (0, 2)  # BokehJS, and the figures
  assert not {"iframe", "object", "embed", "base", "form"} & set(found.tags)
  return found


def test_the_page_of_a_run_says_what_the_run_has_printed(run, again):
  found, summary = check_whole(run), json.loads((run / "summary.json").read_text())
  titles, rows = outcome.cells(summary["results"], summary)
  cells = [cell for row in rows for cell in row]
  start = found.cells.index("guided")
  assert found.cells[start : start + len(cells)] == cells
  assert set(titles[1:]) <= set(found.texts)
  assert outcome.headline(summary) in found.texts
  assert any(re.match("The ticket (wins|does not win) against .*Definition 3", text) for text in found.texts)
  for verdict in summary["verdicts"].values():
    assert any(f"{verdict['iteration']:,} against {verdict['dense_iteration']:,}" in c for c in found.cells)
  for heading in ("Outcome", "Cost", "Training", "Search", "Frontier", "Masks", "Lineage", "Settings"):
    assert heading in found.texts
  assert "python -m nets_jax search --flagfile=run.flags --workdir=AGAIN" in found.texts
  assert (run / "run.flags").read_text().strip() in found.texts
  config = json.loads((run / "config.json").read_text())
  assert {config["versions"]["jax"], config["git_revision"]} <= {*found.cells, None}
  # Those that differ from the default, with it; first of all, and again among all settings.
  assert found.cells[found.cells.index("dataset") :][:3] == ["dataset", "xor", "digits"]
  assert "search" not in found.cells[: found.cells.index("dataset")]


def test_it_is_made_again_to_the_byte(run, again):
  before = (run / "report.html").read_bytes()
  (run / "report.html").unlink()
  assert again(run) == (0, "")
  assert (run / "report.html").read_bytes() == before
  assert again(run) == (0, "")
  assert (run / "report.html").read_bytes() == before


@pytest.mark.parametrize(
  ("name", "lost"),
  [
    ("history.csv", ("Search", "Frontier", "Lineage")),
    ("training.csv", ("Training",)),
    ("frontier", ("Frontier",)),
    ("ticket.safetensors", ("Masks",)),
    ("config.json", ("Settings",)),
    ("run.flags", ()),
    ("summary.json", ("Outcome", "Cost", "Lineage")),
  ],
)
def test_what_a_run_lacks_is_left_out(run, again, name, lost):
  headings = set(read(run).texts)
  shutil.rmtree(run / name, ignore_errors=True)
  (run / name).unlink(missing_ok=True)
  assert again(run) == (0, "")
  found = set(check_whole(run).texts)
  assert {
    "Outcome",
    "Cost",
    "Training",
    "Search",
    "Frontier",
    "Masks",
    "Lineage",
    "Settings",
  } & headings - found == set(lost)


@pytest.mark.parametrize(
  ("name", "columns", "lost"),
  [
    ("history.csv", ("parent_1", "parent_2"), {"Lineage"}),
    ("history.csv", ("valid_accuracy",), set()),
    ("history.csv", ("density",), {"Search", "Frontier", "Lineage"}),
    ("training.csv", ("test_loss", "test_accuracy"), set()),
    ("training.csv", ("iteration",), {"Training"}),
    ("frontier/frontier.csv", ("file",), {"Frontier"}),
  ],
)
def test_columns_of_another_version_are_left_out(run, again, name, columns, lost):
  headings = {"Training", "Search", "Frontier", "Lineage"}
  rows = [{k: v for k, v in row.items() if k not in columns} for row in read_csv(run / name)]
  write_csv(run / name, rows)
  assert again(run) == (0, "")
  assert headings - set(check_whole(run).texts) == lost


BROKEN = [
  ("summary.json", "{"),
  ("summary.json", "[]"),
  ("summary.json", '{"results": {"guided": 3}, "verdicts": {}}'),
  ("summary.json", '{"results": {}, "measures": {"colour": "red"}}'),
  ("config.json", "\x00"),
  ("history.csv", "generation,genome,density\n1"),
  ("history.csv", "generation,density,valid_loss\nnan,x,y\n"),
  ("training.csv", ""),
  ("training.csv", "ticket,epoch,iteration,valid_loss\na,b,c,d\n"),
  ("frontier/frontier.csv", "file,generation,density,valid_loss\na,b,c,d\n"),
  ("ticket.safetensors", "no ticket"),
]


@pytest.mark.parametrize(("name", "text"), BROKEN)
def test_a_damaged_file_is_one_line_and_the_page_stays_as_it_was(run, again, name, text):
  before = (run / "report.html").read_bytes()
  (run / name).write_text(text)
  status, error = again(run)
  assert (status, error.count("\n")) == (2, 1), error
  assert error.startswith("error: ")
  assert name.partition("/")[0] in error
  assert (run / "report.html").read_bytes() == before
  assert not list(run.glob(".*.tmp"))


def test_a_directory_that_is_no_run(again, tmp_path):
  (tmp_path / "other").mkdir()
  assert again(tmp_path / "none") == (2, f"error: there is no directory {tmp_path}/none\n")
  status, error = again(tmp_path / "other")
  assert (status, error.count("\n")) == (2, 1)
  assert "other holds no run, comparison, study of densities, controls or sweep\n" in error
  (tmp_path / "other" / "config.json").write_text('{"settings": {}}')
  assert "sweep that has results yet\n" in again(tmp_path / "other")[1]
  assert [path.name for path in (tmp_path / "other").iterdir()] == ["config.json"]


HOSTILE = [
  "</script><script>boom()</script>",
  "<img src=x onerror=boom()>",
  "\"'>&{{7*7}}",
  "$$\\href{x}{y}$$",
]


def test_what_files_say_is_text(run, again):
  """Names of networks, tickets and files, flags and messages, in tables, scripts and figures."""
  config = json.loads((run / "config.json").read_text())
  config["flags"] |= {
    "network": HOSTILE[0],
    "dataset": HOSTILE[1],
    HOSTILE[0]: HOSTILE[2],
    "search": HOSTILE[3],
  }
  config["versions"] = {HOSTILE[0]: HOSTILE[1]}
  (run / "config.json").write_text(json.dumps(config))
  (run / "run.flags").write_text("\n".join(HOSTILE))
  for name, column in (("training.csv", "ticket"), ("frontier/frontier.csv", "file")):
    rows = [{**row, column: HOSTILE[i % 4]} for i, row in enumerate(read_csv(run / name))]
    write_csv(run / name, rows)
  summary = json.loads((run / "summary.json").read_text())
  summary["results"] = {HOSTILE[i]: row for i, row in enumerate(summary["results"].values())}
  summary["verdicts"] = {HOSTILE[i]: row for i, row in enumerate(summary["verdicts"].values())}
  (run / "summary.json").write_text(json.dumps(summary))
  assert again(run) == (0, "")
  text, found = (run / "report.html").read_text(), check_whole(run)
  for name in HOSTILE[:3]:
    assert name not in text
    assert name in found.cells
  assert "<img" not in text.split("</style>")[1].split("<script>")[0]
  assert "49" not in [cell for cell in found.cells if "{" in cell]
  assert "$$" not in interactive.words(HOSTILE[3])


def test_a_search_of_ones_own_is_not_imported(run, again):
  config = json.loads((run / "config.json").read_text())
  config["flags"]["search"] = "nowhere.at_all:Search"
  (run / "config.json").write_text(json.dumps(config))
  assert again(run) == (0, "")
  assert "All settings" in check_whole(run).texts  # of which nobody knows the defaults
  assert report_settings.defaults("nowhere.at_all:Search") is None


def test_networks_that_have_diverged(run, again):
  summary = json.loads((run / "summary.json").read_text())
  for row in (*summary["results"].values(), *summary["verdicts"].values()):
    row |= {name: None for name in row if name.endswith(("loss", "accuracy")) and name != "loss"}
  (run / "summary.json").write_text(json.dumps(summary))
  rows = read_csv(run / "training.csv")
  write_csv(run / "training.csv", [{**row, "valid_loss": "nan", "test_loss": "inf"} for row in rows])
  assert again(run) == (0, "")
  assert "nan" in check_whole(run).cells


def test_a_score_of_another_kind(run, again):
  """Which has other columns, and of which less may be better."""

  def renamed(row):
    return {name.replace("accuracy", "absolute_error"): value for name, value in row.items()}

  for name in ("history.csv", "training.csv", "frontier/frontier.csv"):
    write_csv(run / name, map(renamed, read_csv(run / name)))
  summary = json.loads((run / "summary.json").read_text().replace("accuracy", "absolute_error"))
  summary["measures"] = {"loss": "squared_error", "score": "absolute_error", "more_is_better": False}
  (run / "summary.json").write_text(json.dumps(summary))
  assert again(run) == (0, "")
  assert "test absolute error" in check_whole(run).texts


def test_a_search_that_has_failed(run, again):
  (run / "summary.json").write_text('{"failed": "every genome <b>diverged</b>"}')
  assert again(run) == (0, "")
  assert "The search found no ticket: every genome <b>diverged</b>" in read(run).texts


def test_a_page_that_cannot_be_written_loses_nothing(run_binary, tmp_path, monkeypatch):
  def fail(*arguments):
    raise RuntimeError("the figure\nfell down")

  monkeypatch.setattr(report_run, "run_page", fail)
  status, out, error = run_binary(search, *XOR, *NETS, "--workdir=run")
  assert status == 0
  told = "run/report.html was not written (the figure fell down); nets-jax report run tries again\n"
  assert told in error
  assert "files in run\n" in out
  assert (tmp_path / "run" / "summary.json").exists()
  assert not (tmp_path / "run" / "report.html").exists()
  monkeypatch.setattr(report_parts, "write", fail)
  pages.leave(tmp_path / "run")  # of a study; a directory that is none is a line too
  pages.leave(tmp_path / "nowhere")


def study_cells(where, name):
  """The cells of a study's page, and those of its printed tables."""
  lines = [line for line in (where / name).read_text().splitlines() if line.startswith("|")]
  printed = [
    cell.strip().strip("*") for line in lines if "--" not in line for cell in line.strip("|").split("|")
  ]
  found = check_whole(where)
  return [*found.cells, *found.texts], [cell for cell in printed if cell]


def test_the_page_of_a_comparison(run_binary, tmp_path):
  status, _, error = run_binary(
    compare, *XOR, *NETS, "--trials=2", "--methods=guided,random,dense", "--workdir=out"
  )
  assert status == 0, error
  where = tmp_path / "out"
  cells, printed = study_cells(where, "table1.md")
  assert set(printed) <= set(cells)
  texts = read(where).texts
  assert any(text.startswith("Winning tickets by Definition 3 of the paper: guided (") for text in texts)
  assert "6 runs of 3 methods, none failed." in texts
  assert "python -m nets_jax compare --flagfile=compare.flags --workdir=AGAIN" in texts
  names = {path.name for path in (where / "runs").iterdir()}
  assert names <= set(cells)
  page_text = (where / "report.html").read_text()
  assert all(f'href="runs/{name}/"' in page_text for name in names)
  before = (where / "report.html").read_bytes()
  assert run_binary(report, "out")[0] == 0
  assert (where / "report.html").read_bytes() == before
  (run,) = (where / "runs").glob("guided-*-1")
  assert run_binary(report, str(run))[0] == 0  # of one of its runs, which has none by itself
  assert "Masks" in check_whole(run).texts


def test_the_page_of_a_sweep(run_binary, tmp_path):
  status, out, error = run_binary(
    sweep,
    *XOR,
    *NETS,
    "--seeds=0:2",
    "--grid=scale_deviation=0.5,1;selection=truncation,rank",
    "--workdir=out",
  )
  assert status == 0, error
  cells, printed = study_cells(tmp_path / "out", "settings.md")
  assert set(printed) <= set(cells)
  told = out.splitlines()[-2]  # how certain it is
  texts = read(tmp_path / "out").texts
  assert f"{told[0].upper()}{told[1:]}." in texts
  best = json.dumps([text for text in texts if text.startswith("Best setting by valid_loss: ")])
  for line in (tmp_path / "out" / "best.flags").read_text().splitlines():
    if line.startswith(("--scale_deviation", "--selection")):
      assert line.removeprefix("--") in best
  assert "What selection does" in texts


def test_the_flags_of_a_study_of_densities_repeat_it(run_binary, tmp_path):
  given = (*XOR, *NETS, "--methods=guided,dense", "--densities=0.5", "--trials=1")
  status, _, error = run_binary(densities, *given, "--workdir=out")
  assert status == 0, error
  cells, printed = study_cells(tmp_path / "out", "densities.md")
  assert set(printed) <= set(cells)
  assert "The final trainings" in read(tmp_path / "out").texts
  status, out, error = run_binary(densities, "--flagfile=out/densities.flags", "--workdir=out", "--dry_run")
  assert status == 0, error
  assert "2 runs, 2 of them done" in out


@pytest.mark.parametrize(
  ("source", "title"),
  [
    ("recipe", "Methods at several densities on mnist"),
    ("mnist", "A comparison of methods on mnist"),
    ("sweeps/digits_noise_rate", "A sweep of settings on digits"),
    ("sweeps/guided_digits_scales", "A sweep of settings on digits"),
    ("digits_ablations", "A comparison of methods on digits"),
  ],
)
def test_the_results_of_this_project_have_pages(again, tmp_path, source, title):
  """Files of earlier versions, without their runs."""
  shutil.copytree(RESULTS / source, tmp_path / "study")
  status, error = again(tmp_path / "study")
  assert status == 0, error
  text = {"recipe": "densities.md", "mnist": "table1.md", "digits_ablations": "table1.md"}
  cells, printed = study_cells(tmp_path / "study", text.get(source, "settings.md"))
  assert title in cells
  assert set(printed) <= set(cells)


@pytest.mark.parametrize("name", ["densities.csv", "tuning.csv", "config.json"])
def test_a_damaged_file_of_a_study_is_one_line(again, tmp_path, name):
  shutil.copytree(RESULTS / "recipe", tmp_path / "study")
  for text in ("a,b\n1", "method,round,chosen,valid_accuracy\na,b,c,d\n") if name.endswith("csv") else ("{",):
    (tmp_path / "study" / name).write_text(text)
    status, error = again(tmp_path / "study")
    assert (status, error.count("\n")) == (2, 1), error
    assert name in error


def test_a_study_whose_runs_failed_says_why(again, tmp_path):
  shutil.copytree(RESULTS / "recipe", tmp_path / "study")
  rows = read_csv(tmp_path / "study" / "densities.csv")
  for row in rows[:2]:
    row |= {"failed": "pruned <i>early</i>", "valid_loss": float("nan")}
  write_csv(tmp_path / "study" / "densities.csv", rows)
  assert again(tmp_path / "study") == (0, "")
  assert check_whole(tmp_path / "study").cells.count("pruned <i>early</i>") == 2
  assert "230 runs of 10 methods, 2 failed." in read(tmp_path / "study").texts


def test_tables_of_markdown_are_read_as_they_were_written():
  text = (
    "A title\n\n| a   | b \n".replace("b ", "b     |")
    + "|:----|:------|\n| x|y | 1 ± 2 |\n| **z** | **3** |\n\n- one\n- two\n"
  )
  table, bullets = report_parts.from_markdown(text)
  assert (table.caption, table.columns) == ("A title", ["a", "b"])
  assert table.rows == [["x|y", "1 ± 2"], ["z", "3"]]
  assert table.marked == [1]
  assert bullets.lines == ["one", "two"]


def test_a_setting_that_some_runs_lack_is_one_word_of_an_axis():
  """As in a sweep with conditional ranges: NaN is not NaN, and numbers that are told alike are one."""
  values = [0.0002336, float("nan"), float("nan"), 0.0004583121, 0.0004583122]
  rows = [{"rate": value, "test_accuracy": 0.9 + i / 100, "run": i} for i, value in enumerate(values)]
  made = interactive_studies.by_value(rows, "rate", "test_accuracy", "accuracy (%)", 100)
  assert made.x_range.factors == ["0.0002336", "-", "0.000458312"]
  drawn = [x for glyph in made.renderers for x in glyph.data_source.data.get("run", ())]
  assert sorted(drawn) == ["0", "1", "2", "3", "4"]


def test_means_are_over_the_epochs_that_all_runs_have():
  rows = [
    {"method": "a", "epoch": epoch, "loss": loss + epoch}
    for loss, last in ((0.0, 3), (2.0, 2))
    for epoch in range(last)
  ]
  made = interactive.panel("epoch", "loss")
  interactive_studies._draw_means(made, rows, {"a": "#000000"}, "loss", 1.0)
  source = next(glyph.data_source.data for glyph in made.renderers if "runs" in glyph.data_source.data)
  assert (list(source["x"]), list(source["y"]), list(source["runs"])) == ([0, 1], [1.0, 2.0], [2, 2])


def test_the_page_of_a_long_search_stays_small():
  generations, genomes = 120, 100
  history = [
    {
      "generation": g, "genome": i, "parent_1": (i * 7 + g) % genomes, "parent_2": (i * 3 + 1) % genomes,
      "valid_loss": 1.0 + 1 / (1 + g) + i / 1000, "density": 1 - g / 200,
    }
    for g in range(generations)
    for i in range(genomes)
  ]  # fmt: skip
  measures = Measures.of_record({})
  drawn = [
    interactive_runs.lineage(history, (generations - 1, 0), measures),
    interactive_runs.frontier(history, [{**history[-1], "file": "a"}], measures),
  ]
  for drawing in drawn:
    for glyph in drawing.panels[0].renderers:
      columns = glyph.data_source.data.values()
      assert max(map(len, columns), default=0) <= interactive_runs.MOST_POINTS
    assert len(interactive.as_json(drawing.panels[0])) > 0


def test_the_first_epochs_do_not_press_the_last_accuracies_together():
  rows = [
    {"ticket": name, "epoch": epoch, "iteration": epoch, "valid_loss": 1 / epoch, "valid_accuracy": value}
    for name, curve in {"a": (0.1, 0.5, 0.9, 0.92), "b": (0.2, 0.85, 0.9, 0.94)}.items()
    for epoch, value in enumerate(curve, 1)
  ]
  (loss, score) = interactive_runs.training(rows, Measures()).panels
  assert (score.y_range.start, score.y_range.end) == pytest.approx((89.6, 94.4))
  assert np.isnan(loss.y_range.start)
  (_, score) = interactive_runs.training([row | {"valid_accuracy": 0.9} for row in rows], Measures()).panels
  assert np.isnan(score.y_range.start)


def test_a_cell_of_a_mask_names_its_row_and_column():
  made = interactive.panel("units", "inputs")
  image = np.arange(6.0).reshape(2, 3)
  interactive_tickets._picture(made, image, 5.0, "left", "@image", (20, 3))
  data = made.renderers[0].data_source.data
  np.testing.assert_array_equal(data["row"][0], [[0, 0, 0], [10, 10, 10]])
  np.testing.assert_array_equal(data["column"][0], [[0, 1, 2], [0, 1, 2]])


@pytest.mark.parametrize(
  "lost", ["multiplications", "whole_multiplications", "search_epochs", "compile_seconds", "unmasked", "best"]
)
def test_a_summary_of_another_version_has_a_page(run, again, lost):
  path = run / "summary.json"
  summary = json.loads(path.read_text())
  del summary[lost]
  path.write_text(json.dumps(summary))
  status, error = again(run)
  assert status == 0, error


def test_half_a_character_is_shown_as_something_else(run, again):
  path = run / "config.json"
  config = json.loads(path.read_text())
  config["flags"]["network"] = "m\ud800lp"
  path.write_text(json.dumps(config))
  status, error = again(run)
  assert status == 0, error
  assert "m?lp" in (run / "report.html").read_text()


def test_numbers_stand_right_and_words_left():
  rows = [["a", "1 ± 2 %", "rank", "-"], ["b", "none", "0.5", "+3"]]
  assert page.Table(["", "x", "y", "z"], rows).right == {1, 3}


def test_a_large_mask_is_shown_by_shares():
  rng = np.random.default_rng(0)
  mask = rng.random((1000, 3)) < 0.1
  shown = interactive_tickets.shares(mask)
  assert shown.shape == (interactive_tickets.MOST_CELLS, 3)
  starts = np.arange(161) * 1000 // 160
  np.testing.assert_allclose(shown[7], mask[starts[7] : starts[8]].mean(0))
  np.testing.assert_array_equal(interactive_tickets.shares(mask[:50]), mask[:50])


def test_equal_panels_are_equal_texts():
  def make():
    made = interactive.panel("x", "y")
    interactive.follow(made, interactive.source_of(x=[1, 2], y=[3, 4]), "#000000", "line")
    return json.dumps(interactive.as_json(made))

  first = make()
  assert first == make()
  assert '"root_id": "m1"' in first
