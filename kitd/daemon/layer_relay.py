"""Layers on their way from a worker, which reads and hashes them, to a registry, with no copy here.

Each comes through a named pipe and leaves as the chunks of an upload session; what is in memory of
it is one chunk. A layer is published once the worker has said that its files are what they were,
whatever becomes of the others; before that its session is ended by nothing but a cancellation. What
an interruption leaves open is gone on with by the next attempt at the same layer, which reads the
files from the start to hash them and drops what the registry has already.

Where a registry wants the digest first, the worker has read the files once before. Then it is an
upload like any other, if it is one at all; its last bytes wait until the worker has said that they
were the same again.
"""

import asyncio
import fcntl
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import ClassVar

import structlog

from kitd.blocking import run_blocking
from kitd.content.store import ByteStream, Chunk
from kitd.errors import Disposition, KitdError
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import abbreviate, parse_digest
from kitd.oci.media_type import OCTET_STREAM
from kitd.oci.reference import Repository
from kitd.packing.order import Built, PackedLayer, Streaming
from kitd.registry.repository import RemoteRepository
from kitd.registry.stream_upload import StreamBrokenError, StreamUpload

CHUNK_BYTES = 8 * 1024 * 1024
"""What is kept of a layer until the registry has acknowledged it."""
STREAMS = 4
"""Layers of all packs that are sent at once; the workers of others wait at their pipes."""
READ_BYTES = 1 << 18
"""What is read from a pipe at once: it is copied on the event loop."""
PIPE_BYTES = 1 << 20
"""What a worker is ahead, beside its own buffers."""
CANCEL_S = 10.0
"""What a registry gets to take the chunk that is on its way."""

ASK_S = 20.0
"""What a registry gets to say whether it still has a layer."""

_KEPT = frozenset({Disposition.RETRY, Disposition.CRASH, Disposition.PAUSE, Disposition.FATAL})
"""After these the same layer is sent again, and what arrived of it is of use."""

log = structlog.get_logger(__name__)


class LayerLostError(KitdError):
    """What came through the pipe is not what the worker says it sent."""

    code = "layer_lost"
    disposition: ClassVar[Disposition] = Disposition.RETRY


class PipeReader:
    """The reading end of a named pipe, on the event loop. Use `reading` to open one."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._has_begun = False
        self.keeps_waiting = True
        """Whether the writer may have to wait: it has not ended, and nobody takes what it has."""

    async def fill(self, buffer: memoryview) -> int:
        """Read until the buffer is full or the pipe ends; return how many bytes came."""
        filled = 0
        while filled < len(buffer):
            count = await self.read(buffer[filled : filled + READ_BYTES])
            if count == 0:
                break
            filled += count
        return filled

    async def read(self, buffer: memoryview) -> int:
        """Read what is there into the buffer; 0 is the end."""
        while True:
            # Before somebody writes, a pipe that nobody writes to looks like one that has ended.
            if not self._has_begun:
                await self._readable()
                self._has_begun = True
            try:
                count = os.readv(self._handle, [buffer])
            except BlockingIOError:
                await self._readable()
            else:
                # Others have a turn, however fast the worker is.
                await asyncio.sleep(0)
                self.keeps_waiting = count > 0
                return count

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(self._handle, ready.set)
        self.keeps_waiting = False
        try:
            await ready.wait()
        finally:
            self.keeps_waiting = True
            loop.remove_reader(self._handle)


@asynccontextmanager
async def reading(path: str) -> AsyncIterator[PipeReader]:
    """Open a named pipe; its writer is let go on by that."""
    # Non-blocking, so that it does not wait for the writer, who waits for this.
    handle = await run_blocking(os.open, path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        # Unless this user's pipes take as much as the system lets them already.
        with suppress(OSError):
            fcntl.fcntl(handle, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        yield PipeReader(handle)
    finally:
        os.close(handle)


@dataclass(slots=True, eq=False)
class _Passage:
    """One layer on its way."""

    said: Streaming
    pipe: PipeReader | None = None
    upload: StreamUpload | None = None
    size: int = 0
    """How many bytes came through the pipe."""
    sent_bytes: int = 0
    built: asyncio.Future[Built] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    """What the worker says they were."""
    carrier: asyncio.Task[None] = field(init=False)

    @property
    def is_vouched_for(self) -> bool:
        """Whether the worker has said that it is what its files were."""
        return self.built.done() and not self.built.cancelled()

    async def layer(self) -> PackedLayer:
        """Wait for the worker's word. Raises `LayerLostError` where it is not about what came."""
        layer = (await self.built).layer
        if self.size != layer.size:
            raise LayerLostError(f"{self.size} of {layer.size} bytes of {layer.digest} came")
        return layer


class LayerRelay:
    """The layers of one pack that go to one repository. Made by `relaying`."""

    def __init__(
        self,
        group: asyncio.TaskGroup,
        remote: RemoteRepository,
        turns: asyncio.Semaphore,
        arrived: Callable[[Built], Awaitable[None]],
    ) -> None:
        self._group = group
        self._remote = remote
        self._turns = turns
        self._arrived = arrived
        self._passages: dict[str, _Passage] = {}

    @property
    def sent_bytes(self) -> int:
        """What of the layers the repository did not have before."""
        return sum(passage.sent_bytes for passage in self._passages.values())

    def begin(self, said: Streaming) -> None:
        """Take a layer that a worker is about to send."""
        passage = self._passages[said.pipe] = _Passage(said)
        passage.carrier = self._group.create_task(self._carry(passage))

    def finish(self, pipe: str, built: Built) -> None:
        """Publish a layer, all of which was sent, and whose files did not change meanwhile."""
        self._passages[pipe].built.set_result(built)

    def keeps_waiting(self) -> bool:
        """Whether the worker may have to wait at a pipe, for a turn or for the registry."""
        pipes = [each.pipe for each in self._passages.values() if not each.carrier.done()]
        return any(pipe is not None and pipe.keeps_waiting for pipe in pipes)

    async def leave(self, error: BaseException) -> None:
        """Let arrive what was vouched for, and give up the rest unless it would be gone on with.

        The registry need not listen: nothing is raised.
        """
        if not isinstance(error, KitdError):
            return
        unfinished = [each for each in self._passages.values() if not each.is_vouched_for]
        for passage in unfinished:
            # The word that it waits for will not come.
            if passage.said.digest is None:
                passage.built.cancel()
            else:
                passage.carrier.cancel()
        # A registry that meets the end of a connection first may not find the upload any more.
        if carriers := [passage.carrier for passage in self._passages.values()]:
            await asyncio.wait(carriers, timeout=CANCEL_S)
        if error.disposition in _KEPT:
            return
        for passage in unfinished:
            if passage.upload is not None:
                upload, passage.upload = passage.upload, None
                try:
                    await upload.cancel()
                except KitdError as deaf:
                    log.info("relay.not_cancelled", error=str(deaf))

    async def _carry(self, passage: _Passage) -> None:
        said = passage.said
        # Opened at once, so that the worker fills the pipe while this waits for its turn.
        async with reading(said.pipe) as pipe:
            passage.pipe = pipe
            async with self._turns:
                if said.digest is not None and said.size is not None:
                    target = Descriptor(OCTET_STREAM, parse_digest(said.digest), said.size)
                    await self._send_known(passage, pipe, target)
                else:
                    await self._send(passage, pipe)
        layer = await passage.layer()
        if passage.upload is not None:
            await passage.upload.commit(parse_digest(layer.digest), layer.size)
        await self._arrived(passage.built.result())

    async def _send_known(self, passage: _Passage, pipe: PipeReader, target: Descriptor) -> None:
        source = _HeldBack(passage, pipe, self._remote.repository)
        passage.sent_bytes = await self._remote.push(target, source)
        # What the registry has without it comes all the same.
        buffer = memoryview(bytearray(READ_BYTES))
        while count := await pipe.read(buffer):
            passage.size += count

    async def _send(self, passage: _Passage, pipe: PipeReader) -> None:
        said = passage.said
        upload = await self._remote.begin_stream(
            f"layer:{said.key}", chunk_bytes=CHUNK_BYTES, least_size=said.least_size
        )
        passage.upload = upload
        buffer = memoryview(bytearray(upload.chunk_bytes))
        while passage.size < upload.received:
            count = await pipe.read(buffer[: min(READ_BYTES, upload.received - passage.size)])
            if count == 0:
                # It is shorter than what an earlier attempt sent: the end will tell.
                return
            passage.size += count
        while count := await pipe.fill(buffer[: upload.chunk_bytes]):
            await upload.append(buffer[:count])
            passage.size += count
            passage.sent_bytes += count


class LayerRelays:
    """Opens relays, and knows which layers need none. One for the daemon."""

    def __init__(
        self,
        remote: Callable[[Repository], Awaitable[RemoteRepository]],
        over_bytes: Callable[[], int | None],
    ) -> None:
        self._remote = remote
        self._over_bytes = over_bytes
        self.turns = asyncio.Semaphore(STREAMS)
        """One for each layer that is sent."""

    @property
    def over_bytes(self) -> int | None:
        """Layers that are larger are not kept here; None where it depends on the room alone."""
        return self._over_bytes()

    async def holds(self, repository: Repository, layer: Descriptor, *, believed: bool) -> bool:
        """Whether a repository has a layer; where it cannot be asked, what is `believed`."""
        try:
            async with asyncio.timeout(ASK_S):
                return await (await self._remote(repository)).exists(layer)
        except (KitdError, TimeoutError) as error:
            log.info("relay.not_asked", repository=str(repository), error=str(error))
            return believed

    async def open(self, repository: Repository) -> RemoteRepository | None:
        """Return where a relay leads; None where nothing can, which the push will tell."""
        try:
            return await self._remote(repository)
        except KitdError as error:
            log.info("relay.not_opened", repository=str(repository), error=error.message)
            return None

    @asynccontextmanager
    async def relaying(
        self, remote: RemoteRepository, arrived: Callable[[Built], Awaitable[None]]
    ) -> AsyncIterator[LayerRelay]:
        """Give a relay to a repository, which has all layers when the context is left.

        What is not vouched for by then is never published; uploads that a later attempt can go on
        with stay open. `arrived` is called with each layer that the repository has. Raises what a
        relayed layer meets.
        """
        relay: LayerRelay | None = None
        try:
            async with asyncio.TaskGroup() as group:
                relay = LayerRelay(group, remote, self.turns, arrived)
                try:
                    yield relay
                except KitdError as failure:
                    await relay.leave(failure)
                    raise
        except BaseExceptionGroup as errors:
            error = errors.exceptions[0]
            if relay is not None:
                await relay.leave(error)
            raise error from None


class _HeldBack:
    """What comes through a pipe as a source, its end only once the worker has vouched for it.

    It can be opened once. A `kitd.content.store.Fetcher` of this one layer.
    """

    def __init__(self, passage: _Passage, pipe: PipeReader, repository: Repository) -> None:
        self._passage = passage
        self._pipe = pipe
        self._repository = repository
        self._is_spent = False

    async def exists(self, _target: Descriptor) -> bool:
        return True

    @asynccontextmanager
    async def fetch(self, target: Descriptor, *, offset: int = 0) -> AsyncIterator[ByteStream]:
        if self._is_spent or offset:
            raise StreamBrokenError(
                "it has to be sent anew",
                host=self._repository.registry,
                operation=f"push {abbreviate(target.digest)}",
            )
        self._is_spent = True
        yield self._stream()

    async def _stream(self) -> AsyncGenerator[Chunk, None]:
        held: Chunk = b""
        while True:
            buffer = bytearray(READ_BYTES)
            count = await self._pipe.fill(memoryview(buffer))
            if count == 0:
                break
            self._passage.size += count
            if held:
                yield held
            held = memoryview(buffer)[:count]
        await self._passage.layer()
        if held:
            yield held
