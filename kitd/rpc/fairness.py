"""Taking turns: whoever had none for the longest time is next.

Whoever asks for much waits behind his own wishes, and one who asks now and then waits for hardly
anybody: users are chosen from first, then the connections of the user whose turn it is.
"""

import asyncio
import enum
from collections import Counter, deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from kitd.rpc.call_log import CallLog

_Turns = deque[asyncio.Future[None]]


class FairSlots:
    """So many at once; the others wait for their turn. Belongs to one event loop.

    A connection is any object that lives as long as it may ask.
    """

    def __init__(self, slots: int) -> None:
        self._free = slots
        self._turns = 0
        """Counts those that were given, by which the last one of each is known."""
        self._last_of_user: dict[int, int] = {}
        self._last_of_connection: WeakKeyDictionary[object, int] = WeakKeyDictionary()
        self._waiting: dict[int, dict[object, _Turns]] = {}

    @asynccontextmanager
    async def turn(self, uid: int, connection: object) -> AsyncIterator[None]:
        """Hold a slot, once it is the turn of this connection of this user."""
        await self._acquire(uid, connection)
        try:
            yield
        finally:
            self._release()

    async def take(self, uid: int, connection: object) -> None:
        """Hold a slot until the loop has turned, once it is the turn of this connection."""
        await self._acquire(uid, connection)
        asyncio.get_running_loop().call_soon(self._release)

    async def _acquire(self, uid: int, connection: object) -> None:
        if self._free and not self._waiting:
            self._free -= 1
            self._note(uid, connection)
            return
        # Who never had a turn is as good as who had one just now: else a crowd of newcomers would
        # always be next.
        self._last_of_user.setdefault(uid, self._turns)
        self._last_of_connection.setdefault(connection, self._turns)
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(uid, {}).setdefault(connection, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._leave(uid, connection, turn)
            else:
                # It was given a turn that it does not live to take.
                self._release()
            raise

    def _release(self) -> None:
        self._free += 1
        while self._free and self._waiting:
            turn = self._next()
            # Who gave up waiting is in the queue until the loop comes to him.
            if not turn.cancelled():
                self._free -= 1
                turn.set_result(None)

    def _next(self) -> asyncio.Future[None]:
        uid = min(self._waiting, key=self._last_of_user.__getitem__)
        connections = self._waiting[uid]
        connection = min(connections, key=self._last_of_connection.__getitem__)
        turn = connections[connection][0]
        self._leave(uid, connection, turn)
        if not turn.cancelled():
            self._note(uid, connection)
        return turn

    def _leave(self, uid: int, connection: object, turn: asyncio.Future[None]) -> None:
        """Take somebody out of the queue, unless he is out of it."""
        connections = self._waiting.get(uid, {})
        turns = connections.get(connection, deque())
        if turn not in turns:
            return
        turns.remove(turn)
        if not turns:
            del connections[connection]
        if not connections:
            del self._waiting[uid]

    def _note(self, uid: int, connection: object) -> None:
        self._turns += 1
        self._last_of_user[uid] = self._turns
        self._last_of_connection[connection] = self._turns


class Cost(enum.Enum):
    """What a call takes more than a moment of. Those of one kind wait for each other."""

    LEDGER = enum.auto()
    """The ledger, and the processor for what it has."""
    OUTSIDE = enum.auto()
    """Disks and registries, which may never answer."""


@dataclass(frozen=True, slots=True)
class Shares:
    """What all connections of a server share."""

    moments: FairSlots = field(default_factory=lambda: FairSlots(8))
    """Short work that is done between two turns of the loop: a read from a socket, a few lines.
    With one at a time, a loop that is busy with something else would turn once for each of a crowd
    before it came to the last."""
    long_lines: FairSlots = field(default_factory=lambda: FairSlots(1))
    """Parsed in a thread, one at a time: several would keep the interpreter from the loop."""
    costly_calls: Mapping[Cost, FairSlots] = field(
        default_factory=lambda: {cost: FairSlots(2) for cost in Cost}
    )
    calls: Counter[int] = field(default_factory=Counter)
    """Calls in flight, by user."""
    call_log: CallLog = field(default_factory=CallLog)
