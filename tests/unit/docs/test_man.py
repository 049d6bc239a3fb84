"""The manual pages are complete, and roff that man and mandoc read without a complaint."""

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from kitd.ctl.command import COMMANDS

DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture(scope="module")
def man(tmp_path_factory):
    """The program that writes the pages, and where it has written them."""
    spec = importlib.util.spec_from_file_location("man", DOCS / "man.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_command_and_option_has_its_place(man):
    pages = man.pages()
    for command in COMMANDS:
        page = pages[f"kitctl-{command.words[0]}.1"].replace("\\-", "-")
        assert f"kitctl {command.name}" in page
        for argument in command.arguments:
            assert all(name in page for name in argument.names if name.startswith("-"))
        assert f"kitctl {command.name}" in pages["kitctl.1"].replace("\\-", "-")


def test_every_key_of_the_configuration_has_its_place(man):
    keys = re.findall(r"^\| `([^`]+)` \|", (DOCS / "configuration.md").read_text(), re.MULTILINE)
    page = man.pages()["kitd.yaml.5"].replace("\\-", "-")
    assert len(keys) > 80
    assert all(f".TP\n\\fB{key}\\fR\n" in page for key in keys)


def test_pages_name_pages_that_there_are(man):
    pages = man.pages()
    for page in pages.values():
        named = re.findall(r"\\fB([a-z.\\-]+)\\fR\((\d)\)", page)
        assert named
        assert {f"{name.replace(chr(92), '')}.{section}" for name, section in named} <= {*pages}


@pytest.mark.parametrize(
    "command", [("mandoc", "-T", "lint", "-W", "warning"), ("groff", "-ww", "-man", "-Tutf8", "-z")]
)
def test_formatters_have_no_complaint(man, tmp_path, command):
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    pages = [tmp_path / page for page in man.write(tmp_path)]
    for page in pages:
        done = subprocess.run([*command, page], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_lines_fit_80_columns(man, tmp_path):
    if shutil.which("mandoc") is None:
        pytest.skip("mandoc is not installed")
    for page in man.write(tmp_path):
        shown = subprocess.run(
            ["mandoc", "-T", "utf8", "-O", "width=78", tmp_path / page],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        lines = [re.sub(".\x08", "", line) for line in shown.splitlines()]
        too_long = [line for line in lines if len(line) > 80 and "/" not in line]
        # The example stands as it is, and is as wide as its file.
        assert page.name == "kitd.yaml.5" or not too_long
