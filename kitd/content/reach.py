"""All that the catalogue's manifests need: from the cache, or from where it is known to be."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from kitd.content.store import ByteStream, ContentNotFoundError, Fetcher
from kitd.errors import KitdError
from kitd.oci.descriptor import Descriptor
from kitd.oci.digest import Digest
from kitd.oci.reference import Repository


class Reach:
    """`Fetcher` over the cache, and over repositories for what the cache was not given.

    `places` are those that had a blob when it was last seen. What comes from them is as unproven as
    whatever a registry sends: who reads it checks it.
    """

    def __init__(
        self,
        cache: Fetcher,
        places: Callable[[Digest], Awaitable[Sequence[Repository]]],
        remote: Callable[[Repository], Awaitable[Fetcher]],
    ) -> None:
        self._cache = cache
        self._places = places
        self._remote = remote

    def within(self, may_reach: Callable[[Repository], bool]) -> "Reach":
        """Return the same without the places that somebody is not to be served from."""

        async def places(digest: Digest) -> Sequence[Repository]:
            return [place for place in await self._places(digest) if may_reach(place)]

        return Reach(self._cache, places, self._remote)

    async def exists(self, target: Descriptor) -> bool:
        """Whether the content is here, or a place is known that had it."""
        return await self._cache.exists(target) or bool(await self._places(target.digest))

    @asynccontextmanager
    async def fetch(self, target: Descriptor, *, offset: int = 0) -> AsyncIterator[ByteStream]:
        """Open the content from `offset`, wherever it is. Raises what the places do."""
        async with AsyncExitStack() as stack:
            yield await self._open(stack, target, offset)

    async def _open(self, stack: AsyncExitStack, target: Descriptor, offset: int) -> ByteStream:
        if await self._cache.exists(target):
            return await stack.enter_async_context(self._cache.fetch(target, offset=offset))
        failure: KitdError = ContentNotFoundError(
            f"{target.digest} is not in the cache, and no registry is known to have it",
            hint="pull the kit again, or pack it again",
        )
        for repository in await self._places(target.digest):
            try:
                source = await self._remote(repository)
                return await stack.enter_async_context(source.fetch(target, offset=offset))
            except KitdError as error:
                failure = error
        raise failure
