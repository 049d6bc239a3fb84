"""The least that passes for a registry: swallows what is pushed, and serves files as blobs.

For measuring clients: it neither hashes nor stores, and sends with sendfile, so that next to none
of the time is its own. Runs in a process of its own, a thread for each connection.
"""

import contextlib
import math
import multiprocessing
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path

BUFFER_BYTES = 1 << 20
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONTEXT = multiprocessing.get_context("spawn")
_RANGE = re.compile(r"bytes=([0-9]+)-([0-9]*)")


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest, as it is served under its tag and its digest."""

    media_type: str
    digest: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Shelf:
    """What is served: manifests by tag and digest, blobs by digest."""

    manifests: Mapping[str, Document] = field(default_factory=dict)
    blobs: Mapping[str, Path] = field(default_factory=dict)


class Handler(BaseHTTPRequestHandler):
    """Answers as much of the distribution API as a push and a pull need."""

    protocol_version = "HTTP/1.1"
    shelf: Shelf
    most_bytes_s: float

    def do_HEAD(self) -> None:
        """Describe a manifest; deny every blob, so that it is pushed."""
        document = self.shelf.manifests.get(self._last())
        if document is None:
            self._answer(404)
        else:
            self._describe(document)

    def do_GET(self) -> None:
        """Send a manifest, a blob or a part of one."""
        if document := self.shelf.manifests.get(self._last()):
            self._describe(document)
            self.wfile.write(document.content)
        elif path := self.shelf.blobs.get(self._last()):
            self._send(path)
        else:
            self._answer(404)

    def do_POST(self) -> None:
        """Open an upload."""
        self._swallow()
        self._answer(202, Location=f"{self.path.rstrip('/')}/session")

    def do_PATCH(self) -> None:
        """Swallow a chunk and say that it arrived."""
        size = self._swallow()
        start, _, end = self.headers.get("Content-Range", "").partition("-")
        arrived = int(end) + 1 if start else size
        self._answer(202, Location=self.path, Range=f"0-{arrived - 1}")

    def do_PUT(self) -> None:
        """Swallow the rest of a blob, a manifest or any file."""
        self._swallow()
        self._answer(201)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as in the base
        """Say nothing."""

    def _last(self) -> str:
        return self.path.rpartition("/")[2]

    def _describe(self, document: Document) -> None:
        self.send_response(200)
        self.send_header("Content-Type", document.media_type)
        self.send_header("Docker-Content-Digest", document.digest)
        self.send_header("Content-Length", str(len(document.content)))
        self.end_headers()

    def _send(self, path: Path) -> None:
        size = path.stat().st_size
        start, end = 0, size
        if match := _RANGE.fullmatch(self.headers.get("Range", "")):
            start = int(match.group(1))
            end = min(size, int(match.group(2) or size) + 1)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        else:
            self.send_response(200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        out, began_s, began = self.connection.fileno(), time.monotonic(), start
        with path.open("rb") as file:
            while start < end:
                start += os.sendfile(out, file.fileno(), start, min(end - start, BUFFER_BYTES))
                early_s = (start - began) / self.most_bytes_s - (time.monotonic() - began_s)
                if early_s > 0:
                    time.sleep(early_s)

    def _swallow(self) -> int:
        """Read the body, of a stated length or in pieces; return how long it was."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            size = 0
            while piece := int(self.rfile.readline(), 16):
                size += self._discard(piece)
                self.rfile.readline()
            self.rfile.readline()
            return size
        return self._discard(int(self.headers.get("Content-Length", "0")))

    def _discard(self, size: int) -> int:
        buffer = memoryview(bytearray(BUFFER_BYTES))
        left = size
        while left:
            count = self.rfile.readinto(buffer[: min(left, BUFFER_BYTES)])  # type: ignore[attr-defined]
            if not count:
                raise ConnectionError("the body was cut off")
            left -= count
        return size

    def _answer(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients come and go."""


def _serve(shelf: Shelf, most_bytes_s: float, ready: Connection) -> None:
    fields = {"shelf": shelf, "most_bytes_s": most_bytes_s}
    handler = type("ShelfHandler", (Handler,), fields)
    server = _Server(("127.0.0.1", 0), handler)
    ready.send(server.server_address[1])
    server.serve_forever()


@contextlib.contextmanager
def plain_registry(shelf: Shelf | None = None, *, most_bytes_s: float = math.inf) -> Iterator[str]:
    """Serve on loopback and yield `host:port`; no connection is sent more than so much."""
    near, far = _CONTEXT.Pipe()
    arguments = (shelf or Shelf(), most_bytes_s, far)
    process = _CONTEXT.Process(target=_serve, args=arguments, daemon=True)
    process.start()
    try:
        yield f"127.0.0.1:{near.recv()}"
    finally:
        process.kill()
        process.join()
