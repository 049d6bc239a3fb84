"""What is released says one version and holds what it should."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kitd import __version__
from release import wheel_faults

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Build a wheel of these sources; returns its path."""

    def build(time_s):
        to = tmp_path_factory.mktemp("dist")
        subprocess.run(
            [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", to, ROOT],
            env={**os.environ, "SOURCE_DATE_EPOCH": str(time_s)},
            capture_output=True,
            check=True,
        )
        (wheel,) = to.glob("*.whl")
        return wheel

    return build


def test_a_wheel_can_be_let_out_and_is_the_same_each_time(build):
    """All of the package, the examples and the units, no tests; valid metadata; the same bytes."""
    wheel = build(1_700_000_000)

    assert wheel_faults(wheel) == []
    assert wheel.read_bytes() == build(1_700_000_000).read_bytes()


def test_the_version_stands_in_one_place():
    """A release changes kitd/__init__.py, and everything else follows."""
    known = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split("\0")
    if known == [""]:
        pytest.skip("what is a source is told by git")
    # A number such as this is a version of kitd only where it is said to be one.
    said = re.compile(rf"kitd[-_ :/v@]*{re.escape(__version__)}|^version ?= ", re.MULTILINE)
    places = {
        path
        for path in known
        if path.endswith((".py", ".toml", ".yaml", ".service"))
        or path in {"Makefile", "Dockerfile"}
        if not path.startswith("tests/")
        if said.search((ROOT / path).read_text(encoding="utf-8"))
    }

    assert places == set()
    assert (ROOT / "kitd/__init__.py").read_text(encoding="utf-8").count(__version__) == 1


def test_the_supported_versions_of_python_are_said_alike():
    """The classifiers are the claim; README and the least version follow."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    claimed = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', project)
    (least,) = re.findall(r'^requires-python = ">=(.*)"$', project, flags=re.MULTILINE)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")

    assert claimed[0] == least
    assert f"tested with Python {', '.join(claimed[:-1])} and {claimed[-1]}" in readme
