"""How a registry is reached: TLS with authorities and certificates of one's own, and proxies."""

import asyncio
import base64
import os

import pytest

from kitd.content.verify import read
from kitd.errors import Disposition
from kitd.oci.descriptor import describe
from kitd.oci.reference import Repository
from kitd.registry.client import OPENING_S, RegistryClient
from kitd.registry.errors import (
    RegistryProxyError,
    RegistryTlsError,
    RegistryUnreachableError,
)
from kitd.registry.receiver import WORTHWHILE_BYTES
from kitd.registry.settings import RegistrySettings
from kitd.registry.tls import tls_context
from kitd.registry.transport import Surroundings
from kitd.secret import Secrets

CONTENT = b"ten bytes."
TARGET = describe("application/octet-stream", CONTENT)


@pytest.fixture
def start_tls_registry(start_docker_registry, pki):
    """Start Debian's registry with TLS and return its address."""

    def start(certificate="registry", *, clients=()):
        tls = {
            "certificate": str(pki / f"{certificate}.pem"),
            "key": str(pki / f"{certificate}.key"),
        }
        if clients:
            tls["clientcas"] = [str(pki / f"{name}.pem") for name in clients]
        return start_docker_registry(http={"tls": tls}).host

    return start


def settings(pki, *, client=None, **others):
    shown = {} if client is None else {"client_cert": pki / f"{client}.pem"}
    if client is not None:
        shown["client_key"] = pki / f"{client}.key"
    return RegistrySettings(plain_http=False, ca_file=pki / "ca.pem", **shown, **others)


# TLS.


async def test_an_own_authority_is_trusted_where_it_is_named(
    start_tls_registry, connect, cache, pki
):
    host = start_tls_registry()
    remote = await connect(host, settings=settings(pki))
    assert await remote.push(cache.put(CONTENT), cache) == len(CONTENT)
    assert await remote.exists(TARGET)


async def test_large_blobs_go_through_tls_and_come_back(start_tls_registry, connect, cache, pki):
    remote = await connect(start_tls_registry(), settings=settings(pki))
    target = cache.put(os.urandom(WORTHWHILE_BYTES + 1))
    assert await remote.push(target, cache) == target.size
    assert len(await read(remote, target, max_bytes=target.size)) == target.size


async def test_an_authority_that_nobody_named_is_not_trusted(start_tls_registry, connect, pki):
    host = start_tls_registry()
    for ca_file in (None, pki / "stranger.pem"):
        wrong = RegistrySettings(plain_http=False, ca_file=ca_file)
        with pytest.raises(RegistryTlsError, match="certificate is not trusted") as caught:
            await (await connect(host, settings=wrong)).exists(TARGET)
        assert "ca_file" in caught.value.hint
        assert caught.value.disposition is Disposition.FAIL


async def test_an_expired_certificate_is_said_to_be_that(start_tls_registry, connect, pki):
    remote = await connect(start_tls_registry("expired"), settings=settings(pki))
    with pytest.raises(RegistryTlsError, match="certificate has expired") as caught:
        await remote.exists(TARGET)
    assert "renew" in caught.value.hint


async def test_a_certificate_for_another_host_is_refused(start_tls_registry, connect, pki):
    port = start_tls_registry().rpartition(":")[2]
    remote = await connect(f"localhost:{port}", settings=settings(pki))
    with pytest.raises(RegistryTlsError, match="localhost"):
        await remote.exists(TARGET)


async def test_a_client_certificate_is_shown_to_who_asks_for_it(
    start_tls_registry, connect, cache, pki
):
    remote = await connect(
        start_tls_registry(clients=["ca"]), settings=settings(pki, client="client")
    )
    assert await remote.push(cache.put(CONTENT), cache) == len(CONTENT)


@pytest.mark.parametrize("client", [None, "impostor"])
async def test_without_the_right_client_certificate_it_is_said_what_is_missing(
    start_tls_registry, connect, pki, client
):
    host = start_tls_registry(clients=["ca"])
    remote = await connect(host, settings=settings(pki, client=client))
    # It says so after the handshake and hangs up, which may overtake what it said.
    for _ in range(20):
        with pytest.raises((RegistryTlsError, RegistryUnreachableError)) as caught:
            await remote.exists(TARGET)
        if caught.type is RegistryTlsError:
            break
    assert "client_cert" in str(caught.value.hint)


async def test_certificates_are_found_where_podman_keeps_them(
    start_tls_registry, connect, pki, tmp_path
):
    host = start_tls_registry(clients=["ca"])
    directory = tmp_path / ".config" / "containers" / "certs.d" / host
    directory.mkdir(parents=True)
    for name, source in (
        ("authority.crt", "ca.pem"),
        ("me.cert", "client.pem"),
        ("me.key", "client.key"),
        ("notes.txt", "names"),
    ):
        (directory / name).write_bytes((pki / source).read_bytes())
    environment = {"HOME": str(tmp_path)}
    found = RegistrySettings(plain_http=False)
    remote = await connect(host, settings=found, environment=environment)
    assert not await remote.exists(TARGET)

    # What is configured counts, and nothing else then.
    named = RegistrySettings(plain_http=False, ca_file=pki / "stranger.pem")
    with pytest.raises(RegistryTlsError):
        await (await connect(host, settings=named, environment=environment)).exists(TARGET)

    (directory / "me.key").unlink()
    with pytest.raises(RegistryTlsError, match=r"me\.cert cannot be used"):
        await connect(host, settings=found, environment=environment)


# Proxies.


class Proxy:
    """An HTTP proxy that knows one registry under a name, whatever name it is asked for."""

    def __init__(self, upstream, *, login=None):
        self.host, port = upstream.rsplit(":", 1)
        self.port = int(port)
        self.login = login
        self.asked = []
        """The first lines of what it was asked."""
        self.heads = []

    async def serve(self, reader, writer):
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return
        line, _, _ = head.decode().partition("\r\n")
        self.asked.append(line)
        self.heads.append(head.decode())
        proof = base64.b64encode((self.login or "").encode()).decode()
        if self.login is not None and f"Proxy-Authorization: Basic {proof}" not in head.decode():
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return
        other_reader, other_writer = await asyncio.open_connection(self.host, self.port)
        method, url, _ = line.split(" ")
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            path = "/" + url.split("/", 3)[3]
            other_writer.write(head.replace(url.encode(), path.encode(), 1))
        async with asyncio.TaskGroup() as group:
            group.create_task(pipe(reader, other_writer))
            group.create_task(pipe(other_reader, writer))


async def pipe(reader, writer):
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


NAME = "registry.example.com"
"""Nobody resolves it: only a proxy knows where it is."""


async def test_tls_goes_through_a_tunnel_and_the_proxy_sees_only_the_name(
    start_tls_registry, connect, cache, pki, talk
):
    proxy = Proxy(start_tls_registry())
    through = settings(pki, proxy=f"http://{await talk(proxy.serve)}")
    remote = await connect(NAME, settings=through)
    assert await remote.push(cache.put(CONTENT), cache) == len(CONTENT)
    assert set(proxy.asked) == {f"CONNECT {NAME}:443 HTTP/1.1"}


@pytest.mark.parametrize("plain_http", [True, False])
async def test_the_proxy_of_the_environment_is_used_and_its_login_not_told(
    docker_registry, start_tls_registry, connect, pki, talk, plain_http
):
    upstream = docker_registry.host if plain_http else start_tls_registry()
    proxy = Proxy(upstream, login="ada:hunter2-secret")
    address = await talk(proxy.serve)
    reach = RegistrySettings(plain_http=plain_http, ca_file=pki / "ca.pem")
    variable = "http_proxy" if plain_http else "HTTPS_PROXY"
    environment = {variable: f"http://ada:hunter2-secret@{address}"}
    remote = await connect(NAME, settings=reach, environment=environment)
    assert not await remote.exists(TARGET)
    assert proxy.asked[0].split(" ")[0] == ("HEAD" if plain_http else "CONNECT")

    wrong = {variable: f"http://ada:another-secret@{address}"}
    remote = await connect(NAME, settings=reach, environment=wrong)
    with pytest.raises(RegistryProxyError, match="407") as caught:
        await remote.exists(TARGET)
    assert "secret" not in caught.value.describe()
    assert "HTTPS_PROXY" in caught.value.hint


async def test_a_secret_of_a_proxy_is_known_as_one(docker_registry, talk):
    proxy = Proxy(docker_registry.host, login="ada:hunter2-secret")
    address = await talk(proxy.serve)
    secrets = Secrets()
    surroundings = Surroundings(
        environment={"HTTP_PROXY": f"http://ada:hunter2-secret@{address}"}, secrets=secrets
    )
    plain = RegistrySettings(plain_http=True)
    async with RegistryClient(lambda _: plain, surroundings) as client:
        await (await client.repository(Repository(NAME, "team/model"))).exists(TARGET)
    assert secrets.redact("got hunter2-secret") == "got [redacted]"


async def test_what_no_proxy_names_is_reached_directly(docker_registry, connect, talk):
    proxy = Proxy(docker_registry.host)
    environment = {
        "HTTP_PROXY": f"http://{await talk(proxy.serve)}",
        "NO_PROXY": "registry.invalid",
    }
    plain = RegistrySettings(plain_http=True)
    remote = await connect("registry.invalid", settings=plain, environment=environment)
    with pytest.raises(RegistryUnreachableError, match=r"registry\.invalid"):
        await remote.exists(TARGET)
    # This machine itself never needs one.
    remote = await connect(docker_registry.host, environment=environment)
    assert not await remote.exists(TARGET)
    assert proxy.asked == []


async def test_the_configured_proxy_counts_more_than_the_environment(
    docker_registry, connect, talk
):
    proxy = Proxy(docker_registry.host)
    through = RegistrySettings(plain_http=True, proxy=f"http://{await talk(proxy.serve)}")
    environment = {"HTTP_PROXY": "http://127.0.0.1:1", "NO_PROXY": "*"}
    remote = await connect(NAME, settings=through, environment=environment)
    assert not await remote.exists(TARGET)
    assert len(proxy.asked) == 1


async def test_a_proxy_that_is_not_there_is_named_as_the_trouble(connect, free_address):
    through = RegistrySettings(proxy=f"http://{free_address}")
    remote = await connect(NAME, settings=through)
    with pytest.raises(RegistryUnreachableError, match="its proxy cannot be reached") as caught:
        await remote.exists(TARGET)
    assert "HTTPS_PROXY" in caught.value.hint


async def test_a_variable_that_names_no_proxy_is_told_without_its_secret(connect):
    environment = {"HTTPS_PROXY": "socks5://ada:hunter2-secret@proxy.example.com:1080"}
    remote = await connect(NAME, environment=environment)
    with pytest.raises(RegistryProxyError, match="HTTPS_PROXY names no HTTP proxy") as caught:
        await remote.exists(TARGET)
    assert "secret" not in caught.value.describe()


async def test_certificates_that_cannot_be_read_hold_up_no_other_registry(tmp_path):
    """As on a file server that is gone: here it is a pipe that nobody writes to."""
    pipe = tmp_path / "ca.pem"
    os.mkfifo(pipe)
    settings = {"bad.example.com": RegistrySettings(ca_file=pipe)}
    async with RegistryClient(
        lambda host: settings.get(host, RegistrySettings()), Surroundings(environment={})
    ) as client:
        good, bad = (Repository(f"{name}.example.com", "a/b") for name in ("good", "bad"))
        opening = [asyncio.create_task(client.repository(bad)) for _ in range(2)]
        try:
            await asyncio.sleep(0)
            async with asyncio.timeout(OPENING_S / 2):
                await client.repository(good)
                await client.repository(good)
            for each in opening:
                with pytest.raises(RegistryTlsError, match=r"bad\.example\.com.*in time"):
                    await each
        finally:
            # Only so does its thread end. There is one, whoever asks.
            pipe.open("w").close()


def test_registries_without_certificates_of_their_own_share_what_the_system_trusts(tmp_path):
    one, two = (
        tls_context(host, RegistrySettings(), {"HOME": str(tmp_path)}) for host in ("a", "b")
    )
    assert one is two
