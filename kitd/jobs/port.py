"""What job kinds are given to work with: interfaces, implemented elsewhere, wired by the daemon."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from kitd.clock import Clock
from kitd.content.store import Resolver, Tagger, Target
from kitd.modelkit.dialect import Dialect
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import Digest
from kitd.oci.reference import Repository
from kitd.packing.order import Advanced, Packed, PackedLayer, Project

TRANSFERS = 4
"""Blobs of one kit that travel at once, and blobs of all kits that travel ahead of their push."""


class Packer(Protocol):
    """Builds layers: see `kitd.daemon.packer.Packer`."""

    async def pack(
        self,
        project: Project,
        *,
        expected: str | None,
        advanced: Callable[[Advanced], None],
        built: Callable[[PackedLayer], None],
    ) -> Packed:
        """Build a project's layers and config in the cache."""
        ...


class Cache(Target, Protocol):
    """The blob cache."""

    async def put(self, content: bytes) -> Digest:
        """Make a small blob durable."""
        ...


class Remote(Target, Resolver, Tagger, Protocol):
    """A repository in a registry."""


class Catalog(Protocol):
    """What the cache holds by name: see `kitd.ledger.catalog.Catalog`."""

    async def resolve(self, repository: Repository, identifier: str) -> Descriptor:
        """Return the manifest that a tag or a digest names."""
        ...

    async def with_content(self, repository: Repository, content_key: str) -> Descriptor | None:
        """Return the newest kit of a repository with this content."""
        ...

    async def packed_content(self, project: str) -> str | None:
        """Return the content key of a project's last kit."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PackSettings:
    """How kits are written: the `modelkit` section of the configuration."""

    dialect: Dialect
    cli_version: str
    compression: str
    layer_format: str
    source_date_epoch: int | None = None
    """Seconds; stands in for the time in `created`, for reproducible manifests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Everything that a job may touch."""

    cache: Cache
    catalog: Catalog
    packer: Packer
    remote: Callable[[Repository], Awaitable[Remote]]
    head_start: Callable[[Repository], AbstractContextManager[Callable[[Descriptor], None]]]
    """Lets a pack send its layers to where its kit will be pushed: see `kitd.jobs.ahead`."""
    clock: Clock
    settings: PackSettings
    transfers: int = TRANSFERS
