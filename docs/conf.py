"""How Sphinx builds the site: `sphinx-build -W --keep-going -b html docs docs/_build/html`."""

import ast
import pathlib
import re
import shutil

import nets_jax

DOCS = pathlib.Path(__file__).parent
ROOT = DOCS.parent
REPOSITORY = "https://github.com/nets-jax/nets_jax"

project = "nets_jax"
author = "the nets_jax authors"
version = release = nets_jax.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

# Pages are read on GitHub too, so they are Markdown that needs little of Sphinx.
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # the notebooks are stored with their outputs

html_theme = "sphinx_book_theme"
html_title = "nets_jax"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
  "repository_url": REPOSITORY,
  "repository_branch": "main",
  "path_to_docs": "docs",
  "use_repository_button": True,
  "use_source_button": True,
  "show_toc_level": 2,
  "navbar_persistent": [],  # a field to search in is in the side bar
}

highlight_language = "text"  # shell lines and outputs are indented blocks; Python is fenced

default_role = "code"  # docstrings have names between single backticks
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_default_options = {"exclude-members": "replace"}  # each dataclass has it
maximum_signature_line_length = 90
napoleon_use_ivar = True
napoleon_attr_annotations = False  # shapes are words in a string, which are no markup


def copy_notebooks() -> None:
  """Copies the notebooks to where Sphinx looks for pages, a folder that git ignores."""
  folder = DOCS / "notebooks"
  folder.mkdir(exist_ok=True)
  for path in sorted((ROOT / "experiments" / "notebooks").glob("*.ipynb")):
    copy = folder / path.name
    if not copy.exists() or copy.read_bytes() != path.read_bytes():
      shutil.copyfile(path, copy)


def link_out(app, docname: str, source: list[str]) -> None:
  """Turns links that lead out of docs/ into the repository's, and those to notebooks into the site's.

  On GitHub the same links are relative ones that work. Pictures are copied by Sphinx itself.
  """
  del app

  def target(match: re.Match) -> str:
    path, anchor = match.group(1), match.group(2) or ""
    notebook = re.fullmatch(r"experiments/(notebooks/\w+\.ipynb)", path)
    if notebook:
      return f"]({notebook.group(1)}{anchor})"
    kind = "tree" if (ROOT / path).is_dir() else "blob"
    return f"]({REPOSITORY}/{kind}/main/{path}{anchor})"

  if not docname.startswith("notebooks/"):
    source[0] = re.sub(r"(?<!\.png)\]\(\.\./(?!\S+\.png\))([^)\s#]+)(#[^)\s]+)?\)", target, source[0])


def plain_text(app, what, name, obj, options, lines: list[str]) -> None:
  """Docstrings are plain text: bars, stars and underscores are themselves, but for names between backticks.

  What is indented after a colon and an empty line is code. One entry may be of several arguments.
  """
  del app, name, obj, options
  code = None  # how far the line before a block of code is indented
  for i, line in enumerate(lines):
    indent = len(line) - len(line.lstrip())
    if code is not None and (not line.strip() or indent > code):
      continue
    code = None
    parts = re.split(r"(`[^`]*`)", line)
    parts[::2] = [re.sub(r"[|*]|(?<=\w)_(?!\w)", r"\\\g<0>", part) for part in parts[::2]]
    lines[i] = "".join(parts)
    if indent and (several := re.match(r" +\w+(?:, \w+)+(?=: )", lines[i])):
      names = several[0].replace(", ", ",\u200b")  # after a space the first would be taken for a type
      lines[i] = names + lines[i][several.end() :]
    after = next((other for other in lines[i + 1 :] if other.strip()), "")
    if line.endswith(":") and lines[i + 1 : i + 2] == [""] and len(after) - len(after.lstrip()) > indent:
      lines[i], code = lines[i] + ":", indent
  if what == "property":
    _HELD.append(lines[:])
    lines[:] = []


_HELD: list[list[str]] = []


def held_back(app, what, name, obj, options, lines: list[str]) -> None:
  """The text of a property, which napoleon would take for a type where it has a colon."""
  del app, name, obj, options
  if what == "property":
    lines[:] = _HELD.pop()


_NUM = r"~?(jaxtyping\.)?Num"
_NUMBER = rf"int \| float \| ~?(numpy\.)?number \| {_NUM}\[ndarray, ''\] \| {_NUM}\[Array, ''\]"
# Types and defaults as they are shown: how they are in the source.
SHORTER = {
  r"(jax\.)?jaxlib\._jax\.Array": "Array",
  _NUMBER: "Number",
  r"Number \| ~?(collections\.abc\.)?Callable\[\[Number\], Number\]": "Rate",
  r"~?(jaxtyping\.)?PyTree\[~?(jax\.)?Array \| ~?numpy\.ndarray \| ~?jax\.ShapeDtypeStruct\]": "Params",
  r"<function [\w.]*<lambda>>|<factory>": "...",
  r"<[\w.]*\.(\w+) object>": r"\1()",
  r"<function (\w+)>": r"\1",
  r"<class '(\w+)'>": r"\1",
}


def short_types(app, what, name, obj, options, signature: str | None, returns: str | None):
  """Types by the names that they have in the source."""
  del app, what, name, obj, options

  def short(text: str | None) -> str | None:
    for pattern, name in SHORTER.items() if text else ():
      text = re.sub(pattern, name, text)
    try:
      ast.parse(f"def f{(text or '()').replace('~', '')}: pass")
      return text
    except SyntaxError:  # a default that is no literal; Sphinx shows such a line as it stands
      return re.sub(r"~([\w.]*\.)?(\w+)", r"\2", text)

  return short(signature), returns and returns.replace("jaxlib._jax.Array", "Array")


def skip_fields(app, what, name, obj, skip, options) -> bool | None:
  """The fields of a named tuple have no text of their own; its class tells of them."""
  del app, what, name, skip, options
  return True if str(getattr(obj, "__doc__", "")).startswith("Alias for field number") else None


def setup(app) -> None:
  """What Sphinx calls first."""
  copy_notebooks()
  app.connect("source-read", link_out)
  app.connect("autodoc-process-docstring", plain_text, priority=400)  # napoleon comes after, by 500
  app.connect("autodoc-process-docstring", held_back, priority=600)
  app.connect("autodoc-process-signature", short_types)
  app.connect("autodoc-skip-member", skip_fields)
