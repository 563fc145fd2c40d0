"""What a notebook shows of a long job: one bar, changed in place."""

import gc
import sys
import types

import pytest

from nets_jax.analysis import progress
from nets_jax.analysis.progress import Progress, RunsDone

ROWS = [{"valid_loss": 0.25, "density": 0.1}]


class Place:
  """An output of a cell that can be changed."""

  def __init__(self):
    self.shown = []

  def update(self, data, *, raw):
    assert raw
    self.shown.append(data["text/plain"])


@pytest.fixture
def places(monkeypatch):
  """The outputs that a cell has got."""
  made = []

  def display(data, *, raw, display_id):
    assert display_id
    made.append(Place())
    made[-1].update(data, raw=raw)
    return made[-1]

  monkeypatch.setattr(progress, "in_notebook", lambda: True)
  monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(display=display))
  return made


def test_a_search_is_one_bar_that_says_what_its_best_has(places, capsys):
  with Progress("search", 3) as bar:
    for _ in range(3):
      bar(ROWS)
  (place,) = places
  assert place.shown[0].startswith("search:   0%")
  assert place.shown[-1].startswith("search: 100%")
  assert "valid_loss=0.250, density=0.100]" in place.shown[-1]
  assert capsys.readouterr() == ("", "")


def test_a_bar_that_a_cell_has_left_open_does_not_take_the_next_cells(places, monkeypatch):
  shell = types.SimpleNamespace(execution_count=1)
  monkeypatch.setattr(progress, "_shell", lambda: shell)
  bar = Progress("first", 3)
  bar(ROWS)
  shell.execution_count = 2
  with Progress("second", 1) as other:
    other(ROWS)
  first, second = places
  assert all("second" not in text for text in first.shown)
  assert second.shown[-1].startswith("second: 100%")


def test_a_study_keeps_to_one_output(places, capsys):
  """The bar of a run stands below that of the study, and goes; the plan is said where there is no bar."""
  with RunsDone(4, 2, "the plan") as runs:
    for done in (3, 4):
      with Progress("search", 1) as bar:
        bar(ROWS)
      runs.tell(done)
  (place,) = places
  assert any("runs:" in text and "\nsearch:" in text for text in place.shown)
  assert place.shown[-1].startswith("runs: 100%")
  assert "\n" not in place.shown[-1]
  assert capsys.readouterr() == ("", "")


def test_a_bar_that_is_forgotten_ends_no_other(places):
  """Tqdm closes a bar when it is collected, and takes bars of one place for equal."""
  first = Progress("first", 1)
  first.__exit__(None, None, None)
  with Progress("second", 1) as second:
    del first
    gc.collect()
    second(ROWS)
  assert places[1].shown[-1].startswith("second: 100%")


def test_an_error_within_leaves_nothing_open(places):
  with pytest.raises(KeyError), RunsDone(2, 0, ""), Progress("search", 1):
    raise KeyError("of a run")
  with Progress("next", 1) as bar:
    bar(ROWS)
  assert len(places) == 2
  assert places[1].shown[-1].startswith("next: 100%")


def test_elsewhere_the_plan_is_said(capsys):
  assert not progress.in_notebook()
  with RunsDone(4, 2, "the plan") as runs:
    runs.tell(3)
  plan, pace = capsys.readouterr().err.splitlines()
  assert plan == "the plan"
  assert pace.startswith("3 of 4 runs are done")
