"""What programs and service managers rely on: places, exit codes, shapes, systemd's protocols."""

import json
import os
import platform
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from kitd.client import Client, request

BIN = Path(sys.executable).parent
DEADLINE_S = 30.0
# Takes the place of the service manager: the daemon's own pid has to be in LISTEN_PID.
ACTIVATE = """\
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[2], sys.argv[2:])
"""


def run(*command, **environ):
    """Run a program to its end in an environment with nothing but these variables."""
    return subprocess.run(
        command,
        env={"PATH": os.environ["PATH"], **environ},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


@contextmanager
def running(*command, log, pass_fds=(), **environ):
    """Run a program with these variables and its stderr in a file; it is ended if it has not."""
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command,
            env={"PATH": os.environ["PATH"], **environ},
            stdin=subprocess.DEVNULL,
            stderr=sink,
            pass_fds=pass_fds,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_python_m_kitd_is_kitd():
    said = run(BIN / "kitd", "version").stdout
    assert said == run(sys.executable, "-m", "kitd", "version").stdout
    assert said == run(BIN / "kitd", "--version").stdout
    assert f"Python {platform.python_version()}" in said


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        ("log: {level: debug}\n", 0, ()),
        ("", 0, ()),
        (
            "projcts: {}\nlog: {level: loud}\n",
            78,
            (
                "kitd.yaml:1:1: projcts: unknown key (did you mean 'projects'?)",
                "kitd.yaml:2:14: log.level: expected one of debug, info, warning, error",
            ),
        ),
        (None, 78, ("kitd.yaml: cannot be read: no such file",)),
    ],
)
def test_check_config_names_every_problem(tmp_path, content, code, says):
    """As an argument and as KITD_CONFIG; `kitd serve` refuses the same with the same code."""
    path = tmp_path / "kitd.yaml"
    if content is not None:
        path.write_text(content)
    flagged = run(BIN / "kitd", "check-config", path, HOME=str(tmp_path))
    from_environ = run(BIN / "kitd", "check-config", HOME=str(tmp_path), KITD_CONFIG=str(path))
    assert (flagged.returncode, flagged.stderr) == (code, from_environ.stderr)
    assert len(flagged.stderr.splitlines()) == len(says)
    assert all(line in flagged.stderr for line in says)
    if code:
        served = run(BIN / "kitd", "serve", "--config", path, HOME=str(tmp_path))
        assert (served.returncode, served.stderr) == (code, flagged.stderr)


@pytest.mark.parametrize(
    ("environ", "flags", "sock", "state"),
    [
        (
            {"XDG_RUNTIME_DIR": "run", "XDG_STATE_HOME": "xdg"},
            [],
            "run/kitd/kitd.sock",
            "xdg/kitd",
        ),
        ({"XDG_RUNTIME_DIR": "run"}, [], "run/kitd/kitd.sock", ".local/state/kitd"),
        (
            {"RUNTIME_DIRECTORY": "rd", "STATE_DIRECTORY": "sd:other"},
            [],
            "rd/kitd.sock",
            "sd",
        ),
        ({}, ["--config", "kitd.yaml"], "file.sock", "file"),
        (
            {"KITD_SOCKET": "env.sock", "KITD_STATE_DIR": "env", "KITD_CONFIG": "kitd.yaml"},
            [],
            "env.sock",
            "env",
        ),
        (
            {"KITD_SOCKET": "env.sock", "KITD_STATE_DIR": "env"},
            ["--config", "kitd.yaml", "--socket", "flag.sock"],
            "flag.sock",
            "env",
        ),
    ],
    ids=["xdg", "home", "systemd", "file", "variables", "flags"],
)
def test_a_flag_beats_a_variable_beats_the_file(tmp_path, eventually, environ, flags, sock, state):
    """The daemon lives where the first of them says, and kitctl finds it by the same rule."""
    (tmp_path / "kitd.yaml").write_text(
        f"state_dir: {tmp_path}/file\nrpc: {{socket: {tmp_path}/file.sock}}\n"
    )
    places = {name: f"{tmp_path}/{value}" for name, value in environ.items()}
    arguments = [flag if flag.startswith("-") else f"{tmp_path}/{flag}" for flag in flags]
    home = {"HOME": str(tmp_path)}
    with running(BIN / "kitd", "serve", *arguments, log=tmp_path / "log", **home, **places) as kitd:
        eventually("the socket", (tmp_path / sock).is_socket)
        asked = run(BIN / "kitctl", "--socket", tmp_path / sock, "--json", "config", "show", **home)
        shown = json.loads(asked.stdout)
        assert shown["rpc"]["socket"] == str(tmp_path / sock)
        assert shown["state_dir"] == str(tmp_path / state)
        assert (tmp_path / state / "ledger.sqlite3").exists()
        if not flags:
            assert run(BIN / "kitctl", "status", **home, **places).returncode == 0
        kitd.send_signal(signal.SIGINT)
        assert kitd.wait(DEADLINE_S) == 0
    assert not (tmp_path / sock).exists()


def test_the_service_manager_hears_of_every_turn(tmp_path):
    """READY=1 once kitd answers, WATCHDOG=1 as often as asked for, STOPPING=1 at the end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(DEADLINE_S)
        environ = {
            "HOME": str(tmp_path),
            "XDG_RUNTIME_DIR": str(tmp_path),
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "WATCHDOG_USEC": "200000",
        }
        with running(BIN / "kitd", "serve", log=tmp_path / "log", **environ) as kitd:
            assert manager.recv(99) == b"READY=1"
            assert run(BIN / "kitctl", "status", **environ).returncode == 0
            for _ in range(3):
                alive, status = manager.recv(999).split(b"\n")
                assert alive == b"WATCHDOG=1"
                assert status.startswith(b"STATUS=")
            kitd.send_signal(signal.SIGHUP)
            kitd.send_signal(signal.SIGTERM)
            while (said := manager.recv(999)) != b"STOPPING=1":
                assert said.startswith((b"WATCHDOG=1\n", b"RELOADING=1\n", b"READY=1")), said
            assert kitd.wait(DEADLINE_S) == 0


def test_a_socket_of_the_service_manager_is_served_and_left_alone(tmp_path):
    """Whoever connects before kitd is there waits for it; the file outlives kitd."""
    path, log = tmp_path / "activated.sock", tmp_path / "log"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        kitd = (BIN / "kitd", "serve")
        environ = {"HOME": str(tmp_path), "KITD_STATE_DIR": str(tmp_path / "state")}
        handle = str(listener.fileno())
        with running(
            *(sys.executable, "-c", ACTIVATE, handle, *kitd),
            log=log,
            pass_fds=[listener.fileno()],
            **environ,
        ) as process:
            asked = run(BIN / "kitctl", "--socket", path, "--json", "status", **environ)
            assert json.loads(asked.stdout)["daemon"]["pid"] == process.pid
            process.terminate()
            assert process.wait(DEADLINE_S) == 0
        ready = next(line for line in log.read_text().splitlines() if "daemon.ready" in line)
        assert json.loads(ready)["socket"] == str(path)
        assert path.is_socket()


SHAPES = {
    "status": "daemon projects queue cache",
    "jobs list": "[id kind state project reference attempt max_attempts created started finished"
    " progress result error",
    "jobs show 1": "id kind state project reference attempt max_attempts created started finished"
    " progress result error",
    "jobs wait 1 --timeout 1s": "id state",
    "jobs log 1": "[seq at type subject data",
    "projects list": "[name path reference state last_digest last_packed",
    "projects hold demo": "name state",
    "projects release demo": "name state",
    "projects rescan demo": "name",
    "why demo": "subject reasons",
    "why 1": "subject reasons",
    "pack project -t demo:v2": "job digest reference config layers",
    "unpack demo:v2 -d out": "digest files bytes",
    "list": "[repo digest tags modelName size author",
    "inspect demo:v2": "digest cliVersion kitfile manifest",
    "info demo:v2": "digest kitfile yaml",
    "cache stats": "blobs physical_bytes logical_bytes shared_bytes evictable_bytes",
    "config show": "state_dir rpc projects registries",
    "version": "kitctl kitd",
}


def test_every_json_document_has_the_keys_of_the_contract(kitd, watched, project):
    """One document on stdout, whatever else is said goes to stderr."""
    daemon = kitd(watched("demo", push=False)).start()
    (daemon.place / "project").symlink_to(project)
    daemon.quiet()
    for command, keys in SHAPES.items():
        document = daemon.json(*command.split())
        if keys.startswith("["):
            document = document[0]
        assert set(keys.removeprefix("[").split()) <= set(document), command
    status = daemon.json("status")
    assert set(status["daemon"]) >= {"version", "instance", "pid", "state", "uptime_s"}
    assert set(status["queue"]) == {"ready", "running", "scheduled", "failed"}
    first, *_ = daemon.kitctl("--json", "events").out.splitlines()
    assert set(json.loads(first)) == {"seq", "at", "type", "subject", "data"}


@pytest.mark.parametrize(
    ("command", "code", "error"),
    [
        ("jobs show 999", 1, "not_found"),
        ("jobs cancel 1", 1, "conflict"),
        ("frobnicate", 2, "usage"),
        ("pack .", 2, "usage"),
        ("--socket /nowhere/kitd.sock status", 4, "daemon_unreachable"),
        ("jobs wait 2 --timeout 100ms", 5, "timeout"),
    ],
)
def test_exit_codes_and_errors(kitd, project, free_address, command, code, error):
    """The same words for people on stderr, and with --json an object on stdout."""
    daemon = kitd().start()
    assert daemon.json("pack", project, "-t", "demo:v1")["job"] == 1
    # Nobody listens there: the job is tried again and again.
    assert daemon.json("pull", f"{free_address}/x:y", "--detach")["job"] == 2

    answer = daemon.kitctl("--json", *command.split())

    assert answer.code == code
    said = answer.json["error"]
    assert set(said) == {"code", "message", "hint"}
    assert said["code"] == error
    hint = f" ({said['hint']})" if said["hint"] else ""
    assert answer.err.splitlines()[-1] == f"kitctl: {said['message']}{hint}"


def test_ctrl_c_detaches_and_the_job_goes_on(kitd, free_address, eventually):
    """Exit code 130, and the command that waits for it again."""
    daemon = kitd().start()
    environ = {"HOME": str(daemon.place), "KITD_SOCKET": str(daemon.socket)}
    log = daemon.place / "kitctl.log"
    with running(BIN / "kitctl", "pull", f"{free_address}/x:y", log=log, **environ) as kitctl:
        # It waits, and says so, once the first attempt has failed.
        eventually("the first attempt to fail", lambda: "trying again" in log.read_text())
        kitctl.send_signal(signal.SIGINT)
        assert kitctl.wait(DEADLINE_S) == 130
    assert "job 1 goes on (wait for it with: kitctl jobs wait 1)" in log.read_text()
    assert daemon.json("jobs", "show", "1")["state"] in ("scheduled", "ready", "running")


def test_why_says_what_asked_for_a_job(kitd, watched, project):
    """A project that changed, or a person."""
    daemon = kitd(watched("demo", push=False)).start()
    daemon.quiet()
    asked = daemon.json("pack", project, "-t", "demo:v2")["job"]

    def reasons(job):
        return [reason["text"] for reason in daemon.json("why", str(job))["reasons"]]

    assert any("the project came to rest in a new state" in text for text in reasons(1))
    assert any("somebody asked for it" in text for text in reasons(asked))


def test_more_jobs_are_listed_than_one_call_returns(kitd, free_address):
    """`-n` is what a person says, whatever the pages on the socket are."""
    daemon = kitd().start()
    with Client.connect(daemon.socket) as client:
        for number in range(502):
            client.call(request.pull(f"{free_address}/x:{number}"))

    listed = daemon.json("jobs", "list", "-n", "501")

    assert [job["id"] for job in listed] == list(range(502, 1, -1))
    assert len(daemon.json("jobs", "list", "-n", "9999")) == 502
