"""What job kinds are given to work with: interfaces, implemented elsewhere, wired by the daemon."""

from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Container,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from kitd.caller import Caller
from kitd.clock import Clock
from kitd.content.shared import SharedReads
from kitd.content.store import Fetcher, Need, Resolver, Tagger, Target
from kitd.hub.git_source import Source
from kitd.hub.tree import Choice, HubFile, Snapshot
from kitd.mirror.edge import Memory, Note
from kitd.mirror.removal import Fate
from kitd.modelkit.dialect import Dialect
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import Digest
from kitd.oci.reference import Repository
from kitd.oci.tag_list import ListedTag
from kitd.packing.order import Advanced, Packed, PackedLayer, Project

TRANSFERS = 4
"""Blobs of one kit that travel at once, and blobs of all kits that travel ahead of their push."""


Keep = Callable[[Collection[tuple[Digest, int]]], Awaitable[bool]]
"""Keeps blobs of these digests and sizes in the cache; whether it holds all of them."""


class Packer(Protocol):
    """Builds layers: see `kitd.daemon.packer.Packer`."""

    async def pack(
        self,
        project: Project,
        *,
        expected: str | None,
        destination: Repository | None,
        advanced: Callable[[Advanced], None],
        built: Callable[[PackedLayer], None],
        keep: Keep,
    ) -> Packed:
        """Build a project's layers and config in the cache, where they are kept.

        Layers that are too large for it are at the `destination` instead, if there is one.
        """
        ...


class HeldCache(Target, Protocol):
    """The blob cache for one attempt, which keeps what it touched: `kitd.store.content`."""

    async def keep(self, blobs: Collection[tuple[Digest, int]]) -> bool:
        """Keep blobs; whether the cache holds all of them."""
        ...

    async def give_up(self, target: Descriptor) -> None:
        """Drop what has arrived of a blob that is not complete."""
        ...

    async def peek(self, target: Descriptor, offset: int, size: int) -> bytes:
        """Return bytes of a blob that is here, or has got that far on its way in."""
        ...

    async def put(self, content: bytes) -> Digest:
        """Make a small blob durable."""
        ...

    def release(self) -> None:
        """Let go of everything."""
        ...


class Cache(Fetcher, Protocol):
    """The blob cache."""

    def hold(self) -> HeldCache:
        """Return the cache to write to; released when the attempt is over."""
        ...


class Collected(msgspec.Struct, frozen=True, kw_only=True):
    """What a collection removed, and what it left."""

    freed_bytes: int
    blobs: int
    kits: tuple[str, ...]
    kept_bytes: int
    over_bytes: int
    """How much too much that is, by the limit that asks for more."""
    advice: str | None
    """What would help, where it is too much."""


class Collector(Protocol):
    """Makes room in the cache: see `kitd.daemon.collector.Collector`."""

    async def collect(self, advanced: Callable[[int], None]) -> Collected:
        """Collect; `advanced` is told how many bytes were freed so far."""
        ...


class Damage(msgspec.Struct, frozen=True, kw_only=True):
    """A blob that is not what it should be, and the kits that need it."""

    digest: str
    why: str
    kits: tuple[str, ...]


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """What a verification found. Damage that no kit needs is neither repaired nor unrepaired."""

    checked: int
    bytes: int
    damaged: tuple[Damage, ...]
    repaired: tuple[str, ...]
    unrepaired: tuple[str, ...]


class Verifier(Protocol):
    """Hashes the cache again: see `kitd.daemon.verifier.Verifier`."""

    async def verify(self, *, repair: bool, advanced: Callable[[int, int], None]) -> Verified:
        """Look at every blob; `advanced` is told bytes, those done and all."""
        ...


class Remote(Target, Resolver, Tagger, Protocol):
    """A repository in a registry."""

    @property
    def mounted_bytes(self) -> int:
        """What pushes got from other repositories of the registry so far, without sending it."""
        ...

    async def referrers(self, subject: Digest) -> Sequence[Descriptor]:
        """Return what is listed as referring to a manifest, unchecked."""
        ...


class MirrorRemote(Remote, Protocol):
    """A repository that mirrors read, or write to."""

    async def referrers(
        self, subject: Digest, tags: Container[str] | None = None
    ) -> Sequence[Descriptor]:
        """Return what is listed as referring to a manifest, unchecked; `tags` are all there are."""
        ...

    async def read_tag(self, tag: str) -> tuple[Descriptor, bytes]:
        """Return the manifest that a tag names, and its content."""
        ...

    def tags(self) -> AsyncGenerator[ListedTag, None]:
        """Yield the tags. Raises `ContentNotFoundError` where there is no such repository."""
        ...

    def pulls_left(self) -> tuple[int, int, float] | None:
        """Return how many pulls are left, of how many, in how many seconds; None for no limit."""
        ...

    async def publish(self, target: Descriptor, source: Fetcher, tag: str) -> int:
        """Make a manifest present under a tag by one request; return its bytes."""
        ...

    async def remove_tag(self, tag: str, expected: Digest) -> Fate:
        """Remove a tag and nothing else, if it names what is expected."""
        ...

    async def remove_with_manifests(self, going: Mapping[str, Digest]) -> Mapping[str, Fate]:
        """Remove tags, and what they name, where the registry removes no tags: all that go at once.

        As far as no other tag goes with them, and no index is left that lists what is gone.
        """
        ...

    async def need(self, target: Descriptor) -> Need:
        """Return what a push of this content would take; nothing is sent."""
        ...


class MirrorMemory(Protocol):
    """What is remembered of mirrors: see `kitd.ledger.mirror_ledger.MirrorLedger`."""

    async def edges(
        self, source: Repository, target: Repository, tags: Collection[str] | None = None
    ) -> Mapping[tuple[str, str], Memory]:
        """Return what is remembered between two repositories, by source's and target's tag."""
        ...

    async def had_no_source(self, source: Repository, target: Repository) -> bool:
        """Whether nothing could be told of a source when it was last to be copied to a target."""
        ...

    async def agreed_on(
        self, source: Repository, target: Repository, manifests: Collection[Digest]
    ) -> Mapping[Digest, Sequence[tuple[str, str]]]:
        """Return what both ends agreed on and that is, or lists, one of these manifests."""
        ...

    async def agreed_among(
        self, source: Repository, target: Repository, manifests: Collection[Digest]
    ) -> frozenset[Digest]:
        """Return those of some manifests that both ends agreed on, or that are listed by such."""
        ...

    async def removed(self, source: Repository, target: Repository) -> int:
        """Return how many tags of a target went lately because the source's had gone."""
        ...

    async def note(self, rule: str | None, notes: Sequence[Note]) -> None:
        """Write down how edges stand."""
        ...

    async def sources(self, rule: str) -> Sequence[Repository]:
        """Return the repositories that a mirror was seen to concern."""
        ...

    async def ages(self, digests: Collection[Digest]) -> Mapping[Digest, int | None]:
        """Return when manifests were made (microseconds), of those that were looked at."""
        ...

    async def learn_ages(self, ages: Mapping[Digest, int | None]) -> None:
        """Remember when manifests were made."""
        ...


class Origin(Protocol):
    """A revision of a repository, from where its files come."""

    @property
    def snapshot(self) -> Snapshot:
        """What the revision holds."""
        ...

    @property
    def received(self) -> int:
        """How many bytes came to know that, and with it what needs no more fetching."""
        ...

    async def fetch(self, file: HubFile, advanced: Callable[[int], None]) -> int:
        """Make a file complete in a job's directory; return how many bytes came.

        `advanced` is told how many bytes of it are there.
        """
        ...


class Importer(Protocol):
    """Where kits come from, and the disk for it: see `kitd.daemon.importer.Importer`."""

    def open(
        self, source: Source, place: Path, choice: Choice, advanced: Callable[[int], None]
    ) -> AbstractAsyncContextManager[Origin]:
        """Open what is chosen of a revision, to fetch its files into a job's directory.

        `advanced` is told how many bytes came, where many do before it is open.
        """
        ...

    def place(self, job: int) -> Path:
        """Return a job's directory, which is there until the job has ended. Blocks."""
        ...

    def read(self, place: Path, file: HubFile) -> bytes:
        """Return the content of a small file that was fetched. Blocks."""
        ...

    async def ignored(self, rules: bytes, paths: Sequence[str]) -> frozenset[str]:
        """Return which files a .kitignore leaves out."""
        ...

    def has_room_for(self, place: Path, files: Collection[HubFile]) -> bool:
        """Whether the disk takes what is missing of files, and layers of all of them. Blocks."""
        ...

    def lay_out(self, place: Path, files: Collection[HubFile], kitfile: str) -> Path:
        """Return a directory with files under their names, and the Kitfile. Blocks."""
        ...


class Catalog(Protocol):
    """What the cache holds by name: see `kitd.ledger.catalog.Catalog`."""

    async def resolve(self, repository: Repository, identifier: str) -> Descriptor:
        """Return the manifest that a tag or a digest names."""
        ...

    async def manifest(self, digest: Digest) -> Descriptor:
        """Return a manifest, whatever repository knows it."""
        ...

    async def unpushed(self, repository: Repository, tag: str) -> Descriptor | None:
        """Return what a tag names, if its repository is not known to have that, or may get it."""
        ...

    async def referrers(self, repository: Repository, subject: Digest) -> Sequence[Descriptor]:
        """Return the manifests of a repository whose subject is the given one."""
        ...

    async def with_content(self, repository: Repository, content_key: str) -> Descriptor | None:
        """Return the newest kit of a repository with this content."""
        ...

    async def packed_version(self, project: str) -> str | None:
        """Return what names a project's last version: see `kitd.jobs.assembly.version_key`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PackSettings:
    """How kits are written: the `modelkit` section of the configuration."""

    dialect: Dialect
    cli_version: str
    compression: str
    layer_format: str
    model_pack: bool = False
    """Whether ModelPacks are made where nobody says what to make."""
    source_date_epoch: int | None = None
    """Seconds; stands in for the time in `created`, for reproducible manifests."""

    def project(
        self,
        path: str,
        kitfile: str | None,
        reader: Caller | None,
        *,
        dialect: Dialect | None = None,
        compression: str | None = None,
        layer_format: str | None = None,
        is_guest: bool = False,
    ) -> Project:
        """Return how a directory is packed; a scan for a pack has to agree in everything."""
        return Project(
            root=path,
            kitfile=kitfile,
            dialect=dialect or self.dialect,
            layer_format=layer_format or self.layer_format,
            compression=compression or self.compression,
            reader=reader,
            is_guest=is_guest,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Everything that a job may touch."""

    cache: Cache
    reach: Fetcher
    """The cache, and what it knows to be elsewhere."""
    catalog: Catalog
    packer: Packer
    keeps: Callable[[int], bool]
    """Whether the cache takes a blob of so many bytes that could stay elsewhere; asks the disk."""
    remote: Callable[[Repository], Awaitable[Remote]]
    head_start: Callable[[Repository], AbstractContextManager[Callable[[Descriptor], None]]]
    """Lets a pack send its layers to where its kit will be pushed: see `kitd.jobs.ahead`."""
    mirrors: MirrorMemory
    reads: SharedReads
    """What mirrors read of a source that goes to several targets."""
    mirror_remote: Callable[[Repository], Awaitable[MirrorRemote]]
    repositories: Callable[[str], AsyncIterator[str]]
    """Yields the names of a registry's repositories."""
    collector: Collector
    verifier: Verifier
    importer: Importer
    clock: Clock
    settings: PackSettings
    transfers: int = TRANSFERS
