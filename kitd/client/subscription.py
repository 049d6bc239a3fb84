"""A blocking subscription to the daemon's events, and to the progress of its jobs."""

import math
import time
from collections.abc import Iterator
from typing import NamedTuple, Self, TypeVar

from kitd.client.connection import Connection
from kitd.client.error import DeadlineExceededError
from kitd.client.protocol import SILENCE_S, Document
from kitd.client.record import Event, Progress, read_event, read_progress, read_subscription
from kitd.client.request import Request

T = TypeVar("T")

CALL_TIMEOUT_S = 30.0


class JobProgress(NamedTuple):
    """How far one job is; at most four a second for a job."""

    job: int
    progress: Progress


class Subscription:
    """Recorded events after a cursor, then what happens from now on, without a gap.

    A reader who is too slow for the daemon is put back where it stopped and misses no event.
    It has a connection of its own, so that it ends whenever that does, and calls of its client may
    be made meanwhile. For one thread. Use as a context manager, or call `close`.
    """

    def __init__(
        self,
        connection: Connection,
        filters: Document,
        from_seq: int | None,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> None:
        """Subscribe on a connection, which belongs to this. Raises what `Client.call` raises."""
        self._filters = filters
        self._last_seq = from_seq
        self._timeout_s = timeout_s
        self._connection = connection
        try:
            self._id = self._subscribe()
        except BaseException:
            self._connection.close()
            raise

    @property
    def last_seq(self) -> int | None:
        """The number of the last event that came, or else that there was when this began.

        Another subscription that begins there misses none. None where kitd did not say.
        """
        return self._last_seq

    def read(self, *, deadline: float = math.inf) -> Event | JobProgress:
        """Return what comes next, waiting for it until `deadline` (monotonic seconds).

        Raises `DeadlineExceededError` then, and when the daemon misses its heartbeats; and what
        `Client.call` raises.
        """
        while True:
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0:
                raise DeadlineExceededError("the time is over")
            try:
                notification = self._connection.notification(timeout_s=min(remaining_s, SILENCE_S))
            except DeadlineExceededError as error:
                if remaining_s > SILENCE_S:
                    raise
                raise DeadlineExceededError("the time is over") from error
            if (item := self._take(notification.method, notification.params)) is not None:
                return item

    def fileno(self) -> int:
        """Return the descriptor that is readable when something comes, for `select`.

        What came before may wait already: read until the deadline passes, and select then.
        """
        return self._connection.fileno()

    def call(self, request: Request[T]) -> T:
        """Return the answer to a request; what comes meanwhile is read later.

        Raises what `Client.call` raises.
        """
        answer = self._connection.call(request.method, request.params, timeout_s=CALL_TIMEOUT_S)
        return request.read(answer)

    def close(self) -> None:
        """End the subscription. Safe to call twice."""
        self._connection.close()

    def _subscribe(self) -> int:
        cursor = {} if self._last_seq is None else {"from_seq": self._last_seq}
        answer = self._connection.call(
            "events.subscribe", {**self._filters, **cursor}, timeout_s=self._timeout_s
        )
        number = read_subscription(answer)
        if self._last_seq is None and isinstance(head_seq := answer.get("head_seq"), int):
            self._last_seq = head_seq
        return number

    def _take(self, method: str, params: Document) -> Event | JobProgress | None:
        if method == "$/progress":
            number = params.get("job")
            return JobProgress(number, read_progress(params)) if isinstance(number, int) else None
        if params.get("subscription") != self._id:
            return None
        if method == "events.event":
            event = read_event(params.get("event"))
            self._last_seq = event.seq
            return event
        if method == "events.lagged":
            last_seq = params.get("last_seq")
            self._last_seq = last_seq if isinstance(last_seq, int) else self._last_seq
            self._id = self._subscribe()
        return None

    def __iter__(self) -> Iterator[Event | JobProgress]:
        while True:
            yield self.read()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
