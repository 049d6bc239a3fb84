"""The page for those who know kit names commands and options that there are."""

import re
from pathlib import Path

from kitd.ctl.command import COMMANDS

PAGE = Path(__file__).parents[3] / "docs" / "kit-compatibility.md"


def rows():
    """Return the cells of each row."""
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("|") and len(cells) == 3 and not line.startswith("|---"):
            yield cells


def test_what_the_page_names_is_there():
    flags = {
        command.name: {name for argument in command.arguments for name in argument.names}
        for command in COMMANDS
    }
    named = 0
    for _, ours, _ in rows():
        found = re.findall(r"`kitctl ([a-z]+(?: [a-z]+)?)((?: --[a-z-]+)?)`", ours)
        for name, flag in found:
            assert name in flags, name
            assert not flag.strip() or flag.strip() in flags[name] | {"--quiet"}, (name, flag)
            named += 1
    assert named > 40


def test_what_is_left_out_says_why():
    for theirs, ours, how in rows():
        assert ours or not theirs or "left out" in how or how == "", theirs
