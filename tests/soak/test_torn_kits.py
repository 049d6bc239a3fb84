"""Writers that stall in mid-file: no kit ever holds half of what they write."""

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

WRITERS = Path(__file__).with_name("stalling_writers.py")
PROCESSES = 4
QUIET_MS = 500
KITFILE = (
    "manifestVersion: 1.0.0\npackage: {name: stalled}\nmodel: {name: weights, path: weights}\n"
)


@pytest.fixture
def roots(soak, tmp_path) -> dict[Path, int]:
    """The directories of the projects, each with its seed."""
    seeds = [soak.only] if soak.only is not None else range(soak.seed, soak.seed + soak.projects)
    roots = {tmp_path / "projects" / f"p{seed}": seed for seed in seeds}
    for root in roots:
        root.mkdir(parents=True)
        (root / "Kitfile").write_text(KITFILE)
    return roots


@pytest.fixture
def command(soak):
    """Return what runs the schedules of some projects."""

    def make(roots: dict[Path, int], *options: str) -> list[str]:
        return [
            sys.executable,
            str(WRITERS),
            f"--versions={-(-soak.schedules // soak.projects)}",
            f"--max-bytes={soak.file_bytes}",
            f"--max-stall-s={soak.stall_s}",
            *options,
            *(f"{root}={seed}" for root, seed in roots.items()),
        ]

    return make


def listed(command: list[str]) -> list[dict[str, Any]]:
    done = subprocess.run(command, capture_output=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_schedules_follow_from_the_seed(command, roots):
    """The same again, whichever other projects there are; another seed gives others."""
    first, second, *_ = roots.items() if len(roots) > 1 else [*roots.items(), (Path("other"), 0)]
    alone = listed(command(dict([first]), "--list"))
    beside = listed(command(dict([first, second]), "--list"))

    assert alone
    assert beside[: len(alone)] == alone
    assert beside[len(alone) :] != alone


class Holds:
    """The gates that were seen to hold a project back."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, str, int]] = set()

    def look(self, daemon) -> None:
        for name, project in daemon.projects().items():
            self._seen.update(
                (name, hold["gate"], int(time.monotonic())) for hold in project["holds"]
            )

    def describe(self) -> str:
        gates = Counter(gate for _, gate, _ in self._seen)
        return ", ".join(f"{gate} {count}" for gate, count in gates.most_common()) or "none"


def wait_for_writers(processes: list[subprocess.Popen[bytes]], daemon, holds: Holds) -> None:
    """Return when all have ended; look at what holds the projects back meanwhile."""
    for process in processes:
        while process.poll() is None:
            holds.look(daemon)
            try:
                process.wait(timeout=1)
            except subprocess.TimeoutExpired:
                continue
        assert process.returncode == 0


class History:
    """What was written, and what was published of it."""

    def __init__(self, daemon, said: Path) -> None:
        self._daemon = daemon
        self._written: dict[str, list[dict[str, Any]]] = {}
        self._files: dict[str, dict[str, str]] = {}
        for line in said.read_text().splitlines():
            version = json.loads(line)
            self._written.setdefault(version["project"], []).append(version)

    @property
    def versions(self) -> int:
        return sum(map(len, self._written.values()))

    @property
    def kits(self) -> int:
        return sum(map(len, self._daemon.kits().values()))

    def unpublished(self) -> list[str]:
        """Say of each project whose last kit is not its last version what kitd says of it."""
        late = []
        for name, project in self._daemon.projects().items():
            kit, last = project["last_digest"], self._written[name][-1]
            if kit is None or self._of(kit) != last["files"]:
                found = "no kit" if kit is None else shortened(self._of(kit))
                late.append(f"{tell(last)}: {found}\n{self._daemon.why(name)}")
        return late

    def torn(self) -> list[str]:
        """Say of each kit that is no whole version what it holds and what was written."""
        return [
            "\n".join(
                [f"{name}: {kit} holds {shortened(self._of(kit))}", *map(tell, self._written[name])]
            )
            for name, kits in self._daemon.kits().items()
            for kit in sorted(kits)
            if self._of(kit) not in [version["files"] for version in self._written[name]]
        ]

    def _of(self, kit: str) -> dict[str, str]:
        """Return the digests of a kit's files."""
        if kit not in self._files:
            members = self._daemon.members(kit)
            self._files[kit] = {path: m.content for path, m in members.items() if m.content}
        return self._files[kit]


def tell(version: dict[str, Any]) -> str:
    schedule = version["schedule"]
    return f"  KITD_SOAK_ONLY={schedule['seed']}: {schedule} {shortened(version['files'])}"


def shortened(files: dict[str, str]) -> dict[str, str]:
    return {path.rpartition("/")[2]: digest[:8] for path, digest in files.items()}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_kit_is_torn_and_no_version_lost(soak, roots, command, start_kitd, tmp_path, capsys):
    """Every kit ever published is one whole version; the last version of each project has one."""
    daemon = start_kitd(
        {
            root.name: {
                "path": str(root),
                "reference": f"localhost/{root.name}",
                "push": False,
                "settle": {"quiet": f"{QUIET_MS}ms"},
            }
            for root in roots
        }
    )
    holds = Holds()
    said = tmp_path / "said"
    began_s = time.monotonic()
    with said.open("wb") as sink:
        shares = [list(roots.items())[number::PROCESSES] for number in range(PROCESSES)]
        processes = [
            subprocess.Popen(command(dict(share)), stdout=sink) for share in shares if share
        ]
        try:
            wait_for_writers(processes, daemon, holds)
        finally:
            for process in processes:
                process.kill()
                process.wait()
    history = History(daemon, said)
    # What is looked at ever less often is looked at again after as long as it took so far.
    deadline_s = time.monotonic() + 2 * soak.stall_s + 30
    while history.unpublished() and time.monotonic() < deadline_s:
        time.sleep(0.5)
    torn, lost = history.torn(), history.unpublished()
    with capsys.disabled():
        print(
            f"\n{history.versions} schedules in {len(roots)} projects, {history.kits} kits:"
            f" {len(torn)} torn, {len(lost)} projects without their last version;"
            f" {time.monotonic() - began_s:.0f} s; held back: {holds.describe()}"
        )
    assert not torn, "\n".join(torn[:20])
    assert not lost, "\n".join(lost[:20])
    daemon.stop()
