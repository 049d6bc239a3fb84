"""Tags that go with their manifests, at registries that delete manifests and remove no tags.

distribution 2 takes all tags of a manifest that is deleted, and leaves indexes that list it broken.
So the whole repository is looked at first, and what may go is decided on that
(`kitd.mirror.removal`). An index that no tag names is seen by nobody, and protects nothing.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from kitd.content.store import ContentError, Fetcher
from kitd.content.together import all_of
from kitd.content.verify import read_manifest
from kitd.mirror.removal import Fate, Outcome, plan_removal
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import Digest
from kitd.oci.manifest import InvalidManifestError
from kitd.oci.media_type import INDEXES
from kitd.oci.reference import Repository
from kitd.oci.tag_list import ListedTag
from kitd.registry.errors import RegistryError, RegistryNotFoundError, UnsafeRemovalError

MAX_TAGS = 1000
MAX_INDEXES = 1000
MAX_LISTED = 100_000
"""Manifests that all indexes of a repository list together."""
MAX_DEPTH = 8
"""How deep indexes list indexes."""
LOOKS = 8
"""Requests at once."""
LOOKS_AGAIN = 200
"""Tags that are looked at once more for each manifest that is deleted: where there are more, all of
them before several deletions."""


class Remote(Fetcher, Protocol):
    """A repository that is looked at as a whole: see `kitd.registry.repository`."""

    @property
    def repository(self) -> Repository:
        """Which one it is."""
        ...

    def tags(self) -> AsyncIterator[ListedTag]:
        """Yield the tags."""
        ...

    async def delete_manifest(self, digest: Digest) -> bool:
        """Delete a manifest; whether it was there."""
        ...


Resolve = Callable[[str], Awaitable[Descriptor]]
"""Says what a tag names, by the word of the registry itself."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """A repository as it was a moment ago."""

    names: frozenset[str]
    """The tags that were looked for, whether they named something or not."""
    tags: Mapping[str, Digest]
    children: Mapping[Digest, Collection[Digest]]


async def remove_tagged(
    remote: Remote, resolve: Resolve, going: Mapping[str, Digest]
) -> Mapping[str, Fate]:
    """Delete the manifests that `going` names, as far as nothing else goes with them.

    Returns what became of each tag. Raises `UnsafeRemovalError` where the repository cannot be seen
    whole, `RegistryUnsupportedError` where the registry deletes nothing, and `RegistryError`: what
    went by then is absent the next time.
    """
    look = _Look(remote, resolve)
    seen = await look.at_all(going)
    removal = plan_removal(seen.tags, seen.children, going)
    fates = dict(removal.kept)
    is_as_seen = True
    every = -(-len(seen.names) // LOOKS_AGAIN)
    for turn, digest in enumerate(removal.digests):
        tags = [tag for tag in going if seen.tags.get(tag) == digest]
        again = seen.names if turn % every == 0 else tags
        # Of what has changed once the rest is not known either.
        is_as_seen = is_as_seen and await look.is_as_seen(seen, digest, tags, again)
        outcome = Outcome.CHANGED
        if is_as_seen:
            was_there = await remote.delete_manifest(digest)
            outcome = Outcome.REMOVED if was_there else Outcome.ABSENT
        fates.update((tag, Fate(outcome)) for tag in tags if tag not in fates)
    return fates


class _Look:
    """Looks at one repository."""

    def __init__(self, remote: Remote, resolve: Resolve) -> None:
        self._remote = remote
        self._ask = resolve
        self._turns = asyncio.Semaphore(LOOKS)

    async def at_all(self, going: Iterable[str]) -> _Seen:
        """Return all tags and what is below them."""
        names = frozenset(await self._names()) | frozenset(going)
        found = await self._resolve(names)
        tags = {tag: target.digest for tag, target in found.items()}
        return _Seen(names, tags, await self._children(found.values()))

    async def is_as_seen(
        self, seen: _Seen, digest: Digest, tags: Collection[str], again: Collection[str]
    ) -> bool:
        """Whether `tags` still name a manifest, and nothing else can have come to do with it.

        Of the tags that were there, those in `again` are looked at.
        """
        found = await self._resolve({*(await self._names() - seen.names), *again})
        if any(
            target.digest == digest or target.media_type in INDEXES
            for tag, target in found.items()
            if tag not in tags and target.digest != seen.tags.get(tag)
        ):
            return False
        return all(tag in found and found[tag].digest == digest for tag in tags)

    async def _names(self) -> set[str]:
        names: set[str] = set()
        try:
            async for tag in self._remote.tags():
                names.add(tag.name)
                if len(names) > MAX_TAGS:
                    raise self._unsafe(f"it has more than {MAX_TAGS} tags")
        except RegistryNotFoundError:
            # What has no tags is no repository to some registries.
            return set()
        return names

    async def _resolve(self, tags: Iterable[str]) -> dict[str, Descriptor]:
        """Return what tags name; some lists have tags that name nothing any more."""

        async def one(tag: str) -> Descriptor | None:
            async with self._turns:
                try:
                    return await self._ask(tag)
                except RegistryNotFoundError:
                    return None

        names = tuple(tags)
        found = zip(names, await all_of(map(one, names)), strict=True)
        return {name: target for name, target in found if target is not None}

    async def _children(self, roots: Iterable[Descriptor]) -> Mapping[Digest, Collection[Digest]]:
        """Return what each index lists."""
        children: dict[Digest, Collection[Digest]] = {}
        level = _indexes(roots, children)
        for _ in range(MAX_DEPTH):
            if not level:
                return children
            if len(children) + len(level) > MAX_INDEXES:
                raise self._unsafe(f"it has more than {MAX_INDEXES} indexes")
            listed = await all_of(map(self._list, level.values()))
            for index, entries in zip(level, listed, strict=True):
                children[index] = frozenset(entry.digest for entry in entries)
            if sum(map(len, children.values())) > MAX_LISTED:
                raise self._unsafe(f"its indexes list more than {MAX_LISTED} manifests")
            level = _indexes((entry for entries in listed for entry in entries), children)
        raise self._unsafe(f"its indexes are more than {MAX_DEPTH} deep")

    async def _list(self, index: Descriptor) -> Collection[Descriptor]:
        async with self._turns:
            try:
                return (await read_manifest(self._remote, index)).manifests
            except RegistryNotFoundError:
                # What nobody can read lists nothing.
                return ()
            except RegistryError:
                raise
            except (ContentError, InvalidManifestError) as error:
                raise self._unsafe(f"an index cannot be read: {error}") from error

    def _unsafe(self, reason: str) -> UnsafeRemovalError:
        host = self._remote.repository.registry
        return UnsafeRemovalError(
            f"it deletes manifests and no tags, and {reason}",
            host=host,
            operation=f"see what may be deleted in {self._remote.repository.name}",
            hint=f"delete it where {host} is administered",
        )


def _indexes(
    targets: Iterable[Descriptor], known: Mapping[Digest, object]
) -> dict[Digest, Descriptor]:
    return {
        target.digest: target
        for target in targets
        if target.media_type in INDEXES and target.digest not in known
    }
