"""A daemon of its own in a temporary directory, and a registry for it to push to."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kitd.client import Client, request

BIN = Path(sys.executable).parent
START_DEADLINE_S = 60.0
STOP_DEADLINE_S = 60.0
COMMAND_DEADLINE_S = 900.0
SENT = re.compile(r'"GET /v2/[^"]*" 20[06] (\d+)')
"""A line of an access log in the combined format: the size is that of the answer's body."""


class Scene:
    """A running daemon and the commands of a person; `pid` is the daemon's."""

    def __init__(self, place: Path, pid: int) -> None:
        self.place = place
        self.pid = pid
        self.environment = {**os.environ, "KITD_SOCKET": str(place / "kitd.sock")}

    def kitctl(self, *arguments: str) -> str:
        done = subprocess.run(
            [str(BIN / "kitctl"), *arguments],
            env=self.environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=COMMAND_DEADLINE_S,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def connect(self) -> Client:
        """Return a connection to keep, for asking often."""
        return Client.connect(self.place / "kitd.sock")

    def await_no_jobs(self, client: Client) -> None:
        """Return once no job runs."""
        deadline_s = time.monotonic() + COMMAND_DEADLINE_S
        while client.call(request.list_jobs(state="running")):
            assert time.monotonic() < deadline_s, "jobs never end"
            time.sleep(0.02)

    def registry_address(self) -> str:
        """Return where the daemon's own registry listens."""
        lines = (self.place / "kitd.log").read_text().splitlines()
        ready = next(json.loads(line) for line in lines if '"daemon.ready"' in line)
        return str(ready["registry"])


@contextlib.contextmanager
def daemon(place: Path, config: dict[str, Any]) -> Iterator[Scene]:
    """Start a daemon and wait until it answers; stop it afterwards. Its state stays."""
    place.mkdir(exist_ok=True)
    path, log_path = place / "kitd.yaml", place / "kitd.log"
    path.write_text(json.dumps({"state_dir": str(place / "state"), **config}))
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [str(BIN / "kitd"), "serve", "--config", str(path)],
            env={**os.environ, "KITD_SOCKET": str(place / "kitd.sock")},
            stdout=log,
            stderr=log,
        )
    try:
        wait_until(lambda: '"daemon.ready"' in log_path.read_text(), process, log_path)
        yield Scene(place, process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=STOP_DEADLINE_S)
        finally:
            process.kill()


@dataclass(frozen=True, slots=True)
class DockerRegistry:
    """A running registry."""

    host: str
    pid: int
    log_path: Path

    def sent_bytes(self) -> int:
        """Return how many bytes of bodies it has sent since it started, by its access log."""
        return sum(map(int, SENT.findall(self.log_path.read_text())))


@contextlib.contextmanager
def docker_registry(
    program: str, place: Path, *, access_log: bool = False
) -> Iterator[DockerRegistry]:
    """Start Debian's registry on loopback, empty; stop it afterwards."""
    place.mkdir()
    config = {
        "version": "0.1",
        "log": {"level": "info", "formatter": "json", "accesslog": {"disabled": not access_log}},
        "storage": {"filesystem": {"rootdirectory": str(place / "storage")}},
        "http": {"addr": "127.0.0.1:0", "secret": "bench"},
    }
    path, log_path = place / "config.yml", place / "registry.log"
    path.write_text(json.dumps(config))
    said = "listening on "
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [program, "serve", str(path)],
            env={"PATH": os.environ["PATH"], "OTEL_TRACES_EXPORTER": "none"},
            stdout=log,
            stderr=log,
        )
    try:
        wait_until(lambda: said in log_path.read_text(), process, log_path)
        host = log_path.read_text().partition(said)[2].partition('"')[0].partition(",")[0]
        yield DockerRegistry(host, process.pid, log_path)
    finally:
        process.kill()
        process.wait(timeout=STOP_DEADLINE_S)


def wait_until(true: Callable[[], bool], process: subprocess.Popen[bytes], log_path: Path) -> None:
    """Return once a program that starts has come so far."""
    deadline_s = time.monotonic() + START_DEADLINE_S
    while not true():
        running = process.poll() is None and time.monotonic() < deadline_s
        assert running, f"it did not start:\n{log_path.read_text()}"
        time.sleep(0.02)
