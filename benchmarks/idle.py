"""What kitd costs its machine: watching when nothing happens, and memory after large kits.

Counts every thread of the daemon and of its workers. The kernel counts a voluntary context switch
each time that a thread goes to sleep, which is as often as it was woken.
"""

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import pack
from benchmarks.scene import Scene, daemon

PROJECTS = (1, 20, 100)
FILES = 100
SPAN_S = 30.0


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process and its children have used since they started, and hold now."""

    cpu_s: float
    wakeups: int
    resident_bytes: int
    threads: int

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.cpu_s + other.cpu_s,
            self.wakeups + other.wakeups,
            self.resident_bytes + other.resident_bytes,
            self.threads + other.threads,
        )


def usage(process: Path) -> Usage:
    """Return what one process (a directory of `/proc`) uses; the clock is the scheduler's."""
    running_ns, wakeups = 0, 0
    threads = list((process / "task").iterdir())
    for thread in threads:
        # schedstat counts nanoseconds; the ticks of `stat` would miss most of what is short.
        running_ns += int((thread / "schedstat").read_text().split()[0])
        wakeups += _number(thread / "status", "voluntary_ctxt_switches")
    resident_bytes = _number(process / "status", "VmRSS") * 1024
    return Usage(running_ns / 1e9, wakeups, resident_bytes, len(threads))


def peak_bytes(process: Path) -> int:
    """Return the most memory that a process ever held."""
    return _number(process / "status", "VmHWM") * 1024


def family(scene: Scene) -> tuple[Path, ...]:
    """Return the daemon and its workers as directories of `/proc`, the daemon first."""
    status = json.loads(scene.kitctl("--json", "status"))
    daemon_process = Path("/proc", str(status["daemon"]["pid"]))
    children = (daemon_process / "task" / daemon_process.name / "children").read_text().split()
    return daemon_process, *(Path("/proc", child) for child in children)


def _number(path: Path, field: str) -> int:
    lines = path.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def write_projects(place: Path, count: int) -> dict[str, object]:
    """Write `count` projects and return their configuration."""
    projects: dict[str, object] = {}
    for number in range(count):
        name = f"idle-{number:03d}"
        root = place / "projects" / name
        root.mkdir(parents=True)
        (root / "Kitfile").write_text("manifestVersion: 1.0.0\ncode: [{path: .}]\n")
        for file in range(FILES - 1):
            folder = root / f"{file % 10}"
            folder.mkdir(exist_ok=True)
            (folder / f"{file}.txt").write_text(f"{number} {file}\n")
        projects[name] = {
            "path": str(root),
            "reference": f"localhost/bench/{name}",
            "push": False,
        }
    return projects


def wait_for_rest(scene: Scene) -> None:
    """Return once every project was packed and nothing is to be done."""
    while True:
        projects = json.loads(scene.kitctl("--json", "projects", "list"))
        if all(project["state"] == "idle" and project["last_digest"] for project in projects):
            return
        time.sleep(0.5)


def at_rest(place: Path, count: int) -> str:
    """Measure projects that were packed and are left alone, over `SPAN_S`."""
    with daemon(place, {"projects": write_projects(place, count)}) as scene:
        started_s = time.monotonic()
        wait_for_rest(scene)
        packed_s = time.monotonic() - started_s
        processes = family(scene)
        before = [usage(process) for process in processes]
        time.sleep(SPAN_S)
        after = [usage(process) for process in processes]
    first, last = sum_of(before), sum_of(after)
    return (
        f"idle, {count} projects of {FILES} files:"
        f" CPU {(last.cpu_s - first.cpu_s) / SPAN_S:.2%} of a core,"
        f" {(last.wakeups - first.wakeups) / SPAN_S:.1f} wake-ups/s, {last.threads} threads,"
        f" resident {' + '.join(mebibytes(part.resident_bytes) for part in after)} MiB,"
        f" all packed after {packed_s:.1f} s"
    )


def after_work(place: Path) -> Iterator[str]:
    """Move the trees of the pack benchmark through three daemons; tell their peaks so far."""
    one, many, homes = place / "one", place / "many", place / "homes"
    for folder in (one, many, homes / "author", homes / "registry", homes / "reader"):
        folder.mkdir(parents=True)
    pack.one_file(one)
    pack.many_files(many)
    with contextlib.ExitStack() as stack:
        registry = stack.enter_context(
            daemon(homes / "registry", {"registry": {"listen": "127.0.0.1:0"}})
        )
        log = (homes / "registry" / "kitd.log").read_text().splitlines()
        ready = next(json.loads(line) for line in log if '"daemon.ready"' in line)
        address = ready["registry"]
        author = stack.enter_context(daemon(homes / "author", {}))
        yield f"peak memory at the start: {peaks(author)}"
        author.kitctl("--quiet", "pack", str(many), "-t", f"{address}/bench/many:v1", "--push")
        yield f"peak memory after 20,000 files packed and pushed: {peaks(author)}"
        author.kitctl("--quiet", "pack", str(one), "-t", f"{address}/bench/one:v1", "--push")
        yield f"peak memory after a file of 1 GiB packed and pushed: {peaks(author)}"
        reader = stack.enter_context(daemon(homes / "reader", {}))
        reader.kitctl("--quiet", "pull", f"{address}/bench/one:v1")
        yield f"peak memory after pulling it: {peaks(reader)}"
        yield f"peak memory after taking it in and giving it out: {peaks(registry)}"


def run(place: Path) -> Iterator[str]:
    """Measure each number of projects at rest, then the memory of work."""
    for count in PROJECTS:
        home = place / str(count)
        home.mkdir()
        yield at_rest(home, count)
    yield from after_work(place)


def sum_of(parts: list[Usage]) -> Usage:
    """Add up what several processes use."""
    return sum(parts, Usage(0.0, 0, 0, 0))


def peaks(scene: Scene) -> str:
    """Return the most memory that the daemon and each of its workers ever held."""
    return " + ".join(mebibytes(peak_bytes(process)) for process in family(scene)) + " MiB"


def mebibytes(count: int) -> str:
    """Return a number of bytes as MiB."""
    return f"{count / 2**20:.0f}"
