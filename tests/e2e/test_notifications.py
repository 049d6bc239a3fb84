"""Endpoints hear of what a real kitd does: signed, in order, nothing missing after kill -9."""

import hashlib
import hmac
import json
import queue
import sqlite3
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

SECRET = b"a secret between two"
TYPES = ["kit.*", "tag.moved"]


class Hook(BaseHTTPRequestHandler):
    """Takes what it is sent, once `server.before` has been called with it."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.put((dict(self.headers), body))
        self.server.before(json.loads(body))
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def hook():
    """A receiver; `url` is where."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    server.daemon_threads = True
    server.requests = queue.Queue()
    server.before = lambda _event: None
    server.status = 204
    server.url = f"http://127.0.0.1:{server.server_port}/hooks/kitd"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def notifications(hook, tmp_path):
    """The section of the configuration."""
    path = tmp_path / "hook.secret"
    path.write_bytes(SECRET + b"\n")
    path.chmod(0o600)
    return {"ci": {"url": hook.url, "types": TYPES, "secret_file": str(path)}}


def take(hook):
    """Return the next event; its signature is good."""
    headers, body = hook.requests.get(timeout=30)
    time, _, mac = headers["X-Kitd-Signature"].partition(",sha256=")
    signed = time.removeprefix("t=").encode() + b"." + body
    assert mac == hmac.new(SECRET, signed, hashlib.sha256).hexdigest()
    return json.loads(body)


def sql(daemon, statement):
    """Look into the ledger as a person with `sqlite3` does."""
    path = daemon.place / "state" / "ledger.sqlite3"
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as ledger:
        return ledger.execute(statement).fetchall()


def test_an_endpoint_hears_of_a_kit(kitd, watched, project, hook, notifications):
    """It comes with a reload, and is told of the next version."""
    daemon = kitd(watched("localhost:1/team/demo", push=False)).start()
    daemon.quiet()
    path = daemon.place / "kitd.yaml"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"notifications": notifications}))
    assert "notifications.ci" in daemon.kitctl("reload").out
    instance = daemon.json("status")["daemon"]["instance"]
    (project / "data" / "a.csv").write_text("text,label\nbad,0\n")

    told = [take(hook), take(hook)]

    assert {event["type"] for event in told} == {"dev.kitd.kit.packed", "dev.kitd.tag.moved"}
    digest = daemon.quiet()["last_digest"]
    packed = next(event for event in told if event["type"] == "dev.kitd.kit.packed")
    assert packed["subject"] == f"kit:{digest}"
    assert packed["source"] == f"urn:kitd:{instance}"
    assert packed["kitdproject"] == "demo"
    assert packed["data"] == {"repository": "localhost:1/team/demo", "tags": ["latest"]}
    assert daemon.stop() == 0
    assert hook.requests.empty()


def test_kill_9_before_the_cursor_is_a_repeat_and_nothing_is_missing(
    kitd, watched, project, hook, notifications
):
    """Killed while the endpoint has an event and kitd does not know; and what came meanwhile."""
    daemon = kitd({**watched("localhost:1/team/demo", push=False), "notifications": notifications})
    killed = threading.Event()

    def kill_once(event):
        if event["type"] == "dev.kitd.kit.packed" and not killed.is_set():
            daemon.kill()
            killed.set()

    hook.before = kill_once
    daemon.start(ready=False)
    assert killed.wait(30), daemon.log.read_text()
    daemon.start()
    daemon.quiet()
    (project / "model.bin").write_bytes(b"other weights")
    wanted = (
        "SELECT seq, at_us FROM events WHERE type GLOB 'kit.*' OR type = 'tag.moved' ORDER BY seq"
    )
    told = []
    while sum(event["type"] == "dev.kitd.kit.packed" for event in told) < 3:
        told.append(take(hook))
    daemon.quiet()
    instance = daemon.json("status")["daemon"]["instance"]
    expected = [f"{instance}-{seq}-{at_us}" for seq, at_us in sql(daemon, wanted)]
    while len({event["id"] for event in told}) < len(expected):
        told.append(take(hook))

    ids = [event["id"] for event in told]
    assert list(dict.fromkeys(ids)) == expected
    packed = [event for event in told if event["type"] == "dev.kitd.kit.packed"]
    assert packed[0] == packed[1]
    assert len(ids) == len(expected) + 1
    assert daemon.stop() == 0


def test_an_endpoint_that_fails_is_what_status_tells(kitd, hook, notifications, eventually):
    hook.status = 500
    daemon = kitd({"notifications": {"ci": notifications["ci"] | {"types": ["*"]}}}).start()
    assert daemon.kitctl("reload").code == 0

    def said():
        status = daemon.kitctl("status").out
        return status if "notification endpoint ci" in status else None

    status = eventually("status to tell of it", said)
    assert "answered HTTP 500" in status
    assert hook.url.rpartition(":")[2] not in status
    assert daemon.kitctl("doctor").code == 1
    hook.status = 200
    eventually("it to be well", lambda: said() is None)
