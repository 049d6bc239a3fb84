"""One request on its way: whom it trusts, and what it goes through."""

import asyncio
import ssl
import subprocess
from contextlib import AsyncExitStack

import pytest
from yarl import URL

from kitd.outbox.error import EndpointError, EndpointTlsError, EndpointUnreachableError
from kitd.outbox.post import open_session, post
from kitd.outbox.target import Target

NOW_S = 1_700_000_000


def directly(_url):
    return None


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A certificate for this machine that nobody has signed, with its key in the same file."""
    home = tmp_path_factory.mktemp("certificate")
    options = "-x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=me"
    options += " -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(
        ["openssl", "req", *options.split(), "-keyout", "key.pem", "-out", "certificate.pem"],
        cwd=home,
        check=True,
        capture_output=True,
    )
    return home


@pytest.fixture
async def peer():
    """Start a peer that notes the heads of requests and answers with a status."""
    async with AsyncExitStack() as stack:

        async def start(status=204, **options):
            heads = []

            async def converse(reader, writer):
                heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
                writer.write(f"HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n".encode())
                await writer.drain()
                writer.close()

            server = await asyncio.start_server(converse, "127.0.0.1", 0, **options)
            await stack.enter_async_context(server)
            return server.sockets[0].getsockname()[1], heads

        yield start


@pytest.fixture
def send():
    """Send a body to a URL with connections of its own."""

    async def send(url, proxy=directly):
        target = Target(URL(url), b"secret", ())
        async with asyncio.timeout(20), await open_session() as session:
            await post(session, target, b"{}", at_s=NOW_S, proxy=proxy)

    return send


@pytest.fixture
def secure(certificate):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate / "certificate.pem", certificate / "key.pem")
    return context


async def test_a_certificate_that_nobody_knows_is_not_trusted(peer, send, secure):
    port, heads = await peer(ssl=secure)
    with pytest.raises(EndpointTlsError, match=r"https://127\.0\.0\.1:.* is not trusted") as caught:
        await send(f"https://127.0.0.1:{port}/hooks/hunter2")
    assert "hunter2" not in caught.value.describe()
    assert heads == []


async def test_the_system_s_authorities_are_those_of_the_environment(
    peer, send, secure, certificate, monkeypatch
):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "certificate.pem"))
    port, heads = await peer(ssl=secure)
    await send(f"https://127.0.0.1:{port}/hooks")
    assert heads[0].startswith("POST /hooks HTTP/1.1\r\n")


async def test_a_request_goes_through_the_proxy_that_is_named(peer, send):
    port, heads = await peer()
    asked = []

    def proxy(url):
        asked.append(str(url))
        return URL(f"http://me:secret@127.0.0.1:{port}")

    await send("http://ci.example.com/hooks", proxy)
    assert asked == ["http://ci.example.com/hooks"]
    assert heads[0].startswith("POST http://ci.example.com/hooks HTTP/1.1\r\n")
    assert "Proxy-Authorization: Basic bWU6c2VjcmV0" in heads[0]


@pytest.mark.parametrize("status", [407, 502])
async def test_a_proxy_that_refuses_is_said(peer, send, status):
    port, _ = await peer(status)
    with pytest.raises(EndpointUnreachableError, match=rf"the proxy .* refused \(HTTP {status}\)"):
        await send("https://ci.example.com/x", lambda _url: URL(f"http://127.0.0.1:{port}"))


async def test_a_proxy_that_is_not_there_is_said(send, unused_tcp_port):
    with pytest.raises(EndpointUnreachableError, match="the proxy before https"):
        await send(
            "https://ci.example.com/x", lambda _url: URL(f"http://127.0.0.1:{unused_tcp_port}")
        )


async def test_a_proxy_that_cannot_be_is_said(send):
    def proxy(_url):
        raise ValueError("http://me:hunter2@")

    with pytest.raises(EndpointUnreachableError, match="proxy for") as caught:
        await send("https://ci.example.com/x", proxy)
    assert "hunter2" not in caught.value.describe()


@pytest.mark.parametrize("host", ["a..b", "x" * 70 + ".invalid"])
async def test_a_host_that_cannot_be_is_an_error_like_others(send, host):
    with pytest.raises(EndpointError):
        await send(f"http://{host}:9/x")


async def test_no_login_of_the_user_is_sent(peer, send, tmp_path, monkeypatch):
    """An HTTP library that looks into `.netrc` gives it to whoever has the name."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login ada password hunter2\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    port, heads = await peer()
    await send(f"http://127.0.0.1:{port}/x")
    assert "authorization" not in heads[0].lower()
