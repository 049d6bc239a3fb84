"""`kitctl` on a pseudo-terminal, against a peer: what it draws, above all `status --watch`."""

import fcntl
import json
import os
import pty
import select
import shlex
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from contextlib import suppress

import pytest

STATUS = {
    "daemon": {"version": "0.1.0", "instance": "i", "pid": 7, "state": "ready", "uptime_s": 200},
    "projects": [],
    "queue": {"ready": 0, "running": 0, "scheduled": 0, "failed": 0},
    "cache": {},
    "degraded": [],
}
ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"
DEADLINE_S = 20
KILL = b"kill %1; tail -s .1 -f /dev/null --pid=$(jobs -p)\n"


def program(peer):
    return [sys.executable, "-m", "kitd.ctl.main", "--socket", str(peer.path)]


class Screen:
    """A process on a terminal of its own, and what it drew."""

    def __init__(self, *command, columns=80):
        self.main, self.side = pty.openpty()
        self.resize(columns)
        self.before = termios.tcgetattr(self.side)
        self.process = subprocess.Popen(
            # The keyboard's signals, and that of a resize, go to a session of its own.
            ["setsid", "--ctty", *command],
            stdin=self.side,
            stdout=self.side,
            stderr=self.side,
            env={"PATH": os.environ["PATH"], "TERM": "xterm", "PS1": "$ "},
            cwd="/",
        )
        self.drawn = ""

    def resize(self, columns, rows=24):
        fcntl.ioctl(self.main, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def foreground(self):
        return os.tcgetpgrp(self.main)

    def type(self, keys):
        os.write(self.main, keys)

    def until(self, text):
        """Read until a text was drawn after what was waited for before; return what came."""
        end_s = time.monotonic() + DEADLINE_S
        while text not in self.drawn:
            left_s = end_s - time.monotonic()
            assert left_s > 0, f"{text!r} was not drawn: {self.drawn[-500:]!r}"
            if select.select([self.main], [], [], left_s)[0]:
                self.drawn += os.read(self.main, 65536).decode()
        seen, _, self.drawn = self.drawn.partition(text)
        return seen + text

    def end(self):
        """Return the exit code; the terminal is as it was."""
        code = self.process.wait(DEADLINE_S)
        assert termios.tcgetattr(self.side) == self.before
        return code

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.main)
        os.close(self.side)


@pytest.fixture
def started():
    """Start a program on a terminal."""
    screens = []

    def start(*command, **options):
        screens.append(Screen(*command, **options))
        return screens[-1]

    yield start
    for screen in screens:
        screen.close()


@pytest.fixture
def on_screen(peer, started):
    """Start `kitctl` on a terminal."""
    return lambda *words, **options: started(*program(peer), *words, **options)


@pytest.fixture
def in_shell(peer, started, tmp_path):
    """Start a shell with control of jobs, which has `kitctl`."""

    def start():
        (tmp_path / "kitctl").write_text(f'#!/bin/sh\nexec {shlex.join(program(peer))} "$@"\n')
        (tmp_path / "kitctl").chmod(0o700)
        screen = started("bash", "--norc", "--noprofile", "-i")
        screen.until("$ ")
        screen.type(f"PATH={tmp_path}:$PATH\n".encode())
        screen.until("$PATH")
        screen.until("$ ")
        return screen

    return start


@pytest.fixture
def happens():
    """What makes the peer tell an event to whoever has subscribed."""
    return threading.Event()


@pytest.fixture
def live(peer, answer, notify, happens):
    """Let the peer have this status first and that one after an event."""

    def script(*statuses, running=()):
        told = threading.Event()

        def subscribed(_params):
            def tell(connection=peer.talking):
                happens.wait(DEADLINE_S)
                told.set()
                line = {"jsonrpc": "2.0", **notify(9, "job.succeeded")}
                # Nobody may be there any longer.
                with suppress(OSError):
                    connection.sendall(json.dumps(line).encode() + b"\n")

            threading.Thread(target=tell, daemon=True).start()
            return answer({"subscription": 1})

        peer.on("events.subscribe", subscribed)
        peer.on("system.status", lambda _params: statuses[-1 if told.is_set() else 0])
        peer.on(
            "jobs.list",
            lambda params: {"jobs": running if params["state"] == "running" else []},
        )

    return script


@pytest.fixture
def watching(live, on_screen):
    """A watch that has drawn the status."""
    live(STATUS)
    screen = on_screen("status", "--watch")
    screen.until("kitd 0.1.0 is ready")
    return screen


@pytest.fixture
def watching_in_shell(live, in_shell):
    """A watch that has drawn the status, in a shell with control of jobs."""
    live(STATUS)
    screen = in_shell()
    screen.type(b"kitctl status --watch\n")
    screen.until("kitd 0.1.0 is ready")
    return screen


def degraded(*reasons):
    return STATUS | {"degraded": list(reasons)}


def test_it_draws_again_what_happens_until_q(live, on_screen, happens):
    live(STATUS, degraded("the disk is nearly full"))
    screen = on_screen("status", "--watch")
    assert ENTER in screen.until("kitd 0.1.0 is ready")
    happens.set()
    screen.until("degraded: the disk is nearly full")
    screen.type(b"q")
    screen.until(LEAVE)
    assert screen.end() == 0


def test_running_jobs_have_bars(live, on_screen, job):
    progress = {"phase": "packing", "bytes": 1024, "total": 4096}
    live(STATUS, running=[job(state="running", progress=progress)])
    screen = on_screen("status", "-w")
    screen.until("   12  sentiment  packing  [##------]   25%  1.0 of 4.0 KiB")


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM), (signal.SIGHUP, -signal.SIGHUP)],
)
def test_whatever_ends_it_the_terminal_is_given_back(watching, number, code):
    watching.process.send_signal(number)
    watching.until(LEAVE)
    assert watching.end() == code


def test_ctrl_c_at_the_keyboard_ends_it(watching):
    watching.type(b"\x03")
    watching.until(LEAVE)
    assert watching.end() == 130


def test_a_resize_is_drawn_before_the_clock_and_any_event(peer, live, started):
    live(degraded("x" * 100))
    slow = "import kitd.ctl.watch as watch; watch.PAUSE_S = 3600; watch.TICK_S = 7200"
    main = "from kitd.ctl.main import main; main(['--socket', sys.argv[1], 'status', '--watch'])"
    screen = started(sys.executable, "-c", f"import sys; {slow}; {main}", str(peer.path))
    screen.until("x" * 67 + "…")
    screen.resize(40)
    screen.until("  degraded: " + "x" * 27 + "…")
    screen.resize(50)
    screen.until("  degraded: " + "x" * 37 + "…")
    screen.type(b"q")
    screen.until(LEAVE)


def test_only_q_itself_ends_it(watching):
    # F2 (twice, as terminals differ), Shift-F2, an arrow, and a letter.
    watching.type(b"\x1bOQ\x1b[[Q\x1b[1;2Q\x1b[Ax")
    watching.until("kitd 0.1.0 is ready")
    watching.until("kitd 0.1.0 is ready")
    watching.type(b"\x1bOQQ")
    watching.until(LEAVE)
    assert watching.end() == 0


def test_ctrl_z_gives_the_terminal_to_the_shell_and_takes_it_again(watching):
    watching.process.send_signal(signal.SIGTSTP)
    watching.until(LEAVE)
    # A session without a shell has nobody to continue it: the kernel does not let it stop.
    watching.process.send_signal(signal.SIGCONT)
    watching.until(ENTER)
    watching.until("kitd 0.1.0 is ready")
    watching.type(b"q")
    watching.until(LEAVE)
    assert watching.end() == 0


def test_ctrl_backslash_ends_it_and_the_terminal_is_given_back(watching):
    watching.type(b"\x1c")
    watching.until(LEAVE)
    assert watching.end() == -signal.SIGQUIT


def test_killed_while_it_is_put_aside_it_leaves_the_shells_screen_alone(watching_in_shell):
    watching_in_shell.type(b"\x1a")
    watching_in_shell.until("Stopped")
    watching_in_shell.until("$ ")
    watching_in_shell.type(KILL)
    after = watching_in_shell.until("Terminated")
    assert "\x1b[?1049" not in after
    assert "tty output" not in after


def test_killed_while_a_stop_that_it_did_not_hear_holds_it_the_shell_keeps_its_modes(
    watching_in_shell,
):
    os.kill(watching_in_shell.foreground(), signal.SIGSTOP)
    watching_in_shell.until("Stopped")
    watching_in_shell.until("$ ")
    watching_in_shell.type(KILL)
    assert LEAVE in watching_in_shell.until("Terminated")


def test_without_stdin_there_are_no_keys_but_those_of_signals(live, in_shell):
    live(STATUS)
    screen = in_shell()
    screen.type(b"kitctl status --watch <&-\n")
    screen.until("kitd 0.1.0 is ready")
    screen.type(b"\x03")
    screen.until(LEAVE)
    screen.type(b"echo it ended by $?\n")
    screen.until("it ended by 130")


def test_put_aside_and_taken_up_again_by_a_shell_it_is_drawn_at_once(watching_in_shell):
    watching_in_shell.type(b"\x1a")
    watching_in_shell.until("Stopped")
    watching_in_shell.type(b"fg\n")
    watching_in_shell.until(ENTER)
    watching_in_shell.until("kitd 0.1.0 is ready")
    watching_in_shell.type(b"q")
    watching_in_shell.until(LEAVE)
    watching_in_shell.type(b"echo it ended by $?\n")
    watching_in_shell.until("it ended by 0")


def test_a_daemon_that_goes_away_is_waited_for(peer, answer, on_screen):
    peer.on("system.status", STATUS)
    peer.on("jobs.list", {"jobs": []})
    peer.on(
        "events.subscribe",
        answer({"subscription": 1}, hang_up=True),
        answer({"subscription": 1}),
    )
    screen = on_screen("status", "--watch")
    screen.until("kitd is away: kitd closed the connection")
    screen.until("\x1b[Hkitd 0.1.0 is ready")


def test_a_daemon_that_hangs_is_told_and_keys_are_heard(peer, answer, on_screen):
    peer.on("system.status", STATUS)
    peer.on("jobs.list", {"jobs": []})
    peer.on("events.subscribe", answer(silent=True))
    screen = on_screen("status", "--watch")
    screen.until("kitd does not answer: events.subscribe: no answer within 2 s")
    screen.type(b"q")
    screen.until(LEAVE)
    assert screen.end() == 0


def test_what_no_daemon_answers_is_told_without_a_screen(tmp_path, on_screen):
    screen = on_screen("--socket", str(tmp_path / "nothing"), "status", "--watch")
    assert ENTER not in screen.until("start it with: kitd serve")
    assert screen.end() == 4


def test_it_wants_a_terminal(kitctl):
    done = kitctl("status", "--watch")
    assert done.returncode == 2
    assert "kitctl status --watch --json" in done.stderr


def test_as_json_each_change_is_a_line(peer, live, happens):
    later = STATUS | {"daemon": STATUS["daemon"] | {"uptime_s": 201}}
    live(STATUS, later | {"degraded": ["x"]})
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "kitd.ctl.main", "--socket", str(peer.path)),
            *("status", "--watch", "--json"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert json.loads(process.stdout.readline()) == STATUS
    happens.set()
    assert json.loads(process.stdout.readline())["degraded"] == ["x"]
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, out, err) == (130, "", "")


@pytest.fixture
def packing(peer, answer, job, notify):
    """Let a job be packing, and succeed once it was asked for twice if it ends."""

    def script(*, ends=False):
        progress = {"job": 12, "phase": "packing", "bytes": 1 << 30, "total": 4 << 30}
        told = [{"method": "$/progress", "params": progress}]
        told += [notify(9, "job.succeeded")] if ends else []
        peer.on("events.subscribe", answer({"subscription": 1}, after=tuple(told)))
        peer.on("jobs.get", job(state="running"), job(state="succeeded" if ends else "running"))

    return script


def test_progress_is_drawn_again_at_a_resize(packing, on_screen):
    packing()
    screen = on_screen("jobs", "wait", "12")
    screen.until("packing  [###-----------]   25%  1.0 of 4.0 GiB")
    screen.resize(24)
    screen.until("\r\x1b[Kpacking   25%")
    screen.type(b"\x03")
    screen.until("\r\x1b[K")
    screen.until("kitctl: job 12 goes on (wait for it with: kitctl jobs wait 12)")
    assert screen.end() == 130


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_progress_is_wiped_whatever_ends_it(packing, on_screen, number):
    packing()
    screen = on_screen("jobs", "wait", "12")
    screen.until("1.0 of 4.0 GiB")
    screen.process.send_signal(number)
    assert screen.until("\r\x1b[K") == "\r\x1b[K"
    assert screen.end() == -number


def test_where_nothing_is_known_of_the_terminal_nothing_is_drawn(peer, packing, started):
    packing(ends=True)
    screen = started("env", "-u", "TERM", *program(peer), "jobs", "wait", "12")
    assert "\x1b" not in screen.until("state      succeeded")
    assert screen.end() == 0


def test_an_annotation_of_a_registry_takes_some_lines_and_no_more(peer, on_screen):
    digest = "sha256:" + "ab" * 32
    side = {"reference": "r:v1", "digest": digest, "remote": True, "config": ""}
    told = [{"key": "note", "a": "é" * 100_000, "b": None}]
    told += [{"key": f"k{number}", "a": "x", "b": None} for number in range(300)]
    nothing = {"identical": False, "shared": [], "only_a": [], "only_b": []}
    peer.on("kits.diff", {"a": side, "b": side, "annotations": told, **nothing})
    screen = on_screen("diff", "r:v1", "r:v2", "--layers")
    lines = screen.until("IN  ").splitlines()
    assert screen.end() == 0
    assert any(line.endswith("… -> nothing") for line in lines)
    assert "… and 201 more" in lines
    assert len(lines) < 120


def test_a_kitfile_on_a_terminal_is_harmless(peer, on_screen):
    yaml = "a: é\u00a0👩\u200d🔬\n  b: \x1b[2J\u202e\n"
    peer.on("kits.info", {"digest": "sha256:x", "kitfile": {}, "yaml": yaml})
    screen = on_screen("info", "r")
    screen.until("a: é\u00a0👩\u200d🔬\r\n  b: �[2J�\r\n")
