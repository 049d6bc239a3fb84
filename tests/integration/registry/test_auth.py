"""Logging in, at Debian's docker-registry and at peers with a will of their own."""

import asyncio
import base64
import hashlib
import json
import os
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from kitd.content.verify import read
from kitd.registry.credentials import CredentialsError
from kitd.registry.errors import RegistryDeniedError, RegistryProtocolError
from kitd.registry.settings import (
    Anonymous,
    PasswordFile,
    RegistrySettings,
    TokenFile,
    UploadMode,
)

SERVICE, ISSUER = "tests", "the token server of the tests"
IDENTITY_TOKEN = "an-identity-token"


def login(path: Path, host: str, entry: dict) -> dict[str, str]:
    """Write a docker config.json as a login does and return the environment that leads to it."""
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps({"auths": {host: entry}}))
    return {"DOCKER_CONFIG": str(path)}


def basic(username: str, password: str) -> str:
    return base64.b64encode(f"{username}:{password}".encode()).decode()


# Basic, with a registry that checks it.


async def test_a_docker_login_is_used(docker_registry_with_login, connect, cache, tmp_path):
    registry = docker_registry_with_login
    entry = {"auth": basic(registry.username, registry.password)}
    environment = login(tmp_path / "docker", registry.host, entry)
    target = cache.put(b"secret weights")
    remote = await connect(registry.host, environment=environment)

    await remote.push(target, cache)

    assert await read(remote, target, max_bytes=100) == b"secret weights"


async def test_a_password_file_is_used(docker_registry_with_login, connect, tmp_path):
    registry = docker_registry_with_login
    (tmp_path / "password").write_text(registry.password + "\n")
    settings = RegistrySettings(credentials=PasswordFile(registry.username, tmp_path / "password"))
    await (await connect.client(settings)).ping(registry.host)


async def test_a_helper_is_asked(docker_registry_with_login, connect, tmp_path):
    registry = docker_registry_with_login
    helper = tmp_path / "docker-credential-tests"
    answer = json.dumps({"Username": registry.username, "Secret": registry.password})
    helper.write_text(
        f'#!/bin/sh\nread server\n[ "$1 $server" = "get {registry.host}" ] && echo \'{answer}\'\n'
    )
    helper.chmod(0o755)
    (tmp_path / "config.json").write_text('{"credsStore": "tests"}')
    environment = {"DOCKER_CONFIG": str(tmp_path), "PATH": f"{tmp_path}:/usr/bin:/bin"}
    client = await connect.client(RegistrySettings(), environment)
    await client.ping(registry.host)


@pytest.mark.parametrize("entry", [None, {"auth": basic("ada", "wrong")}], ids=["none", "wrong"])
async def test_without_the_right_password_the_error_says_how_to_log_in(
    docker_registry_with_login, connect, cache, tmp_path, entry
):
    host = docker_registry_with_login.host
    environment = login(tmp_path / "docker", host, entry) if entry else {}
    remote = await connect(host, environment=environment)
    with pytest.raises(RegistryDeniedError, match="HTTP 401") as caught:
        await remote.push(cache.put(b"x"), cache)
    assert caught.value.code == "registry_denied"
    assert f"docker login {host}" in caught.value.hint
    assert "wrong" not in str(caught.value)


async def test_anonymous_looks_for_no_credentials(docker_registry_with_login, connect, tmp_path):
    host = docker_registry_with_login.host
    environment = {"DOCKER_CONFIG": str(tmp_path)}
    (tmp_path / "config.json").write_text("not even JSON")
    client = await connect.client(RegistrySettings(credentials=Anonymous()), environment)
    with pytest.raises(RegistryDeniedError):
        await client.ping(host)


async def test_a_password_that_changed_is_looked_up_again(serve, connect, cache, tmp_path):
    valid = "Basic " + basic("ada", "first")

    async def handler(request):
        if request.headers.get("Authorization") == valid:
            return web.Response(headers={"Content-Length": "1"})
        return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="tests"'})

    host = await serve(handler)
    password = tmp_path / "password"
    password.write_text("first")
    settings = RegistrySettings(credentials=PasswordFile("ada", password))
    remote = await connect(host, settings=settings)
    target = cache.put(b"1")
    assert await remote.exists(target)

    password.write_text("second")
    valid = "Basic " + basic("ada", "second")

    assert await remote.exists(target)


async def test_a_file_that_cannot_be_read_is_named(docker_registry_with_login, connect, tmp_path):
    (tmp_path / "config.json").write_text('{"auths": {"host": {"auth": "c2VjcmV0"}}}')
    client = await connect.client(RegistrySettings(), {"DOCKER_CONFIG": str(tmp_path)})
    with pytest.raises(CredentialsError, match=r"config\.json") as caught:
        await client.ping(docker_registry_with_login.host)
    assert "secret" not in str(caught.value)


# Bearer, with a token server whose tokens docker-registry believes.


def encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


@dataclass
class TokenServer:
    """Signs tokens as distribution's token specification wants them, for Ada only."""

    key: Path
    certificate: Path
    requests: list[dict] = field(default_factory=list)
    life_s: int = 300

    def sign(self, access: list[dict]) -> str:
        der = subprocess.check_output(
            ["openssl", "x509", "-in", self.certificate, "-outform", "DER"]
        )
        header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "sub": "ada",
            "aud": SERVICE,
            "nbf": now - 60,
            "iat": now,
            "exp": now + 300,
            "jti": hashlib.sha256(repr(access).encode()).hexdigest(),
            "access": access,
        }
        signed = ".".join(encoded(json.dumps(part).encode()) for part in (header, claims))
        signature = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", self.key],
            input=signed.encode(),
            capture_output=True,
            check=True,
        ).stdout
        return f"{signed}.{encoded(signature)}"

    async def handle(self, request: web.Request) -> web.Response:
        if request.method == "POST":
            form = dict(await request.post())
            self.requests.append(form)
            scopes = form["scope"].split()
            known = form["refresh_token"] == IDENTITY_TOKEN
        else:
            self.requests.append(dict(request.query))
            scopes = request.query.getall("scope", [])
            known = request.headers.get("Authorization") == "Basic " + basic("ada", "pw")
        if not known:
            return web.json_response({"details": "unknown user"}, status=401)
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        token = await asyncio.to_thread(self.sign, access)
        return web.json_response({"access_token": token, "expires_in": self.life_s})


@pytest.fixture
def token_server(tmp_path) -> TokenServer:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=tokens"]
    subprocess.run([*new, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return TokenServer(key, certificate)


@pytest.fixture
async def token_registry(token_server, serve, start_docker_registry):
    realm = f"http://{await serve(token_server.handle)}/token"
    return start_docker_registry(
        auth={
            "token": {
                "realm": realm,
                "service": SERVICE,
                "issuer": ISSUER,
                "rootcertbundle": str(token_server.certificate),
            }
        }
    )


async def test_one_token_serves_a_whole_push(
    token_registry, token_server, connect, cache, tmp_path
):
    environment = login(tmp_path, token_registry.host, {"auth": basic("ada", "pw")})
    remote = await connect(token_registry.host, environment=environment)
    targets = [cache.put(f"layer {number}".encode()) for number in range(8)]

    async with asyncio.TaskGroup() as group:
        for target in targets:
            group.create_task(remote.push(target, cache))

    asked = [request["scope"] for request in token_server.requests]
    assert asked == ["repository:team/model:pull,push"]
    assert token_server.requests[0]["account"] == "ada"
    assert await read(remote, targets[0], max_bytes=100) == b"layer 0"


async def test_an_identity_token_is_exchanged(
    token_registry, token_server, connect, cache, tmp_path
):
    (tmp_path / "token").write_text(IDENTITY_TOKEN)
    settings = RegistrySettings(credentials=TokenFile(tmp_path / "token"))
    remote = await connect(token_registry.host, settings=settings)

    await remote.push(cache.put(b"layer"), cache)

    assert token_server.requests[0]["grant_type"] == "refresh_token"
    assert token_server.requests[0]["service"] == SERVICE


async def test_a_mount_asks_for_one_token_over_both_repositories(
    token_registry, token_server, connect, cache, tmp_path
):
    environment = login(tmp_path, token_registry.host, {"auth": basic("ada", "pw")})
    target = cache.put(b"shared layer")
    base = await connect(token_registry.host, "team/base", environment=environment)
    await base.push(target, cache)
    remote = await connect(token_registry.host, environment=environment, mount_from=("team/base",))
    assert await remote.push(target, cache) == 0
    assert await remote.exists(target)


async def test_a_token_server_that_refuses_is_reported_as_denied(
    token_registry, connect, cache, tmp_path
):
    environment = login(tmp_path, token_registry.host, {"auth": basic("ada", "wrong")})
    remote = await connect(token_registry.host, environment=environment)
    with pytest.raises(RegistryDeniedError, match="unknown user"):
        await remote.push(cache.put(b"layer"), cache)


# Bearer, with peers of our own.


@dataclass
class BearerPeer:
    """Accepts the tokens that it handed out and has not revoked; tells what it was asked."""

    scope: str = ""
    life_s: int | None = None
    valid: set[str] = field(default_factory=set)
    seen: Counter = field(default_factory=Counter)
    scopes: list[list[str]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        if request.path == "/token":
            # Long enough for a second flight to start, were there one.
            await asyncio.sleep(0)
            self.seen["token"] += 1
            self.scopes.append(request.query.getall("scope", []))
            token = f"token-{self.seen['token']}"
            self.valid.add(token)
            life = {} if self.life_s is None else {"expires_in": self.life_s}
            return web.json_response({"token": token, **life})
        self.seen["registry"] += 1
        if request.headers.get("Authorization", "").removeprefix("Bearer ") in self.valid:
            return web.Response(headers={"Content-Length": "1"})
        scope = f',scope="{self.scope}"' if self.scope else ""
        challenge = f'Bearer realm="/token",service="tests"{scope}'
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})


async def test_a_relative_realm_and_a_token_for_everybody(serve, connect, cache):
    peer = BearerPeer()
    remote = await connect(await serve(peer.handle))
    target = cache.put(b"1")
    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(remote.exists(target))
    assert peer.seen["token"] == 1


async def test_a_revoked_token_is_replaced_once(serve, connect, cache):
    peer = BearerPeer()
    remote = await connect(await serve(peer.handle))
    target = cache.put(b"1")
    await remote.exists(target)
    peer.valid.clear()
    assert await remote.exists(target)
    assert peer.seen["token"] == 2


async def test_a_scope_under_another_name_is_asked_for_from_then_on(serve, connect, cache):
    peer = BearerPeer(scope="repository:proxy/team/model:pull")
    remote = await connect(await serve(peer.handle))
    await remote.exists(cache.put(b"1"))
    assert peer.scopes == [["repository:team/model:pull", "repository:proxy/team/model:pull"]]


async def test_a_registry_that_refuses_its_own_tokens_is_asked_twice_only(serve, connect, cache):
    seen = Counter()

    async def handler(request):
        seen[request.path] += 1
        if request.path == "/token":
            return web.json_response({"token": "useless"})
        challenge = 'Bearer realm="/token",service="tests"'
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})

    remote = await connect(await serve(handler))
    with pytest.raises(RegistryDeniedError):
        await remote.exists(cache.put(b"1"))
    assert seen.total() == 3


@pytest.mark.parametrize(
    "body", [b"{}", b"no JSON", b'{"token": "two\\r\\nlines"}', b'{"token": 5}', b'"x"']
)
async def test_a_token_server_without_a_token_is_a_clear_error(serve, connect, cache, body):
    async def handler(request):
        if request.path == "/token":
            return web.Response(body=body)
        return web.Response(status=401, headers={"WWW-Authenticate": 'Bearer realm="/token"'})

    remote = await connect(await serve(handler))
    with pytest.raises(RegistryProtocolError, match="token"):
        await remote.exists(cache.put(b"1"))


async def test_a_token_of_a_few_seconds_is_replaced_before_it_expires(serve, connect, cache):
    peer = BearerPeer(life_s=5)
    remote = await connect(await serve(peer.handle))
    target = cache.put(b"1")
    for late_s in (0, 2, 4, 6, 8):
        connect.late_s = late_s
        assert await remote.exists(target)
    # Each is used for half of its life; after the first challenge none is refused.
    assert peer.seen["token"] == 3
    assert peer.seen["registry"] == 6


async def test_a_token_that_ends_before_its_time_costs_one_more_request(serve, connect, cache):
    peer = BearerPeer()
    remote = await connect(await serve(peer.handle))
    target = cache.put(b"1")
    for _ in range(4):
        assert await remote.exists(target)
        peer.valid.clear()
    assert (peer.seen["token"], peer.seen["registry"]) == (4, 8)


async def test_a_token_that_ends_in_the_middle_of_an_upload_is_replaced_and_the_chunk_sent_again(
    serve, connect, cache
):
    """Every second chunk is refused after it was sent; the next token is good for the next two."""
    received, refused = bytearray(), Counter()

    async def handler(request):
        if request.path == "/token":
            return await peer.handle(request)
        body = await request.read()
        answer = await peer.handle(request)
        if answer.status == 401:
            refused[request.method] += 1
            return answer
        match request.method:
            case "HEAD":
                return web.Response(status=404)
            case "GET":
                raise AssertionError("a chunk that was refused need not be asked for")
            case "PATCH":
                assert request.headers["Content-Range"].startswith(f"{len(received)}-")
                received.extend(body)
                if len(received) % 600 == 0:
                    peer.valid.clear()
        location = {"Location": "/upload", "Range": f"0-{max(len(received) - 1, 0)}"}
        return web.Response(status=201 if request.method == "PUT" else 202, headers=location)

    peer = BearerPeer()
    settings = RegistrySettings(upload_mode=UploadMode.CHUNKED, chunk_bytes=300)
    remote = await connect(await serve(handler), settings=settings)
    content = os.urandom(3000)
    assert await remote.push(cache.put(content), cache) == 3000
    assert bytes(received) == content
    assert refused == {"HEAD": 1, "PATCH": 4, "PUT": 1}


async def test_a_login_is_not_older_than_the_wait_for_a_slot(serve, connect, cache):
    """Nine uploads, eight at once, tokens that end while the ninth waits for its turn."""
    peer, released, busy = BearerPeer(life_s=60), asyncio.Event(), asyncio.Semaphore(0)
    tokens = []

    async def handler(request):
        if request.method == "PUT":
            tokens.append(request.headers["Authorization"])
            await request.read()
            busy.release()
            await released.wait()
            return web.Response(status=201)
        answer = await peer.handle(request)
        if answer.status != 200 or request.path == "/token":
            return answer
        if request.method == "POST":
            return web.Response(status=202, headers={"Location": "/upload"})
        return web.Response(status=404)

    remote = await connect(await serve(handler))
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        for number in range(9):
            group.create_task(remote.push(cache.put(b"%d" % number), cache))
        for _ in range(8):
            await busy.acquire()
        connect.late_s = 3600
        released.set()
    assert tokens == ["Bearer token-1"] * 8 + ["Bearer token-2"]


@pytest.mark.parametrize("status", [404, 405])
async def test_an_identity_token_is_a_password_where_the_token_server_takes_no_posts(
    serve, connect, cache, tmp_path, status
):
    asked = []

    async def handler(request):
        if request.path == "/token":
            asked.append((request.method, request.headers.get("Authorization")))
            if request.method == "POST":
                return web.Response(status=status, text="<html>", content_type="text/html")
            return web.json_response({"token": f"token-{len(asked)}"})
        if request.headers.get("Authorization") == f"Bearer token-{len(asked)}":
            return web.Response(headers={"Content-Length": "1"})
        return web.Response(status=401, headers={"WWW-Authenticate": 'Bearer realm="/token"'})

    host = await serve(handler)
    entry = {"auth": basic("ada", ""), "identitytoken": IDENTITY_TOKEN}
    remote = await connect(host, environment=login(tmp_path, host, entry))
    target = cache.put(b"1")
    assert await remote.exists(target)
    connect.late_s = 3600
    assert await remote.exists(target)
    get = ("GET", "Basic " + basic("ada", IDENTITY_TOKEN))
    assert asked == [("POST", None), get, get]


@pytest.mark.parametrize(
    "challenges",
    [
        ['Negotiate, Basic realm="a, b"'],
        ["Negotiate", 'Basic realm="x"'],
        ['Bearer realm="/token",service="s", Basic realm="x"'],
        ['Basic realm="x"', 'Bearer realm="/token"'],
        ['Bearer realm="ftp://nowhere/", Basic realm="x"'],
        ["Bearer", "Basic"],
    ],
)
async def test_of_several_schemes_one_that_works_is_used(
    serve, connect, cache, tmp_path, challenges
):
    """The token server refuses everybody; a password is good for the registry itself."""
    seen = Counter()

    async def handler(request):
        seen[request.path == "/token"] += 1
        if request.path == "/token":
            return web.Response(status=403)
        if request.headers.get("Authorization") == "Basic " + basic("ada", "pw"):
            return web.Response(headers={"Content-Length": "1"})
        answer = web.Response(status=401)
        for challenge in challenges:
            answer.headers.add("WWW-Authenticate", challenge)
        return answer

    host = await serve(handler)
    entry = {"auth": basic("ada", "pw")}
    remote = await connect(host, environment=login(tmp_path, host, entry))
    target = cache.put(b"1")
    for _ in range(3):
        assert await remote.exists(target)
    assert seen[False] == 4
    assert seen[True] <= 1


async def test_where_no_scheme_works_the_first_ones_error_is_told(serve, connect, cache):
    async def handler(request):
        if request.path == "/token":
            return web.json_response({"details": "unknown user"}, status=401)
        header = 'Bearer realm="/token", Basic realm="x"'
        return web.Response(status=401, headers={"WWW-Authenticate": header})

    remote = await connect(await serve(handler))
    with pytest.raises(RegistryDeniedError, match="unknown user"):
        await remote.exists(cache.put(b"1"))
