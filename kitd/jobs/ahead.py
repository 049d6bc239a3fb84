"""Uploads ahead: layers travel to the registry while others of their kit are still being built.

A head start is a hint, never truth. It cannot fail the pack that gives it, and the push that
follows asks the registry for every blob as if there had been none; it only waits for what is on its
way already, instead of sending it a second time.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import structlog

from kitd.content.store import Fetcher
from kitd.errors import KitdError
from kitd.jobs.port import TRANSFERS, Remote
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import Digest
from kitd.oci.reference import Repository

MAX_FLIGHTS = 1024
"""Uploads that run or wait for their turn; a layer beyond them has no head start."""
MAX_LANDED = 4096
"""Uploads whose push did not come yet; of those before them it is forgotten what they moved."""

log = structlog.get_logger(__name__)

_Key = tuple[Repository, Digest]


@dataclass(frozen=True, slots=True)
class _Landed:
    """What was done ahead for one blob: its bytes were sent, or mounted, or were there."""

    sent_bytes: int = 0
    mounted_bytes: int = 0


@dataclass(slots=True, eq=False)
class _Pack:
    """A pack with a head start, which its first failure ends: the push will meet it and tell."""

    running: bool = True
    failed: bool = False


@dataclass(slots=True, eq=False)
class _Flight:
    """One blob on its way to one repository, the packs that began it, the pushes that wait."""

    packs: set[_Pack]
    pushes: int = 0
    begun: bool = False
    task: asyncio.Task[None] = field(init=False)

    @property
    def hopeless(self) -> bool:
        """Whether all packs that want it have met a failure."""
        return all(pack.failed for pack in self.packs)

    @property
    def wanted(self) -> bool:
        """Whether a push waits for it, or a pack that may come to a push still runs."""
        return self.pushes > 0 or any(pack.running for pack in self.packs)

    def fail(self) -> None:
        """Let no more be begun for these packs."""
        for pack in self.packs:
            pack.failed = True


class UploadsAhead:
    """What travels ahead of its push. Made by `uploads_ahead`."""

    def __init__(
        self,
        group: asyncio.TaskGroup,
        cache: Fetcher,
        remote: Callable[[Repository], Awaitable[Remote]],
        transfers: int,
    ) -> None:
        self._group = group
        self._cache = cache
        self._remote = remote
        self._turns = asyncio.Semaphore(transfers)
        self._flights: dict[_Key, _Flight] = {}
        self._landed: dict[_Key, _Landed] = {}

    @contextmanager
    def head_start(self, repository: Repository) -> Iterator[Callable[[Descriptor], None]]:
        """Give a pack what it calls with each layer that is in the cache and will be pushed.

        The call neither waits nor raises. What was begun in a block that raises is stopped unless
        somebody else wants it; after one that does not, a push is expected to come for it.
        """
        pack = _Pack()
        try:
            yield lambda layer: self._begin(repository, layer, pack)
        except BaseException:
            pack.running = False
            for key, flight in tuple(self._flights.items()):
                if pack in flight.packs:
                    self._stop_unwanted(key, flight)
            raise
        pack.running = False

    async def repository(self, repository: Repository) -> Remote:
        """Return a remote repository whose pushes take the head start that there may be.

        Raises what the remote does.
        """
        remote = await self._remote(repository)
        return _Joined(remote, lambda digest: self._join((repository, digest)))

    def stop(self) -> None:
        """Stop all uploads."""
        for flight in self._flights.values():
            flight.task.cancel()

    def _begin(self, repository: Repository, layer: Descriptor, pack: _Pack) -> None:
        key = (repository, layer.digest)
        if key in self._flights:
            self._flights[key].packs.add(pack)
        elif len(self._flights) < MAX_FLIGHTS:
            flight = self._flights[key] = _Flight({pack})
            flight.task = self._group.create_task(self._fly(repository, layer, flight))

    async def _fly(self, repository: Repository, layer: Descriptor, flight: _Flight) -> None:
        key = (repository, layer.digest)
        try:
            async with self._turns:
                if flight.hopeless:
                    return
                flight.begun = True
                remote = await self._remote(repository)
                landed = _Landed(await remote.push(layer, self._cache), remote.mounted_bytes)
        except KitdError as error:
            # Told once a pack, though several of its uploads may be under way.
            if not flight.hopeless:
                log.info(
                    "ahead.given_up",
                    repository=str(repository),
                    code=error.code,
                    error=error.message,
                )
            flight.fail()
        except Exception:  # the boundary: a defect here must not take the daemon with it
            log.exception("ahead.defect", repository=str(repository), digest=layer.digest)
            flight.fail()
        else:
            if landed != _Landed():
                self._land(key, landed)
        finally:
            self._forget(key, flight)

    async def _join(self, key: _Key) -> _Landed:
        """Wait for a blob that is on its way; return what was done for it ahead, told once."""
        flight = self._flights.get(key)
        if flight is not None and not flight.begun:
            # It waits for its turn behind others' uploads; the push that came for it need not.
            self._stop(key, flight)
        elif flight is not None:
            flight.pushes += 1
            try:
                await asyncio.wait([flight.task])
            except asyncio.CancelledError:
                flight.pushes -= 1
                self._stop_unwanted(key, flight)
                raise
            flight.pushes -= 1
        return self._landed.pop(key, _Landed())

    def _land(self, key: _Key, landed: _Landed) -> None:
        self._landed[key] = landed
        if len(self._landed) > MAX_LANDED:
            del self._landed[next(iter(self._landed))]

    def _stop_unwanted(self, key: _Key, flight: _Flight) -> None:
        if not flight.wanted:
            self._stop(key, flight)

    def _stop(self, key: _Key, flight: _Flight) -> None:
        # Forgotten at once: while it ends, the same blob may be sent anew.
        self._forget(key, flight)
        flight.task.cancel()

    def _forget(self, key: _Key, flight: _Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]


class _Joined:
    """A remote repository whose pushes join what is on its way to it."""

    def __init__(self, remote: Remote, join: Callable[[Digest], Awaitable[_Landed]]) -> None:
        self._remote = remote
        self._join = join
        self._mounted_ahead_bytes = 0
        self.resolve = remote.resolve
        self.fetch = remote.fetch
        self.exists = remote.exists
        self.tag = remote.tag
        self.referrers = remote.referrers

    @property
    def mounted_bytes(self) -> int:
        """What was got from other repositories, ahead or now."""
        return self._remote.mounted_bytes + self._mounted_ahead_bytes

    async def push(self, target: Descriptor, source: Fetcher) -> int:
        """Make content present; return the bytes that were moved for it, ahead or now."""
        ahead = await self._join(target.digest)
        # Asked for all the same: what has landed may be gone, and only the registry knows.
        sent_bytes = await self._remote.push(target, source)
        if sent_bytes:
            return sent_bytes
        self._mounted_ahead_bytes += ahead.mounted_bytes
        return ahead.sent_bytes


@asynccontextmanager
async def uploads_ahead(
    cache: Fetcher, remote: Callable[[Repository], Awaitable[Remote]], *, transfers: int = TRANSFERS
) -> AsyncIterator[UploadsAhead]:
    """Send ahead with at most `transfers` uploads at once; all have ended when the context has.

    The packs and pushes that use it have to end before it.
    """
    async with asyncio.TaskGroup() as group:
        ahead = UploadsAhead(group, cache, remote, transfers)
        try:
            yield ahead
        finally:
            ahead.stop()
