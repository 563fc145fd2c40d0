"""The pages in a real browser, without a network: no error, every figure drawn, legends that switch lines.

`pip install -e '.[test,browser]'` brings what drives a browser, `apt-get install chromium-headless-shell` (or
chromium, or Chrome) the browser itself; $NETS_JAX_BROWSER names another. Pictures go to $NETS_JAX_PICTURES.
"""

import io
import json
import os
import pathlib
import shutil

import pytest
from PIL import Image

import nets_jax
from nets_jax.cli import compare, controls, densities, report, search, sweep
from nets_jax.engine.tables import read_csv, write_csv

pytestmark = pytest.mark.browser

ROOT = pathlib.Path(nets_jax.__file__).parents[1]
BROWSERS = (
  "chromium-headless-shell",
  "chromium",
  "chromium-browser",
  "google-chrome",
  "google-chrome-stable",
)
DIGITS = ("--dataset=digits", "--hidden_sizes=20", "--train_epochs=3", "--devices=1")
NETS = ("--population_size=4", "--generations=3", "--fitness_epochs=0.25", "--halvings=0")
BOOM = "<img src=x onerror=boom()>"


def program():
  """The path of a browser; None is playwright's own."""
  found = os.environ.get("NETS_JAX_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)
  return found and shutil.which(found)


@pytest.fixture(scope="module")
def browser():
  """A headless browser; a machine without one is a failure, not a pass."""
  sync = pytest.importorskip("playwright.sync_api", reason="no playwright; pip install -e '.[test,browser]'")
  with sync.sync_playwright() as playwright:
    try:
      started = playwright.chromium.launch(executable_path=program(), args=["--no-sandbox"])
    except sync.Error as error:
      pytest.fail(
        f"no browser could be started ({str(error).splitlines()[0]}); as root apt-get install "
        "chromium-headless-shell, or set NETS_JAX_BROWSER to one"
      )
    yield started
    started.close()


@pytest.fixture
def opened(browser):
  """Opens a page as a double click would, offline; it must draw all that it has, and tell of no error."""
  contexts = []

  def show(where, **how):
    context = browser.new_context(viewport={"width": 1250, "height": 900}, offline=True, **how)
    contexts.append(context)
    tab, told, asked = context.new_page(), [], []
    tab.on(
      "console", lambda message: told.append(message.text) if message.type in ("error", "warning") else None
    )
    tab.on("pageerror", lambda error: told.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    address = (where / "report.html").as_uri()
    tab.goto(address)
    tab.wait_for_function("document.documentElement.dataset.drawn !== undefined")
    tab.wait_for_function("Bokeh.documents.every(document => document.is_idle)")
    tab.wait_for_timeout(300)  # for the last frame
    assert told == []
    assert [url for url in asked if not url.startswith("data:")] == [address]  # nothing else is loaded
    check_drawn(tab)
    if folder := os.environ.get("NETS_JAX_PICTURES"):
      kind = "-".join([where.name, *map(str, how.values())])
      tab.screenshot(path=pathlib.Path(folder) / f"{kind}.png", full_page=True)
    return tab, told

  yield show
  for context in contexts:
    context.close()


def check_drawn(tab):
  """Every panel has a canvas of some size, and more than one colour on it, within the page's width."""
  panels = tab.locator(".panel")
  assert panels.count() == int(tab.evaluate("document.documentElement.dataset.drawn")) > 0
  for i in range(panels.count()):
    box = panels.nth(i).bounding_box()
    assert box["width"] > 150, box
    assert box["height"] > 150, box
    assert colours(tab, i) > 3
  assert tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def colours(tab, i):
  """How many colours a panel's picture has."""
  with Image.open(io.BytesIO(tab.locator(f"#panel-{i}").screenshot())) as image:
    return len(image.convert("RGB").getcolors(1 << 24))


def visible(tab, i, name):
  """Whether what is drawn under a name in a panel is switched on."""
  return tab.evaluate(
    """([i, name]) => Bokeh.documents[i].roots()[0].renderers
      .filter(renderer => renderer.name === name).map(renderer => renderer.visible)""",
    [i, name],
  )


def first_point(tab):
  """Where the first point of the first panel is."""
  x, y = tab.evaluate(
    """() => {
      const root = Bokeh.documents[0].roots()[0];
      const [view] = Bokeh.index.get_by_id(root.id).views;
      const dots = root.renderers.find(renderer => renderer.glyph.type === "Scatter");
      const {x, y} = Object.fromEntries(
        ["x", "y"].map(name => [name, dots.data_source.get_column(name)[0]]));
      return [view.frame.x_scale.compute(x), view.frame.y_scale.compute(y)];
    }"""
  )
  return {"x": x, "y": y}


def run(run_binary, job, *arguments):
  status, _, error = run_binary(job, *DIGITS, *arguments)
  assert status == 0, error


def test_a_run(run_binary, opened, tmp_path):
  run(run_binary, search, *NETS, "--workdir=run")
  tab, told = opened(tmp_path / "run")
  assert tab.title().startswith("A ticket found by guided for digits")
  assert "Definition 3" in tab.locator(".lead").inner_text()
  # The legend switches a network off in all panels, and on again.
  first = tab.locator(".card").filter(has=tab.locator('button[data-name="random"]'))
  panel = int(first.locator(".panel").first.get_attribute("id").removeprefix("panel-"))
  before = tab.locator(f"#panel-{panel}").screenshot()
  button = first.locator('button[data-name="random"]')
  button.click()
  tab.wait_for_timeout(300)
  assert button.get_attribute("aria-pressed") == "false"
  assert set(visible(tab, panel, "random")) == set(visible(tab, panel + 1, "random")) == {False}
  assert set(visible(tab, panel, "dense")) == {True}
  assert tab.locator(f"#panel-{panel}").screenshot() != before
  button.press("Enter")
  tab.wait_for_timeout(300)
  assert set(visible(tab, panel, "random")) == {True}
  # What is folded opens, and the contents lead to their parts.
  tab.locator("summary", has_text="All settings").click()
  assert tab.locator("td", has_text="population_size").last.is_visible()
  tab.locator("nav a", has_text="Masks").click()
  assert told == []


def test_a_run_in_the_dark_on_a_telephone_and_on_paper(run_binary, opened, tmp_path):
  run(run_binary, search, "--search=snip", "--workdir=run")
  tab, _ = opened(tmp_path / "run", color_scheme="dark")
  dark = tab.evaluate("getComputedStyle(document.body).backgroundColor")
  assert dark != "rgb(255, 255, 255)"
  tab.set_viewport_size({"width": 400, "height": 800})
  tab.wait_for_timeout(500)
  check_drawn(tab)
  tab.emulate_media(media="print")
  assert not tab.locator("nav").is_visible()


def test_a_comparison_with_hostile_names(run_binary, opened, tmp_path):
  run(run_binary, compare, *NETS, "--trials=2", "--methods=guided,random,dense", "--workdir=out")
  for name in ("table1.csv", "figure1.csv", "figure2.csv", "figure3.csv"):
    rows = [
      {**row, "method": BOOM if row["method"] == "guided" else row["method"]}
      for row in read_csv(tmp_path / "out" / name)
    ]
    write_csv(tmp_path / "out" / name, rows)
  assert run_binary(report, "out")[0] == 0
  tab, told = opened(tmp_path / "out")
  tab.evaluate("() => { window.boom = () => console.error('boom'); }")
  # Under the pointer, too, a name is a text.
  tab.locator("#panel-0").hover(position=first_point(tab))
  tab.locator(".bk-Tooltip").get_by_text(BOOM).first.wait_for(state="visible")
  tab.locator(f"button[data-name={json.dumps(BOOM)}]").first.click()
  tab.wait_for_timeout(300)
  assert told == []
  assert tab.locator("img[src=x]").count() == 0


def test_a_sweep(run_binary, opened, tmp_path):
  grid = "--grid=scale_deviation=0.5,2;selection=truncation,rank"
  run(run_binary, sweep, *NETS, "--seeds=0:2", grid, "--workdir=out")
  tab, _ = opened(tmp_path / "out")
  assert "Best setting by valid_loss" in tab.locator(".lead").inner_text()
  assert tab.locator("tr.marked").count() > 0


def test_densities_and_controls(run_binary, opened, tmp_path):
  run(
    run_binary,
    densities,
    *NETS,
    "--methods=guided,random,dense",
    "--densities=0.5,0.2",
    "--trials=2",
    "--workdir=out",
  )
  tab, _ = opened(tmp_path / "out")
  assert "Differences" in tab.locator("nav").inner_text()
  run(
    run_binary,
    controls,
    "--tickets=out/runs/guided-*/ticket.safetensors",
    "--controls=ticket,shuffle_mask,dense",
    "--workdir=judged",
  )
  opened(tmp_path / "judged")


@pytest.mark.parametrize("source", ["recipe", "mnist", "xor", "sweeps/mnist_elites"])
def test_results_of_this_project(run_binary, opened, tmp_path, source):
  where = tmp_path / source.replace("/", "_")
  shutil.copytree(ROOT / "experiments" / "results" / source, where)
  assert run_binary(report, str(where))[0] == 0
  opened(where)
