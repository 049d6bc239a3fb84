"""`kitd serve`, many times over: forked from a process that has imported it, a start takes 50 ms.

The fork runs the command's own `main`. Its workers, its files, its socket and the signals that it
gets are those of a daemon that was started from a shell.
"""

import contextlib
import ctypes
import json
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kitd.__main__ import main
from kitd.client import Client
from kitd.errors import KitdError

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
POLL_S = 0.003


def adopt_orphans() -> None:
    """Become the parent of whatever a daemon that is killed leaves running."""
    assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1) == 0


class Daemon:
    """One state directory, and the daemon that lives in it, now and then."""

    def __init__(self, place: Path, config: dict[str, Any]) -> None:
        self.place = place
        self.state = Path(config.get("state_dir", place / "state"))
        self.log = place / "kitd.log"
        self.socket = place / "kitd.sock"
        self.pid = 0
        self.configure(config)

    def configure(self, config: dict[str, Any]) -> None:
        """Write the configuration, whole at any moment."""
        written = self.place / "kitd.yaml.new"
        written.write_text(json.dumps({"state_dir": str(self.state), **config}))
        written.rename(self.place / "kitd.yaml")

    def start(self) -> None:
        """Fork. The fork does not outlive this process."""
        self.pid = os.fork()
        if self.pid:
            return
        code = 255
        try:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            random.seed()
            log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            for stream in (1, 2):
                os.dup2(log, stream)
            os.closerange(3, 1024)
            os.environ["HOME"] = str(self.place)
            places = ["--config", str(self.place / "kitd.yaml"), "--socket", str(self.socket)]
            code = main(["serve", *places])
        finally:
            os._exit(code)

    def connect(self, deadline_s: float) -> Client | None:
        """Return a connection once the daemon answers; None if it has ended before."""
        end_s = time.monotonic() + deadline_s
        while self.ended() is None:
            with contextlib.suppress(KitdError):
                return Client.connect(self.socket)
            assert time.monotonic() < end_s, (
                f"no answer within {deadline_s:g} s: {self.last_words()}"
            )
            time.sleep(POLL_S)
        return None

    def ended(self) -> int | None:
        """Return how it ended, as a shell would; None while it runs. Leaves it to be waited for."""
        done = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if done is None:
            return None
        return done.si_status if done.si_code == os.CLD_EXITED else -done.si_status

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, deadline_s: float) -> int:
        """Wait for its end and return its exit code; of a signal, the negative number."""
        end_s = time.monotonic() + deadline_s
        while (code := self.ended()) is None:
            assert time.monotonic() < end_s, (
                f"still there after {deadline_s:g} s: {self.last_words()}"
            )
            time.sleep(POLL_S)
        os.waitpid(self.pid, 0)
        self.pid = 0
        return code

    def workers(self) -> Iterator[int]:
        """Yield its child processes."""
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{self.pid}/task").iterdir():
                yield from map(int, (task / "children").read_text().split())

    def last_words(self) -> str:
        """Return the end of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])


def reap_orphans(deadline_s: float) -> list[int]:
    """Wait for everything that was adopted; return what does not end by itself, and kill it."""
    end_s = time.monotonic() + deadline_s
    while time.monotonic() < end_s:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return []
        if not pid:
            time.sleep(POLL_S)
    left = [int(child) for child in Path("/proc/thread-self/children").read_text().split()]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return left
