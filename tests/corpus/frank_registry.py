"""A registry that serves whatever bytes it is given, and writes down what it was asked for."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from corpus.artifact import Artifact, digest_of

_BLOBS = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class _Content:
    body: bytes
    headers: Mapping[str, str]


@dataclass(slots=True)
class FrankRegistry:
    """What is there by path, and the paths that were asked for."""

    host: str = ""
    asked: list[str] = field(default_factory=list)
    contents: dict[str, _Content] = field(default_factory=dict)
    tags: dict[str, list[str]] = field(default_factory=dict)

    def serve(self, repository: str, artifact: Artifact, tag: str = "v1") -> None:
        """Let a repository have an artifact, whatever it is, under a tag."""
        base = f"/v2/{repository}"
        for digest, content in artifact.blobs.items():
            self.contents[f"{base}/blobs/{digest}"] = _Content(content, {"Content-Type": _BLOBS})
        for manifest in (*artifact.children, artifact.root):
            digest = digest_of(manifest.content)
            headers = {
                "Content-Type": manifest.media_type,
                "Docker-Content-Digest": digest,
            } | dict(artifact.headers if manifest is artifact.root else {})
            content = _Content(manifest.content, headers)
            self.contents[f"{base}/manifests/{digest}"] = content
            told = headers["Docker-Content-Digest"]
            self.contents[f"{base}/manifests/{told}"] = content
        self.contents[f"{base}/manifests/{tag}"] = content
        self.tags.setdefault(repository, []).append(tag)
        listed = json.dumps({"name": repository, "tags": self.tags[repository]}).encode()
        self.contents[f"{base}/tags/list"] = _Content(listed, {"Content-Type": "application/json"})


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Say nothing of those who hang up."""


@contextmanager
def frank_registry() -> Iterator[FrankRegistry]:
    """Run a registry on a loopback port."""
    registry = FrankRegistry()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            registry.asked.append(self.path)
            found = registry.contents.get(self.path.partition("?")[0])
            if found is None:
                self._answer(200 if self.path == "/v2/" else 404, _Content(b"{}", {}))
            else:
                self._answer(200, found)

        do_HEAD = do_GET  # noqa: N815 - http.server calls it so

        def _answer(self, status: int, content: _Content) -> None:
            self.send_response(status)
            for name, value in content.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content.body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content.body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with _Server(("127.0.0.1", 0), Handler) as server:
        registry.host = f"127.0.0.1:{server.server_address[1]}"
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield registry
        finally:
            server.shutdown()
            thread.join()
