"""The source of a mirror, for one attempt: what it is asked, and what of that is known."""

import time
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from typing import ClassVar

from kitd.content.shared import SharedSource
from kitd.content.store import ByteStream, ContentNotFoundError
from kitd.content.verify import read, read_manifest
from kitd.errors import Disposition, KitdError
from kitd.jobs.port import MirrorRemote
from kitd.oci.created import MAX_CONFIG_BYTES, created_by_annotation, created_by_config
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import Digest
from kitd.oci.manifest import Manifest
from kitd.oci.media_type import is_manifest
from kitd.oci.reference import Repository

RESERVE = 0.2
"""What of a registry's quota of pulls is left to people."""
LONGEST_REST_S = 1800.0
"""After so long it is looked whether there are pulls again."""
FRESH_S = 1.0
"""How long it is believed that a tag of the source is where it was."""


class PullsSpentError(KitdError):
    """The registry allows few more pulls for now, and those are left to people."""

    code: ClassVar[str] = "pulls_spent"
    disposition: ClassVar[Disposition] = Disposition.RETRY


class Pulls:
    """What a registry that counts pulls, which are reads of manifests, has left for a mirror.

    It is the `Fetcher` that manifests are read through: each asks for its pull. With `leaves` a
    part of them is for people.
    """

    def __init__(self, remote: MirrorRemote, registry: str, *, leaves: bool) -> None:
        self.exists = remote.exists
        self._remote = remote
        self._registry = registry
        self._leaves = leaves
        self._pulling = 0

    @property
    def are_few(self) -> bool:
        """Whether they are counted and have to be done with."""
        return self._leaves and self._remote.pulls_left() is not None

    @asynccontextmanager
    async def fetch(self, target: Descriptor, *, offset: int = 0) -> AsyncIterator[ByteStream]:
        """Open content. Raises `PullsSpentError` where that would take a pull of people's."""
        pull = self.one() if is_manifest(target.media_type) else nullcontext()
        with pull:
            async with self._remote.fetch(target, offset=offset) as stream:
                yield stream

    @contextmanager
    def one(self) -> Iterator[None]:
        """Take a pull. Raises `PullsSpentError`."""
        spent = self.spent()
        if spent is not None:
            raise spent
        self._pulling += 1
        try:
            yield
        finally:
            self._pulling -= 1

    def spent(self) -> PullsSpentError | None:
        """Return why nothing more is pulled, where the rest is left to people."""
        left = self._remote.pulls_left()
        if left is None or not self._leaves:
            return None
        remaining, limit, window_s = left
        # What is on its way was not counted yet when that was said.
        if remaining - self._pulling > limit * RESERVE:
            return None
        error = PullsSpentError(
            f"{self._registry} allows {remaining} of {limit} pulls for now,"
            " which are left to people",
            hint="log in for more, or have it copied all the same: kitctl mirror run NAME",
        )
        error.retry_after_s = min(window_s, LONGEST_REST_S)
        return error


class MirrorSource:
    """A repository that is copied from. Every method raises what its registry raises.

    What it is asked is shared with the jobs that copy from it to elsewhere, as far as they came
    before. `content` is where copies read from, `pulls` what they read through.
    """

    def __init__(
        self,
        repository: Repository,
        remote: MirrorRemote,
        content: SharedSource,
        pulls: Pulls,
        *,
        by_many: bool,
    ) -> None:
        self.repository = repository
        self.content = content
        self.pulls = pulls
        self.listed: Mapping[str, Digest | None] | None = None
        """All its tags, once it was asked for them, with what they name where it says so."""
        self._remote = remote
        self._by_many = by_many
        self._listed_s = 0.0
        self._roots: dict[Digest, Descriptor] = {}
        self._asked_s: dict[str, float] = {}
        """When it was asked for a tag, and not for a list of them."""

    async def list_tags(self) -> Mapping[str, Digest | None]:
        """Ask for all tags. Raises `ContentNotFoundError` where there is no such repository."""
        if self.listed is not None:
            return self.listed
        listed, self._listed_s = await self.content.ask("tags", self._list)
        self.listed = listed
        return listed

    async def _list(self) -> tuple[Mapping[str, Digest | None], float]:
        asked_s = time.monotonic()
        return {tag.name: tag.digest async for tag in self._remote.tags()}, asked_s

    async def look(self, tag: str, *, to_copy: bool) -> Digest:
        """Return what a tag names; it is likely `to_copy`.

        Raises `ContentNotFoundError`.
        """
        listed = (self.listed or {}).get(tag)
        if listed is not None:
            return listed
        if not to_copy or self._by_many or self.pulls.spent() is not None:
            root, asked_s = await self.content.ask(("tag", tag), lambda: self._resolve(tag))
            return self._know(tag, root, asked_s)
        # One request tells what it is, and has it.
        asked_s = time.monotonic()
        with self.pulls.one():
            root, content = await self._remote.read_tag(tag)
        self.content.offer(root, content)
        return self._know(tag, root, asked_s)

    async def names(self, tag: str) -> Digest | None:
        """Return what a tag names now, None for nothing."""
        try:
            root, asked_s = await self._resolve(tag)
        except ContentNotFoundError:
            return None
        return self._know(tag, root, asked_s)

    async def _resolve(self, tag: str) -> tuple[Descriptor, float]:
        """Return what a tag names, and when that was asked."""
        asked_s = time.monotonic()
        return await self._remote.resolve(tag), asked_s

    def was_asked(self, tag: str) -> bool:
        """Whether it was asked for a tag a moment ago."""
        return time.monotonic() - self._asked_s.get(tag, -FRESH_S) < FRESH_S

    def forget(self, tags: Collection[str]) -> None:
        """Forget when it was asked for tags: those are done with."""
        for tag in tags:
            self._asked_s.pop(tag, None)
        self._roots.clear()

    async def root(self, digest: Digest) -> Descriptor:
        """Return the manifest of a digest."""
        root = self._roots.get(digest)
        if root is None:
            root = self._roots[digest] = await self._remote.resolve(digest)
        return root

    async def manifest(self, digest: Digest) -> Manifest:
        """Return the content of a manifest."""
        return await read_manifest(self.content, await self.root(digest))

    async def made_us(self, digest: Digest) -> int | None:
        """Return when a manifest was made (microseconds since the epoch), None if it says nothing.

        Raises `PullsSpentError` where that would take a pull that is left to people.
        """
        manifest = await self.manifest(digest)
        at_us, config = created_by_annotation(manifest.annotations), manifest.config
        if at_us is None and config is not None and config.size <= MAX_CONFIG_BYTES:
            at_us = created_by_config(await read(self.content, config, max_bytes=MAX_CONFIG_BYTES))
        return at_us

    async def referrers(self, subject: Digest) -> Sequence[Descriptor]:
        """Return what is listed as referring to a manifest, unchecked."""
        # The list of tags may say that there are none: then the answer is as old as that.
        what = ("referrers", subject, self._listed_s)
        return await self.content.ask(what, lambda: self._remote.referrers(subject, self.listed))

    async def resolve(self, digest: Digest) -> Descriptor:
        """Return what a digest of such a list really names."""
        return await self._remote.resolve(digest)

    def _know(self, tag: str, root: Descriptor, asked_s: float) -> Digest:
        self._roots[root.digest] = root
        self._asked_s[tag] = asked_s
        return root.digest
