"""The site of docs/: it builds without a warning, its sentences are short, and what it quotes is there."""

import ast
import functools
import importlib.util
import pathlib
import re
import subprocess
import sys

import pytest

import nets_jax

ROOT = pathlib.Path(nets_jax.__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
RESULTS = ROOT / "experiments" / "results"
DOCUMENTS = [*PAGES, RESULTS / "README.md", RESULTS / "notes.md"]
DOCUMENTS += [ROOT / f"{name}.md" for name in ("CHANGELOG", "CONTRIBUTING", "BUILD_NOTES")]
LONGEST_SENTENCE, LONGEST_LINE = 30, 120
STRANGER = ROOT / "tests" / "plugins" / "stranger"


def texts_of(page):
  """Its paragraphs, list items, headings and cells of tables, each for itself, without code and equations."""
  text = re.sub(r"```.*?```|\$\$.*?\$\$", "\n\n", page, flags=re.DOTALL)
  text = re.sub(r"!?\[([^]]*)\]\([^)]*\)", r"\1", text)  # of a link what is read
  lines = []
  for line in text.splitlines():
    if line.startswith("|"):
      cells = re.sub(r"`[^`]*`", "code", line)  # which may hold a bar
      lines.append("\n\n".join(["", *cells.split("|"), ""]))
    elif line.startswith("#"):
      lines.append(f"\n{line}\n")
    else:
      lines.append("" if line.startswith("    ") else re.sub(r"^ *(- |\d+\. )", "\n", line))
  return [" ".join(part.split()) for part in re.split(r"\n\s*\n", "\n".join(lines)) if part.strip()]


def sentences_of(page):
  """What ends with its mark before a space, or with a paragraph, an item or a cell."""
  return [part for text in texts_of(page) for part in re.split(r"(?<=[.!?])[)\"']*\s+", text)]


def words_of(text):
  """What stands between spaces and has a letter or a digit."""
  return [word for word in text.split() if re.search(r"\w", word)]


def python_of(page):
  return re.findall(r"```python\n(.*?)```", page, re.DOTALL)


def test_a_sentence_is_told_from_code_cells_and_items():
  page = (
    "# Head\n\n    code. here\n\nOne. Two\nthree!\n\n- item\n- [a link](x.md)\n\n| a | b. c |\n```\nno\n```\n"
  )
  assert sentences_of(page) == ["# Head", "One.", "Two three!", "item", "a link", "a", "b.", "c"]


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_sentence_is_long(page):
  sentences = sentences_of(page.read_text())
  assert [part for part in sentences if len(words_of(part)) > LONGEST_SENTENCE] == []


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_line_is_long(page):
  """Rows of tables, pictures and addresses have no other line to go on, nor have the results' commands."""
  free = ("|", "![") if page in PAGES else ("|", "![", "    ")
  lines = [line for line in page.read_text().splitlines() if not line.startswith(free) and " " in line]
  assert [line for line in lines if len(line) > LONGEST_LINE] == []


def test_every_page_is_in_the_contents():
  named = re.findall(r"^(?:[\w' ]+ <)?([a-z_/]+)>?$", (DOCS / "index.md").read_text(), re.MULTILINE)
  pages = {path.stem for path in DOCS.glob("*.md")} - {"index"}
  pages |= {f"notebooks/{path.stem}" for path in (ROOT / "experiments" / "notebooks").glob("*.ipynb")}
  assert sorted(named) == sorted(pages)


def test_every_public_name_is_on_the_page_of_the_api():
  page = (DOCS / "api.md").read_text()
  listed = set(re.findall(r"^\.\. auto\w+:: (\w+)$|`nets_jax\.(\w+)`", page, re.MULTILINE))
  assert {first or second for first, second in listed} == set(nets_jax.__all__)


def slug(heading):
  """The anchor that GitHub and Sphinx give a heading."""
  return re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", heading).strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_anchors_are_headings(page):
  links = re.findall(r"\]\(([^)\s]*)#([^)\s]+)\)", page.read_text())
  for path, anchor in links:
    if not re.match(r"\w+:", path) and (not path or path.endswith(".md")):
      text = (page.parent / path).read_text() if path else page.read_text()
      assert anchor in map(slug, re.findall(r"^#+ (.*)$", text, re.MULTILINE)), (path, anchor)


@functools.cache
def texts_of_the_source():
  """Every text in the source that is not a docstring's, an f-string with `...` where it has a value."""
  found = []
  for path in (ROOT / "nets_jax").rglob("*.py"):
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.JoinedStr):
        parts = [part.value if isinstance(part, ast.Constant) else "..." for part in node.values]
        found.append("".join(parts))
      elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        found.append(node.value)
  return found


def said_in_the_source(message):
  """Whether a text of the source is the message; `...` in it stands for anything."""
  parts = [re.escape(part) for part in message.split("...")]
  return any(re.fullmatch(".*".join(parts), text, re.DOTALL) for text in texts_of_the_source())


def test_every_message_of_troubleshooting_is_in_the_source():
  pages = "".join(path.read_text() for path in sorted(DOCS.glob("troubleshooting*.md")))
  quoted = re.findall(r"```text\n(.*?)```", pages, re.DOTALL)
  messages = [" ".join(text.split()) for text in quoted]
  assert len(messages) > 40
  assert [message for message in messages if not said_in_the_source(message)] == []
  assert not said_in_the_source("there is no such line; ... at all")


def shapes_of(code):
  """By name the functions and classes of some code, as trees without docstrings."""
  found = {}
  for node in ast.parse(code).body:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
      for inner in ast.walk(node):
        body = getattr(inner, "body", None)
        if isinstance(body, list) and isinstance(inner, ast.FunctionDef | ast.ClassDef):
          is_text = isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)
          inner.body = body[1:] if is_text else body
      found[node.name] = ast.dump(node)
  return found


def test_the_examples_of_the_pages_are_the_strangers():
  """What a page shows, the tests use from the command line."""
  stranger = {}
  for path in STRANGER.glob("*.py"):
    stranger |= shapes_of(path.read_text())
  shown = {}
  for page in DOCS.glob("own_*.md"):
    shown |= shapes_of("\n".join(python_of(page.read_text())))
  own = {"cheap"}  # an objective, which the command line does not take
  assert len(shown) >= 12
  assert {name for name in shown if shown[name] != stranger.get(name)} == own


@pytest.mark.docs
def test_the_site_builds_without_a_warning(tmp_path):
  if importlib.util.find_spec("sphinx") is None:
    pytest.skip("the site is built by sphinx: pip install -e '.[docs]'")
  command = [
    sys.executable,
    "-m",
    "sphinx",
    "-W",
    "--keep-going",
    "-q",
    "-b",
    "html",
    "-d",
    tmp_path / "trees",
  ]
  done = subprocess.run([*command, DOCS, tmp_path / "html"], capture_output=True, text=True)
  assert done.returncode == 0, done.stdout + done.stderr
  algorithm = (tmp_path / "html" / "algorithm.html").read_text()
  assert "density_penalty" in algorithm
  assert "github.com/nets-jax/nets_jax/blob/main/nets_jax/evolution/operators.py" in algorithm
  assert (tmp_path / "html" / "notebooks" / "quickstart.html").exists()
