"""A small object store on loopback that speaks as much of S3 as an unpack asks for.

Signatures are checked as the server's side has to: from the request as it came.
"""

import hashlib
import hmac
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

ACCESS_KEY, SECRET_KEY, REGION = "ada", "correct horse", "here-1"
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/s3/aws4_request, "
    r"SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})"
)


@dataclass
class ObjectStore:
    """Objects by their path and query, such as `/bucket/key` or `/bucket/key?versionId=1`."""

    url: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    statuses: list[int] = field(default_factory=list)
    """What was answered, in order."""
    cut: bool = False
    """Whether connections end in the middle of an object."""
    redirect: str | None = None

    def put(self, path: str, content: bytes) -> str:
        """Store an object; return its ETag."""
        self.objects[path] = content
        return etag(content)

    @property
    def environ(self) -> dict[str, str]:
        return {
            "S3_API_ENDPOINT": self.url,
            "S3_REGION": REGION,
            "S3_ACCESS_KEY_ID": ACCESS_KEY,
            "S3_SECRET_KEY": SECRET_KEY,
        }


def etag(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _is_signed(handler: BaseHTTPRequestHandler) -> bool:
    match = _AUTHORIZATION.fullmatch(handler.headers.get("Authorization", ""))
    if match is None or (match[1], match[3]) != (ACCESS_KEY, REGION):
        return False
    names = match[4].split(";")
    path, _, query = handler.path.partition("?")
    lines = [handler.command, path, query]
    lines += [f"{name}:{handler.headers[name].strip()}" for name in names]
    lines += ["", match[4], handler.headers["x-amz-content-sha256"]]
    moment = handler.headers["x-amz-date"]
    scope = f"{match[2]}/{REGION}/s3/aws4_request"
    hashed = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    key = b"AWS4" + SECRET_KEY.encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashed}"
    expected = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    return "host" in names and moment.startswith(match[2]) and expected == match[5]


@contextmanager
def serve_objects() -> Iterator[ObjectStore]:
    store = ObjectStore()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = store.objects.get(self.path)
            if store.redirect is not None:
                self._answer(307, {"Location": store.redirect})
            elif not _is_signed(self):
                self._answer(403)
            elif content is None:
                self._answer(404)
            elif self.headers.get("If-Match") != f'"{etag(content)}"':
                self._answer(412)
            else:
                tags = {"ETag": f'"{etag(content)}"', "Content-Length": str(len(content))}
                self._answer(200, tags, content[:-1] if store.cut else content)

        def _answer(
            self, status: int, headers: dict[str, str] | None = None, content: bytes = b""
        ) -> None:
            store.statuses.append(status)
            self.send_response(status)
            for name, value in ({"Content-Length": "0"} | (headers or {})).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Nobody reads along."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        store.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield store
        finally:
            server.shutdown()
            thread.join()
