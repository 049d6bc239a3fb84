"""What a process and its descendants use, read from `/proc`: nothing is asked of them."""

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
SAMPLE_S = 5.0
"""Threads that end between two samples take what they used since the first of them along."""

CPU, WAKEUPS, WRITTEN = "cpu", "wake-ups", "written"


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used over a span of time. A wake-up is a context switch of any of the threads."""

    span_s: float
    cpu_s: float
    wakeups: int
    written_bytes: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of several processes: pages that are shared count for each, or in proportion."""

    resident_bytes: tuple[int, ...]
    proportional_bytes: tuple[int, ...]


class Meter:
    """Counts what a process and its descendants use from now on, also those that come later."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._started_s = time.monotonic()
        self._first = counters(pid)
        self._latest = dict(self._first)

    def read(self) -> Usage:
        """Return what was used so far."""
        self._latest.update(counters(self._pid))
        used = dict.fromkeys((CPU, WAKEUPS, WRITTEN), 0)
        for (what, owner), count in self._latest.items():
            used[what] += count - self._first.get((what, owner), 0)
        return Usage(
            span_s=time.monotonic() - self._started_s,
            cpu_s=used[CPU] / TICKS_PER_S,
            wakeups=used[WAKEUPS],
            written_bytes=used[WRITTEN],
        )


def use_of(pid: int, span_s: float) -> Usage:
    """Look on for some time and return what was used."""
    meter = Meter(pid)
    usage = meter.read()
    while usage.span_s < span_s:
        time.sleep(min(SAMPLE_S, span_s - usage.span_s))
        usage = meter.read()
    return usage


def family(pid: int) -> Iterator[Path]:
    """Yield the directories of a process and all its descendants, it first."""
    process = Path("/proc", str(pid))
    yield process
    with _may_end():
        for thread in sorted((process / "task").iterdir()):
            for child in (thread / "children").read_text().split():
                yield from family(int(child))


def counters(pid: int) -> dict[tuple[str, str], int]:
    """Return all counts of a family so far, by what is counted and of whom."""
    counts: dict[tuple[str, str], int] = {}
    for process in family(pid):
        with _may_end():
            # The name, in brackets, may have anything in it; utime and stime follow 11 fields on.
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            counts[CPU, process.name] = int(fields[11]) + int(fields[12])
            counts[WRITTEN, process.name] = _number(process / "io", "write_bytes")
            for thread in (process / "task").iterdir():
                counts[WAKEUPS, thread.name] = sum(
                    _number(thread / "status", f"{kind}_ctxt_switches")
                    for kind in ("voluntary", "nonvoluntary")
                )
    return counts


def memory(pid: int) -> Memory:
    """Return what a family holds, process by process."""
    resident, proportional = [], []
    for process in family(pid):
        with _may_end():
            rollup = process / "smaps_rollup"
            resident.append(_number(rollup, "Rss") * 1024)
            proportional.append(_number(rollup, "Pss") * 1024)
    return Memory(tuple(resident), tuple(proportional))


def peak_bytes(pid: int) -> tuple[int, ...]:
    """Return the most memory that each process of a family ever held."""
    return tuple(_number(process / "status", "VmHWM") * 1024 for process in family(pid))


def _number(path: Path, field: str) -> int:
    lines = path.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def _may_end() -> contextlib.AbstractContextManager[None]:
    """Pass over what ended while it was looked at."""
    return contextlib.suppress(FileNotFoundError, ProcessLookupError)
