"""Programs as process 1 of a namespace of their own, as the first one of a container is."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ALONE = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child")


def require_namespace() -> None:
    """Skip a test where there can be none."""
    if not shutil.which("unshare") or subprocess.run([*ALONE, "true"], check=False).returncode:
        pytest.skip("no namespace of processes can be made here")


class Alone:
    """Starts such programs, and kills what is left of them."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[str]] = []

    def start(
        self, command: Sequence[str], *, before: Sequence[str] = (), **options: Any
    ) -> subprocess.Popen[str]:
        """Return the process outside; `before` is a program that starts it in turn."""
        process = subprocess.Popen(
            [*before, *ALONE, *command], stdout=subprocess.PIPE, text=True, **options
        )
        self._started.append(process)
        return process

    def end(self) -> None:
        """Kill them."""
        for process in self._started:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


@contextmanager
def alone() -> Iterator[Alone]:
    """Start programs as process 1; skips where that is not possible."""
    require_namespace()
    programs = Alone()
    try:
        yield programs
    finally:
        programs.end()


def first_of(process: "subprocess.Popen[str]") -> int:
    """Return the number, outside, of what is process 1 inside."""
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(child)
