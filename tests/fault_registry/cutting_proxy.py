"""A TCP proxy that breaks connections once so many bytes have passed, or holds them there.

In the loop of a test it is a `CuttingProxy`; `python -m fault_registry.cutting_proxy UPSTREAM
--every BYTES` is a process of its own, which prints its address as a line of JSON.
"""

import argparse
import asyncio
import json
import socket
from asyncio import StreamReader, StreamWriter
from dataclasses import dataclass, field
from typing import Self

PIECE_BYTES = 64 << 10
BUFFER_BYTES = 128 << 10


@dataclass(slots=True)
class Passed:
    """One direction, over all connections."""

    every_bytes: int
    """Each time that so many bytes more have passed the connection is cut; 0 means never."""
    most_cuts: int
    passed_bytes: int = 0
    cuts: int = 0
    held_at: int | None = None
    """Nothing more passes once so many bytes have."""
    _let_go: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def room_bytes(self) -> int:
        """How much may still pass before the next cut."""
        if self.every_bytes == 0 or self.cuts == self.most_cuts:
            return PIECE_BYTES
        return self.every_bytes * (self.cuts + 1) - self.passed_bytes

    @property
    def is_held(self) -> bool:
        """Whether nothing passes now."""
        return self.held_at is not None and self.passed_bytes >= self.held_at

    def hold_at(self, passed_bytes: int | None) -> None:
        """Let so many bytes pass, counted from the first ever, and then none; None means all."""
        self.held_at = passed_bytes
        self._let_go.set()

    async def wait(self) -> None:
        """Return when something may pass."""
        while self.is_held:
            self._let_go.clear()
            await self._let_go.wait()


class CuttingProxy:
    """Passes connections on to `upstream` (`host:port`) while it is entered."""

    def __init__(
        self,
        upstream: str,
        *,
        up_every: int = 0,
        down_every: int = 0,
        most_cuts: int = 1_000_000,
    ) -> None:
        self._upstream = upstream
        self.up = Passed(up_every, most_cuts)
        self.down = Passed(down_every, most_cuts)
        self.host = ""
        self._writers: set[StreamWriter] = set()
        self._talks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        # What lies in buffers has passed for who sent it, and is lost in a cut all the same.
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        listener.bind(("127.0.0.1", 0))
        self._server = await asyncio.start_server(self._converse, sock=listener)
        self.host = "{}:{}".format(*self._server.sockets[0].getsockname())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.break_all()
        # Ended by that; who cancelled them would make the loop complain.
        self.up.hold_at(None)
        self.down.hold_at(None)
        if self._talks:
            await asyncio.wait(self._talks)
        await self._server.wait_closed()

    def break_all(self) -> None:
        """Break all connections; what is in their buffers is lost, as when a machine dies."""
        for writer in self._writers:
            writer.transport.abort()

    async def _converse(self, reader: StreamReader, writer: StreamWriter) -> None:
        talk = asyncio.current_task()
        assert talk is not None
        self._talks.add(talk)
        talk.add_done_callback(self._talks.discard)
        host, _, port = self._upstream.rpartition(":")
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        writers = {writer, far_writer}
        self._writers |= writers
        try:
            await self._pass_both(reader, writer, far_reader, far_writer)
        except ConnectionError:
            for one in writers:
                one.transport.abort()
        finally:
            self._writers -= writers
            for one in writers:
                one.close()

    async def _pass_both(
        self,
        reader: StreamReader,
        writer: StreamWriter,
        far: StreamReader,
        far_writer: StreamWriter,
    ) -> None:
        ways = [
            asyncio.create_task(self._pass(reader, far_writer, self.up)),
            asyncio.create_task(self._pass(far, writer, self.down)),
        ]
        try:
            # Who goes takes the other along.
            done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in done:
                way.result()
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _pass(self, source: StreamReader, target: StreamWriter, way: Passed) -> None:
        await way.wait()
        while data := await source.read(max(min(PIECE_BYTES, way.room_bytes), 1)):
            way.passed_bytes += len(data)
            target.write(data)
            await target.drain()
            if way.room_bytes <= 0:
                way.cuts += 1
                raise ConnectionAbortedError("cut")
            await way.wait()


async def serve(upstream: str, up_every: int, down_every: int) -> None:
    async with CuttingProxy(upstream, up_every=up_every, down_every=down_every) as proxy:
        print(json.dumps({"host": proxy.host}), flush=True)
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="cutting_proxy", description=__doc__)
    parser.add_argument("upstream", metavar="HOST:PORT")
    parser.add_argument("--up-every", type=int, default=0, metavar="BYTES")
    parser.add_argument("--down-every", type=int, default=0, metavar="BYTES")
    options = parser.parse_args()
    asyncio.run(serve(options.upstream, options.up_every, options.down_every))


if __name__ == "__main__":
    main()
