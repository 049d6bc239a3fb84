"""Servers of files that mean ill: each over TLS, on a real socket."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator

import pytest

from kitd.client import paced_http
from kitd.client.object_store import RemoteDatasetError
from kitd.client.web_file import open_file

OK = b"HTTP/1.1 200 OK\r\n"


class Web:
    """Answers with what it is told for a path, over and over where it is told so."""

    def __init__(self) -> None:
        self.url = ""
        self.answers: dict[str, bytes] = {}
        self.endless = b""
        self.pause_s = 0.0
        self.sent = 0

    def answer(self, connection: socket.socket, ended: threading.Event) -> None:
        """Answer one request, as far as somebody reads it."""
        path = connection.recv(65536).split(b" ")[1].decode()
        connection.sendall(self.answers[path])
        while self.endless and not ended.wait(self.pause_s):
            connection.sendall(self.endless)
            self.sent += len(self.endless)


@pytest.fixture
def web(certificate, monkeypatch) -> Iterator[Web]:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "certificate.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "certificate.pem", certificate / "key.pem")
    web, ended = Web(), threading.Event()

    def serve(listener: socket.socket) -> None:
        while True:
            accepted, _ = listener.accept()
            if ended.is_set():
                accepted.close()
                return
            try:
                with context.wrap_socket(accepted, server_side=True) as connection:
                    web.answer(connection, ended)
            except OSError:
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        web.url = f"https://127.0.0.1:{port}"
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            yield web
        finally:
            ended.set()
            socket.create_connection(("127.0.0.1", port)).close()
            thread.join()


@pytest.fixture
def fetched(web, tmp_path) -> Callable[[], list[bytes]]:
    def fetch() -> list[bytes]:
        with open_file({"HOME": str(tmp_path)}, f"{web.url}/a?signature=canary", "") as content:
            return list(content.chunks)

    return fetch


def test_the_body_of_a_redirect_is_not_read(web, fetched):
    web.answers["/a?signature=canary"] = (
        b"HTTP/1.1 302 Found\r\nLocation: /b\r\nContent-Length: 99999999999\r\n\r\n"
    )
    web.answers["/b"] = OK + b"Content-Length: 3\r\n\r\nabc"
    web.endless = bytes(1 << 16)
    assert b"".join(fetched()) == b"abc"
    assert web.sent < 64 << 20


@pytest.mark.parametrize(
    "location",
    [
        b"https://[::1",
        b"https://127.0.0.1:99999/",
        b"https://user@127.0.0.1/",
        b"http://127.0.0.1/",
        b"file:///etc/passwd",
    ],
)
def test_a_redirect_to_nowhere_is_refused(web, fetched, location):
    web.answers["/a?signature=canary"] = (
        b"HTTP/1.1 307 x\r\nContent-Length: 0\r\nLocation: " + location + b"\r\n\r\n"
    )
    with pytest.raises(RemoteDatasetError, match="redirects to where kitctl does not go"):
        fetched()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 206 x\r\nContent-Range: bytes 0-2/9999\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 203 x\r\nContent-Length: 3\r\n\r\nabc",
        OK + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n6\r\nabcdef\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
        OK + b"Content-Length: 3\r\nContent-Length: 6\r\n\r\nabcdef",
        OK + b"Content-Encoding: identity\r\nContent-Encoding: gzip\r\n"
        b"Content-Length: 3\r\n\r\nabc",
        OK + b"\r\nabc",
    ],
    ids=["part", "changed", "chunked", "transfer", "two sizes", "two codings", "no size"],
)
def test_what_is_not_the_whole_file_is_refused(web, fetched, answer):
    """The kit has no hash that would tell."""
    web.answers["/a?signature=canary"] = answer
    with pytest.raises(RemoteDatasetError, match=r"as it is|another form"):
        fetched()


def test_headers_without_end_are_given_up(web, fetched):
    web.answers["/a?signature=canary"] = b""
    web.endless = b"HTTP/1.1 100 Continue\r\n\r\n" * 1000
    with pytest.raises(RemoteDatasetError, match="its headers have more than"):
        fetched()


@pytest.mark.parametrize(
    ("begin", "endless"),
    [
        (OK + b"Content-Length: 1000000000\r\n\r\n", b"x"),
        (OK, b"a"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["body", "header", "continue"],
)
def test_a_trickle_is_given_up(web, fetched, monkeypatch, begin, endless):
    monkeypatch.setattr(paced_http, "WINDOW_S", 0.5)
    web.answers["/a?signature=canary"] = begin
    web.endless, web.pause_s = endless, 0.02
    with pytest.raises(RemoteDatasetError, match=r"came in|timed out") as refused:
        fetched()
    assert "canary" not in str(refused.value)


def test_a_body_is_told_as_it_comes(web, tmp_path, monkeypatch):
    """Who waits sees that it goes on."""
    web.answers["/a"] = OK + b"Content-Length: 100000\r\n\r\nabc"
    web.endless, web.pause_s = b"x", 0.05
    with open_file({"HOME": str(tmp_path)}, f"{web.url}/a", "") as content:
        assert len(next(content.chunks)) < 1000
