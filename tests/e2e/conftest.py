"""A daemon as a process of its own, and kitctl as a person runs it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

BIN = Path(sys.executable).parent
DEADLINE_S = 30.0
QUIET_MS = 500

KITFILE = """\
manifestVersion: 1.0.0
package: {name: demo, version: 0.1.0, authors: [Ada]}
model: {name: weights, path: model.bin}
datasets: [{name: reviews, path: data}]
"""


def wait_until(what: str, happened: Callable[[], Any], deadline_s: float = DEADLINE_S) -> Any:
    """Return the first truthy answer of `happened`."""
    end_s = time.monotonic() + deadline_s
    while True:
        answer = happened()
        if answer:
            return answer
        assert time.monotonic() < end_s, f"waited {deadline_s} s for {what}"
        time.sleep(0.05)


@dataclass
class Answer:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Kitd:
    """One state directory and the daemon that lives in it, now and then."""

    place: Path
    config: dict[str, Any]
    environ: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    start_command: tuple[str, ...] = ()
    """A program that starts kitd, with its arguments."""
    pass_fds: tuple[int, ...] = ()

    @property
    def socket(self) -> Path:
        return self.place / "kitd.sock"

    @property
    def log(self) -> Path:
        return self.place / "kitd.log"

    @property
    def cache(self) -> Path:
        return self.place / "state" / "cache"

    def _environ(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.place),
            "KITD_SOCKET": str(self.socket),
            **self.environ,
        }

    def start(self, *, ready: bool = True) -> "Kitd":
        """Start the daemon; return once it answers."""
        path = self.place / "kitd.yaml"
        config = {"state_dir": str(self.place / "state"), "log": {"format": "json"}, **self.config}
        path.write_text(json.dumps(config))
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.start_command, BIN / "kitd", "serve", "--config", path],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environ(),
                pass_fds=self.pass_fds,
            )
        if ready:
            wait_until("the daemon to answer", self._answers)
        return self

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        return self.kitctl("status").code == 0

    def stop(self) -> int:
        """Stop in good order and return the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=DEADLINE_S)

    def kill(self) -> None:
        """End it without a word."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def children(self) -> set[int]:
        """Return the processes that it has started."""
        assert self.process is not None
        found: set[int] = set()
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            # Threads come and go.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found |= {int(child) for child in (task / "children").read_text().split()}
        return found

    def kitctl(self, *arguments: str | Path, cwd: Path | None = None) -> Answer:
        """Run a command."""
        done = subprocess.run(
            [BIN / "kitctl", *map(str, arguments)],
            env=self._environ(),
            cwd=cwd or self.place,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S * 2,
            check=False,
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    def json(self, *arguments: str | Path) -> Any:
        """Run a command with --json that has to succeed."""
        answer = self.kitctl("--json", *arguments)
        assert answer.code == 0, f"{arguments}: {answer.err}"
        return answer.json

    def project(self, name: str = "demo") -> dict[str, Any]:
        """Return one project as `projects list` has it."""
        return next(p for p in self.json("projects", "list") if p["name"] == name)

    def jobs(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Return the jobs, newest first."""
        return [job for job in self.json("jobs", "list") if kind in (None, job["kind"])]

    def quiet(self, name: str = "demo") -> dict[str, Any]:
        """Wait until a project is packed, pushed and idle; return it."""

        def idle() -> dict[str, Any] | None:
            project = self.project(name)
            running = [
                job
                for job in self.jobs()
                if job["project"] == name and job["state"] in ("ready", "running", "scheduled")
            ]
            done = project["state"] == "idle" and project["last_digest"] and not running
            return project if done else None

        project: dict[str, Any] = wait_until(f"{name} to be packed and pushed", idle)
        return project


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """Wait for a condition: `eventually("what", lambda: answer)` returns the first true answer."""
    return wait_until


def make_project(root: Path, kitfile: str = KITFILE) -> Path:
    """Write a small project."""
    (root / "data").mkdir(parents=True)
    (root / "Kitfile").write_text(kitfile)
    (root / "model.bin").write_bytes(bytes(range(256)) * 400)
    (root / "data" / "a.csv").write_text("text,label\ngood,1\n")
    return root


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A small project with a model and a dataset."""
    return make_project(tmp_path / "project")


@pytest.fixture
def new_project() -> Callable[..., Path]:
    """Write further projects: `new_project(root, kitfile)`."""
    return make_project


@pytest.fixture
def public_place() -> Iterator[Path]:
    """A directory that other users may enter, as pytest's are not; name it before `kitd`."""
    with tempfile.TemporaryDirectory(
        prefix="kitd-", dir="/tmp", ignore_cleanup_errors=True
    ) as name:
        place = Path(name)
        place.chmod(0o755)
        yield place


@pytest.fixture
def kitd(tmp_path: Path) -> Iterator[Callable[..., Kitd]]:
    """Make daemons with a configuration; all are ended after the test."""
    made: list[Kitd] = []

    def make(config: dict[str, Any] | None = None, **environ: str) -> Kitd:
        place = tmp_path / f"kitd-{len(made)}"
        place.mkdir()
        made.append(Kitd(place, config or {}, environ))
        return made[-1]

    yield make
    for daemon in made:
        if daemon.process is not None and daemon.process.poll() is None:
            daemon.kill()


@pytest.fixture
def watched(project: Path) -> Callable[..., dict[str, Any]]:
    """A configuration that watches the project and pushes to a registry's repository."""

    def configure(reference: str, **settings: Any) -> dict[str, Any]:
        return {
            "projects": {
                "demo": {
                    "path": str(project),
                    "reference": reference,
                    "settle": {"quiet": f"{QUIET_MS}ms"},
                    **settings,
                }
            }
        }

    return configure
