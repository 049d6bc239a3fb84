"""The budget of one host: how many requests at once, and when none at all. Pure.

A state machine that is fed the time and what came of each request. Three things bound what a host
is asked for: a limit for each lane, which grows by one with every full window of good answers and
is halved when the host is overloaded (additive increase, multiplicative decrease, as in TCP); the
windows in which a host forbids requests (`Retry-After`, RFC 9110, 10.2.3); and a circuit breaker,
which leaves a host alone that fails again and again, and then sends one request to see.
"""

import enum
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import takewhile

FIRST_LIMIT = 8
MAX_LIMIT = 32
"""Requests of one lane at once; the limit is never less than 1."""
PATIENCE_S = 60.0
"""So long a request waits for a host that wants none. A wait keeps a job's slot from jobs for other
hosts; the queue can wait for longer at no cost, and even while kitd is restarted."""
OUTAGE_S = 4.0
"""So long it waits for a host whose breaker is open: nobody knows when that will be well, and from
the third time on it is no hiccup, which people should hear of. While a half-open breaker waits for
the answer to its one request, which may be slow because it is large, it is `PATIENCE_S`."""
FIRST_CLOSED_S = 1.0
MAX_CLOSED_S = 60.0
"""How long a host is left alone that did not say for how long: doubles between these two, until
it gives a good answer."""
SPREAD_S = 0.5
"""At most so long after a host opens again, and after each other, come requests until one of them
has a good answer: whoever else waited for that moment does not come at the same one."""
TROUBLED_S = 3600.0
"""So long a host that nobody asks any more is taken to be in trouble. Jobs that wait for one ask it
at least once in a quarter of that."""
FAILURES = 6
"""So many failures in a row open the breaker. It is one more than one request is tried, because an
answer that always fails says little about the host."""


class Lane(enum.Enum):
    """Requests that wait for each other; those of other lanes they do not wait for."""

    TOKEN = enum.auto()
    """For an access token, while the request that needs it has been admitted and waits."""
    SMALL = enum.auto()
    """Questions and documents, which get through beside any number of transfers."""
    READING = enum.auto()
    """Content of any size, from the host."""
    WRITING = enum.auto()
    """Content of any size, to the host. It may wait for reading that feeds it while it holds its
    place, and nothing waits for writing: a copy inside of one registry cannot block itself."""


_TRANSFERS = frozenset({Lane.READING, Lane.WRITING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What an answer, or none, says of its host. By default: that it is well."""

    failed: bool = False
    """It could not do what it should; so many of these in a row open the breaker."""
    overloaded: bool = False
    """It should get fewer requests at once."""
    refused: bool = False
    """It wants no requests for a while, for `retry_after_s` if it says so."""
    retry_after_s: float | None = None

    @property
    def good(self) -> bool:
        """Whether the host is well."""
        return not (self.failed or self.overloaded or self.refused)


class Closure(enum.Enum):
    """Why a host is asked for nothing."""

    FORBIDDEN = enum.auto()
    """It said so."""
    FAILING = enum.auto()
    """The breaker is open."""


@dataclass(frozen=True, slots=True)
class Closed:
    """A host that is asked for nothing for so long."""

    closure: Closure
    for_s: float


@dataclass(slots=True, eq=False)
class Ticket:
    """One request that waits for its admission, or that was admitted and has not ended."""

    lane: Lane
    order: int
    """Among all that asked."""
    asked_s: float
    patient: bool
    """Whether it waits while the host is closed, for `PATIENCE_S` or `OUTAGE_S` at most."""
    admission: int | None = None
    """Its number among all that were admitted; None while it waits."""


@dataclass(frozen=True, slots=True)
class Look:
    """What follows at one moment."""

    admitted: tuple[Ticket, ...]
    refused: tuple[Ticket, ...]
    """Those that would have to wait for longer than they have patience."""
    again_s: float | None
    """When to look again; None if only a change can bring anything new."""


@dataclass(slots=True)
class _Line:
    """One lane: who is under way, who waits."""

    limit: int = FIRST_LIMIT
    under_way: int = 0
    good: int = 0
    """Good answers while the limit was reached, since it last changed."""
    waiting: OrderedDict[Ticket, None] = field(default_factory=OrderedDict)


class Governor:
    """Admits the requests to one host. Times are monotonic seconds.

    `draw` gives random numbers, uniform in [0, 1). After every call but `look` the caller looks.
    """

    def __init__(self, draw: Callable[[], float]) -> None:
        self._draw = draw
        self._lines = {lane: _Line() for lane in Lane}
        self._impatient: OrderedDict[Ticket, None] = OrderedDict()
        """Those that wait and are not patient."""
        self._asked = 0
        self._admitted = 0
        self._slowed_at = 0
        """Who was admitted up to here knew nothing of the last trouble; its own is the same."""
        self._refusals = 0
        self._failures = 0
        self._forbidden_until_s = -math.inf
        self._tripped_until_s: float | None = None
        """Until when the breaker is open; then it is half-open, until a request has an answer."""
        self._trip_s = FIRST_CLOSED_S
        self._probes: set[Ticket] = set()
        self._recovering = False
        """Whether no good answer has come since the host was closed: requests come one by one."""
        self._last_s = -math.inf
        self._gap_s = 0.0
        """The time between the last of them, or the end of the closure, and the next."""
        self._troubled_since_s: float | None = None
        self._troubled_until_s: dict[Closure, float] = {}
        """Until when a host was last closed, and for what, until it proves well."""

    @property
    def idle(self) -> bool:
        """Whether nobody is under way or waits."""
        return not any(line.under_way or line.waiting for line in self._lines.values())

    def limit(self, lane: Lane) -> int:
        """Return how many requests of a lane may be under way at once."""
        return self._lines[lane].limit

    def ask(self, lane: Lane, now_s: float, *, patient: bool = True) -> Ticket:
        """Put a request at the end of its lane."""
        self._asked += 1
        ticket = Ticket(lane, self._asked, now_s, patient)
        self._lines[lane].waiting[ticket] = None
        if not patient:
            self._impatient[ticket] = None
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Take out a request that has ended, that gave up waiting, or that was refused."""
        line = self._lines[ticket.lane]
        if ticket.admission is None:
            line.waiting.pop(ticket, None)
            self._impatient.pop(ticket, None)
        else:
            line.under_way -= 1
            self._probes.discard(ticket)

    def settle(self, ticket: Ticket, outcome: Outcome, now_s: float) -> None:
        """Note what came of a request that was admitted, or of a part of it."""
        assert ticket.admission is not None
        unaware = ticket.admission <= self._slowed_at
        if outcome.failed:
            self._note_failure(ticket, now_s)
        else:
            self._failures = 0
            self._close_breaker()
        if outcome.retry_after_s is not None:
            self._forbid(now_s, outcome.retry_after_s)
        elif outcome.refused:
            if not unaware:
                self._refusals += 1
            self._forbid(now_s, _doubled(FIRST_CLOSED_S, max(self._refusals - 1, 0)))
        if outcome.overloaded and not unaware:
            self._slow_down()
        if outcome.good:
            self._note_success(ticket, now_s)

    def look(self, now_s: float) -> Look:
        """Admit whoever may begin now, in the order in which they asked."""
        refused = tuple(self._refused(now_s))
        for ticket in refused:
            self.leave(ticket)
        admitted = []
        while (first := self._next(now_s)) is not None:
            self._admit(first, now_s)
            admitted.append(first)
        return Look(tuple(admitted), refused, self._again_s(now_s))

    def closed(self, now_s: float) -> Closed | None:
        """Return why and for how long nothing is admitted; None if something may be.

        It may take longer where the breaker is half-open and its request has no answer yet.
        """
        if not self._is_closed(now_s):
            return None
        return Closed(self._closure(now_s), max(self._opens_s - now_s, 0.0))

    def troubles(self, now_s: float) -> frozenset[Closure]:
        """Return for what the host was closed, as long as it has not proven well since.

        That lasts while it is open again and nobody asks it, though not for ever (`TROUBLED_S`).
        """
        return frozenset(
            closure
            for closure, until_s in self._troubled_until_s.items()
            if now_s < until_s + TROUBLED_S
        )

    def forbids(self, now_s: float) -> bool:
        """Whether the host said that it wants no requests now."""
        return now_s < self._forbidden_until_s

    @property
    def _opens_s(self) -> float:
        if self._tripped_until_s is None:
            return self._forbidden_until_s
        return max(self._forbidden_until_s, self._tripped_until_s)

    def _is_closed(self, now_s: float) -> bool:
        probing = any(probe.lane is not Lane.TOKEN for probe in self._probes)
        return now_s < self._opens_s or (self._tripped_until_s is not None and probing)

    def _closure(self, now_s: float) -> Closure:
        """Return what keeps a closed host closed for longest."""
        tripped_s = -math.inf if self._tripped_until_s is None else self._tripped_until_s
        forbidden = self._forbidden_until_s > max(tripped_s, now_s)
        return Closure.FORBIDDEN if forbidden else Closure.FAILING

    def _refused(self, now_s: float) -> Iterator[Ticket]:
        if not self._is_closed(now_s):
            return
        yield from self._impatient
        opens_s = max(now_s, self._opens_s)
        for line in self._lines.values():
            # Who asked first is the first to lose patience.
            patient = (ticket for ticket in line.waiting if ticket.patient)
            yield from takewhile(
                lambda ticket: self._waits_until_s(ticket, now_s) <= opens_s, patient
            )

    def _waits_until_s(self, ticket: Ticket, now_s: float) -> float:
        """Return until when a request waits for a closed host; waiting for others is no matter."""
        assert self._troubled_since_s is not None
        failing = self._closure(now_s) is Closure.FAILING and now_s < self._opens_s
        patience_s = OUTAGE_S if failing else PATIENCE_S
        return max(ticket.asked_s, self._troubled_since_s) + patience_s

    @property
    def _next_s(self) -> float:
        """When the next request may begin at the earliest."""
        if not self._recovering:
            return self._opens_s
        return max(self._opens_s, self._last_s) + self._gap_s

    def _next(self, now_s: float) -> Ticket | None:
        if now_s < self._next_s:
            return None
        heads = (
            next(iter(line.waiting))
            for lane, line in self._lines.items()
            if line.waiting and line.under_way < line.limit and self._may_probe(lane)
        )
        return min(heads, key=self._rank, default=None)

    def _rank(self, ticket: Ticket) -> tuple[bool, int]:
        """Sort by who asked first; but what tries a half-open breaker should be answered soon."""
        is_slow_probe = self._tripped_until_s is not None and ticket.lane in _TRANSFERS
        return is_slow_probe, ticket.order

    def _may_probe(self, lane: Lane) -> bool:
        """Whether the breaker lets a request pass: one while it is half-open, and its token."""
        if self._tripped_until_s is None:
            return True
        of_token = lane is Lane.TOKEN
        return not any((probe.lane is Lane.TOKEN) == of_token for probe in self._probes)

    def _admit(self, ticket: Ticket, now_s: float) -> None:
        line = self._lines[ticket.lane]
        del line.waiting[ticket]
        self._impatient.pop(ticket, None)
        line.under_way += 1
        self._admitted += 1
        ticket.admission = self._admitted
        if self._tripped_until_s is not None:
            self._probes.add(ticket)
        if self._recovering:
            self._last_s, self._gap_s = now_s, self._draw() * SPREAD_S

    def _again_s(self, now_s: float) -> float | None:
        heads = [next(iter(line.waiting)) for line in self._lines.values() if line.waiting]
        if not heads:
            return None
        moments = [self._next_s] if self._next_s > now_s else []
        if self._is_closed(now_s):
            moments += [self._waits_until_s(head, now_s) for head in heads]
        return min(moments, default=None)

    def _note_failure(self, ticket: Ticket, now_s: float) -> None:
        self._failures += 1
        if self._tripped_until_s is not None:
            # What was under way when the breaker opened tells nothing new.
            if ticket not in self._probes:
                return
            self._probes.discard(ticket)
            self._trip_s = min(self._trip_s * 2, MAX_CLOSED_S)
        elif self._failures < FAILURES:
            return
        self._tripped_until_s = now_s + self._trip_s
        self._troubled_until_s[Closure.FAILING] = self._tripped_until_s
        self._keep_apart(now_s)

    def _close_breaker(self) -> None:
        self._tripped_until_s = None
        self._troubled_until_s.pop(Closure.FAILING, None)
        self._trip_s = FIRST_CLOSED_S
        self._probes.clear()

    def _note_success(self, ticket: Ticket, now_s: float) -> None:
        line = self._lines[ticket.lane]
        # A limit that nobody comes near to is not known to be right.
        if line.under_way >= line.limit:
            line.good += 1
        if line.good >= line.limit:
            line.limit = min(line.limit + 1, MAX_LIMIT)
            line.good = 0
        # During a window it is the answer to a request from before.
        if now_s >= self._forbidden_until_s:
            self._refusals = 0
            self._recovering = False
            self._troubled_since_s = None
            self._troubled_until_s.pop(Closure.FORBIDDEN, None)

    def _forbid(self, now_s: float, for_s: float) -> None:
        if now_s + for_s > self._forbidden_until_s:
            self._forbidden_until_s = now_s + for_s
            self._troubled_until_s[Closure.FORBIDDEN] = self._forbidden_until_s
            self._keep_apart(now_s)

    def _keep_apart(self, now_s: float) -> None:
        """Let the requests that follow the closure come one by one."""
        self._recovering = True
        self._gap_s = self._draw() * SPREAD_S
        if self._troubled_since_s is None:
            self._troubled_since_s = now_s

    def _slow_down(self) -> None:
        for line in self._lines.values():
            line.limit = max(line.limit // 2, 1)
            line.good = 0
        self._slowed_at = self._admitted


def _doubled(first_s: float, times: int) -> float:
    return min(first_s * 2.0 ** min(times, 32), MAX_CLOSED_S)
