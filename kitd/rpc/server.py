"""The server: accepts peers, gives them roles and bounds, and stops in good order."""

import asyncio
import errno
import socket
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

import structlog

from kitd.blocking import run_blocking
from kitd.errors import KitdError
from kitd.rpc.codec import encode_error
from kitd.rpc.connection import Connection, hang_up, linger
from kitd.rpc.disposal import Disposal
from kitd.rpc.endpoint import Endpoint
from kitd.rpc.error import DeniedError, QueueFullError, StoppingError, wire_error
from kitd.rpc.fairness import Shares
from kitd.rpc.limit import Limits
from kitd.rpc.method import Method
from kitd.rpc.peer import Access, AccessRule, Peer, access_of, peer_of
from kitd.rpc.subscription import EventSource, Progress

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_EXHAUSTED_PAUSE_S = 0.5
_REFUSED_INTERVAL_S = 1.0
_MAX_REFUSED = 16
"""Refused peers that are given the time to read why; more of them are just closed."""

S = TypeVar("S")

log = structlog.get_logger(__name__)


class Server(Generic[S]):
    """Serves `methods` on one endpoint. `serve` runs until `stop`, or until it is cancelled."""

    def __init__(
        self,
        methods: Sequence[Method[S]],
        services: S,
        events: EventSource,
        *,
        access: Sequence[AccessRule],
        daemon_uid: int,
        nobody: int | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._methods = {method.name: method for method in methods}
        assert len(self._methods) == len(methods), "two methods have the same name"
        self._services = services
        self._events = events
        self._access = access
        self._daemon_uid = daemon_uid
        self._nobody = nobody
        self._limits = limits or Limits()
        self._shares = Shares()
        self._connections: set[Connection[S]] = set()
        self._refused: dict[socket.socket, Disposal] = {}
        self._disposal = Disposal()
        """Of those for whom there is nothing else."""
        self._stopped = asyncio.Event()
        self._quiet_until_s = 0.0

    async def serve(self, endpoint: Endpoint) -> None:
        """Accept peers and serve them. Closes the endpoint when it stops accepting."""
        try:
            async with asyncio.TaskGroup() as group:
                accepting = group.create_task(self._accept(endpoint.listener, group))
                try:
                    await self._stopped.wait()
                finally:
                    accepting.cancel()
                    await asyncio.wait([accepting])
                    await run_blocking(endpoint.close)
        finally:
            # Only what was accepted and never came to run is still open here.
            for connection in self._connections:
                connection.close()
            for sock, disposal in self._refused.items():
                hang_up(sock, disposal)

    def stop(self, grace_s: float) -> None:
        """Accept nobody, answer the calls in flight for `grace_s`, then let `serve` return."""
        self._stopped.set()
        reason = StoppingError("kitd is stopping", hint="try again when it is back")
        for connection in self._connections:
            connection.drain(grace_s, reason)
        for disposal in self._refused.values():
            disposal.abandon(self._limits.flush_s)

    @property
    def connections(self) -> int:
        """How many peers are connected."""
        return len(self._connections)

    @property
    def calls(self) -> Mapping[tuple[str, bool], int]:
        """How many calls have ended since the start, by method and whether they went well."""
        return self._shares.call_log.ended

    @property
    def access(self) -> Sequence[AccessRule]:
        """The rules. New ones count at once, also for those who are connected."""
        return self._access

    @access.setter
    def access(self, rules: Sequence[AccessRule]) -> None:
        self._access = rules
        for connection in self._connections:
            access = self._access_of(connection.peer)
            if access is None:
                log.info("rpc.access_withdrawn", uid=connection.peer.uid, pid=connection.peer.pid)
                connection.drain(0, _no_role(connection.peer))
            else:
                connection.access = access

    def report(self, progress: Progress) -> None:
        """Tell the subscribers how far a job is. Cheap; call it from the event loop."""
        for connection in self._connections:
            connection.offer(progress)

    async def _accept(self, listener: socket.socket, group: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(listener)
            except ConnectionAbortedError:
                continue
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                # The peer stays in the backlog; trying at once would only burn the processor.
                log.warning("rpc.accept_paused", reason=error.strerror)
                await asyncio.sleep(_EXHAUSTED_PAUSE_S)
                continue
            self._admit(sock, group)
            # Like reading, accepting does not let the loop turn while there is somebody.
            await asyncio.sleep(0)

    def _admit(self, sock: socket.socket, group: asyncio.TaskGroup) -> None:
        """Begin to serve a peer, or to tell it why not."""
        try:
            peer = peer_of(sock, nobody=self._nobody)
        except OSError as error:
            log.warning("rpc.peer_unknown", reason=str(error))
            hang_up(sock, self._disposal)
            return
        try:
            access = self._check(peer, self._access_of(peer))
        except KitdError as error:
            self._tell_refused(peer, error)
            self._refuse(sock, error, group)
            return
        connection = Connection(
            sock,
            peer,
            access,
            methods=self._methods,
            services=self._services,
            events=self._events,
            limits=self._limits,
            shares=self._shares,
        )
        self._connections.add(connection)
        group.create_task(self._run(connection))

    def _access_of(self, peer: Peer) -> Access | None:
        return access_of(peer, self._access, daemon_uid=self._daemon_uid, nobody=self._nobody)

    def _check(self, peer: Peer, access: Access | None) -> Access:
        """Return what a peer that may connect may do. Raises `DeniedError`, `QueueFullError`."""
        if peer.uid == self._nobody:
            raise DeniedError(
                "kitd runs in a user namespace that hides who you are",
                hint="run kitd without PrivateUsers=, or connect from within its namespace",
            )
        if access is None:
            raise _no_role(peer)
        hint = "close other connections, or try again later"
        own = sum(connection.peer.uid == peer.uid for connection in self._connections)
        if own >= self._limits.connections_per_uid:
            reason = f"user {peer.uid} has {own} connections, which is the limit"
            raise QueueFullError(reason, hint=hint, retry_after_s=1.0)
        # The last place is for whoever has to look what the others are doing.
        reserved = 0 if peer.uid in (0, self._daemon_uid) else 1
        if len(self._connections) >= self._limits.connections - reserved:
            reason = f"kitd has {len(self._connections)} connections, which is the limit"
            raise QueueFullError(reason, hint=hint, retry_after_s=1.0)
        return access

    def _tell_refused(self, peer: Peer, error: KitdError) -> None:
        """Log it, and not so often that somebody could fill the disk with it."""
        now_s = asyncio.get_running_loop().time()
        if now_s >= self._quiet_until_s:
            self._quiet_until_s = now_s + _REFUSED_INTERVAL_S
            log.warning("rpc.refused", uid=peer.uid, pid=peer.pid, reason=error.message)

    def _refuse(self, sock: socket.socket, error: KitdError, group: asyncio.TaskGroup) -> None:
        if len(self._refused) >= _MAX_REFUSED:
            hang_up(sock, self._disposal)
            return
        self._refused[sock] = disposal = Disposal()
        group.create_task(self._say(sock, error, disposal))

    async def _say(self, sock: socket.socket, error: KitdError, disposal: Disposal) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_sendall(sock, encode_error(None, wire_error(error)) + b"\n")
            await linger(sock, self._limits.flush_s, disposal)
        except OSError as gone:
            log.debug("rpc.hung_up", reason=str(gone))
        finally:
            hang_up(sock, disposal)
            await disposal.idle()
            del self._refused[sock]

    async def _run(self, connection: Connection[S]) -> None:
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)


def _no_role(peer: Peer) -> DeniedError:
    return DeniedError(
        f"user {peer.uid} may not use kitd",
        hint="rpc.access in kitd's configuration gives roles to users and groups",
    )
