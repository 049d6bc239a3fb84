"""What is particular to watchfiles: threads, names, and notifiers that are opened again."""

import asyncio
import os
import threading
from pathlib import Path

import pytest

from kitd.watch.hints import HintError
from kitd.watch.watchfiles_hints import WatchfilesHints, hint_error, is_hint


class Heard:
    """What one project was told."""

    def __init__(self) -> None:
        self.hints = 0
        self.gaps = 0
        self.health: list[HintError | None] = []

    def hint(self) -> None:
        self.hints += 1

    def gap(self) -> None:
        self.gaps += 1

    def subscribe(self, root: Path):
        return WatchfilesHints().subscribe(
            "demo", root, on_hint=self.hint, on_gap=self.gap, on_health=self.health.append
        )


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "hints:demo"]


async def test_a_root_has_a_thread_while_it_is_watched(root: Path, until):
    heard = Heard()
    async with heard.subscribe(root):
        assert threads() == ["hints:demo"]
        await until(lambda: heard.health == [None])
    assert threads() == []


async def test_the_first_gap_comes_when_changes_are_hinted(root: Path, until):
    heard = Heard()
    async with heard.subscribe(root):
        await until(lambda: heard.gaps)
        assert heard.health == [None]
        (root / "file").touch()
        await until(lambda: heard.hints)
        assert heard.gaps == 1


async def test_pruned_directories_give_no_hints(root: Path, until):
    (root / ".git").mkdir()
    heard = Heard()
    async with heard.subscribe(root):
        await until(lambda: heard.gaps)
        (root / ".git" / "index").touch()
        await asyncio.sleep(0.3)  # for something that must not come
        assert heard.hints == 0
        (root / ".gitignore").touch()
        await until(lambda: heard.hints == 1)


async def test_a_name_that_is_not_utf8_is_reported_and_survived(root: Path, until):
    heard = Heard()
    async with heard.subscribe(root):
        await until(lambda: heard.gaps == 1)
        Path(os.fsdecode(os.fsencode(root) + b"/\xff")).touch()
        await until(lambda: heard.gaps == 3)
        works, error, mended = heard.health
        assert works is mended is None
        assert error is not None
        assert "not UTF-8" in (error.hint or "")


async def test_a_missing_root_is_one_gap_until_it_is_there(root: Path, until):
    root.rmdir()
    heard = Heard()
    async with heard.subscribe(root):
        await until(lambda: len(heard.health) == 2)
        assert heard.gaps == 1
        root.mkdir()
        await until(lambda: heard.health[-1] is None)
        assert heard.gaps == 2


async def test_expecting_the_directory_that_is_watched_changes_nothing(root: Path, until):
    heard = Heard()
    async with heard.subscribe(root) as subscription:
        await until(lambda: heard.gaps)
        status = root.stat()
        subscription.expect((status.st_dev, status.st_ino))
        (root / "file").touch()
        await until(lambda: heard.hints)
        assert heard.gaps == 1


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["/p/model.bin"], True),
        (["/p/.git/index"], False),
        (["/p/.git"], False),
        (["/p/.git/index", "/p/src/.git/x"], True),
        (["/p/.github/x"], True),
        (["/p"], True),
        ([], False),
    ],
)
def test_which_paths_are_hints(paths: list[str], expected: bool):
    assert is_hint("/p", paths, {".git"}) is expected


def test_a_failure_says_what_happens_instead():
    assert "scanned" in (hint_error(Path("/p"), "input/output error").hint or "")
