"""Uploads of what is still being made: nothing can be read again, so nothing may get lost."""

import hashlib
import os

import pytest
from aiohttp import web

from kitd.oci.descriptor import describe
from kitd.oci.media_type import OCTET_STREAM
from kitd.oci.reference import Repository
from kitd.registry.client import RegistryClient
from kitd.registry.errors import RegistryRejectedError, RegistryTooLargeError
from kitd.registry.settings import RegistrySettings, UploadMode
from kitd.registry.stream_upload import StreamBrokenError
from kitd.registry.transfer_memory import VolatileMemory
from kitd.registry.transport import Surroundings

MIB = 1 << 20
CHUNK = MIB
CHUNKED = RegistrySettings(upload_mode=UploadMode.CHUNKED, chunk_bytes=CHUNK)


@pytest.fixture
async def remote(connect):
    """Make a repository of a client of its own; all share a memory, as lives of a daemon do."""
    memory = VolatileMemory()

    async def sleep(delay_s):
        """Wait for nothing."""

    async def remote(host, settings=CHUNKED):
        surroundings = Surroundings(environment={}, sleep=sleep)
        client = RegistryClient(lambda _: settings, surroundings, memory)
        await connect.stack.enter_async_context(client)
        return await client.repository(Repository(host, "team/model"))

    return remote


async def send(upload, content):
    """Send what the registry does not have."""
    while upload.received < len(content):
        start = upload.received
        await upload.append(memoryview(content)[start : start + upload.chunk_bytes])


@pytest.mark.parametrize("mode", [UploadMode.CHUNKED, UploadMode.STREAM])
async def test_what_was_sent_is_the_blob_once_its_digest_is_known(docker_registry, remote, mode):
    """The last chunk is smaller, and an empty blob has none."""
    repository = await remote(docker_registry.host, RegistrySettings(upload_mode=mode))
    for content in (os.urandom(5 * MIB + 7), b""):
        target = describe(OCTET_STREAM, content)
        upload = await repository.begin_stream("layer:key", chunk_bytes=2 * MIB)
        await send(upload, content)
        assert not await repository.exists(target)
        await upload.commit(target.digest, target.size)
        assert await repository.exists(target)


async def test_another_life_goes_on_where_the_registry_is(docker_registry, remote):
    """Nothing is sent again of what was acknowledged."""
    content = os.urandom(4 * MIB)
    first = await (await remote(docker_registry.host)).begin_stream("layer:key", chunk_bytes=CHUNK)
    await send(first, content[: 3 * MIB])
    repository = await remote(docker_registry.host)
    second = await repository.begin_stream("layer:key", chunk_bytes=CHUNK)
    assert second.received == 3 * MIB
    await send(second, content)
    target = describe(OCTET_STREAM, content)
    await second.commit(target.digest, target.size)
    assert await repository.exists(target)
    # It has ended: the next of this name is another one.
    assert (await repository.begin_stream("layer:key", chunk_bytes=CHUNK)).received == 0


@pytest.mark.parametrize(
    "answer",
    [
        *(
            pytest.param(lambda status=status: web.Response(status=status), id=str(status))
            for status in (401, 403, 404, 500)
        ),
        pytest.param(
            lambda: web.Response(status=204, headers={"Range": "nonsense"}), id="nonsense"
        ),
    ],
)
async def test_a_session_that_cannot_be_asked_for_is_replaced(serve, remote, answer):
    peer = Peer(asked=answer)
    repository = await remote(await serve(peer.handle))
    await send(await repository.begin_stream("layer:key", chunk_bytes=CHUNK), os.urandom(2 * MIB))
    peer.session.clear()
    assert (await repository.begin_stream("layer:key", chunk_bytes=CHUNK)).received == 0


async def test_a_beginning_that_is_another_one_by_now_is_thrown_away(docker_registry, remote):
    """The digest tells; the attempt after that begins anew."""
    repository = await remote(docker_registry.host)
    first = await repository.begin_stream("layer:key", chunk_bytes=CHUNK)
    await send(first, os.urandom(2 * MIB))
    content = os.urandom(4 * MIB)
    target = describe(OCTET_STREAM, content)
    second = await repository.begin_stream("layer:key", chunk_bytes=CHUNK)
    await send(second, content)
    with pytest.raises(StreamBrokenError, match="not how it begins now"):
        await second.commit(target.digest, target.size)
    assert not await repository.exists(target)
    assert (await repository.begin_stream("layer:key", chunk_bytes=CHUNK)).received == 0


async def test_what_is_cancelled_is_gone(docker_registry, remote):
    repository = await remote(docker_registry.host)
    upload = await repository.begin_stream("layer:key", chunk_bytes=CHUNK)
    await send(upload, os.urandom(MIB))
    await upload.cancel()
    uploads = docker_registry.root.glob("docker/registry/v2/repositories/**/_uploads/*/data")
    assert list(uploads) == []
    assert (await repository.begin_stream("layer:key", chunk_bytes=CHUNK)).received == 0


class Peer:
    """A registry of one upload, with quirks."""

    def __init__(self, *, largest=8 * MIB, keeps=None, fails=(), loses_answer=False, asked=None):
        self.largest = largest
        self.keeps = keeps
        self.fails = list(fails)
        self.loses_answer = loses_answer
        self.asked = asked
        self.session = bytearray()
        self.held = {}
        self.taken_bytes = 0

    def state(self, status):
        headers = {
            "Location": "/v2/team/model/blobs/uploads/1",
            "Range": f"0-{max(len(self.session) - 1, 0)}",
        }
        return web.Response(status=status, headers=headers)

    async def handle(self, request):
        body = await request.read()
        digest = request.path.rpartition("/")[2]
        match request.method:
            case "HEAD":
                return web.Response(status=200 if digest in self.held else 404)
            case "PATCH" if len(body) > self.largest:
                return web.Response(status=413)
            case "PATCH":
                kept = body if self.keeps is None else body[: self.keeps]
                self.session += kept
                self.taken_bytes += len(body)
                return web.Response(status=self.fails.pop()) if self.fails else self.state(202)
            case "PUT":
                self.held[request.query["digest"]] = bytes(self.session)
                return web.Response(status=500 if self.loses_answer else 201)
            case "GET":
                return self.asked() if self.asked else self.state(204)
        return self.state(202)


@pytest.mark.parametrize(
    "peer",
    [Peer(largest=600 * 1024), Peer(keeps=300 * 1024), Peer(fails=[500, 503]), Peer()],
    ids=["413", "keeps less", "fails and has it", "plain"],
)
async def test_a_registry_that_takes_less_gets_it_all(serve, remote, peer):
    """Smaller chunks where they are too large; what it did not keep once more."""
    content = os.urandom(3 * MIB + 1)
    upload = await (await remote(await serve(peer.handle))).begin_stream("x", chunk_bytes=CHUNK)
    await send(upload, content)
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    await upload.commit(digest, len(content))
    assert peer.held[digest] == content


async def test_a_commit_whose_answer_was_lost_is_looked_for(serve, remote):
    peer = Peer(loses_answer=True)
    content = os.urandom(1000)
    upload = await (await remote(await serve(peer.handle))).begin_stream("x", chunk_bytes=CHUNK)
    await send(upload, content)
    await upload.commit(f"sha256:{hashlib.sha256(content).hexdigest()}", len(content))


async def test_a_registry_that_takes_no_chunk_at_all_is_given_up(serve, remote):
    upload = await (await remote(await serve(Peer(largest=10).handle))).begin_stream(
        "x", chunk_bytes=CHUNK
    )
    with pytest.raises(RegistryTooLargeError):
        await upload.append(memoryview(os.urandom(CHUNK)))


async def test_a_refusal_at_the_end_of_a_fresh_upload_is_the_error(serve, remote):
    """There was no earlier attempt that could be blamed."""

    async def handle(request):
        if request.method == "PUT":
            return web.Response(status=400)
        return await peer.handle(request)

    peer = Peer()
    upload = await (await remote(await serve(handle))).begin_stream("x", chunk_bytes=CHUNK)
    await send(upload, b"content")
    with pytest.raises(RegistryRejectedError):
        await upload.commit(f"sha256:{hashlib.sha256(b'content').hexdigest()}", 7)


@pytest.mark.parametrize("status", [404, 405])
async def test_a_registry_without_chunks_is_remembered_as_that(serve, remote, status):
    """The next attempt says the digest first; this one cannot begin anew."""

    async def handle(request):
        if request.method == "PATCH":
            await request.read()
            return web.Response(status=status)
        return await Peer().handle(request)

    host = await serve(handle)
    repository = await remote(host, RegistrySettings())
    assert await repository.takes_streams()
    upload = await repository.begin_stream("x", chunk_bytes=CHUNK)
    with pytest.raises(StreamBrokenError, match="takes no chunks"):
        await send(upload, os.urandom(CHUNK))
    assert not await (await remote(host, RegistrySettings())).takes_streams()


async def test_the_size_of_chunk_that_was_taken_is_remembered(serve, remote):
    peer = Peer(largest=600 * 1024)
    content = os.urandom(2 * MIB)
    host = await serve(peer.handle)
    upload = await (await remote(host, RegistrySettings())).begin_stream("x", chunk_bytes=CHUNK)
    await send(upload, content)
    await upload.commit(f"sha256:{hashlib.sha256(content).hexdigest()}", len(content))
    peer.session.clear()
    again = await (await remote(host, RegistrySettings())).begin_stream("y", chunk_bytes=CHUNK)
    assert again.chunk_bytes == CHUNK // 2


async def test_what_is_larger_than_the_registry_takes_is_not_begun(remote):
    """ECR is the one whose limit is known."""
    repository = await remote("1234.dkr.ecr.eu-west-1.amazonaws.com", RegistrySettings())
    with pytest.raises(RegistryTooLargeError, match="blobs there have"):
        await repository.begin_stream("x", chunk_bytes=CHUNK, least_size=60_000 * MIB)
