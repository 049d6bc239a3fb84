"""What a .kitignore leaves out, found by another process that may be ended."""

import pytest

from kitd.hub.error import InvalidHubTreeError
from kitd.importing.ignored import find_ignored
from kitd.modelkit.errors import KitignoreError

PATHS = (".kitignore", "a.tmp", "data/a.tmp", "data/keep", "ü.md")


async def test_patterns_choose_as_in_a_pack():
    assert await find_ignored(b"*.tmp\ndata\n!data/keep\n\xc3\xbc*\n", PATHS) == {
        ".kitignore",
        "a.tmp",
        "data/a.tmp",
        "ü.md",
    }
    assert await find_ignored(b"", [f"{n}/{'x' * 200}" for n in range(20_000)]) == frozenset()


async def test_what_is_no_pattern_is_told_by_its_line():
    with pytest.raises(KitignoreError, match=":2: "):
        await find_ignored(b"a\n[z-a]\n", PATHS)


async def test_patterns_that_take_for_ever_are_ended():
    # One of them takes a millisecond: they are looked at one after the other.
    hostile = b"\n".join(b"**/[a]*[a]*[a]%s/**/[b]" % (b"?" * (n % 50)) for n in range(250))
    with pytest.raises(InvalidHubTreeError, match=r"more than 0\.5 seconds") as caught:
        await find_ignored(
            hostile, [f"{n}/" + "/".join(["a" * 100] * 9) for n in range(100)], patience_s=0.5
        )
    assert "--exclude .kitignore" in (caught.value.hint or "")
