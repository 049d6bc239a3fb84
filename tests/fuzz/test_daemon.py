"""A daemon as it is started, and clients that send it whatever bytes they like.

Each input has a connection of its own. What counts is what the daemon does to others meanwhile: it
answers them, it does not grow, it calls nothing a defect, and each connection comes to its end.
"""

import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kitd.client import Client, request

BIN = Path(sys.executable).parent
DEADLINE_S = 20.0
GROWTH_BYTES = 64 << 20
SILENCE_S = 0.1
READ_BYTES = 1 << 16
ASKED_EVERY = 50
"""Inputs between two looks whether the daemon still answers others."""
BLOB = b"{}"
DIGEST = "sha256:" + hashlib.sha256(BLOB).hexdigest()
MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/json", "digest": DIGEST, "size": 2},
        "layers": [],
    }
).encode()


def http(method: str, path: str, body: bytes = b"", *headers: str) -> bytes:
    """Return a request as it stands on the wire."""
    lines = (f"{method} {path} HTTP/1.1", "Host: kitd", "Connection: close", *headers)
    if body:
        lines = (*lines, f"Content-Length: {len(body)}")
    return "\r\n".join((*lines, "", "")).encode() + body


CHUNKED = b"5\r\nhello\r\n0\r\n\r\n"
TYPED = "Content-Type: application/vnd.oci.image.manifest.v1+json"
GATEWAY = [
    http("GET", "/v2/"),
    http("POST", f"/v2/team/x/blobs/uploads/?digest={DIGEST}", BLOB),
    http("PUT", "/v2/team/x/manifests/v1", MANIFEST, TYPED),
    http("GET", "/v2/team/x/manifests/v1"),
    http("GET", f"/v2/team/x/blobs/{DIGEST}", b"", "Range: bytes=0-1"),
    http("HEAD", f"/v2/team/x/blobs/{DIGEST}"),
    http("GET", "/v2/team/x/tags/list?n=5&last=a"),
    http("GET", f"/v2/team/x/referrers/{DIGEST}?artifactType=a"),
    http("POST", f"/v2/team/y/blobs/uploads/?mount={DIGEST}&from=team/x"),
    http("POST", "/v2/team/x/blobs/uploads/") + http("GET", "/v2/"),
    http("PATCH", "/v2/team/x/blobs/uploads/0", b"abc", "Content-Range: 0-2"),
    http("PATCH", "/v2/team/x/blobs/uploads/0", b"", "Transfer-Encoding: chunked") + CHUNKED,
    http("DELETE", "/v2/team/x/manifests/v1"),
]
CALLS = [
    b'{"jsonrpc":"2.0","id":1,"method":"system.hello","params":{"client":"fuzz"}}\n',
    b'{"jsonrpc":"2.0","id":2,"method":"jobs.list","params":{"limit":5,"state":"failed"}}\n',
    b'{"jsonrpc":"2.0","id":3,"method":"events.subscribe","params":{"from_seq":0}}\n',
    b'{"jsonrpc":"2.0","id":4,"method":"events.read","params":{"from_seq":0,"limit":10}}\n',
    b'{"jsonrpc":"2.0","id":5,"method":"kits.inspect","params":{"reference":"team/x:v1"}}\n',
    b'{"jsonrpc":"2.0","id":6,"method":"kits.pack","params":{"path":"/x","reference":"a/b:v1"}}\n',
    b'{"jsonrpc":"2.0","id":7,"method":"kits.pull","params":{"reference":"localhost:9/b:v1"}}\n',
    b'{"jsonrpc":"2.0","id":8,"method":"jobs.wait","params":{"id":1,"timeout_ms":1}}\n',
    (
        b'{"jsonrpc":"2.0","id":9,"method":"projects.add","params":'
        b'{"name":"x","path":"/nowhere","reference":"localhost/team/x"}}\n'
    ),
    b'{"jsonrpc":"2.0","id":10,"method":"projects.remove","params":{"name":"x"}}\n',
    (
        b'[{"jsonrpc":"2.0","id":1,"method":"system.ping"},{"jsonrpc":"2.0","method":"jobs.cancel",'
        b'"params":{"id":1}}]\n'
    ),
    (
        b'{"jsonrpc":"2.0","id":"s","method":"system.status"}\n'
        b'{"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":"s"}}\n'
    ),
    b'{"jsonrpc":"2.0","id":11,"method":"system.discover"}\n',
    b'{"jsonrpc":"2.0","id":12,"method":"system.why","params":{"subject":"job:1"}}\n',
    b'{"jsonrpc":"2.0","id":13,"method":"cache.stats"}\n',
]


class Daemon:
    """A daemon with its own registry."""

    def __init__(self, place: Path, address: str) -> None:
        self.place = place
        host, _, port = address.rpartition(":")
        self.registry = (host, int(port))
        self.socket = str(place / "kitd.sock")
        config = {
            "state_dir": str(place / "state"),
            "log": {"format": "json"},
            "registry": {"listen": address, "writable": True},
        }
        (place / "kitd.yaml").write_text(json.dumps(config))
        with (place / "kitd.log").open("wb") as log:
            self.process = subprocess.Popen(
                [BIN / "kitd", "serve", "--config", place / "kitd.yaml", "--socket", self.socket],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"], "HOME": str(place)},
            )
        end_s = time.monotonic() + DEADLINE_S
        while b"daemon.ready" not in self.log():
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < end_s, self.log()
            time.sleep(0.02)

    def log(self) -> bytes:
        return (self.place / "kitd.log").read_bytes()

    def complaints(self) -> list[bytes]:
        """Return the lines of the log that tell of a defect."""
        marks = (b"Traceback", b"defect", b"rpc.call_failed", b"connection_failed", b'"exception"')
        return [line for line in self.log().splitlines() if any(mark in line for mark in marks)]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=DEADLINE_S)


@pytest.fixture
def daemon(tmp_path, free_address):
    daemon = Daemon(tmp_path, free_address)
    yield daemon
    if daemon.process.poll() is None:
        daemon.process.kill()
        daemon.process.wait()


def exchange_lines(path: str, data: bytes) -> bytes:
    """Send, say that this was all, and read until kitd has closed the connection."""
    answer = b""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(DEADLINE_S)
        sock.connect(path)
        with contextlib.suppress(ConnectionError):
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            while chunk := sock.recv(READ_BYTES):
                answer += chunk[: READ_BYTES - len(answer)]
                # Of a subscription there is no end.
                if b'"subscription"' in answer:
                    break
    return answer


def exchange_http(address: tuple[str, int], data: bytes) -> bytes:
    """Send, and read the beginning of the answer, if there is any: what is cut has none."""
    with socket.create_connection(address) as sock:
        sock.settimeout(SILENCE_S)
        with contextlib.suppress(ConnectionError, TimeoutError):
            sock.sendall(data)
            return sock.recv(READ_BYTES)
    return b""


def outcome_of(answer: bytes) -> str:
    """Return what tells one answer from another."""
    if answer.startswith(b"HTTP/"):
        return answer.partition(b"\r\n")[0].decode("latin-1")
    with contextlib.suppress(ValueError, AttributeError, TypeError, KeyError):
        return str(json.loads(answer.partition(b"\n")[0])["error"]["data"]["code"])
    return f"{answer[:12]!r}"


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("corpus", [CALLS, GATEWAY], ids=["rpc", "registry"])
def test_whatever_bytes_come_the_daemon_serves_the_others(
    corpus, daemon, mutations, fuzz_s, memory_of
):
    """It answers, ends every connection, stays as large as it is, and stops in good order."""
    seconds = 4 * fuzz_s
    inputs = mutations(corpus)
    held_bytes = 0
    begin_s = time.monotonic()
    with Client.connect(daemon.socket) as other:
        for count, data in enumerate(inputs):
            spent_s = time.monotonic() - begin_s
            if spent_s > seconds:
                break
            if not held_bytes and spent_s > seconds / 3:
                held_bytes = memory_of(daemon.process.pid)
            try:
                if corpus is CALLS:
                    answer = exchange_lines(daemon.socket, data)
                else:
                    answer = exchange_http(daemon.registry, data)
            except TimeoutError:
                raise AssertionError(f"the connection does not end: {data!r:.5000}") from None
            inputs.learn(data, outcome_of(answer))
            if count % ASKED_EVERY == 0:
                other.call(request.hello("fuzz"), timeout_s=DEADLINE_S)
                assert not daemon.complaints(), f"{data!r:.2000}\n{daemon.complaints()}"
        other.call(request.status(), timeout_s=DEADLINE_S)
    grown_bytes = memory_of(daemon.process.pid) - held_bytes if held_bytes else 0
    assert not daemon.complaints()
    assert grown_bytes < GROWTH_BYTES, f"grew by {grown_bytes >> 20} MiB in {count} inputs"
    assert inputs.outcomes > 4
    assert daemon.stop() == 0, daemon.log()
