"""What is looked at beside scrapes, and how: see `kitd.metrics.sampler`."""

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kitd.blocking import run_blocking
from kitd.clock import Clock
from kitd.doctor.disk import Looks
from kitd.ledger.mirror_ledger import RuleCounts
from kitd.ledger.schema import wal_bytes
from kitd.metrics.sampler import Look
from kitd.rpc.methods.wire import WireProject, WireReason
from kitd.store.blob_store import BlobStore, Usage

HEALTH_EVERY_S = 15.0
CACHE_EVERY_S = 60.0
EVICTABLE_AGE_S = 300.0
"""What could go takes a look at every kit."""


@dataclass(frozen=True, slots=True)
class Health:
    """The projects, and what hinders kitd."""

    projects: Sequence[WireProject]
    reasons: Sequence[WireReason]


@dataclass(frozen=True, slots=True)
class Disk:
    """How much room the disk of a directory has."""

    free_bytes: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Files:
    """What the ledger's files take, and what is kept back for them."""

    reserve_bytes: int
    ledger_bytes: int
    wal_bytes: int


@dataclass(frozen=True, slots=True)
class Cache:
    """What the cache holds, and what of it nothing speaks for."""

    usage: Usage
    evictable_bytes: int


@dataclass(frozen=True, slots=True)
class Sights:
    """All looks."""

    health: Look[Health]
    disks: Mapping[str, Look[Disk]]
    """By what is on them; one that hangs keeps no other."""
    files: Look[Files]
    cache: Look[Cache]
    mirrors: Look[Mapping[str, RuleCounts]]

    @property
    def all(self) -> Sequence[Look[Any]]:
        """Every one of them."""
        return (self.health, *self.disks.values(), self.files, self.cache, self.mirrors)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where the looks go."""

    projects: Callable[[], Awaitable[Sequence[WireProject]]]
    reasons: Callable[[Sequence[WireProject]], Awaitable[Sequence[WireReason]]]
    places: Mapping[str, Path]
    ledger: Path
    reserve: Path
    store: BlobStore
    evictable_bytes: Callable[[float], Awaitable[int]]
    """Takes how old the answer may be, in seconds."""
    mirrors: Callable[[], Awaitable[Mapping[str, RuleCounts]]]


def sights_of(sources: Sources, clock: Clock) -> Sights:
    """Return the looks at these sources; nothing is looked at yet."""
    threads = Looks()

    async def health() -> Health:
        projects = await sources.projects()
        return Health(projects, await sources.reasons(projects))

    async def disk(name: str, place: Path) -> Disk:
        return await threads.take(f"disk of {name}", partial(_disk, place))

    async def files() -> Files:
        return await threads.take("files", partial(_files, sources))

    async def cache() -> Cache:
        usage = await run_blocking(sources.store.usage)
        return Cache(usage, await sources.evictable_bytes(EVICTABLE_AGE_S))

    return Sights(
        health=Look("health", HEALTH_EVERY_S, health, clock),
        disks={
            name: Look(f"{name}_disk", HEALTH_EVERY_S, partial(disk, name, place), clock)
            for name, place in sources.places.items()
        },
        files=Look("ledger_files", HEALTH_EVERY_S, files, clock),
        cache=Look("cache", CACHE_EVERY_S, cache, clock),
        mirrors=Look("mirrors", CACHE_EVERY_S, sources.mirrors, clock),
    )


def _files(sources: Sources) -> Files:
    return Files(_size(sources.reserve), _size(sources.ledger), wal_bytes(sources.ledger))


def _disk(place: Path) -> Disk:
    disk = os.statvfs(place)
    return Disk(disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
