"""What is particular to inotify: who places watches, which are kept, and what limits say."""

import asyncio
import errno
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from kitd.inotify import add_watch
from kitd.watch.hints import HintError
from kitd.watch.inotify_hints import PAUSE_S, REMOVED_AT_ONCE, InotifyHints

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")


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


def watch(hints: InotifyHints, *directories: Path) -> list[int]:
    """Add watches, as a scan in another process would."""
    placed = []
    for directory in directories:
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        placed.append(add_watch(hints.descriptor, handle))
        os.close(handle)
    return placed


def kernel_watches(hints: InotifyHints) -> set[int]:
    """Return the watches that there are (proc(5), fdinfo)."""
    lines = Path(f"/proc/self/fdinfo/{hints.descriptor}").read_text().splitlines()
    return {int(line.split()[1].removeprefix("wd:"), 16) for line in lines if "wd:" in line}


def tell(hints: InotifyHints, name: str, watches: list[int], **said) -> None:
    hints.watched(name, watches, **{"complete": True, "refused": None, "remote": None, **said})


@pytest.fixture
async def hints() -> AsyncIterator[InotifyHints]:
    async with InotifyHints() as source:
        yield source


@pytest.fixture
async def subscribe(hints: InotifyHints, root: Path):
    async with AsyncExitStack() as stack:

        async def subscribe(name: str = "demo") -> Heard:
            heard = Heard()
            await stack.enter_async_context(
                hints.subscribe(
                    name,
                    root,
                    on_hint=heard.hint,
                    on_gap=heard.gap,
                    on_health=heard.health.append,
                )
            )
            return heard

        yield subscribe


async def test_a_subscription_asks_for_the_scan_that_adds_its_watches(subscribe):
    heard = await subscribe()
    assert (heard.gaps, heard.hints, heard.health) == (1, 0, [])


async def test_an_event_of_a_watch_that_is_not_told_yet_is_hinted_when_it_is(
    root: Path, hints: InotifyHints, subscribe, until
):
    known, late = await subscribe("known"), await subscribe("late")
    tell(hints, "known", watch(hints, root))
    with hints.scanning():
        placed = watch(hints, root)
        (root / "file").touch()
        await until(lambda: known.hints)
        assert late.hints == 0
        tell(hints, "late", placed)
    assert late.hints == 1


async def test_another_process_adds_watches(root: Path, hints: InotifyHints, subscribe, until):
    heard = await subscribe()
    program = """
import os, sys
from kitd.inotify import add_watch
print(add_watch(int(sys.argv[1]), os.open(sys.argv[2], os.O_RDONLY)))
"""
    with hints.scanning():
        done = subprocess.run(
            [sys.executable, "-c", program, str(hints.descriptor), root],
            capture_output=True,
            check=True,
            pass_fds=(hints.descriptor,),
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        )
        tell(hints, "demo", [int(done.stdout)])
    (root / "file").touch()
    await until(lambda: heard.hints)


async def test_a_watch_of_nobody_is_removed_after_its_first_event(
    root: Path, hints: InotifyHints, until
):
    """As of a scan whose process was killed."""
    watch(hints, root)
    (root / "file").touch()
    await until(lambda: kernel_watches(hints) == set())


async def test_watches_that_a_scan_no_longer_needs_are_removed(
    root: Path, hints: InotifyHints, subscribe
):
    await subscribe()
    (root / "a").mkdir()
    (root / "b").mkdir()
    first, a, b = watch(hints, root, root / "a", root / "b")
    tell(hints, "demo", [first, a, b])
    tell(hints, "demo", [first, a], complete=False)
    assert kernel_watches(hints) == {first, a, b}
    with hints.scanning():
        tell(hints, "demo", [first, a])
        # Another scan may be adding it right now.
        assert kernel_watches(hints) == {first, a, b}
    assert kernel_watches(hints) == {first, a}


async def test_many_watches_are_removed_little_by_little(
    root: Path, hints: InotifyHints, subscribe, until
):
    """Each gives an event, and the queue is to have room for others."""
    heard = await subscribe()
    for number in range(2 * REMOVED_AT_ONCE):
        (root / f"{number}").mkdir()
    with hints.scanning():
        tell(hints, "demo", watch(hints, *root.iterdir()))
        tell(hints, "demo", [])
    assert len(kernel_watches(hints)) == REMOVED_AT_ONCE
    await until(lambda: kernel_watches(hints) == set())
    assert heard.gaps == 1


async def test_a_project_takes_its_watches_with_it(root: Path, hints: InotifyHints):
    async with hints.subscribe(
        "demo", root, on_hint=lambda: None, on_gap=lambda: None, on_health=lambda _: None
    ):
        with hints.scanning():
            tell(hints, "demo", watch(hints, root))
        assert len(kernel_watches(hints)) == 1
    assert kernel_watches(hints) == set()
    with hints.scanning():
        tell(hints, "demo", watch(hints, root))
    assert kernel_watches(hints) == set()


async def test_links_to_directories_are_not_watched(root: Path, hints: InotifyHints, subscribe):
    """What a link points to is no part of the project, and watching a link is impossible."""
    outside = root.parent / "outside"
    outside.mkdir()
    (root / "link").symlink_to(outside)
    flags = os.O_PATH | os.O_NOFOLLOW
    handle = os.open(root / "link", flags)
    with pytest.raises(NotADirectoryError):
        add_watch(hints.descriptor, handle)
    os.close(handle)


async def test_an_overflow_is_a_gap_for_everybody(
    root: Path, hints: InotifyHints, subscribe, until
):
    busy, quiet = await subscribe("busy"), await subscribe("quiet")
    tell(hints, "busy", watch(hints, root))
    # The loop does not run meanwhile.
    for number in range(20_000):
        (root / f"{number}").touch()
    await until(lambda: busy.gaps == quiet.gaps == 2)
    assert busy.hints
    assert quiet.hints == 0
    hints_before = busy.hints
    (root / "0").unlink()
    await until(lambda: busy.hints > hints_before)


async def test_a_busy_writer_costs_twenty_hints_a_second(
    root: Path, hints: InotifyHints, subscribe, until
):
    heard = await subscribe()
    tell(hints, "demo", watch(hints, root))
    done = threading.Event()

    def write() -> None:
        with (root / "file").open("wb", buffering=0) as file:
            for _ in range(300):
                file.write(b"x")
                time.sleep(0.001)  # the writer's pace, not a wait
        done.set()

    began_s = time.monotonic()
    writer = threading.Thread(target=write)
    writer.start()
    await until(done.is_set)
    writer.join()
    assert 1 <= heard.hints <= (time.monotonic() - began_s) / PAUSE_S + 2


async def test_nothing_wakes_the_loop_at_rest(root: Path, hints: InotifyHints, subscribe, until):
    heard = [await subscribe(f"{number}") for number in range(100)]
    for number in range(100):
        tell(hints, f"{number}", watch(hints, root))
    (root / "file").touch()
    await until(lambda: all(one.hints for one in heard))
    await asyncio.sleep(2 * PAUSE_S)  # the pause after the last event

    def wakeups() -> int:
        status = Path(f"/proc/self/task/{threading.get_native_id()}/status").read_text()
        return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])

    before = wakeups()
    await asyncio.sleep(0.5)  # for wake-ups that must not come
    # One is the end of this sleep; a few more where the lock of the interpreter was taken.
    assert wakeups() - before <= 5


async def test_health_is_told_when_it_is_known_and_when_it_changes(
    root: Path, hints: InotifyHints, subscribe
):
    heard = await subscribe()
    tell(hints, "demo", [], complete=False)
    assert heard.health == []
    for _ in range(2):
        tell(hints, "demo", [])
    assert heard.health == [None]
    for _ in range(2):
        tell(hints, "demo", [], remote="nfs4 on /srv")
    assert len(heard.health) == 2
    assert "other machines make are not notified: nfs4 on /srv" in heard.health[-1].message
    tell(hints, "demo", [], refused=errno.EACCES, complete=False)
    assert os.strerror(errno.EACCES) in heard.health[-1].message
    tell(hints, "demo", [])
    assert heard.health[-1] is None


PROGRAM = """
import asyncio, os, pathlib, sys
from kitd.inotify import add_watch
from kitd.watch.inotify_hints import InotifyHints

root = pathlib.Path(sys.argv[1])

def limit(name, value):
    pathlib.Path("/proc/sys/user/max_inotify_" + name).write_text(str(value))

def scan(hints):
    placed, refused = [], None
    for directory in (root, *root.iterdir()):
        try:
            placed.append(add_watch(hints.descriptor, os.open(directory, os.O_RDONLY)))
        except OSError as error:
            refused = error.errno
    hints.watched("demo", placed, complete=True, refused=refused, remote=None)

async def main():
    health = []
    limit("instances", sys.argv[2])
    limit("watches", 4)
    async with InotifyHints() as hints, hints.subscribe(
        "demo", root, on_hint=print, on_gap=lambda: health.append("gap"), on_health=health.append
    ):
        if hints.descriptor is not None:
            scan(hints)
            limit("watches", 100)
            scan(hints)
    for said in health:
        print(said if said in (None, "gap") else said.describe())

asyncio.run(main())
"""


@pytest.fixture
def limited(root: Path):
    """Run with so many instances allowed, and four watches, later more; return what was told."""
    for number in range(8):
        (root / f"{number}").mkdir()

    def limited(instances: int) -> list[str]:
        unshare = ["unshare", "--user", "--map-root-user"]
        if (
            not shutil.which("unshare")
            or subprocess.run([*unshare, "true"], check=False).returncode
        ):
            pytest.skip("this machine has no user namespaces")
        result = subprocess.run(
            [*unshare, sys.executable, "-c", PROGRAM, root, str(instances)],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        )
        return result.stdout.splitlines()

    return limited


def test_too_few_watches_name_their_sysctl_and_mend_without_a_restart(limited, root: Path):
    gap, refused, mended = limited(1)
    assert (gap, mended) == ("gap", "None")
    assert f"changes below {root} are not all notified: it has more than 4 directories" in refused
    assert "kitd watches 4 of all projects" in refused
    assert "sysctl fs.inotify.max_user_watches=" in refused


def test_too_few_instances_name_their_sysctl_and_a_scan_is_asked_for(limited):
    refused, gap = limited(0)
    assert "sysctl fs.inotify.max_user_instances=1024" in refused
    assert gap == "gap"


async def test_a_source_that_nobody_reads_does_not_answer(hints: InotifyHints):
    asyncio.get_running_loop().remove_reader(hints.descriptor)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await hints.answer()


async def test_a_source_that_was_closed_says_so():
    async with InotifyHints() as closed:
        pass
    with pytest.raises(HintError, match="closed"):
        await closed.answer()
