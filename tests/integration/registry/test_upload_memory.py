"""Uploads that go on: after a failure, in another process, for another job; and what is learned."""

import asyncio
import hashlib
import os
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from kitd.errors import KitdError
from kitd.oci.reference import Repository
from kitd.registry.client import RegistryClient
from kitd.registry.errors import (
    RegistryMismatchError,
    RegistryServerError,
    RegistryStateError,
    RegistryTooLargeError,
    RegistryUnreachableError,
    RegistryUnsupportedError,
)
from kitd.registry.profile import Lessons
from kitd.registry.settings import RegistrySettings, UploadMode
from kitd.registry.transfer_memory import VolatileMemory
from kitd.registry.transport import Surroundings
from kitd.registry.upload_session import PARTING_S

MIB = 1 << 20
CHUNK = 256 * 1024
SIZE = 10 * CHUNK
CHUNKED = RegistrySettings(upload_mode=UploadMode.CHUNKED, chunk_bytes=CHUNK)
AUTO = RegistrySettings()


class SourceLostError(KitdError):
    """The source of an upload is gone for now."""

    code = "source_lost"


def open_gate():
    gate = asyncio.Event()
    gate.set()
    return gate


@dataclass
class Source:
    """A cache that notes where it is read from, and gives nothing from `end` on."""

    cache: object
    end: int | None = None
    offsets: list[int] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=open_gate)
    reached: asyncio.Event = field(default_factory=asyncio.Event)

    async def exists(self, target):
        return await self.cache.exists(target)

    @asynccontextmanager
    async def fetch(self, target, *, offset=0):
        if self.end is not None and offset >= self.end:
            self.reached.set()
            await self.gate.wait()
            raise SourceLostError("gone")
        self.offsets.append(offset)
        async with self.cache.fetch(target, offset=offset) as stream:
            yield stream


@pytest.fixture
def memory():
    return VolatileMemory()


@pytest.fixture
async def connect_with(connect, memory):
    """Make clients that share a memory, as lives of one daemon do."""

    async def client(settings=CHUNKED):
        async def sleep(delay_s):
            """Wait for nothing."""

        surroundings = Surroundings(environment={}, sleep=sleep)
        return await connect.stack.enter_async_context(
            RegistryClient(lambda _: settings, surroundings, memory)
        )

    return client


@pytest.fixture
def remote(connect_with):
    """Make a repository of a client of its own."""

    async def remote(host, name="team/model", *, settings=CHUNKED):
        return await (await connect_with(settings)).repository(Repository(host, name))

    return remote


@dataclass
class Peer:
    """A registry of one repository that does as the specification says, but for its quirks.

    `largest` bounds a request's body: beyond it the answer is `refusal`. `unknown` answers chunks.
    """

    largest: int | None = None
    refusal: int = 413
    unknown: web.Response | None = None
    location: str = "/v2/team/model/blobs/uploads/{id}?s={step}"
    least: str | None = None
    early: bool = False
    busy: int = 0
    """How many chunks are refused because another request holds the session."""
    mounts: dict[str, int] = field(default_factory=dict)
    """What is answered to a mount from a repository, or from none: 201 or 404."""
    expires_bytes: int | None = None
    """The first session ends once it has so many."""
    expired: int = 403
    """What is answered to its requests from then on."""
    fails: bool = False
    """Whether all that has to do with uploads is answered with a 500."""
    commits: list[int] = field(default_factory=list)
    """What the first requests that end an upload are answered with, whatever they do."""
    keeps: bool = True
    """Whether those did what they say."""
    held: dict[str, int] = field(default_factory=dict)
    sessions: dict[str, bytearray] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    taken_bytes: int = 0
    step: int = 0

    def state(self, id_, status):
        self.step += 1
        received = len(self.sessions[id_])
        headers = {
            "Location": self.location.format(id=id_, step=self.step),
            "Range": f"0-{max(received - 1, 0)}",
        }
        if self.least is not None:
            headers["OCI-Chunk-Min-Length"] = self.least
        return web.Response(status=status, headers=headers)

    def count(self, method):
        return [asked.split()[0] for asked in self.asked].count(method)

    async def handle(self, request):
        if self.fails and "/uploads/" in request.path:
            return web.Response(status=500)
        last = request.path.rpartition("/")[2]
        self.asked.append(f"{request.method} {request.headers.get('Content-Range', last)}")
        match request.method:
            case "HEAD":
                if last not in self.held:
                    return web.Response(status=404)
                return web.Response(headers={"Content-Length": str(self.held[last])})
            case "POST":
                status = self.mounts.get(request.query.get("from", ""), 202)
                if status != 202 and "mount" in request.query:
                    return web.Response(status=status)
                id_ = str(len(self.sessions))
                self.sessions[id_] = bytearray()
                return self.state(id_, 202)
        if last not in self.sessions:
            return web.json_response({"errors": [{"code": "BLOB_UPLOAD_UNKNOWN"}]}, status=404)
        session = self.sessions[last]
        if last == "0" and self.expires_bytes is not None and len(session) >= self.expires_bytes:
            await request.read()
            return web.Response(status=self.expired)
        if request.method == "DELETE":
            del self.sessions[last]
            return web.Response(status=204)
        if request.method == "GET":
            return self.state(last, 204)
        if request.method == "PATCH" and self.busy:
            self.busy -= 1
            await request.read()
            return web.json_response({"errors": [{"code": "BLOB_UPLOAD_INVALID"}]}, status=409)
        if request.method == "PATCH" and self.unknown is not None:
            await request.read()
            return web.Response(status=self.unknown.status, body=self.unknown.body)
        if self.largest is not None and (request.content_length or 0) > self.largest:
            await request.read()
            return web.Response(status=self.refusal)
        body = await request.read()
        if request.method == "PATCH":
            said = request.headers.get("Content-Range")
            if said is not None and int(said.partition("-")[0]) != len(session):
                return self.state(last, 416)
            session += body
            self.taken_bytes += len(body)
            if self.early:
                return web.Response(
                    status=201, headers={"Location": "/v2/team/model/blobs/sha256:" + "0" * 64}
                )
            return self.state(last, 202)
        return self.put(request, last, body)

    def put(self, request, id_, body):
        status = self.commits.pop(0) if self.commits else 201
        if status == 201 or self.keeps:
            content = bytes(self.sessions[id_]) + body
            self.taken_bytes += len(body)
            if request.query["digest"] != f"sha256:{hashlib.sha256(content).hexdigest()}":
                return web.json_response({"errors": [{"code": "DIGEST_INVALID"}]}, status=400)
            self.held[request.query["digest"]] = len(content)
            del self.sessions[id_]
        return web.Response(status=status)


@pytest.fixture
def begun(serve, remote, cache):
    """Begin an upload to a peer, lose the source after four chunks, and return the blob."""

    async def begun(peer, **options):
        host = await serve(peer.handle)
        target = cache.put(os.urandom(SIZE))
        with pytest.raises(SourceLostError):
            await (await remote(host, **options)).push(target, Source(cache, 4 * CHUNK))
        return host, target

    return begun


async def test_another_life_goes_on_where_the_one_before_was(begun, remote, cache, memory):
    peer = Peer()
    host, target = await begun(peer)
    source = Source(cache)
    assert await (await remote(host)).push(target, source) == SIZE - 4 * CHUNK
    assert source.offsets == [count * CHUNK for count in range(4, 10)]
    assert peer.held == {target.digest: SIZE}
    assert peer.taken_bytes == SIZE
    assert await memory.recall(Repository(host, "team/model"), target.digest) is None


async def test_a_stream_goes_on_as_well(serve, remote, cache):
    peer = Peer()
    host = await serve(peer.handle)
    settings = RegistrySettings(upload_mode=UploadMode.STREAM)
    target = cache.put(os.urandom(SIZE))
    first = await remote(host, settings=CHUNKED)
    with pytest.raises(SourceLostError):
        await first.push(target, Source(cache, 4 * CHUNK))
    again = await remote(host, settings=settings)
    assert await again.push(target, cache) == SIZE - 4 * CHUNK
    assert peer.taken_bytes == SIZE


async def test_a_registry_that_forgot_the_upload_gets_a_new_one(begun, remote, cache):
    peer = Peer()
    host, target = await begun(peer)
    peer.sessions = {"kept": bytearray()}
    assert await (await remote(host)).push(target, cache) == SIZE
    assert peer.held == {target.digest: SIZE}


@pytest.mark.parametrize("status", [401, 403, 500])
async def test_a_session_that_cannot_be_asked_for_is_replaced(begun, remote, cache, status):
    """Its Location may have been signed for a while only."""
    peer = Peer(expired=status)
    host, target = await begun(peer)
    peer.expires_bytes = 0
    assert await (await remote(host)).push(target, cache) == SIZE
    assert (peer.count("POST"), peer.held) == (2, {target.digest: SIZE})


async def test_a_session_outlives_a_registry_s_bad_moment(begun, remote, cache):
    peer = Peer()
    host, target = await begun(peer)
    peer.fails = True
    with pytest.raises(RegistryServerError):
        await (await remote(host)).push(target, cache)
    peer.fails = False
    assert await (await remote(host)).push(target, cache) == SIZE - 4 * CHUNK


@pytest.mark.parametrize("chunks", [4, 10], ids=["in the middle", "at the end"])
@pytest.mark.parametrize("status", [401, 403])
async def test_a_session_that_expires_is_replaced(serve, remote, cache, status, chunks):
    peer = Peer(expires_bytes=chunks * CHUNK, expired=status)
    host = await serve(peer.handle)
    target = cache.put(os.urandom(SIZE))
    one = await remote(host)
    if chunks == 10:
        # It may be putting the blob together: another attempt sees.
        with pytest.raises(RegistryStateError, match=f"HTTP {status}"):
            await one.push(target, cache)
    assert await one.push(target, cache) == SIZE
    assert (peer.count("POST"), peer.held) == (2, {target.digest: SIZE})


async def test_what_a_lost_session_had_counts_as_sent_again(begun, remote, cache):
    peer = Peer()
    host, target = await begun(peer)
    peer.expires_bytes = 5 * CHUNK
    assert await (await remote(host)).push(target, cache) == SIZE
    assert peer.held == {target.digest: SIZE}


async def test_what_arrived_without_an_answer_is_not_sent_again(begun, remote, cache):
    peer = Peer()
    host, target = await begun(peer)
    (session,) = peer.sessions.values()
    content = cache.store.path_of(target.digest).read_bytes()
    session += content[4 * CHUNK : 4 * CHUNK + 1000]
    source = Source(cache)
    assert await (await remote(host)).push(target, source) == SIZE - 4 * CHUNK - 1000
    assert source.offsets[0] == 4 * CHUNK + 1000


async def test_an_upload_with_more_bytes_than_the_blob_is_given_up(begun, remote, cache):
    peer = Peer()
    host, target = await begun(peer)
    (session,) = peer.sessions.values()
    session += bytes(SIZE)
    assert await (await remote(host)).push(target, cache) == SIZE
    assert peer.count("DELETE") == 1


async def test_a_session_of_another_origin_is_not_asked_for(begun, remote, cache, memory):
    peer = Peer()
    host, target = await begun(peer)
    repository = Repository(host, "team/model")
    session = await memory.recall(repository, target.digest)
    stranger = type(session)(session.location, session.received, 1, "https://elsewhere.example")
    await memory.remember(repository, target.digest, stranger)
    assert await (await remote(host)).push(target, cache) == SIZE
    assert (peer.count("GET"), peer.count("DELETE")) == (0, 0)


async def test_a_session_that_is_still_busy_with_what_was_cut_is_not_lost(begun, remote, cache):
    """Another request holds it, and the registry calls that an invalid upload."""
    peer = Peer()
    host, target = await begun(peer)
    peer.busy = 2
    assert await (await remote(host)).push(target, cache) == SIZE - 4 * CHUNK
    assert (peer.count("POST"), peer.taken_bytes) == (1, SIZE)


async def test_content_that_is_not_what_it_should_be_is_not_gone_on_with(
    begun, remote, cache, memory
):
    peer = Peer()
    host, target = await begun(peer)
    (session,) = peer.sessions.values()
    session[:1] = bytes([session[0] ^ 1])
    with pytest.raises(RegistryMismatchError):
        await (await remote(host)).push(target, cache)
    assert peer.count("DELETE") == 1
    assert await memory.recall(Repository(host, "team/model"), target.digest) is None
    assert await (await remote(host)).push(target, cache) == SIZE


@pytest.mark.parametrize("keeps", [True, False], ids=["it arrived", "it did not"])
@pytest.mark.parametrize(
    ("settings", "size"),
    [(CHUNKED, SIZE), (AUTO, SIZE), (AUTO, 1000)],
    ids=["chunks", "whole", "at once"],
)
async def test_a_lost_answer_to_the_last_request(serve, remote, cache, settings, size, keeps):
    """The blob is looked for; where it is not, only what the registry has not got is sent."""
    peer = Peer(commits=[500, 503], keeps=keeps)
    host = await serve(peer.handle)
    target = cache.put(os.urandom(size))
    pushing = (await remote(host, settings=settings)).push(target, cache)
    if settings is AUTO and not keeps:
        with pytest.raises(KitdError, match="500"):
            await pushing
        # The session is gone by then.
        assert peer.count("PUT") == 1
        return
    assert await pushing == size
    assert peer.held == {target.digest: size}
    assert peer.taken_bytes == size


async def test_chunks_that_are_taken_with_201_are_followed_by_the_end(serve, remote, cache):
    peer = Peer(early=True, location="/v2/team/model/blobs/uploads/{id}")
    target = cache.put(os.urandom(SIZE))
    assert await (await remote(await serve(peer.handle))).push(target, cache) == SIZE
    assert peer.held == {target.digest: SIZE}


@pytest.mark.parametrize("refusal", [413, 416])
async def test_chunks_shrink_to_what_is_taken_and_it_is_remembered(
    serve, remote, cache, memory, refusal
):
    peer = Peer(largest=5 * MIB, refusal=refusal)
    host = await serve(peer.handle)
    settings = RegistrySettings(upload_mode=UploadMode.CHUNKED, chunk_bytes=32 * MIB)
    target = cache.put(os.urandom(33 * MIB))
    assert await (await remote(host, settings=settings)).push(target, cache) == target.size
    assert peer.taken_bytes == target.size
    assert (await memory.lessons(host)).chunk_bytes == 4 * MIB


async def test_a_blob_that_is_too_large_for_one_request_goes_in_chunks(
    serve, remote, cache, memory
):
    peer = Peer(largest=2 * MIB)
    host = await serve(peer.handle)
    target = cache.put(os.urandom(6 * MIB))
    assert await (await remote(host, settings=AUTO)).push(target, cache) == target.size
    assert await memory.lessons(host) == Lessons(True, 3 * MIB // 2, 6 * MIB)
    assert peer.count("DELETE") == 1
    asked = len(peer.asked)
    another = cache.put(os.urandom(6 * MIB))
    await (await remote(host, settings=AUTO)).push(another, cache)
    refused = [asked for asked in peer.asked[asked:] if asked.startswith(("DELETE", "GET"))]
    assert refused == []


@pytest.mark.parametrize(
    "answer",
    [
        web.Response(status=405),
        web.Response(status=404, body=b'{"errors":[{"code":"UNSUPPORTED"}]}'),
        web.Response(status=400, body=b'{"errors":[{"code":"UNSUPPORTED"}]}'),
        web.Response(status=404),
        web.Response(status=400),
    ],
    ids=["405", "404 UNSUPPORTED", "400 UNSUPPORTED", "404", "400"],
)
async def test_who_knows_no_chunks_gets_the_blob_whole_and_it_is_remembered(
    serve, remote, cache, memory, answer
):
    peer = Peer(unknown=answer)
    host = await serve(peer.handle)
    settings = RegistrySettings(chunk_bytes=CHUNK)
    target = cache.put(os.urandom(SIZE))
    assert await (await remote(host, settings=settings)).push(target, cache) == SIZE
    assert not (await memory.lessons(host)).takes_chunks
    patches = peer.count("PATCH")
    await (await remote(host, settings=settings)).push(cache.put(os.urandom(SIZE)), cache)
    assert peer.count("PATCH") == patches


@pytest.mark.parametrize("status", [405, 413])
async def test_what_did_not_end_well_teaches_nothing(serve, remote, cache, memory, status):
    peer = Peer(largest=0, unknown=web.Response(status=status))
    host = await serve(peer.handle)
    target = cache.put(os.urandom(2 * MIB))
    with pytest.raises(RegistryTooLargeError, match="413"):
        await (await remote(host, settings=AUTO)).push(target, cache)
    assert await memory.lessons(host) is None
    assert len(peer.asked) < 30


async def test_what_the_settings_ask_for_is_not_unlearned(serve, remote, cache):
    peer = Peer(unknown=web.Response(status=405))
    with pytest.raises(RegistryUnsupportedError):
        await (await remote(await serve(peer.handle))).push(cache.put(os.urandom(SIZE)), cache)


async def test_the_least_size_of_a_chunk_counts_for_the_next_blob_too(serve, remote, cache):
    peer = Peer(least=str(2 * CHUNK))
    host = await serve(peer.handle)
    target = cache.put(os.urandom(SIZE))
    await (await remote(host)).push(target, cache)
    assert peer.count("PATCH") == 5


async def test_a_blob_that_no_upload_could_end_well_is_refused_at_once(remote, cache):
    """No such host is asked: there is none."""
    target = cache.put(b"small")
    registry = "123456789012.dkr.ecr.eu-nowhere-1.amazonaws.com"
    large = type(target)(target.media_type, target.digest, 60_000 * MIB)
    with pytest.raises(RegistryTooLargeError, match="54525952000 at most"):
        await (await remote(registry)).push(large, cache)


@pytest.mark.parametrize("status", [201, 400, 404, 405])
async def test_a_mount_that_names_nobody_may_be_refused_or_a_lie(serve, remote, cache, status):
    peer = Peer(mounts={"": status})
    host = await serve(peer.handle)
    target = cache.put(os.urandom(SIZE))
    one = await remote(host)
    assert await one.push(target, cache) == SIZE
    assert one.mounted_bytes == 0
    assert peer.held == {target.digest: SIZE}


async def test_a_session_that_a_registry_loses_in_the_middle_is_begun_anew(
    docker_registry, remote, cache, cutting
):
    """Debian's registry cannot go on after half a chunk: see docs/adr/0019."""
    host = await cutting(docker_registry.host, 5 * CHUNK)
    target = cache.put(os.urandom(SIZE))
    source = Source(cache)
    one = await remote(host)
    assert await one.push(target, source) == SIZE
    assert source.offsets.count(0) == 2
    assert await one.exists(target)


@pytest.fixture
async def cutting():
    """Relay connections to a registry; once so many bytes have gone up, cut the one they go by."""
    async with AsyncExitStack() as stack:

        async def cutting(upstream, after):
            left = after

            async def pump(source, sink, take):
                try:
                    while data := await source.read(16384):
                        if not take(len(data)):
                            return
                        sink.write(data)
                        await sink.drain()
                except ConnectionError:
                    return

            def take(count):
                nonlocal left
                was, left = left, left - count
                return not was > 0 >= left

            async def relay(reader, writer):
                host, port = upstream.split(":")
                back, forth = await asyncio.open_connection(host, int(port))
                pumps = [
                    asyncio.create_task(pump(reader, forth, take)),
                    asyncio.create_task(pump(back, writer, bool)),
                ]
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                for each in (forth, writer):
                    each.close()
                await asyncio.wait(pumps)

            server = await asyncio.start_server(relay, "127.0.0.1", 0)
            await stack.enter_async_context(server)
            host, port = server.sockets[0].getsockname()
            return f"{host}:{port}"

        yield cutting


async def test_debian_s_registry_goes_on_between_two_chunks(docker_registry, remote, cache):
    target = cache.put(os.urandom(SIZE))
    with pytest.raises(SourceLostError):
        await (await remote(docker_registry.host)).push(target, Source(cache, 4 * CHUNK))
    source = Source(cache)
    again = await remote(docker_registry.host)
    assert await again.push(target, source) == SIZE - 4 * CHUNK
    assert source.offsets[0] == 4 * CHUNK
    assert await again.exists(target)


async def test_a_chunk_that_is_under_way_arrives_although_its_upload_is_cancelled(
    docker_registry, remote, cache
):
    """A stop of kitd is no cut: Debian's registry could not go on after that."""
    target = cache.put(os.urandom(SIZE))
    slow = Slow(cache, 4 * CHUNK, gate=asyncio.Event())
    pushing = asyncio.create_task((await remote(docker_registry.host)).push(target, slow))
    await asyncio.wait_for(slow.reached.wait(), 15)
    pushing.cancel()
    slow.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await pushing
    source = Source(cache)
    again = await remote(docker_registry.host)
    assert await again.push(target, source) == SIZE - 5 * CHUNK
    assert source.offsets[0] == 5 * CHUNK


@pytest.mark.slow
async def test_a_chunk_that_does_not_arrive_is_not_waited_for(docker_registry, remote, cache):
    target = cache.put(os.urandom(SIZE))
    slow = Slow(cache, 4 * CHUNK, gate=asyncio.Event())
    pushing = asyncio.create_task((await remote(docker_registry.host)).push(target, slow))
    await asyncio.wait_for(slow.reached.wait(), 15)
    pushing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(pushing, PARTING_S + 5)
    assert slow.closed


class Slow(Source):
    """A source that stops in the middle of what it is asked for at `end`, until it may go on."""

    closed = False

    @asynccontextmanager
    async def fetch(self, target, *, offset=0):
        async with self.cache.fetch(target, offset=offset) as stream:
            try:
                yield self.slowed(stream, offset)
            finally:
                self.closed = True

    async def slowed(self, stream, offset):
        first = memoryview(await anext(stream))
        yield first[: CHUNK // 2]
        if offset == self.end:
            self.reached.set()
            await self.gate.wait()
        yield first[CHUNK // 2 :]


async def test_one_upload_a_repository_whoever_wants_it(docker_registry, connect_with, cache):
    client = await connect_with()
    target = cache.put(os.urandom(SIZE))
    source = Source(cache)
    repository = Repository(docker_registry.host, "team/model")
    async with asyncio.TaskGroup() as group:
        pushes = [
            group.create_task((await client.repository(repository)).push(target, source))
            for _ in range(50)
        ]
    assert sum(push.result() for push in pushes) == SIZE
    assert source.offsets == [count * CHUNK for count in range(10)]


async def test_siblings_get_one_upload_and_mounts(docker_registry, connect_with, cache):
    client = await connect_with()
    target = cache.put(os.urandom(SIZE))
    source = Source(cache)
    siblings = [
        await client.repository(Repository(docker_registry.host, f"team/tune-{number}"))
        for number in range(30)
    ]
    async with asyncio.TaskGroup() as group:
        pushes = [group.create_task(sibling.push(target, source)) for sibling in siblings]
    assert sum(push.result() for push in pushes) == SIZE
    assert sum(sibling.mounted_bytes for sibling in siblings) == 29 * SIZE
    assert len(source.offsets) == 10
    assert all([await sibling.exists(target) for sibling in siblings])


async def test_who_waits_goes_on_where_the_one_before_failed(docker_registry, connect_with, cache):
    client = await connect_with()
    target = cache.put(os.urandom(SIZE))
    repository = Repository(docker_registry.host, "team/model")
    first, second = [await client.repository(repository) for _ in range(2)]
    failing = Source(cache, 4 * CHUNK, gate=asyncio.Event())
    leader = asyncio.create_task(first.push(target, failing))
    await asyncio.wait_for(failing.reached.wait(), 15)
    source = Source(cache)
    follower = asyncio.create_task(second.push(target, source))
    failing.gate.set()
    with pytest.raises(SourceLostError):
        await leader
    assert await follower == SIZE - 4 * CHUNK
    assert source.offsets[0] == 4 * CHUNK


async def test_a_registry_that_is_away_keeps_its_upload(begun, remote, cache, free_address, memory):
    peer = Peer()
    host, target = await begun(peer)
    repository = Repository(host, "team/model")
    session = await memory.recall(repository, target.digest)
    away = Repository(free_address, "team/model")
    with pytest.raises(RegistryUnreachableError):
        await (await remote(away.registry)).push(target, cache)
    assert await memory.recall(repository, target.digest) == session
