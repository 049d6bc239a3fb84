"""Parents that only a registry has: who sends kitd there, and who waits for the answer."""

import os
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.e2e.conftest import wait_until
from tests.e2e.test_parents import write

AUTHOR = 12345


@pytest.fixture
def private_registry():
    """Run a registry that wants a login and has nothing; return its host and what it was asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, self.headers.get("Authorization")))
            if self.headers.get("Authorization"):
                self.send_response(404)
            else:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="x"')
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815 - http.server's name

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}", asked
        server.shutdown()


@contextmanager
def deaf_registry():
    """Listen, accept and say nothing; yield the host."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def child_of(host, root):
    return write(
        root, f"model: {{path: '{host}/inner/base:v1', parts: [{{path: a}}]}}\n", {"a": "x"}
    )


def configured(root, host, password, **more):
    return {
        "projects": {"alices": {"path": str(root), "reference": "mine/alices", "push": False}},
        "registries": {host: {"credentials": {"username": "kitd", "password_file": str(password)}}},
        **more,
    }


def blocked(daemon, name="alices"):
    (project,) = [each for each in daemon.json("projects", "list") if each["name"] == name]
    return project if project["state"] == "blocked" else None


@pytest.mark.skipif(os.geteuid() != 0, reason="giving files to another user needs root")
def test_a_kitfile_sends_kitd_where_its_author_may_send_it(kitd, tmp_path, private_registry):
    """Though an admin configured the project: what is in the file is its owner's to say."""
    host, asked = private_registry
    root = child_of(host, tmp_path / "alice")
    password = tmp_path / "password"
    password.write_text("the-daemons")
    password.chmod(0o600)
    for path in (root, *root.rglob("*")):
        os.chown(path, AUTHOR, AUTHOR)

    daemon = kitd(configured(root, host, password)).start()
    project = wait_until("a look at the project", lambda: blocked(daemon))
    assert f"{host}/inner/base:v1" in project["reason"]
    assert asked == []
    daemon.stop()

    rule = {"uid": AUTHOR, "role": "read", "repositories": [f"{host}/inner/*"]}
    daemon = kitd(configured(root, host, password, rpc={"access": [rule]})).start()
    project = wait_until("a look at the project", lambda: blocked(daemon))
    assert any(authorization for _, authorization in asked)
    assert "not in the cache and could not be had" in project["reason"]
    # What the registry said is for the log.
    assert "404" not in project["reason"]
    assert '"parent.unavailable"' in daemon.log.read_text()
    daemon.stop()

    # A file that somebody else may write has an author whom nobody knows.
    asked.clear()
    for path in (root, *root.rglob("*")):
        os.chown(path, 0, 0)
    (root / "Kitfile").chmod(0o666)
    daemon = kitd(configured(root, host, password)).start()
    wait_until("a look at the project", lambda: blocked(daemon))
    assert asked == []


def test_parents_that_do_not_come_keep_no_other_project_waiting(kitd, tmp_path):
    """More of them than there are scans at once; a project without parents is packed meanwhile."""
    with deaf_registry() as host:
        projects = {
            f"waiting-{number}": {
                "path": str(child_of(host, tmp_path / f"waiting-{number}")),
                "reference": f"mine/waiting-{number}",
                "push": False,
            }
            for number in range(8)
        }
        daemon = kitd({"projects": projects}).start()
        healthy = write(tmp_path / "healthy", "model: {path: a}\n", {"a": "1"})
        daemon.json("projects", "add", "healthy", healthy, "-t", "mine/healthy:v1")
        # Well before any of the others has been given up.
        wait_until("its pack", lambda: daemon.project("healthy")["last_digest"], 8)
        assert not any(blocked(daemon, name) for name in projects)
