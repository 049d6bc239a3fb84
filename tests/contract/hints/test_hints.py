"""What every source of hints hints at, and what none does."""

import asyncio
import mmap
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from kitd.watch.inotify_hints import InotifyHints
from kitd.watch.watchfiles_hints import WatchfilesHints


def create(tree: Path) -> None:
    (tree / "new").touch()


def append(tree: Path) -> None:
    with (tree / "file").open("ab") as file:
        file.write(b"more")


def truncate(tree: Path) -> None:
    os.truncate(tree / "file", 1)


def rename_over(tree: Path) -> None:
    (tree / "other").rename(tree / "file")


def move_directory_in(tree: Path) -> None:
    (tree.parent / "outside").rename(tree / "inside")


def move_directory_out(tree: Path) -> None:
    (tree / "directory").rename(tree.parent / "away")


def delete(tree: Path) -> None:
    (tree / "file").unlink()


def delete_directory(tree: Path) -> None:
    shutil.rmtree(tree / "directory")


def change_mode(tree: Path) -> None:
    (tree / "file").chmod(0o600)


def change_below(tree: Path) -> None:
    (tree / "directory" / "file").write_text("changed")


def swap_link(tree: Path) -> None:
    (tree / "fresh").symlink_to("directory")
    (tree / "fresh").rename(tree / "link")


def create_undecodable(tree: Path) -> None:
    Path(os.fsdecode(os.fsencode(tree) + b"/\xff")).touch()


CHANGES = (
    create,
    append,
    truncate,
    rename_over,
    move_directory_in,
    move_directory_out,
    delete,
    delete_directory,
    change_mode,
    change_below,
    swap_link,
)


@pytest.fixture
def tree(root: Path) -> Path:
    """Something of every kind, with a directory outside."""
    (root / "file").write_text("content")
    (root / "other").write_text("other content")
    (root / "directory").mkdir()
    (root / "directory" / "file").write_text("content")
    (root / "link").symlink_to("file")
    (root.parent / "outside").mkdir()
    (root.parent / "outside" / "file").write_text("content")
    return root


@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_is_hinted(
    tree: Path, subscribed, until, change: Callable[[Path], None]
) -> None:
    async with subscribed() as project:
        change(tree)
        await until(lambda: project.heard)


async def test_nothing_is_hinted_without_a_change(tree: Path, subscribed, until):
    async with subscribed() as project:
        for path in (tree, *tree.rglob("*")):
            path.stat()
        (tree / "file").read_bytes()
        await project.scan()
        gaps = project.gaps
        # What is hinted next is the first that is hinted.
        assert project.heard == 0
        create(tree)
        await until(lambda: project.heard)
        assert project.gaps == gaps


async def test_an_undecodable_name_leaves_no_change_unnoticed(root: Path, subscribed, until):
    """A hint, or a gap, which calls for a scan as well; and hints go on."""
    async with subscribed() as project:
        gaps = project.gaps
        create_undecodable(root)
        await until(lambda: project.heard or project.gaps > gaps)
        await until(lambda: project.works)
        await project.scan()
        heard = project.heard
        create(root)
        await until(lambda: project.heard > heard)


async def test_files_of_new_directories_are_hinted_after_a_scan(root: Path, subscribed, until):
    """Before it some are: the first directory is hinted, so that there is a scan."""
    async with subscribed() as project:
        deep = root / "a" / "b" / "c"
        deep.mkdir(parents=True)
        (deep / "file").write_text("content")
        await until(lambda: project.heard)
        await project.scan()
        heard = project.heard
        (deep / "file").write_text("changed")
        await until(lambda: project.heard > heard)


async def test_a_write_through_a_mapping_is_hinted_when_the_descriptor_is_closed(
    tree: Path, subscribed, until
):
    """The kernel tells nobody of the write itself; that the file is open, a scan finds out."""
    async with subscribed() as project:
        with (tree / "file").open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
            mapping[0:1] = b"X"
            mapping.flush()
        if isinstance(project.hints, InotifyHints):
            await until(lambda: project.heard)
        # What comes after it is hinted in any case.
        heard = project.heard
        append(tree)
        await until(lambda: project.heard > heard)


@pytest.mark.parametrize("leave", [shutil.rmtree, lambda root: root.rename(f"{root}.old")])
async def test_a_root_that_goes_is_hinted_and_the_next_one_is_followed(
    root: Path, subscribed, until, leave: Callable[[Path], object]
):
    async with subscribed() as project:
        for _ in range(3):
            heard = project.heard
            leave(root)
            shutil.rmtree(f"{root}.old", ignore_errors=True)
            await until(lambda heard=heard: project.heard > heard)
            gaps = project.gaps
            root.mkdir()
            await project.scan()
            if isinstance(project.hints, WatchfilesHints):
                await until(lambda gaps=gaps: project.gaps > gaps and project.works)
            told = project.told
            create(root)
            await until(lambda told=told: project.told > told)


async def test_a_root_that_was_swapped_from_above_is_followed_from_the_next_scan_on(
    tmp_path: Path, subscribed, until
):
    """Nothing happens to the root itself."""
    root = tmp_path / "parent" / "project"
    root.mkdir(parents=True)
    async with subscribed(at=root) as project:
        (tmp_path / "parent").rename(tmp_path / "old")
        root.mkdir(parents=True)
        gaps = project.gaps
        await project.scan()
        if isinstance(project.hints, WatchfilesHints):
            await until(lambda: project.gaps > gaps and project.works)
        told = project.told
        create(root)
        await until(lambda: project.told > told)


async def test_a_burst_is_hinted_and_hints_go_on(root: Path, subscribed, until):
    """More events than the kernel queues for anybody: what was lost is not a hint, nor is all."""
    async with subscribed() as project:
        for number in range(20_000):
            (root / f"{number}").touch()
        await until(lambda: project.heard)
        await project.scan()
        heard = project.heard
        (root / "0").write_text("changed")
        await until(lambda: project.heard > heard)


async def test_a_project_hears_nothing_of_another(tmp_path: Path, subscribed, until):
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    async with subscribed("one", one) as project, subscribed("other", other) as stranger:
        create(one)
        await until(lambda: project.heard)
        assert stranger.heard == 0


async def test_projects_within_each_other_hear_both(root: Path, subscribed, until):
    (root / "inner").mkdir()
    async with subscribed("outer") as outer:
        async with subscribed("inner", root / "inner") as inner:
            create(root / "inner")
            await until(lambda: outer.heard and inner.heard)
        heard = outer.heard
        (root / "inner" / "new").write_text("changed")
        await until(lambda: outer.heard > heard)


async def test_nothing_is_told_after_the_end(root: Path, subscribed, until):
    async with subscribed("gone") as gone:
        pass
    told = (gone.heard, gone.gaps, len(gone.health))
    async with subscribed() as project:
        create(root)
        await until(lambda: project.heard)
    assert (gone.heard, gone.gaps, len(gone.health)) == told


async def test_a_source_answers_again_and_again_and_nobody_is_hinted_for_it(
    hints, subscribed, root: Path
):
    async with subscribed(at=root) as project:
        before = project.told
        for _ in range(3):
            async with asyncio.timeout(10):
                await hints.answer()
        assert project.told == before
