"""What a release must agree on: one version, the Pythons that are promised, the tools that check it."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import vsehub

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def pinned(name: str) -> str:
    """The version of a package in constraints.txt."""
    return re.search(rf"^{name}==([^;\s]+)", (ROOT / "constraints.txt").read_text(), re.M | re.I)[1]


@pytest.fixture(scope="module")
def resolve():
    """The script that resolves the requirements for each Python."""
    spec = importlib.util.spec_from_file_location("resolve", ROOT / ".github" / "resolve.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_setup_reads_the_version_of_the_package_without_importing_it(tmp_path):
    (tmp_path / "torch.py").write_text("raise AssertionError('imported')")
    command = [sys.executable, "setup.py", "--quiet", "--version"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={"PYTHONPATH": str(tmp_path)})
    assert done.stdout.split()[-1] == vsehub.__version__, done.stderr


def test_the_citation_names_the_version():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == vsehub.__version__


def test_the_changelog_has_the_version_below_what_is_not_released():
    sections = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert sections[:2] == ["Unreleased", vsehub.__version__]


def test_the_tests_run_on_every_python_that_resolves(resolve):
    jobs = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())["jobs"]
    assert tuple(jobs["pinned"]["strategy"]["matrix"]["python"]) == resolve.PYTHONS
    oldest = re.search(r'python_requires=">=([\d.]+)"', (ROOT / "setup.py").read_text())[1]
    assert resolve.PYTHONS[0] == oldest


def test_the_oldest_requirements_are_those_of_setup(resolve):
    floors = dict(word.split(">=") for word in resolve.requirements() if ">=" in word)
    lowest = [line for line in (ROOT / ".github/lowest.txt").read_text().split("\n") if "==" in line]
    assert {"torch", "transformers", "datasets"} == {line.split("==")[0] for line in lowest}
    for name, version in (line.split("==") for line in lowest):
        assert (floors[name] + ".0.0").split(".")[:3] == version.split("."), name


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_call_what_exists(path):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    steps = [step for job in yaml.safe_load(path.read_text())["jobs"].values() for step in job["steps"]]
    commands = "\n".join(step.get("run", "") for step in steps)
    assert set(re.findall(r"\bmake ([a-z-]+)", commands)) <= targets
    for script in re.findall(r"[\w./-]+\.(?:py|txt)\b", commands):
        assert (ROOT / script).exists(), script


def test_a_commit_is_checked_by_the_ruff_that_make_installs():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    revisions = {hook["repo"].rpartition("/")[2]: hook["rev"] for hook in hooks}
    assert revisions["ruff-pre-commit"] == f"v{pinned('ruff')}"
