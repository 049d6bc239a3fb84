"""Timing commands in alternation, and tables of what came out."""

import os
import platform
import shutil
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One line of the table: seconds of each contestant, and what the first is compared with."""

    name: str
    seconds: Mapping[str, tuple[float, ...]]
    note: str = ""

    def cells(self) -> str:
        medians = {who: statistics.median(runs) for who, runs in self.seconds.items()}
        first, *others = medians
        parts = [f"{who} {median * 1000:.0f} ms" for who, median in medians.items()]
        parts += [f"{first}/{who} {medians[first] / medians[who]:.2f}" for who in others]
        return f"{self.name}: " + ", ".join(parts) + (f"  ({self.note})" if self.note else "")


def alternate(
    contestants: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    before: Callable[[], object] = lambda: None,
) -> dict[str, tuple[float, ...]]:
    """Run all contestants in turn, several times; `before` each run is not timed."""
    seconds: dict[str, list[float]] = {who: [] for who in contestants}
    for _ in range(rounds):
        for who, run in contestants.items():
            before()
            started_s = time.perf_counter()
            run()
            seconds[who].append(time.perf_counter() - started_s)
    return {who: tuple(runs) for who, runs in seconds.items()}


def peer(name: str) -> str | None:
    """Return the path of a program, or None where it is not installed."""
    return shutil.which(name)


def machine() -> str:
    """Describe the machine in one line."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "unknown CPU",
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{cpu}, {os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()},"
        f" Python {platform.python_version()}"
    )
