"""The kits that a project's kit builds on, for the workers that pack it."""

from collections.abc import Awaitable, Callable, Sequence

from kitd.blocking import run_blocking
from kitd.content.store import ContentNotFoundError, Fetcher
from kitd.jobs.parents import Parent, follow
from kitd.jobs.port import Catalog, Remote
from kitd.modelkit.chain import Trail
from kitd.modelkit.config_blob import MAX_CONFIG_BYTES, encode_config
from kitd.modelkit.errors import UnsupportedKitError
from kitd.oci.descriptor import Descriptor
from kitd.oci.reference import Reference, Repository, parse_reference
from kitd.packing.order import ParentKit


class ParentFinder:
    """Finds parents in the cache first, and then in their registries with kitd's own settings."""

    def __init__(
        self,
        catalog: Catalog,
        cache: Fetcher,
        remote: Callable[[Repository], Awaitable[Remote]],
    ) -> None:
        self._catalog = catalog
        self._cache = cache
        self._remote = remote

    async def find(self, reference: str, *, cached_only: bool) -> tuple[ParentKit, ...]:
        """Return a kit and all that it builds on, the nearest first.

        With `cached_only` no registry is asked: a Kitfile's author is not to send kitd anywhere
        with rights that are not his. Raises `KitdError`.
        """

        async def find(parent: Reference) -> tuple[Fetcher, Descriptor]:
            try:
                found = await self._catalog.resolve(parent.repository, parent.identifier)
            except ContentNotFoundError as error:
                if parent.repository.is_local:
                    raise ContentNotFoundError(
                        f"{parent}, which model.path leads to, is not in the cache",
                        hint="pack it first; a file with such a name has to be renamed",
                    ) from error
                if cached_only:
                    raise ContentNotFoundError(
                        f"{parent}, which model.path leads to, is not in the cache",
                        hint=f"kitctl pull {parent}",
                    ) from error
                remote = await self._remote(parent.repository)
                return remote, await remote.resolve(parent.identifier)
            return self._cache, found

        parents = await follow(parse_reference(reference), find, Trail.begin())
        return await run_blocking(_for_worker, parents)


def _for_worker(parents: Sequence[Parent]) -> tuple[ParentKit, ...]:
    kits = tuple(
        ParentKit(str(parent.reference), encode_config(parent.kitfile).decode())
        for parent in parents
    )
    if sum(len(kit.config) for kit in kits) > MAX_CONFIG_BYTES:
        raise UnsupportedKitError(
            f"the Kitfiles of {kits[0].reference} and what it builds on are larger than"
            f" {MAX_CONFIG_BYTES} bytes"
        )
    return kits
