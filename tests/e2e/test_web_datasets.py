"""Datasets that are files of web servers: fetched by kitctl, over TLS, and nobody else is told."""

import hashlib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

CONTENT = b"text,label\n" + bytes(range(256)) * 9000
HASH = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
LOGIN = "Basic YWRhOmNvcnJlY3QtaG9yc2U="


class WebServer:
    """A server of one file at `/data/train.csv`, as well or as badly as told."""

    def __init__(self) -> None:
        self.url = ""
        self.content = CONTENT
        self.redirect: str | None = None
        self.headers: dict[str, str] = {}
        self.cut = False
        self.private = False
        self.asked: list[tuple[str, str | None]] = []


@contextmanager
def serve(context: ssl.SSLContext | None) -> Iterator[WebServer]:
    web = WebServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            web.asked.append((self.path, self.headers["Authorization"]))
            length = {"Content-Length": str(len(web.content))}
            if web.redirect is not None:
                self.answer(302, {"Location": web.redirect, "Content-Length": "0"})
            elif web.private and self.headers["Authorization"] != LOGIN:
                self.answer(401, {"Content-Length": "0"})
            elif not self.path.startswith("/data/train.csv"):
                self.answer(404, {"Content-Length": "0"})
            else:
                self.answer(200, length | web.headers)
                self.wfile.write(web.content[:-1] if web.cut else web.content)

        def answer(self, status: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if value:
                    self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nobody reads along."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Clients that do not trust it go away."""

    with Server(("127.0.0.1", 0), Handler) as server:
        scheme = "http"
        if context is not None:
            server.socket = context.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
            scheme = "https"
        web.url = f"{scheme}://127.0.0.1:{server.server_address[1]}"
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield web
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def context(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "certificate.pem", certificate / "key.pem")
    return context


@pytest.fixture
def web(context):
    with serve(context) as web:
        yield web


@pytest.fixture
def packed(kitd, web, new_project, tmp_path, certificate):
    """Return what packs a kit with a dataset of a server, and the daemon that did."""
    daemon = kitd().start()
    # Of the client alone: kitd has no part in it.
    daemon.environ["SSL_CERT_FILE"] = str(certificate / "certificate.pem")

    def pack(url=None, hashed=HASH):
        url = url or f"{web.url}/data/train.csv"
        hashed = f", remoteHash: '{hashed}'" if hashed else ""
        kitfile = (
            "manifestVersion: 1.0.0\nmodel: {name: m, path: model.bin}\n"
            f"datasets: [{{name: far, path: far/train.csv, remotePath: '{url}'{hashed}}}]\n"
        )
        return daemon.json("pack", new_project(tmp_path / "project", kitfile), "-t", "demo:v1")

    daemon.pack = pack
    return daemon


def names(root):
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("hashed", [HASH, ""])
def test_it_is_recorded_and_fetched_where_that_is_asked_for(packed, web, tmp_path, hashed):
    made = packed.pack(hashed=hashed)
    assert bool(made["warnings"]) is (not hashed)
    near, far = tmp_path / "near", tmp_path / "far"
    done = packed.kitctl("unpack", "demo:v1", "-d", near)
    assert (done.code, done.err.count("--include-remote"), web.asked) == (0, 1, [])
    assert names(near) == {"Kitfile", "model.bin"}
    done = packed.kitctl("unpack", "demo:v1", "-d", far, "--include-remote")
    assert (done.code, done.err) == (0, "")
    assert (far / "far" / "train.csv").read_bytes() == CONTENT
    assert web.asked == [("/data/train.csv", None)]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda web, environ: setattr(web, "content", CONTENT[::-1]), "its SHA-256 is"),
        (lambda web, environ: setattr(web, "cut", True), "too early"),
        (lambda web, environ: setattr(web, "private", True), "answers 401"),
        (lambda web, environ: setattr(web, "redirect", "/gone"), "without end"),
        (lambda web, environ: web.headers.update({"Content-Length": ""}), "how large"),
        (lambda web, environ: web.headers.update({"Content-Encoding": "gzip"}), "another form"),
        (lambda web, environ: environ.pop("SSL_CERT_FILE"), "is not trusted"),
    ],
    ids=["changed", "cut", "private", "round and round", "endless", "compressed", "untrusted"],
)
def test_what_cannot_be_had_leaves_the_target_as_it_was(packed, web, tmp_path, change, why):
    packed.pack(f"{web.url}/data/train.csv?signature=canary")
    change(web, packed.environ)
    refused = packed.kitctl("unpack", "demo:v1", "-d", tmp_path / "target", "--include-remote")
    assert (refused.code, "canary" in refused.err, "Traceback" in refused.err) == (1, False, False)
    assert why in refused.err
    assert len(web.asked) <= 7
    assert not (tmp_path / "target").exists()


def test_a_login_is_shown_to_its_server_and_to_no_other(packed, web, context, tmp_path):
    (packed.place / ".netrc").write_text("machine 127.0.0.1 login ada password correct-horse\n")
    (packed.place / ".netrc").chmod(0o600)
    packed.pack()
    web.private = True
    packed.json("unpack", "demo:v1", "-d", tmp_path / "one", "--include-remote")
    assert web.asked == [("/data/train.csv", LOGIN)]
    with serve(context) as other:
        web.redirect = f"{other.url}/data/train.csv?signed=yes"
        packed.json("unpack", "demo:v1", "-d", tmp_path / "two", "--include-remote")
        assert other.asked == [("/data/train.csv?signed=yes", None)]
    assert (tmp_path / "two" / "far" / "train.csv").read_bytes() == CONTENT


def test_nobody_is_sent_to_where_there_is_no_tls(packed, web, tmp_path):
    packed.pack()
    with serve(None) as plain:
        for target in (f"{plain.url}/data/train.csv", "file:///etc/passwd", "ftp://127.0.0.1/x"):
            web.redirect = target
            refused = packed.kitctl("unpack", "demo:v1", "-d", tmp_path / "t", "--include-remote")
            assert (refused.code, "does not go" in refused.err) == (1, True), target
        assert plain.asked == []
