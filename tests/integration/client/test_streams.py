"""Standard streams that are closed, full, or read by nobody: a word or none, and no traceback."""

import shlex
import subprocess
import sys

import pytest

STATUS = {
    "daemon": {"version": "0.1.0", "instance": "i", "pid": 7, "state": "ready", "uptime_s": 200},
    "projects": [],
    "queue": {"ready": 0, "running": 0, "scheduled": 0, "failed": 0},
    "cache": {},
    "degraded": [],
}
NO_SPACE = "kitctl: cannot write: No space left on device\n"
NO_JOB = "kitctl: there is no job 999\n"


@pytest.fixture
def shell(peer, refusal):
    """Run a line of bash in which `kitctl` asks a peer that has a status, and no job."""
    peer.on("system.status", STATUS)
    peer.on("kits.list", {"kits": []})
    peer.on("kits.info", {"yaml": "a: b\n"})
    peer.on("jobs.get", refusal("not_found", "there is no job 999"))
    peer.on("jobs.list", {"jobs": []})
    command = shlex.join([sys.executable, "-m", "kitd.ctl.main", "--socket", str(peer.path)])

    def run(line):
        return subprocess.run(
            ["bash", "-c", f'set -o pipefail; kitctl() {{ {command} "$@"; }}; {line}'],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    return run


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("kitctl status >/dev/full", 1, NO_SPACE),
        ("kitctl --json status >/dev/full", 1, NO_SPACE),
        ("kitctl info r >/dev/full", 1, NO_SPACE),
        ("kitctl --help >/dev/full", 1, NO_SPACE),
        ("kitctl --json jobs show 999 >/dev/full", 1, NO_JOB + NO_SPACE),
        ("kitctl --json jobs show 999 | exec sleep 0", 1, NO_JOB),
        ("kitctl status >&-", 0, ""),
        ("kitctl jobs show 999 >&-", 1, NO_JOB),
        ("kitctl status <&- >&- 2>&-", 0, ""),
        ("kitctl jobs show 999 2>&-", 1, ""),
        ("kitctl jobs show 999 2>/dev/full", 1, ""),
    ],
)
def test_what_cannot_be_written_is_told_in_a_line(shell, line, code, said):
    done = shell(line)
    assert (done.returncode, done.stderr) == (code, said)


@pytest.mark.parametrize("line", ["kitctl list 2>&-", "kitctl list 2>/dev/full", "kitctl list <&-"])
def test_a_result_needs_stdout_alone(shell, line):
    done = shell(line)
    assert (done.returncode, done.stdout[:8]) == (0, "No kits ")
