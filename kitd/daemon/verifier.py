"""Looks whether the cache is what it says: hashes every blob again, and mends what a registry has.

What is damaged goes to quarantine at once, leased or not: a kit that lacks a blob says so, one with
a wrong blob does not. The next pack or pull of the same content puts the blob back, too.
"""

import asyncio
import json
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import ClassVar

import structlog

from kitd.blocking import run_blocking
from kitd.child import end, spawn
from kitd.errors import Disposition, KitdError
from kitd.jobs.port import Damage, Remote, Verified
from kitd.ledger.cache_ledger import CacheLedger
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import Digest, algorithm_of
from kitd.oci.media_type import is_nondistributable
from kitd.oci.reference import Repository
from kitd.store.blob_store import BlobStore
from kitd.store.collection import CachedKit
from kitd.store.content import CacheContent

SILENCE_S = 600.0
"""How long a process at idle priority may say nothing; it does so every 64 MiB."""
MAX_NAMES = 20
"""Kits that are named for each damaged blob."""

log = structlog.get_logger(__name__)


class RehashError(KitdError):
    """The process that hashes the cache could not be started, or did not live to answer."""

    code = "rehash"
    disposition: ClassVar[Disposition] = Disposition.RETRY


class _Needs:
    """Which kits need a blob, and as what."""

    def __init__(self, kits: Sequence[CachedKit]) -> None:
        self.descriptors: dict[Digest, Descriptor] = {}
        self._kits: defaultdict[Digest, list[CachedKit]] = defaultdict(list)
        for kit in kits:
            for blob in kit.blobs:
                if not is_nondistributable(blob.media_type):
                    # As a manifest where it is one: that is how a registry hands it out.
                    self.descriptors.setdefault(blob.digest, blob)
                    self._kits[blob.digest].append(kit)

    def kits(self, digest: Digest) -> Sequence[CachedKit]:
        """Return the kits that need a blob."""
        return self._kits.get(digest, ())

    def names(self, digest: Digest) -> tuple[str, ...]:
        """Return what a person calls them."""
        return tuple(dict.fromkeys(kit.name for kit in self.kits(digest)))[:MAX_NAMES]

    def locations(self, digest: Digest) -> Sequence[Repository]:
        """Return which repositories have all of a kit that needs it."""
        return tuple(dict.fromkeys(place for kit in self.kits(digest) for place in kit.locations))


@dataclass(frozen=True, slots=True)
class _Finding:
    """What hashing a file came to: `found` is None where it could not be read, or is gone."""

    found: str | None
    why: str | None
    inode: int | None
    """The file that was hashed; None if it could not be opened."""


class Verifier:
    """Verifies one cache. Implements `kitd.jobs.port.Verifier`."""

    def __init__(
        self,
        store: BlobStore,
        cache: CacheContent,
        ledger: CacheLedger,
        places: Callable[[Digest], Awaitable[Sequence[Repository]]],
        remote: Callable[[Repository], Awaitable[Remote]],
    ) -> None:
        self._store = store
        self._cache = cache
        self._ledger = ledger
        self._places = places
        self._remote = remote

    async def verify(self, *, repair: bool, advanced: Callable[[int, int], None]) -> Verified:
        """Look at every blob; `advanced` is told bytes, those done and all. Raises `KitdError`."""
        blobs = await run_blocking(self._store.blobs)
        total_bytes = sum(blob.size for blob in blobs)
        done_bytes = 0

        def read(count: int) -> None:
            nonlocal done_bytes
            done_bytes += count
            advanced(done_bytes, max(total_bytes, done_bytes))

        needs = await run_blocking(_Needs, await self._ledger.kits())
        damaged: dict[Digest, Damage] = {}
        async with _rehashing() as process:
            for blob in blobs:
                finding = await _rehash(process, self._store, blob.digest, read)
                why = _damage(blob.digest, finding)
                # A blob of another size is fetched or built again even while this reads the old.
                if why is not None and await run_blocking(
                    self._store.quarantine, blob.digest, inode=finding.inode
                ):
                    damage = Damage(digest=blob.digest, why=why, kits=needs.names(blob.digest))
                    damaged[blob.digest] = damage
                    await self._tell(damage, moved=True)
        # Anew: kits came and went meanwhile.
        needs = await run_blocking(_Needs, await self._ledger.kits())
        for digest in await self._missing(needs):
            if digest not in damaged:
                damage = Damage(digest=digest, why="is missing", kits=needs.names(digest))
                damaged[digest] = damage
                await run_blocking(self._store.note_missing, digest)
                await self._tell(damage, moved=False)
        needed = [digest for digest in damaged if digest in needs.descriptors]
        repaired = [digest for digest in needed if repair and await self._repair(digest, needs)]
        return Verified(
            checked=len(blobs),
            bytes=done_bytes,
            damaged=tuple(damaged.values()),
            repaired=tuple(repaired),
            unrepaired=tuple(digest for digest in needed if digest not in repaired),
        )

    async def _missing(self, needs: _Needs) -> Sequence[Digest]:
        """Return what the catalogue needs, and the cache ought to hold and does not."""
        absent = await run_blocking(
            lambda: [b.digest for b in needs.descriptors.values() if not self._store.has(b)]
        )
        # A kit that was taken meanwhile needs nothing.
        fine = await self._ledger.unreferenced(absent) | await self._ledger.elsewhere(absent)
        return [digest for digest in absent if digest not in fine]

    async def _tell(self, damage: Damage, *, moved: bool) -> None:
        log.warning("blob.damaged", digest=damage.digest, why=damage.why, kits=damage.kits)
        await self._ledger.tell_damaged(Digest(damage.digest), damage.kits, damage.why, moved=moved)

    async def _repair(self, digest: Digest, needs: _Needs) -> bool:
        """Fetch a blob from whoever has it, verified; False if nobody does."""
        target = needs.descriptors[digest]
        places = (*needs.locations(digest), *await self._places(digest))
        for repository in dict.fromkeys(places):
            try:
                with self._cache.hold() as held:
                    await held.push(target, await self._remote(repository))
            except KitdError as error:
                if error.disposition in (Disposition.FATAL, Disposition.PAUSE):
                    raise
                log.info("verify.not_repaired", repository=str(repository), error=error.message)
            else:
                await run_blocking(self._store.drop_quarantined, digest)
                log.info("verify.repaired", digest=digest, repository=str(repository))
                return True
        return False


def _damage(digest: Digest, finding: _Finding) -> str | None:
    if finding.found == digest:
        return None
    if finding.found is not None:
        return "has other content"
    # Without a reason it is just not there any more.
    return finding.why and f"cannot be read: {finding.why}"


@asynccontextmanager
async def _rehashing() -> AsyncIterator[asyncio.subprocess.Process]:
    try:
        process = await spawn(sys.executable, "-I", "-m", "kitd.store.rehash", cwd="/")
    except OSError as error:
        raise RehashError(f"cannot start a process: {error.strerror or error}") from error
    try:
        yield process
    finally:
        await end(process)


async def _rehash(
    process: asyncio.subprocess.Process,
    store: BlobStore,
    digest: Digest,
    read: Callable[[int], None],
) -> _Finding:
    assert process.stdin is not None
    assert process.stdout is not None
    asked = {"algorithm": algorithm_of(digest), "path": str(store.path_of(digest))}
    process.stdin.write(json.dumps(asked).encode() + b"\n")
    while True:
        try:
            async with asyncio.timeout(SILENCE_S):
                line = await process.stdout.readline()
        except TimeoutError as error:
            raise RehashError(f"{digest} could not be read within {SILENCE_S:g} s") from error
        if not line:
            raise RehashError("the process that hashes the cache ended in the middle of its work")
        said = json.loads(line)
        read(said["read"])
        if "found" in said:
            return _Finding(said["found"], said.get("why"), said.get("inode"))
