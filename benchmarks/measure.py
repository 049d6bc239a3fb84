"""Timing contestants in alternation, and tables of what came out."""

import contextlib
import os
import platform
import re
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import kitd

COMMAND_DEADLINE_S = 900.0
PEERS = {
    "kit": "version",
    "skopeo": "--version",
    "regsync": "version",
    "oras": "version",
    "openssl": "version",
    "curl": "--version",
    "docker-registry": "--version",
}
"""Programs that something is compared with or goes through, and what asks them who they are."""

Run = Callable[[], object]
Contestant = Callable[[], AbstractContextManager[Run]]
"""Entering prepares, what it gives is timed, leaving cleans up."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How large, how often and how long: the goals are stated for what stands here."""

    scale: float = 1.0
    rounds: int = 5
    quiet_s: float = 0.5
    idle_s: float = 600.0

    def scaled(self, number: int) -> int:
        """Return a number of bytes or files, made larger or smaller."""
        return max(1, round(number * self.scale))


@dataclass(frozen=True)
class Comparison:
    """Seconds of each contestant by round, and what the first is compared with.

    `goals` are the largest ratios of the first to another that kitd is content with.
    """

    name: str
    seconds: Mapping[str, tuple[float, ...]]
    goals: Mapping[str, float] = field(default_factory=dict)
    note: str = ""

    def table(self) -> str:
        """Return medians, with the least and the most, and the ratios of the medians."""
        first, *others = self.seconds
        rounds = len(self.seconds[first])
        lines = [f"{self.name} (median of {rounds}, least..most)", self._line(first)]
        lines += [f"{self._line(other)}   {self._ratio(first, other)}" for other in others]
        if self.note:
            lines.append(f"  {self.note}")
        return "\n".join(lines)

    def _line(self, who: str) -> str:
        runs = self.seconds[who]
        spread = f"{min(runs) * 1000:.0f}..{max(runs) * 1000:.0f}"
        return f"  {who:<12} {statistics.median(runs) * 1000:>8.0f} ms {spread:>16}"

    def _ratio(self, first: str, other: str) -> str:
        ours, theirs = self.seconds[first], self.seconds[other]
        ratio = statistics.median(ours) / statistics.median(theirs)
        by_round = [mine / other for mine, other in zip(ours, theirs, strict=True)]
        text = f"{first}/{other} {ratio:.3f}, {min(by_round):.3f}..{max(by_round):.3f} by round"
        if (most := self.goals.get(other)) is None:
            return text
        return f"{text}, {goal(f'{most:g}', is_met=ratio <= most)}"


def goal(words: str, *, is_met: bool) -> str:
    """Return a goal as it stands beside a figure."""
    return f"goal: {words}{'' if is_met else ', missed'}"


def ready(run: Run) -> Contestant:
    """Return a contestant for which nothing has to be prepared."""
    return lambda: contextlib.nullcontext(run)


def alternate(
    contestants: Mapping[str, Contestant],
    *,
    rounds: int,
    before_round: Run = lambda: None,
    before_run: Run = lambda: None,
) -> dict[str, tuple[float, ...]]:
    """Run all contestants in turn, several times; only the runs themselves are timed."""
    seconds: dict[str, list[float]] = {who: [] for who in contestants}
    for _ in range(rounds):
        before_round()
        for who, prepared in contestants.items():
            with prepared() as run:
                before_run()
                # What one left in memory to be written is not the next one's to wait for.
                os.sync()
                seconds[who].append(timed(run))
    return {who: tuple(runs) for who, runs in seconds.items()}


def timed(run: Run) -> float:
    """Return how many seconds a run takes."""
    started_s = time.perf_counter()
    run()
    return time.perf_counter() - started_s


def command(*words: str, folder: Path | None = None) -> Run:
    """Return what runs a program in a folder; it has to succeed within the deadline."""

    def run() -> None:
        done = subprocess.run(
            words,
            cwd=folder,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=COMMAND_DEADLINE_S,
        )
        assert done.returncode == 0, f"{words[0]}: {done.stderr.decode(errors='replace')[-1000:]}"

    return run


def peer(name: str) -> str | None:
    """Return the path of a program, or None where it is not installed."""
    return shutil.which(name)


def absent(*names: str) -> str:
    """Return a note on the peers that are missing, or nothing."""
    missing = [name for name in names if peer(name) is None]
    return f"not on PATH: {', '.join(missing)}" if missing else ""


def peers() -> str:
    """Name the peers and their versions in one line, and those that are missing."""
    present = [f"{name} {_version(name)}" for name in PEERS if peer(name) is not None]
    return "; ".join(filter(None, (", ".join(present), absent(*PEERS))))


def _version(name: str) -> str:
    done = subprocess.run((name, PEERS[name]), check=False, capture_output=True, text=True)
    found = re.search(r"(?<![\w.])v?(\d+(\.\d+)+)", done.stdout)
    return "of no known version" if found is None else found[1]


def mebibytes(count: float) -> str:
    """Return a number of bytes as MiB."""
    return f"{count / 2**20:,.0f} MiB"


def machine() -> str:
    """Describe the day, kitd and the machine in one line."""
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
        f"{datetime.now(UTC):%Y-%m-%d}, kitd {kitd.__version__},"
        f" {cpu}, {os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()},"
        f" Python {platform.python_version()}"
    )
