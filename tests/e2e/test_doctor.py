"""`kitctl doctor`: what is wrong is said with the command that mends it, and mending it works."""

import json
import socket
import sqlite3
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest


def checks(daemon, *options):
    """Return what was looked at, by name, and whether the command succeeded."""
    answer = daemon.kitctl("--json", "doctor", *options)
    found = answer.json["checks"]
    assert all(set(check) == {"name", "ok", "detail", "fix"} for check in found)
    assert all(check["ok"] or check["fix"] for check in found)
    assert (answer.code == 0) is all(check["ok"] for check in found)
    assert answer.code in (0, 1)
    return {check["name"]: check for check in found}


def wrong(daemon, *options):
    return {name: check for name, check in checks(daemon, *options).items() if not check["ok"]}


def test_nothing_is_wrong_with_a_daemon_that_works(kitd, watched, docker_registry):
    daemon = kitd(watched(f"{docker_registry.host}/team/demo")).start()
    daemon.quiet()
    found = checks(daemon, "--audit")
    assert [name for name, check in found.items() if not check["ok"]] == []
    assert f"registry {docker_registry.host}" in found
    assert {"ledger", "audit", "clock", "configuration", "watches", "queue"} <= set(found)
    answer = daemon.kitctl("doctor")
    assert answer.code == 0
    assert "nothing is wrong" in answer.out


def test_a_file_that_is_newer_than_what_runs(kitd):
    daemon = kitd().start()
    path = daemon.place / "kitd.yaml"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "workers": {"pack": 1}}))
    (found,) = wrong(daemon).values()
    assert "workers.pack" in found["detail"]
    assert found["fix"] == "kitctl reload"
    assert daemon.kitctl("reload").code == 0
    assert wrong(daemon) == {}

    path.write_text("workers: {pack: none}")
    (found,) = wrong(daemon).values()
    assert found["name"] == "configuration"
    assert "check-config" in found["fix"]


def test_a_registry_that_is_away_and_one_that_lets_nobody_in(kitd, docker_registry_with_login):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        away = f"127.0.0.1:{nobody.getsockname()[1]}"
        closed = docker_registry_with_login.host
        found = wrong(kitd({"registries": {away: {}, closed: {}}}).start())
    assert set(found) == {f"registry {away}", f"registry {closed}"}
    assert "refused" in found[f"registry {away}"]["detail"]
    assert "authentication required" in found[f"registry {closed}"]["detail"]


@pytest.fixture
def serve_once():
    """Serve one HTTP answer after the other, each the same."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(answer: bytes) -> str:
        def run() -> None:
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                with peer:
                    peer.recv(65536)
                    peer.sendall(answer)

        threading.Thread(target=run, daemon=True).start()
        return f"127.0.0.1:{listener.getsockname()[1]}"

    yield serve
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def test_a_clock_that_differs_from_a_registry_s(kitd, serve_once):
    date = f"{datetime.now(UTC) + timedelta(hours=1):%a, %d %b %Y %H:%M:%S GMT}"
    head = f"HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    host = serve_once(head.encode())
    found = wrong(kitd({"registries": {host: {}}}).start())
    assert set(found) == {"clock"}
    assert f"s behind {host}'s" in found["clock"]["detail"]
    assert "timedatectl" in found["clock"]["fix"]


def test_files_of_secrets_that_are_missing_or_everybody_s(kitd, tmp_path, serve_once):
    ok = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    open_file, missing = tmp_path / "open", tmp_path / "missing"
    open_file.write_text("canary-of-the-doctor")
    open_file.chmod(0o644)
    host = serve_once(ok)
    registries = {
        host: {"credentials": {"username": "ada", "password_file": str(open_file)}},
        "r.example": {"credentials": {"token_file": str(missing)}, "proxy": f"http://{host}"},
    }
    daemon = kitd({"registries": registries}).start()
    answer = daemon.kitctl("--json", "doctor")
    secrets = [c for c in answer.json["checks"] if c["name"] == "credentials"]
    assert [check["ok"] for check in secrets] == [False, False]
    assert secrets[0]["fix"] == f"chmod o-rwx {open_file}"
    assert str(missing) in secrets[1]["detail"]
    assert "canary-of-the-doctor" not in answer.out


def test_a_project_that_is_blocked(kitd, watched, project, eventually):
    (project / "Kitfile").write_text("manifestVersion: 1.0.0\nmodel: {path: [no]}\n")
    daemon = kitd(watched("localhost:1/team/demo", push=False)).start()
    eventually("the project to be blocked", lambda: daemon.project()["state"] == "blocked")
    found = wrong(daemon)
    assert found["projects"]["fix"] == "kitctl why demo"
    status = daemon.json("status")
    assert status["daemon"]["state"] == "degraded"
    assert [found["projects"]["detail"]] == status["degraded"]


def test_a_job_that_failed_until_it_is_made_good(kitd, project):
    daemon = kitd().start()
    answer = daemon.kitctl("push", "localhost:1/team/demo:none")
    assert answer.code == 1
    pack = daemon.kitctl("pack", project, "-t", "localhost:1/team/demo:v1")
    assert pack.code == 0
    (project / "Kitfile").write_text("manifestVersion: 1.0.0\nmodel: {path: nowhere.bin}\n")
    assert daemon.kitctl("pack", project, "-t", "localhost:1/team/demo:v1").code == 1
    found = wrong(daemon)
    assert set(found) == {"jobs"}
    assert "nowhere.bin" in found["jobs"]["detail"]
    (project / "nowhere.bin").write_bytes(b"here")
    assert daemon.kitctl("pack", project, "-t", "localhost:1/team/demo:v1").code == 0
    assert wrong(daemon) == {}


def test_a_ledger_that_was_tampered_with(kitd):
    daemon = kitd().start()
    with closing(sqlite3.connect(daemon.place / "state" / "ledger.sqlite3")) as ledger, ledger:
        ledger.execute(
            "INSERT INTO events (at_us, type, subject, job, data)"
            " VALUES (0, 'job.due', 'job:7', 7, '{}')"
        )
    assert wrong(daemon) == {}
    assert set(wrong(daemon, "--audit")) == {"audit"}


def test_a_clock_that_went_back(kitd):
    daemon = kitd().start()
    future_us = int((datetime.now(UTC) + timedelta(days=1)).timestamp() * 1_000_000)
    with closing(sqlite3.connect(daemon.place / "state" / "ledger.sqlite3")) as ledger, ledger:
        ledger.execute(
            "INSERT INTO events (at_us, type, subject, data) VALUES (?, 'a', 'daemon', '{}')",
            (future_us,),
        )
    found = wrong(daemon)
    assert set(found) == {"clock"}
    assert "in the future" in found["clock"]["detail"]


def test_a_state_directory_that_everybody_may_write_to(kitd):
    daemon = kitd().start()
    state = daemon.place / "state"
    state.chmod(0o777)
    (found,) = wrong(daemon).values()
    assert found["fix"] == f"chmod o-w {state}"
    state.chmod(0o775)
    assert wrong(daemon) == {}


def test_without_a_daemon_it_says_so_and_how_to_start_it(kitd):
    daemon = kitd()
    found = wrong(daemon)
    assert set(found) == {"connection", "socket", "service"}
    assert "kitd serve" in found["connection"]["fix"]
    answer = daemon.kitctl("doctor")
    assert answer.code == 1
    assert "Traceback" not in answer.err


def test_a_socket_that_a_killed_daemon_left(kitd):
    daemon = kitd().start()
    daemon.kill()
    found = wrong(daemon)
    assert "nobody answers" in found["socket"]["detail"]
    daemon.start()
    assert wrong(daemon) == {}


def test_something_else_in_the_socket_s_place(kitd, tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    answer = kitd().kitctl("--socket", path, "--json", "doctor")
    assert answer.code == 1
    assert [c["fix"] for c in answer.json["checks"] if c["name"] == "socket"] == [f"rm {path}"]
