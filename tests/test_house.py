"""What a release stands on: the citation, the versions of the results, the workflows, the commands."""

import pathlib
import re
import subprocess
import sys
import tomllib

import pytest
import yaml

import nets_jax.__main__ as commands

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def plain(name):
  """A package's name as indexes compare it."""
  return re.sub(r"[-_.]+", "-", name).lower()


def named():
  """The packages that pyproject.toml names."""
  groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
  return {plain(re.match(r"[\w.-]+", line)[0]) for group in groups for line in group}


def test_the_citation_is_of_this_version_and_of_the_paper():
  citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
  assert citation["version"] == PROJECT["version"]
  assert citation["license"] == PROJECT["license"]
  paper = citation["preferred-citation"]
  assert "Neuroevolutionary Ticket Search" in paper["title"]
  assert paper["authors"]
  assert paper["year"] == 2023


def test_the_versions_of_the_results_are_of_packages_that_are_named():
  first, *lines = (ROOT / "constraints.txt").read_text().splitlines()
  assert first.startswith("#")
  packages = {plain(re.fullmatch(r"([\w.-]+)==[\w.+]+", line)[1]) for line in lines}
  assert packages <= named() | {"jaxlib"}
  assert {plain(re.match(r"[\w.-]+", line)[0]) for line in PROJECT["dependencies"]} <= packages


def test_the_oldest_versions_are_the_bounds():
  groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
  bounds = dict(
    re.findall(r"^([\w.-]+)>=([\d.]+)", "\n".join(line for group in groups for line in group), re.M)
  )
  first, *lines = (ROOT / ".ci" / "oldest.txt").read_text().splitlines()
  assert first.startswith("#")
  oldest = dict(line.split("==") for line in lines)
  assert oldest.pop("jaxlib") == bounds["jax"]
  assert oldest == bounds


def test_the_workflows_run_what_a_newcomer_runs():
  workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
  steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
  assert ".ci/run" in [step.get("run") for step in steps]
  ends = workflow["jobs"]["ends"]["strategy"]["matrix"]
  assert {system.partition("-")[0] for system in ends["os"]} == {"ubuntu", "macos"}
  (oldest,) = (end for end in ends["include"] if end["end"] == "oldest")
  assert PROJECT["requires-python"] == f">={oldest['python']}"
  build = yaml.safe_load((ROOT / ".github" / "workflows" / "build.yml").read_text())
  assert build[True]["push"]["tags"]  # YAML reads `on` as true
  yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())


def test_the_forms_of_issues_can_be_filled_in():
  forms = [path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config"]
  assert len(forms) == 3
  for path in forms:
    form = yaml.safe_load(path.read_text())
    assert form["name"]
    assert form["description"]
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert len({field["id"] for field in fields}) == len(fields) > 1
    assert all(field["attributes"]["label"] for field in fields)


def test_the_checks_install_the_wheel_alone():
  assert ".ci/wheel" in (ROOT / ".ci" / "run").read_text().splitlines()
  assert (ROOT / ".ci" / "wheel").stat().st_mode & 0o111


def test_every_command_is_a_module_with_a_main():
  for name in commands.COMMANDS:
    text = (ROOT / "nets_jax" / "cli" / f"{name}.py").read_text()
    assert "\ndef main(" in text
    assert "\ndef parse(" in text


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_without_a_command_they_are_listed(arguments, capsys):
  commands.main(arguments)
  listed = capsys.readouterr().out
  assert all(name in listed for name in commands.COMMANDS)


def test_an_unknown_command_is_one_line_and_status_2(capsys):
  with pytest.raises(SystemExit) as ended:
    commands.main(["serch"])
  assert ended.value.code == 2
  assert capsys.readouterr().err == "error: there is no command 'serch'; did you mean search?\n"


def test_a_command_has_its_own_help():
  arguments = [sys.executable, "-m", "nets_jax", "search", "--help"]
  done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert "--seed" in done.stdout
