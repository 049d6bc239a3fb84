"""A watcher over real trees: what is told, and when."""

import asyncio
import os
import shutil
import time
from pathlib import Path

import pytest

from kitd.errors import UnavailableError
from kitd.watch.project_watcher import Intervals, WatchMode
from kitd.watch.settle import SettleConfig

POLLING = Intervals(poll_s=0.1, broken_s=0.1)


async def test_a_change_made_while_nobody_watched_is_found(root: Path, watch, until):
    (root / "file").write_text("made before")
    async with watch(known=False) as watched:
        await until(lambda: watched.current)
    assert len(watched.settled) == 1


async def test_an_unchanged_tree_is_scanned_once_and_not_told(root: Path, watch):
    (root / "file").write_text("content")
    async with watch() as watched:
        assert watched.settled == []
    assert watched.scans == 1


async def test_ten_saves_in_a_second_are_told_once(root: Path, watch, until):
    async with watch(settle=SettleConfig(quiet_s=2.0)) as watched:
        for number in range(10):
            (root / "file").write_text(f"save {number}")
            await asyncio.sleep(0.05)  # the user's pace, not a wait
        await until(lambda: watched.current)
        await until(lambda: watched.state == "idle")
    assert len(watched.settled) == 1
    states = [state.state for state in watched.states]
    assert states[0] == "dirty"
    assert states[-3:] == ["dirty", "settling", "idle"]


async def test_a_project_is_not_idle_before_its_pack_was_asked_for(root: Path, watch, until):
    async with watch() as watched:
        (root / "file").write_text("content")
        await until(lambda: watched.current)
        await until(lambda: watched.state == "idle")
    assert watched.told_while == ["dirty"]


async def test_touching_a_file_is_looked_at_and_not_told(root: Path, watch, until):
    (root / "file").write_text("content")
    async with watch() as watched:
        (root / "file").touch()
        await until(lambda: watched.state == "dirty")
        await until(lambda: watched.state == "idle")
        assert watched.scans == 3
    assert watched.settled == []


async def test_a_growing_file_is_told_when_it_rests(root: Path, watch, until):
    async with watch() as watched:
        with (root / "weights").open("wb", buffering=0) as file:
            for _ in range(10):
                file.write(b"x" * 1000)
                await asyncio.sleep(0.1)  # the writer's pace, not a wait
            assert watched.settled == []
        await until(lambda: watched.current)
    assert len(watched.settled) == 1


async def test_a_file_in_new_directories_is_found(root: Path, watch, until):
    async with watch() as watched:
        for number in range(20):
            (root / f"{number}" / "a" / "b").mkdir(parents=True)
            (root / f"{number}" / "a" / "b" / "file").write_text("content")
        await until(lambda: watched.current)


async def test_a_missing_root_blocks_until_it_is_there(root: Path, watch, until):
    root.rmdir()
    async with watch(known=False) as watched:
        await until(lambda: watched.state == "blocked")
        root.mkdir()
        (root / "file").write_text("content")
        await until(lambda: watched.current)
        (root / "file").write_text("hinted")
        await until(lambda: watched.current)


async def test_a_scan_that_fails_in_passing_is_tried_again_without_a_hint(root: Path, watch, until):
    """Nothing in the tree will change when the machine has memory again."""
    async with watch(known=False, intervals=POLLING) as watched:
        watched.passing = [UnavailableError("no memory"), UnavailableError("no memory")]
        await until(lambda: watched.current)
    assert "blocked" in [state.state for state in watched.states]


async def test_a_root_that_is_deleted_and_made_again_is_followed(root: Path, watch, until):
    async with watch() as watched:
        for number in range(3):
            shutil.rmtree(root)
            await until(lambda: watched.state == "blocked")
            root.mkdir()
            (root / "file").write_text(f"content {number}")
            await until(lambda: watched.current)
            (root / "file").write_text(f"hinted {number}")
            await until(lambda: watched.current)


async def test_a_root_that_is_swapped_is_followed(root: Path, watch, until):
    async with watch() as watched:
        for number in range(3):
            fresh = root.with_name(f"fresh-{number}")
            fresh.mkdir()
            (fresh / "file").write_text(f"content {number}")
            root.rename(root.with_name(f"old-{number}"))
            fresh.rename(root)
            await until(lambda: watched.current)
            (root / "file").write_text(f"hinted {number}")
            await until(lambda: watched.current)


async def test_a_name_that_is_not_utf8_is_told_like_any_other(root: Path, watch, until):
    async with watch() as watched:
        path = Path(os.fsdecode(os.fsencode(root) + b"/\xff"))
        path.write_text("content")
        await until(lambda: watched.current)
        path.write_text("changed")
        await until(lambda: watched.current)
    assert "degraded" not in [state.state for state in watched.states]


async def test_auto_polls_where_hints_do_not_tell_everything(root: Path, watch, until):
    async with watch(WatchMode.AUTO, intervals=POLLING, remote="nfs4 on /srv") as watched:
        await until(lambda: watched.state == "degraded")
        assert "nfs4 on /srv" in watched.watcher.state.reason
        scans = watched.scans
        await until(lambda: watched.scans > scans + 2)
        watched.remote = None
        await until(lambda: watched.state == "idle")


async def test_a_root_that_another_takes_the_place_of_is_followed(root: Path, watch, until):
    """Of a rename above the root its own directory gets no notice."""
    parent = root.parent / "parent"
    at = parent / "project"
    at.mkdir(parents=True)
    async with watch(at=at) as watched:
        fresh = root.parent / "fresh"
        (fresh / "project").mkdir(parents=True)
        (fresh / "project" / "file").write_text("another project")
        parent.rename(root.parent / "old")
        fresh.rename(parent)
        await until(lambda: watched.current)


async def test_polling_converges_without_any_hint(root: Path, watch, until):
    async with watch(WatchMode.POLL, intervals=POLLING) as watched:
        for number in range(3):
            (root / "file").write_text(f"content {number}")
            await until(lambda: watched.current)
    assert len(watched.settled) == 3


async def test_off_looks_only_when_asked(root: Path, watch, until):
    async with watch(WatchMode.OFF) as watched:
        (root / "file").write_text("content")
        await asyncio.sleep(0.3)  # for something that must not come
        assert watched.scans == 0
        assert watched.watcher.state.reason.startswith("watching is off")
        watched.watcher.rescan()
        await until(lambda: watched.current)


async def test_a_held_project_is_told_after_its_release(root: Path, watch, until):
    async with watch() as watched:
        watched.watcher.hold()
        (root / "file").write_text("content")
        await asyncio.sleep(0.8)  # for something that must not come
        assert (watched.state, watched.settled) == ("held", [])
        watched.watcher.release()
        await until(lambda: watched.current)


async def test_a_scan_that_fails_blocks_and_mends_by_itself(root: Path, watch, until):
    async with watch() as watched:
        (root / "link").symlink_to("nowhere")
        await until(lambda: watched.state == "blocked")
        assert "cannot scan" in watched.watcher.state.reason
        (root / "nowhere").write_text("here now")
        await until(lambda: watched.current)


async def test_a_hold_past_the_next_poll_does_not_spin(root: Path, watch, until):
    async with watch(WatchMode.POLL, intervals=POLLING) as watched:
        watched.watcher.hold()
        await until(lambda: watched.state == "held")
        busy_s = time.process_time()
        await asyncio.sleep(0.5)  # long past the next poll
        assert time.process_time() - busy_s < 0.25
        assert watched.scans <= 2


async def test_rest_is_not_told_before_the_quiet_time(root: Path, watch, until):
    async with watch(settle=SettleConfig(quiet_s=0.5)) as watched:
        began_s = time.monotonic()
        (root / "file").write_text("content")
        await until(lambda: watched.settled)
        assert time.monotonic() - began_s >= 0.5


@pytest.mark.parametrize("mode", [WatchMode.AUTO, WatchMode.NATIVE, WatchMode.POLL])
async def test_stops_promptly_before_its_first_scan(root: Path, watch, mode: WatchMode):
    async with watch(mode, known=False):
        await asyncio.sleep(0)
