"""The content interfaces: small enough to compose, complete enough to copy a graph."""

import enum
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import ClassVar, Protocol

from kitd.errors import Disposition, KitdError, NotFoundError
from kitd.oci.descriptor import Descriptor

CHUNK_BYTES = 1 << 20
"""How much of a blob is in memory at once, per stream."""

Chunk = bytes | bytearray | memoryview
ByteStream = AsyncIterator[Chunk]
"""Chunks of at most `CHUNK_BYTES`, in order. Who iterates it must exhaust or close it."""


class ContentError(KitdError):
    """A content store could not do what it was asked to."""

    code = "content"


class ContentNotFoundError(NotFoundError):
    """The store does not hold the content or the name."""


class MismatchError(ContentError):
    """Bytes do not have the digest or the size that was promised."""

    code = "digest_mismatch"
    disposition: ClassVar[Disposition] = Disposition.RETRY


class ContentTooLargeError(ContentError):
    """A manifest or a config has more bytes than kitd reads of one."""

    code = "too_large"


class CollectedError(ContentError):
    """Content that was there a moment ago was collected: it has to be made once more."""

    code = "collected"
    disposition: ClassVar[Disposition] = Disposition.SNOOZE


class Need(enum.Enum):
    """What it takes to have a blob in a repository."""

    NOTHING = enum.auto()
    MOUNT = enum.auto()
    """Another repository of the registry is thought to have it."""
    BYTES = enum.auto()


class Fetcher(Protocol):
    """Reads content by descriptor."""

    def fetch(
        self, target: Descriptor, *, offset: int = 0
    ) -> AbstractAsyncContextManager[ByteStream]:
        """Open the content from `offset`; closing the context ends the transfer.

        The stream is exactly as long as `target.size - offset` or raises `MismatchError`. Who needs
        the digest checked reads through `kitd.content.verify` or writes into a store that does.
        Raises `ContentNotFoundError`.
        """
        ...

    async def exists(self, target: Descriptor) -> bool:
        """Whether the store holds this content."""
        ...


class Pusher(Protocol):
    """Takes content by descriptor."""

    async def push(self, target: Descriptor, source: Fetcher) -> int:
        """Make the content present and return the bytes that were moved for it.

        0 means that nothing had to be moved. The source is a store and not a stream so that a
        transfer can go on from any offset. When this returns the content is durable and has
        the digest and the size of `target`; when it raises nothing was published.
        """
        ...


class Resolver(Protocol):
    """Turns names into descriptors."""

    async def resolve(self, identifier: str) -> Descriptor:
        """Return the manifest that a tag or a digest names. Raises `ContentNotFoundError`."""
        ...


class Tagger(Protocol):
    """Names manifests."""

    async def tag(self, target: Descriptor, tag: str) -> None:
        """Let `tag` name a manifest that the store holds already."""
        ...


class Target(Fetcher, Pusher, Protocol):
    """What a graph can be copied to."""
