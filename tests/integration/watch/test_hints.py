"""Hints from real notifications."""

import asyncio
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from kitd.watch.hints import HintError, HintSource, hint_error, identify, is_hint, step_ms


class Heard:
    def __init__(self) -> None:
        self.hints = 0
        self.health: list[HintError | None] = []

    def hint(self) -> None:
        self.hints += 1

    def source(self, root: Path) -> HintSource:
        return HintSource(root, on_hint=self.hint, on_health=self.health.append)


async def test_a_change_is_hinted_within_a_tenth_of_a_second(root: Path, until):
    heard = Heard()
    async with heard.source(root):
        await until(lambda: heard.health == [None])
        delays = []
        for number in range(5):
            hints, began_s = heard.hints, time.monotonic()
            (root / f"{number}").touch()
            await until(lambda hints=hints: heard.hints > hints)
            delays.append(time.monotonic() - began_s)
    # The median, because other work may hold this machine's processors for a moment.
    assert sorted(delays)[2] < 0.15


@pytest.mark.parametrize(
    ("quiet_s", "expected_ms"), [(0.0, 40), (0.3, 40), (0.5, 50), (2.0, 200), (3600.0, 200)]
)
def test_a_hint_is_late_by_a_fraction_of_the_quiet_time(quiet_s: float, expected_ms: int):
    assert step_ms(quiet_s) == expected_ms


async def test_a_root_at_rest_wakes_its_thread_once_a_step(root: Path, until):
    heard = Heard()
    source = HintSource(root, on_hint=heard.hint, on_health=heard.health.append, step_ms=200)
    async with source:
        await until(lambda: heard.health == [None])
        (thread,) = (t for t in threading.enumerate() if t.name == f"hints:{root.name}")
        status = Path(f"/proc/self/task/{thread.native_id}/status")

        def wakeups() -> int:
            return int(status.read_text().partition("\nvoluntary_ctxt_switches:")[2].split()[0])

        before, began_s = wakeups(), time.monotonic()
        await asyncio.sleep(1)  # for wake-ups that must not come
        steps = (time.monotonic() - began_s) / 0.2
        # A few more where the lock of the interpreter was taken.
        assert 1 <= wakeups() - before <= 2 * steps + 2


async def test_pruned_directories_give_no_hints(root: Path, until):
    (root / ".git").mkdir()
    heard = Heard()
    async with heard.source(root):
        await until(lambda: heard.health == [None])
        (root / ".git" / "index").touch()
        await asyncio.sleep(0.3)  # for something that must not come
        assert heard.hints == 0
        (root / ".gitignore").touch()
        await until(lambda: heard.hints == 1)


async def test_a_deep_new_directory_is_hinted_and_watched(root: Path, until):
    heard = Heard()
    async with heard.source(root):
        await until(lambda: heard.health == [None])
        (root / "a" / "b" / "c").mkdir(parents=True)
        await until(lambda: heard.hints)
        hints = heard.hints
        (root / "a" / "b" / "c" / "file").touch()
        await until(lambda: heard.hints > hints)


async def test_a_name_that_is_not_utf8_is_survived_and_reported(root: Path, until):
    heard = Heard()
    async with heard.source(root):
        await until(lambda: heard.health == [None])
        Path(os.fsdecode(os.fsencode(root) + b"/\xff")).touch()
        await until(lambda: len(heard.health) == 3)
        _, error, mended = heard.health
        assert error is not None
        assert "not UTF-8" in (error.hint or "")
        assert mended is None
        (root / "file").touch()
        await until(lambda: heard.hints)


@pytest.mark.parametrize("leave", [shutil.rmtree, lambda root: root.rename(f"{root}.old")])
async def test_a_root_that_is_replaced_is_watched_again(root: Path, until, leave):
    heard = Heard()
    async with heard.source(root) as source:
        await until(lambda: heard.health == [None])
        leave(root)
        await until(lambda: len(heard.health) == 2)
        assert heard.hints
        root.mkdir()
        identity = identify(root)
        assert identity is not None
        source.expect(identity)
        await until(lambda: heard.health[-1] is None)
        hints = heard.hints
        (root / "file").touch()
        await until(lambda: heard.hints > hints)


async def test_expecting_the_directory_that_is_watched_changes_nothing(root: Path, until):
    heard = Heard()
    async with heard.source(root) as source:
        await until(lambda: heard.health == [None])
        identity = identify(root)
        assert identity is not None
        source.expect(identity)
        (root / "file").touch()
        await until(lambda: heard.hints)
        assert heard.health == [None]


async def test_stops_at_once_even_in_a_pause(root: Path, until):
    heard = Heard()
    async with heard.source(root / "missing"):
        await until(lambda: heard.health)
        began_s = time.monotonic()
    assert time.monotonic() - began_s < 0.5
    assert not [t for t in threading.enumerate() if t.name.startswith("hints:")]


@pytest.mark.parametrize(
    ("limit", "sysctl"),
    [
        ("max_inotify_instances", "fs.inotify.max_user_instances"),
        ("max_inotify_watches", "fs.inotify.max_user_watches"),
    ],
)
def test_a_kernel_limit_names_its_sysctl(root: Path, limit: str, sysctl: str):
    for number in range(8):
        (root / f"{number}").mkdir()
    program = f"""
import asyncio, pathlib
from kitd.watch.hints import HintSource
async def main():
    pathlib.Path("/proc/sys/user/{limit}").write_text("{0 if "inst" in limit else 4}")
    error = asyncio.get_running_loop().create_future()
    async with HintSource(
        pathlib.Path({str(root)!r}), on_hint=lambda: None, on_health=error.set_result
    ):
        print((await error).hint)
asyncio.run(main())
"""
    unshare = ["unshare", "--user", "--map-root-user"]
    if not shutil.which("unshare") or subprocess.run([*unshare, "true"], check=False).returncode:
        pytest.skip("this machine has no user namespaces")
    result = subprocess.run(
        [*unshare, sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert sysctl in result.stdout


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


def test_other_failures_say_what_happens_instead():
    assert "scanned" in (hint_error(Path("/p"), "input/output error").hint or "")
