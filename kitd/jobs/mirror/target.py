"""One target of a mirror, for one attempt: what it has, and how it gets the rest."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from kitd.content.copy import copy_graph, manifests_of
from kitd.content.referrers import copy_referrers
from kitd.content.store import ByteStream, ContentNotFoundError, Fetcher, Need
from kitd.errors import KitdError
from kitd.jobs.port import MirrorRemote, Remote
from kitd.jobs.transfer import Bytes
from kitd.mirror.edge import Edge, Memory, target_tag
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import Digest
from kitd.oci.media_type import INDEXES, is_manifest
from kitd.oci.reference import Repository, check_tag

Still = Callable[[str], Awaitable[bool]]
"""Whether a tag of the source names what it did."""


class Referrers(Protocol):
    """What the source lists as referring to its manifests."""

    async def referrers(self, subject: Digest) -> Sequence[Descriptor]:
        """Return what is listed, unchecked."""
        ...

    async def resolve(self, digest: Digest) -> Descriptor:
        """Return what a digest of the list really names."""
        ...


@dataclass(frozen=True, slots=True)
class Moved:
    """What a copy moved."""

    sent_bytes: int = 0
    referred: bool = False
    """Whether what refers to it was looked at as well."""
    manifests: tuple[Descriptor, ...] = ()
    """All of the graph that the target has now."""
    left: frozenset[str] = frozenset()
    """Tags of the source that have moved on meanwhile, and name something else at the target."""
    notes: tuple[str, ...] = ()


class _Present:
    """A repository that is sent nothing twice, nor asked twice for what it has."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._there: set[Digest] = set()
        self._turns: dict[Digest, asyncio.Lock] = {}
        self.exists = remote.exists

    def fetch(
        self, target: Descriptor, *, offset: int = 0
    ) -> AbstractAsyncContextManager[ByteStream]:
        return self._remote.fetch(target, offset=offset)

    async def push(self, target: Descriptor, source: Fetcher) -> int:
        if target.digest in self._there:
            return 0
        async with self._turns.setdefault(target.digest, asyncio.Lock()):
            if target.digest in self._there:
                return 0
            sent_bytes = await self._remote.push(target, source)
            self._there.add(target.digest)
        return sent_bytes


class MirrorTarget:
    """A target repository, by what is remembered of it and what was seen of it so far.

    Every method raises what the registries raise.
    """

    def __init__(
        self,
        source: Repository,
        repository: Repository,
        template: str,
        remote: MirrorRemote,
        memory: Mapping[tuple[str, str], Memory],
        *,
        transfers: int,
    ) -> None:
        self.repository = repository
        self.remote = remote
        # Of what has another name there by now nothing follows.
        self.memory = {
            (tag, name): found
            for (tag, name), found in memory.items()
            if name == target_tag(template, tag)
        }
        self._sent_bytes = 0
        self._skipped_bytes = 0
        self._mountable_bytes = 0
        self._source = source
        self._template = template
        self._transfers = transfers
        self._present = _Present(remote)
        self._whole: set[Digest] = set()
        self._foreseen: set[Digest] = set()
        self._referred: set[Digest] = set()
        self._tags: Mapping[str, Digest | None] | None = None
        self._was_listed = False

    def edge(self, tag: str) -> Edge:
        """Return the edge that begins at a tag of the source."""
        return Edge(self._source, tag, self.repository, target_tag(self._template, tag))

    def recall(self, tag: str) -> Memory | None:
        """Return what is remembered of the edge that begins at a tag."""
        return self.memory.get((tag, self.edge(tag).target_tag))

    def has(self, digest: Digest) -> bool:
        """Whether the repository has a manifest and all below it, as was seen in this attempt."""
        return digest in self._whole

    def has_referred(self, digest: Digest) -> bool:
        """Whether what refers to a manifest was copied in this attempt."""
        return digest in self._referred

    def moved(self) -> Bytes:
        """Return what was sent so far, or foreseen, and what was not needed."""
        # A copy counts what it mounted as skipped.
        mounted_bytes = self.remote.mounted_bytes
        return Bytes(
            sent=self._sent_bytes,
            mounted=mounted_bytes + self._mountable_bytes,
            skipped=self._skipped_bytes - mounted_bytes,
        )

    async def list_tags(self) -> None:
        """Ask once for all tags, so that those it lacks need not be asked for."""
        if self._was_listed:
            return
        self._was_listed = True
        try:
            self._tags = {tag.name: tag.digest async for tag in self.remote.tags()}
        except ContentNotFoundError:
            self._tags = {}
        except KitdError:
            # Each tag can be asked for as well, and has its own trouble if there is some.
            self._tags = None

    async def look(self, tag: str) -> Digest | None:
        """Return what the target's tag names, or did when it was asked for all; None: nothing."""
        name = check_tag(self.edge(tag).target_tag)
        if self._tags is not None:
            listed = self._tags.get(name)
            if listed is not None or name not in self._tags:
                return listed
        return await self.names(tag)

    async def names(self, tag: str) -> Digest | None:
        """Return what the target's tag names now; None if there is none."""
        try:
            return (await self.remote.resolve(check_tag(self.edge(tag).target_tag))).digest
        except ContentNotFoundError:
            return None

    async def carry(
        self,
        source: Fetcher,
        root: Descriptor,
        tags: Sequence[str],
        *,
        referrers: Referrers | None,
        still: Still,
        progress: Callable[[int, int], None],
    ) -> Moved:
        """Copy a graph, with what `referrers` lists for it, and then let tags name it."""
        left: set[str] = set()
        listed = () if referrers is None else await referrers.referrers(root.digest)

        async def moves(tag: str) -> bool:
            if await still(tag):
                return True
            left.add(tag)
            return False

        async def publish(node: Descriptor) -> int:
            if await moves(tags[0]):
                return await self.remote.publish(node, source, self.edge(tags[0]).target_tag)
            # It is neither sent nor there.
            self._skipped_bytes -= node.size
            return 0

        # Who finds it by its tag finds what refers to it, or to a part of it: that has to be there
        # first.
        is_index = root.media_type in INDEXES
        at_once = len(tags) == 1 and not listed and (referrers is None or not is_index)
        sent_bytes = 0
        notes: tuple[str, ...] = ()
        manifests: tuple[Descriptor, ...] = (root,)
        if not self.has(root.digest) or at_once:
            report = await copy_graph(
                source,
                self._present,
                root,
                concurrency=self._transfers,
                progress=progress,
                publish=publish if at_once else None,
            )
            sent_bytes += report.sent_bytes
            self._skipped_bytes += report.skipped_bytes
            manifests = report.manifests
        if referrers is not None:
            more = await self._refer(source, manifests, referrers)
            sent_bytes, notes = sent_bytes + more.sent_bytes, more.notes
        if not at_once:
            for tag in tags:
                if await moves(tag):
                    await self.remote.tag(root, check_tag(self.edge(tag).target_tag))
        if not left:
            self._whole.add(root.digest)
        self._sent_bytes += sent_bytes
        return Moved(sent_bytes, referrers is not None, manifests, frozenset(left), notes)

    async def refer(self, source: Fetcher, root: Descriptor, referrers: Referrers) -> Moved:
        """Copy what refers to a graph that the target has."""
        moved = await self._refer(source, await manifests_of(source, root), referrers)
        self._sent_bytes += moved.sent_bytes
        return moved

    async def _refer(
        self,
        source: Fetcher,
        subjects: Sequence[Descriptor],
        referrers: Referrers,
    ) -> Moved:
        report = await copy_referrers(
            source,
            self._present,
            subjects,
            listed=referrers.referrers,
            resolve=referrers.resolve,
            concurrency=self._transfers,
        )
        self._skipped_bytes += report.skipped_bytes
        self._referred.update(subject.digest for subject in subjects)
        return Moved(report.sent_bytes, referred=True, notes=report.notes)

    async def foresee(self, nodes: Sequence[Descriptor]) -> int:
        """Return how many bytes a copy of these would send, and count what it would not."""
        sent_bytes = 0
        for node in nodes:
            if node.digest in self._foreseen:
                continue
            # Whoever comes next finds it there.
            self._foreseen.add(node.digest)
            need = await self.remote.need(node)
            if need is Need.BYTES or (need is Need.MOUNT and is_manifest(node.media_type)):
                sent_bytes += node.size
            elif need is Need.MOUNT:
                self._mountable_bytes += node.size
            else:
                self._skipped_bytes += node.size
        self._sent_bytes += sent_bytes
        return sent_bytes
