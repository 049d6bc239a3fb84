"""One peer: reads its lines, runs its calls side by side, answers as they finish."""

import asyncio
import secrets
import select
import socket
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import structlog

from kitd.blocking import run_blocking
from kitd.errors import KitdError
from kitd.oci.json_reader import Json
from kitd.rpc import codec
from kitd.rpc.codec import Batch, Call, Notification, Request, RequestId, Violation
from kitd.rpc.disposal import Disposal
from kitd.rpc.error import (
    DeniedError,
    InternalError,
    InvalidRequestError,
    MethodNotFoundError,
    QueueFullError,
    RequestCancelledError,
    TooLargeError,
    wire_error,
)
from kitd.rpc.fairness import Cost, Shares
from kitd.rpc.inbox import Arrived, Inbox, receive
from kitd.rpc.limit import Limits
from kitd.rpc.method import Context, Method, Reply
from kitd.rpc.outbox import Outbox, close_all
from kitd.rpc.peer import Access, Peer, Role
from kitd.rpc.subscription import EventSource, Progress, Subscriptions, Turns

MAX_SENT = 32
"""File descriptors that one response carries at most."""
_QUICK_BYTES = 1 << 15
"""Longer lines are parsed in a thread: the worst of a megabyte would hold the loop up."""
_ERROR_BYTES = 1 << 14
"""Room that a batch keeps for each answer, so that an error always fits."""

CANCEL_REQUEST = "$/cancelRequest"
"""Takes back the call `id`, as in the language server protocol."""

S = TypeVar("S")

log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class _Running:
    """A call that has no answer yet: waiting in a batch, or with its handler in `task`."""

    call: Request | Notification
    batched: bool
    task: asyncio.Task[None] | None = None
    stopped: KitdError | None = None

    @property
    def id(self) -> RequestId | None:
        return self.call.id if isinstance(self.call, Request) else None

    def stop(self, reason: KitdError) -> None:
        """Make `reason` the answer. The handler is cancelled; what it started elsewhere is not."""
        if self.stopped is None:
            self.stopped = reason
            if self.task is not None:
                self.task.cancel()


class Connection(Generic[S]):
    """A connected socket and everything that goes on over it."""

    def __init__(
        self,
        sock: socket.socket,
        peer: Peer,
        access: Access,
        *,
        methods: Mapping[str, Method[S]],
        services: S,
        events: EventSource,
        limits: Limits,
        shares: Shares,
    ) -> None:
        self.peer = peer
        self.access = access
        """What the peer may do; another one counts from the next call on."""
        self._sock = sock
        self._methods = methods
        self._services = services
        self._events = events
        self._limits = limits
        self._shares = shares
        self._disposal = Disposal()
        self._inbox = Inbox(sock, self._disposal)
        self._outbox = Outbox(sock, limits)
        self._subscriptions: Subscriptions | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: dict[RequestId, _Running] = {}
        self._reader: asyncio.Task[None] | None = None
        self._draining = False
        self._patience_s = limits.half_open_s
        self._overdue: KitdError = RequestCancelledError(
            f"no answer within {limits.half_open_s:g} s after the last request"
        )

    async def run(self) -> None:
        """Serve until the peer hangs up, breaks the framing, or `drain` is called."""
        try:
            async with asyncio.TaskGroup() as group:
                await self._serve(group)
        except* OSError as errors:
            log.debug("rpc.hung_up", pid=self.peer.pid, reason=str(errors.exceptions[0]))
        except* Exception:  # the boundary: the other connections go on
            log.exception("rpc.connection_failed", pid=self.peer.pid)
        finally:
            self.close()
        # What hangs is counted as one of its user's connections, so that it has a bound.
        await self._disposal.idle()

    def drain(self, patience_s: float, reason: KitdError) -> None:
        """Read no more; `run` returns when the calls in flight are answered.

        Those that take longer than `patience_s` are answered with `reason`.
        """
        self._draining = True
        self._patience_s = patience_s
        self._overdue = reason
        self._disposal.abandon(self._limits.flush_s)
        if self._reader is not None:
            self._reader.cancel()

    def offer(self, progress: Progress) -> None:
        """Tell the peer how far a job is, if it wants to know."""
        if self._subscriptions is not None:
            self._subscriptions.offer(progress)

    def close(self) -> None:
        """Release the socket, and the descriptors that were on their way."""
        self._inbox.close()
        self._outbox.discard()
        hang_up(self._sock, self._disposal)

    async def _serve(self, group: asyncio.TaskGroup) -> None:
        subscriptions = Subscriptions(
            self._events,
            self._outbox,
            group,
            self._limits,
            Turns(
                self._turn,
                lambda: self._shares.costly_calls[Cost.LEDGER].turn(self.peer.uid, self),
            ),
        )
        self._subscriptions = subscriptions
        sender = group.create_task(self._outbox.run())
        self._reader = group.create_task(self._read(group, subscriptions))
        if self._draining:
            self._reader.cancel()
        await asyncio.wait([self._reader])
        await self._finish_calls()
        subscriptions.close_all()
        self._outbox.close()
        async with asyncio.timeout(max(self._patience_s, self._limits.flush_s)):
            await sender
        await linger(self._sock, self._limits.flush_s, self._disposal)

    async def _finish_calls(self) -> None:
        """Wait for the calls in flight; answer those that take too long with an error."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._patience_s)
        for running in list(self._running.values()):
            running.stop(self._overdue)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._limits.flush_s)
        for task in self._tasks:
            task.cancel()

    async def _read(self, group: asyncio.TaskGroup, subscriptions: Subscriptions) -> None:
        try:
            while not self._inbox.is_at_end:
                # Who does not read what he asked for is not asked what else he wants.
                await self._outbox.room()
                await self._disposal.idle()
                await self._inbox.ready()
                await self._turn()
                messages = [_parse_short(line) for line in self._inbox.poll()]
                context = Context(self.peer, self.access, subscriptions, self._services)
                for message in messages:
                    await self._take(self._inbox.take(), message, context, group)
        except TooLargeError as error:
            await self._refuse(None, error)
            self._patience_s = self._limits.flush_s
            return
        if _gone(self._sock):
            # Nobody will read an answer; what was asked for still gets a moment to be done.
            self._patience_s = self._limits.flush_s

    async def _refuse(self, request_id: RequestId | None, error: KitdError) -> None:
        await self._outbox.put(codec.encode_error(request_id, wire_error(error)))

    async def _take(
        self,
        arrived: Arrived,
        message: Call | Batch | None,
        context: Context[S],
        group: asyncio.TaskGroup,
    ) -> None:
        """Begin what a line asks for; its message is None where it is still to be parsed."""
        descriptor = arrived.descriptor
        try:
            if message is None:
                message = await self._parse_long(arrived.line)
            match message:
                case Violation(request_id, error):
                    await self._refuse(request_id, error)
                case Notification(method=method, params=params) if method == CANCEL_REQUEST:
                    self._cancel(params)
                case call if (limit := self._limit_reached()) is not None:
                    if not isinstance(call, Notification):
                        request_id = call.id if isinstance(call, Request) else None
                        await self._refuse(request_id, QueueFullError(limit, retry_after_s=1.0))
                case Batch(calls):
                    entries = [self._admit(call, batched=True) for call in calls]
                    self._start(self._perform_batch(entries, context), group, None)
                case call:
                    admitted = self._admit(call, batched=False)
                    if isinstance(admitted, Violation):
                        await self._refuse(admitted.id, admitted.error)
                        return
                    kept = self._kept(admitted.call, descriptor)
                    if kept is not None:
                        context = replace(context, descriptor=kept)
                        descriptor = None
                    self._start(self._perform(admitted, context), group, kept)
        finally:
            if descriptor is not None:
                self._disposal.dispose((descriptor,))

    async def _parse_long(self, line: bytes) -> Call | Batch:
        async with self._shares.long_lines.turn(self.peer.uid, self):
            return await run_blocking(codec.parse, line)

    async def _turn(self) -> None:
        """Return when this connection may do a moment's work."""
        await self._shares.moments.take(self.peer.uid, self)

    def _limit_reached(self) -> str | None:
        if len(self._tasks) >= self._limits.calls:
            return f"{len(self._tasks)} calls are in flight, which is the limit"
        of_user = self._shares.calls[self.peer.uid]
        # A connection may always do something, whatever the others of its user do.
        if self._tasks and of_user >= self._limits.calls_per_uid:
            return f"user {self.peer.uid} has {of_user} calls in flight, which is the limit"
        return None

    def _kept(self, call: Request | Notification, descriptor: int | None) -> int | None:
        method = self._methods.get(call.method)
        return descriptor if method is not None and method.takes_descriptor else None

    def _start(
        self,
        work: Coroutine[None, None, None],
        group: asyncio.TaskGroup,
        descriptor: int | None,
    ) -> None:
        """Let a call run; its descriptor is closed when it has ended, or never came to run."""
        task = group.create_task(work)
        self._tasks.add(task)
        self._shares.calls[self.peer.uid] += 1

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._shares.calls[self.peer.uid] -= 1
            if descriptor is not None:
                self._disposal.dispose((descriptor,))

        task.add_done_callback(ended)

    def _admit(self, call: Call, *, batched: bool) -> _Running | Violation:
        """Register a call, so that it can be cancelled from now on."""
        if isinstance(call, Violation):
            return call
        running = _Running(call, batched)
        if isinstance(call, Request):
            if call.id in self._running:
                reason = f"the id {call.id!r} is that of a call in flight"
                return Violation(call.id, InvalidRequestError(reason))
            self._running[call.id] = running
        return running

    def _cancel(self, params: Json) -> None:
        request_id = params.get("id") if isinstance(params, Mapping) else None
        running = self._running.get(request_id) if isinstance(request_id, int | str) else None
        if running is not None:
            running.stop(RequestCancelledError("the caller took the request back"))

    async def _perform(self, running: _Running, context: Context[S]) -> None:
        """Run one call and answer it."""
        outcome = await self._outcome(running, context)
        if running.id is None:
            return
        document, reply = _encode(running, outcome, codec.MAX_RESPONSE_BYTES)
        await self._outbox.put(document, reply.descriptors)
        if reply.after is not None:
            reply.after()

    async def _perform_batch(
        self, entries: Sequence[_Running | Violation], context: Context[S]
    ) -> None:
        """Run the calls of a batch one after another, and answer them together."""
        responses = []
        room = codec.MAX_RESPONSE_BYTES - len(entries) * _ERROR_BYTES
        for entry in entries:
            if isinstance(entry, Violation):
                document = codec.encode_error(entry.id, wire_error(entry.error))
            else:
                outcome = await self._outcome(entry, context)
                if entry.id is None:
                    continue
                document, _ = _encode(entry, outcome, room)
            responses.append(document)
            room -= len(document)
        if responses:
            await self._outbox.put(codec.encode_batch(responses))

    async def _outcome(self, running: _Running, context: Context[S]) -> Reply[object] | KitdError:
        """Run one call to its end and return what it came to."""
        method = self._methods.get(running.call.method)
        if method is None:
            outcome: Reply[object] | KitdError = MethodNotFoundError(
                f"there is no method {running.call.method!r}", hint="system.discover lists them"
            )
        elif method.alone and (running.batched or running.id is None):
            outcome = InvalidRequestError(f"{method.name} has to be a request of its own")
        elif (role := context.access.role) < method.role:
            outcome = DeniedError(
                f"{method.name} needs the role {method.role.label}, yours is {role.label}",
                hint="rpc.access in kitd's configuration gives roles",
            )
        elif running.stopped is not None:
            outcome = running.stopped
        else:
            outcome = await self._invoke(running, method, context)
        if running.id is not None:
            self._running.pop(running.id, None)
        return outcome

    async def _invoke(
        self, running: _Running, method: Method[S], context: Context[S]
    ) -> Reply[object] | KitdError:
        try:
            reply = await _stoppable(running, self._call(method, context, running.call.params))
            assert method.alone or not (reply.descriptors or reply.after)
            outcome: Reply[object] | KitdError = reply
        except KitdError as error:
            outcome = error
        except Exception:  # noqa: BLE001 - the boundary: a defect becomes an answer
            outcome = _defect(method.name)
        is_well = not isinstance(outcome, KitdError)
        self._shares.call_log.ended[method.name, is_well] += 1
        if method.role > Role.READ:
            code = outcome.code if isinstance(outcome, KitdError) else "ok"
            self._shares.call_log.note(method.name, self.peer.uid, self.peer.pid, code)
        return outcome

    async def _call(self, method: Method[S], context: Context[S], params: Json) -> Reply[object]:
        if method.cost is None:
            return await method.call(context, params)
        while True:
            await self._outbox.room()
            async with self._shares.costly_calls[method.cost].turn(self.peer.uid, self):
                # Another answer may have taken the room meanwhile.
                if not self._outbox.is_full:
                    return await method.call(context, params)


def _parse_short(line: bytes) -> Call | Batch | None:
    return codec.parse(line) if len(line) <= _QUICK_BYTES else None


async def linger(sock: socket.socket, linger_s: float, disposal: Disposal) -> None:
    """Let the peer read the last line; closing over unread input would reset the connection."""
    sock.shutdown(socket.SHUT_WR)
    async with asyncio.timeout(linger_s):
        while await _receive(sock, disposal):
            pass


async def _receive(sock: socket.socket, disposal: Disposal) -> bytes:
    """Return the next bytes, empty at the end of input."""
    while True:
        # Lets the loop turn while there is input.
        await asyncio.sleep(0)
        try:
            received = receive(sock)
        except BlockingIOError:
            await _readable(sock)
        else:
            disposal.dispose(received.descriptors)
            return received.data


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(sock, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(sock)


def hang_up(sock: socket.socket, disposal: Disposal) -> None:
    """Close a socket, at once for the peer, and soon for good."""
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    disposal.close(sock.close)


async def _stoppable(
    running: _Running, handling: Coroutine[None, None, Reply[object]]
) -> Reply[object]:
    """Run a handler until it returns or `running.stop` is called. Raises its reason then."""
    task = asyncio.current_task()
    assert task is not None
    running.task = task
    try:
        return await handling
    except asyncio.CancelledError:
        # Only the cancellation that `stop` asked for is taken back: the connection's own goes on.
        if running.stopped is None or task.uncancel() > 0:
            raise
        raise running.stopped from None
    finally:
        running.task = None


def _encode(
    running: _Running, outcome: Reply[object] | KitdError, max_bytes: int
) -> tuple[bytes, Reply[object]]:
    """Return the response and what goes with it; descriptors are closed if it became an error."""
    assert running.id is not None
    if isinstance(outcome, Reply):
        name, count = running.call.method, len(outcome.descriptors)
        try:
            document = codec.encode_result(running.id, outcome.result)
        except (TypeError, ValueError, OverflowError):
            error: KitdError = _defect(name)
        else:
            if len(document) <= max_bytes and count <= MAX_SENT:
                return document, outcome
            error = TooLargeError(
                f"the answer to {name} has {len(document)} bytes and {count} descriptors, "
                f"more than {max_bytes} and {MAX_SENT}",
                hint="ask for less at once",
            )
        close_all(outcome.descriptors)
    else:
        error = outcome
    return codec.encode_error(running.id, wire_error(error)), Reply(None)


def _defect(name: str) -> InternalError:
    """Log the exception that is being handled and return what the caller is told."""
    reference = secrets.token_hex(4)
    log.exception("rpc.call_failed", method=name, reference=reference)  # noqa: LOG004 - see above
    return InternalError(f"{name} failed inside kitd", hint=f"kitd's log has it under {reference}")


def _gone(sock: socket.socket) -> bool:
    """Whether the peer closed the socket, and not only its sending half."""
    poll = select.poll()
    poll.register(sock, 0)
    return any(event & select.POLLHUP for _, event in poll.poll(0))
