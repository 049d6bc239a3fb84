"""Long runs beside real writers: a daemon of their own, and its kits read by other means than kitd.

The same tests are short in the suite and long under `make soak`; what makes the difference is read
from the environment here, and only here:

- `KITD_SOAK_SEED`: where all randomness begins;
- `KITD_SOAK_HAMMER_S`: for how long a tree is hammered, for each share of the hints;
- `KITD_SOAK_SCHEDULES`, `KITD_SOAK_PROJECTS`: how many stalling writers' schedules, in how many
  projects;
- `KITD_SOAK_STALL_S`, `KITD_SOAK_FILE_BYTES`: how long a writer stalls and how much it writes at
  most;
- `KITD_SOAK_KILLS`: how often a daemon is killed;
- `KITD_SOAK_PUSH_KILLS`: how often one is killed in the middle of a push;
- `KITD_SOAK_BLOB_MIB`, `KITD_SOAK_CUT_MIB`: how large a blob is whose connections break, and after
  how much, a list of numbers with spaces between them;
- `KITD_SOAK_ONLY`: the seed of one project, to see its schedules again and no others.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

BIN = Path(sys.executable).parent
DEADLINE_S = 60.0


@dataclass(frozen=True, slots=True)
class Soak:
    """How long and how hard."""

    seed: int
    hammer_s: float
    schedules: int
    projects: int
    stall_s: float
    file_bytes: int
    kills: int
    push_kills: int
    blob_mib: int
    cut_mib: tuple[int, ...]
    only: int | None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "Soak":
        def given(name: str, default: float) -> float:
            return float(environ.get(f"KITD_SOAK_{name}", default))

        only = environ.get("KITD_SOAK_ONLY")
        return cls(
            seed=int(given("SEED", 1)),
            hammer_s=given("HAMMER_S", 8),
            schedules=int(given("SCHEDULES", 40)),
            projects=int(given("PROJECTS", 20)),
            stall_s=given("STALL_S", 4),
            file_bytes=int(given("FILE_BYTES", 4 << 20)),
            kills=int(given("KILLS", 16)),
            push_kills=int(given("PUSH_KILLS", 10)),
            blob_mib=int(given("BLOB_MIB", 64)),
            cut_mib=tuple(map(int, environ.get("KITD_SOAK_CUT_MIB", "5 29").split())),
            only=None if only is None else int(only),
        )


class Member(NamedTuple):
    """A file or directory of a kit; of a directory only the permission bits count."""

    mode: int
    content: str | None
    """The digest of a file's content; None for a directory."""


@dataclass
class Daemon:
    """A kitd with a state directory of its own."""

    place: Path
    process: subprocess.Popen[bytes]

    @property
    def log(self) -> Path:
        return self.place / "kitd.log"

    def kitctl(self, *arguments: str | Path) -> str:
        """Run a command that has to succeed, and return what it prints."""
        done = subprocess.run(
            [BIN / "kitctl", "--socket", self.place / "kitd.sock", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
            umask=0,
        )
        assert done.returncode == 0, f"{arguments}: {done.stderr}\n{self.last_words()}"
        return done.stdout

    def projects(self) -> dict[str, dict[str, Any]]:
        """Return the projects by name."""
        listed = json.loads(self.kitctl("--json", "projects", "list"))
        return {project["name"]: project for project in listed}

    def why(self, project: str) -> str:
        """Return what kitd says of a project."""
        return self.kitctl("why", project)

    def kits(self) -> dict[str, set[str]]:
        """Return the digests of all kits that were ever published, by repository."""
        kits: dict[str, set[str]] = {}
        for line in self.kitctl("--json", "events", "--since", "0").splitlines():
            event = json.loads(line)
            if event["type"] == "kit.packed":
                digests = kits.setdefault(event["data"]["repository"].rpartition("/")[2], set())
                digests.add(event["subject"].removeprefix("kit:"))
        return kits

    def blob(self, digest: str) -> Path:
        """Return where a blob of the cache is."""
        return self.place / "state" / "cache" / "blobs" / digest.replace(":", "/")

    def layers(self, kit: str) -> Iterator[tarfile.TarFile]:
        """Open the layers of a kit, one after the other."""
        manifest = json.loads(self.blob(kit).read_bytes())
        for layer in manifest["layers"]:
            # File names are bytes: this is how the operating system's own come to Python.
            with tarfile.open(
                self.blob(layer["digest"]), encoding="utf-8", errors="surrogateescape"
            ) as tar:
                yield tar

    def members(self, kit: str) -> dict[str, Member]:
        """Return what a kit holds, by path."""
        return {
            member.name.rstrip("/"): Member(
                member.mode & 0o777, None if member.isdir() else file_digest(tar, member)
            )
            for tar in self.layers(kit)
            for member in tar
        }

    def last_words(self) -> str:
        """Return the end of the log."""
        return "\n".join(self.log.read_text().splitlines()[-20:])

    def stop(self) -> None:
        """Stop it in good order."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=DEADLINE_S) == 0, self.last_words()


def file_digest(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    file = tar.extractfile(member)
    assert file is not None, f"{member.name} is neither a file nor a directory"
    with file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def soak() -> Soak:
    """How long and how hard."""
    return Soak.from_environ(os.environ)


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """Return the first true answer: `eventually(deadline_s, ask, complain)`."""

    def wait(deadline_s: float, ask: Callable[[], Any], complain: Callable[[], str]) -> Any:
        end_s = time.monotonic() + deadline_s
        while not (answer := ask()):
            assert time.monotonic() < end_s, f"after {deadline_s:.0f} s: {complain()}"
            time.sleep(0.2)
        return answer

    return wait


@pytest.fixture
def start_kitd(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Start a daemon that watches projects: `kitd serve`, or what is given instead."""
    started: list[Daemon] = []

    def start(projects: Mapping[str, Any], *program: str | Path) -> Daemon:
        place = tmp_path / f"kitd-{len(started)}"
        place.mkdir()
        config = {
            "state_dir": str(place / "state"),
            "log": {"format": "json"},
            "projects": dict(projects),
        }
        (place / "kitd.yaml").write_text(json.dumps(config))
        places = ["--config", place / "kitd.yaml", "--socket", place / "kitd.sock"]
        with (place / "kitd.log").open("wb") as log:
            process = subprocess.Popen(
                [*(program or [BIN / "kitd", "serve"]), *places],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"], "HOME": str(place)},
            )
        daemon = Daemon(place, process)
        started.append(daemon)
        end_s = time.monotonic() + DEADLINE_S
        while b"daemon.ready" not in daemon.log.read_bytes():
            assert process.poll() is None, daemon.last_words()
            assert time.monotonic() < end_s, daemon.last_words()
            time.sleep(0.05)
        return daemon

    yield start
    for daemon in started:
        if daemon.process.poll() is None:
            daemon.process.kill()
            daemon.process.wait()
